//! The CRI image service, and our own beside it.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use cri::{
    ImageService, ImageServiceServer, MAX_MESSAGE_SIZE,
    images::{
        LayerProgress, LoadRequest, LoadResponse, LoadedImage, PullProgress, PullRequest, Resolved,
        images_server::{self, ImagesServer},
        pull_progress::Step,
    },
    v1::{
        self, AuthConfig, FilesystemIdentifier, FilesystemUsage, ImageFilter, ImageFsInfoRequest, ImageFsInfoResponse,
        ImageSpec, ImageStatusRequest, ImageStatusResponse, Int64Value, ListImagesRequest, ListImagesResponse,
        PullImageRequest, PullImageResponse, RemoveImageRequest, RemoveImageResponse, StreamImagesRequest,
        StreamImagesResponse, UInt64Value,
    },
};
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    assemble::ChannelReader,
    pull::{OnProgress, Progress, Pull},
    store::{Image, Images},
};
use crate::content::Usage;

/// As many images go into one message of a streamed list.
const BATCH: usize = 200;

/// Answers calls about images from the images of this node.
#[derive(Clone, Debug)]
pub struct ImageServer {
    images: Images,
}

impl ImageServer {
    /// Serves `images`.
    #[must_use]
    pub fn new(images: Images) -> Self {
        Self { images }
    }

    /// The CRI service, for a server to add.
    #[must_use]
    pub fn cri(&self) -> ImageServiceServer<Self> {
        ImageServiceServer::new(self.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE)
    }

    /// Our own service, for a server to add.
    #[must_use]
    pub fn own(&self) -> ImagesServer<Self> {
        ImagesServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_SIZE)
    }

    fn list(&self, filter: Option<ImageFilter>) -> Result<Vec<v1::Image>, Status> {
        let wanted = filter.and_then(|filter| filter.image).filter(|spec| !spec.image.is_empty());
        let images = match wanted {
            None => self.images.list(),
            Some(spec) => self.images.resolve(&spec.image).into_iter().collect(),
        };
        Ok(images.iter().map(|image| describe(image)).collect())
    }
}

/// Runs what waits for the disk away from the threads that serve.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, Status> + Send + 'static) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Status::internal(format!("the operation failed: {error}"))))
}

#[tonic::async_trait]
impl ImageService for ImageServer {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        let (this, filter) = (self.clone(), request.into_inner().filter);
        let images = off_thread(move || this.list(filter)).await?;
        Ok(Response::new(ListImagesResponse { images }))
    }

    type StreamImagesStream = tokio_stream::Iter<std::vec::IntoIter<Result<StreamImagesResponse, Status>>>;

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let (this, filter) = (self.clone(), request.into_inner().filter);
        let images = off_thread(move || this.list(filter)).await?;
        let batch = |batch: &[v1::Image]| Ok(StreamImagesResponse { images: batch.to_vec() });
        let batches: Vec<_> = images.chunks(BATCH).map(batch).collect();
        Ok(Response::new(tokio_stream::iter(batches)))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let ImageStatusRequest { image, verbose } = request.into_inner();
        let (images, name) = (self.images.clone(), named(image)?);
        let response = off_thread(move || {
            let Some(image) = images.resolve(&name) else {
                return Ok(ImageStatusResponse::default());
            };
            let info = if verbose { info(&images, &image)? } else { BTreeMap::new() };
            Ok(ImageStatusResponse { image: Some(describe(&image)), info })
        });
        Ok(Response::new(response.await?))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
        let PullImageRequest { image, auth, sandbox_config: _ } = request.into_inner();
        let pull = Pull { reference: named(image)?, auth, progress: None };
        let image = self.images.pull(pull).await?;
        Ok(Response::new(PullImageResponse { image_ref: image.id().to_string() }))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let (images, name) = (self.images.clone(), named(request.into_inner().image)?);
        off_thread(move || Ok(images.remove(&name)?)).await?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Result<Response<ImageFsInfoResponse>, Status> {
        let images = self.images.clone();
        let response = off_thread(move || {
            let snapshots = images.snapshots();
            let mut written = Usage::default();
            for id in snapshots.list() {
                match snapshots.usage(&id) {
                    Ok(usage) => written += usage,
                    // Removed meanwhile.
                    Err(error) => tracing::debug!(snapshot = id, %error, "not measured"),
                }
            }
            // One filesystem holds both, and kubelets tell so by the two being the same.
            let mut all = images.usage();
            all += written;
            let usage = filesystem(&images, all);
            Ok(ImageFsInfoResponse { image_filesystems: vec![usage.clone()], container_filesystems: vec![usage] })
        });
        Ok(Response::new(response.await?))
    }
}

#[tonic::async_trait]
impl images_server::Images for ImageServer {
    async fn load(&self, request: Request<Streaming<LoadRequest>>) -> Result<Response<LoadResponse>, Status> {
        let mut pieces = request.into_inner();
        let (sender, reader) = ChannelReader::new();
        let mut loading = std::pin::pin!(self.images.load(reader));
        let mut feeding = std::pin::pin!(async {
            while let Some(LoadRequest { data }) = pieces.message().await? {
                if sender.send(data).await.is_err() {
                    break;
                }
            }
            drop(sender);
            Ok::<_, Status>(())
        });
        let mut fed = false;
        loop {
            tokio::select! {
                result = &mut feeding, if !fed => {
                    result?;
                    fed = true;
                }
                images = &mut loading => {
                    let images = images?.iter().map(|image| LoadedImage {
                        id: image.id().to_string(),
                        names: image.repo_tags().to_vec(),
                        size: image.size(),
                    }).collect();
                    return Ok(Response::new(LoadResponse { images }));
                }
            }
        }
    }

    type PullStream = Pin<Box<dyn Stream<Item = Result<PullProgress, Status>> + Send>>;

    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        let PullRequest { image, username, password } = request.into_inner();
        let auth = (!username.is_empty()).then(|| AuthConfig { username, password, ..AuthConfig::default() });
        let (sender, receiver) = mpsc::channel(64);
        let steps = sender.clone();
        let progress: OnProgress = Arc::new(move |progress| {
            // A client that doesn't keep up misses steps, not the result.
            drop(steps.try_send(Ok(PullProgress { step: Some(step(progress)) })));
        });
        let images = self.images.clone();
        tokio::spawn(async move {
            let pull = Pull { reference: image, auth, progress: Some(progress) };
            let result = tokio::select! {
                result = images.pull(pull) => result,
                // The client went away.
                () = sender.closed() => return,
            };
            let last = match result {
                Ok(image) => Ok(PullProgress { step: Some(Step::ImageId(image.id().to_string())) }),
                Err(error) => Err(error.into()),
            };
            drop(sender.send(last).await);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn step(progress: Progress) -> Step {
    match progress {
        Progress::Resolved { reference, digest } => Step::Resolved(Resolved { reference, digest }),
        Progress::Layer { digest, offset, total } => {
            Step::Layer(LayerProgress { digest, offset, total, unpacked: false })
        }
        Progress::Unpacked { digest } => Step::Layer(LayerProgress { digest, offset: 0, total: 0, unpacked: true }),
    }
}

fn named(image: Option<ImageSpec>) -> Result<String, Status> {
    match image {
        Some(spec) if !spec.image.is_empty() => Ok(spec.image),
        _ => Err(Status::invalid_argument("image is required: the request names no image")),
    }
}

fn describe(image: &Image) -> v1::Image {
    let (uid, username) = image.user();
    v1::Image {
        id: image.id().to_string(),
        repo_tags: image.repo_tags().to_vec(),
        repo_digests: image.repo_digests().to_vec(),
        // The API says that it must not be 0, which an image without files would have.
        size: image.size().max(1),
        uid: uid.map(|value| Int64Value { value }),
        username: username.unwrap_or_default().into(),
        spec: None,
        pinned: image.is_pinned(),
    }
}

/// What `crictl inspecti` shows: the chain of layers and the configuration.
fn info(images: &Images, image: &Image) -> Result<BTreeMap<String, String>, Status> {
    let config: serde_json::Value = serde_json::from_slice(&images.document(image.id())?)
        .map_err(|error| Status::internal(format!("image {}: {error}", image.id())))?;
    let chain_id = image.chain_ids().last().map(ToString::to_string);
    let info = serde_json::json!({
        "chainID": chain_id.unwrap_or_default(),
        "manifest": image.manifest(),
        "imageSpec": config,
    });
    Ok(BTreeMap::from([("info".to_owned(), info.to_string())]))
}

fn filesystem(images: &Images, usage: Usage) -> FilesystemUsage {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    FilesystemUsage {
        timestamp: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
        fs_id: Some(FilesystemIdentifier { mountpoint: images.dir().display().to_string() }),
        used_bytes: Some(UInt64Value { value: usage.bytes }),
        inodes_used: Some(UInt64Value { value: usage.inodes }),
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
