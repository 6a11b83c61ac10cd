//! A simulator of the embedded engine: its disk, its clock and its threads follow from one seed, and everything that it
//! tells is compared with a model.
//!
//! What is not the engine's alone serves the simulators of what stands on it too: the `machine` and its `rig`, the `driver`,
//! which takes a `world`, what is `ask`ed of the store, the `witness`, the `story`, what was done, `counted`, and the `trial`,
//! which makes tests of all of it.

pub mod ask;
pub mod counted;
mod drive;
pub mod driver;
mod judge;
pub mod machine;
pub mod rig;
mod script;
pub mod seeds;
pub mod story;
pub mod trial;
pub mod witness;
pub mod world;

pub use drive::Simulation;
