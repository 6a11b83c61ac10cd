//! The image that needs no registry: our own executable.
//!
//! `pilothouse.local/pilothouse`, under any tag, is made of the executable of this process, so that
//! a first deployment works on a machine without a network, and pause containers cost no download.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::{PoisonError, atomic::Ordering},
};

use serde_json::json;

use super::{
    error::Error,
    index::{Executable, Record},
    manifest::{ImageDocument, Platform},
    reference::Reference,
    store::{Image, Images},
};
use crate::content::{Algorithm, Digest, Grafts, HashingReader, Staged, Usage};

/// The registry that is this machine.
pub(super) const DOMAIN: &str = "pilothouse.local";
const PATH: &str = "pilothouse";
const TAGS: [&str; 2] = ["latest", "pause"];
const PASSWD: &str = "root:x:0:0:root:/:/pilothouse\nnobody:x:65534:65534:nobody:/:/pilothouse\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

pub(super) fn is_built_in(reference: &Reference) -> bool {
    reference.domain() == DOMAIN && reference.path() == PATH
}

impl Images {
    /// Makes the built-in image on a thread of its own: hashing an executable takes a while, and
    /// the first that asks for the image waits for it.
    pub(super) fn begin_built_in(&self) {
        let images = self.clone();
        let make = move || {
            if let Err(error) = images.make_built_in() {
                let error = crate::registry::chain(&error);
                tracing::error!(error, "the image {DOMAIN}/{PATH} could not be made");
            }
            images.inner.built_in_ready.store(true, Ordering::Release);
        };
        match std::thread::Builder::new().name("images-built-in".into()).spawn(make.clone()) {
            Ok(thread) => {
                *self.inner.built_in.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
            }
            Err(_) => make(),
        }
    }

    /// Waits until the built-in image has been made, or could not be.
    pub(super) fn settle_built_in(&self) {
        if self.inner.built_in_ready.load(Ordering::Acquire) {
            return;
        }
        let mut making = self.inner.built_in.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = making.take()
            && thread.join().is_err()
        {
            tracing::error!("making the image {DOMAIN}/{PATH} panicked");
            self.inner.built_in_ready.store(true, Ordering::Release);
        }
    }

    fn make_built_in(&self) -> Result<(), Error> {
        let Some(path) = self.inner.options.executable.clone() else {
            return self.remove_where(|record| record.built_from.is_some());
        };
        let fail = || Error::io(format!("make an image of {:?}", path.display().to_string()));
        let executable = identify(&path).map_err(fail())?;
        if self.images_built_from(&executable) {
            return Ok(());
        }
        let (digest, _) = File::open(&path)
            .and_then(|file| HashingReader::new(file, Algorithm::Sha256, None).finish())
            .map_err(fail())?;
        // There is no tar of this layer; what it is made of identifies it just as well.
        let diff_id = Digest::of(format!("{PATH} {digest}\n{PASSWD}{GROUP}").as_bytes());
        let (os, architecture) = Platform::here();
        let config = json!({
            "os": os,
            "architecture": architecture,
            "config": {
                "Entrypoint": ["/pilothouse", "demo-server"],
                "Env": ["PATH=/"],
                "WorkingDir": "/",
                "Labels": {"org.opencontainers.image.version": env!("CARGO_PKG_VERSION")},
            },
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        });
        let config = config.to_string().into_bytes();
        let id = Digest::of(&config);
        let document = ImageDocument::parse(&config, &id, 1)?;
        let layers = &self.inner.layers;
        let pins = layers.pin(document.chain_ids());
        if layers.get(&diff_id).is_none() {
            let staged = layers.stage().map_err(fail())?;
            let usage = fill(&staged, &path).map_err(fail())?;
            layers.commit(staged, diff_id, usage, &Grafts::default(), &[]).map_err(fail())?;
        }
        let tags = TAGS.map(|tag| format!("{DOMAIN}/{PATH}:{tag}")).into();
        let record = Record { id: id.clone(), manifest: None, tags, digests: Vec::new(), built_from: Some(executable) };
        self.register(record, &config, None, document, pins)?;
        // Those of other versions; their containers keep the layers they need.
        self.remove_where(|record| record.built_from.is_some() && record.id != id)
    }

    fn images_built_from(&self, executable: &Executable) -> bool {
        let built_from = |image: &Image| image.built_from() == Some(executable);
        self.list_settled().iter().any(|image| built_from(image))
    }
}

fn identify(path: &Path) -> io::Result<Executable> {
    let meta = fs::metadata(path)?;
    Ok(Executable {
        path: path.into(),
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
    })
}

fn fill(staged: &Staged, executable: &Path) -> io::Result<Usage> {
    let tree = staged.tree();
    let target = tree.join(PATH);
    place(executable, &target)?;
    fs::create_dir(tree.join("etc"))?;
    fs::write(tree.join("etc/passwd"), PASSWD)?;
    fs::write(tree.join("etc/group"), GROUP)?;
    fs::create_dir(tree.join("tmp"))?;
    fs::set_permissions(tree.join("tmp"), Permissions::from_mode(0o1777))?;
    let size = fs::metadata(&target)?.len().next_multiple_of(4096);
    Ok(Usage { bytes: size + 5 * 4096, inodes: 6 })
}

/// Puts the executable there so that no later upgrade of the original changes it: as another name
/// of a file that nobody writes to, or as a copy, which shares blocks where the filesystem can.
fn place(executable: &Path, target: &Path) -> io::Result<()> {
    let meta = fs::metadata(executable)?;
    let is_fixed = meta.permissions().mode() & 0o222 == 0;
    if is_fixed && fs::hard_link(executable, target).is_ok() {
        return Ok(());
    }
    let from = File::open(executable)?;
    let mut to = File::create_new(target)?;
    if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
        io::copy(&mut &from, &mut to)?;
    }
    to.set_permissions(Permissions::from_mode(0o555))
}
