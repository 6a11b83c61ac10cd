//! Taints of devices: those that drivers tell in slices, and those that an administrator gives by rule.

use super::{EFFECTS, at_most, names};
use crate::tree::{Map, Value};
use crate::validation::conditions::conditions;
use crate::validation::fields::{Errors, problems, required_of};
use crate::view::List;
use api::{Path, names as words};

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
const MAX_CONDITIONS: usize = 8;

/// A taint of any version. An effect that the `old` one has is not judged again.
pub(super) fn taint(errors: &mut Errors, path: &Path<'_>, taint: &Map, old: Option<&Map>) {
    let (key, value) = (taint.str_at(&["key"]), taint.str_at(&["value"]));
    problems(errors, &path.child("key"), key, words::qualified_name(key));
    problems(errors, &path.child("value"), value, words::label_value(value));
    let effect = taint.str_at(&["effect"]);
    if old.is_none_or(|old| old.str_at(&["effect"]) != effect) {
        required_of(errors, &path.child("effect"), Some(effect), &EFFECTS);
    }
}

fn rule(object: &Map, old: Option<&Map>) -> Errors {
    let mut errors = Errors::new();
    let path = SPEC.child("deviceSelector");
    let asked = |field| object.at(&["spec", "deviceSelector", field]).and_then(Value::as_str);
    if let Some(driver) = asked("driver") {
        names::driver(&mut errors, &path.child("driver"), driver);
    }
    if let Some(pool) = asked("pool") {
        names::pool(&mut errors, &path.child("pool"), pool);
    }
    if let Some(device) = asked("device") {
        problems(&mut errors, &path.child("device"), device, words::dns1123_label(device));
    }
    let empty = Map::new();
    let of = |object| Map::at(object, &["spec", "taint"]).and_then(Value::as_map);
    taint(&mut errors, &SPEC.child("taint"), of(object).unwrap_or(&empty), old.and_then(of));
    errors
}

pub(in crate::validation) fn taint_rule(object: &Map) -> Errors {
    rule(object, None)
}

pub(in crate::validation) fn taint_rule_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    if subresource != "status" {
        return rule(new, Some(old));
    }
    let mut errors = Errors::new();
    let list = new.at(&["status", "conditions"]).and_then(Value::as_list).unwrap_or_default();
    let path = STATUS.child("conditions");
    conditions(&mut errors, &path, List::new(list));
    at_most(&mut errors, &path, list.len(), MAX_CONDITIONS);
    errors
}
