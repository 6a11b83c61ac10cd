//! Content digests (`sha256:…`, `sha512:…`) and the verification of bytes against them.

use std::{
    fmt,
    io::{self, Read},
    str::FromStr,
};

use ring::digest::{Context, SHA256, SHA512};
use serde::{Deserialize, Serialize};

/// The algorithms that the OCI image specification registers for content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `sha256`, which everything uses.
    Sha256,
    /// `sha512`.
    Sha512,
}

impl Algorithm {
    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A well-formed digest: a registered algorithm, a colon and as many lower-case hexadecimal
/// digits as the algorithm gives. So it is safe as a file name and in a URL's path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Box<str>);

/// What was wrong with a string that should have been a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest {0:?}: expected sha256: or sha512: and lower-case hexadecimal digits")]
pub struct InvalidDigest(String);

impl Digest {
    /// The SHA-256 digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut digester = Digester::new(Algorithm::Sha256);
        digester.update(bytes);
        digester.finish()
    }

    /// Which algorithm it was made with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        if self.0.starts_with("sha256:") { Algorithm::Sha256 } else { Algorithm::Sha512 }
    }

    /// The hexadecimal digits after the colon.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The whole of it, as in `sha256:…`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest(text.chars().take(256).collect());
        let (algorithm, hex) = text.split_once(':').ok_or_else(invalid)?;
        let algorithm = match algorithm {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(invalid()),
        };
        let digits = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() == algorithm.hex_len() && digits { Ok(Self(text.into())) } else { Err(invalid()) }
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0.into()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Computes a digest of bytes as they pass.
pub struct Digester {
    algorithm: Algorithm,
    context: Context,
}

impl Digester {
    /// Starts on no bytes.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let context = match algorithm {
            Algorithm::Sha256 => Context::new(&SHA256),
            Algorithm::Sha512 => Context::new(&SHA512),
        };
        Self { algorithm, context }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of all bytes that were added.
    #[must_use]
    pub fn finish(self) -> Digest {
        let name = match self.algorithm {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        };
        let sum = self.context.finish();
        let mut text = String::with_capacity(name.len() + 1 + 2 * sum.as_ref().len());
        text.push_str(name);
        text.push(':');
        for byte in sum.as_ref() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        Digest(text.into())
    }
}

/// How content differed from what its descriptor promised, in containerd's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Other content than was asked for.
    #[error("unexpected commit digest {got}, expected {expected}: failed precondition")]
    Digest {
        /// What arrived.
        got: Digest,
        /// What was promised.
        expected: Digest,
    },
    /// More or less content than was promised.
    #[error("unexpected commit size {got}, expected {expected}: failed precondition")]
    Size {
        /// How many bytes arrived; at least, when it was more than promised.
        got: u64,
        /// How many were promised.
        expected: u64,
    },
}

/// Checks `bytes` against a descriptor's digest and, when it has one, its size.
pub fn verify(bytes: &[u8], expected: &Digest, size: Option<u64>) -> Result<(), Mismatch> {
    let got = bytes.len() as u64;
    if let Some(expected) = size.filter(|size| *size != got) {
        return Err(Mismatch::Size { got, expected });
    }
    let mut digester = Digester::new(expected.algorithm());
    digester.update(bytes);
    match digester.finish() {
        got if got == *expected => Ok(()),
        got => Err(Mismatch::Digest { got, expected: expected.clone() }),
    }
}

/// A reader that hashes and counts what passes through it.
pub struct HashingReader<R> {
    inner: R,
    digester: Digester,
    count: u64,
    limit: Option<u64>,
}

impl<R: Read> HashingReader<R> {
    /// Hashes `inner` with `algorithm`; with a `limit`, reading more bytes than that fails, so
    /// that a peer that never stops sending is noticed at once.
    pub fn new(inner: R, algorithm: Algorithm, limit: Option<u64>) -> Self {
        Self { inner, digester: Digester::new(algorithm), count: 0, limit }
    }

    /// Reads what is left, so that the digest covers all of it, and gives digest and size.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        let mut buffer = vec![0; 64 * 1024];
        while self.read(&mut buffer)? > 0 {}
        Ok((self.digester.finish(), self.count))
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.digester.update(&buffer[..count]);
        self.count += count as u64;
        match self.limit {
            Some(expected) if self.count > expected => {
                Err(io::Error::new(io::ErrorKind::InvalidData, Mismatch::Size { got: self.count, expected }))
            }
            _ => Ok(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Digest, HashingReader, Mismatch, verify};

    #[test]
    fn digests_are_as_sha256sum_prints_them() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap().hex(), &empty[7..]);
    }

    #[test]
    fn what_could_name_another_file_is_no_digest() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for bad in [
            "",
            "sha256",
            "sha256:",
            "sha256:../../../etc/passwd",
            &format!("sha256:{}", hex.to_uppercase()),
            &format!("sha256:{hex}0"),
            &format!("sha512:{hex}"),
            &format!("md5:{hex}"),
            &format!("SHA256:{hex}"),
            &format!("sha256:{}", hex.replace('e', "é")),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn other_bytes_and_other_sizes_are_noticed() {
        let digest = Digest::of(b"content");
        assert_eq!(verify(b"content", &digest, Some(7)), Ok(()));
        assert!(matches!(verify(b"contents", &digest, None), Err(Mismatch::Digest { .. })));
        assert_eq!(verify(b"content", &digest, Some(8)), Err(Mismatch::Size { got: 7, expected: 8 }));
    }

    #[test]
    fn a_reader_that_is_longer_than_promised_fails() {
        let mut long = HashingReader::new(&b"0123456789"[..], Algorithm::Sha256, Some(9));
        let error = std::io::copy(&mut long, &mut std::io::sink()).unwrap_err();
        assert!(error.to_string().contains("expected 9"), "{error}");

        let exact = HashingReader::new(&b"0123456789"[..], Algorithm::Sha256, Some(10));
        assert_eq!(exact.finish().unwrap(), (Digest::of(b"0123456789"), 10));
    }
}
