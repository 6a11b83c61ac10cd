//! Root filesystems: an image's layers with a writable layer for one container on top.
//!
//! A snapshot is `snapshots/ID/` with `fs` (the changes), `work` (overlayfs's own), `rootfs` (where
//! it is mounted) and `snapshot.json`, which is written last: a directory without it is what a
//! crash left behind. A snapshot keeps its layers from being collected for as long as it exists.

mod mount;
mod usage;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

pub use self::mount::{RootfsMount, is_mount};
use crate::{
    content::{Digest, Layers, Pins, Usage, discard},
    image::Image,
};

/// Why a snapshot could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name can't be that of a directory.
    #[error("invalid snapshot name {0:?}: letters, digits, \"-\", \"_\" and \".\" are allowed")]
    Name(String),
    /// There is one of that name.
    #[error("snapshot {0:?} already exists")]
    Exists(String),
    /// There is none of that name.
    #[error("snapshot {0:?} does not exist")]
    NotFound(String),
    /// The image has lost a layer.
    #[error("layer {0} of the image is missing: pull the image again")]
    MissingLayer(Digest),
    /// The disk or the kernel refused.
    #[error("failed to {doing} snapshot {name:?}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which snapshot.
        name: String,
        /// Why not.
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    /// The lowest layer first.
    layers: Vec<Digest>,
    read_only: bool,
}

struct Snapshot {
    pins: Pins,
    read_only: bool,
}

/// All snapshots. Calls block on the disk unless they say otherwise.
pub struct Snapshots {
    root: PathBuf,
    /// Stands in for the layers of an image that has none.
    empty: PathBuf,
    layers: Arc<Layers>,
    snapshots: Mutex<HashMap<String, Snapshot>>,
}

impl Snapshots {
    /// Opens the snapshots under `root`/snapshots, making it if need be, and clears away what was
    /// being made or removed when the last process ended. Mounted ones stay as they are.
    pub(crate) fn open(root: &Path, layers: Arc<Layers>) -> io::Result<Self> {
        let (root, empty) = (root.join("snapshots"), root.join("empty"));
        for dir in [&root, &empty] {
            fs::create_dir_all(dir)?;
        }
        let mut snapshots = HashMap::new();
        let mut leftovers = Vec::new();
        for entry in fs::read_dir(&root)? {
            let path = entry?.path();
            let read = fs::read(path.join("snapshot.json"))
                .and_then(|bytes| Ok(serde_json::from_slice::<Description>(&bytes)?));
            match (read, path.file_name().and_then(|name| name.to_str())) {
                (Ok(Description { layers: chain_ids, read_only }), Some(name)) => {
                    let snapshot = Snapshot { pins: layers.pin(chain_ids), read_only };
                    snapshots.insert(name.to_owned(), snapshot);
                }
                _ => leftovers.push(path),
            }
        }
        let this = Self { root, empty, layers, snapshots: Mutex::new(snapshots) };
        for path in leftovers {
            this.bury(&path)?;
        }
        Ok(this)
    }

    /// Makes a writable snapshot of `image` for the container `id`; mounts nothing.
    pub fn prepare(&self, id: &str, image: &Image) -> Result<RootfsMount, Error> {
        self.make(id, image, false)
    }

    /// Makes a read-only snapshot of `image` under the name `id`, as for a volume.
    pub fn view(&self, id: &str, image: &Image) -> Result<RootfsMount, Error> {
        self.make(id, image, true)
    }

    fn make(&self, id: &str, image: &Image, read_only: bool) -> Result<RootfsMount, Error> {
        let dir = self.dir(id)?;
        let pins = self.layers.pin(image.chain_ids().to_vec());
        let mount = self.describe(id, &pins, read_only)?;
        let description = Description { layers: pins.chain_ids().to_vec(), read_only };
        {
            let mut snapshots = self.lock();
            if snapshots.contains_key(id) {
                return Err(Error::Exists(id.into()));
            }
            snapshots.insert(id.into(), Snapshot { pins, read_only });
        }
        let write = || -> io::Result<()> {
            // Of an earlier life that ended before it was recorded.
            self.bury(&dir)?;
            fs::create_dir(&dir)?;
            for part in ["fs", "work", "rootfs"] {
                fs::create_dir(dir.join(part))?;
            }
            // The top of an overlay is the upper directory's: what "/" of the container looks like.
            if let Some(lower) = mount.lower.first() {
                copy_root_mode(lower, &dir.join("fs"))?;
            }
            let staged = dir.join("snapshot.json.new");
            fs::write(&staged, serde_json::to_vec(&description)?)?;
            fs::rename(staged, dir.join("snapshot.json"))
        };
        match write() {
            Ok(()) => Ok(mount),
            Err(source) => {
                self.lock().remove(id);
                Err(Error::Io { doing: "make", name: id.into(), source })
            }
        }
    }

    /// How to mount the snapshot `id`; `None` when there is none. Does not block.
    pub fn get(&self, id: &str) -> Result<Option<RootfsMount>, Error> {
        let (pinned, read_only) = match self.lock().get(id) {
            Some(snapshot) => (snapshot.pins.chain_ids().to_vec(), snapshot.read_only),
            None => return Ok(None),
        };
        let pins = self.layers.pin(pinned);
        self.describe(id, &pins, read_only).map(Some)
    }

    /// Mounts the snapshot `id` at its `rootfs` directory, unless it is mounted, and gives that.
    pub fn mount(&self, id: &str) -> Result<PathBuf, Error> {
        let mount = self.get(id)?.ok_or_else(|| Error::NotFound(id.into()))?;
        let result = match is_mount(&mount.target) {
            Ok(true) => Ok(()),
            Ok(false) => mount.mount(),
            Err(error) => Err(error),
        };
        result.map_err(|source| Error::Io { doing: "mount", name: id.into(), source })?;
        Ok(mount.target)
    }

    /// Unmounts the snapshot `id`; neither it nor the mount needs to exist.
    pub fn unmount(&self, id: &str) -> Result<(), Error> {
        let dir = self.dir(id)?;
        unmount(&dir).map_err(|source| Error::Io { doing: "unmount", name: id.into(), source })
    }

    /// Unmounts and removes the snapshot `id`, with all that its container wrote; it need not
    /// exist. Layers that only it used go too.
    pub fn remove(&self, id: &str) -> Result<(), Error> {
        let dir = self.dir(id)?;
        self.bury(&dir).map_err(|source| Error::Io { doing: "remove", name: id.into(), source })?;
        let removed = self.lock().remove(id);
        drop(removed);
        self.layers.collect().map_err(|source| Error::Io { doing: "collect the layers of", name: id.into(), source })
    }

    /// What the container has written.
    pub fn usage(&self, id: &str) -> Result<Usage, Error> {
        let dir = self.dir(id)?;
        if !self.lock().contains_key(id) {
            return Err(Error::NotFound(id.into()));
        }
        usage::measure(&dir.join("fs")).map_err(|source| Error::Io { doing: "measure", name: id.into(), source })
    }

    /// The names of all snapshots, in no order. Does not block.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Removes all snapshots but those of `known` containers: what is called once, when the
    /// containers of the last process have been found again.
    pub fn retain(&self, known: &[String]) -> Result<(), Error> {
        for id in self.list() {
            if !known.contains(&id) {
                self.remove(&id)?;
            }
        }
        Ok(())
    }

    /// Where all snapshots are.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn describe(&self, id: &str, pins: &Pins, read_only: bool) -> Result<RootfsMount, Error> {
        let dir = self.dir(id)?;
        let mut lower = Vec::new();
        for chain_id in pins.chain_ids().iter().rev() {
            let layer = self.layers.get(chain_id);
            let layer = layer.ok_or_else(|| Error::MissingLayer(chain_id.clone()))?;
            lower.push(self.layers.tree(&layer));
        }
        if lower.is_empty() {
            lower.push(self.empty.clone());
        }
        Ok(RootfsMount {
            base: self.layers.root().into(),
            lower,
            upper: (!read_only).then(|| dir.join("fs")),
            work: (!read_only).then(|| dir.join("work")),
            target: dir.join("rootfs"),
        })
    }

    fn dir(&self, id: &str) -> Result<PathBuf, Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if id.is_empty() || id.len() > 200 || id.starts_with('.') || !id.bytes().all(allowed) {
            return Err(Error::Name(id.into()));
        }
        Ok(self.root.join(id))
    }

    /// Unmounts what is mounted in `dir` and moves it out of reach, to be deleted behind the
    /// caller's back.
    fn bury(&self, dir: &Path) -> io::Result<()> {
        unmount(dir)?;
        let grave = self.layers.grave();
        match fs::rename(dir, &grave) {
            Ok(()) => discard([grave]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Snapshot>> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshots").field("root", &self.root).finish_non_exhaustive()
    }
}

fn unmount(dir: &Path) -> io::Result<()> {
    let target = dir.join("rootfs");
    let (base, lower, upper, work) = (PathBuf::new(), Vec::new(), None, None);
    RootfsMount { base, lower, upper, work, target }.unmount()
}

fn copy_root_mode(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    let meta = fs::metadata(from)?;
    chown(to, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(to, meta.permissions())
}

#[cfg(test)]
mod tests;
