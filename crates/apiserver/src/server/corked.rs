//! A connection's writes, held together until what made them has had its turn.
//!
//! HTTP/2 writes frame by frame and asks for a flush after each with a body. Passed on one by one, each would be a TLS record and
//! a system call of its own, which for the many small events of many watches costs more than all else. Here they gather while the
//! connection's future runs, and go out in one piece when it has nothing more to say: nothing is later for it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So many bytes are gathered at most: a few TLS records. More is passed on at once, and waits for the peer to read.
const GATHERED: usize = 60 * 1024;
/// Room that is made for the first of them; for more, room for all is made. A silent connection holds none.
const ROOM: usize = 16 * 1024;

struct Inner<S> {
    stream: S,
    gathered: Vec<u8>,
    /// Of these, so many have been passed on.
    passed: usize,
    /// Bytes were passed on that the stream has not been told to flush.
    unflushed: bool,
    /// Somebody passes on what is gathered after each turn. Without, a flush does.
    held: bool,
    /// Who waits for something to read.
    reader: Option<Waker>,
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    /// Passes on what is gathered.
    fn poll_pass(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.passed < self.gathered.len() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.gathered[self.passed..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.passed += written;
            self.unflushed = true;
        }
        self.passed = 0;
        self.gathered = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Passes on what is gathered, down to the socket.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pass(cx))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Room for more bytes, once there is some, of `wanted`.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        if self.gathered.len() >= GATHERED {
            // What was passed on in part keeps its place until all is.
            ready!(self.poll_pass(cx))?;
        }
        let room = wanted.min(GATHERED - self.gathered.len());
        if self.gathered.len() + room > self.gathered.capacity() {
            let whole = if self.gathered.len() + room <= ROOM { ROOM } else { GATHERED };
            self.gathered.reserve_exact(whole - self.gathered.len());
        }
        Poll::Ready(Ok(room))
    }
}

/// The stream, for who serves the connection.
pub(super) struct Corked<S>(Arc<Mutex<Inner<S>>>);

/// The other end of a [`Corked`] stream: passes on what was gathered, until it lets the stream go.
pub(super) struct Cork<S>(Arc<Mutex<Inner<S>>>);

/// Splits a stream into that to write to and that which lets the writes out.
pub(super) fn corked<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> (Corked<S>, Cork<S>) {
    let inner = Inner { stream, gathered: Vec::new(), passed: 0, unflushed: false, held: true, reader: None };
    let inner = Arc::new(Mutex::new(inner));
    (Corked(inner.clone()), Cork(inner))
}

fn lock<S>(inner: &Mutex<Inner<S>>) -> MutexGuard<'_, Inner<S>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    /// Lets out what was gathered. Pending when the peer does not read: the task is woken when it does.
    pub(super) fn poll_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_out(cx)
    }

    /// From now on the stream is as any other: after an upgrade somebody else has it, and may have written and flushed already.
    /// What the peer does not take now goes out before he reads or flushes next.
    pub(super) fn let_go(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut inner = lock(&self.0);
        inner.held = false;
        let out = inner.poll_out(cx);
        if let Some(reader) = inner.reader.take() {
            reader.wake();
        }
        match out {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        if !inner.held {
            // Who reads now may never flush again.
            if let Poll::Ready(Err(error)) = inner.poll_out(cx) {
                return Poll::Ready(Err(error));
            }
        }
        let read = Pin::new(&mut inner.stream).poll_read(cx, into);
        if read.is_pending() && inner.held && !inner.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker()))
        {
            inner.reader = Some(cx.waker().clone());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        let taken = ready!(inner.poll_room(cx, bytes.len()))?;
        inner.gathered.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        let mut room = ready!(inner.poll_room(cx, slices.iter().map(|slice| slice.len()).sum()))?;
        let mut taken = 0;
        for slice in slices {
            let part = slice.len().min(room);
            inner.gathered.extend_from_slice(&slice[..part]);
            taken += part;
            room -= part;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        if inner.held { Poll::Ready(Ok(())) } else { inner.poll_out(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_out(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    /// A pipe that counts what is asked of it.
    struct Counted {
        pipe: DuplexStream,
        writes: Arc<Mutex<Vec<usize>>>,
    }

    impl AsyncRead for Counted {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.pipe).poll_read(cx, into)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let written = ready!(Pin::new(&mut self.pipe).poll_write(cx, bytes))?;
            self.writes.lock().unwrap().push(written);
            Poll::Ready(Ok(written))
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.pipe).poll_flush(cx)
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.pipe).poll_shutdown(cx)
        }
    }

    type Writes = Arc<Mutex<Vec<usize>>>;

    fn pipe(size: usize) -> (Corked<Counted>, Cork<Counted>, DuplexStream, Writes) {
        let (pipe, far) = tokio::io::duplex(size);
        let writes = Writes::default();
        let (corked, cork) = corked(Counted { pipe, writes: writes.clone() });
        (corked, cork, far, writes)
    }

    #[tokio::test]
    async fn a_turns_writes_are_one() {
        let (mut near, cork, mut far, writes) = pipe(1 << 20);
        for word in ["one ", "two ", "three"] {
            near.write_all(word.as_bytes()).await.unwrap();
            near.flush().await.unwrap();
        }
        assert!(writes.lock().unwrap().is_empty());
        poll_fn(|cx| cork.poll_out(cx)).await.unwrap();
        assert_eq!(*writes.lock().unwrap(), [13]);
        let mut read = [0; 13];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"one two three");
    }

    #[tokio::test]
    async fn what_is_held_is_bounded_and_nothing_is_lost_or_moved() {
        let (mut near, cork, mut far, writes) = pipe(1000);
        let sent: Vec<u8> = (0..300_000_usize).map(|n| (n * 31 / 7) as u8).collect();
        let expected = sent.clone();
        let reader = tokio::spawn(async move {
            let mut read = Vec::new();
            far.read_to_end(&mut read).await.map(|_| read)
        });
        for piece in sent.chunks(7_001) {
            near.write_all(piece).await.unwrap();
            assert!(lock(&near.0).gathered.capacity() <= GATHERED);
        }
        poll_fn(|cx| cork.poll_out(cx)).await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(reader.await.unwrap().unwrap(), expected);
        assert_eq!(writes.lock().unwrap().iter().sum::<usize>(), expected.len());
    }

    #[tokio::test]
    async fn uncorked_it_flushes_when_asked_and_before_it_reads() {
        let (mut near, cork, mut far, _) = pipe(1000);
        near.write_all(b"HTTP/1.1 101\r\n").await.unwrap();
        // Who has it after an upgrade may be quicker, and wait to read.
        let mut first = [0];
        let waiting = poll_fn(|cx| Poll::Ready(Pin::new(&mut near).poll_read(cx, &mut ReadBuf::new(&mut first)))).await;
        assert!(waiting.is_pending() && lock(&near.0).reader.is_some());
        poll_fn(|cx| Poll::Ready(cork.let_go(cx))).await.unwrap();
        assert!(lock(&near.0).reader.is_none());
        let answer = tokio::spawn(async move {
            let mut read = [0; 14];
            far.read_exact(&mut read).await.unwrap();
            far.write_all(b"ok").await.unwrap();
            let mut more = [0; 4];
            far.read_exact(&mut more).await.unwrap();
            (read, more)
        });
        let mut ok = [0; 2];
        near.read_exact(&mut ok).await.unwrap();
        near.write_all(b"more").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(answer.await.unwrap(), (*b"HTTP/1.1 101\r\n", *b"more"));
    }
}
