//! What is no resource: discovery, OpenAPI, version, health, metrics, documents of others.

use super::ApiServer;
use super::chain::plain;
use super::zpages::Status as Running;
use crate::discovery::{self, Discovery};
use crate::http::media::{Format, JSON, View};
use crate::http::{Body, Response, answer};
use crate::registry::Table;
use crate::request::{RequestInfo, parameter};
use api::Status;
use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH, VARY,
};
use http::request::Parts;
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use schema::openapi::Published;
use schema::{Map, Resource, Value};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Documents of the table that is served, made when first asked for.
#[derive(Default)]
pub(super) struct Shown(Mutex<Option<Made>>);

struct Made {
    table: Arc<Table>,
    discovery: Arc<Discovery>,
    openapi: HashMap<String, Bytes>,
}

const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(super) const GO_VERSION: &str = "go1.26.0";
pub(super) const EMULATED: &str = "1.36";

/// Upstream's mux says it so.
pub(super) fn not_found() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A discovery document in another format than plain JSON; `None`: as it is.
fn negotiated(document: &discovery::Document, view: View) -> Option<Result<Response<Body>, Status>> {
    if view.format == Format::Json && !view.pretty {
        return None;
    }
    let Ok(Value::Map(tree)) = schema::json::parse(&document.body) else { return None };
    let package = if document.aggregated.is_some() { "api.apidiscovery.v2" } else { "apimachinery.pkg.apis.meta.v1" };
    let ty = schema::types::find(&format!("io.k8s.{package}.{}", tree.str_at(&["kind"])))?;
    Some(answer::tree(StatusCode::OK, ty, &tree, view))
}

/// What documents are in protobuf, as it is answered; asked for it is with `@` before the version too.
const OPENAPI_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const OPENAPI_V3: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

/// What a document of a path of OpenAPI is answered as; `None`: it is not there as what is accepted.
fn wanted_openapi(headers: &http::HeaderMap, path: &str) -> Option<&'static str> {
    // The index of v3 is JSON, whatever is accepted.
    if path == "/openapi/v3" {
        return Some(JSON);
    }
    let (protobuf, old) = if path == "/openapi/v2" {
        (OPENAPI_V2, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
    } else {
        (OPENAPI_V3, "application/com.github.proto-openapi.spec.v3@v1.0+protobuf")
    };
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).filter(|accept| !accept.is_empty());
    accept.unwrap_or("*/*").split(',').find_map(|media| match media.split(';').next().unwrap_or("").trim() {
        JSON | "application/*" | "*/*" => Some(JSON),
        media if media == protobuf || media == old => Some(protobuf),
        _ => None,
    })
}

/// Where what is in priority levels is dumped.
const FAIRNESS: &str = "/debug/api_priority_and_fairness/";

fn below_pprof(path: &str) -> bool {
    path.strip_prefix("/debug/pprof").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a path is served by a router, or by what looks at its end itself.
fn routed(path: &str) -> bool {
    matches!(path.split('/').nth(1), Some("api" | "apis" | "version" | ".well-known" | "openid" | "debug"))
}

fn moved(to: &str) -> Response<Body> {
    let mut response = plain(StatusCode::MOVED_PERMANENTLY, "");
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(http::header::LOCATION, to);
    }
    response
}

impl ApiServer {
    pub(super) async fn path(
        self: &Arc<Self>,
        parts: &Parts,
        info: &RequestInfo,
        query: &str,
    ) -> Result<Response<Body>, Status> {
        let path = info.path.as_str();
        let trimmed = path.trim_end_matches('/');
        // Upstream's mux knows paths as they are; where a router serves, a slash may follow.
        if path.starts_with("//") || path.len() > 1 && path.ends_with('/') && !routed(path) {
            return Ok(not_found());
        }
        let root = trimmed.trim_start_matches('/').split('/').next().unwrap_or("");
        if matches!(root, "api" | "apis" | "version") && parts.method != Method::GET {
            return Err(Status::method_not_allowed());
        }
        let gzip = parts.headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("gzip"));
        let accept = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
        match root {
            "" | "index.html" if matches!(path, "/" | "/index.html") => {
                Ok(answer::raw(StatusCode::OK, self.index(), JSON, gzip))
            }
            "healthz" | "livez" | "readyz" => Ok(self.health.answer(root, trimmed, query).await),
            "version" if trimmed == "/version" => Ok(answer::raw(StatusCode::OK, self.version(), JSON, gzip)),
            "metrics" if trimmed == "/metrics/slis" => {
                Ok(answer::raw(StatusCode::OK, self.health.slis().into(), METRICS, gzip))
            }
            "statusz" if trimmed == "/statusz" && self.registry.gates().enabled("ComponentStatusz") => {
                let (started, now) = (self.started, Timestamp::now());
                let running = Running { started, now, version: &self.config.git_version, paths: self.listed() };
                Ok(running.answer(&parts.headers))
            }
            "flagz" if trimmed == "/flagz" && self.registry.gates().enabled("ComponentFlagz") => {
                Ok(super::zpages::flags(&self.config.flags, &parts.headers))
            }
            "metrics" if trimmed == "/metrics" => {
                let text = self.metrics.render(&self.registry, &self.config, &self.security).await;
                Ok(answer::raw(StatusCode::OK, text.into(), METRICS, gzip))
            }
            "api" | "apis" => {
                let Some(document) = self.discovery().document(trimmed, accept) else { return Ok(not_found()) };
                let mut view = View::of(&parts.headers, query, false, false);
                if let Some((format, _)) = document.aggregated {
                    view = Ok(View { format, gzip, ..View::default() });
                }
                let view = view?;
                let known = parts.headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
                let mut response = if document.aggregated.is_some() && known == Some(document.etag.as_str()) {
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = StatusCode::NOT_MODIFIED;
                    response
                } else if let Some(shown) = negotiated(&document, view) {
                    shown?
                } else {
                    answer::raw(StatusCode::OK, document.body.clone(), JSON, gzip)
                };
                let headers = response.headers_mut();
                headers.insert(VARY, HeaderValue::from_static("Accept"));
                if let Some((_, content_type)) = document.aggregated {
                    if response.status() == StatusCode::OK {
                        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
                    }
                    let headers = response.headers_mut();
                    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
                    if let Ok(etag) = HeaderValue::from_str(&document.etag) {
                        headers.insert(ETAG, etag);
                    }
                }
                Ok(response)
            }
            "debug" if parts.method == Method::GET && path.starts_with(FAIRNESS) => {
                let dump = self.security.limit.dump(&path[FAIRNESS.len()..], query);
                Ok(dump.map_or_else(not_found, |dump| plain(StatusCode::OK, dump)))
            }
            "debug" if self.config.profiling && parts.method == Method::GET && below_pprof(path) => {
                Ok(super::profile::answer(path, query).await)
            }
            "openapi" => Ok(self.openapi(parts, trimmed, query, gzip)),
            _ => match self.documents.iter().find(|document| document.path == trimmed) {
                Some(document) if parts.method == Method::GET => {
                    let mut answer = answer::raw(StatusCode::OK, (document.make)(), document.content_type, gzip);
                    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
                    Ok(answer)
                }
                Some(_) => Err(Status::method_not_allowed()),
                None => Ok(not_found()),
            },
        }
    }

    /// Makes what is shown of the table as it is now.
    fn shown<T>(&self, use_it: impl FnOnce(&mut Made) -> T) -> T {
        let table = self.registry.table();
        let mut shown = self.shown.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.as_ref().is_none_or(|made| !Arc::ptr_eq(&made.table, &table)) {
            *shown = None;
        }
        let made = shown.get_or_insert_with(|| {
            let rows = table.all().iter().map(|served| Resource::clone(&served.resource)).collect();
            let discovery = Arc::new(Discovery::new(
                rows,
                self.config.advertised.clone(),
                self.registry.gates().enabled("StorageVersionHash"),
            ));
            Made { table, discovery, openapi: HashMap::new() }
        });
        use_it(made)
    }

    fn discovery(&self) -> Arc<Discovery> {
        self.shown(|made| made.discovery.clone())
    }

    /// The documents of OpenAPI, as kube-openapi serves them: under an ETag, those of v3 for ever under their hash.
    fn openapi(&self, parts: &Parts, path: &str, query: &str, gzip: bool) -> Response<Body> {
        let group = path.strip_prefix("/openapi/v3/");
        let Some(content_type) = wanted_openapi(&parts.headers, path) else {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_ACCEPTABLE;
            return response;
        };
        let etag = self.published(|_, published| published.hash(group.unwrap_or(path)));
        if let (Some(group), Some(hash)) = (group, parameter(query, "hash"))
            && !hash.is_empty()
            && hash != etag
            && self.openapi_bytes(path, Some(group), JSON).is_some()
        {
            return moved(&format!("/openapi/v3/{group}?hash={etag}"));
        }
        let known = parts.headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let quoted = format!("\"{etag}\"");
        let mut response = if known == Some(quoted.as_str()) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            let Some(bytes) = self.openapi_bytes(path, group, content_type) else { return not_found() };
            answer::raw(StatusCode::OK, bytes, content_type, gzip)
        };
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
        if path != "/openapi/v3"
            && let Ok(etag) = HeaderValue::from_str(&quoted)
        {
            headers.insert(ETAG, etag);
        }
        if group.is_some() && parameter(query, "hash").is_some_and(|hash| !hash.is_empty()) {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            // A year from now: for ever, as caches see it.
            let year = Timestamp::now() + SignedDuration::from_hours(24 * 365);
            if let Ok(expires) = HeaderValue::from_str(&year.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()) {
                headers.insert(EXPIRES, expires);
            }
        }
        response
    }

    /// Makes something of what is published of the table as it is now.
    fn published<T>(&self, use_it: impl FnOnce(&mut Made, &Published<'_>) -> T) -> T {
        let documents: Vec<&str> = self.documents.iter().map(|document| document.path).collect();
        self.shown(|made| {
            let table = made.table.clone();
            let rows: Vec<&Resource> = table.all().iter().map(|served| served.resource.as_ref()).collect();
            let (version, enums) = (self.config.git_version.as_str(), self.registry.gates().enabled("OpenAPIEnums"));
            use_it(made, &Published { rows: &rows, documents: &documents, version, enums })
        })
    }

    fn openapi_bytes(&self, path: &str, group: Option<&str>, content_type: &str) -> Option<Bytes> {
        let protobuf = content_type != JSON;
        self.published(|made, published| {
            if let Some(bytes) = made.openapi.get(path) {
                return Some(bytes.clone());
            }
            let bytes = match (path, group) {
                ("/openapi/v2", _) if protobuf => published.v2_protobuf(),
                ("/openapi/v2", _) => published.v2(),
                ("/openapi/v3", _) => published.v3_index(),
                (_, group) if protobuf => published.v3_protobuf(group?)?,
                (_, group) => published.v3(group?)?,
            };
            let bytes = Bytes::from(bytes);
            // The other documents are large and asked for rarely.
            if path == "/openapi/v3" {
                made.openapi.insert(path.to_owned(), bytes.clone());
            }
            Some(bytes)
        })
    }

    fn version(&self) -> Bytes {
        let mut map = Map::new();
        let (major, minor) = ("1", "36");
        for (key, value) in [
            ("major", major),
            ("minor", minor),
            ("emulationMajor", major),
            ("emulationMinor", minor),
            ("minCompatibilityMajor", major),
            ("minCompatibilityMinor", "35"),
            ("gitVersion", &self.config.git_version),
            ("gitCommit", &self.config.git_commit),
            ("gitTreeState", "clean"),
            ("buildDate", &self.config.build_date),
            ("goVersion", GO_VERSION),
            ("compiler", "rustc"),
            ("platform", PLATFORM),
        ] {
            map.insert(key, value);
        }
        // Indented for everybody, as upstream's.
        answer::indented(schema::json::to_string(&map).as_bytes()).into()
    }

    /// The paths that are served, for people who look around.
    fn index(&self) -> Bytes {
        let mut map = Map::new();
        map.insert("paths", self.listed().into_iter().map(Value::from).collect::<Vec<_>>());
        schema::json::to_string(&map).into()
    }

    fn listed(&self) -> Vec<String> {
        let table = self.registry.table();
        let mut paths: Vec<String> = vec!["/.well-known/openid-configuration".into(), "/api".into(), "/apis".into()];
        for served in table.all() {
            let row = &served.resource;
            if row.group.is_empty() {
                paths.push(format!("/api/{}", row.version));
            } else {
                paths.push(format!("/apis/{}", row.group));
                paths.push(format!("/apis/{}/{}", row.group, row.version));
            }
        }
        paths.extend(
            ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(Into::into),
        );
        paths.extend(self.documents.iter().map(|document| document.path.to_owned()));
        paths.push("/metrics/slis".into());
        for (path, gate) in [("/statusz", "ComponentStatusz"), ("/flagz", "ComponentFlagz")] {
            if self.registry.gates().enabled(gate) {
                paths.push(path.into());
            }
        }
        paths.sort();
        paths.dedup();
        paths
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) const PLATFORM: &str = "linux/amd64";
#[cfg(target_arch = "aarch64")]
pub(super) const PLATFORM: &str = "linux/arm64";
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) const PLATFORM: &str = "linux/unknown";
