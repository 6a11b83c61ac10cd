//! What is written down about images: one small file that names them, and their documents.
//!
//! `index.json` is replaced as a whole, so names never point to two images. `blobs/sha256/HEX`
//! holds configurations and manifests, by their digest.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::content::{Digest, verify};

/// One image, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// The digest of its configuration.
    pub(super) id: Digest,
    /// The digest of its manifest, when it has one.
    pub(super) manifest: Option<Digest>,
    /// Full references with tags.
    #[serde(default)]
    pub(super) tags: Vec<String>,
    /// Full references with digests.
    #[serde(default)]
    pub(super) digests: Vec<String>,
    /// Made from this executable, rather than pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) built_from: Option<Executable>,
}

/// Which file an image was made from: as long as all of this is the same, so is the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Executable {
    pub(super) path: PathBuf,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Not when its names changed: the image may be one of them.
    pub(super) modified: (i64, i64),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File1 {
    version: u32,
    images: Vec<Record>,
}

/// The directory of the index and the documents.
pub(super) struct Index {
    dir: PathBuf,
}

impl Index {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        fs::create_dir_all(dir.join("blobs/sha512"))?;
        Ok(Self { dir: dir.into() })
    }

    /// The images as they were last written. What can't be read is set aside and counts as empty:
    /// images can be had again, and running containers don't need them.
    pub(super) fn read(&self) -> io::Result<Vec<Record>> {
        let path = self.dir.join("index.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice::<File1>(&bytes) {
            Ok(file) if file.version == 1 => Ok(file.images),
            other => {
                let why = match other {
                    Ok(file) => format!("its version is {}", file.version),
                    Err(error) => error.to_string(),
                };
                let aside = self.dir.join("index.json.damaged");
                tracing::error!(
                    path = %path.display(), kept = %aside.display(), why,
                    "the list of images can't be read; starting without images"
                );
                fs::rename(&path, aside)?;
                Ok(Vec::new())
            }
        }
    }

    /// Replaces the list; it is on disk when this returns.
    pub(super) fn write(&self, images: &[Record]) -> io::Result<()> {
        let file = File1 { version: 1, images: images.to_vec() };
        replace(&self.dir.join("index.json"), &serde_json::to_vec_pretty(&file)?)
    }

    pub(super) fn blob(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        let bytes = fs::read(self.path(digest))?;
        verify(&bytes, digest, None).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(bytes)
    }

    pub(super) fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        if self.blob(digest).is_ok() {
            return Ok(());
        }
        replace(&self.path(digest), bytes)
    }

    /// Deletes all documents but those of `images`.
    pub(super) fn sweep(&self, images: &[Record]) -> io::Result<()> {
        for algorithm in ["sha256", "sha512"] {
            for entry in fs::read_dir(self.dir.join("blobs").join(algorithm))? {
                let entry = entry?;
                let digest = format!("{algorithm}:{}", entry.file_name().to_string_lossy());
                let known = images.iter().any(|image| {
                    let manifest = image.manifest.as_ref();
                    image.id.as_str() == digest || manifest.is_some_and(|m| m.as_str() == digest)
                });
                if !known {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let algorithm = digest.as_str().split(':').next().unwrap_or_default();
        self.dir.join("blobs").join(algorithm).join(digest.hex())
    }
}

/// Writes a file beside and renames it: readers see the old or the new one, also after a crash.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Index, Record};
    use crate::content::Digest;

    fn record(name: &str) -> Record {
        Record {
            id: Digest::of(name.as_bytes()),
            manifest: None,
            tags: vec![format!("docker.io/library/{name}:latest")],
            digests: Vec::new(),
            built_from: None,
        }
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path()).unwrap();
        assert!(index.read().unwrap().is_empty());
        index.write(&[record("a"), record("b")]).unwrap();
        assert_eq!(Index::open(dir.path()).unwrap().read().unwrap(), [record("a"), record("b")]);

        for damage in ["{", "", "{\"version\":2,\"images\":[]}", "[]"] {
            std::fs::write(dir.path().join("index.json"), damage).unwrap();
            assert!(index.read().unwrap().is_empty(), "{damage}");
            assert_eq!(std::fs::read_to_string(dir.path().join("index.json.damaged")).unwrap(), damage);
        }
    }

    #[test]
    fn documents_are_verified_and_swept() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path()).unwrap();
        let (kept, gone) = (record("a"), Digest::of(b"gone"));
        index.put_blob(&kept.id, b"a").unwrap();
        index.put_blob(&gone, b"gone").unwrap();
        index.sweep(std::slice::from_ref(&kept)).unwrap();
        assert_eq!(index.blob(&kept.id).unwrap(), b"a");
        assert!(index.blob(&gone).is_err());

        std::fs::write(dir.path().join("blobs/sha256").join(kept.id.hex()), "changed").unwrap();
        assert!(index.blob(&kept.id).is_err());
        index.put_blob(&kept.id, b"a").unwrap();
        assert_eq!(index.blob(&kept.id).unwrap(), b"a");
    }
}
