//! Pulling: from a reference to an image on disk.

use std::sync::Arc;

use bytes::Bytes;
use cri::v1::AuthConfig;

use super::{
    assemble::{ChannelReader, Plan, Unpacked, assemble, unpack_stream},
    built_in,
    error::Error,
    index::Record,
    manifest::{Descriptor, Document, ImageDocument, InvalidManifest, Manifest, choose},
    reference::{Reference, Version},
    store::{Image, Images, Inner},
};
use crate::registry::{Credentials, Session};

/// An index may hold indexes; a registry could nest them for ever.
const MAX_NESTING: usize = 4;

/// How a pull gets on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The registry has it.
    Resolved {
        /// The full reference.
        reference: String,
        /// What it points to.
        digest: String,
    },
    /// A part of a layer has arrived.
    Layer {
        /// Which layer.
        digest: String,
        /// How much of it is here.
        offset: u64,
        /// How much there is.
        total: u64,
    },
    /// A layer is unpacked.
    Unpacked {
        /// Which layer.
        digest: String,
    },
}

/// Is told how a pull gets on; called often, from any thread, and must not block.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// What to pull, and as whom.
#[derive(Clone, Default)]
pub struct Pull {
    /// The image, in any form that Docker takes.
    pub reference: String,
    /// Credentials for its registry.
    pub auth: Option<AuthConfig>,
    /// Wants to know how it gets on.
    pub progress: Option<OnProgress>,
}

impl Images {
    /// Pulls an image: asks its registry what the reference points to, and fetches and unpacks
    /// what is not here yet. The built-in image is answered without a registry.
    ///
    /// # Errors
    ///
    /// In containerd's words; see [`Error::code`]. What arrived whole is kept for the next attempt.
    pub async fn pull(&self, pull: Pull) -> Result<Arc<Image>, Error> {
        let reference: Reference =
            pull.reference.parse().map_err(|source| Error::Reference { reference: pull.reference.clone(), source })?;
        let wrap = |source| Error::Pull { reference: reference.to_string(), source: Box::new(source) };
        if reference.domain() == built_in::DOMAIN {
            let (images, name) = (self.clone(), reference.to_string());
            let found = tokio::task::spawn_blocking(move || images.resolve(&name)).await;
            let found = found.map_err(|_| Error::Cancelled)?;
            return found.ok_or_else(|| wrap(Error::NotBuiltIn(reference.to_string())));
        }
        self.pull_from_registry(&reference, &pull).await.map_err(wrap)
    }

    async fn pull_from_registry(&self, reference: &Reference, pull: &Pull) -> Result<Arc<Image>, Error> {
        let hosts = self.inner.options.hosts.clone();
        let credentials = Credentials::from_cri(pull.auth.as_ref(), reference.domain())?;
        // Reads certificates.
        let (for_session, images) = (reference.clone(), self.clone());
        let session = blocking(move || Ok(Session::new(&hosts, &for_session, credentials)?)).await?;
        let resolved = session.resolve(reference).await?;
        let target = resolved.descriptor;
        let progress = pull.progress.clone();
        tell(&progress, || Progress::Resolved { reference: reference.to_string(), digest: target.digest.to_string() });
        let tags = match reference.version() {
            Version::Tag(_) => vec![reference.to_string()],
            Version::Digest(_) => Vec::new(),
        };
        let digests = vec![reference.at(target.digest.clone()).to_string()];
        if let Some(image) = self.by_target(&target.digest) {
            return blocking(move || images.rename(&image, tags, digests)).await;
        }

        let (manifest_digest, manifest_bytes, manifest) = manifest(&session, target, resolved.content).await?;
        let config_bytes = session.document("config", &manifest.config, true).await?;
        let id = manifest.config.digest.clone();
        let document = ImageDocument::parse(&config_bytes, &id, manifest.layers.len())?;
        let plans = plans(&document);
        let pins = self.inner.layers.pin(plans.iter().map(|plan| plan.chain_id.clone()).collect());
        let session = Arc::new(session);
        assemble(&self.inner, &plans, |number| {
            fetch(
                self.inner.clone(),
                session.clone(),
                manifest.layers[number].clone(),
                plans[number].clone(),
                progress.clone(),
            )
        })
        .await?;
        let record = Record { id, manifest: Some(manifest_digest), tags, digests, built_from: None };
        blocking(move || images.register(record, &config_bytes, Some(&manifest_bytes), document, pins)).await
    }
}

/// The layers that a configuration describes.
pub(super) fn plans(document: &ImageDocument) -> Vec<Plan> {
    let diff_ids = document.diff_ids().iter().cloned();
    let plan = |(diff_id, chain_id)| Plan { diff_id, chain_id };
    diff_ids.zip(document.chain_ids()).map(plan).collect()
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Cancelled)?
}

/// Follows indexes to the manifest for this machine.
async fn manifest(
    session: &Session,
    mut target: Descriptor,
    mut content: Option<Bytes>,
) -> Result<(crate::content::Digest, Bytes, Manifest), Error> {
    for _ in 0..MAX_NESTING {
        let bytes = match content.take() {
            Some(bytes) => bytes,
            None => session.document("manifest", &target, false).await?,
        };
        match Document::parse(&bytes, &target.digest, &target.media_type)? {
            Document::Manifest(manifest) => return Ok((target.digest, bytes, manifest)),
            Document::Index(list) => target = choose(&list, &target.digest)?.clone(),
        }
    }
    Err(InvalidManifest::Neither(target.digest).into())
}

/// Streams one layer from the registry into a directory.
async fn fetch(
    inner: Arc<Inner>,
    session: Arc<Session>,
    blob: Descriptor,
    plan: Plan,
    progress: Option<OnProgress>,
) -> Result<Unpacked, Error> {
    let (sender, reader) = ChannelReader::new();
    let expected = blob.clone();
    let unpacking =
        tokio::task::spawn_blocking(move || unpack_stream(&inner.layers, reader, Some(&expected), &plan.diff_id));
    let mut stream = session.blob(&blob);
    let fed = loop {
        match stream.next().await {
            Ok(Some(bytes)) => {
                // The unpacking thread gave up; it knows why.
                if sender.send(bytes).await.is_err() {
                    break Ok(());
                }
                tell(&progress, || Progress::Layer {
                    digest: blob.digest.to_string(),
                    offset: stream.offset(),
                    total: blob.size,
                });
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    drop(sender);
    let unpacked = unpacking.await.map_err(|_| Error::Cancelled)?;
    fed?;
    let unpacked = unpacked?;
    tell(&progress, || Progress::Unpacked { digest: blob.digest.to_string() });
    Ok(unpacked)
}

fn tell(progress: &Option<OnProgress>, event: impl FnOnce() -> Progress) {
    if let Some(progress) = progress {
        progress(event());
    }
}
