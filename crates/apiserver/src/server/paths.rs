//! What is no resource: discovery, OpenAPI, version, health, metrics, documents of others.

use super::ApiServer;
use super::chain::plain;
use crate::discovery::Discovery;
use crate::http::media::JSON;
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

/// Upstream's mux says it so.
pub(super) fn not_found() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "404 page not found\n")
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
        let root = trimmed.trim_start_matches('/').split('/').next().unwrap_or("");
        if matches!(root, "api" | "apis" | "version") && parts.method != Method::GET {
            return Err(Status::method_not_allowed());
        }
        let gzip = parts.headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("gzip"));
        let accept = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
        match root {
            "" => Ok(answer::raw(StatusCode::OK, self.index(), JSON, gzip)),
            "healthz" | "livez" | "readyz" => Ok(self.health.answer(root, trimmed, query).await),
            "version" if trimmed == "/version" => Ok(answer::raw(StatusCode::OK, self.version(), JSON, gzip)),
            "metrics" if trimmed == "/metrics" => {
                let text = self.metrics.render(&self.registry);
                Ok(answer::raw(StatusCode::OK, text.into(), "text/plain; version=0.0.4; charset=utf-8", gzip))
            }
            "api" | "apis" => {
                let Some(document) = self.discovery().document(trimmed, accept) else { return Ok(not_found()) };
                let known = parts.headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
                let same = known == Some(document.etag.as_str());
                let mut response = if same {
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = StatusCode::NOT_MODIFIED;
                    response
                } else {
                    answer::raw(StatusCode::OK, document.body, document.content_type, gzip)
                };
                let headers = response.headers_mut();
                headers.insert(VARY, HeaderValue::from_static("Accept"));
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
                if let Ok(etag) = HeaderValue::from_str(&document.etag) {
                    headers.insert(ETAG, etag);
                }
                Ok(response)
            }
            "openapi" => Ok(self.openapi(trimmed, accept, query, gzip)),
            _ => match self.documents.iter().find(|document| document.path == trimmed) {
                Some(document) => Ok(answer::raw(StatusCode::OK, (document.make)(), document.content_type, gzip)),
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
            let discovery = Arc::new(Discovery::new(rows, self.config.advertised.clone()));
            Made { table, discovery, openapi: HashMap::new() }
        });
        use_it(made)
    }

    fn discovery(&self) -> Arc<Discovery> {
        self.shown(|made| made.discovery.clone())
    }

    fn openapi(&self, path: &str, accept: &str, query: &str, gzip: bool) -> Response<Body> {
        let version = self.config.git_version.clone();
        let made =
            self.shown(|made| {
                if let Some(bytes) = made.openapi.get(path) {
                    return Some(bytes.clone());
                }
                let rows: Vec<&Resource> = made.table.all().iter().map(|served| served.resource.as_ref()).collect();
                let bytes = match path {
                    "/openapi/v2" => schema::openapi::v2(&rows, &version),
                    "/openapi/v3" => schema::openapi::v3_index(rows.into_iter(), &version),
                    _ => {
                        let (group, version_of) =
                            match path.strip_prefix("/openapi/v3/")?.split('/').collect::<Vec<_>>()[..] {
                                ["api", version] => ("", version),
                                ["apis", group, version] => (group, version),
                                _ => return None,
                            };
                        let of = rows.into_iter().filter(|row| row.group == group && row.version == version_of);
                        let of: Vec<&Resource> = of.collect();
                        if of.is_empty() {
                            return None;
                        }
                        schema::openapi::v3(&of, &version)
                    }
                };
                let bytes = Bytes::from(bytes);
                // The v2 document is megabytes and asked for by old clients only.
                if path == "/openapi/v3" {
                    made.openapi.insert(path.to_owned(), bytes.clone());
                }
                Some(bytes)
            });
        let Some(bytes) = made else { return not_found() };
        if accept.contains("proto") && !accept.contains("json") && !accept.contains("*/*") {
            return answer::refusal(&Status::not_acceptable(&[JSON]), crate::http::media::View::default());
        }
        let mut response = answer::raw(StatusCode::OK, bytes, JSON, gzip);
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
        if path.starts_with("/openapi/v3/") && parameter(query, "hash").is_some() {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            headers.insert(EXPIRES, HeaderValue::from_static("Fri, 31 Dec 2100 23:59:59 GMT"));
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        response
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
            ("goVersion", "go1.26.0"),
            ("compiler", "rustc"),
            ("platform", PLATFORM),
        ] {
            map.insert(key, value);
        }
        schema::json::to_string(&map).into()
    }

    /// The paths that are served, for people who look around.
    fn index(&self) -> Bytes {
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
        paths.sort();
        paths.dedup();
        let mut map = Map::new();
        map.insert("paths", paths.into_iter().map(Value::from).collect::<Vec<_>>());
        schema::json::to_string(&map).into()
    }
}

#[cfg(target_arch = "x86_64")]
const PLATFORM: &str = "linux/amd64";
#[cfg(target_arch = "aarch64")]
const PLATFORM: &str = "linux/arm64";
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const PLATFORM: &str = "linux/unknown";
