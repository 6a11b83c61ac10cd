//! Reads tar archives as image builders write them: ustar, GNU, star and PAX.
//!
//! Written for hostile input. Every header that a stream can repeat or inflate is bounded
//! ([`MAX_EXTENSION`]), extended attributes are taken as bytes (capabilities contain newlines and
//! zeros), and nothing is trusted before its checksum.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use super::pax::{Pax, Sparse};

const BLOCK: usize = 512;
/// The longest name, link or set of PAX records that one entry may carry.
const MAX_EXTENSION: u64 = 1024 * 1024;
/// Linux takes no longer path (`PATH_MAX`, with its terminating zero).
const MAX_PATH: usize = 4095;

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file whose bytes follow.
    File,
    /// Another name for an entry that came before.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One member of an archive, with everything its headers say.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The path, as it was written.
    pub name: Vec<u8>,
    /// What a hard or symbolic link points to.
    pub link: Vec<u8>,
    /// What it makes.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Owning group.
    pub gid: u64,
    /// How long the file becomes.
    pub size: u64,
    /// Seconds and nanoseconds of the modification time.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes, names with their namespace.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the bytes that follow belong, when the file has holes: offset and length of each run.
    pub runs: Option<Vec<(u64, u64)>>,
}

impl Entry {
    /// The name as a path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.name))
    }
}

/// A streaming reader: [`TarReader::next_entry`], then the entry's bytes through [`Read`].
pub struct TarReader<R> {
    inner: R,
    /// Bytes of the current entry not yet read, and the padding behind them.
    left: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    /// Reads an archive that starts where `inner` stands.
    pub fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// Skips what is left of the current entry and reads the headers of the next one.
    ///
    /// `None` at the end of the archive, which is two zero blocks, or the end of the stream at a
    /// block's boundary, as Go's reader has it too.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut pax = Pax::default();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip_rest()?;
            let Some(header) = self.read_header()? else { return Ok(None) };
            match header.kind() {
                b'x' => pax = Pax::parse(&self.read_extension(&header)?)?,
                b'L' => long_name = Some(until_zero(&self.read_extension(&header)?).to_vec()),
                b'K' => long_link = Some(until_zero(&self.read_extension(&header)?).to_vec()),
                // Global headers say nothing about single entries, and builders put only comments in.
                b'g' => self.open(header.size()?),
                _ => return self.entry(&header, pax, long_name, long_link).map(Some),
            }
        }
    }

    /// Gives back the stream, which stands behind what was read.
    pub fn into_inner(self) -> R {
        self.inner
    }

    fn open(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let rest = self.left.saturating_add(self.padding);
        let skipped = io::copy(&mut self.inner.by_ref().take(rest), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped < rest { Err(truncated()) } else { Ok(()) }
    }

    fn read_header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header([0; BLOCK]);
        for _ in 0..2 {
            if !fill(&mut self.inner, &mut header.0)? {
                return Ok(None);
            }
            if header.0.iter().any(|byte| *byte != 0) {
                header.check()?;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    fn read_extension(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let size = header.size()?;
        if size > MAX_EXTENSION {
            return Err(invalid(format!("tar extension header of {size} bytes is too long")));
        }
        self.open(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn entry(
        &mut self,
        header: &Header,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> io::Result<Entry> {
        let mut name = pax.path.or(long_name).unwrap_or_else(|| header.name());
        let link = pax.link.or(long_link).unwrap_or_else(|| until_zero(header.at(157, 100)).to_vec());
        let kind = match header.kind() {
            // Before POSIX a directory was a file whose name ends in a slash.
            0 | b'0' | b'7' if name.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                let shown = String::from_utf8_lossy(&name).into_owned();
                return Err(invalid(format!("unhandled tar header type {other} for {shown:?}")));
            }
        };
        let packed = match (kind, pax.size) {
            (Kind::File, Some(size)) => size,
            (Kind::File, None) => header.size()?,
            // Old writers give hard links the size of their target, with no bytes behind it.
            _ => 0,
        };
        let mut size = packed;
        let mut runs = None;
        // Continuation blocks of the old sparse format stand between header and content.
        if header.kind() == b'S' {
            let (map, real) = self.old_sparse(header)?;
            (runs, size) = (Some(map), real);
        }
        self.open(packed);
        if let Some(sparse) = pax.sparse {
            if let Some(real) = sparse.name.clone() {
                name = real;
            }
            (runs, size) = self.pax_sparse(sparse)?;
        }
        if let Some(runs) = &runs {
            check_runs(runs, self.left, size)?;
        }
        if name.len() > MAX_PATH || link.len() > MAX_PATH {
            return Err(invalid("tar entry with a path of over 4095 bytes".into()));
        }
        Ok(Entry {
            name,
            link,
            kind,
            mode: (header.number(100, 8)? & 0o7777) as u32,
            uid: pax.uid.map_or_else(|| header.unsigned(108, 8, "uid"), Ok)?,
            gid: pax.gid.map_or_else(|| header.unsigned(116, 8, "gid"), Ok)?,
            size,
            mtime: pax.mtime.map_or_else(|| header.number(136, 12).map(|s| (s, 0)), Ok)?,
            device: header.device(kind)?,
            xattrs: pax.xattrs,
            runs,
        })
    }

    /// The map of a GNU sparse file: four runs in the header, more in blocks that follow it.
    fn old_sparse(&mut self, header: &Header) -> io::Result<(Vec<(u64, u64)>, u64)> {
        let real = header.unsigned(483, 12, "size")?;
        let mut runs = header.runs(386, 4)?;
        let mut more = header.0[482] != 0;
        let mut blocks = 0;
        while more {
            let mut block = Header([0; BLOCK]);
            blocks += 1;
            if blocks as u64 * BLOCK as u64 > MAX_EXTENSION {
                return Err(invalid("sparse file with too many runs".into()));
            }
            if !fill(&mut self.inner, &mut block.0)? {
                return Err(truncated());
            }
            runs.extend(block.runs(0, 21)?);
            more = block.0[504] != 0;
        }
        Ok((runs, real))
    }

    /// The map of a PAX sparse file: among the records, or (version 1.0) in front of the content.
    #[expect(clippy::type_complexity, reason = "the two fields of an entry that it determines")]
    fn pax_sparse(&mut self, sparse: Sparse) -> io::Result<(Option<Vec<(u64, u64)>>, u64)> {
        if !sparse.map_in_content {
            return Ok((Some(sparse.runs), sparse.real_size));
        }
        let mut line = Vec::new();
        let mut taken = 0u64;
        let mut next = |reader: &mut Self| -> io::Result<u64> {
            line.clear();
            loop {
                let mut byte = [0];
                reader.read_exact(&mut byte)?;
                taken += 1;
                if taken > MAX_EXTENSION {
                    return Err(invalid("sparse file with too many runs".into()));
                }
                if byte[0] == b'\n' {
                    break;
                }
                line.push(byte[0]);
            }
            let text = std::str::from_utf8(&line).ok();
            text.and_then(|text| text.parse().ok()).ok_or_else(|| invalid("sparse file with an invalid map".into()))
        };
        let count = next(self)?;
        let mut runs = Vec::new();
        for _ in 0..count {
            runs.push((next(self)?, next(self)?));
        }
        let rest = (BLOCK as u64 - taken % BLOCK as u64) % BLOCK as u64;
        io::copy(&mut self.by_ref().take(rest), &mut io::sink())?;
        Ok((Some(runs), sparse.real_size))
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..want])?;
        self.left -= count as u64;
        if count == 0 { Err(truncated()) } else { Ok(count) }
    }
}

struct Header([u8; BLOCK]);

impl Header {
    fn at(&self, start: usize, len: usize) -> &[u8] {
        &self.0[start..start + len]
    }

    fn kind(&self) -> u8 {
        self.0[156]
    }

    fn check(&self) -> io::Result<()> {
        let byte = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { *byte };
        let bytes = || self.0.iter().enumerate().map(byte);
        let unsigned: i64 = bytes().map(i64::from).sum();
        // Some old writers summed signed characters.
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        let said = self.number(148, 8)?;
        if said == unsigned || said == signed {
            Ok(())
        } else {
            Err(invalid("invalid tar header: the checksum does not match".into()))
        }
    }

    fn name(&self) -> Vec<u8> {
        let name = until_zero(self.at(0, 100));
        let prefix_len = match self.at(257, 8) {
            b"ustar\x0000" if self.at(508, 4) == b"tar\0" => 131,
            magic if magic.starts_with(b"ustar\0") => 155,
            _ => 0,
        };
        match until_zero(self.at(345, prefix_len)) {
            [] => name.to_vec(),
            prefix => [prefix, name].join(&b'/'),
        }
    }

    fn size(&self) -> io::Result<u64> {
        self.unsigned(124, 12, "size")
    }

    fn device(&self, kind: Kind) -> io::Result<(u32, u32)> {
        if !matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            return Ok((0, 0));
        }
        let part = |start| {
            let number = self.unsigned(start, 8, "device number")?;
            u32::try_from(number).map_err(|_| invalid("tar header with an invalid device".into()))
        };
        Ok((part(329)?, part(337)?))
    }

    fn runs(&self, start: usize, count: usize) -> io::Result<Vec<(u64, u64)>> {
        let mut runs = Vec::new();
        for at in (0..count).map(|n| start + n * 24) {
            let used = self.at(at, 24).iter().any(|byte| *byte != 0);
            if used {
                runs.push((self.unsigned(at, 12, "offset")?, self.unsigned(at + 12, 12, "length")?));
            }
        }
        Ok(runs)
    }

    fn unsigned(&self, start: usize, len: usize, what: &str) -> io::Result<u64> {
        u64::try_from(self.number(start, len)?).map_err(|_| invalid(format!("tar header with a negative {what}")))
    }

    /// A number in octal, or in base 256 when the first bit is set.
    fn number(&self, start: usize, len: usize) -> io::Result<i64> {
        let field = self.at(start, len);
        if field[0] & 0x80 != 0 {
            let negative = field[0] & 0x40 != 0;
            let first = if negative { field[0] } else { field[0] & 0x7f };
            let mut value: i128 = if negative { -1 } else { 0 };
            for byte in std::iter::once(first).chain(field[1..].iter().copied()) {
                value = (value << 8) | i128::from(byte);
            }
            return i64::try_from(value).map_err(|_| invalid("tar header with a number out of range".into()));
        }
        let digits = field.iter().skip_while(|byte| matches!(byte, b' ' | 0));
        let mut value = 0i64;
        for digit in digits.take_while(|byte| !matches!(byte, b' ' | 0)) {
            if !(b'0'..=b'7').contains(digit) {
                return Err(invalid("invalid tar header: not an octal number".into()));
            }
            value = value * 8 + i64::from(digit - b'0');
        }
        Ok(value)
    }
}

fn check_runs(runs: &[(u64, u64)], packed: u64, size: u64) -> io::Result<()> {
    let mut end = 0u64;
    let mut total = 0u64;
    for (offset, length) in runs {
        let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= size);
        end = next.ok_or_else(|| invalid("sparse file with an invalid map".into()))?;
        total += length;
    }
    // The map of version 1.0 was read from the content, so what is left is the runs exactly.
    if total == packed { Ok(()) } else { Err(invalid("sparse file with an invalid map".into())) }
}

/// Fills `buffer`; false when the stream ends before its first byte.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 if filled == 0 => return Ok(false),
            0 => return Err(truncated()),
            count => filled += count,
        }
    }
    Ok(true)
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of an entry")
}

pub(super) fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
