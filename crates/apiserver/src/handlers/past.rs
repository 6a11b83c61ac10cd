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
    // By the version before, the last of a page is explained.
    let before = match past.next {
        Some(next) => registry.versions(served, object, (since, next), 1).await?.versions.pop(),
        None => None,
    };
    let objects = objects(served, past.versions.iter().chain(&before))?;
    match view.shape {
        Shape::Table(version) => answer::document(&table(&past, objects, version, view.include), view),
        Shape::Object | Shape::Metadata(_) | Shape::MetadataList(_) => {
            answer::document(&document(&past, objects), view)
        }
    }
}

/// What versions have of the object; a removal has nothing, nor has what is not readable.
fn objects<'a>(served: &Served, versions: impl Iterator<Item = &'a PastVersion>) -> Result<Vec<Option<Map>>, Status> {
    versions.map(|version| entry(version).map(|entry| served.decode(entry)).transpose()).collect()
}

/// Who made each version, as far as managed fields tell; of those that left none, nobody is known.
fn changers(past: &Past, objects: &[Option<Map>]) -> Vec<Option<String>> {
    let of = |(at, version): (usize, &PastVersion)| {
        let object = objects[at].as_ref()?;
        let before = match version.became {
            Became::Modified(_) => objects.get(at + 1).and_then(Option::as_ref),
            _ => None,
        };
        changer(before, object)
    };
    past.versions.iter().enumerate().map(of).collect()
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

/// The versions as events of a watch are told, newest first, each with the manager that made it.
fn document(past: &Past, objects: Vec<Option<Map>>) -> Map {
    let mut versions = Vec::with_capacity(past.versions.len());
    let changers = changers(past, &objects);
    for ((version, object), changer) in past.versions.iter().zip(objects).zip(changers) {
        let mut item = Map::new();
        item.insert("type", change(version));
        item.insert("resourceVersion", version.revision.to_string());
        if let Some(time) = version.time {
            item.insert("time", time.to_string());
        }
        if let Some(changer) = changer {
            item.insert("manager", changer);
        }
        if let Some(object) = object {
            item.insert("object", object);
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
    document
}

/// What `kubectl get` shows: a row for each version.
fn table(past: &Past, objects: Vec<Option<Map>>, version: MetaVersion, include: Include) -> Map {
    let columns = [
        ("Version", "The resource version that the change made"),
        ("Time", "When it was made, if that is known"),
        ("Change", "ADDED, MODIFIED, DELETED, or ERROR when it is not readable any more"),
        ("Manager", "The field manager that made the change, if that is known"),
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
    let changers = changers(past, &objects);
    for ((version_of, object), changer) in past.versions.iter().zip(objects).zip(changers) {
        let unknown = if object.is_some() { "<unknown>" } else { "<none>" };
        let manager = changer.unwrap_or_else(|| unknown.to_owned());
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
    table
}

/// What tells one entry of managed fields from the others.
const IDENTITY: [&str; 4] = ["manager", "operation", "apiVersion", "subresource"];

/// Whose change made `object` of what it was before, as far as managed fields tell; without that, whose was the last.
///
/// Times of entries have whole seconds, so they alone do not say it. Whoever sets a field comes to own it; whoever loses one to
/// another keeps the entry's time.
fn changer(before: Option<&Map>, object: &Map) -> Option<String> {
    let entries = managed(object);
    let Some(before) = before else {
        let last = entries.into_iter().max_by_key(|entry| entry.str_at(&["time"]))?;
        return Some(last.str_at(&["manager"]).to_owned());
    };
    let were = managed(before);
    let weight = |entry: &Map| {
        let was = were.iter().copied().find(|was| IDENTITY.iter().all(|key| was.get(key) == entry.get(key)));
        match was {
            None => 3,
            Some(was) if gains(&fields(was), &fields(entry)) => 3,
            Some(was) if was.get("time") != entry.get("time") => 2,
            // It set again, within a second, what it owned already.
            Some(_) if owns_change(&fields(entry), before, object) => 1,
            Some(_) => 0,
        }
    };
    let weighed = entries.into_iter().map(|entry| (weight(entry), entry)).filter(|(weight, _)| *weight > 0);
    let (_, entry) = weighed.max_by_key(|(weight, entry)| (*weight, entry.str_at(&["time"])))?;
    Some(entry.str_at(&["manager"]).to_owned())
}

/// The fields of an entry as a tree; of what is none, nothing.
fn fields(entry: &Map) -> Map {
    let fields = match entry.get("fieldsV1") {
        Some(Value::Raw(text)) => schema::json::parse(text.as_bytes()).unwrap_or_default(),
        Some(tree) => tree.clone(),
        None => Value::Null,
    };
    if let Value::Map(fields) = fields { fields } else { Map::new() }
}

fn managed(object: &Map) -> Vec<&Map> {
    let fields = object.at(&["metadata", "managedFields"]).and_then(Value::as_list).unwrap_or_default();
    fields.iter().filter_map(Value::as_map).collect()
}

/// Whether a set of fields has one that another has not.
fn gains(was: &Map, is: &Map) -> bool {
    is.iter().any(|(key, below)| match (was.get(key), below) {
        (Some(Value::Map(was)), Value::Map(below)) => gains(was, below),
        (was, _) => was.is_none(),
    })
}

/// Whether two objects differ in a field of a set. Items of lists are not told apart.
fn owns_change(fields: &Map, before: &Map, object: &Map) -> bool {
    fields.iter().any(|(key, below)| {
        let Some(name) = key.strip_prefix("f:") else { return false };
        let (was, is) = (before.get(name), object.get(name));
        was != is
            && match (below, was, is) {
                (Value::Map(below), Some(Value::Map(was)), Some(Value::Map(is))) if !below.is_empty() => {
                    owns_change(below, was, is)
                }
                _ => true,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    /// An object of some fields, with entries of manager, time, and fields.
    fn object(fields: &str, entries: &[(&str, &str, &str)]) -> Map {
        let entry = |(manager, time, fields): &(&str, &str, &str)| {
            let mut entry = map(&format!(r#"{{"manager": "{manager}", "operation": "Update", "time": "{time}"}}"#));
            // As it is stored.
            entry.insert("fieldsV1", Value::Raw((*fields).into()));
            Value::Map(entry)
        };
        let mut object = map(&format!("{{{fields}}}"));
        object.set_at(&["metadata", "managedFields"], entries.iter().map(entry).collect::<Vec<Value>>());
        object
    }

    #[test]
    fn who_made_a_version_is_told_also_within_a_second() {
        let (then, now) = ("2026-01-31T08:00:00Z", "2026-01-31T08:00:01Z");
        let (spec, nothing) = (r#"{"f:spec": {"f:a": {}, "f:b": {}}}"#, r#"{"f:spec": {"f:b": {}}}"#);
        let (label, scale) = (r#"{"f:metadata": {"f:labels": {"f:x": {}}}}"#, r#"{"f:spec": {"f:a": {}}}"#);
        let one = |fields: &[(&str, &str, &str)]| object(r#""spec": {"a": 1, "b": 1}"#, fields);
        let two = |fields: &[(&str, &str, &str)]| object(r#""spec": {"a": 2, "b": 1}"#, fields);
        let created = one(&[("create", then, spec)]);
        let labelled = one(&[("create", then, spec), ("label", now, label)]);
        // It comes before the other by its name, and takes a field from the first.
        let scaled = two(&[("create", then, nothing), ("label", now, label), ("kubectl", now, scale)]);
        let again = object(
            r#""spec": {"a": 3, "b": 1}"#,
            &[("create", then, nothing), ("kubectl", now, scale), ("label", now, label)],
        );
        let later =
            two(&[("create", then, nothing), ("label", now, label), ("kubectl", "2026-01-31T09:00:00Z", scale)]);
        for (before, object, told) in [
            (None, &created, Some("create")),
            (None, &labelled, Some("label")),
            (Some(&created), &labelled, Some("label")),
            (Some(&labelled), &scaled, Some("kubectl")),
            (Some(&scaled), &again, Some("kubectl")),
            (Some(&again), &later, Some("kubectl")),
            // A deletion that waits for finalizers, say: it owns nothing.
            (Some(&later), &later, None),
        ] {
            assert_eq!(changer(before, object).as_deref(), told, "{object:?}");
        }
    }
}
