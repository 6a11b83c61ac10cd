//! Images: names, manifests, the store of what was pulled, and the CRI image service.

#[cfg(test)]
pub(crate) mod testing;
