//! The disk as the engine sees it: a flat directory of files with positioned reads and writes and explicit syncs.
//!
//! The engine touches the disk only through these traits, so a simulator can stand in for them. What they promise is
//! what POSIX and an honest disk promise: nothing is durable before a sync returns, a failed sync may have lost what it
//! covered, and a file that is removed stays readable through handles that are open.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory of files.
pub trait Disk: Send + Sync + 'static {
    /// Creates a file, or empties the one that is there, and reserves `size` bytes where that is possible.
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn File>>;

    /// Opens an existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// The names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Removes a file; open handles still read it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Puts a file in another's place, atomically.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes creations, removals and renames durable.
    fn sync_names(&self) -> io::Result<()>;

    /// Where the directory is, for messages.
    fn path(&self) -> &Path;
}

/// An open file.
pub trait File: Send + Sync + 'static {
    /// The length in bytes, reserved bytes included.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`, waiting for the disk; fails when the file ends before.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Fills `buffer` from `offset` if that needs no wait for the disk; tells whether it did.
    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool>;

    /// Writes all of `bytes` at `offset`.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// A directory of the operating system.
#[derive(Debug)]
pub struct OsDisk {
    directory: PathBuf,
}

impl OsDisk {
    /// Uses `directory`, which must exist.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }
}

impl Disk for OsDisk {
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn File>> {
        let file =
            fs::File::options().read(true).write(true).create(true).truncate(true).open(self.directory.join(name))?;
        if size > 0 {
            // Blocks that are there already keep the allocator out of each later sync, and a full disk shows here.
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size) {
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(errno) => {
                    // Some of it may have been reserved.
                    file.set_len(0)?;
                    return Err(errno.into());
                }
            }
        }
        Ok(Arc::new(OsFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let path = self.directory.join(name);
        let file = match fs::File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => fs::File::open(&path)?,
            opened => opened?,
        };
        Ok(Arc::new(OsFile { file }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.directory.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn sync_names(&self) -> io::Result<()> {
        fs::File::open(&self.directory)?.sync_all()
    }

    fn path(&self) -> &Path {
        &self.directory
    }
}

struct OsFile {
    file: fs::File,
}

impl File for OsFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        let wanted = buffer.len();
        let mut slices = [io::IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.file, &mut slices, offset, rustix::io::ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(read == wanted),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}
