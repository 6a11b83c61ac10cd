//! A container's log in the CRI format: `2026-01-02T03:04:05.000000000Z stdout F text`.
//!
//! A line longer than [`MAX_LINE`] is cut into parts that say `P` instead of `F`.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

/// Longest text of one entry.
pub(crate) const MAX_LINE: usize = 16 << 10;

/// Which output a text is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts one output into entries.
#[derive(Debug)]
pub(crate) struct Formatter {
    stream: Stream,
    /// The start of a line whose end hasn't come yet.
    pending: Vec<u8>,
}

impl Formatter {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Appends the entries that `bytes` complete to `out`.
    pub(crate) fn feed(&mut self, bytes: &[u8], time: &Timestamp, out: &mut Vec<u8>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = MAX_LINE - self.pending.len();
            let line = memchr(b'\n', &rest[..rest.len().min(room + 1)]);
            match line {
                Some(end) => {
                    self.entry(time, b'F', &rest[..end], out);
                    rest = &rest[end + 1..];
                }
                None if rest.len() > room => {
                    self.entry(time, b'P', &rest[..room], out);
                    rest = &rest[room..];
                }
                None => {
                    self.pending.extend_from_slice(rest);
                    rest = &[];
                }
            }
        }
    }

    /// Appends what is left after the output's end.
    pub(crate) fn finish(&mut self, time: &Timestamp, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.entry(time, b'F', &[], out);
        }
    }

    fn entry(&mut self, time: &Timestamp, tag: u8, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&time.0);
        out.push(b' ');
        out.extend_from_slice(self.stream.name().as_bytes());
        out.extend_from_slice(&[b' ', tag, b' ']);
        out.append(&mut self.pending);
        out.extend_from_slice(text);
        out.push(b'\n');
        // A shim lives for months and must stay small.
        self.pending = Vec::new();
    }
}

fn memchr(byte: u8, bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| *b == byte)
}

/// A point in time as RFC 3339 with nine digits of a second, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timestamp([u8; 30]);

impl Timestamp {
    pub(crate) fn now() -> Self {
        Self::from_nanos(now_nanos())
    }

    /// From nanoseconds since 1970; times before are taken for 1970.
    pub(crate) fn from_nanos(nanos: i64) -> Self {
        let nanos = nanos.max(0);
        let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let mut out = [0; 30];
        // Exactly 30 bytes until the year 10000; 64 bits of nanoseconds end in 2262.
        let _ = write!(
            &mut out[..],
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z",
            of_day / 3600,
            of_day / 60 % 60,
            of_day % 60
        );
        Self(out)
    }
}

/// The date of a day counted from 1970, in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Counted from 1 March of year 0, so that the leap day is a year's last.
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Nanoseconds since 1970.
pub(crate) fn now_nanos() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

/// The file that entries go to.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens for appending, making the file when it is missing.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::options().create(true).append(true).mode(0o640).open(&path)?;
        Ok(Self { path, file })
    }

    /// Goes on in a new file of the same path, after the old one was renamed.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(self.path.clone())?;
        Ok(())
    }

    /// Writes whole entries.
    pub(crate) fn write(&mut self, entries: &[u8]) -> io::Result<()> {
        self.file.write_all(entries)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps() {
        let text = |nanos| String::from_utf8(Timestamp::from_nanos(nanos).0.to_vec()).unwrap();
        assert_eq!(text(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(951_782_400_000_000_001), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(text(1_767_225_599_999_999_999), "2025-12-31T23:59:59.999999999Z");
        assert_eq!(text(i64::MAX), "2262-04-11T23:47:16.854775807Z");
        assert_eq!(text(-5), "1970-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn entries() {
        let time = Timestamp::from_nanos(0);
        let mut out = Vec::new();
        let mut formatter = Formatter::new(Stream::Stderr);
        formatter.feed(b"one\ntw", &time, &mut out);
        formatter.feed(b"o\n\nthree", &time, &mut out);
        formatter.finish(&time, &mut out);
        let t = "1970-01-01T00:00:00.000000000Z stderr F";
        assert_eq!(String::from_utf8(out).unwrap(), format!("{t} one\n{t} two\n{t} \n{t} three\n"));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_however_output_arrives(
            lengths in proptest::collection::vec(0usize..40_000, 0..5),
            cut in 1usize..20_000,
        ) {
            let output: Vec<u8> = lengths
                .iter()
                .flat_map(|n| std::iter::repeat_n(b'x', *n).chain([b'\n']))
                .collect();
            let time = Timestamp::from_nanos(0);
            let mut log = Vec::new();
            let mut formatter = Formatter::new(Stream::Stdout);
            for piece in output.chunks(cut) {
                formatter.feed(piece, &time, &mut log);
            }
            formatter.finish(&time, &mut log);
            let mut back = Vec::new();
            for line in log.split_inclusive(|b| *b == b'\n') {
                let line = line.strip_suffix(b"\n").unwrap();
                let text = &line[38..];
                let text = text.strip_prefix(b"F ").map(|t| (t, true)).or_else(|| text.strip_prefix(b"P ").map(|t| (t, false)));
                let (text, full) = text.unwrap();
                prop_assert!(text.len() <= MAX_LINE);
                back.extend_from_slice(text);
                if full {
                    back.push(b'\n');
                }
            }
            prop_assert_eq!(back, output);
        }
    }
}
