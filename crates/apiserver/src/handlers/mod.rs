//! From a request for a resource to the registry and back: one path for every kind.

mod past;
mod read;
mod subresource;
mod write;

use crate::context::Context;
use crate::flowcontrol::Place;
use crate::http::media::View;
use crate::http::{Body, RequestBody, Response};
use crate::measure::HeldGauge;
use crate::registry::{Registry, Served, Target};
use crate::request::{RequestInfo, unescape_path};
use api::Status;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Method};
use schema::resource::Verbs;
use std::sync::Arc;
use std::time::Duration;

/// A request for a resource, authorized.
pub struct Call {
    pub cx: Context,
    pub info: Arc<RequestInfo>,
    pub method: Method,
    pub query: String,
    /// The whole request's head, for those who take it over.
    pub parts: http::request::Parts,
    pub body: RequestBody,
    /// Bounds how long a watch may last.
    pub watch_timeout: Duration,
    /// What it holds until it is answered, and a watch beyond that.
    pub place: Place,
}

impl Call {
    fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The name in the path (a field selector's is not).
    fn name(&self) -> &str {
        self.info.parts.get(1).map_or("", String::as_str)
    }

    fn namespace(&self, served: &Served) -> &str {
        if served.resource.namespaced { &self.info.namespace } else { "" }
    }

    fn view(&self, shapes: bool, watch: bool) -> Result<View, Status> {
        View::of(self.headers(), &self.query, shapes, watch)
    }
}

/// A request that lasts as long as its client likes is counted while any of this is left: an extension of it, for those who
/// go on with it after it was answered.
#[derive(Clone, Debug)]
pub struct LongRunning(pub Arc<HeldGauge>);

/// What is answered when nothing is served at a path: with a `Status` where the version is served, otherwise without.
pub enum NotServed {
    Path,
    Refused(Status),
}

impl From<Status> for NotServed {
    fn from(status: Status) -> Self {
        NotServed::Refused(status)
    }
}

/// Answers a request for a resource.
///
/// # Errors
/// [`NotServed::Path`] when nothing is there, the refusal otherwise.
pub async fn handle(registry: &Arc<Registry>, call: Call) -> Result<Response<Body>, NotServed> {
    let info = call.info.clone();
    let served = registry.served(&info.group, &info.version, &info.resource).ok_or(NotServed::Path)?;
    let row = &served.resource;
    if let Some(warning) = row.deprecation_warning() {
        call.cx.warn(warning);
        call.cx.annotate("k8s.io/deprecated", "true");
        if let Some(removed) = row.deprecation.as_ref().map(|d| d.removed.as_ref()).filter(|r| !r.is_empty()) {
            call.cx.annotate("k8s.io/removed-release", removed);
        }
    }
    let in_namespace = !info.namespace.is_empty() && info.resource != "namespaces";
    if in_namespace && !row.namespaced {
        return Err(NotServed::Path);
    }
    let named = !call.name().is_empty();
    if named && row.namespaced && !in_namespace {
        return Err(NotServed::Path);
    }
    // A path that begins with a verb is of a watch, and of nothing else any more.
    if info.verb == "proxy" || info.verb == "watch" && info.parts.len() > 2 {
        return Err(NotServed::Path);
    }
    if let Some(view) = info.past {
        return Ok(past::handle(registry, &served, call, view).boxed().await?);
    }
    if info.parts.len() > 2 {
        return subresource::handle(registry, &served, call).boxed().await;
    }
    // To authorization it is a get, or what its path begins with; but nothing of the API is served so.
    if call.method == Method::HEAD || info.verb == "watch" && call.method != Method::GET {
        return Err(Status::method_not_allowed().into());
    }
    let verb = match info.verb.as_str() {
        "get" => Verbs::GET,
        "list" => Verbs::LIST,
        "watch" => Verbs::WATCH,
        "create" => Verbs::CREATE,
        "update" => Verbs::UPDATE,
        "patch" => Verbs::PATCH,
        "delete" => Verbs::DELETE,
        "deletecollection" => Verbs::DELETE_COLLECTION,
        _ => return Err(Status::method_not_allowed().into()),
    };
    let fits = match verb {
        // A collection of a namespaced kind is written in a namespace.
        Verbs::CREATE => !named && (in_namespace || !row.namespaced),
        Verbs::DELETE_COLLECTION => !named && (in_namespace || !row.namespaced),
        Verbs::UPDATE | Verbs::PATCH => named,
        _ => true,
    };
    if !fits || !row.verbs.contains(verb) {
        return Err(Status::method_not_allowed().into());
    }
    // What a verb needs while it waits is kept apart: no request is as large as the largest.
    let answer: BoxFuture<'_, _> = match verb {
        Verbs::GET => read::get(registry, &served, call).boxed(),
        Verbs::LIST => read::list(registry, &served, call).boxed(),
        Verbs::WATCH => read::watch(registry, &served, call).boxed(),
        Verbs::CREATE => write::create(registry, &served, call).boxed(),
        Verbs::UPDATE => write::update(registry, &served, call, "").boxed(),
        Verbs::PATCH => write::patch(registry, &served, call, "").boxed(),
        Verbs::DELETE => write::delete(registry, &served, call).boxed(),
        _ => write::delete_collection(registry, &served, call).boxed(),
    };
    Ok(answer.await?)
}

/// The subresource that a path names.
fn target(served: &Arc<Served>, call: &Call) -> Target {
    let parts = &call.info.parts;
    let rest = after_subresource(call.parts.uri.path(), &call.info.path, parts.len());
    Target {
        served: served.clone(),
        namespace: call.namespace(served).to_owned(),
        name: call.name().to_owned(),
        subresource: parts.get(2).cloned().unwrap_or_default(),
        rest: rest.to_owned(),
    }
}

/// What follows a subresource in a path, which is handed on as it was written, not as it was read.
///
/// `read` is `written` without escapes; its last `parts` segments are the resource, the name, the subresource, and the rest.
fn after_subresource<'a>(written: &'a str, read: &str, parts: usize) -> &'a str {
    let segments = |path: &str| path.trim_matches('/').split('/').count();
    let mut before = segments(read).saturating_sub(parts) + 3;
    let mut rest = written.trim_start_matches('/');
    while before > 0 {
        let (segment, more) = rest.split_once('/').unwrap_or((rest, ""));
        // An escaped slash made more than one of it.
        before = before.saturating_sub(unescape_path(segment).split('/').count());
        rest = more;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_found_behind_escapes() {
        for (written, parts, rest) in [
            ("/api/v1/namespaces/n/services/http%3Aweb%3A80/proxy/metrics%2Fa/b", 6, "metrics%2Fa/b"),
            ("/api/v1/namespaces/n/services/http:web:80/proxy/", 3, ""),
            ("/api/v1/namespaces/n/services/web/proxy", 3, ""),
            ("/api/v1/nodes/a/proxy/a/proxy/x", 6, "a/proxy/x"),
            ("/api/v1/namespaces/web/services/web/proxy/web/proxy/y", 6, "web/proxy/y"),
        ] {
            assert_eq!(after_subresource(written, &unescape_path(written), parts), rest, "{written}");
        }
    }
}
