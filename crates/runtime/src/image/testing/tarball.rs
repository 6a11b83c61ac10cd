//! Writes tar archives byte by byte, so that tests can say what no honest writer would.

use std::io::Write;

/// One member to be; start from a constructor and change fields.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) kind: u8,
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) device: (u32, u32),
    pub(crate) content: Vec<u8>,
    /// PAX records that go before it.
    pub(crate) pax: Vec<(String, Vec<u8>)>,
}

impl Member {
    fn new(kind: u8, name: impl AsRef<[u8]>, mode: u32) -> Self {
        Self {
            kind,
            name: name.as_ref().to_vec(),
            link: Vec::new(),
            mode,
            uid: 0,
            gid: 0,
            mtime: 1_600_000_000,
            device: (0, 0),
            content: Vec::new(),
            pax: Vec::new(),
        }
    }

    pub(crate) fn file(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        Self { content: content.as_ref().to_vec(), ..Self::new(b'0', name, 0o644) }
    }

    pub(crate) fn dir(name: impl AsRef<[u8]>) -> Self {
        Self::new(b'5', name, 0o755)
    }

    pub(crate) fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..Self::new(b'2', name, 0o777) }
    }

    pub(crate) fn hard_link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..Self::new(b'1', name, 0o644) }
    }

    pub(crate) fn device(name: impl AsRef<[u8]>, kind: u8, major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..Self::new(kind, name, 0o666) }
    }

    pub(crate) fn kind(self, kind: u8) -> Self {
        Self { kind, ..self }
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn owner(self, uid: u64, gid: u64) -> Self {
        Self { uid, gid, ..self }
    }

    pub(crate) fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.into(), value.as_ref().to_vec()));
        self
    }

    /// Its bytes in an archive: extended header, header, content.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !self.pax.is_empty() {
            let records: Vec<u8> = self.pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            let header = Self { content: records, ..Self::new(b'x', "pax", 0o644) };
            bytes.extend(header.bytes());
        }
        bytes.extend(self.header());
        bytes.extend(&self.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    pub(crate) fn header(&self) -> [u8; 512] {
        let mut header = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, format!("{:07o}\0", self.mode).as_bytes());
        put(108, &number(self.uid));
        put(116, &number(self.gid));
        put(124, format!("{:011o}\0", self.content.len()).as_bytes());
        put(136, format!("{:011o}\0", self.mtime).as_bytes());
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, &number(self.device.0.into()));
        put(337, &number(self.device.1.into()));
        checksum(&mut header);
        header
    }
}

/// Makes the checksum of a header right.
pub(crate) fn checksum(header: &mut [u8; 512]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn number(value: u64) -> [u8; 8] {
    let mut field = [0; 8];
    if value < 0o777_7777 {
        field.copy_from_slice(format!("{value:07o}\0").as_bytes());
    } else {
        field = value.to_be_bytes();
        field[0] = 0x80;
    }
    field
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// An archive of `members`.
pub(crate) fn tarball(members: &[Member]) -> Vec<u8> {
    let mut bytes: Vec<u8> = members.iter().flat_map(Member::bytes).collect();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
