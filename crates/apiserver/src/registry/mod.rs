//! The one registry that serves every kind, built-in or custom: rows, strategies, admission, allocation, the store.

mod allocator;
mod served;
mod subresource;
mod virtual_resource;

pub use allocator::{Allocator, Side};
pub use served::Served;
pub use subresource::{Subresource, Target};
pub use virtual_resource::Virtual;
