//! Header blocks: names and values, compressed with one history per direction and a dictionary that both
//! sides know.

use std::sync::LazyLock;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Largest header block, unpacked: far more than any client of ours sends, little for a compressed bomb.
const MAX_BLOCK: usize = 64 << 10;

/// Words of the dictionary, in order; each is there with its length before it.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding \
    content-language content-length content-location content-md5 content-range content-type date etag expect \
    expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified \
    location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te \
    trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status";
const MORE_WORDS: [&str; 8] = ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"];
/// What follows the words.
const TAIL: &str = "1001012012022052063003023033043053063074024054064074084094104114124134144154164175025045\
    05203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 \
    Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr \
    May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/p\
    ng,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-\
    age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut out = Vec::new();
    for word in WORDS.split_whitespace().chain(MORE_WORDS) {
        out.extend_from_slice(&(word.len() as u32).to_be_bytes());
        out.extend_from_slice(word.as_bytes());
    }
    out.extend_from_slice(TAIL.as_bytes());
    out
});

/// Names (in small letters) and values.
pub(crate) type Headers = Vec<(String, String)>;

/// A block that can't be read. The connection is of no use any more: its history is lost.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum HeaderError {
    #[error("a header block can't be unpacked")]
    Compression,
    #[error("a header block is larger than {MAX_BLOCK} bytes")]
    TooLong,
    #[error("a header block is malformed")]
    Malformed,
}

/// Reads the blocks of one direction.
pub(crate) struct HeaderReader(Decompress);

impl Default for HeaderReader {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl HeaderReader {
    pub(crate) fn read(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        let plain = self.unpack(block)?;
        parse(&plain).ok_or(HeaderError::Malformed)
    }

    fn unpack(&mut self, block: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let mut out = Vec::with_capacity(1024);
        let mut rest = block;
        loop {
            let before = self.0.total_in();
            let produced = out.len();
            let result = self.0.decompress_vec(rest, &mut out, FlushDecompress::Sync);
            rest = &rest[(self.0.total_in() - before) as usize..];
            match result {
                Ok(Status::Ok | Status::BufError) => {}
                Ok(Status::StreamEnd) => return Err(HeaderError::Compression),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| HeaderError::Compression)?;
                    continue;
                }
                Err(_) => return Err(HeaderError::Compression),
            }
            if out.len() > MAX_BLOCK {
                return Err(HeaderError::TooLong);
            }
            let room = out.capacity() > out.len();
            if rest.is_empty() && room {
                return Ok(out);
            }
            if out.len() == produced && room {
                // No progress: what is left is not of this block.
                return Err(HeaderError::Compression);
            }
            out.reserve(out.capacity());
        }
    }
}

fn parse(mut bytes: &[u8]) -> Option<Headers> {
    fn number(bytes: &mut &[u8]) -> Option<usize> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        *bytes = rest;
        Some(u32::from_be_bytes(*head) as usize)
    }
    fn text(bytes: &mut &[u8]) -> Option<String> {
        let length = number(bytes)?;
        let (head, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        String::from_utf8(head.to_vec()).ok()
    }
    let count = number(&mut bytes)?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = text(&mut bytes)?.to_ascii_lowercase();
        headers.push((name, text(&mut bytes)?));
    }
    bytes.is_empty().then_some(headers)
}

/// Writes the blocks of one direction.
pub(crate) struct HeaderWriter(Compress);

impl Default for HeaderWriter {
    fn default() -> Self {
        let mut compress = Compress::new(Compression::default(), true);
        // A new stream takes a dictionary.
        let _ = compress.set_dictionary(&DICTIONARY);
        Self(compress)
    }
}

impl HeaderWriter {
    pub(crate) fn write(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for part in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&(part.len() as u32).to_be_bytes());
            plain.extend_from_slice(part.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let mut rest = &plain[..];
        loop {
            let before = self.0.total_in();
            // Compressing to memory doesn't fail.
            let result = self.0.compress_vec(rest, &mut out, FlushCompress::Sync);
            rest = &rest[(self.0.total_in() - before) as usize..];
            if result.is_err() || (rest.is_empty() && out.len() < out.capacity()) {
                return out;
            }
            out.reserve(out.capacity());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_dictionary_is_the_one_that_all_know() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!((DICTIONARY.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    proptest! {
        #[test]
        fn blocks_come_back_with_one_history(
            blocks in proptest::collection::vec(
                proptest::collection::vec(("[a-z-]{1,12}", "\\PC{0,40}"), 0..8), 1..6),
        ) {
            let (mut writer, mut reader) = (HeaderWriter::default(), HeaderReader::default());
            for block in blocks {
                let borrowed: Vec<(&str, &str)> =
                    block.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                let packed = writer.write(&borrowed);
                prop_assert_eq!(reader.read(&packed).unwrap(), block);
            }
        }

        #[test]
        fn rubbish_is_refused(bytes: Vec<u8>) {
            let _ = HeaderReader::default().read(&bytes);
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let value = "x".repeat(10 << 20);
        let packed = HeaderWriter::default().write(&[("a", &value)]);
        assert!(packed.len() < 20_000);
        assert_eq!(HeaderReader::default().read(&packed), Err(HeaderError::TooLong));
    }
}
