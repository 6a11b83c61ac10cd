//! What the tests of images share.

mod docker;
mod fake;
mod image;
mod tarball;

pub(crate) use docker::DockerRegistry;
pub(crate) use fake::{Asked, FakeRegistry, Reply, reply_with};
pub(crate) use image::{Content, Packing, TestImage};
pub(crate) use tarball::{Member, checksum, gzip, tarball};
