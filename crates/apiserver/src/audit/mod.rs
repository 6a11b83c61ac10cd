//! The audit log: who asked for what and what came of it, as the policy says, a JSON object a line.

mod object;
mod policy;
mod rotation;
mod sink;

pub(crate) use object::of_patch;
pub use policy::{Level, Policy, PolicyError, Stage};
pub use rotation::Rotation;
use sink::Place;
pub use sink::{Batch, Handed, Lost, Mode, Sink, SinkError, Throttle};

use crate::authn::Peer;
use crate::authn::impersonation::Acting;
use crate::context::{Context, Reference};
use crate::http::{Body, Response, Witness};
use crate::measure::{head, series};
use crate::request::{RequestInfo, parameter};
use crate::user::UserInfo;
use api::Status;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, USER_AGENT};
use jiff::Timestamp;
use policy::Verdict;
use schema::{Map, Value};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Of a header that anybody may send as long as he likes, so much is noted, as upstream does of the user agent.
const MAX_HEADER: usize = 1024;

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

/// Of an event that had to be cut.
const TRUNCATED: &str = "audit.k8s.io/truncated";

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

/// An event could not be stored, and its request must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotStored;

/// What is counted of it.
#[derive(Debug, Default)]
pub struct Counts {
    events: AtomicU64,
    /// Those that were not written; the sink counts its own.
    lost: Arc<Lost>,
    /// Requests that were refused because their events could not be stored.
    rejected: AtomicU64,
    /// Requests by the level that the policy gave them.
    levels: [AtomicU64; 4],
}

const LEVELS: [Level; 4] = [Level::Metadata, Level::None, Level::Request, Level::RequestResponse];

impl Counts {
    fn level(&self, level: Level) {
        let place = LEVELS.iter().zip(&self.levels).find(|(own, _)| **own == level);
        place.map(|(_, count)| count.fetch_add(1, Ordering::Relaxed));
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn render(&self, out: &mut String) -> fmt::Result {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let name = "apiserver_audit_event_total";
        head(out, name, "counter", "[ALPHA] Counter of audit events generated and sent to the audit backend.")?;
        series(out, name, "", number(&self.events))?;
        let name = "apiserver_audit_error_total";
        head(
            out,
            name,
            "counter",
            "[ALPHA] Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.",
        )?;
        let Lost { log, buffered, truncate, .. } = &*self.lost;
        for (plugin, lost) in [("buffered", buffered), ("log", log), ("truncate", truncate)] {
            if number(lost) > 0 {
                series(out, name, &format!("plugin=\"{plugin}\""), number(lost))?;
            }
        }
        let name = "apiserver_audit_level_total";
        head(out, name, "counter", "[ALPHA] Counter of policy levels for audit events (1 per request).")?;
        for (level, count) in LEVELS.iter().zip(&self.levels).filter(|(_, count)| number(count) > 0) {
            series(out, name, &format!("level=\"{}\"", level.as_str()), number(count))?;
        }
        let name = "apiserver_audit_requests_rejected_total";
        head(
            out,
            name,
            "counter",
            "[ALPHA] Counter of apiserver requests rejected due to an error in audit logging backend.",
        )?;
        series(out, name, "", number(&self.rejected))
    }
}

/// One request being recorded. When it is dropped, what is still to be told of it is told: its client may have left, and what it
/// asked for may have been done all the same.
pub struct Record {
    verdict: Verdict,
    /// What is still to be told after it was received, in this order, or how it ended otherwise.
    untold: &'static [Stage],
    /// What it was answered. `None`: nothing yet.
    code: Option<u16>,
    /// Kept for its end.
    place: Option<Place>,
    /// The largest line, with its end.
    largest: usize,
    out: Arc<Out>,
    event: Map,
    long_running: bool,
    /// Whether its answer may be a `Status` though it went well.
    told_by_status: bool,
    context: Option<Context>,
}

impl Audit {
    pub fn new(policy: Policy, sink: Sink) -> Self {
        let counts = Counts { lost: sink.lost().clone(), ..Counts::default() };
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

    /// Records a request that is refused before it is known who asks: once, and why (see [`unauthenticated`]).
    pub fn refused(
        &self,
        request: &http::request::Parts,
        info: &RequestInfo,
        peer: Option<&Peer>,
        received: Timestamp,
        code: u16,
        why: &str,
    ) {
        if let Some(mut record) = self.record(request, info, &UserInfo::default(), peer, received) {
            record.untold = &[];
            record.code = Some(code);
            record.event.set_at(&["responseStatus", "message"], why);
            // Who is not known must not make others wait.
            record.offer(Stage::ResponseStarted, None);
        }
    }

    /// The record of a request, which has to [begin](Record::begin) before anything is done; `None` when the policy wants none of
    /// it.
    pub fn record(
        &self,
        request: &http::request::Parts,
        info: &RequestInfo,
        user: &UserInfo,
        peer: Option<&Peer>,
        received: Timestamp,
    ) -> Option<Record> {
        let verdict = self.policy.verdict(info, user);
        self.out.counts.level(verdict.level);
        if verdict.level == Level::None {
            return None;
        }
        let mut event = new_event(verdict.level, info, user, received);
        let id = request.extensions.get::<AuditId>().cloned();
        let id = id.unwrap_or_else(|| AuditId::of(&request.headers));
        event.insert("auditID", &*String::from_utf8_lossy(id.0.as_bytes()));
        event.insert("requestURI", request.uri.path_and_query().map_or("", |p| p.as_str()));
        let forwarded = request.headers.get("x-forwarded-for").and_then(|v| v.to_str().ok()).unwrap_or_default();
        // Whole addresses only.
        let forwarded = match forwarded.get(..MAX_HEADER) {
            Some(begin) if forwarded.len() > MAX_HEADER => begin.rsplit_once(',').map_or("", |(whole, _)| whole),
            _ => forwarded,
        };
        let mut sources: Vec<Value> =
            forwarded.split(',').map(str::trim).filter(|s| !s.is_empty()).map(Value::from).collect();
        sources.extend(peer.map(|p| Value::from(p.address.ip().to_string())));
        if !sources.is_empty() {
            event.insert("sourceIPs", sources);
        }
        if let Some(agent) = request.headers.get(USER_AGENT).and_then(|v| v.to_str().ok()) {
            match agent.get(..MAX_HEADER) {
                Some(begin) if agent.len() > MAX_HEADER => event.insert("userAgent", [begin, "...TRUNCATED"].concat()),
                _ => event.insert("userAgent", agent),
            };
        }
        let long_running = info.long_running();
        Some(Record {
            verdict,
            untold: if long_running {
                &[Stage::ResponseStarted, Stage::ResponseComplete]
            } else {
                &[Stage::ResponseComplete]
            },
            code: None,
            place: None,
            largest: self.largest,
            out: self.out.clone(),
            event,
            long_running,
            told_by_status: matches!(info.verb.as_str(), "delete" | "deletecollection")
                || info.verb == "create" && !info.subresource.is_empty(),
            context: None,
        })
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

/// What is known of every request.
fn new_event(level: Level, info: &RequestInfo, user: &UserInfo, received: Timestamp) -> Map {
    let mut event = Map::new();
    event.insert("kind", "Event");
    event.insert("apiVersion", "audit.k8s.io/v1");
    event.insert("level", level.as_str());
    event.insert("verb", info.verb.as_str());
    event.insert("user", user_map(user));
    if info.is_resource {
        event.insert("objectRef", object_ref(info));
    }
    event.insert("requestReceivedTimestamp", micro(received));
    event
}

/// Adds what a stage tells.
fn complete(event: &mut Map, stage: Stage, at: Timestamp, code: Option<u16>, annotations: Vec<(String, String)>) {
    event.insert("stage", stage.as_str());
    let received = (stage == Stage::RequestReceived).then(|| event.get("requestReceivedTimestamp").cloned()).flatten();
    event.insert("stageTimestamp", received.unwrap_or_else(|| micro(at).into()));
    if let Some(code) = code {
        // What the answer says of itself is there already, if it is a `Status`.
        event.set_at(&["responseStatus", "metadata"], Map::new());
        event.set_at(&["responseStatus", "code"], i64::from(code));
    }
    if !annotations.is_empty() {
        let map: Map = annotations.into_iter().map(|(k, v)| (k.into(), Value::from(v))).collect();
        event.insert("annotations", map);
    }
}

/// What remains of an event that has to fit [`Place::END`]: its shape, and the beginnings of its texts.
fn shorten(event: &mut Map) {
    const TEXT: usize = 128;
    const ITEMS: usize = 4;
    fn cut(value: &mut Value) {
        match value {
            Value::Map(map) => {
                map.remove("extra");
                map.iter_mut().for_each(|(_, value)| cut(value));
            }
            Value::List(list) => {
                list.truncate(ITEMS);
                list.iter_mut().for_each(cut);
            }
            other => {
                if let Some(text) = other.as_str().filter(|text| text.len() > TEXT) {
                    *other = [&text[..text.floor_char_boundary(TEXT)], "...TRUNCATED"].concat().into();
                }
            }
        }
    }
    event.remove("annotations");
    event.iter_mut().for_each(|(_, value)| cut(value));
}

/// Takes the objects out of an event, and says so.
fn without_objects(event: &mut Map) {
    event.remove("requestObject");
    event.remove("responseObject");
    event.set_at(&["annotations", TRUNCATED], "true");
}

impl Record {
    /// Waits until it is recorded that the request was received and there is room to record its end, as far as the mode of the
    /// log wants that. Nothing may be done for the request before.
    ///
    /// # Errors
    /// It could not be stored that it was received, and that matters.
    pub async fn begin(&mut self) -> Result<(), NotStored> {
        self.place = self.out.sink.keep(self.long_running).await;
        if self.emit(Stage::RequestReceived).await.may_go_on().await {
            return Ok(());
        }
        self.untold = &[];
        self.out.counts.rejected.fetch_add(1, Ordering::Relaxed);
        Err(NotStored)
    }

    /// Notes as whom the request goes on.
    pub fn impersonated(&mut self, acting: &Acting) {
        self.event.insert("impersonatedUser", user_map(&acting.user));
        if !acting.constraint.is_empty() {
            self.event.set_at(&["authenticationMetadata", "impersonationConstraint"], acting.constraint);
        }
    }

    /// Notes the context, which is told the object of the request, and annotations, until the end.
    pub fn with(&mut self, context: &Context) {
        context.want_reference(self.verdict.level >= Level::Request);
        self.context = Some(context.clone());
    }

    /// An object as the policy lets it be recorded.
    fn shown(&self, mut object: Value) -> Value {
        if self.verdict.omit_managed_fields {
            object::omit_managed_fields(&mut object);
        }
        object
    }

    /// Notes what the answer says: all of it if that is wanted, and of a `Status` the status in any case. A list is made for that,
    /// which may panic.
    pub fn note(&mut self, response: Response<Body>) -> Response<Body> {
        let wanted = self.verdict.level == Level::RequestResponse;
        if !wanted && response.status().as_u16() < 400 && !self.told_by_status {
            return response;
        }
        let (parts, body) = response.into_parts();
        let (body, bytes) = body.gathered(object::LARGEST);
        if let Some(answer) = bytes.and_then(|bytes| object::of_answer(&parts.headers, &bytes)) {
            if let Some(status) = object::status(&answer) {
                self.event.insert("responseStatus", status);
            }
            if wanted {
                let answer = self.shown(answer);
                self.event.insert("responseObject", answer);
            }
        }
        Response::from_parts(parts, body)
    }

    /// Sees to it that the end of the answer is recorded: when its body has been sent, or given up. Waits until it is recorded
    /// that it begins.
    pub async fn finish(mut self, response: Response<Body>) -> Response<Body> {
        self.code = Some(response.status().as_u16());
        let [stage, rest @ ..] = self.untold else { return response };
        let handed = self.emit(*stage).await;
        self.untold = rest;
        let response = if rest.is_empty() {
            drop(self);
            response
        } else {
            // What was told to have begun may last, and others need the place.
            if self.wants(*stage) {
                self.place = None;
            }
            response.map(|body| body.witnessed(self))
        };
        // What is answered already can't be refused.
        handed.may_go_on().await;
        response
    }

    /// Sees to it that it is recorded that what was done for the request panicked, which is the end of it; waits until it is.
    pub async fn panicked(mut self, why: &str) {
        Witness::panicked(&mut self, why);
        let handed = self.emit(Stage::Panic).await;
        self.untold = &[];
        drop(self);
        handed.may_go_on().await;
    }

    fn wants(&self, stage: Stage) -> bool {
        !self.verdict.omit.iter().any(|omitted| omitted == stage.as_str())
    }

    /// The line of a stage. `None`: there is none to be written, which is counted if it should have been.
    fn text(&self, stage: Stage, at: Timestamp) -> Option<Vec<u8>> {
        if !self.wants(stage) {
            return None;
        }
        let mut event = self.told(stage, at);
        let mut line = schema::json::to_string(&event);
        if line.len() >= self.largest && self.verdict.level >= Level::Request {
            without_objects(&mut event);
            line = schema::json::to_string(&event);
        }
        self.fitting(line, self.largest)
    }

    /// The same of an end for which no more room is left than was kept for it.
    fn short(&self, stage: Stage, at: Timestamp) -> Option<Vec<u8>> {
        let mut event = self.told(stage, at);
        without_objects(&mut event);
        let mut line = schema::json::to_string(&event);
        if line.len() > Place::END {
            shorten(&mut event);
            without_objects(&mut event);
            line = schema::json::to_string(&event);
        }
        self.fitting(line, self.largest.min(Place::END + 1))
    }

    /// A line that is smaller than a limit; any other is lost.
    fn fitting(&self, line: String, limit: usize) -> Option<Vec<u8>> {
        if line.len() < limit {
            return Some(line.into_bytes());
        }
        self.out.counts.events.fetch_add(1, Ordering::Relaxed);
        let lost = &self.out.counts.lost;
        lost.count(&lost.truncate, &"one is too large even without its objects");
        None
    }

    /// The event of a stage.
    fn told(&self, stage: Stage, at: Timestamp) -> Map {
        let mut event = self.event.clone();
        let annotations = self.context.as_ref().map(Context::annotations).unwrap_or_default();
        if let Some(reference) = self.context.as_ref().and_then(Context::reference) {
            refer(&mut event, &reference);
            if let Some(object) = reference.object {
                event.insert("requestObject", self.shown(object));
            }
        }
        complete(&mut event, stage, at, self.code, annotations);
        event
    }

    fn write(&self, text: Vec<u8>, place: Option<Place>) -> Handed {
        self.out.counts.events.fetch_add(1, Ordering::Relaxed);
        self.out.sink.write(text, place)
    }

    /// Hands the line of a stage over. While that waits for room, it is not held in memory.
    async fn emit(&self, stage: Stage) -> Handed {
        let at = Timestamp::now();
        let Some(text) = self.text(stage, at) else { return Handed::AWAY };
        let size = text.len();
        if let Some(place) = self.out.sink.free(size) {
            return self.write(text, Some(place));
        }
        drop(text);
        let place = self.out.sink.room(size).await;
        self.text(stage, at).map_or(Handed::AWAY, |text| self.write(text, place))
    }

    /// Hands the line of a stage over if there is room, or was `kept` for it, else it is lost.
    fn offer(&self, stage: Stage, kept: Option<Place>) {
        let at = Timestamp::now();
        let Some(text) = self.text(stage, at) else { return };
        let handed = match (self.out.sink.free(text.len()), kept) {
            (None, Some(kept)) if text.len() > Place::END => {
                self.short(stage, at).map(|text| self.write(text, Some(kept)))
            }
            (free, kept) => Some(self.write(text, free.or(kept))),
        };
        // Nobody is left to wait.
        drop(handed);
    }
}

impl Witness for Record {
    fn panicked(&mut self, why: &str) {
        self.untold = &[Stage::Panic];
        self.code = Some(500);
        let mut status = Map::new();
        status.insert("status", "Failure");
        status.insert("message", format!("APIServer panic'd: {why}"));
        status.insert("reason", "InternalError");
        self.event.insert("responseStatus", status);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let untold = std::mem::take(&mut self.untold);
        if self.code.is_none() && !untold.is_empty() {
            // What upstream's handlers answer to nobody when they find that their client has left.
            let gone = Status::timeout("request did not complete within requested timeout - context canceled", 0);
            self.code = Some(gone.code);
            let answer = schema::json::parse(&gone.to_json()).ok();
            if let Some(status) = answer.as_ref().and_then(object::status) {
                self.event.insert("responseStatus", status);
            }
        }
        for (i, stage) in untold.iter().enumerate() {
            let kept = if i + 1 == untold.len() { self.place.take() } else { None };
            self.offer(*stage, kept);
        }
    }
}

fn micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn object_ref(info: &RequestInfo) -> Map {
    let mut map = Map::new();
    for (key, value) in [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", &info.subresource),
    ] {
        if !value.is_empty() {
            map.insert(key, value.as_str());
        }
    }
    map
}

/// Completes the reference of an event with what the object of the request says of itself.
fn refer(event: &mut Map, reference: &Reference) {
    for (key, value) in [
        ("namespace", &reference.namespace),
        ("name", &reference.name),
        ("uid", &reference.uid),
        ("resourceVersion", &reference.resource_version),
    ] {
        if !value.is_empty() && event.str_at(&["objectRef", key]).is_empty() {
            event.set_at(&["objectRef", key], value.as_str());
        }
    }
}

fn user_map(user: &UserInfo) -> Map {
    let list = |items: &[String]| Value::List(items.iter().map(|s| Value::from(s.as_str())).collect());
    let mut map = Map::new();
    if !user.name.is_empty() {
        map.insert("username", user.name.as_str());
    }
    if !user.uid.is_empty() {
        map.insert("uid", user.uid.as_str());
    }
    if !user.groups.is_empty() {
        map.insert("groups", list(&user.groups));
    }
    if !user.extra.is_empty() {
        map.insert("extra", user.extra.iter().map(|(k, v)| (k.clone().into(), list(v))).collect::<Map>());
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn read(path: &std::path::Path, lines: usize) -> Vec<Map> {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let text = std::fs::read_to_string(path).expect("the log");
            let found: Vec<Map> = text
                .lines()
                .filter_map(|l| schema::json::parse(l.as_bytes()).ok())
                .filter_map(|v| v.as_map().cloned())
                .collect();
            if found.len() >= lines {
                return found;
            }
            assert!(std::time::Instant::now() < deadline, "only {} lines", found.len());
            std::thread::yield_now();
        }
    }

    /// A log of its own, as a policy of these rules and stages that are left out wants it.
    struct Log {
        audit: Audit,
        path: std::path::PathBuf,
        _directory: tempfile::TempDir,
    }

    impl Log {
        fn of(omitted: &str, rules: &str) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            // Its directory is made, too.
            let path = directory.path().join("none/yet/audit.log");
            let policy =
                format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [{omitted}], rules: [{rules}]}}");
            let policy = Policy::parse(policy.as_bytes()).expect("a policy");
            let sink = Sink::open(&path, Rotation::default(), Mode::Blocking).expect("a sink");
            Log { audit: Audit::new(policy, sink), path, _directory: directory }
        }

        /// The same of requests that are over, at a level.
        fn at(level: &str) -> Self {
            Self::of("RequestReceived", &format!("{{level: {level}}}"))
        }

        fn truncating(self, largest: usize) -> Self {
            Log { audit: self.audit.truncating(largest), ..self }
        }

        /// Begins the record of a request of jane's.
        async fn begin(&self, method: &str, target: &str) -> (Record, Context) {
            let request = http::Request::builder().method(method).uri(target).header(USER_AGENT, "kubectl/v1");
            let (mut parts, ()) = request.body(()).expect("a request").into_parts();
            parts.extensions.insert(AuditId(HeaderValue::from_static("mine")));
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let info = RequestInfo::parse(method, path, query).expect("a path");
            let user = UserInfo::new("jane", ["devs"]);
            let mut record = self.audit.record(&parts, &info, &user, None, Timestamp::now()).expect("recorded");
            record.begin().await.expect("stored");
            let context = Context::new(Arc::new(user), "kubectl", Timestamp::now());
            record.with(&context);
            (record, context)
        }

        fn events(&self, lines: usize) -> Vec<Map> {
            read(&self.path, lines)
        }
    }

    /// What becomes of a request that is answered.
    async fn finish(mut record: Record, response: Response<Body>) -> Response<Body> {
        let response = record.note(response);
        record.finish(response).await
    }

    #[tokio::test]
    async fn a_request_is_recorded_with_what_the_policy_wants() {
        let log = Log::at("RequestResponse");
        let (record, context) = log.begin("POST", "/api/v1/namespaces/a/configmaps").await;
        context.annotate("authorization.k8s.io/decision", "allow");
        context.refer(&crate::test_support::map("{metadata: {name: x, uid: u}}"), "v1", "ConfigMap");
        let mut response = Response::new(Body::from(r#"{"kind":"ConfigMap"}"#));
        *response.status_mut() = http::StatusCode::CREATED;
        drop(finish(record, response).await);
        let events = log.events(1);
        let event = &events[0];
        assert_eq!(event.str_at(&["auditID"]), "mine");
        assert_eq!(event.str_at(&["stage"]), "ResponseComplete");
        assert_eq!(event.str_at(&["user", "username"]), "jane");
        assert_eq!(event.str_at(&["objectRef", "resource"]), "configmaps");
        assert_eq!(event.str_at(&["objectRef", "name"]), "x");
        assert_eq!(event.str_at(&["objectRef", "uid"]), "u");
        assert_eq!(event.at(&["responseStatus", "code"]), Some(&Value::Int(201)));
        assert_eq!(event.str_at(&["requestObject", "metadata", "name"]), "x");
        assert_eq!(event.str_at(&["responseObject", "kind"]), "ConfigMap");
        assert_eq!(event.str_at(&["annotations", "authorization.k8s.io/decision"]), "allow");
    }

    #[tokio::test]
    async fn what_is_sent_that_is_no_object_is_recorded_as_it_is() {
        let log = Log::at("Request");
        let (record, context) = log.begin("PATCH", "/api/v1/namespaces/a/configmaps/x").await;
        context.refer_to(|| Some(crate::test_support::tree("[{op: remove, path: /data}]")));
        drop(finish(record, Response::new(Body::from("{}"))).await);
        let events = log.events(1);
        let patch = events[0].get("requestObject").and_then(Value::as_list).expect("a list");
        assert_eq!(patch[0].as_map().expect("an operation").str_at(&["op"]), "remove");
        // Nobody makes what nobody wants.
        let log = Log::at("Metadata");
        let (record, context) = log.begin("PATCH", "/api/v1/namespaces/a/configmaps/x").await;
        context.refer_to(|| panic!("made"));
        drop(finish(record, Response::new(Body::from("{}"))).await);
        assert!(log.events(1)[0].get("requestObject").is_none());
    }

    #[tokio::test]
    async fn an_event_that_is_too_large_loses_its_objects_or_is_lost() {
        let send = async |log: &Log, target: &str| {
            let (record, context) = log.begin("POST", target).await;
            let data = "x".repeat(2000);
            let object = crate::test_support::map(&format!("{{metadata: {{name: x}}, data: {{a: {data}}}}}"));
            context.refer(&object, "v1", "ConfigMap");
            drop(finish(record, Response::new(Body::from("{}"))).await);
        };
        let target = "/api/v1/namespaces/a/configmaps";
        let log = Log::at("Request").truncating(2000);
        send(&log, target).await;
        // Even what is left of it is too large here.
        send(&log, &format!("{target}?fieldManager={}", "m".repeat(2000))).await;
        send(&log, target).await;
        for event in log.events(2) {
            assert_eq!(event.str_at(&["annotations", "audit.k8s.io/truncated"]), "true");
            assert!(event.get("requestObject").is_none());
            assert_eq!(event.str_at(&["objectRef", "name"]), "x");
        }
        let mut counts = String::new();
        log.audit.counts().render(&mut counts).expect("rendered");
        assert!(counts.contains("apiserver_audit_error_total{plugin=\"truncate\"} 1\n"), "{counts}");
        assert!(counts.contains("apiserver_audit_event_total 3\n"), "{counts}");
        // A level that has no objects has none to lose.
        let log = Log::at("Metadata").truncating(10);
        send(&log, target).await;
        let mut counts = String::new();
        log.audit.counts().render(&mut counts).expect("rendered");
        assert!(counts.contains("apiserver_audit_error_total{plugin=\"truncate\"} 1\n"), "{counts}");
        let log = Log::at("Request");
        send(&log, target).await;
        assert_eq!(log.events(1)[0].str_at(&["requestObject", "kind"]), "ConfigMap");
        assert!(log.events(1)[0].at(&["annotations"]).is_none());
    }

    #[tokio::test]
    async fn who_is_strict_refuses_what_cannot_be_recorded() {
        let full = std::path::Path::new("/dev/full");
        if !full.exists() {
            return;
        }
        for (mode, stored) in [(Mode::BlockingStrict, false), (Mode::Blocking, true)] {
            let sink = Sink::open(full, Rotation::default(), mode).expect("it opens");
            let audit = Audit::new(Policy::metadata(), sink);
            let (parts, ()) = http::Request::get("/api/v1/pods").body(()).expect("a request").into_parts();
            let info = RequestInfo::parse("GET", "/api/v1/pods", "").expect("a path");
            let mut record =
                audit.record(&parts, &info, &UserInfo::anonymous(), None, Timestamp::now()).expect("recorded");
            assert_eq!(record.begin().await.is_ok(), stored, "{mode:?}");
            drop(record);
            let mut counts = String::new();
            audit.counts().render(&mut counts).expect("rendered");
            let events = format!("apiserver_audit_event_total {}\n", 1 + u8::from(stored));
            assert!(counts.contains(&events), "what is refused has no end: {counts}");
            let rejected = format!("apiserver_audit_requests_rejected_total {}\n", u8::from(!stored));
            assert!(counts.contains(&rejected), "{counts}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_a_status_says_what_came_of_it() {
        let log = Log::at("Metadata");
        let target = "/api/v1/namespaces/a/pods/b";
        let view = crate::http::media::View::for_error(&HeaderMap::new(), "");
        let status = Status::not_found(&api::GroupResource::new("", "pods"), "b");
        let gone = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"b","kind":"pods","uid":"u"}}"#;
        let answers = [
            ("GET", crate::http::answer::refusal(&status, view)),
            ("DELETE", Response::new(Body::from(gone))),
            ("GET", Response::new(Body::from(gone))),
        ];
        for (method, answer) in answers {
            drop(finish(log.begin(method, target).await.0, answer).await);
        }
        let events = log.events(3);
        let told = |event: &Map, key| event.str_at(&["responseStatus", key]).to_owned();
        assert_eq!(told(&events[0], "message"), "pods \"b\" not found");
        assert_eq!(told(&events[0], "reason"), "NotFound");
        assert_eq!(events[0].str_at(&["responseStatus", "details", "kind"]), "pods");
        assert_eq!(told(&events[1], "status"), "Success");
        assert_eq!(events[1].str_at(&["responseStatus", "details", "uid"]), "u");
        assert_eq!(told(&events[2], "status"), "", "what a read shows is not looked at");
        assert!(events.iter().all(|event| event.get("responseObject").is_none()));
    }

    #[test]
    fn who_is_not_known_is_recorded_once_with_what_it_tried() {
        let log = Log::of("", "{level: None, users: [jane]}, {level: Metadata}");
        let info = RequestInfo::parse("GET", "/api/v1/pods", "").expect("a path");
        let cases = [
            (None, "/api/v1/pods", "Authentication failed, no credentials provided"),
            (Some("Bearer x"), "/api/v1/pods", "Authentication failed, attempted: bearer"),
            (Some("basic YTpi"), "/api/v1/pods", "Authentication failed, attempted: basic"),
            (Some("basic ?"), "/api/v1/pods?access_token=x", "Authentication failed, attempted: access_token"),
        ];
        for (credentials, target, why) in cases {
            let mut request = http::Request::get(target);
            if let Some(credentials) = credentials {
                request = request.header(AUTHORIZATION, credentials);
            }
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            let told = unauthenticated(&parts, None);
            assert_eq!(told, why);
            log.audit.refused(&parts, &info, None, Timestamp::now(), 401, &told);
        }
        let events = log.events(cases.len());
        assert_eq!(events.len(), cases.len(), "each once");
        for (event, (.., why)) in events.iter().zip(cases) {
            assert_eq!(event.str_at(&["stage"]), "ResponseStarted");
            assert_eq!(event.get("user"), Some(&Value::Map(Map::new())));
            assert_eq!(event.at(&["responseStatus", "code"]), Some(&Value::Int(401)));
            assert_eq!(event.str_at(&["responseStatus", "message"]), why);
            assert_eq!(event.str_at(&["objectRef", "resource"]), "pods");
        }
    }

    #[tokio::test]
    async fn a_watch_is_recorded_when_it_begins_and_when_it_ends() {
        let log = Log::of("", "{level: Metadata}");
        let (record, _) = log.begin("GET", "/api/v1/pods?watch=1").await;
        let response = finish(record, Response::new(Body::from("x"))).await;
        assert_eq!(log.events(2).len(), 2, "received and started");
        drop(response);
        let stages: Vec<String> = log.events(3).iter().map(|e| e.str_at(&["stage"]).to_owned()).collect();
        assert_eq!(stages, ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
        let received = &log.events(3)[0];
        assert_eq!(received.get("stageTimestamp"), received.get("requestReceivedTimestamp"));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_recorded_all_the_same() {
        let log = Log::at("Request");
        let (record, context) = log.begin("DELETE", "/api/v1/namespaces/a/configmaps/x").await;
        context.annotate("authorization.k8s.io/decision", "allow");
        context.refer_to(|| Some(crate::test_support::tree("{kind: DeleteOptions}")));
        drop(record);
        // Who leaves while the answer waits to be recorded was answered.
        let (record, _) = log.begin("DELETE", "/api/v1/namespaces/a/configmaps/x").await;
        let full = log.audit.out.sink.room(usize::MAX).await;
        assert!(finish(record, Response::new(Body::from("{}"))).now_or_never().is_none());
        drop(full);
        let events = log.events(2);
        let status = |event: &Map, key| event.str_at(&["responseStatus", key]).to_owned();
        assert_eq!(events[0].str_at(&["stage"]), "ResponseComplete");
        assert_eq!(events[0].at(&["responseStatus", "code"]), Some(&Value::Int(504)));
        assert_eq!(status(&events[0], "reason"), "Timeout");
        let why = "Timeout: request did not complete within requested timeout - context canceled";
        assert_eq!((status(&events[0], "status"), status(&events[0], "message")), ("Failure".into(), why.into()));
        assert_eq!(events[0].str_at(&["annotations", "authorization.k8s.io/decision"]), "allow");
        assert_eq!(events[0].str_at(&["requestObject", "kind"]), "DeleteOptions");
        assert_eq!(events[1].at(&["responseStatus", "code"]), Some(&Value::Int(200)));
        assert_eq!(events[1].str_at(&["stage"]), "ResponseComplete");
        // What lasts begins and ends.
        drop(log.begin("GET", "/api/v1/pods?watch=1").await);
        let stages: Vec<_> = log.events(4)[2..].iter().map(|event| event.str_at(&["stage"]).to_owned()).collect();
        assert_eq!(stages, ["ResponseStarted", "ResponseComplete"]);
    }

    #[tokio::test]
    async fn an_answer_that_panics_after_it_has_begun_is_recorded() {
        use http_body_util::BodyExt;
        for (omitted, expected) in [
            ("", &["RequestReceived", "ResponseStarted", "Panic"][..]),
            ("RequestReceived, Panic", &["ResponseStarted"]),
        ] {
            let log = Log::of(omitted, "{level: Metadata}");
            let (record, _) = log.begin("GET", "/api/v1/pods?watch=1").await;
            let body = Body::pieces(std::iter::from_fn(|| panic!("no piece")));
            let mut response = finish(record, Response::new(body)).await;
            assert!(response.body_mut().frame().await.expect("an end").is_err());
            drop(response);
            assert!(log.audit.out.sink.close(Duration::from_secs(20)).await);
            let events = log.events(expected.len());
            let stages: Vec<_> = events.iter().map(|event| event.str_at(&["stage"])).collect();
            assert_eq!(stages, expected);
            if let Some(panicked) = events.iter().find(|event| event.str_at(&["stage"]) == "Panic") {
                assert_eq!(panicked.str_at(&["responseStatus", "message"]), "APIServer panic'd: no piece");
                assert_eq!(panicked.at(&["responseStatus", "code"]), Some(&Value::Int(500)));
            }
        }
    }

    #[tokio::test]
    async fn an_end_without_other_room_takes_what_was_kept_for_it() {
        let log = Log::at("Request");
        let target = format!("/api/v1/namespaces/a/configmaps?fieldManager={}", "m".repeat(20_000));
        let (record, context) = log.begin("POST", &target).await;
        let data = "x".repeat(20_000);
        context.refer(
            &crate::test_support::map(&format!("{{metadata: {{name: x}}, data: {{a: {data}}}}}")),
            "v1",
            "ConfigMap",
        );
        // A line that never fits takes all.
        let sink = &log.audit.out.sink;
        let full = sink.free(usize::MAX).expect("all of it");
        assert!(sink.free(1).is_none());
        drop(record);
        let event = &log.events(1)[0];
        assert_eq!(event.str_at(&["annotations", TRUNCATED]), "true");
        assert_eq!((event.str_at(&["auditID"]), event.str_at(&["verb"])), ("mine", "create"));
        assert_eq!((event.str_at(&["user", "username"]), event.str_at(&["objectRef", "name"])), ("jane", "x"));
        assert!(event.str_at(&["requestURI"]).ends_with("...TRUNCATED"));
        assert_eq!(event.at(&["responseStatus", "code"]), Some(&Value::Int(504)));
        drop(full);
        // Nothing is done for who has to wait until it is recorded that he came, and whether he stays is recorded, too.
        let log = Log::of("", "{level: Metadata}");
        let full = log.audit.out.sink.free(usize::MAX).expect("room");
        assert!(log.begin("GET", "/api/v1/pods").now_or_never().is_none());
        assert_eq!(log.events(1)[0].str_at(&["stage"]), "ResponseComplete");
        drop(full);
        drop(log.begin("GET", "/api/v1/pods").await);
        let stages: Vec<_> = log.events(3).iter().map(|event| event.str_at(&["stage"]).to_owned()).collect();
        assert_eq!(stages, ["ResponseComplete", "RequestReceived", "ResponseComplete"]);
    }
}
