//! The catalogue of kinds, and what is done with objects of any kind: codecs, defaulting, validation, patches, apply, documents.

pub mod tree;

pub use tree::{Map, Value};
