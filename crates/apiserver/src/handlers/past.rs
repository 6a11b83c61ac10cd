//! The past: `/at/MOMENT/…` shows what was there, `/history/…` the versions of an object. Nothing can be written there.

use super::Call;
use crate::cache::{Entry, Filter};
use crate::context::Context;
use crate::http::answer::{self, Object};
use crate::http::media::{Include, MetaVersion, Shape};
use crate::http::{Body, Response};
use crate::options::{ListOptions, Match};
use crate::registry::{Became, Listed, Past, PastVersion, Registry, Served, selection};
use crate::request::{self, Moment, RequestInfo};
use api::{Reason, Status};
use http::{Method, StatusCode};
use schema::{Map, Value};
use std::sync::Arc;

/// Answers a request for a view of the past. It is authorized as the same request without.
pub(super) async fn handle(
    registry: &Registry,
    served: &Arc<Served>,
    call: Call,
    view: request::Past,
) -> Result<Response<Body>, Status> {
    let verb = call.info.verb.as_str();
    if call.method != Method::GET || !matches!(verb, "get" | "list") || call.info.parts.len() > 2 {
        let why = "the past can only be looked at: it has get and list of objects, without subresources";
        return Err(Status::new(405, Reason::MethodNotAllowed, why));
    }
    match (view, verb) {
        (request::Past::At(moment), "get") => get_at(registry, served, call, moment).await,
        (request::Past::At(moment), _) => list_at(registry, served, call, moment).await,
        (request::Past::History, "get") => history(registry, served, call).await,
        (request::Past::History, _) => Err(Status::bad_request("a history is of one object: name it")),
    }
}

async fn get_at(
    registry: &Registry,
    served: &Arc<Served>,
    call: Call,
    moment: Moment,
) -> Result<Response<Body>, Status> {
    let view = call.view(true, false)?;
    let cacher = served.storage("get")?;
    let (namespace, name) = (call.namespace(served), call.name());
    let filter = selection::filter(served, cacher, namespace, name, "", "")?;
    let (revision, then) = registry.moment(&call.cx, served, &filter, moment).await?;
    registry.allow_moment(&call.cx, served, &call.info, revision).await?;
    let entry = registry.get_at(served, namespace, name, revision).await?;
    answer::object(StatusCode::OK, served, Object::Entry(&entry), view, then.unwrap_or(call.cx.now))
}

async fn list_at(
    registry: &Registry,
    served: &Arc<Served>,
    call: Call,
    moment: Moment,
) -> Result<Response<Body>, Status> {
    let view = call.view(true, false)?;
    let options = ListOptions::of_query(&call.query, false)?;
    if options.version.is_some_and(|version| version != 0) {
        return Err(Status::bad_request("a resource version cannot be asked for beside a moment"));
    }
    let cacher = served.storage("list")?;
    let (labels, fields) = (&options.label_selector, &options.field_selector);
    let filter = selection::filter(served, cacher, call.namespace(served), call.name(), labels, fields)?;
    // The pages of a list are of one state, also while the second that was asked for goes on.
    let moment = options.token.as_ref().and_then(|token| token.revision).map_or(moment, Moment::Revision);
    let (revision, then) = registry.moment(&call.cx, served, &filter, moment).await?;
    registry.allow_moment(&call.cx, served, &call.info, revision).await?;
    let listed = registry.list_at(served, &filter, &options, revision).await?;
    answer::list(served, listed, view, then.unwrap_or(call.cx.now))
}

/// Lists an exact version that memory has no more; `expired` is what is told when the store has it no more either.
pub(super) async fn list(
    registry: &Registry,
    served: &Arc<Served>,
    (cx, info): (&Context, &RequestInfo),
    filter: &Filter,
    options: &ListOptions,
    expired: Status,
) -> Result<Listed, Status> {
    let revision = match &options.token {
        Some(token) => token.revision,
        None => options.version.filter(|_| options.version_match == Match::Exact),
    };
    let Some(revision) = revision else { return Err(expired) };
    let lost = |status: Status| if status.code >= 500 { status } else { expired.clone() };
    registry.allow_moment(cx, served, info, revision).await.map_err(lost)?;
    registry.list_at(served, filter, options, revision).await.map_err(lost)
}

async fn history(registry: &Registry, served: &Arc<Served>, call: Call) -> Result<Response<Body>, Status> {
    let view = call.view(true, false)?;
    let number = |name: &str| match request::parameter(&call.query, name).filter(|text| !text.is_empty()) {
        None => Ok(0),
        Some(text) => {
            let number = text.parse::<u64>().ok().filter(|number| i64::try_from(*number).is_ok());
            number.ok_or_else(|| Status::bad_request(format!("{name} is not a number")))
        }
    };
    let limit = usize::try_from(number("limit")?).unwrap_or(usize::MAX);
    let since = registry.visible_since(&call.cx, &call.info).await?;
    let object = (call.namespace(served), call.name());
    let past = registry.versions(served, object, (since, number("continue")?), limit).await?;
    if past.versions.is_empty() {
        return Err(Status::not_found(&served.group_resource(), call.name()));
    }
    match view.shape {
        Shape::Table(version) => answer::document(&table(served, &past, version, view.include)?, view),
        Shape::Object | Shape::Metadata(_) | Shape::MetadataList(_) => {
            answer::document(&document(served, &past)?, view)
        }
    }
}

fn change(version: &PastVersion) -> &'static str {
    match &version.became {
        Became::Added(_) => "ADDED",
        Became::Modified(_) => "MODIFIED",
        Became::Removed => "DELETED",
        Became::Unreadable(_) => "ERROR",
    }
}

fn entry(version: &PastVersion) -> Option<&Entry> {
    match &version.became {
        Became::Added(entry) | Became::Modified(entry) => Some(entry),
        Became::Removed | Became::Unreadable(_) => None,
    }
}

fn metadata(past: &Past) -> Map {
    let mut metadata = Map::new();
    if let Some(next) = past.next {
        metadata.insert("continue", next.to_string());
    }
    metadata
}

/// The versions as events of a watch are told, newest first; a removal has no object, nor has what is not readable.
fn document(served: &Served, past: &Past) -> Result<Map, Status> {
    let mut versions = Vec::with_capacity(past.versions.len());
    for version in &past.versions {
        let mut item = Map::new();
        item.insert("type", change(version));
        item.insert("resourceVersion", version.revision.to_string());
        if let Some(time) = version.time {
            item.insert("time", time.to_string());
        }
        if let Some(entry) = entry(version) {
            item.insert("object", served.decode(entry)?);
        }
        if let Became::Unreadable(why) = &version.became {
            item.insert("message", why.as_str());
        }
        versions.push(Value::Map(item));
    }
    let mut document = Map::new();
    document.insert("kind", "ObjectHistory");
    document.insert("apiVersion", "pilothouse.local/v1");
    document.insert("metadata", metadata(past));
    document.insert("since", past.since.to_string());
    document.insert("versions", versions);
    Ok(document)
}

/// What `kubectl get` shows: a row for each version.
fn table(served: &Served, past: &Past, version: MetaVersion, include: Include) -> Result<Map, Status> {
    let columns = [
        ("Version", "The resource version that the change made"),
        ("Time", "When it was made, if that is known"),
        ("Change", "ADDED, MODIFIED, DELETED, or ERROR when it is not readable any more"),
        ("Manager", "The field manager that changed the object last"),
    ];
    let columns = columns.map(|(name, description)| {
        let mut column = Map::new();
        for (key, value) in [("name", name), ("type", "string"), ("format", ""), ("description", description)] {
            column.insert(key, value);
        }
        column.insert("priority", 0_i64);
        Value::Map(column)
    });
    let mut rows = Vec::with_capacity(past.versions.len());
    for version_of in &past.versions {
        let object = entry(version_of).map(|entry| served.decode(entry)).transpose()?;
        let manager = object.as_ref().map_or_else(|| "<none>".to_owned(), manager);
        let time = version_of.time.map_or_else(|| "<unknown>".to_owned(), |time| time.to_string());
        let cells: [Value; 4] =
            [version_of.revision.to_string().into(), time.into(), change(version_of).into(), manager.into()];
        let mut row = Map::new();
        row.insert("cells", cells.to_vec());
        match object {
            Some(object) if include == Include::Object => drop(row.insert("object", object)),
            Some(object) if include == Include::Metadata => {
                drop(row.insert("object", answer::partial(version, &object)));
            }
            _ => {}
        }
        rows.push(Value::Map(row));
    }
    let mut table = Map::new();
    table.insert("kind", "Table");
    table.insert("apiVersion", version.api_version());
    table.insert("metadata", metadata(past));
    table.insert("columnDefinitions", columns.to_vec());
    table.insert("rows", rows);
    Ok(table)
}

/// Who changed an object last, as far as managed fields tell.
fn manager(object: &Map) -> String {
    let fields = object.at(&["metadata", "managedFields"]).and_then(Value::as_list).unwrap_or_default();
    let times = fields.iter().filter_map(Value::as_map).map(|one| (one.str_at(&["time"]), one.str_at(&["manager"])));
    times.max_by_key(|(time, _)| *time).map_or_else(|| "<unknown>".to_owned(), |(_, manager)| manager.to_owned())
}
