//! Get, list and watch.

use super::Call;
use crate::http::answer::{self, Object};
use crate::http::media::View;
use crate::http::stream::WatchBody;
use crate::http::websocket;
use crate::http::{Body, Response};
use crate::options::ListOptions;
use crate::registry::{Listed, Registry, Served, selection};
use api::selector::LabelSelector;
use api::{ResourceVersion, Status};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn get(registry: &Registry, served: &Arc<Served>, call: Call) -> Result<Response<Body>, Status> {
    let view = call.view(true, false)?;
    let (namespace, name) = (call.namespace(served), call.name());
    if let Some(virtual_resource) = &served.virtual_resource {
        let object = virtual_resource.get(&call.cx, served, namespace, name).await?;
        return answer::object(StatusCode::OK, served, Object::Tree(&object, None), view, call.cx.now);
    }
    let version = crate::request::parameter(&call.query, "resourceVersion").unwrap_or_default();
    let version = ResourceVersion::parse(&version)?.map(|version| version.0);
    let entry = registry.get(served, namespace, name, version).await?;
    answer::object(StatusCode::OK, served, Object::Entry(&entry), view, call.cx.now)
}

pub(super) async fn list(registry: &Registry, served: &Arc<Served>, call: Call) -> Result<Response<Body>, Status> {
    let view = call.view(true, false)?;
    let options = ListOptions::of_query(&call.query, false)?;
    let namespace = call.namespace(served);
    if let Some(virtual_resource) = &served.virtual_resource {
        let labels = LabelSelector::parse(&options.label_selector).map_err(|e| Status::bad_request(e.to_string()))?;
        let fields = selection::of_names(served, &options.field_selector)?;
        let mut items = virtual_resource.list(&call.cx, served, namespace).await?;
        items.retain(|item| labels.matches(&Labels(item)) && fields.matches(&Names(item)));
        return answer::trees(served, &items, view, call.cx.now);
    }
    let cacher = served.storage("list")?;
    let (labels, fields) = (&options.label_selector, &options.field_selector);
    let filter = selection::filter(served, cacher, namespace, call.name(), labels, fields)?;
    let listed = match registry.list(served, &filter, &options).await {
        Err(expired) if expired.code == 410 => {
            super::past::list(registry, served, (&call.cx, &call.info), &filter, &options, expired).await?
        }
        listed => listed?,
    };
    told(served, listed, view, call)
}

/// Answers with what was listed.
pub(super) fn told(served: &Arc<Served>, listed: Listed, view: View, call: Call) -> Result<Response<Body>, Status> {
    let response = answer::list(served, listed, view, call.cx.now)?;
    if response.body().as_bytes().is_some() {
        return Ok(response);
    }
    // The most of it is yet to be made.
    let mut place = call.place;
    place.outlasts();
    Ok(response.map(|body| body.holding(place)))
}

pub(super) async fn watch(registry: &Registry, served: &Arc<Served>, mut call: Call) -> Result<Response<Body>, Status> {
    let view = call.view(true, true)?;
    let options = ListOptions::of_query(&call.query, true)?;
    let cacher = served.storage("watch")?;
    let (labels, fields) = (&options.label_selector, &options.field_selector);
    let filter = selection::filter(served, cacher, call.namespace(served), call.name(), labels, fields)?;
    let timeout = options.timeout_seconds.map_or(call.watch_timeout, Duration::from_secs);
    let body = match registry.watch(served, filter.clone(), &options).await {
        Ok((watcher, initial)) => {
            WatchBody::new(served.clone(), view, watcher, initial, filter, &options, timeout).holding(call.place)
        }
        Err(status) if matches!(status.code, 410 | 504) => WatchBody::refused(served.clone(), view, &status),
        Err(status) => return Err(status),
    };
    if websocket::is_wanted(&call.parts.headers) {
        return websocket::serve(&mut call.parts, view.format, body);
    }
    let content_type = match view.format {
        crate::http::media::Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    let mut response = Response::new(Body::stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

/// The labels of a tree.
struct Labels<'a>(&'a schema::Map);

impl api::selector::Labels for Labels<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.0.at(&["metadata", "labels", key]).and_then(schema::Value::as_str)
    }
}

/// Name and namespace of a tree, as fields.
struct Names<'a>(&'a schema::Map);

impl api::selector::Labels for Names<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        let field = key.strip_prefix("metadata.")?;
        self.0.at(&["metadata", field]).and_then(schema::Value::as_str)
    }
}
