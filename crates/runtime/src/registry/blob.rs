//! A layer on its way here, resumed where the connection broke.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{
    error::Error,
    session::Session,
    transport::{reason, shown},
};
use crate::{content::Mismatch, image::Descriptor};

/// How often it is tried again without a byte of progress.
const MAX_FAILURES: u32 = 5;
/// How often it is tried again at all, against a server that sends a byte and hangs up.
const MAX_RESUMES: u32 = 100;
const MAX_PAUSE: Duration = Duration::from_secs(4);
/// A connection without a byte for this long counts as broken.
const STALL: Duration = Duration::from_secs(60);

/// The bytes of a blob in order. Its size is enforced here, its digest by whoever reads it.
pub struct Blob<'a> {
    session: &'a Session,
    descriptor: &'a Descriptor,
    /// How much has been handed out.
    offset: u64,
    /// The open answer, and how much of it was handed out before.
    body: Option<(Uri, Incoming, u64)>,
    failures: u32,
    resumes: u32,
}

impl<'a> Blob<'a> {
    pub(super) fn new(session: &'a Session, descriptor: &'a Descriptor) -> Self {
        Self { session, descriptor, offset: 0, body: None, failures: 0, resumes: 0 }
    }

    /// How many bytes have been handed out.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next piece; `None` when all has been handed out.
    ///
    /// # Errors
    ///
    /// When the registry won't give it, or the connection keeps breaking.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let what = "layer";
        let digest = &self.descriptor.digest;
        self.next_piece().await.map_err(|source| Error::Fetch {
            what,
            digest: digest.clone(),
            source: Box::new(source),
        })
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.offset == self.descriptor.size && self.body.is_none() && self.offset > 0 {
                return Ok(None);
            }
            let error = match self.read().await {
                Ok(Some(bytes)) if bytes.is_empty() => continue,
                Ok(Some(bytes)) => {
                    self.failures = 0;
                    return Ok(Some(bytes));
                }
                Ok(None) => return Ok(None),
                Err(error) => error,
            };
            self.body = None;
            self.failures += 1;
            self.resumes += 1;
            if !error.is_transient() || self.failures > MAX_FAILURES || self.resumes > MAX_RESUMES {
                return Err(error);
            }
            tracing::debug!(layer = %self.descriptor.digest, offset = self.offset, %error, "resuming");
            if self.failures > 1 {
                let pause = Duration::from_millis(250) * 2u32.pow(self.failures - 2);
                tokio::time::sleep(pause.min(MAX_PAUSE)).await;
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        let size = self.descriptor.size;
        let (uri, body, skip) = match &mut self.body {
            Some(open) => open,
            None => {
                let (uri, response, start) = self.session.open_blob(&self.descriptor.digest, self.offset).await?;
                self.body.insert((uri, response.into_body(), self.offset - start))
            }
        };
        let broken = |reason: String| Error::Request { method: Method::GET, url: shown(uri), reason };
        let frame = match tokio::time::timeout(STALL, body.frame()).await {
            Err(_) => return Err(broken("i/o timeout: no data for a minute".into())),
            Ok(Some(Err(error))) => return Err(broken(reason(&error))),
            Ok(Some(Ok(frame))) => frame,
            Ok(None) if self.offset == size => {
                self.body = None;
                return Ok(None);
            }
            Ok(None) => return Err(broken("unexpected EOF".into())),
        };
        let Ok(mut bytes) = frame.into_data() else { return Ok(Some(Bytes::new())) };
        let skipped = bytes.split_to(usize::try_from(*skip).unwrap_or(usize::MAX).min(bytes.len()));
        *skip -= skipped.len() as u64;
        self.offset += bytes.len() as u64;
        if self.offset > size {
            return Err(Mismatch::Size { got: self.offset, expected: size }.into());
        }
        Ok(Some(bytes))
    }
}
