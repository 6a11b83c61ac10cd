//! Image content on disk: digests, archives and unpacked layers.
//!
//! Everything here is synchronous and runs on blocking threads; nothing here speaks to a network.

mod compression;
mod delete;
mod digest;
mod graft;
mod layers;
mod pax;
mod rootdir;
mod tar;
mod unpack;

pub use compression::Decompressed;
pub(crate) use delete::discard;
pub use digest::{Algorithm, Digest, Digester, HashingReader, InvalidDigest, Mismatch, verify};
pub use layers::{Layer, Layers, Making, Pins, Staged};
pub use tar::{Entry, Kind, TarReader};
pub use unpack::{Grafts, Usage, unpack};
