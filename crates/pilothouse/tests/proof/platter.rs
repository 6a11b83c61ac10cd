//! A disk whose power can be cut: an image behind FUSE, a loop device on it, a file system on that.
//!
//! What was written but not flushed when the power goes is lost, or a part of its sectors is there: no more is promised by
//! a disk, whatever the order in which it was written.

use crate::Fallible;
use crate::arena::{PATIENCE, run};
use crate::dice::Dice;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner,
    MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite, Request, WriteFlags,
};
use nix::mount::{MntFlags, umount2};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

const SECTOR: usize = 512;
const SIZE: usize = 256 << 20;
/// Nothing of what is told of a file changes while it is known.
const TTL: Duration = Duration::from_hours(1);
/// The image has another name after each power cut, so that nothing of it is cached. The first of them:
const FIRST: u64 = 2;

/// What is on the disk, and in its cache.
struct Platter {
    durable: Vec<u8>,
    /// Sectors that were written and not flushed.
    cached: BTreeMap<usize, [u8; SECTOR]>,
    powered: bool,
    /// After so many more writes the power goes.
    left: Option<u64>,
    dice: Dice,
    flushes: usize,
    lost: usize,
}

impl Platter {
    fn read(&self, offset: usize, size: usize) -> Vec<u8> {
        let mut bytes = self.durable[offset..(offset + size).min(SIZE)].to_vec();
        for (sector, content) in self.cached.range(offset / SECTOR..(offset + size).div_ceil(SECTOR)) {
            for (at, byte) in content.iter().enumerate() {
                if let Some(place) = (sector * SECTOR + at).checked_sub(offset).and_then(|n| bytes.get_mut(n)) {
                    *place = *byte;
                }
            }
        }
        bytes
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let (sector, within) = ((offset + done) / SECTOR, (offset + done) % SECTOR);
            let part = (SECTOR - within).min(data.len() - done);
            let start = sector * SECTOR;
            let content = self.cached.entry(sector).or_insert_with(|| {
                let mut content = [0; SECTOR];
                content.copy_from_slice(&self.durable[start..start + SECTOR]);
                content
            });
            content[within..within + part].copy_from_slice(&data[done..done + part]);
            done += part;
        }
        match self.left {
            Some(0) => self.cut(),
            left => self.left = left.map(|left| left - 1),
        }
    }

    fn flush(&mut self) {
        self.flushes += 1;
        for (sector, content) in std::mem::take(&mut self.cached) {
            self.durable[sector * SECTOR..(sector + 1) * SECTOR].copy_from_slice(&content);
        }
    }

    /// The power goes: of each sector in the cache chance decides, once in a while against all of them.
    fn cut(&mut self) {
        (self.powered, self.left) = (false, None);
        let all = self.dice.once_in(3);
        for (sector, content) in std::mem::take(&mut self.cached) {
            if all || self.dice.once_in(2) {
                self.lost += 1;
            } else {
                self.durable[sector * SECTOR..(sector + 1) * SECTOR].copy_from_slice(&content);
            }
        }
    }
}

/// The file system of one file, whatever its name.
struct Image(Arc<Mutex<Platter>>);

impl Image {
    /// The disk, while it has power.
    fn disk(&self) -> Result<MutexGuard<'_, Platter>, Errno> {
        let disk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if disk.powered { Ok(disk) } else { Err(Errno::EIO) }
    }
}

fn attributes(inode: u64) -> FileAttr {
    let root = inode == u64::from(INodeNo::ROOT);
    let size = if root { 0 } else { SIZE as u64 };
    FileAttr {
        ino: INodeNo(inode),
        size,
        blocks: size / SECTOR as u64,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if root { FileType::Directory } else { FileType::RegularFile },
        perm: 0o700,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// A place in the image.
fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(SIZE).min(SIZE)
}

impl Filesystem for Image {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.to_str().and_then(|name| name.parse::<u64>().ok()) {
            Some(number) => reply.entry(&TTL, &attributes(FIRST + number), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(inode.into()));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk() {
            Ok(disk) => reply.data(&disk.read(place(offset), size as usize)),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let start = place(offset);
        let data = &data[..data.len().min(SIZE - start)];
        match self.disk() {
            Ok(mut disk) => {
                disk.write(start, data);
                reply.written(u32::try_from(data.len()).unwrap_or_default());
            }
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.disk() {
            Ok(mut disk) => {
                disk.flush();
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // A file was closed, which makes nothing durable.
        reply.ok();
    }
}

/// The disk, its loop device, and where its file system is mounted.
pub struct Disk {
    platter: Arc<Mutex<Platter>>,
    /// Ended after everything that uses it.
    session: Option<BackgroundSession>,
    image: PathBuf,
    mounted: PathBuf,
    device: Option<String>,
    cuts: u64,
}

impl Disk {
    /// A disk with an empty file system, mounted below a directory. To be used where mounts are nobody else's.
    pub fn new(directory: &Path, seed: u64) -> Fallible<Self> {
        let (image, mounted) = (directory.join("image"), directory.join("disk"));
        for path in [&image, &mounted] {
            std::fs::create_dir(path)?;
        }
        let platter = Platter {
            durable: vec![0; SIZE],
            cached: BTreeMap::new(),
            powered: true,
            left: None,
            dice: Dice::new(seed),
            flushes: 0,
            lost: 0,
        };
        let platter = Arc::new(Mutex::new(platter));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("platter".to_owned())];
        let session = fuser::spawn_mount(Image(platter.clone()), &image, &config)?;
        let mut disk = Disk { platter, session: Some(session), image, mounted, device: None, cuts: 0 };
        disk.attach()?;
        run("mkfs.ext4", &["-q", "-F", disk.device.as_deref().unwrap_or_default()])?;
        disk.mount()?;
        Ok(disk)
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// How often it was flushed, and how many sectors power cuts have cost so far.
    pub fn history(&self) -> (usize, usize) {
        let platter = self.platter();
        (platter.flushes, platter.lost)
    }

    fn attach(&mut self) -> Fallible {
        let image = self.image.join(self.cuts.to_string());
        self.device = Some(run("losetup", &["--find", "--show", &image.display().to_string()])?);
        Ok(())
    }

    fn mount(&self) -> Fallible {
        let device = self.device.as_deref().ok_or("no loop device")?;
        run("mount", &["-t", "ext4", device, &self.mounted.display().to_string()]).map(drop)
    }

    /// Cuts the power just after so many more writes, which is before anything could flush the last one. Whoever uses the
    /// disk sees errors from then on.
    pub async fn cut_after(&self, writes: u64) -> Fallible {
        self.platter().left = Some(writes);
        let deadline = Instant::now() + PATIENCE;
        while self.platter().powered {
            if Instant::now() > deadline {
                return Err("nothing is written to the disk any more".into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Gives it power again, as a machine that starts anew finds it. Nobody may use it now.
    pub fn restore(&mut self) -> Fallible {
        self.detach()?;
        self.platter().powered = true;
        self.cuts += 1;
        self.attach()?;
        self.mount()
    }

    fn detach(&mut self) -> Fallible {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match umount2(&self.mounted, MntFlags::empty()) {
                // Not mounted.
                Ok(()) | Err(nix::Error::EINVAL) => break,
                Err(_) if Instant::now() < deadline => std::thread::park_timeout(Duration::from_millis(10)),
                Err(e) => return Err(format!("{}: {e}", self.mounted.display()).into()),
            }
        }
        match self.device.take() {
            Some(device) => run("losetup", &["--detach", &device]).map(drop),
            None => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(e) = self.detach() {
            eprintln!("{e}");
        }
        if let Some(session) = self.session.take()
            && let Err(e) = session.umount_and_join()
        {
            eprintln!("{e}");
        }
    }
}
