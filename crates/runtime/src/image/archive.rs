//! Loading images from an archive, as `docker save` and OCI tools write them.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use super::{
    assemble::{Unpacked, assemble, unpack_stream},
    error::Error,
    index::Record,
    manifest::{Descriptor, Document, ImageDocument, MAX_MANIFEST, choose},
    pull::{blocking, plans},
    reference::{Reference, Version},
    store::{Image, Images},
};
use crate::content::{Decompressed, Digest, Kind, TarReader, verify};

const MAX_NESTING: usize = 4;
/// An archive of more files than this is not one of images.
const MAX_FILES: usize = 100_000;

/// One image of an archive, its documents read and verified.
struct Found {
    id: Digest,
    manifest: Option<(Digest, Vec<u8>)>,
    config: Vec<u8>,
    document: ImageDocument,
    layers: Vec<(PathBuf, Option<Descriptor>)>,
    tags: Vec<String>,
    digests: Vec<String>,
}

impl Images {
    /// Loads all images of an archive that this machine can run: the output of `docker save`, or
    /// a tar of an OCI layout, compressed or not. Gives them in the archive's order.
    ///
    /// # Errors
    ///
    /// When the archive is damaged or holds none; images before the damaged one are loaded.
    pub async fn load(&self, archive: impl Read + Send + 'static) -> Result<Vec<Arc<Image>>, Error> {
        let wrap = |source| Error::Load { source: Box::new(source) };
        self.load_all(archive).await.map_err(wrap)
    }

    async fn load_all(&self, archive: impl Read + Send + 'static) -> Result<Vec<Arc<Image>>, Error> {
        let spool = tempfile::Builder::new().prefix("load-").tempdir_in(self.inner.layers.staging());
        let spool = Arc::new(spool.map_err(Error::io("make a directory for the archive"))?);
        let dir = spool.clone();
        let found = blocking(move || Archive::spool(archive, dir.path())?.images()).await?;
        let mut images = Vec::new();
        for Found { id, manifest, config, document, layers, tags, digests } in found {
            let plans = plans(&document);
            let chain_ids = plans.iter().map(|plan| plan.chain_id.clone()).collect();
            let pins = self.inner.layers.pin(chain_ids);
            assemble(&self.inner, &plans, |number| {
                let ((path, blob), plan) = (layers[number].clone(), plans[number].clone());
                let (inner, spool) = (self.inner.clone(), spool.clone());
                blocking(move || -> Result<Unpacked, Error> {
                    let open = Error::io(format!("open {:?}", path.display().to_string()));
                    let file = File::open(&path).map_err(open)?;
                    let unpacked = unpack_stream(&inner.layers, file, blob.as_ref(), &plan.diff_id);
                    drop(spool);
                    unpacked
                })
            })
            .await?;
            let (digest, bytes) = manifest.unzip();
            let record = Record { id, manifest: digest, tags, digests, built_from: None };
            let this = self.clone();
            let register = move || this.register(record, &config, bytes.as_deref(), document, pins);
            images.push(blocking(register).await?);
        }
        Ok(images)
    }
}

/// The files of an archive, each under its name, kept on disk.
struct Archive {
    files: HashMap<Vec<u8>, PathBuf>,
    /// Links, by where they lead.
    links: HashMap<Vec<u8>, Vec<u8>>,
}

impl Archive {
    fn spool(archive: impl Read, dir: &Path) -> Result<Self, Error> {
        let read = |source| Error::Io { doing: "read the archive".into(), source };
        let mut tar = TarReader::new(Decompressed::new(archive).map_err(read)?);
        let (mut files, mut links) = (HashMap::new(), HashMap::new());
        while let Some(entry) = tar.next_entry().map_err(read)? {
            let Some(name) = normalise(&[], &entry.name) else { continue };
            match entry.kind {
                // Files are named by number here, so their names in the archive reach no path.
                Kind::File if entry.runs.is_none() => {
                    let path = dir.join(files.len().to_string());
                    let mut file = File::create(&path).map_err(read)?;
                    io::copy(&mut tar, &mut file).map_err(read)?;
                    files.insert(name, path);
                }
                Kind::Symlink => {
                    let parent = name.rsplitn(2, |byte| *byte == b'/').nth(1).unwrap_or_default();
                    if let Some(target) = normalise(parent, &entry.link) {
                        links.insert(name, target);
                    }
                }
                Kind::HardLink => {
                    if let Some(target) = normalise(&[], &entry.link) {
                        links.insert(name, target);
                    }
                }
                _ => {}
            }
            if files.len() + links.len() > MAX_FILES {
                return Err(Error::Archive("the archive has too many files".into()));
            }
        }
        Ok(Self { files, links })
    }

    fn images(&self) -> Result<Vec<Found>, Error> {
        let found = if self.path("oci-layout").is_some() && self.path("index.json").is_some() {
            self.oci_images()?
        } else if self.path("manifest.json").is_some() {
            self.docker_images()?
        } else {
            let message = "it has neither manifest.json (docker save) nor index.json (OCI layout)";
            return Err(Error::Archive(message.into()));
        };
        if found.is_empty() {
            return Err(Error::Archive("it holds no image for this machine".into()));
        }
        Ok(found)
    }

    fn docker_images(&self) -> Result<Vec<Found>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Saved {
            config: String,
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let saved: Vec<Saved> = self.json("manifest.json")?;
        let image = |saved: Saved| {
            let config = self.read(&saved.config)?;
            let id = Digest::of(&config);
            let document = ImageDocument::parse(&config, &id, saved.layers.len())?;
            let mut layers = Vec::new();
            for name in &saved.layers {
                layers.push((self.file(name)?.to_owned(), None));
            }
            let (mut tags, mut digests) = (Vec::new(), Vec::new());
            for name in saved.repo_tags.unwrap_or_default() {
                name_image(&name, &mut tags, &mut digests)?;
            }
            Ok(Found { id, manifest: None, config, document, layers, tags, digests })
        };
        saved.into_iter().map(image).collect()
    }

    fn oci_images(&self) -> Result<Vec<Found>, Error> {
        let bytes = self.read("index.json")?;
        let digest = Digest::of(&bytes);
        let Document::Index(list) = Document::parse(&bytes, &digest, "")? else {
            return Err(Error::Archive("index.json is not an index".into()));
        };
        // One image may stand there under several names.
        let mut names: BTreeMap<&Digest, Vec<String>> = BTreeMap::new();
        let mut order: Vec<&Descriptor> = Vec::new();
        for descriptor in &list {
            let known = names.entry(&descriptor.digest).or_default();
            if !order.iter().any(|other| other.digest == descriptor.digest) {
                order.push(descriptor);
            }
            known.extend(oci_name(descriptor));
        }
        let mut found = Vec::new();
        for descriptor in order {
            let Some((digest, bytes)) = self.oci_manifest(descriptor, &list)? else { continue };
            let Document::Manifest(manifest) = Document::parse(&bytes, &digest, "")? else { continue };
            let id = manifest.config.digest.clone();
            let config = self.blob(&manifest.config)?;
            let document = ImageDocument::parse(&config, &id, manifest.layers.len())?;
            let mut layers = Vec::new();
            for layer in manifest.layers {
                layers.push((self.file(&blob_path(&layer.digest))?.to_owned(), Some(layer)));
            }
            let (mut tags, mut digests) = (Vec::new(), Vec::new());
            for name in &names[&descriptor.digest] {
                let reference = name_image(name, &mut tags, &mut digests)?;
                digests.push(reference.at(descriptor.digest.clone()).to_string());
            }
            let manifest = Some((digest, bytes));
            found.push(Found { id, manifest, config, document, layers, tags, digests });
        }
        Ok(found)
    }

    /// Follows an index to the manifest for this machine; `None` for what can't run here.
    fn oci_manifest(
        &self,
        descriptor: &Descriptor,
        siblings: &[Descriptor],
    ) -> Result<Option<(Digest, Vec<u8>)>, Error> {
        // The layout of one image for several machines names them side by side.
        if descriptor.platform.is_some() {
            let wanted = choose(siblings, &descriptor.digest);
            if wanted
                .is_ok_and(|wanted| wanted.digest != descriptor.digest && wanted.annotations == descriptor.annotations)
            {
                return Ok(None);
            }
        }
        let mut target = descriptor.clone();
        for _ in 0..MAX_NESTING {
            let bytes = self.blob(&target)?;
            match Document::parse(&bytes, &target.digest, &target.media_type)? {
                Document::Manifest(_) => return Ok(Some((target.digest, bytes))),
                Document::Index(list) => target = choose(&list, &target.digest)?.clone(),
            }
        }
        Err(Error::Archive(format!("{} leads from index to index", descriptor.digest)))
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let bytes = self.read(&blob_path(&descriptor.digest))?;
        verify(&bytes, &descriptor.digest, Some(descriptor.size))?;
        Ok(bytes)
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T, Error> {
        let bytes = self.read(name)?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Archive(format!("{name}: {error}")))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let path = self.file(name)?;
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_MANIFEST + 1).read_to_end(&mut bytes))
            .map_err(Error::io(format!("read {name:?}")))?;
        match bytes.len() as u64 {
            0..=MAX_MANIFEST => Ok(bytes),
            _ => Err(Error::Archive(format!("{name} is over {MAX_MANIFEST} bytes long"))),
        }
    }

    fn file(&self, name: &str) -> Result<&Path, Error> {
        self.path(name).ok_or_else(|| Error::Archive(format!("{name:?} is missing from the archive")))
    }

    fn path(&self, name: &str) -> Option<&Path> {
        let mut name = normalise(&[], name.as_bytes())?;
        // Two links at most in real archives; a loop ends here too.
        for _ in 0..8 {
            if let Some(path) = self.files.get(&name) {
                return Some(path);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }
}

/// The name that an OCI layout gives an image, if it is a whole one.
fn oci_name(descriptor: &Descriptor) -> Option<String> {
    let get = |key| descriptor.annotations.get(key).cloned();
    get("io.containerd.image.name").or_else(|| {
        // Often only a tag, which names nothing by itself.
        get("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':']))
    })
}

fn name_image(name: &str, tags: &mut Vec<String>, digests: &mut Vec<String>) -> Result<Reference, Error> {
    let reference: Reference = name.parse().map_err(|source| Error::Reference { reference: name.into(), source })?;
    match reference.version() {
        Version::Tag(_) => tags.push(reference.to_string()),
        Version::Digest(_) => digests.push(reference.to_string()),
    }
    Ok(reference)
}

fn blob_path(digest: &Digest) -> String {
    let algorithm = digest.as_str().split(':').next().unwrap_or_default();
    format!("blobs/{algorithm}/{}", digest.hex())
}

/// A path inside the archive without `.` and `..`; `None` when it leads out.
fn normalise(parent: &[u8], path: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let all = parent.split(|byte| *byte == b'/').chain(path.split(|byte| *byte == b'/'));
    for part in all {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}
