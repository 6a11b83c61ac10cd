//! The unpacked layers: one directory each, found by chain ID, shared by every image and container
//! that has the same layers in the same order.
//!
//! A layer is `layers/NUMBER/` with its tree in `fs` and its description in `layer.json`; it is
//! made under `tmp/` and becomes a layer by one rename, after its files have reached the disk. So
//! what is in `layers/` is whole, and what is in `tmp/` is nobody's. The numbers are short because
//! mount options have to name every layer of an image in one page.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use rustix::{fs::FlockOperation, io::Errno};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use super::{
    delete::discard,
    digest::Digest,
    graft::graft,
    unpack::{Grafts, Usage},
};

/// How long a layer is kept that no image has come to use: a pull that failed is usually retried.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the layers of another process are waited for, and how often looked after.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// A finished layer.
#[derive(Debug)]
pub struct Layer {
    /// Its number, which is the name of its directory.
    pub number: u64,
    /// What identifies it: this layer on top of exactly those below it.
    pub chain_id: Digest,
    /// What it takes on disk.
    pub usage: Usage,
    made: SystemTime,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    chain_id: Digest,
    usage: Usage,
}

#[derive(Default)]
struct State {
    layers: HashMap<Digest, Arc<Layer>>,
    pins: HashMap<Digest, Pin>,
    next: u64,
}

#[derive(Default)]
struct Pin {
    count: usize,
    /// Whether an image has owned it, so that it may go as soon as nobody does.
    owned: bool,
}

/// All layers in one directory. Calls block on the disk unless they say otherwise.
pub struct Layers {
    root: PathBuf,
    staging: PathBuf,
    state: Mutex<State>,
    making: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// Its lock says that the directory is ours. It is here because everything that works on
    /// layers, also on behalf of callers that are gone, holds this.
    _lock: File,
}

impl Layers {
    /// Opens the layers under `root`, making it if need be. What a crash has left half done is
    /// cleared away.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when another process has them open and keeps them. When the directories cannot be made or read. A layer whose description can't be read is not
    /// an error: it is removed and counts as absent.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let lock = File::create(root.join("lock"))?;
        take(&lock)?;
        let (layers, staging) = (root.join("layers"), root.join("tmp"));
        for dir in [&layers, &staging] {
            fs::create_dir_all(dir)?;
        }
        let mut leftovers = Vec::new();
        for entry in fs::read_dir(&staging)? {
            leftovers.push(entry?.path());
        }
        let mut state = State { next: 1, ..State::default() };
        for entry in fs::read_dir(&layers)? {
            let path = entry?.path();
            match read_layer(&path) {
                Ok(layer) => {
                    state.next = state.next.max(layer.number + 1);
                    if let Some(twice) = state.layers.insert(layer.chain_id.clone(), Arc::new(layer)) {
                        leftovers.push(layers.join(twice.number.to_string()));
                    }
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "removing a damaged image layer");
                    leftovers.push(path);
                }
            }
        }
        discard(leftovers);
        let (state, making) = (Mutex::new(state), Mutex::default());
        Ok(Self { root: layers, staging, state, making, _lock: lock })
    }

    /// The directory that holds the layers' directories.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A directory for what is being made; the next start clears it.
    pub(crate) fn staging(&self) -> &Path {
        &self.staging
    }

    /// The tree of a layer.
    #[must_use]
    pub fn tree(&self, layer: &Layer) -> PathBuf {
        self.root.join(layer.number.to_string()).join("fs")
    }

    /// The layer with this chain ID, if it is there. Does not block.
    #[must_use]
    pub fn get(&self, chain_id: &Digest) -> Option<Arc<Layer>> {
        self.state().layers.get(chain_id).cloned()
    }

    /// Keeps layers from being collected until the result is dropped, whether they exist already
    /// or are about to be made. Does not block.
    #[must_use]
    pub fn pin(self: &Arc<Self>, chain_ids: Vec<Digest>) -> Pins {
        let mut state = self.state();
        for chain_id in &chain_ids {
            state.pins.entry(chain_id.clone()).or_default().count += 1;
        }
        drop(state);
        Pins { layers: self.clone(), chain_ids }
    }

    /// Waits until nobody else makes this layer; look with [`Layers::get`] whether they have.
    /// Does not block.
    pub async fn lock(&self, chain_id: &Digest) -> Making {
        let lock = {
            let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody waits for a lock that only the table holds.
            making.retain(|_, lock| Arc::strong_count(lock) > 1);
            making.entry(chain_id.clone()).or_default().clone()
        };
        Making(lock.lock_owned().await)
    }

    /// A place to unpack a layer in; removed when dropped.
    pub fn stage(&self) -> io::Result<Staged> {
        let dir = self.grave();
        let staged = Staged { dir: Some(dir.clone()) };
        fs::create_dir(&dir)?;
        fs::create_dir(dir.join("fs"))?;
        fs::create_dir(dir.join("scratch"))?;
        Ok(staged)
    }

    /// Makes what was staged the layer `chain_id`, on top of the layers `below` (the uppermost
    /// first), and waits until it is on disk. The caller holds the [`Layers::lock`] of it.
    ///
    /// # Errors
    ///
    /// When a layer below is not there, when `grafts` cannot be done, or on failing to write.
    pub fn commit(
        &self,
        mut staged: Staged,
        chain_id: Digest,
        usage: Usage,
        grafts: &Grafts,
        below: &[Digest],
    ) -> io::Result<Arc<Layer>> {
        let Some(dir) = staged.dir.clone() else { return Err(io::ErrorKind::NotFound.into()) };
        if !grafts.is_empty() {
            let below: Vec<_> = below
                .iter()
                .map(|chain_id| {
                    let layer = self.get(chain_id).ok_or_else(|| {
                        let message = format!("layer {chain_id} below it is missing");
                        io::Error::new(io::ErrorKind::NotFound, message)
                    })?;
                    Ok(self.tree(&layer))
                })
                .collect::<io::Result<_>>()?;
            let below: Vec<&Path> = below.iter().map(PathBuf::as_path).collect();
            graft(&dir.join("fs"), &below, grafts)?;
        }
        fs::remove_dir_all(dir.join("scratch"))?;
        let description = Description { chain_id, usage };
        fs::write(dir.join("layer.json"), serde_json::to_vec(&description)?)?;
        // One call for the thousands of files of a layer; fsync of each would take minutes.
        rustix::fs::syncfs(File::open(&dir)?)?;

        let number = {
            let mut state = self.state();
            state.next += 1;
            state.next - 1
        };
        fs::rename(&dir, self.root.join(number.to_string()))?;
        staged.dir = None;
        File::open(&self.root)?.sync_all()?;
        let Description { chain_id, usage } = description;
        let layer = Arc::new(Layer { number, chain_id: chain_id.clone(), usage, made: SystemTime::now() });
        self.state().layers.insert(chain_id, layer.clone());
        Ok(layer)
    }

    /// Marks layers as an image's: they go as soon as nobody pins them, not after a day.
    pub fn own(&self, chain_ids: &[Digest]) {
        let mut state = self.state();
        for chain_id in chain_ids {
            state.pins.entry(chain_id.clone()).or_default().owned = true;
        }
    }

    /// Removes the layers that nobody pins. They are gone for everyone when this returns; their
    /// files are deleted behind it.
    pub fn collect(&self) -> io::Result<()> {
        let mut trash = Vec::new();
        let mut state = self.state();
        let now = SystemTime::now();
        let State { layers, pins, .. } = &mut *state;
        let unused: Vec<Digest> = layers
            .values()
            .filter(|layer| match pins.get(&layer.chain_id) {
                Some(Pin { count: 1.., .. }) => false,
                Some(Pin { owned: true, .. }) => true,
                _ => now.duration_since(layer.made).is_ok_and(|age| age > ORPHAN_AGE),
            })
            .map(|layer| layer.chain_id.clone())
            .collect();
        let mut result = Ok(());
        for chain_id in unused {
            let Some(layer) = layers.get(&chain_id) else { continue };
            let grave = self.grave();
            // The rename is what removes it: from here on a restart would not find it either.
            match fs::rename(self.root.join(layer.number.to_string()), &grave) {
                Ok(()) => {
                    layers.remove(&chain_id);
                    trash.push(grave);
                }
                Err(error) => result = Err(error),
            }
        }
        pins.retain(|chain_id, pin| pin.count > 0 || layers.contains_key(chain_id));
        drop(state);
        discard(trash);
        result
    }

    /// A new name in the directory of what is nobody's, which the next start clears.
    pub(crate) fn grave(&self) -> PathBuf {
        self.staging.join(uuid::Uuid::new_v4().simple().to_string())
    }

    /// What all layers take together. Does not block.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for layer in self.state().layers.values() {
            usage += layer.usage;
        }
        usage
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layers").field("root", &self.root).finish_non_exhaustive()
    }
}

/// Layers that are in use; see [`Layers::pin`].
#[derive(Debug)]
pub struct Pins {
    layers: Arc<Layers>,
    chain_ids: Vec<Digest>,
}

impl Pins {
    /// The layers' chain IDs, in the order they were pinned.
    #[must_use]
    pub fn chain_ids(&self) -> &[Digest] {
        &self.chain_ids
    }

    /// The same pins once more.
    #[must_use]
    pub fn again(&self) -> Self {
        self.layers.pin(self.chain_ids.clone())
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut state = self.layers.state();
        for chain_id in &self.chain_ids {
            if let Some(pin) = state.pins.get_mut(chain_id) {
                pin.count = pin.count.saturating_sub(1);
            }
        }
    }
}

/// The right to make one layer, until dropped.
pub struct Making(#[expect(dead_code, reason = "held, not read")] OwnedMutexGuard<()>);

/// A layer being made; removed when dropped before [`Layers::commit`].
#[derive(Debug)]
pub struct Staged {
    dir: Option<PathBuf>,
}

impl Staged {
    /// Where the layer's tree goes.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.dir.as_deref().unwrap_or(Path::new("")).join("fs")
    }

    /// A directory beside it, for what is needed only while unpacking.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.dir.as_deref().unwrap_or(Path::new("")).join("scratch")
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        discard(self.dir.take());
    }
}

/// Waits a moment for a predecessor that is about to end: the threads of a pull that was cancelled
/// take a while to notice.
fn take(lock: &File) -> io::Result<()> {
    let end = Instant::now() + LOCK_WAIT;
    loop {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(LOCK_RETRY),
            result => return Ok(result?),
        }
    }
}

fn read_layer(path: &Path) -> io::Result<Layer> {
    let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    let number = number.ok_or_else(|| io::Error::other("its name is not a number"))?;
    let file = path.join("layer.json");
    let made = fs::metadata(&file)?.modified()?;
    let Description { chain_id, usage } = serde_json::from_slice(&fs::read(file)?)?;
    if !path.join("fs").is_dir() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(Layer { number, chain_id, usage, made })
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
