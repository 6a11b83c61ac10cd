//! The thread that writes lines.

use super::gate::Gate;
use super::room::Room;
use super::{Batch, Line, Lost};
use crate::audit::rotation::{Rotation, Rotator, is_alone};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(super) struct Writer {
    path: PathBuf,
    /// `None`: standard output.
    pub(super) file: Option<(File, Rotator)>,
    pub(super) size: u64,
    /// What is there ends within a line.
    torn: bool,
}

/// Writes as much as can be, and tells how much that is.
fn put(out: &mut impl Write, mut text: &[u8]) -> (usize, std::io::Result<()>) {
    let mut put = 0;
    while !text.is_empty() {
        match out.write(text) {
            Ok(0) => return (put, Err(std::io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                put += written;
                text = &text[written..];
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return (put, Err(error)),
        }
    }
    (put, Ok(()))
}

impl Writer {
    pub(super) fn open(path: &Path, rotation: Rotation) -> std::io::Result<Self> {
        let file = if path.as_os_str() == "-" {
            None
        } else {
            let rotator = Rotator::start(path, rotation)?;
            Some((rotator.open()?, rotator))
        };
        let size = file.as_ref().map_or(Ok(0), |(file, _)| file.metadata().map(|file| file.len()))?;
        Ok(Writer { path: path.to_owned(), file, size, torn: false })
    }

    pub(super) async fn run(
        mut self,
        mut lines: mpsc::UnboundedReceiver<Line>,
        room: &Room,
        lost: &Lost,
        batch: Batch,
        ending: &CancellationToken,
    ) {
        let mut gate = batch.throttle.map(|throttle| Gate::new(throttle, Instant::now()));
        let mut group = Vec::new();
        while let Some(first) = lines.recv().await {
            group.push(first.taken());
            gather(&mut group, &mut lines, room, batch, ending).await;
            if let Some(gate) = &mut gate {
                let turn = tokio::time::sleep(gate.wait(Instant::now()));
                // Rather too early than not at all.
                tokio::select! {
                    biased;
                    () = turn => {}
                    () = ending.cancelled() => {}
                    () = room.short() => gate.forgive(),
                }
            }
            for Line { mut text, place, written } in group.drain(..) {
                text.push(b'\n');
                let done = self.write(&text);
                if let Err(error) = &done {
                    lost.count(&lost.log, &format_args!("{} cannot be written: {error}", self.path.display()));
                }
                // Who does not wait any more does not want to know.
                written.map(|written| written.send(done.is_ok()));
                drop(place);
            }
        }
    }

    pub(super) fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if let Some((file, rotator)) = &mut self.file
            && rotator.is_due(self.size, line.len() as u64)
            && let Some(new) = rotator.rotate(file)
        {
            // Somebody else may have begun it.
            self.size = new.metadata().map_or(0, |new| new.len());
            *file = new;
            self.torn = false;
        }
        if self.torn {
            let (_, done) = self.put(b"\n");
            done?;
            self.torn = false;
        }
        let (put, done) = self.put(line);
        if done.is_err() {
            self.take_back(put);
        }
        done
    }

    pub(super) fn put(&mut self, text: &[u8]) -> (usize, std::io::Result<()>) {
        let (put, done) = match &mut self.file {
            Some((file, _)) => put(file, text),
            None => put(&mut std::io::stdout().lock(), text),
        };
        self.size += put as u64;
        (put, done)
    }

    /// Cuts off the beginning of a line that could not be written as a whole, or else sees to it that the next one is not added
    /// to it.
    pub(super) fn take_back(&mut self, put: usize) {
        if put == 0 {
            return;
        }
        let cut = self.file.as_ref().map(|(file, _)| {
            // What the file is, and not what it was: somebody else may have emptied it.
            let length = file.metadata()?.len().checked_sub(put as u64);
            let length = length.ok_or(std::io::ErrorKind::InvalidInput)?;
            // What ends there may be another's.
            if !is_alone(file) {
                return Err(std::io::ErrorKind::ResourceBusy.into());
            }
            file.set_len(length)?;
            Ok::<_, std::io::Error>(length)
        });
        match cut {
            Some(Ok(length)) => self.size = length,
            // No file, or nothing that can be cut.
            Some(Err(_)) | None => self.torn = true,
        }
    }
}

/// Adds to a group what comes in time for it: until it is full, there is little room, or nothing more is to come.
async fn gather(
    group: &mut Vec<Line>,
    lines: &mut mpsc::UnboundedReceiver<Line>,
    room: &Room,
    batch: Batch,
    ending: &CancellationToken,
) {
    let over = tokio::time::sleep(batch.wait);
    tokio::pin!(over);
    while group.len() < batch.size && !room.is_short() {
        tokio::select! {
            biased;
            line = lines.recv() => match line {
                Some(line) => group.push(line.taken()),
                None => return,
            },
            () = ending.cancelled() => return,
            () = &mut over => return,
        }
    }
}
