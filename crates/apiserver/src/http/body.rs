//! What is answered: bytes, pieces made as the client takes them, or a stream of somebody else's.

use super::BoxError;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of an answer.
#[derive(Default)]
pub struct Body(Inner);

#[derive(Default)]
enum Inner {
    #[default]
    Empty,
    Bytes(Bytes),
    /// Made piece by piece, as fast as the client takes them.
    Pieces(Box<dyn Iterator<Item = Bytes> + Send>),
    Stream(UnsyncBoxBody<Bytes, BoxError>),
    /// Another body, and what is held until that was sent or given up.
    Held(Box<(Body, Box<dyn Send>)>),
    /// The same of what wants to know how it ends.
    Witnessed(Box<(Body, Box<dyn Witness>)>),
}

/// Who is held by a body and told when making it panics. When it is dropped without that, the body was sent or given up.
pub trait Witness: Send {
    fn panicked(&mut self, why: &str);
}

/// Making a body panicked, which is no end that it could have.
#[derive(Debug, thiserror::Error)]
#[error("the answer could not be made: {0}")]
struct Panicked(String);

/// What comes of a step, though it panics: that ends its body, and not the connection with all that others do there.
fn caught(
    step: impl FnOnce() -> Poll<Option<Result<Frame<Bytes>, BoxError>>>,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let why = api::panic::text(&*panic);
        tracing::error!(panic = why, "making an answer panicked after it had begun");
        Poll::Ready(Some(Err(Panicked(why.to_owned()).into())))
    })
}

impl Body {
    pub fn empty() -> Self {
        Body(Inner::Empty)
    }
    pub fn pieces(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Self {
        Body(Inner::Pieces(Box::new(pieces)))
    }
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        use http_body_util::BodyExt;
        Body(Inner::Stream(body.map_err(Into::into).boxed_unsync()))
    }
    /// The same, which holds something until it was sent or given up.
    pub fn holding(self, held: impl Send + 'static) -> Self {
        Body(Inner::Held(Box::new((self, Box::new(held)))))
    }
    /// The same, with somebody who wants to know how that ended.
    pub fn witnessed(self, witness: impl Witness + 'static) -> Self {
        Body(Inner::Witnessed(Box::new((self, Box::new(witness)))))
    }
    /// The bytes, when they are there as a whole.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match &self.0 {
            Inner::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
    /// The body, and its bytes when this server makes them and they are not more than so many.
    pub fn gathered(self, most: usize) -> (Self, Option<Bytes>) {
        match self.0 {
            Inner::Bytes(bytes) => (Body(Inner::Bytes(bytes.clone())), Some(bytes).filter(|bytes| bytes.len() <= most)),
            Inner::Pieces(mut pieces) => {
                let mut made = Vec::new();
                while made.len() <= most {
                    let Some(piece) = pieces.next() else {
                        let made = Bytes::from(made);
                        return (Body::from(made.clone()), Some(made));
                    };
                    made.extend_from_slice(&piece);
                }
                (Body::pieces(std::iter::once(Bytes::from(made)).chain(pieces)), None)
            }
            Inner::Held(held) => {
                let (body, held) = *held;
                let (body, bytes) = body.gathered(most);
                (Body(Inner::Held(Box::new((body, held)))), bytes)
            }
            Inner::Witnessed(witnessed) => {
                let (body, witness) = *witnessed;
                let (body, bytes) = body.gathered(most);
                (Body(Inner::Witnessed(Box::new((body, witness)))), bytes)
            }
            other => (Body(other), None),
        }
    }
}

impl Body {
    /// Nobody may ask any more what has panicked.
    fn ended_by<T>(&mut self, polled: Poll<Option<Result<T, BoxError>>>) -> Poll<Option<Result<T, BoxError>>> {
        if matches!(&polled, Poll::Ready(Some(Err(error))) if error.is::<Panicked>()) {
            self.0 = Inner::Empty;
        }
        polled
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Body::empty() } else { Body(Inner::Bytes(bytes)) }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            Inner::Empty => "Body(empty)",
            Inner::Bytes(_) => "Body(bytes)",
            Inner::Pieces(_) => "Body(pieces)",
            Inner::Stream(_) => "Body(stream)",
            Inner::Held(_) => "Body(held)",
            Inner::Witnessed(_) => "Body(witnessed)",
        })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Inner::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Inner::Pieces(pieces) => {
                let polled = caught(|| Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece)))));
                self.ended_by(polled)
            }
            Inner::Stream(stream) => {
                let polled = caught(|| Pin::new(stream).poll_frame(cx));
                self.ended_by(polled)
            }
            Inner::Held(held) => Pin::new(&mut held.0).poll_frame(cx),
            Inner::Witnessed(witnessed) => {
                let (body, witness) = &mut **witnessed;
                let polled = Pin::new(body).poll_frame(cx);
                if let Poll::Ready(Some(Err(error))) = &polled
                    && let Some(Panicked(why)) = error.downcast_ref()
                {
                    witness.panicked(why);
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Bytes(_) | Inner::Pieces(_) => false,
            Inner::Stream(stream) => stream.is_end_stream(),
            Inner::Held(held) => held.0.is_end_stream(),
            Inner::Witnessed(witnessed) => witnessed.0.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Pieces(_) => SizeHint::default(),
            Inner::Stream(stream) => stream.size_hint(),
            Inner::Held(held) => held.0.size_hint(),
            Inner::Witnessed(witnessed) => witnessed.0.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<String>>>);

    impl Witness for Heard {
        fn panicked(&mut self, why: &str) {
            self.0.lock().expect("no panic").push(why.to_owned());
        }
    }

    #[tokio::test]
    async fn a_body_whose_making_panics_ends_badly_and_alone() {
        let piece = |n: u8| if n < 2 { Bytes::from(vec![n]) } else { panic!("piece {n}") };
        let pieces = || Body::pieces((0..9).map(piece));
        for body in [pieces(), Body::stream(pieces())] {
            let heard = Heard::default();
            let mut body = body.holding(()).witnessed(heard.clone());
            for n in 0..2 {
                let frame = body.frame().await.expect("a frame").expect("well");
                assert_eq!(frame.into_data().expect("data"), [n].as_slice());
            }
            let error = body.frame().await.expect("a frame").expect_err("badly");
            assert_eq!(error.to_string(), "the answer could not be made: piece 2");
            assert!(body.frame().await.is_none(), "it is over");
            assert_eq!(*heard.0.lock().expect("no panic"), ["piece 2"]);
        }
    }
}
