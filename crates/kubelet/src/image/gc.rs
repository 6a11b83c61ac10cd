//! Removing images that nothing uses when the disk fills.
