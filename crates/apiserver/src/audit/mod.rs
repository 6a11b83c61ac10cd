//! The audit log: who asked for what and what came of it, as the policy says, a JSON object a line.

mod counts;
mod event;
mod object;
mod policy;
mod record;
mod rotation;
mod sink;

pub use counts::Counts;
pub(crate) use object::of_patch;
pub use policy::{Level, Policy, PolicyError, Stage};
pub use record::{NotStored, Record};
pub use rotation::Rotation;
pub use sink::{Batch, Handed, Lost, Mode, Sink, SinkError, Throttle};

use crate::authn::Peer;
use crate::request::parameter;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use std::sync::Arc;
use std::time::Duration;

/// What a request is known by: in the audit log, and to its client in the header of this name.
#[derive(Clone, Debug)]
pub struct AuditId(HeaderValue);

pub const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

impl AuditId {
    /// The one that the client gave, as it is, or else a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(AUDIT_ID).filter(|id| !id.is_empty()).cloned();
        AuditId(given.unwrap_or_else(|| {
            let mut text = uuid::Uuid::encode_buffer();
            let text = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
            HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
        }))
    }

    /// Tells the client, unless whom the request was forwarded to has told it.
    pub fn tell(self, headers: &mut HeaderMap) {
        headers.entry(AUDIT_ID).or_insert(self.0);
    }
}

/// Records requests.
pub struct Audit {
    policy: Policy,
    largest: usize,
    out: Arc<Out>,
}

/// Where events go.
struct Out {
    sink: Sink,
    counts: Counts,
}

impl Audit {
    pub fn new(policy: Policy, sink: Sink) -> Self {
        let counts = Counts::of(sink.lost().clone());
        Audit { policy, largest: usize::MAX, out: Arc::new(Out { sink, counts }) }
    }

    /// From now on, objects are taken out of events of more than so many bytes, and what is too large without them is lost.
    #[must_use]
    pub fn truncating(self, largest: usize) -> Self {
        Audit { largest, ..self }
    }

    pub fn counts(&self) -> &Counts {
        &self.out.counts
    }

    /// Waits until all that was recorded is written, but not longer than `limit`; nothing is recorded any more.
    pub async fn close(&self, limit: Duration) {
        if !self.out.sink.close(limit).await {
            tracing::error!("the audit log could not be written in time: its last events may be lost");
        }
    }
}

/// What is recorded of a request whose sender is not known: by what it tried to be.
pub fn unauthenticated(request: &http::request::Parts, peer: Option<&Peer>) -> String {
    let header = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
    let decoded = |text: &str| STANDARD.decode(text).is_ok_and(|decoded| decoded.contains(&b':'));
    let (trimmed, bearer) = header.trim().split_once(' ').unwrap_or_default();
    let token = request.uri.query().and_then(|query| parameter(query, "access_token"));
    let tried = [
        ("basic", scheme.eq_ignore_ascii_case("basic") && decoded(rest)),
        ("bearer", trimmed.eq_ignore_ascii_case("bearer") && !bearer.is_empty()),
        ("access_token", token.is_some_and(|token| !token.trim().is_empty())),
        ("x509", peer.is_some_and(|peer| !peer.certificates.is_empty())),
    ];
    let tried: Vec<&str> = tried.into_iter().filter_map(|(name, tried)| tried.then_some(name)).collect();
    if tried.is_empty() {
        "Authentication failed, no credentials provided".to_owned()
    } else {
        format!("Authentication failed, attempted: {}", tried.join(", "))
    }
}

#[cfg(test)]
mod tests;
