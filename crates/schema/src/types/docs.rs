//! The documentation of types and fields: compressed in the binary, unpacked when asked for, and gone when dropped.

use super::arena::Struct;
use super::{Field, built_in};
use std::io::Read;

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/docs.z"));

/// The unpacked documentation of the built-in types (about 0.6 MB). Keep it only as long as needed.
pub struct Docs {
    text: String,
    /// Where the entry of each struct, then of each field begins.
    starts: Vec<u32>,
}

impl Docs {
    /// Unpacks it.
    pub fn unpack() -> Docs {
        let mut text = String::new();
        flate2::read::ZlibDecoder::new(PACKED)
            .read_to_string(&mut text)
            .expect("the documentation was packed by the build script");
        let starts =
            std::iter::once(0).chain(memchr::memchr_iter(0, text.as_bytes()).map(|at| at as u32 + 1)).collect();
        Docs { text, starts }
    }

    fn entry(&self, at: usize) -> &str {
        let start = self.starts[at] as usize;
        let end = self.starts.get(at + 1).map_or(self.text.len(), |end| *end as usize - 1);
        &self.text[start..end]
    }

    /// What a built-in struct is; `""` of any other.
    pub fn of_struct(&self, ty: Struct<'_>) -> &str {
        match position(&built_in::BUILT_IN.structs, ty.row) {
            Some(at) => self.entry(at),
            None => "",
        }
    }

    /// What a field of a built-in struct is; `""` of any other.
    pub fn of_field(&self, field: Field<'_>) -> &str {
        match position(&built_in::BUILT_IN.fields, field.row) {
            Some(at) => self.entry(built_in::BUILT_IN.structs.len() + at),
            None => "",
        }
    }
}

/// The number of a row that lies in `rows`.
fn position<T>(rows: &[T], row: &T) -> Option<usize> {
    let distance = std::ptr::from_ref(row).addr().checked_sub(rows.as_ptr().addr())?;
    let at = distance / size_of::<T>();
    (at < rows.len()).then_some(at)
}
