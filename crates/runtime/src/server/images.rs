//! What containers need of images.

use std::path::PathBuf;

use crate::spec::ImageConfig;

/// An image that a container can be made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResolvedImage {
    pub(crate) id: String,
    /// What the container's status calls it.
    pub(crate) reference: String,
    pub(crate) config: ImageConfig,
}

/// Bytes and inodes that a container has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WritableUsage {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// Images and root file systems. All calls block; errors are told as they are.
pub(crate) trait RootFilesystems: Send + Sync {
    /// Finds an image by id or name; `Ok(None)` when it isn't there.
    fn resolve(&self, image: &str) -> Result<Option<ResolvedImage>, String>;
    /// Makes and mounts the root file system of a new container.
    fn prepare(&self, container: &str, image: &ResolvedImage) -> Result<PathBuf, String>;
    /// Mounts it again if need be, such as after the machine has started anew.
    fn mount(&self, container: &str) -> Result<PathBuf, String>;
    /// Unmounts and removes it; it need not exist.
    fn remove(&self, container: &str) -> Result<(), String>;
    /// Removes all but those of these containers.
    fn retain(&self, containers: &[String]) -> Result<(), String>;
    fn usage(&self, container: &str) -> Result<WritableUsage, String>;
    /// Where they are kept, for usage reports.
    fn directory(&self) -> PathBuf;
}

/// Directories as images, until the image store is there.
pub(crate) struct DirectoryImages(pub(crate) PathBuf);

impl RootFilesystems for DirectoryImages {
    fn resolve(&self, image: &str) -> Result<Option<ResolvedImage>, String> {
        let dir = self.0.join("images").join(image.replace(['/', ':'], "_"));
        if !dir.is_dir() {
            return Ok(None);
        }
        Ok(Some(ResolvedImage {
            id: format!("sha256:{}", image.replace(['/', ':'], "_")),
            reference: image.into(),
            config: ImageConfig::default(),
        }))
    }
    fn prepare(&self, container: &str, image: &ResolvedImage) -> Result<PathBuf, String> {
        let dir = self.0.join("dirs").join(container);
        for part in ["upper", "work", "rootfs"] {
            std::fs::create_dir_all(dir.join(part)).map_err(|e| e.to_string())?;
        }
        let name = image.id.trim_start_matches("sha256:");
        std::fs::write(dir.join("image"), name).map_err(|e| e.to_string())?;
        self.mount(container)
    }
    fn mount(&self, container: &str) -> Result<PathBuf, String> {
        let dir = self.0.join("dirs").join(container);
        let name = std::fs::read_to_string(dir.join("image")).map_err(|e| e.to_string())?;
        let target = dir.join("rootfs");
        if std::fs::read_dir(&target).is_ok_and(|mut d| d.next().is_some()) {
            return Ok(target);
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.0.join("images").join(name).display(),
            dir.join("upper").display(),
            dir.join("work").display()
        );
        nix::mount::mount(
            Some("overlay"),
            &target,
            Some("overlay"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )
        .map_err(|e| e.to_string())?;
        Ok(target)
    }
    fn remove(&self, container: &str) -> Result<(), String> {
        let dir = self.0.join("dirs").join(container);
        let _ = nix::mount::umount2(&dir.join("rootfs"), nix::mount::MntFlags::MNT_DETACH);
        let _ = std::fs::remove_dir_all(dir);
        Ok(())
    }
    fn retain(&self, containers: &[String]) -> Result<(), String> {
        for entry in std::fs::read_dir(self.0.join("dirs")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !containers.contains(&name) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }
    fn usage(&self, _: &str) -> Result<WritableUsage, String> {
        Ok(WritableUsage::default())
    }
    fn directory(&self) -> PathBuf {
        self.0.clone()
    }
}
