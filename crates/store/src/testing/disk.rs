//! A disk in memory that tells what is written from what is durable, and fails and loses power as it is told to.
//!
//! It keeps no more of the promises of [`Disk`] than it must. What is not synced survives a loss of power or not, each
//! sector by itself, whatever the order of writes; a sector may be torn. Names are as unsure as contents until they are
//! synced, each change by itself. A failed sync leaves some sectors that look written and will never be.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::random::Random;
use crate::embedded::{Disk, File};

/// What a disk writes as a whole, mostly.
const SECTOR: u64 = 512;

/// What the engine is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Create,
    Open,
    List,
    Remove,
    Rename,
    SyncNames,
    Size,
    Read,
    Write,
    Sync,
    SetLen,
}

impl Call {
    /// Whether it changes what is on the disk.
    pub fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::List | Self::Size | Self::Read)
    }
}

/// Who decides what becomes of calls.
pub trait Fate: Send + Sync {
    /// Called before each call, which it lets happen or fail. It may wait here, or unwind, and so never happen.
    fn before(&self, call: Call, name: &str) -> io::Result<()>;

    /// Something was just made durable, and nobody knows it yet. It may wait or unwind.
    fn after_sync(&self);
}

/// What is on the platters and in the page cache. Outlives processes.
#[derive(Debug, Default)]
pub struct Platter {
    names: Mutex<Names>,
    faults: Faults,
}

/// What fails until it is unset.
#[derive(Debug, Default)]
pub struct Faults {
    /// There is no space.
    pub full: AtomicBool,
    /// The most that can be reserved at once, unless 0.
    pub scarce: AtomicU64,
    pub syncs_fail: AtomicBool,
    pub reads_fail: AtomicBool,
    /// Seeds what a failed sync loses.
    pub lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Names {
    seen: BTreeMap<String, Arc<Inode>>,
    durable: BTreeMap<String, Arc<Inode>>,
    unsynced: Vec<NameChange>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Put(String, Arc<Inode>),
    Remove(String),
    Rename(String, String),
}

impl NameChange {
    /// Nothing happens if what it is about is not there.
    fn apply(&self, names: &mut BTreeMap<String, Arc<Inode>>) {
        match self {
            Self::Put(name, inode) => drop(names.insert(name.clone(), Arc::clone(inode))),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

/// A file's contents.
#[derive(Debug, Default)]
struct Inode(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, written) => {
                let end = *offset as usize + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset as usize..end].copy_from_slice(written);
            }
            Self::Length(len) => bytes.resize(*len as usize, 0),
        }
    }

    /// The same as changes of one sector each.
    fn sectors(&self) -> Vec<Self> {
        let Self::Write(offset, written) = self else { return vec![self.clone()] };
        let mut sectors = Vec::new();
        let (mut at, mut rest) = (*offset, &written[..]);
        while !rest.is_empty() {
            let here = ((SECTOR - at % SECTOR) as usize).min(rest.len());
            sectors.push(Self::Write(at, rest[..here].to_vec()));
            at += here as u64;
            rest = &rest[here..];
        }
        sectors
    }
}

impl Content {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Some of it reaches the disk, and the rest is not tried again.
    fn sync_in_vain(&mut self, random: &mut Random) {
        for sector in self.unsynced.drain(..).flat_map(|change| change.sectors()) {
            if random.chance(50) {
                sector.apply(&mut self.durable);
            }
        }
    }

    fn lose(&self, loss: Loss, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for mut sector in self.unsynced.iter().flat_map(Change::sectors) {
            if !random.chance(loss.kept) {
                continue;
            }
            if random.chance(loss.torn)
                && let Change::Write(_, written) = &mut sector
            {
                written.truncate(random.index(written.len()));
            }
            sector.apply(&mut bytes);
        }
        bytes
    }
}

/// What a loss of power spares of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// How many sectors and names in a hundred survive.
    pub kept: u64,
    /// How many of them in a hundred are torn.
    pub torn: u64,
}

impl Loss {
    /// Nothing survives.
    pub const ALL: Self = Self { kept: 0, torn: 0 };

    /// Any.
    pub fn any(random: &mut Random) -> Self {
        Self { kept: *random.pick(&[0, 30, 50, 80, 95, 100]), torn: *random.pick(&[0, 0, 20]) }
    }
}

impl Platter {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What fails, to be set and unset.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The disk after a loss of power.
    pub fn after(&self, loss: Loss, random: &mut Random) -> Self {
        let names = self.names();
        let mut survived = names.durable.clone();
        for change in names.unsynced.iter().filter(|_| random.chance(loss.kept)) {
            change.apply(&mut survived);
        }
        let files: BTreeMap<String, Arc<Inode>> = survived
            .into_iter()
            .map(|(name, inode)| {
                let bytes = inode.content().lose(loss, random);
                let content = Content { seen: bytes.clone(), durable: bytes, unsynced: Vec::new() };
                (name, Arc::new(Inode(Mutex::new(content))))
            })
            .collect();
        let names = Names { seen: files.clone(), durable: files, unsynced: Vec::new() };
        Self { names: Mutex::new(names), faults: Faults::default() }
    }

    /// Writes the page cache down, as the system does when it has time.
    pub fn write_back(&self) {
        for inode in self.names().seen.values() {
            inode.content().sync();
        }
    }
}

impl Inode {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A platter as one process has it mounted.
#[derive(Clone)]
pub struct MemoryDisk {
    platter: Arc<Platter>,
    fate: Option<Arc<dyn Fate>>,
    path: PathBuf,
}

impl MemoryDisk {
    /// Calls always happen.
    pub fn new(platter: &Arc<Platter>) -> Self {
        Self { platter: Arc::clone(platter), fate: None, path: PathBuf::from("/memory") }
    }

    /// Each call is decided on.
    pub fn with(platter: &Arc<Platter>, fate: Arc<dyn Fate>) -> Self {
        Self { fate: Some(fate), ..Self::new(platter) }
    }

    fn before(&self, call: Call, name: &str) -> io::Result<()> {
        let full = self.platter.faults.full.load(Ordering::SeqCst);
        self.fate.as_ref().map_or(Ok(()), |fate| fate.before(call, name))?;
        match call {
            Call::Create | Call::Write if full => Err(io::ErrorKind::StorageFull.into()),
            Call::Sync | Call::SyncNames if self.platter.faults.syncs_fail.load(Ordering::SeqCst) => {
                Err(io::Error::other("the cable was pulled"))
            }
            Call::Read if self.platter.faults.reads_fail.load(Ordering::SeqCst) => {
                Err(io::Error::other("the sector is bad"))
            }
            _ => Ok(()),
        }
    }

    fn after_sync(&self) {
        if let Some(fate) = &self.fate {
            fate.after_sync();
        }
    }

    fn file(&self, name: &str, inode: &Arc<Inode>) -> Arc<dyn File> {
        Arc::new(MemoryFile { disk: self.clone(), name: name.to_owned(), inode: Arc::clone(inode) })
    }
}

impl Disk for MemoryDisk {
    fn create(&self, name: &str, size: u64) -> io::Result<Arc<dyn File>> {
        self.before(Call::Create, name)?;
        let most = self.platter.faults.scarce.load(Ordering::SeqCst);
        if most != 0 && size > most {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut names = self.platter.names();
        let inode = match names.seen.get(name) {
            Some(inode) => Arc::clone(inode),
            None => {
                let inode = Arc::new(Inode::default());
                names.seen.insert(name.to_owned(), Arc::clone(&inode));
                names.unsynced.push(NameChange::Put(name.to_owned(), Arc::clone(&inode)));
                inode
            }
        };
        inode.content().change(Change::Length(0));
        inode.content().change(Change::Length(size));
        Ok(self.file(name, &inode))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.before(Call::Open, name)?;
        let names = self.platter.names();
        let inode = names.seen.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(name, inode))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.before(Call::List, "")?;
        Ok(self.platter.names().seen.keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.before(Call::Remove, name)?;
        let mut names = self.platter.names();
        names.seen.remove(name).ok_or(io::ErrorKind::NotFound)?;
        names.unsynced.push(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.before(Call::Rename, from)?;
        let mut names = self.platter.names();
        if !names.seen.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        change.apply(&mut names.seen);
        names.unsynced.push(change);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.before(Call::SyncNames, "")?;
        let mut names = self.platter.names();
        names.durable = names.seen.clone();
        names.unsynced.clear();
        drop(names);
        self.after_sync();
        Ok(())
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    name: String,
    inode: Arc<Inode>,
}

impl File for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        self.disk.before(Call::Size, &self.name)?;
        Ok(self.inode.content().seen.len() as u64)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.before(Call::Read, &self.name)?;
        let content = self.inode.content();
        let range = offset as usize..offset as usize + buffer.len();
        buffer.copy_from_slice(content.seen.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn read_cached(&self, _: &mut [u8], _: u64) -> io::Result<bool> {
        Ok(false)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let write = |bytes: &[u8]| self.inode.content().change(Change::Write(offset, bytes.to_vec()));
        match self.disk.before(Call::Write, &self.name) {
            Ok(()) => {
                write(bytes);
                Ok(())
            }
            Err(error) => {
                // What failed may have been written in part.
                write(&bytes[..bytes.len() / 2]);
                Err(error)
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        let result = self.disk.before(Call::Sync, &self.name);
        let mut content = self.inode.content();
        match &result {
            Ok(()) => content.sync(),
            Err(_) => {
                let seed = self.disk.platter.faults.lost.fetch_add(1, Ordering::SeqCst);
                content.sync_in_vain(&mut Random::new(seed));
            }
        }
        drop(content);
        if result.is_ok() {
            self.disk.after_sync();
        }
        result
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.before(Call::SetLen, &self.name)?;
        self.inode.content().change(Change::Length(len));
        Ok(())
    }
}
