//! The type graph: structs and their fields, lists, maps and the scalar kinds, behind handles that are cheap to copy.
//!
//! A graph is an [`Arena`]: plain rows that name each other by number. The built-in one is a constant of the binary
//! (nothing is drawn, relocated or allocated for it at start); others (custom resources) are made by a [`Builder`].
//! Handles borrow the arena, so that nothing that walks types knows which of the two it has.

mod arena;
mod builder;
mod built_in;
mod docs;
mod rows;

pub use arena::{Arena, Field, InlineGroup, Kind, ListType, Schema, Struct, Topology, TypeRef};
pub use builder::{Builder, NewField, TooLarge};
pub use built_in::{any, find, of_kind, structs};
pub use docs::Docs;
pub use rows::flag;
