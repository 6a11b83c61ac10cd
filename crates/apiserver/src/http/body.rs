//! What is answered: bytes, pieces made as the client takes them, or a stream of somebody else's.

use super::BoxError;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
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
            other => (Body(other), None),
        }
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
            Inner::Pieces(pieces) => Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece)))),
            Inner::Stream(stream) => Pin::new(stream).poll_frame(cx),
            Inner::Held(held) => Pin::new(&mut held.0).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Bytes(_) | Inner::Pieces(_) => false,
            Inner::Stream(stream) => stream.is_end_stream(),
            Inner::Held(held) => held.0.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Pieces(_) => SizeHint::default(),
            Inner::Stream(stream) => stream.size_hint(),
            Inner::Held(held) => held.0.size_hint(),
        }
    }
}
