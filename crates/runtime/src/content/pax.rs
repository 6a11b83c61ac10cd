//! The records of a PAX extended header that matter to an image.

use std::io;

use super::tar::invalid;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What one extended header says about the entry behind it.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<Sparse>,
}

/// A file with holes, as GNU tar describes it in PAX records.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: u64,
    pub(super) runs: Vec<(u64, u64)>,
    /// Version 1.0 puts the map in front of the content.
    pub(super) map_in_content: bool,
}

impl Pax {
    /// Reads records of the form `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record, and
    /// a value may hold any bytes.
    pub(super) fn parse(mut bytes: &[u8]) -> io::Result<Self> {
        let mut pax = Self::default();
        let mut pending_offset = None;
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or_else(|| invalid("invalid PAX record in tar header".into()))?;
            bytes = rest;
            pax.take(key, value, &mut pending_offset)?;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8], pending: &mut Option<u64>) -> io::Result<()> {
        let number = || {
            let text = std::str::from_utf8(value).ok();
            text.and_then(|text| text.parse::<u64>().ok()).ok_or_else(|| {
                let key = String::from_utf8_lossy(key).into_owned();
                invalid(format!("invalid PAX record {key:?}: not a number"))
            })
        };
        match key {
            // An empty value means that the record is absent.
            _ if value.is_empty() && !key.starts_with(XATTR) => {}
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => {
                let time = std::str::from_utf8(value).ok().and_then(timestamp);
                self.mtime = Some(time.ok_or_else(|| invalid("invalid PAX mtime".into()))?);
            }
            b"GNU.sparse.major" => self.sparse().map_in_content = number()? == 1,
            b"GNU.sparse.name" => self.sparse().name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse().real_size = number()?,
            b"GNU.sparse.offset" => *pending = Some(number()?),
            b"GNU.sparse.numbytes" => {
                let offset = pending.take().ok_or_else(|| invalid("invalid sparse map".into()))?;
                self.sparse().runs.push((offset, number()?));
            }
            b"GNU.sparse.map" => self.sparse().runs = sparse_map(value)?,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }

    fn sparse(&mut self) -> &mut Sparse {
        self.sparse.get_or_insert_default()
    }
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

/// `1,2,3,4` as (1, 2), (3, 4).
fn sparse_map(value: &[u8]) -> io::Result<Vec<(u64, u64)>> {
    let error = || invalid("invalid sparse map".into());
    let text = std::str::from_utf8(value).map_err(|_| error())?;
    let numbers: Vec<u64> = text.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| error())?;
    if !numbers.len().is_multiple_of(2) {
        return Err(error());
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// Seconds with an optional fraction; before 1970 the fraction still counts forwards.
fn timestamp(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = seconds.starts_with('-');
    let seconds: i64 = if seconds == "-" { 0 } else { seconds.parse().ok()? };
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
    match (negative, nanos) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((seconds, nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Pax, timestamp};

    #[test]
    fn records_carry_any_bytes() {
        let capability = b"\x01\x00\x00\x02\n \x00=\x0a";
        let body = [b"SCHILY.xattr.security.capability=", &capability[..], b"\n"].concat();
        let record = [format!("{} ", body.len() + 3).as_bytes(), &body].concat();
        let records = [&record[..], b"12 uid=1000\n", b"8 path=\n", b"12 path=a/b\n"].concat();
        let pax = Pax::parse(&records).unwrap();
        assert_eq!(pax.xattrs, [(b"security.capability".to_vec(), capability.to_vec())]);
        assert_eq!((pax.uid, pax.path), (Some(1000), Some(b"a/b".to_vec())));
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in ["0 a=b\n", "5 a=b\n", "6 a=b\nx", "99 a=b\n", "6 a=bc", "x", "-6 a=b\n", "6 aab\n"] {
            assert!(Pax::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Pax::parse(b"12 uid=10x0\n").is_err());
    }

    #[test]
    fn times_have_fractions_and_may_be_before_1970() {
        assert_eq!(timestamp("1700000000.5"), Some((1_700_000_000, 500_000_000)));
        assert_eq!(timestamp("12"), Some((12, 0)));
        assert_eq!(timestamp("1.1234567891"), Some((1, 123_456_789)));
        assert_eq!(timestamp("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(timestamp("-0.5"), Some((-1, 500_000_000)));
        assert_eq!(timestamp("1.2.3"), None);
        assert_eq!(timestamp("now"), None);
    }
}
