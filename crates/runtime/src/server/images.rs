//! What containers need of images.

use std::{path::PathBuf, sync::Arc};

use super::error::{Result, RuntimeError};
use crate::{
    content::Usage,
    image::{Image, Images},
    registry::chain,
    spec::ImageConfig,
};

/// An image that a container can be made of; it stays on disk for as long as this is held.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedImage {
    image: Arc<Image>,
    pub(crate) config: ImageConfig,
}

impl ResolvedImage {
    pub(crate) fn id(&self) -> String {
        self.image.id().to_string()
    }

    /// What the container's status calls it: a name with a digest when there is one.
    pub(crate) fn reference(&self) -> String {
        let digest = self.image.repo_digests().first();
        digest.cloned().unwrap_or_else(|| self.id())
    }
}

/// Images and root file systems. All calls block.
#[derive(Clone, Debug)]
pub(crate) struct RootFilesystems(Images);

impl RootFilesystems {
    pub(crate) fn new(images: Images) -> Self {
        Self(images)
    }

    /// Finds an image by id or name.
    pub(crate) fn resolve(&self, name: &str) -> Result<ResolvedImage> {
        let image =
            self.0.resolve(name).ok_or_else(|| RuntimeError::NotFound { kind: "image", id: name.to_owned() })?;
        let config = image.config();
        Ok(ResolvedImage {
            config: ImageConfig {
                entrypoint: config.entrypoint.clone(),
                cmd: config.cmd.clone(),
                env: config.env.clone(),
                working_dir: config.working_dir.clone(),
                user: config.user.clone(),
                stop_signal: config.stop_signal.clone(),
            },
            image,
        })
    }

    /// Makes and mounts the root file system of a new container.
    pub(crate) fn prepare(&self, container: &str, image: &ResolvedImage) -> Result<PathBuf> {
        let snapshots = self.0.snapshots();
        snapshots
            .prepare(container, &image.image)
            .and_then(|_| snapshots.mount(container))
            .map_err(|e| failed(format!("make the root of container {container}"), &e))
    }

    /// Makes and mounts a read-only view of an image, as for a volume.
    pub(crate) fn view(&self, name: &str, image: &ResolvedImage) -> Result<PathBuf> {
        let snapshots = self.0.snapshots();
        snapshots
            .view(name, &image.image)
            .and_then(|_| snapshots.mount(name))
            .map_err(|e| failed(format!("mount the image volume {name}"), &e))
    }

    /// Mounts one again if need be, such as after the machine has started anew.
    pub(crate) fn mount(&self, name: &str) -> Result<PathBuf> {
        self.0.snapshots().mount(name).map_err(|e| failed(format!("mount {name}"), &e))
    }

    /// Unmounts and removes what belongs to a container; none of it need exist.
    pub(crate) fn remove(&self, container: &str) -> Result<()> {
        for name in self.0.snapshots().list() {
            if name == container || owner(&name) == Some(container) {
                self.0
                    .snapshots()
                    .remove(&name)
                    .map_err(|e| failed(format!("remove the root of container {container}"), &e))?;
            }
        }
        Ok(())
    }

    /// Removes all but those of these containers.
    pub(crate) fn retain(&self, containers: &[String]) -> Result<()> {
        let known: Vec<String> = self
            .0
            .snapshots()
            .list()
            .into_iter()
            .filter(|name| containers.iter().any(|c| name == c || owner(name) == Some(c)))
            .collect();
        self.0.snapshots().retain(&known).map_err(|e| failed("remove root file systems of no container".into(), &e))
    }

    /// What a container has written.
    pub(crate) fn usage(&self, container: &str) -> Option<Usage> {
        self.0.snapshots().usage(container).ok()
    }

    /// Where they are kept, for usage reports.
    pub(crate) fn directory(&self) -> PathBuf {
        self.0.dir().to_owned()
    }
}

/// Name of the view that is a container's image volume.
pub(crate) fn volume_name(container: &str, number: usize) -> String {
    format!("{container}.volume-{number}")
}

/// The container whose image volume this is.
fn owner(name: &str) -> Option<&str> {
    name.split_once(".volume-").map(|(container, _)| container)
}

fn failed(doing: String, error: &(dyn std::error::Error + 'static)) -> RuntimeError {
    RuntimeError::Other { doing, message: chain(error) }
}
