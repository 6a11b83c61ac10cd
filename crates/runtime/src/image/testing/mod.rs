//! What the tests of images share.

mod tarball;

pub(crate) use tarball::{Member, checksum, gzip, tarball};
