//! Both CRI services over one unix socket.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{
    images::images_client::ImagesClient,
    v1::{image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient},
};

/// The largest message that is sent or taken, as kubelets and runtimes have agreed: 16 MiB.
pub const MAX_MESSAGE_SIZE: usize = 16 * 1024 * 1024;

/// A handle on a CRI runtime; cheap to clone, and all clones share one connection.
///
/// The connection is made by the first call and made again by the next call after it broke, so a
/// runtime that restarts needs no new client; a call made while nothing listens fails with
/// [`tonic::Code::Unavailable`].
#[derive(Clone, Debug)]
pub struct Client {
    socket: Arc<Path>,
    runtime: RuntimeServiceClient<Channel>,
    image: ImageServiceClient<Channel>,
    images: ImagesClient<Channel>,
}

impl Client {
    /// A client for the runtime that listens at `path`, which may be a plain path or have the
    /// `unix://` prefix that kubelets and crictl use. Nothing is connected yet, and a missing
    /// socket is not an error here.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, on which the connection's task is spawned.
    #[must_use]
    pub fn connect(path: impl AsRef<Path>) -> Self {
        let socket: Arc<Path> = strip_scheme(path.as_ref()).into();
        let target = socket.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let target = target.clone();
            async move {
                let stream = UnixStream::connect(&*target).await.map_err(|error| {
                    io::Error::new(error.kind(), format!("dial unix {}: {error}", target.display()))
                })?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        // gRPC names the peer of a unix socket "localhost"; the connector ignores it.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Self {
            socket,
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_SIZE)
                .max_encoding_message_size(MAX_MESSAGE_SIZE),
            image: ImageServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_SIZE)
                .max_encoding_message_size(MAX_MESSAGE_SIZE),
            images: ImagesClient::new(channel),
        }
    }

    /// Where the runtime listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The service of sandboxes and containers. The generated methods take `&mut self`, hence an
    /// owned handle; it shares this client's connection.
    #[must_use]
    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        self.runtime.clone()
    }

    /// The service of images; see [`Client::runtime`].
    #[must_use]
    pub fn image(&self) -> ImageServiceClient<Channel> {
        self.image.clone()
    }

    /// Our own service of images, which other runtimes do not have; see [`Client::runtime`].
    #[must_use]
    pub fn images(&self) -> ImagesClient<Channel> {
        self.images.clone()
    }
}

fn strip_scheme(path: &Path) -> PathBuf {
    match path.to_str().and_then(|path| path.strip_prefix("unix://")) {
        Some(stripped) => stripped.into(),
        None => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::net::UnixListener;
    use tokio_stream::wrappers::UnixListenerStream;
    use tonic::{Code, Request, Response, Status, transport::Server};

    use super::{Client, strip_scheme};
    use crate::{
        ImageService, ImageServiceServer,
        v1::{
            Image, ImageFsInfoRequest, ImageFsInfoResponse, ImageStatusRequest, ImageStatusResponse, ListImagesRequest,
            ListImagesResponse, PullImageRequest, PullImageResponse, RemoveImageRequest, RemoveImageResponse,
            StreamImagesRequest, StreamImagesResponse, VersionRequest,
        },
    };

    struct OneImage;

    #[tonic::async_trait]
    impl ImageService for OneImage {
        async fn list_images(&self, _: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
            // Over tonic's default of 4 MiB, under ours.
            let image = Image { id: "x".repeat(6 << 20), ..Default::default() };
            Ok(Response::new(ListImagesResponse { images: vec![image] }))
        }

        type StreamImagesStream = tokio_stream::Iter<std::vec::IntoIter<Result<StreamImagesResponse, Status>>>;

        async fn stream_images(
            &self,
            _: Request<StreamImagesRequest>,
        ) -> Result<Response<Self::StreamImagesStream>, Status> {
            Ok(Response::new(tokio_stream::iter(vec![Ok(StreamImagesResponse::default())])))
        }

        async fn image_status(&self, _: Request<ImageStatusRequest>) -> Result<Response<ImageStatusResponse>, Status> {
            Ok(Response::new(ImageStatusResponse::default()))
        }

        async fn pull_image(&self, _: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
            Err(Status::not_found("no such image"))
        }

        async fn remove_image(&self, _: Request<RemoveImageRequest>) -> Result<Response<RemoveImageResponse>, Status> {
            Ok(Response::new(RemoveImageResponse {}))
        }

        async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Result<Response<ImageFsInfoResponse>, Status> {
            Ok(Response::new(ImageFsInfoResponse::default()))
        }
    }

    fn serve(socket: &Path) -> tokio::task::JoinHandle<()> {
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(async move {
            Server::builder()
                .add_service(ImageServiceServer::new(OneImage))
                .serve_with_incoming(UnixListenerStream::new(listener))
                .await
                .unwrap();
        })
    }

    #[test]
    fn both_spellings_of_a_socket_are_taken() {
        assert_eq!(strip_scheme(Path::new("unix:///run/cri.sock")), Path::new("/run/cri.sock"));
        assert_eq!(strip_scheme(Path::new("/run/cri.sock")), Path::new("/run/cri.sock"));
    }

    #[tokio::test]
    async fn a_client_outlives_the_server_it_first_met() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("cri.sock");
        let client = Client::connect(&socket);

        let refused = client.image().list_images(ListImagesRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");

        for _ in 0..2 {
            let server = serve(&socket);
            let images = client.image().list_images(ListImagesRequest::default()).await.unwrap();
            assert_eq!(images.into_inner().images[0].id.len(), 6 << 20);
            let unserved = client.runtime().version(VersionRequest::default()).await.unwrap_err();
            assert_eq!(unserved.code(), Code::Unimplemented);
            server.abort();
            assert!(server.await.unwrap_err().is_cancelled());
            std::fs::remove_file(&socket).unwrap();
        }
    }
}
