//! A disk of a cluster's own, in memory: how full the machine's is, is nobody's concern here.

use super::Fallible;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    pub fn new() -> Fallible<Self> {
        let dir = tempfile::Builder::new().prefix("phd").tempdir_in("/tmp")?;
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=2g,mode=755"))?;
        Ok(Disk { dir })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Fills it to the last byte; gives the file that does.
    pub fn fill(&self) -> Fallible<PathBuf> {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path)?;
        for size in [1 << 20, 4096, 1] {
            while file.write(&vec![0; size]).is_ok() {}
        }
        Ok(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(e) = umount2(self.path(), MntFlags::MNT_DETACH) {
            eprintln!("{}: {e}", self.path().display());
        }
    }
}
