//! A simulator of the watch cache and of the registry over it: the real ones, over the real engine on a simulated disk, clock
//! and scheduling. All follows from one seed, and everything that is listed, got, watched and written is compared with what the
//! store ever told.
//!
//! The tasks of the API server and its clients run on threads that take turns with the engine's (`store::testing::fiber`), so
//! another may come in between wherever one waits, and where [`super::hooks::pause`] is. What the API server has of the store
//! it has over a `wire`.

mod client;
mod dark;
mod done;
mod drive;
mod follow;
mod history;
mod judge;
mod pair;
mod script;
mod server;
mod view;
mod wire;
mod write;

pub(super) use drive::Single;
pub(super) use pair::Pair;
