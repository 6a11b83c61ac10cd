//! bbolt files: what etcd keeps its state in, written and read here as far as snapshots need.
//!
//! ```text
//! page    id u64 · flags u16 · count u16 · overflow u32 · elements …        all numbers little-endian
//! leaf    flags u32 · position u32 · key length u32 · value length u32      position counts from the element itself
//! branch  position u32 · key length u32 · page u64
//! bucket  root page u64 · sequence u64 · (a page, if the root is 0)         the value of an element with the bucket flag
//! meta    magic · version · page size · flags · root bucket · freelist · pages · transaction · FNV-1a of these
//! ```
//!
//! Pages 0 and 1 are metas, of which the valid one with the higher transaction counts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PAGE: usize = 4096;
const HEADER: usize = 16;
const ELEMENT: usize = 16;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const META_SIZE: usize = 64;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;
const BUCKET: u32 = 0x01;

/// No tree of pages is deeper, however large.
const MAX_DEPTH: usize = 32;
/// No page with its overflow is larger: a value and its key are less.
const MAX_SPAN: u64 = 256 << 20;

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Writes a file bucket by bucket. Trees are built from the leaves up, so nothing is held but one page of each level.
pub(super) struct Writer<'a> {
    file: &'a File,
    next: u64,
    buckets: BTreeMap<Vec<u8>, u64>,
}

/// The page under construction of one level of a tree.
#[derive(Default)]
struct Level {
    /// Key, value, and flags; of a branch the value is the page's number.
    elements: Vec<(Vec<u8>, Vec<u8>, u32)>,
    size: usize,
}

impl<'a> Writer<'a> {
    /// Begins a file that is empty.
    pub(super) fn new(file: &'a File) -> Self {
        // Two metas and the freelist come first.
        Self { file, next: 3, buckets: BTreeMap::new() }
    }

    /// Adds a bucket, whose keys `fill` adds in order.
    pub(super) fn bucket<E: From<io::Error>>(
        &mut self,
        name: &[u8],
        fill: impl FnOnce(&mut Tree<'_, 'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut tree = Tree { writer: self, levels: vec![Level::default()] };
        fill(&mut tree)?;
        let root = tree.finish()?;
        self.buckets.insert(name.to_owned(), root);
        Ok(())
    }

    /// Writes the list of buckets, the freelist and the metas; tells the size of the file.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        let buckets = std::mem::take(&mut self.buckets);
        let mut tree = Tree { writer: &mut self, levels: vec![Level::default()] };
        for (name, root) in buckets {
            tree.element(0, name, [root.to_le_bytes(), [0; 8]].concat(), BUCKET)?;
        }
        let root = tree.finish()?;
        self.page(2, FREELIST, 0, &[])?;
        for meta in 0..2_u64 {
            let mut body = Vec::with_capacity(META_SIZE);
            for number in [MAGIC, VERSION, PAGE as u32, 0] {
                body.extend_from_slice(&number.to_le_bytes());
            }
            // Root, its sequence, freelist, pages, transaction.
            for number in [root, 0, 2, self.next, meta + 1] {
                body.extend_from_slice(&number.to_le_bytes());
            }
            let sum = fnv(&body);
            body.extend_from_slice(&sum.to_le_bytes());
            self.page(meta, META, 0, &body)?;
        }
        Ok(self.next * PAGE as u64)
    }

    fn page(&self, id: u64, flags: u16, count: u16, body: &[u8]) -> io::Result<u64> {
        let pages = (HEADER + body.len()).div_ceil(PAGE).max(1);
        let mut page = Vec::with_capacity(pages * PAGE);
        page.extend_from_slice(&id.to_le_bytes());
        page.extend_from_slice(&flags.to_le_bytes());
        page.extend_from_slice(&count.to_le_bytes());
        page.extend_from_slice(&(pages as u32 - 1).to_le_bytes());
        page.extend_from_slice(body);
        page.resize(pages * PAGE, 0);
        self.file.write_all_at(&page, id * PAGE as u64)?;
        Ok(pages as u64)
    }
}

/// A bucket being filled.
pub(super) struct Tree<'w, 'a> {
    writer: &'w mut Writer<'a>,
    levels: Vec<Level>,
}

impl Tree<'_, '_> {
    /// Adds a key greater than those before.
    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> io::Result<()> {
        self.element(0, key, value, 0)
    }

    fn element(&mut self, level: usize, key: Vec<u8>, value: Vec<u8>, flags: u32) -> io::Result<()> {
        let size = ELEMENT + key.len() + if level == 0 { value.len() } else { 0 };
        let full = {
            let level = &self.levels[level];
            // Two at least, so that trees of long keys end.
            level.elements.len() >= 2 && HEADER + level.size + size > PAGE
        };
        if full {
            self.flush(level)?;
        }
        let level = &mut self.levels[level];
        level.size += size;
        level.elements.push((key, value, flags));
        Ok(())
    }

    /// Writes the page of a level and notes it in the level above.
    fn flush(&mut self, level: usize) -> io::Result<()> {
        let (first, id) = self.write(level)?;
        if self.levels.len() == level + 1 {
            self.levels.push(Level::default());
        }
        self.element(level + 1, first, id.to_le_bytes().to_vec(), 0)
    }

    fn write(&mut self, level: usize) -> io::Result<(Vec<u8>, u64)> {
        let Level { elements, size } = std::mem::take(&mut self.levels[level]);
        let mut heads = Vec::with_capacity(elements.len() * ELEMENT);
        let mut data = Vec::with_capacity(size);
        for (at, (key, value, flags)) in elements.iter().enumerate() {
            let position = ((elements.len() - at) * ELEMENT + data.len()) as u32;
            let lengths = [key.len() as u32, value.len() as u32];
            if level == 0 {
                for number in [*flags, position, lengths[0], lengths[1]] {
                    heads.extend_from_slice(&number.to_le_bytes());
                }
                data.extend_from_slice(key);
                data.extend_from_slice(value);
            } else {
                heads.extend_from_slice(&position.to_le_bytes());
                heads.extend_from_slice(&lengths[0].to_le_bytes());
                heads.extend_from_slice(value);
                data.extend_from_slice(key);
            }
        }
        heads.extend_from_slice(&data);
        let id = self.writer.next;
        let flags = if level == 0 { LEAF } else { BRANCH };
        self.writer.next += self.writer.page(id, flags, elements.len() as u16, &heads)?;
        Ok((elements.into_iter().next().map(|(key, ..)| key).unwrap_or_default(), id))
    }

    /// Writes what is left; tells the root's page.
    fn finish(mut self) -> io::Result<u64> {
        let mut level = 0;
        loop {
            if level + 1 == self.levels.len() {
                return self.write(level).map(|(_, id)| id);
            }
            self.flush(level)?;
            level += 1;
        }
    }
}

/// Reads a file that may be anything: every number in it is doubted.
pub(super) struct Reader<'a> {
    file: &'a File,
    page_size: u64,
    pages: u64,
    root: u64,
}

/// What is wrong, and where.
pub(super) fn damaged(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

/// A page with its overflow.
struct Page {
    id: u64,
    flags: u16,
    count: usize,
    bytes: Vec<u8>,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

impl<'a> Reader<'a> {
    /// Reads the metas. `size` is that of the file without what follows the pages.
    pub(super) fn new(file: &'a File, size: u64) -> io::Result<Self> {
        let mut best: Option<(u64, Self)> = None;
        let first = Self::meta(file, 0, size)?;
        // The second meta is one page further, whose size the first tells; if that is damaged, the usual ones are tried.
        let sizes: Vec<u64> = match &first {
            Some((_, reader)) => vec![reader.page_size],
            None => vec![4096, 8192, 16384, 65536],
        };
        let seconds = sizes.into_iter().map(|at| Self::meta(file, at, size)).collect::<io::Result<Vec<_>>>()?;
        for (txid, reader) in first.into_iter().chain(seconds.into_iter().flatten()) {
            if best.as_ref().is_none_or(|(held, _)| txid > *held) {
                best = Some((txid, reader));
            }
        }
        best.map(|(_, reader)| reader).ok_or_else(|| damaged("it is no bbolt file, or both of its metas are damaged"))
    }

    fn meta(file: &'a File, at: u64, size: u64) -> io::Result<Option<(u64, Self)>> {
        let mut bytes = [0; HEADER + META_SIZE];
        if at + bytes.len() as u64 > size {
            return Ok(None);
        }
        file.read_exact_at(&mut bytes, at)?;
        let body = &bytes[HEADER..];
        let (number, long) = (|at| u32_at(body, at), |at| u64_at(body, at));
        let sum = Some(fnv(&body[..META_SIZE - 8]));
        if number(0) != Some(MAGIC) || number(4) != Some(VERSION) || long(META_SIZE - 8) != sum {
            return Ok(None);
        }
        let (Some(page_size), Some(root), Some(pages), Some(txid)) = (number(8), long(16), long(40), long(48)) else {
            return Ok(None);
        };
        let page_size = u64::from(page_size);
        if !(512..=1 << 20).contains(&page_size) || !page_size.is_power_of_two() {
            return Ok(None);
        }
        if pages.checked_mul(page_size).is_none_or(|all| all > size) {
            return Err(damaged(format!("it is cut short: {pages} pages of {page_size} bytes are more than {size}")));
        }
        Ok(Some((txid, Self { file, page_size, pages, root })))
    }

    fn page(&self, id: u64) -> io::Result<Page> {
        if id < 2 || id >= self.pages {
            return Err(damaged(format!("page {id} is outside of the file")));
        }
        let mut header = [0; HEADER];
        self.file.read_exact_at(&mut header, id * self.page_size)?;
        let overflow = u64::from(u32_at(&header, 12).unwrap_or_default());
        let span = (overflow + 1) * self.page_size;
        if id + overflow >= self.pages || span > MAX_SPAN {
            return Err(damaged(format!("page {id} is larger than it can be")));
        }
        let mut bytes = vec![0; span as usize];
        self.file.read_exact_at(&mut bytes, id * self.page_size)?;
        Page::parse(id, bytes)
    }

    /// Visits the keys of a bucket in order; tells whether there is such a bucket.
    pub(super) fn bucket<E: From<io::Error>>(
        &self,
        name: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut found = None;
        self.visit(self.root, &mut |key, value, flags| {
            if key == name && flags & BUCKET != 0 {
                found = Some(value.to_vec());
            }
            Ok::<(), E>(())
        })?;
        let Some(bucket) = found else { return Ok(false) };
        let root = u64_at(&bucket, 0).ok_or_else(|| damaged("a bucket has no root"))?;
        let mut plain = |key: &[u8], value: &[u8], _: u32| each(key, value);
        match root {
            0 => {
                let inline = bucket.get(16..).unwrap_or_default().to_vec();
                Page::parse(0, inline)?.leaf(&mut plain)?;
            }
            root => self.visit(root, &mut plain)?,
        }
        Ok(true)
    }

    /// The names of all buckets.
    pub(super) fn buckets(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        self.visit(self.root, &mut |key, _, flags| {
            if flags & BUCKET != 0 {
                names.push(key.to_vec());
            }
            Ok::<(), io::Error>(())
        })?;
        Ok(names)
    }

    /// Visits a tree in order, without recursion; a tree that visits more pages than there are has a loop.
    fn visit<E: From<io::Error>>(
        &self,
        root: u64,
        each: &mut impl FnMut(&[u8], &[u8], u32) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut visited = 0;
        let mut stack = vec![(root, 0)];
        while let Some((id, depth)) = stack.pop() {
            visited += 1;
            if visited > self.pages || depth > MAX_DEPTH {
                return Err(damaged("its pages lead in a circle").into());
            }
            let page = self.page(id)?;
            match page.flags {
                LEAF => page.leaf(each)?,
                BRANCH => {
                    for at in (0..page.count).rev() {
                        let child = u64_at(&page.bytes, HEADER + at * ELEMENT + 8);
                        stack.push((child.ok_or_else(|| damaged(format!("page {id} is cut short")))?, depth + 1));
                    }
                }
                other => return Err(damaged(format!("page {id} has the kind {other:#x} within a tree")).into()),
            }
        }
        Ok(())
    }
}

impl Page {
    fn parse(id: u64, bytes: Vec<u8>) -> io::Result<Self> {
        let short = || damaged(format!("page {id} is cut short"));
        let numbers = bytes.get(8..12).ok_or_else(short)?;
        let (flags, count) = (u16::from_le_bytes([numbers[0], numbers[1]]), [numbers[2], numbers[3]]);
        let count = usize::from(u16::from_le_bytes(count));
        if HEADER + count * ELEMENT > bytes.len() {
            return Err(short());
        }
        Ok(Self { id, flags, count, bytes })
    }

    fn leaf<E: From<io::Error>>(&self, each: &mut impl FnMut(&[u8], &[u8], u32) -> Result<(), E>) -> Result<(), E> {
        for at in 0..self.count {
            let base = HEADER + at * ELEMENT;
            let number = |offset: usize| u32_at(&self.bytes, base + offset).unwrap_or_default() as usize;
            let (flags, start) = (number(0) as u32, base + number(4));
            let (middle, end) = (start + number(8), start + number(8) + number(12));
            let (Some(key), Some(value)) = (self.bytes.get(start..middle), self.bytes.get(middle..end)) else {
                return Err(damaged(format!("an element of page {} is outside of it", self.id)).into());
            };
            each(key, value, flags)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(buckets: &[(&str, usize, usize)]) -> (File, u64) {
        let file = tempfile::tempfile().expect("a file");
        let mut writer = Writer::new(&file);
        for (name, keys, length) in buckets {
            writer
                .bucket(name.as_bytes(), |tree| {
                    (0..*keys).try_for_each(|number| tree.put(format!("{number:08}").into(), vec![b'v'; *length]))
                })
                .expect("filled");
        }
        let size = writer.finish().expect("written");
        (file, size)
    }

    fn read(file: &File, size: u64, bucket: &str) -> io::Result<Option<Vec<(Vec<u8>, usize)>>> {
        let mut found = Vec::new();
        let there = Reader::new(file, size)?.bucket(bucket.as_bytes(), |key, value| {
            found.push((key.to_vec(), value.len()));
            Ok::<(), io::Error>(())
        })?;
        Ok(there.then_some(found))
    }

    #[test]
    fn what_was_written_is_read() {
        let (file, size) = written(&[("few", 3, 10), ("none", 0, 0), ("many", 50_000, 20), ("large", 5, 2_000_000)]);
        for (bucket, keys, length) in [("few", 3, 10), ("none", 0, 0), ("many", 50_000, 20), ("large", 5, 2_000_000)] {
            let found = read(&file, size, bucket).expect("read").expect("the bucket is there");
            assert_eq!(found.len(), keys, "{bucket}");
            assert!(found.is_sorted() && found.iter().all(|(_, found)| *found == length));
        }
        assert_eq!(read(&file, size, "absent").expect("read"), None);
        let names = Reader::new(&file, size).and_then(|reader| reader.buckets()).expect("read");
        assert_eq!(names, [&b"few"[..], b"large", b"many", b"none"]);
    }

    #[test]
    fn a_damaged_meta_is_replaced_by_the_other() {
        let (file, size) = written(&[("few", 3, 10)]);
        file.write_all_at(b"garbage", PAGE as u64 + 30).expect("written");
        assert_eq!(read(&file, size, "few").expect("read").map(|found| found.len()), Some(3));
        file.write_all_at(b"garbage", 30).expect("written");
        assert!(read(&file, size, "few").is_err());
    }

    #[test]
    fn whatever_bytes_are_flipped_reading_ends() {
        let (file, size) = written(&[("few", 3, 10), ("many", 3_000, 20)]);
        let mut seed = 1_u64;
        for _ in 0..2_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (at, bit) = ((seed >> 20) % size, 1 << (seed % 8));
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("read");
            file.write_all_at(&[byte[0] ^ bit], at).expect("written");
            // An error or some keys, but never a panic, a hang or a huge allocation.
            for bucket in ["few", "many"] {
                drop(read(&file, size, bucket));
            }
            file.write_all_at(&byte, at).expect("written");
        }
        assert!(read(&file, size / 2, "many").is_err(), "a file that is cut short");
    }
}
