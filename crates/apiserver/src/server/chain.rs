//! The filters, in their order, and what stands at their end.

use super::metrics::{Asked, Outcome, Passed};
use super::{ApiServer, debug_flags};
use crate::audit::{AuditId, NotStored, Record};
use crate::authn::Peer;
use crate::authn::impersonation::impersonate;
use crate::authz::{self, Attributes, Decision};
use crate::context::{Context, Notes};
use crate::flowcontrol::{Place, Refused};
use crate::handlers::{self, Call, LongRunning, NotServed};
use crate::http::media::View;
use crate::http::websocket;
use crate::http::{Body, NO_CACHE, Request, RequestBody, Response, answer};
use crate::request::{RequestInfo, parameter, unescape_path};
use crate::user::UserInfo;
use api::Status;
use futures::FutureExt;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use schema::validation;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

const WARNING: HeaderName = HeaderName::from_static("warning");

/// Where a request comes from.
pub(super) enum Origin {
    Network(Peer),
    /// From within the process, as this user.
    Local(Arc<UserInfo>),
}

impl ApiServer {
    /// Answers a request, whatever happens, and tells by what it is known.
    pub(super) async fn answer(self: &Arc<Self>, mut request: Request, origin: Origin) -> Response<Body> {
        let id = AuditId::of(request.headers());
        if self.security.audit.is_some() {
            request.extensions_mut().insert(id.clone());
        }
        let mut response = self.answered(request, origin).await;
        id.tell(response.headers_mut());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().entry(CACHE_CONTROL).or_insert(NO_CACHE);
        }
        response
    }

    async fn answered(self: &Arc<Self>, request: Request, origin: Origin) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let path = unescape_path(parts.uri.path());
        let query = parts.uri.query().unwrap_or("").to_owned();
        let view = View::for_error(&parts.headers, &query);
        let info = match RequestInfo::parse(parts.method.as_str(), &path, &query) {
            Ok(info) => Arc::new(info),
            Err(error) => return answer::refusal(&Status::bad_request(error.to_string()), view),
        };
        // What is asked of another server is its matter.
        if !self.compresses && info.subresource != "proxy" {
            parts.headers.remove(http::header::ACCEPT_ENCODING);
        }
        let began = Instant::now();
        let head = parts.method == http::Method::HEAD;
        let allotted = allotted(&info, &query, self.config.request_timeout);
        let asked = Asked::of(&info, &query, crate::http::media::content_type(&parts.headers));
        let unanswered = self.metrics.begin(&self.registry, &info, asked);
        let mut response = self.filtered(parts, body, &info, query, origin, allotted).await;
        let panicked = response.extensions_mut().remove::<Panicked>().is_some();
        if head {
            *response.body_mut() = Body::empty();
        }
        let outcome = Outcome {
            code: response.status().as_u16(),
            took: began.elapsed(),
            waited: response.extensions_mut().remove::<Waited>().map_or(Duration::ZERO, |waited| waited.0),
            size: http_body::Body::size_hint(response.body()).exact().or_else(|| content_length(response.headers())),
            terminated: response.extensions_mut().remove::<Terminated>().is_some(),
            own: response.extensions_mut().remove::<Own>().is_some(),
        };
        unanswered.answered(outcome, panicked);
        response
    }

    /// `allotted`: how long it may take, or why its client's word on that is refused. Neither that nor a panic ends what is
    /// recorded of the request.
    async fn filtered(
        self: &Arc<Self>,
        mut parts: Parts,
        body: RequestBody,
        info: &Arc<RequestInfo>,
        query: String,
        origin: Origin,
        allotted: Result<Option<Duration>, Status>,
    ) -> Response<Body> {
        let view = View::for_error(&parts.headers, &query);
        let received = Timestamp::now();
        let notes = Notes::default();
        parts.extensions.insert(notes.clone());
        let peer = match &origin {
            Origin::Network(peer) => Some(peer),
            Origin::Local(_) => None,
        };
        let audit = self.security.audit.as_ref();
        let allotted = match allotted {
            Ok(allotted) => allotted,
            Err(status) => {
                // Before anybody knows who asks, as upstream.
                if let Some(audit) = audit {
                    audit.refused(&parts, info, peer, received, status.code, &status.message);
                }
                return answer::refusal(&status, view);
            }
        };
        let until = allotted.map(|allotted| tokio::time::Instant::now() + allotted);
        let user = match within(info, until, pin!(self.authenticated(&parts, &origin))).await {
            Ok(user) => user,
            Err(end) => {
                if let (Some(audit), End::Refused(status)) = (audit, &end) {
                    let why = crate::audit::unauthenticated(&parts, peer);
                    audit.refused(&parts, info, peer, received, status.code, &why);
                }
                return end.answer(view);
            }
        };
        let mut record = audit.and_then(|audit| audit.record(&parts, info, &user, peer, received));
        let begun = match &mut record {
            Some(record) => within(info, until, pin!(record.begin().map(Ok))).await,
            None => Ok(Ok(())),
        };
        match begun {
            Ok(Ok(())) => {}
            Ok(Err(NotStored)) => return not_recorded(&parts),
            Err(end) => return recorded(record, info, until, view, end.answer(view)).await,
        }
        let agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
        let agent = agent.to_owned();
        let constrained = self.constrains.then_some(&**info);
        let answering = async {
            let acting = impersonate(&*self.security.authorizer, &user, &parts.headers, constrained).await?;
            if let (Some(record), Some(acting)) = (&mut record, &acting) {
                record.impersonated(acting);
            }
            let user = acting.map_or_else(|| user.clone(), |acting| Arc::new(acting.user));
            let cx = Context::noting(user, &agent, received, notes).asked_by(&info.verb);
            if let Some(record) = &mut record {
                record.with(&cx);
            }
            let timeout = allotted.unwrap_or(self.config.request_timeout);
            let began = Instant::now();
            let mut place = match self.security.limit.admit(&cx, info, &query, timeout).await {
                Ok(place) => {
                    self.metrics.passed(Passed::Fairness, began.elapsed());
                    place
                }
                Err(refused) => return Ok(too_many_requests(&refused)),
            };
            let (marks, waited) = (place.marks(), place.waited());
            let mut held = info.long_running().then(|| self.metrics.long_running(&self.registry, info));
            if info.verb == "watch" {
                place.count(held.take());
                if websocket::is_wanted(&parts.headers) {
                    parts.extensions.insert(self.websockets.clone());
                }
            }
            let held = held.map(Arc::new);
            if let Some(held) = &held {
                parts.extensions.insert(LongRunning(held.clone()));
            }
            let permitted = self.permitted(&cx, parts, body, info, query, place).await;
            let mut response = permitted.unwrap_or_else(|status| answer::refusal(&status, view));
            marks.add(response.headers_mut());
            if let Some(held) = held {
                response = response.map(|body| body.holding(held));
            }
            if cx.user.name == crate::user::APISERVER {
                response.extensions_mut().insert(Own);
            }
            if !waited.is_zero() {
                response.extensions_mut().insert(Waited(waited));
            }
            warn(&cx, response.headers_mut());
            Ok::<_, Status>(response)
        };
        let answered = within(info, until, pin!(answering)).await;
        let response = answered.unwrap_or_else(|end| end.answer(view));
        recorded(record, info, until, view, response).await
    }

    async fn authenticated(&self, parts: &Parts, origin: &Origin) -> Result<Arc<UserInfo>, Status> {
        let peer = match origin {
            Origin::Local(user) => return Ok(user.clone()),
            Origin::Network(peer) => peer,
        };
        let began = Instant::now();
        let authenticated = self.security.authenticator.authenticate(parts, Some(peer)).await;
        self.metrics.authenticated(&authenticated, began.elapsed());
        match authenticated {
            Ok(Some(user)) => Ok(Arc::new(user)),
            Ok(None) => Err(Status::unauthorized()),
            Err(error) => {
                tracing::debug!(%error, peer = %peer.address, "unable to authenticate the request");
                Err(Status::unauthorized())
            }
        }
    }

    async fn permitted(
        self: &Arc<Self>,
        cx: &Context,
        parts: Parts,
        body: RequestBody,
        info: &Arc<RequestInfo>,
        query: String,
        place: Place,
    ) -> Result<Response<Body>, Status> {
        let attributes = Attributes::of(&cx.user, info);
        let began = Instant::now();
        let decision = self.security.authorizer.authorize(&attributes).await;
        self.metrics.authorized(&decision, began.elapsed());
        match decision {
            Decision::Allow(reason) => {
                if self.security.audit.is_some() {
                    cx.annotate("authorization.k8s.io/decision", "allow");
                    cx.annotate("authorization.k8s.io/reason", reason);
                }
            }
            Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                if self.security.audit.is_some() {
                    cx.annotate("authorization.k8s.io/decision", "forbid");
                    cx.annotate("authorization.k8s.io/reason", reason.clone());
                }
                return Err(authz::forbidden(&attributes, &reason));
            }
        }
        if !info.is_resource {
            if info.past.is_some() && !info.is_discovery() {
                return Ok(super::paths::not_found());
            }
            if let Some(set) =
                self.config.set_verbosity.filter(|_| self.config.profiling && debug_flags::is_below(&info.path))
            {
                return debug_flags::answer(&parts, &info.path, body, set).await;
            }
            return self.path(&parts, info, &query).await;
        }
        // A mux does not know it, though to authorization it is what it would be with one slash.
        if info.path.starts_with("//") {
            return Ok(super::paths::not_found());
        }
        let call = Call {
            cx: cx.clone(),
            info: info.clone(),
            method: parts.method.clone(),
            query,
            watch_timeout: self.watch_timeout(cx.now),
            parts,
            body,
            place,
        };
        let answered = handlers::handle(&self.registry, call).await;
        if !matches!(answered, Err(NotServed::Path))
            && let Some(served) = self.registry.served(&info.group, &info.version, &info.resource)
            && let Some(deprecation) = &served.resource.deprecation
        {
            self.metrics.deprecated(info, deprecation);
        }
        match answered {
            Ok(response) => Ok(response),
            // Of a version that is served the router says it, of others the mux.
            Err(NotServed::Path) if self.registry.table().has_version(&info.group, &info.version) => {
                Err(Status::no_such_path())
            }
            Err(NotServed::Path) => Ok(super::paths::not_found()),
            Err(NotServed::Refused(status)) => Err(status),
        }
    }

    /// Watches that began together end apart.
    fn watch_timeout(&self, now: Timestamp) -> Duration {
        let part = f64::from(now.subsec_nanosecond().unsigned_abs() % 1_000_000) / 1_000_000.0;
        self.config.min_watch.mul_f64(1.0 + part)
    }
}

/// How a step of a request ended without what it was to give.
enum End {
    Refused(Status),
    OutOfTime,
    /// And what was said then.
    Panicked(Arc<str>),
}

impl End {
    fn answer(self, view: View) -> Response<Body> {
        match self {
            End::Refused(status) => answer::refusal(&status, view),
            End::OutOfTime => {
                let why = "request did not complete within the allotted timeout";
                let mut response = answer::refusal(&Status::timeout(why, 0), view);
                response.extensions_mut().insert(Terminated);
                response
            }
            // In plain text, as upstream says it.
            End::Panicked(why) => {
                let text = "This request caused apiserver to panic. Look in the logs for details.\n";
                let mut response = plain(StatusCode::INTERNAL_SERVER_ERROR, text);
                response.extensions_mut().insert(Panicked(why));
                response
            }
        }
    }
}

/// What comes of a step of a request, if it comes by then. The step stays where it is: it would be copied several times otherwise,
/// and be kept twice.
async fn within<T>(
    info: &RequestInfo,
    until: Option<tokio::time::Instant>,
    step: Pin<&mut impl Future<Output = Result<T, Status>>>,
) -> Result<T, End> {
    let step = AssertUnwindSafe(step).catch_unwind();
    let done = match until {
        None => step.await,
        Some(until) => tokio::time::timeout_at(until, step).await.map_err(|_| End::OutOfTime)?,
    };
    match done {
        Ok(done) => done.map_err(End::Refused),
        Err(panic) => {
            let why = api::panic::text(&*panic);
            tracing::error!(path = info.path, verb = info.verb, panic = why, "a request's handler panicked");
            Err(End::Panicked(why.into()))
        }
    }
}

/// An answer, once it is recorded, if that comes by then.
async fn recorded(
    record: Option<Record>,
    info: &RequestInfo,
    until: Option<tokio::time::Instant>,
    view: View,
    response: Response<Body>,
) -> Response<Body> {
    let Some(mut record) = record else { return response };
    let response = if response.extensions().get::<Panicked>().is_some() {
        response
    } else {
        let noted = async { Ok(record.note(response)) };
        within(info, until, pin!(noted)).await.unwrap_or_else(|end| end.answer(view))
    };
    let told = async {
        let panicked = response.extensions().get::<Panicked>().cloned();
        match panicked {
            Some(Panicked(why)) => {
                record.panicked(&why).await;
                Ok(response)
            }
            None => Ok(record.finish(response).await),
        }
    };
    within(info, until, pin!(told)).await.unwrap_or_else(|end| end.answer(view))
}

/// How long a request may take: as long as its client says (`?timeout=`), but no longer than any; `None`: as long as it likes.
fn allotted(info: &RequestInfo, query: &str, most: Duration) -> Result<Option<Duration>, Status> {
    if info.long_running() {
        return Ok(None);
    }
    if !query.contains("timeout") && !query.contains('%') {
        return Ok(Some(most));
    }
    let Some(text) = parameter(query, "timeout").filter(|text| !text.is_empty()) else { return Ok(Some(most)) };
    let nanos = api::duration::parse(&text)
        .map_err(|why| Status::bad_request(format!("invalid timeout specified in the request URL - {why}")))?;
    let asked = u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos);
    Ok(Some(asked.map_or(most, |asked| asked.min(most))))
}

/// What an answer that is made as it is sent says of its size.
fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `Warning: 299 - "text"`, one for each.
fn warn(cx: &Context, headers: &mut HeaderMap) {
    let warnings = cx.warnings();
    let mut told = validation::Told::default();
    warnings.iter().for_each(|warning| {
        told.takes(warning);
    });
    let most = if told.cuts() { validation::Told::EACH } else { usize::MAX };
    for warning in warnings {
        let mut text = String::with_capacity(warning.len() + 10);
        text.push_str("299 - \"");
        for c in warning.chars().take(most) {
            match c {
                '"' | '\\' => {
                    text.push('\\');
                    text.push(c);
                }
                c if c.is_control() => text.push(' '),
                c => text.push(c),
            }
        }
        text.push('"');
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            headers.append(WARNING, value);
        }
    }
}

/// How long a request waited for a seat: an extension of its answer, until that is measured.
#[derive(Clone, Copy)]
struct Waited(Duration);

/// The server defended itself: an extension of its answer, likewise.
#[derive(Clone, Copy)]
struct Terminated;

/// The server itself asked: likewise.
#[derive(Clone, Copy)]
struct Own;

/// The handling of a request panicked, and what was said then: an extension of its answer, until that is recorded and counted.
#[derive(Clone)]
struct Panicked(Arc<str>);

/// Upstream says it in plain text.
fn too_many_requests(refused: &Refused) -> Response<Body> {
    let mut response = plain(StatusCode::TOO_MANY_REQUESTS, Refused::TEXT);
    response.extensions_mut().insert(Terminated);
    response.headers_mut().insert(http::header::RETRY_AFTER, refused.retry_after());
    refused.marks.add(response.headers_mut());
    response
}

/// What is told of a request that must not be served unrecorded.
fn not_recorded(parts: &Parts) -> Response<Body> {
    let uri = api::field::go_quote(&parts.uri.to_string());
    let uri = uri.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let why = format!("Internal Server Error: {uri}: failed to store audit event\n");
    tracing::error!(path = parts.uri.path(), "a request is refused: its audit event could not be stored");
    plain(StatusCode::INTERNAL_SERVER_ERROR, why)
}

/// For the mux and others that answer in plain text.
pub(super) fn plain(code: StatusCode, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
