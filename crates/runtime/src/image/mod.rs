//! Images: names, manifests, the store of what was pulled, and the CRI image service.

mod archive;
mod assemble;
mod built_in;
mod error;
mod index;
mod manifest;
mod pull;
mod reference;
mod service;
mod store;

pub use error::Error;
pub use manifest::{
    ACCEPT, Config, Descriptor, Document, ImageDocument, InvalidManifest, MAX_MANIFEST, Manifest, Platform, choose,
};
pub use pull::{OnProgress, Progress, Pull};
pub use reference::{InvalidReference, Reference, Version};
pub use service::ImageServer;
pub use store::{Image, Images, Options};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
