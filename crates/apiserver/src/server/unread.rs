//! What nobody read of a request's body. Over HTTP/2 a stream that is answered while its client still sends is reset, and some
//! clients then lose the answer: a refusal that was made from the head alone. So what is on its way is taken first, within limits.

use crate::http::BoxError;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// The most that is taken: more than a request may weigh.
const MOST: usize = 4 * 1024 * 1024;
/// How long its client has to send it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A body that leaves what was not read of it to an [`Unread`].
pub(super) struct Leaving<B: Body> {
    body: Option<B>,
    left: Arc<Mutex<Option<B>>>,
}

/// What was not read of a body, once that is given up.
pub(super) struct Unread<B>(Arc<Mutex<Option<B>>>);

pub(super) fn leaving<B: Body>(body: B) -> (Leaving<B>, Unread<B>) {
    let left = Arc::new(Mutex::new(None));
    (Leaving { body: Some(body), left: left.clone() }, Unread(left))
}

impl<B: Body + Unpin> Unread<B> {
    /// Takes what its client still sends. What exceeds the limits is left to be cut off.
    pub(super) async fn pass_over(self) {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut body) = left else { return };
        let all = async {
            let mut taken = 0;
            while taken < MOST
                && let Some(Ok(frame)) = body.frame().await
            {
                taken += frame.data_ref().map_or(0, Buf::remaining);
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            tracing::debug!("a client that was refused does not send the rest of its request");
        }
    }
}

impl<B: Body> Drop for Leaving<B> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

impl<B> Body for Leaving<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            None => Poll::Ready(None),
        }
    }
    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }
    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use http_body_util::StreamBody;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A body of pieces of a size, which counts those that are taken.
    fn counting(size: usize) -> (impl Body<Data = Bytes, Error = Infallible> + Unpin, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        let pieces = futures::stream::iter(0..100).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Frame::data(Bytes::from(vec![0; size])))
        });
        (StreamBody::new(pieces), taken)
    }

    #[tokio::test]
    async fn what_nobody_reads_is_passed_over_within_limits() {
        for (size, all) in [(10, 100), (MOST / 10 + 1, 11)] {
            let (body, taken) = counting(size);
            let (mut body, unread) = leaving(body);
            assert!(body.frame().await.is_some());
            drop(body);
            assert_eq!(taken.load(Ordering::Relaxed), 1);
            unread.pass_over().await;
            assert_eq!(taken.load(Ordering::Relaxed), all, "{size}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_still_read_is_left_alone() {
        let (body, taken) = counting(1);
        let (body, unread) = leaving(body);
        unread.pass_over().await;
        assert_eq!(taken.load(Ordering::Relaxed), 0);
        assert_eq!(body.collect().await.expect("a body").to_bytes().len(), 100);
    }
}
