//! The images on this machine: which there are, what they are called, and where they came from.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::AtomicBool},
};

use tokio::sync::Semaphore;

use super::{
    error::Error,
    index::{Executable, Index, Record},
    manifest::{Config, ImageDocument},
    reference::{Reference, Version},
};
use crate::{
    content::{Digest, Layers, Pins, Usage},
    registry::Hosts,
    snapshot::Snapshots,
};

/// As many layers are fetched and unpacked at a time, as containerd does.
const PARALLEL_LAYERS: usize = 3;
/// The shortest beginning of an ID that stands for an image.
const MIN_ID_PREFIX: usize = 4;

/// How images are had.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Mirrors and certificate authorities of registries.
    pub hosts: Hosts,
    /// The executable that the built-in image `pilothouse.local/pilothouse` is made of; without
    /// it there is no such image. A file that nobody can write is hard-linked, any other copied.
    pub executable: Option<PathBuf>,
    /// How many layers are fetched and unpacked at a time; 0 for the default.
    pub parallel_layers: usize,
}

/// An image that is here, whole. It, and so its layers, stay on disk while anybody holds it.
#[derive(Debug)]
pub struct Image {
    record: Record,
    document: ImageDocument,
    size: u64,
    pins: Pins,
}

impl Image {
    /// The digest of its configuration, which is its name for kubelets.
    #[must_use]
    pub fn id(&self) -> &Digest {
        &self.record.id
    }

    /// Its names with a tag, in full.
    #[must_use]
    pub fn repo_tags(&self) -> &[String] {
        &self.record.tags
    }

    /// Its names with a digest, in full.
    #[must_use]
    pub fn repo_digests(&self) -> &[String] {
        &self.record.digests
    }

    /// The digest of its manifest, unless it was loaded from an archive without one.
    #[must_use]
    pub fn manifest(&self) -> Option<&Digest> {
        self.record.manifest.as_ref()
    }

    /// What its containers run.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.document.config
    }

    /// Its layers, the lowest first.
    #[must_use]
    pub fn chain_ids(&self) -> &[Digest] {
        self.pins.chain_ids()
    }

    /// Bytes on disk, including layers that it shares.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether it is the built-in image, which kubelets must not collect.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.record.built_from.is_some()
    }

    pub(super) fn built_from(&self) -> Option<&Executable> {
        self.record.built_from.as_ref()
    }

    /// The user that its containers run as: a number, or a name to look up inside the image.
    /// Neither means root.
    #[must_use]
    pub fn user(&self) -> (Option<i64>, Option<&str>) {
        let user = self.document.config.user.split(':').next().unwrap_or_default();
        match user.parse() {
            Ok(uid) => (Some(uid), None),
            Err(_) if user.is_empty() => (None, None),
            Err(_) => (None, Some(user)),
        }
    }
}

/// All images of a node. Cheap to clone; all clones are the same images.
#[derive(Clone)]
pub struct Images {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    dir: PathBuf,
    pub(super) options: Options,
    pub(super) layers: Arc<Layers>,
    snapshots: Snapshots,
    index: Index,
    images: RwLock<BTreeMap<Digest, Arc<Image>>>,
    /// Held while the index is written, so that writes have one order.
    writing: Mutex<()>,
    pub(super) downloads: Semaphore,
    pub(super) built_in: Mutex<Option<std::thread::JoinHandle<()>>>,
    pub(super) built_in_ready: AtomicBool,
}

impl Images {
    /// Opens the images in `dir`, making it if need be, and begins to make the built-in image.
    /// Blocks on the disk, shortly. Images whose layers are gone are forgotten.
    ///
    /// # Errors
    ///
    /// When another process has them open, or `dir` can't be read and written.
    pub fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        let fail = || Error::io(format!("open the images in {:?}", dir.display().to_string()));
        let layers = match Layers::open(dir) {
            Ok(layers) => Arc::new(layers),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Error::InUse(dir.into()));
            }
            Err(error) => return Err(fail()(error)),
        };
        let snapshots = Snapshots::open(dir, layers.clone()).map_err(fail())?;
        let index = Index::open(dir).map_err(fail())?;
        let mut images = BTreeMap::new();
        for record in index.read().map_err(fail())? {
            match Image::read(&index, &layers, record.clone()) {
                Ok(image) => drop(images.insert(record.id, Arc::new(image))),
                Err(error) => {
                    let error = crate::registry::chain(&error);
                    tracing::warn!(image = %record.id, names = ?record.tags, error, "image forgotten");
                }
            }
        }
        let parallel = match options.parallel_layers {
            0 => PARALLEL_LAYERS,
            count => count,
        };
        let images = Self {
            inner: Arc::new(Inner {
                dir: dir.into(),
                options,
                layers,
                snapshots,
                index,
                images: RwLock::new(images),
                writing: Mutex::new(()),
                downloads: Semaphore::new(parallel),
                built_in: Mutex::new(None),
                built_in_ready: AtomicBool::new(false),
            }),
        };
        images.begin_built_in();
        Ok(images)
    }

    /// The root filesystems of containers.
    #[must_use]
    pub fn snapshots(&self) -> &Snapshots {
        &self.inner.snapshots
    }

    /// Where everything about images is kept: the mount point that their usage is counted for.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// What all images take on disk, shared layers counted once.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.inner.layers.usage()
    }

    /// The image that `name` stands for: a reference in any form, an ID, or the beginning of one.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Option<Arc<Image>> {
        self.settle_built_in();
        let images = self.inner.images.read().unwrap_or_else(PoisonError::into_inner);
        if let Ok(id) = name.parse::<Digest>() {
            return images.get(&id).cloned();
        }
        if let Ok(reference) = name.parse::<Reference>() {
            if super::built_in::is_built_in(&reference) && matches!(reference.version(), Version::Tag(_)) {
                return images.values().find(|image| image.is_pinned()).cloned();
            }
            let full = reference.to_string();
            let named =
                images.values().find(|image| image.record.tags.contains(&full) || image.record.digests.contains(&full));
            if let Some(image) = named {
                return Some(image.clone());
            }
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if prefix.len() < MIN_ID_PREFIX || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut matching = images.values().filter(|image| image.id().hex().starts_with(prefix));
        match (matching.next(), matching.next()) {
            (Some(image), None) => Some(image.clone()),
            _ => None,
        }
    }

    /// All images, by ID.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.settle_built_in();
        self.list_settled()
    }

    /// All images but perhaps the built-in one.
    pub(super) fn list_settled(&self) -> Vec<Arc<Image>> {
        self.inner.images.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The bytes of an image's configuration or manifest. Blocks on the disk.
    pub fn document(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        self.inner.index.blob(digest).map_err(Error::io(format!("read {digest}")))
    }

    /// Removes the image that `name` stands for, under all its names; it need not exist. Its
    /// layers go when no other image and no container has them. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// For the built-in image, and when the index can't be written; then nothing has changed.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let Some(image) = self.resolve(name) else { return Ok(()) };
        if image.is_pinned() {
            return Err(Error::BuiltIn(name.into()));
        }
        let removed = self.change(|images| images.remove(image.id()))?;
        drop((image, removed));
        self.inner.layers.collect().map_err(Error::io("delete layers"))
    }

    /// Makes an image known, under its names in addition to those it has; names that other images
    /// had go over to it. Its layers must be there, pinned by `pins`. Blocks on the disk.
    pub(super) fn register(
        &self,
        record: Record,
        config: &[u8],
        manifest: Option<&[u8]>,
        document: ImageDocument,
        pins: Pins,
    ) -> Result<Arc<Image>, Error> {
        // Under the lock, or a sweep could take the documents before the index names them.
        let _writing = self.writing();
        let write = || -> io::Result<()> {
            self.inner.index.put_blob(&record.id, config)?;
            match (&record.manifest, manifest) {
                (Some(digest), Some(bytes)) => self.inner.index.put_blob(digest, bytes),
                _ => Ok(()),
            }
        };
        write().map_err(Error::io("write an image's documents"))?;
        self.inner.layers.own(pins.chain_ids());
        let image =
            Image::new(record, document, pins, &self.inner.layers).map_err(Error::io("find the image's layers"))?;
        self.change_locked(|images| {
            let mut record = image.record.clone();
            for other in images.values_mut().filter(|other| other.record.id != record.id) {
                let moved = |tag: &String| record.tags.contains(tag);
                if other.record.tags.iter().any(moved) {
                    *other = Arc::new(other.with(|record| record.tags.retain(|tag| !moved(tag))));
                }
            }
            if let Some(before) = images.get(&record.id) {
                merge(&mut record.tags, &before.record.tags);
                merge(&mut record.digests, &before.record.digests);
            }
            let image = Arc::new(image.with(|of| *of = record));
            images.insert(image.record.id.clone(), image.clone());
            image
        })
    }

    /// The image whose manifest or index has this digest, under any name.
    pub(super) fn by_target(&self, digest: &Digest) -> Option<Arc<Image>> {
        let images = self.inner.images.read().unwrap_or_else(PoisonError::into_inner);
        let has = |name: &String| name.split_once('@').is_some_and(|(_, at)| at == digest.as_str());
        images.values().find(|image| image.manifest() == Some(digest) || image.record.digests.iter().any(has)).cloned()
    }

    /// Adds names to an image that is here.
    pub(super) fn rename(&self, image: &Image, tags: Vec<String>, digests: Vec<String>) -> Result<Arc<Image>, Error> {
        let known = |names: &[String], new: &[String]| new.iter().all(|name| names.contains(name));
        let current = self.inner.images.read().unwrap_or_else(PoisonError::into_inner).get(image.id()).cloned();
        match current {
            // The usual case of a pull that finds nothing new: nothing to write.
            Some(image) if known(image.repo_tags(), &tags) && known(image.repo_digests(), &digests) => {
                return Ok(image);
            }
            _ => {}
        }
        let config = self.document(image.id())?;
        let manifest = image.manifest().map(|digest| self.document(digest)).transpose()?;
        let record = Record { tags, digests, ..image.record.clone() };
        let pins = self.inner.layers.pin(image.chain_ids().to_vec());
        self.register(record, &config, manifest.as_deref(), image.document.clone(), pins)
    }

    /// Removes the images that `unwanted` says. Blocks on the disk.
    pub(super) fn remove_where(&self, unwanted: impl Fn(&Record) -> bool) -> Result<(), Error> {
        let _writing = self.writing();
        let none = !self
            .inner
            .images
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .any(|image| unwanted(&image.record));
        if none {
            return Ok(());
        }
        self.change_locked(|images| images.retain(|_, image| !unwanted(&image.record)))?;
        self.inner.layers.collect().map_err(Error::io("delete layers"))
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<Digest, Arc<Image>>) -> T) -> Result<T, Error> {
        let _writing = self.writing();
        self.change_locked(change)
    }

    /// Applies a change to a copy, writes it down, and only then makes it what everyone sees. The
    /// caller holds `writing`.
    fn change_locked<T>(&self, change: impl FnOnce(&mut BTreeMap<Digest, Arc<Image>>) -> T) -> Result<T, Error> {
        let mut images = self.inner.images.read().unwrap_or_else(PoisonError::into_inner).clone();
        let result = change(&mut images);
        let records: Vec<_> = images.values().map(|image| image.record.clone()).collect();
        self.inner.index.write(&records).map_err(Error::io("write the list of images"))?;
        *self.inner.images.write().unwrap_or_else(PoisonError::into_inner) = images;
        // Only space is lost if this fails, and the next change tries again.
        if let Err(error) = self.inner.index.sweep(&records) {
            tracing::warn!(%error, "documents of removed images could not be deleted");
        }
        Ok(result)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.inner.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Image {
    fn read(index: &Index, layers: &Arc<Layers>, record: Record) -> Result<Self, Error> {
        let fail = || Error::io(format!("read image {}", record.id));
        let bytes = index.blob(&record.id).map_err(fail())?;
        let document = ImageDocument::read(&bytes, &record.id)?;
        let pins = layers.pin(document.chain_ids());
        layers.own(pins.chain_ids());
        Self::new(record.clone(), document, pins, layers).map_err(fail())
    }

    fn new(record: Record, document: ImageDocument, pins: Pins, layers: &Layers) -> io::Result<Self> {
        let mut size = 0;
        for chain_id in pins.chain_ids() {
            let layer = layers
                .get(chain_id)
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("layer {chain_id} is missing")))?;
            size += layer.usage.bytes;
        }
        Ok(Self { record, document, size, pins })
    }

    fn with(&self, change: impl FnOnce(&mut Record)) -> Self {
        let mut record = self.record.clone();
        change(&mut record);
        let pins = self.pins.again();
        Self { record, document: self.document.clone(), size: self.size, pins }
    }
}

fn merge(names: &mut Vec<String>, more: &[String]) {
    for name in more {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names.sort();
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}
