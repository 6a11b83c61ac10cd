//! The Container Runtime Interface v1: messages, services and a client over a unix socket.
//!
//! The messages ([`v1`]) and both services are compiled from `proto/cri.proto`. A kubelet uses
//! [`Client`]; a runtime implements [`RuntimeService`] and [`ImageService`] and serves them
//! with [`RuntimeServiceServer`] and [`ImageServiceServer`].

mod client;
mod load;
mod redact;

pub use client::{Client, MAX_MESSAGE_SIZE};
pub use load::LoadError;
pub use v1::{
    image_service_client::ImageServiceClient,
    image_service_server::{ImageService, ImageServiceServer},
    runtime_service_client::RuntimeServiceClient,
    runtime_service_server::{RuntimeService, RuntimeServiceServer},
};

/// The messages and services of the `runtime.v1` package.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, reason = "generated from proto/cri.proto")]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// Loading and pulling images with progress: our own service beside the two of CRI. Other runtimes
/// answer its calls with [`tonic::Code::Unimplemented`].
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    reason = "generated from proto/images.proto"
)]
pub mod images {
    tonic::include_proto!("pilothouse.images.v1");
}
