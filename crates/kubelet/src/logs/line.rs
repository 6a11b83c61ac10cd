//! One line of a log as runtimes write it: `2024-01-01T00:00:00.000000000Z stdout F text`.

use jiff::Timestamp;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// A line, or a part of a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) time: Timestamp,
    pub(crate) stream: Stream,
    /// More of the same line follows.
    pub(crate) partial: bool,
    pub(crate) text: &'a [u8],
}

/// Reads a line; `None` for what is none.
pub(crate) fn parse(raw: &[u8]) -> Option<Line<'_>> {
    let raw = raw.strip_suffix(b"\n").unwrap_or(raw);
    let mut parts = raw.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // Tags are joined by colons, and only the first has a meaning.
    let partial = match parts.next()?.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Line { time, stream, partial, text: parts.next().unwrap_or_default() })
}

/// A time as it stands before a line that is shown with it.
pub(crate) fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_read() {
        let line = parse(b"2024-01-02T03:04:05.000000006Z stderr P:x hello world\n").unwrap();
        assert_eq!(line.stream, Stream::Stderr);
        assert!(line.partial);
        assert_eq!(line.text, b"hello world");
        assert_eq!(format_time(line.time), "2024-01-02T03:04:05.000000006Z");
        assert_eq!(parse(b"2024-01-02T03:04:05+02:00 stdout F ").unwrap().text, b"");
        assert_eq!(parse(b"nonsense"), None);
        assert_eq!(parse(b"2024-01-02T03:04:05Z stdin F x"), None);
    }

    proptest! {
        #[test]
        fn nothing_breaks_the_reader(raw in proptest::collection::vec(any::<u8>(), 0..80)) {
            parse(&raw);
        }
    }
}
