//! Events of both groups, as they are stored. The newer group is strict; the older one keeps taking what it always took.

use super::fields::{Errors, immutable, problems, required, same};
use crate::tree::{Map, Value};
use crate::view::core_v1::Event;
use api::{FieldError, Path, names};

const MAX_SHORT: usize = 128;
const MAX_NOTE: usize = 1024;
const UNSET: &str = "needs to be unset";
/// What the newer group does not let change, in upstream's order; by the stored name, and the one that is told.
const FIXED: [(&str, &str); 13] = [
    ("involvedObject", "involvedObject"),
    ("reason", "reason"),
    ("message", "message"),
    ("source", "source"),
    ("firstTimestamp", "firstTimestamp"),
    ("lastTimestamp", "lastTimestamp"),
    ("count", "count"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

/// The rules that hold in both groups.
pub(super) fn legacy(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let event = Event(object);
    let namespace = object.str_at(&["metadata", "namespace"]);
    let about = object.str_at(&["involvedObject", "namespace"]);
    let involved = Path::root("involvedObject");
    let path = involved.child("namespace");
    let dated = !event.event_time().unwrap_or("").is_empty();
    let mismatch = match (dated, about.is_empty()) {
        (false, true) => !matches!(namespace, "" | "default"),
        (false, false) => namespace != about,
        (true, empty) => empty && !matches!(namespace, "default" | "kube-system"),
    };
    if mismatch {
        errors.push(FieldError::invalid(&path, about, "does not match event.namespace"));
    }
    if dated {
        let path = Path::root("reportingController");
        let controller = event.reporting_component().unwrap_or("");
        required(&mut errors, &path, Some(controller));
        problems(&mut errors, &path, controller, names::qualified_name(controller));
        short(&mut errors, "reportingInstance", event.reporting_instance());
        short(&mut errors, "action", event.action());
        short(&mut errors, "reason", event.reason());
        if event.message().unwrap_or("").len() > MAX_NOTE {
            let why = format!("can have at most {MAX_NOTE} characters");
            errors.push(FieldError::invalid(&Path::root("message"), "", why));
        }
    }
    problems(&mut errors, &Path::root("namespace"), namespace, names::dns1123_subdomain(namespace));
    errors
}

fn short(errors: &mut Errors, field: &str, value: Option<&str>) {
    let path = Path::root(field);
    required(errors, &path, value);
    if value.unwrap_or("").len() > MAX_SHORT {
        let why = format!("can have at most {MAX_SHORT} characters");
        errors.push(FieldError::invalid(&path, "", why));
    }
}

pub(super) fn legacy_update(_: &str, new: &Map, _: &Map) -> Errors {
    legacy(new)
}

/// A new event of events.k8s.io, in the stored shape.
pub(super) fn strict(object: &Map) -> Errors {
    let mut errors = legacy(object);
    let event = Event(object);
    series(&mut errors, event);
    required(&mut errors, &Path::root("eventTime"), event.event_time());
    let kind = event.type_().unwrap_or("");
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(FieldError::invalid(&Path::root("type"), "", format!("has invalid value: {kind}")));
    }
    let source = event.source();
    let given = [
        ("firstTimestamp", !event.first_timestamp().unwrap_or("").is_empty()),
        ("lastTimestamp", !event.last_timestamp().unwrap_or("").is_empty()),
        ("count", event.count().unwrap_or(0) != 0),
        (
            "source",
            source.is_some_and(|source| {
                !source.component().unwrap_or("").is_empty() || !source.host().unwrap_or("").is_empty()
            }),
        ),
    ];
    for (field, _) in given.into_iter().filter(|(_, given)| *given) {
        errors.push(FieldError::invalid(&Path::root(field), "", UNSET));
    }
    errors
}

pub(super) fn strict_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = legacy(new);
    if !same(new.get("series"), old.get("series")) {
        series(&mut errors, Event(new));
    }
    for (field, shown) in FIXED {
        // What is absent and what is empty is the same to Go for these.
        let of = |map: &Map| map.get(field).filter(|value| value.as_str() != Some("")).cloned();
        let (now, was): (Option<Value>, Option<Value>) = (of(new), of(old));
        let none = Value::from("");
        let gone = was.as_ref().filter(|was| was.as_str().is_some()).map(|_| &none);
        immutable(&mut errors, &Path::root(shown), now.as_ref().or(gone), was.as_ref());
    }
    errors
}

fn series(errors: &mut Errors, event: Event<'_>) {
    let Some(series) = event.series() else { return };
    if series.count().unwrap_or(0) < 2 {
        errors.push(FieldError::invalid(&"series.count", "", "should be at least 2"));
    }
    if series.last_observed_time().unwrap_or("").is_empty() {
        errors.push(FieldError::required(&"series.lastObservedTime", ""));
    }
}
