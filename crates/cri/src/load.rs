//! What `pilothouse image load` and `pull` do, on any connection.

use std::io;

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    Client,
    images::{LoadRequest, LoadedImage, PullProgress, PullRequest, pull_progress::Step},
};

/// As much of an archive is sent in one message.
const PIECE: usize = 256 * 1024;

/// Why an archive was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive can't be read.
    #[error("failed to read the archive")]
    Read(#[source] io::Error),
    /// The runtime refused it.
    #[error("{}", .0.message())]
    Runtime(Status),
}

impl Client {
    /// Sends an archive of images to the runtime, and gives the images that it now has from it.
    /// `sent` is told how many bytes have gone.
    ///
    /// # Errors
    ///
    /// When the archive can't be read to its end, or the runtime finds no image in it; with
    /// [`tonic::Code::Unimplemented`] when the runtime is not ours.
    pub async fn load_images(
        &self,
        mut archive: impl AsyncRead + Unpin,
        mut sent: impl FnMut(u64),
    ) -> Result<Vec<LoadedImage>, LoadError> {
        let (sender, receiver) = mpsc::channel::<LoadRequest>(4);
        let mut images = self.images();
        let mut call = std::pin::pin!(images.load(ReceiverStream::new(receiver)));
        let mut sender = Some(sender);
        let mut total = 0;
        let mut feed = std::pin::pin!(async {
            while let Some(open) = &sender {
                let mut piece = Vec::with_capacity(PIECE);
                let read = (&mut archive).take(PIECE as u64).read_to_end(&mut piece).await?;
                total += read as u64;
                sent(total);
                let data = Bytes::from(piece);
                // An answer before the end of the archive is an error, which the call tells.
                if read == 0 || open.send(LoadRequest { data }).await.is_err() {
                    sender = None;
                }
            }
            Ok::<_, io::Error>(())
        });
        let mut fed = false;
        loop {
            tokio::select! {
                result = &mut feed, if !fed => {
                    // Returning drops the call: the runtime sees it cancelled, not ended.
                    result.map_err(LoadError::Read)?;
                    fed = true;
                }
                answer = &mut call => {
                    return Ok(answer.map_err(LoadError::Runtime)?.into_inner().images);
                }
            }
        }
    }

    /// Pulls an image and tells how it gets on; gives the image's ID.
    ///
    /// # Errors
    ///
    /// The runtime's, in containerd's words.
    pub async fn pull_image(&self, request: PullRequest, mut progress: impl FnMut(Step)) -> Result<String, Status> {
        let mut steps = self.images().pull(request).await?.into_inner();
        while let Some(PullProgress { step }) = steps.message().await? {
            match step {
                Some(Step::ImageId(id)) => return Ok(id),
                Some(step) => progress(step),
                None => {}
            }
        }
        Err(Status::internal("the runtime ended the pull without a result"))
    }
}
