//! Events: stored as core/v1, served as events.k8s.io/v1 too. The same fields under other names.

use super::{Conversion, rename};
use schema::{Map, Value};

pub(super) static CONVERSION: Conversion = Conversion {
    to_stored,
    from_stored,
    labels: Some(&[
        ("regarding.kind", "involvedObject.kind"),
        ("regarding.namespace", "involvedObject.namespace"),
        ("regarding.name", "involvedObject.name"),
        ("regarding.uid", "involvedObject.uid"),
        ("regarding.apiVersion", "involvedObject.apiVersion"),
        ("regarding.resourceVersion", "involvedObject.resourceVersion"),
        ("regarding.fieldPath", "involvedObject.fieldPath"),
        ("reportingController", "reportingComponent"),
        ("reason", "reason"),
        ("type", "type"),
    ]),
};

/// events.k8s.io/v1, core/v1.
const NAMES: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn to_stored(object: &mut Map) {
    rename(object, NAMES.into_iter());
    // core/v1 writes these even when nobody gave them.
    for (name, empty) in [
        ("involvedObject", Value::Map(Map::new())),
        ("source", Value::Map(Map::new())),
        ("firstTimestamp", Value::Null),
        ("lastTimestamp", Value::Null),
        ("eventTime", Value::Null),
        ("reportingComponent", Value::from("")),
        ("reportingInstance", Value::from("")),
    ] {
        if !object.contains_key(name) {
            object.insert(name, empty);
        }
    }
}

fn from_stored(object: &mut Map) {
    rename(object, NAMES.into_iter().map(|(served, stored)| (stored, served)));
    for optional in ["reportingController", "reportingInstance"] {
        if object.get(optional).and_then(Value::as_str) == Some("") {
            object.remove(optional);
        }
    }
}
