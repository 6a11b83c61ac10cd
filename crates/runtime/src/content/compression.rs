//! Decompression of layers. The format is told by the first bytes, never by the media type, which
//! builders are known to get wrong.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder, errors};

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Bytes 2 to 4 of the frames that carry no content, whose first byte is 0x50 to 0x5f.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
const UNSUPPORTED: [(&[u8], &str); 2] = [(b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz")];

/// A plain view of a stream that may be compressed.
pub enum Decompressed<R: Read> {
    /// Was not compressed.
    Plain(Peeked<R>),
    /// One or more gzip members.
    Gzip(Box<MultiGzDecoder<Peeked<R>>>),
    /// One or more zstd frames.
    Zstd(Box<ZstdReader<Peeked<R>>>),
}

/// A buffered reader with the bytes before it that were taken to tell the format.
pub(super) type Peeked<R> = BufReader<io::Chain<io::Cursor<Vec<u8>>, R>>;

impl<R: Read> Decompressed<R> {
    /// Looks at the first bytes of `reader` and decompresses it accordingly.
    pub fn new(mut reader: R) -> io::Result<Self> {
        let mut magic = Vec::with_capacity(8);
        reader.by_ref().take(6).read_to_end(&mut magic)?;
        if let Some((_, name)) = UNSUPPORTED.iter().find(|(bytes, _)| magic.starts_with(bytes)) {
            return Err(invalid(format!("{name} compression is not supported")));
        }
        let gzip = magic.starts_with(GZIP_MAGIC);
        let zstd = magic.starts_with(ZSTD_MAGIC)
            || magic.len() >= 4 && magic[0] & 0xf0 == 0x50 && magic[1..4] == *ZSTD_SKIPPABLE;
        let reader = BufReader::with_capacity(64 * 1024, io::Cursor::new(magic).chain(reader));
        Ok(match (gzip, zstd) {
            (true, _) => Self::Gzip(Box::new(MultiGzDecoder::new(reader))),
            (_, true) => Self::Zstd(Box::new(ZstdReader::new(reader))),
            _ => Self::Plain(reader),
        })
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buffer),
            Self::Gzip(reader) => reader.read(buffer),
            Self::Zstd(reader) => reader.read(buffer),
        }
    }
}

/// Decodes a sequence of zstd frames, skipping those that carry no content.
pub struct ZstdReader<R> {
    source: R,
    frame: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> ZstdReader<R> {
    fn new(source: R) -> Self {
        // The decoder refuses windows over 128 MiB, which bounds what a frame can make it hold.
        Self { source, frame: FrameDecoder::new(), in_frame: false }
    }

    /// Starts the next frame with content; false at the end.
    fn next_frame(&mut self) -> io::Result<bool> {
        use errors::{FrameDecoderError::ReadFrameHeaderError, ReadFrameHeaderError::SkipFrame};
        while !self.source.fill_buf()?.is_empty() {
            match self.frame.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(ReadFrameHeaderError(SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut self.source.by_ref().take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(invalid(format!("invalid zstd frame: {error}"))),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.in_frame && self.frame.can_collect() > 0 {
                return self.frame.read(buffer);
            }
            if self.in_frame && !self.frame.is_finished() {
                self.frame
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| invalid(format!("invalid zstd block: {error}")))?;
                continue;
            }
            self.in_frame = self.next_frame()?;
            if !self.in_frame {
                return Ok(0);
            }
        }
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::Decompressed;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Decompressed::new(bytes)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    fn sample() -> Vec<u8> {
        (0..400_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    #[test]
    fn every_format_reads_alike() {
        let plain = sample();
        assert_eq!(read(&plain).unwrap(), plain);
        assert_eq!(read(&gzip(&plain)).unwrap(), plain);
        assert_eq!(read(&compress_to_vec(&plain[..], CompressionLevel::Fastest)).unwrap(), plain);
        assert_eq!(read(b"").unwrap(), b"");
    }

    #[test]
    fn members_and_frames_are_joined() {
        let (left, right) = (&sample()[..1000], b"and the rest".as_slice());
        let whole = [left, right].concat();
        assert_eq!(read(&[gzip(left), gzip(right)].concat()).unwrap(), whole);

        let zstd = |bytes: &[u8]| compress_to_vec(bytes, CompressionLevel::Fastest);
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"toc"].concat();
        let frames = [skippable.clone(), zstd(left), skippable, zstd(right)].concat();
        assert_eq!(read(&frames).unwrap(), whole);
    }

    #[test]
    fn truncation_and_garbage_are_errors() {
        let gz = gzip(&sample());
        assert!(read(&gz[..gz.len() / 2]).is_err());
        let zst = compress_to_vec(&sample()[..], CompressionLevel::Fastest);
        assert!(read(&zst[..zst.len() / 2]).is_err());
        assert!(read(&[&zst[..], b"garbage after the frame"].concat()).is_err());
        let refused = read(b"BZh91AY&SY").unwrap_err();
        assert!(refused.to_string().contains("bzip2"), "{refused}");
    }
}
