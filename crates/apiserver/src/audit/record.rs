//! One request being recorded: what is noted of it, and when that is told.

use super::event::{complete, new_event, refer, shorten, user_map, without_objects};
use super::policy::{Level, Stage, Verdict};
use super::sink::{Handed, Place};
use super::{Audit, AuditId, Out, object};
use crate::authn::Peer;
use crate::authn::impersonation::Acting;
use crate::context::Context;
use crate::http::{Body, Response, Witness};
use crate::request::RequestInfo;
use crate::user::UserInfo;
use api::Status;
use http::header::USER_AGENT;
use jiff::Timestamp;
use schema::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Of a header that anybody may send as long as he likes, so much is noted, as upstream does of the user agent.
const MAX_HEADER: usize = 1024;

/// An event could not be stored, and its request must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotStored;

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
    /// Records a request that is refused before it is known who asks: once, and why (see [`unauthenticated`](super::unauthenticated)).
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
