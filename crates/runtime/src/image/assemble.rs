//! Gets the layers of one image unpacked: in parallel, each once however many images want it.

use std::{future::Future, io::Read, sync::Arc};

use tokio::{sync::mpsc, task::JoinSet};

use super::{error::Error, manifest::Descriptor, store::Inner};
use crate::content::{Decompressed, Digest, Grafts, HashingReader, Layers, Making, Mismatch, Staged, Usage, unpack};

/// A layer to be: how it is recognised before and after.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) diff_id: Digest,
    pub(super) chain_id: Digest,
}

/// A layer that is unpacked, but not yet on top of the others.
pub(super) struct Unpacked {
    staged: Staged,
    usage: Usage,
    grafts: Grafts,
}

/// Makes every layer of `plans` (the lowest first) exist. `obtain` is called with the number of
/// each layer that doesn't, with at most as many running at a time as downloads are allowed.
///
/// When it fails, layers that were finished stay for the next attempt.
pub(super) async fn assemble<F>(inner: &Arc<Inner>, plans: &[Plan], obtain: impl Fn(usize) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<Unpacked, Error>> + Send + 'static,
{
    let mut tasks: JoinSet<Result<_, Error>> = JoinSet::new();
    for (number, plan) in plans.iter().enumerate() {
        let (inner, chain_id, obtained) = (inner.clone(), plan.chain_id.clone(), obtain(number));
        tasks.spawn(async move { Ok((number, layer(&inner, chain_id, obtained).await?)) });
    }
    let mut done = vec![false; plans.len()];
    let mut waiting: Vec<Option<(Unpacked, Making)>> = plans.iter().map(|_| None).collect();
    while let Some(task) = tasks.join_next().await {
        let (number, unfinished) = task.map_err(|_| Error::Cancelled)??;
        done[number] = unfinished.is_none();
        waiting[number] = unfinished;
        // What needs the layers below is finished as soon as those are there, and no later: others
        // may be waiting for it while we wait for one of theirs.
        let ready = |done: &[bool]| done.iter().position(|done| !done);
        while let Some(next) = ready(&done)
            && let Some((unpacked, making)) = waiting[next].take()
        {
            let below = plans[..next].iter().rev().map(|plan| plan.chain_id.clone()).collect();
            let (chain_id, diff_id) = (plans[next].chain_id.clone(), plans[next].diff_id.clone());
            commit(inner, unpacked, chain_id, diff_id, below).await?;
            drop(making);
            done[next] = true;
        }
    }
    Ok(())
}

/// One layer: `None` when it is there, what was unpacked when it needs the layers below it.
async fn layer(
    inner: &Arc<Inner>,
    chain_id: Digest,
    obtained: impl Future<Output = Result<Unpacked, Error>> + Send,
) -> Result<Option<(Unpacked, Making)>, Error> {
    let making = inner.layers.lock(&chain_id).await;
    if inner.layers.get(&chain_id).is_some() {
        return Ok(None);
    }
    let unpacked = {
        let _permit = inner.downloads.acquire().await.map_err(|_| Error::Cancelled)?;
        obtained.await?
    };
    if !unpacked.grafts.is_empty() {
        return Ok(Some((unpacked, making)));
    }
    let diff_id = chain_id.clone();
    commit(inner, unpacked, chain_id, diff_id, Vec::new()).await?;
    Ok(None)
}

async fn commit(
    inner: &Arc<Inner>,
    unpacked: Unpacked,
    chain_id: Digest,
    diff_id: Digest,
    below: Vec<Digest>,
) -> Result<(), Error> {
    let layers = inner.layers.clone();
    let Unpacked { staged, usage, grafts } = unpacked;
    let commit = move || layers.commit(staged, chain_id, usage, &grafts, &below);
    let committed = tokio::task::spawn_blocking(commit).await.map_err(|_| Error::Cancelled)?;
    committed.map(drop).map_err(|source| Error::Extract { diff_id, source })
}

/// Unpacks a layer from `stream`, which is verified against `blob` when that is known, and its
/// files against `diff_id`. Blocks.
pub(super) fn unpack_stream(
    layers: &Layers,
    stream: impl Read,
    blob: Option<&Descriptor>,
    diff_id: &Digest,
) -> Result<Unpacked, Error> {
    let extract = |source| Error::Extract { diff_id: diff_id.clone(), source };
    let expected = blob.map_or(diff_id, |blob| &blob.digest);
    let mut stream = HashingReader::new(stream, expected.algorithm(), blob.map(|blob| blob.size));
    let staged = layers.stage().map_err(extract)?;
    let mut inside = || {
        let plain = Decompressed::new(&mut stream)?;
        let mut plain = HashingReader::new(plain, diff_id.algorithm(), None);
        let (usage, grafts) = unpack(&mut plain, &staged.tree(), &staged.scratch())?;
        let (got, _) = plain.finish()?;
        Ok((usage, grafts, got))
    };
    let unpacked = inside();
    // Other bytes than were promised are the better explanation of whatever went wrong inside.
    if let Some(blob) = blob {
        let (got, size) = stream.finish().map_err(extract)?;
        if size != blob.size {
            return Err(Mismatch::Size { got: size, expected: blob.size }.into());
        }
        if got != blob.digest {
            return Err(Mismatch::Digest { got, expected: blob.digest.clone() }.into());
        }
    }
    let (usage, grafts, got) = unpacked.map_err(extract)?;
    if got != *diff_id {
        let (got, expected) = (got.to_string(), diff_id.to_string());
        return Err(Error::DiffId { got, expected });
    }
    Ok(Unpacked { staged, usage, grafts })
}

/// Reads what an async task sends, on a blocking thread.
pub(super) struct ChannelReader {
    receiver: mpsc::Receiver<bytes::Bytes>,
    current: bytes::Bytes,
}

impl ChannelReader {
    /// A sender and the reader of what it sends, which ends when the sender is dropped.
    pub(super) fn new() -> (mpsc::Sender<bytes::Bytes>, Self) {
        let (sender, receiver) = mpsc::channel(16);
        (sender, Self { receiver, current: bytes::Bytes::new() })
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(bytes) => self.current = bytes,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
