//! Cells of events, of either group.

use super::{Cell, UNKNOWN, ago, int};
use Cell::{By, Path};
use jiff::Timestamp;
use schema::{Map, Value};

pub(super) const CELLS: &[Cell] = &[
    By(last_seen),
    Path(&["type"]),
    Path(&["reason"]),
    By(target),
    Path(&["involvedObject", "fieldPath"]),
    By(source),
    By(|o, _| o.str_at(&["message"]).trim().into()),
    By(first_seen),
    By(count),
    super::cells::NAME,
];

/// The first of some members that says something.
fn first<'o>(object: &'o Map, paths: &[&[&str]]) -> &'o str {
    paths.iter().map(|path| object.str_at(path)).find(|text| !text.is_empty()).unwrap_or("")
}

fn began(object: &Map) -> &str {
    first(object, &[&["firstTimestamp"], &["eventTime"]])
}

fn since(time: &str, now: Timestamp) -> Value {
    if time.is_empty() { UNKNOWN.into() } else { ago(time, now).into() }
}

fn first_seen(object: &Map, now: Timestamp) -> Value {
    since(began(object), now)
}

fn last_seen(object: &Map, now: Timestamp) -> Value {
    let last = match object.get("series").and_then(Value::as_map) {
        Some(series) => series.str_at(&["lastObservedTime"]),
        None if object.str_at(&["lastTimestamp"]).is_empty() => began(object),
        None => object.str_at(&["lastTimestamp"]),
    };
    since(last, now)
}

fn count(object: &Map, _: Timestamp) -> Value {
    if object.get("series").and_then(Value::as_map).is_some() {
        return Value::Int(int(object, &["series", "count"]));
    }
    match int(object, &["count"]) {
        0 => Value::Int(1),
        count => Value::Int(count),
    }
}

fn target(object: &Map, _: Timestamp) -> Value {
    let kind = object.str_at(&["involvedObject", "kind"]).to_lowercase();
    match object.str_at(&["involvedObject", "name"]) {
        "" => kind.into(),
        name => format!("{kind}/{name}").into(),
    }
}

fn source(object: &Map, _: Timestamp) -> Value {
    let component = first(object, &[&["source", "component"], &["reportingComponent"]]);
    let host = first(object, &[&["source", "host"], &["reportingInstance"]]);
    if host.is_empty() { component.into() } else { format!("{component}, {host}").into() }
}
