//! Runtime classes and priority classes.

use super::fields::{Errors, immutable, labels, problems, supported_of};
use super::pod::{resources, scheduling};
use super::shown::{TOLERATION, shown};
use crate::tree::Map;
use crate::view::List;
use crate::view::core_v1::Toleration;
use crate::view::node_v1::RuntimeClass;
use crate::view::scheduling_v1::PriorityClass;
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

const SYSTEM: &str = "system-";
const HIGHEST_OF_USERS: i64 = 1_000_000_000;
/// The priority classes that every cluster has, and their values.
pub const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub(super) fn runtime(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let class = RuntimeClass(object);
    let handler = class.handler().unwrap_or("");
    problems(&mut errors, &Path::root("handler"), handler, names::dns1123_label(handler));
    if let Some(overhead) = class.overhead() {
        resources::overhead(&mut errors, &Path::root("overhead"), overhead.pod_fixed(), false);
    }
    if let Some(rules) = class.scheduling() {
        let path = Path::root("scheduling");
        labels(&mut errors, &path.child("nodeSelector"), rules.node_selector());
        scheduling::tolerations(&mut errors, &path.child("tolerations"), rules.tolerations(), false);
        repeated(&mut errors, &path.child("tolerations"), rules.tolerations());
    }
    errors
}

/// Tolerations that say the same as one before, whatever their time.
fn repeated(errors: &mut Errors, path: &Path<'_>, tolerations: List<'_, Toleration<'_>>) {
    let mut seen = BTreeSet::new();
    for (i, one) in tolerations.iter().enumerate() {
        let parts = [one.key(), one.operator(), one.value(), one.effect()].map(|part| part.unwrap_or(""));
        if !seen.insert(parts) {
            errors.push(FieldError::duplicate(&path.index(i), shown(one.0, TOLERATION)));
        }
    }
}

pub(super) fn runtime_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = runtime(new);
    immutable(&mut errors, &Path::root("handler"), new.get("handler"), old.get("handler"));
    errors
}

pub(super) fn priority(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let class = PriorityClass(object);
    let name = object.str_at(&["metadata", "name"]);
    let value = class.value().unwrap_or(0);
    if name.starts_with(SYSTEM) {
        let why = match SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, known)) if *known != value => Some(format!("value of {name} PriorityClass must be {known}")),
            Some(_) if class.global_default() == Some(true) => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        if let Some(why) = why {
            let metadata = Path::root("metadata");
            let why =
                format!("priority class names with '{SYSTEM}' prefix are reserved for system use only. error: {why}");
            errors.push(FieldError::forbidden(&metadata.child("name"), why));
        }
    } else if value > HIGHEST_OF_USERS {
        let why = format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}");
        errors.push(FieldError::forbidden(&Path::root("value"), why));
    }
    let policies = ["PreemptLowerPriority", "Never"];
    match class.preemption_policy() {
        Some("") => errors.push(FieldError::required(&Path::root("preemptionPolicy"), "")),
        policy => supported_of(&mut errors, &Path::root("preemptionPolicy"), policy, &policies),
    }
    errors
}

pub(super) fn priority_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    if PriorityClass(new).value().unwrap_or(0) != PriorityClass(old).value().unwrap_or(0) {
        errors.push(FieldError::forbidden(&Path::root("value"), "may not be changed in an update."));
    }
    let field = "preemptionPolicy";
    immutable(&mut errors, &Path::root(field), new.get(field), old.get(field));
    errors
}
