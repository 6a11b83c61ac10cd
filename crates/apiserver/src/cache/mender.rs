//! Reads again what could not be read: a key, or the plugin that has it, may be there now. Beside the task that feeds the
//! caches, which waits for nobody.

use super::cacher::{Cacher, Chain, Parsed, Raw};
use super::feed::Caches;
use super::parsers::{PIECE, Parsers};
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use store::{KeyRange, Range, Store};
use tokio::time::Instant;

/// How often is looked, and how long a storage is left alone in which nothing new could be read: twice as long each time,
/// up to so long.
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How many keys of a storage are read to find out whether it is worth it to read all.
pub(super) const TRIED: usize = 256;
/// How many are read at a time.
const AT_ONCE: usize = 16;

/// What was tried of a storage in vain.
#[derive(Debug)]
pub(super) struct Tried {
    /// The last key.
    after: String,
    /// The newest version that cannot be read.
    newest: u64,
    pause: Duration,
    until: Instant,
}

#[cfg(test)]
impl Tried {
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }
}

/// Mends for as long as there are caches. The storages do not wait for each other: the plugin of one may hang, which says
/// nothing of another's.
pub(super) async fn run(caches: Weak<Caches>) {
    let mut tick = tokio::time::interval(PAUSE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut running = FuturesUnordered::new();
    let mut busy = HashSet::new();
    let mut tried = HashMap::new();
    loop {
        tokio::select! {
            biased;
            Some((prefix, after)) = running.next() => {
                busy.remove(&prefix);
                if let Some(after) = after {
                    tried.insert(prefix, after);
                }
            }
            _ = tick.tick() => {
                let Some(caches) = caches.upgrade() else { return };
                for cacher in caches.all() {
                    let prefix = cacher.layout.prefix.clone();
                    if !busy.insert(prefix.clone()) {
                        continue;
                    }
                    let (store, before) = (caches.store().clone(), tried.remove(&prefix));
                    running.push(async move { (prefix, look(&*store, &cacher, before).await) });
                }
            }
        }
    }
}

/// Mends a storage if there is something to mend, and it is time.
async fn look(store: &dyn Store, cacher: &Arc<Cacher>, before: Option<Tried>) -> Option<Tried> {
    let newest = cacher.newest_unreadable()?;
    match before {
        Some(before) if before.newest == newest && Instant::now() < before.until => Some(before),
        before => match mend(store, cacher, before).await {
            Ok(tried) => tried,
            Err(error) => {
                let prefix = &cacher.layout.prefix;
                tracing::warn!(prefix, error = %Chain(&error), "what cannot be read is not read again yet");
                None
            }
        },
    }
}

/// Reads some of the keys again that cannot be read, each by itself, and all of them if one of those can be. Where it was in
/// vain is where it goes on the next time.
pub(super) async fn mend(
    store: &dyn Store,
    cacher: &Arc<Cacher>,
    before: Option<Tried>,
) -> Result<Option<Tried>, store::Error> {
    let unreadable = cacher.unreadable();
    let Some(newest) = unreadable.iter().map(|unreadable| unreadable.revision).max() else { return Ok(None) };
    let mut keys: Vec<String> = unreadable.into_iter().map(|unreadable| unreadable.key).collect();
    if let Some(before) = &before {
        let next = keys.partition_point(|key| *key <= before.after);
        keys.rotate_left(next);
    }
    let rest = keys.split_off(keys.len().min(TRIED));
    let after = keys.last().cloned().unwrap_or_default();
    let mut found = read(store, cacher, keys).await?;
    if found.iter().any(|raw| cacher.reads(raw)) {
        found.extend(read(store, cacher, rest).await?);
        cacher.mend(parse(cacher, found).await?);
        return Ok(None);
    }
    // Why it can't may be another reason now.
    cacher.mend(parse(cacher, found).await?);
    let pause = before.filter(|before| before.newest == newest).map_or(PAUSE, |before| before.pause * 2);
    let pause = pause.min(LONGEST_PAUSE);
    Ok(Some(Tried { after, newest, pause, until: Instant::now() + pause }))
}

async fn read(store: &dyn Store, cacher: &Arc<Cacher>, keys: Vec<String>) -> Result<Vec<Raw>, store::Error> {
    let reading = futures::stream::iter(keys).map(|key| async move {
        let full = format!("{}{key}", cacher.layout.prefix);
        let read = store.range(Range::of(KeyRange::key(full))).await?;
        let raw = |kv: store::KeyValue| Raw { key, revision: kv.mod_revision.cast_unsigned(), value: Some(kv.value) };
        Ok::<_, store::Error>(read.kvs.into_iter().next().map(raw))
    });
    let found: Vec<Option<Raw>> = reading.buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

async fn parse(cacher: &Arc<Cacher>, mut raws: Vec<Raw>) -> Result<Vec<Parsed>, store::Error> {
    let mut parsers = Parsers::new();
    let mut parsed = Vec::with_capacity(raws.len());
    while !raws.is_empty() {
        let piece = raws.split_off(raws.len().saturating_sub(PIECE));
        parsed.extend(parsers.parse(cacher, piece).await?.into_iter().flat_map(|(_, parsed)| parsed));
    }
    while let Some((_, piece)) = parsers.next().await? {
        parsed.extend(piece);
    }
    Ok(parsed)
}
