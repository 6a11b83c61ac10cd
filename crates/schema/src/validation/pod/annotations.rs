//! Annotations that mean something of a pod, on pods and on templates. Some are of the time before there were fields, and
//! must say the same as these.

use super::container::of_all_kinds;
use super::{MIRROR, Options, scheduling};
use crate::tree::{Map, Value};
use crate::validation::fields::{Errors, local_descending_path};
use crate::view::StrMap;
use crate::view::core_v1::{Pod, PodSpec, SeccompProfile, Toleration};
use api::field::go_quote;
use api::{FieldError, Path};
use std::collections::BTreeSet;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
pub(super) const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub(super) const SECCOMP_OF: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub(super) const APP_ARMOR_OF: &str = "container.apparmor.security.beta.kubernetes.io/";
/// What begins the name of a profile of the node.
const LOCALHOST: &str = "localhost/";

/// The annotations of a pod or a template; `path` is theirs. Those that were there before, beside the same containers, are
/// not looked at: they may be of a time when nobody did.
pub(super) fn check(
    errors: &mut Errors,
    path: &Path<'_>,
    annotations: StrMap<'_>,
    spec: PodSpec<'_>,
    options: Options<'_>,
) {
    if annotations.is_empty() || options.keeps_annotations(annotations, spec) {
        return;
    }
    if let Some(value) = annotations.get(MIRROR)
        && spec.node_name().unwrap_or("").is_empty()
    {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(&path.key(MIRROR), value, why));
    }
    if let Some(text) = annotations.get(TOLERATIONS).filter(|text| !text.is_empty()) {
        match tolerations(text) {
            Err(why) => errors.push(FieldError::invalid(path, TOLERATIONS, why)),
            Ok(list) => {
                let list = crate::view::List::<Toleration<'_>>::new(&list);
                scheduling::tolerations(errors, &path.child(TOLERATIONS), list, options.compares_taints());
            }
        }
    }
    if options.checks_deletion_cost() && !has_deletion_cost(annotations) {
        let value = annotations.get(DELETION_COST).unwrap_or("");
        errors.push(FieldError::invalid(&path.key(DELETION_COST), value, "must be a 32bit integer"));
    }
    if let Some(profile) = annotations.get(SECCOMP) {
        seccomp(errors, &path.child(SECCOMP), profile);
    }
    for (key, profile) in annotations.iter().filter(|(key, _)| key.starts_with(SECCOMP_OF)) {
        seccomp(errors, &path.child(key), profile);
    }
    let mut names: Option<BTreeSet<&str>> = None;
    for (key, profile) in annotations.iter() {
        let Some(name) = key.strip_prefix(APP_ARMOR_OF) else { continue };
        let names =
            names.get_or_insert_with(|| of_all_kinds(spec).filter_map(|(.., container)| container.name()).collect());
        if !names.contains(name) {
            errors.push(FieldError::invalid(&path.key(key), name, "container not found"));
        }
        if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with(LOCALHOST) {
            let why = format!("invalid AppArmor profile name: {}", go_quote(profile));
            errors.push(FieldError::invalid(&path.key(key), profile, why));
        }
    }
}

/// Whether there are annotations whose keys begin so.
pub(super) fn has_any(annotations: StrMap<'_>, prefix: &str) -> bool {
    annotations.iter().any(|(key, _)| key.starts_with(prefix))
}

/// Whether the price of a pod's deletion is a number as upstream writes it, or none is said.
pub(super) fn has_deletion_cost(annotations: StrMap<'_>) -> bool {
    annotations.get(DELETION_COST).is_none_or(|value| {
        let first = value.bytes().next();
        (value == "0" || first.is_some_and(|first| first == b'-' || matches!(first, b'1'..=b'9')))
            && value.parse::<i32>().is_ok()
    })
}

fn seccomp(errors: &mut Errors, path: &Path<'_>, profile: &str) {
    if matches!(profile, "runtime/default" | "docker/default" | "unconfined") {
        return;
    }
    match profile.strip_prefix(LOCALHOST) {
        Some(profile) => local_descending_path(errors, path, profile),
        None => errors.push(FieldError::invalid(path, profile, "must be a valid seccomp profile")),
    }
}

/// The tolerations of an annotation, or what Go says of what is none. Go takes the names of fields in any case.
fn tolerations(text: &str) -> Result<Vec<Value>, String> {
    const FIELDS: [(&str, &str); 5] = [
        ("key", "Key"),
        ("operator", "Operator"),
        ("value", "Value"),
        ("effect", "Effect"),
        ("tolerationSeconds", "TolerationSeconds"),
    ];
    let kind = |value: &Value| match value {
        Value::Map(_) => "object",
        Value::List(_) => "array",
        Value::Str(_) => "string",
        Value::Bool(_) => "bool",
        _ => "number",
    };
    let list = match crate::json::parse(text.as_bytes()).map_err(|error| error.to_string())? {
        Value::Null => return Ok(Vec::new()),
        Value::List(list) => list,
        other => {
            return Err(format!("json: cannot unmarshal {} into Go value of type []core.Toleration", kind(&other)));
        }
    };
    let mut all = Vec::new();
    for one in list {
        let map = match one {
            Value::Null => Map::new(),
            Value::Map(map) => map,
            other => {
                return Err(format!("json: cannot unmarshal {} into Go value of type core.Toleration", kind(&other)));
            }
        };
        let mut toleration = Map::new();
        for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
            let Some((field, name)) = FIELDS.iter().find(|(field, _)| field.eq_ignore_ascii_case(key)) else {
                continue;
            };
            let (fits, ty) = match *field {
                "tolerationSeconds" => (value.as_i64().is_some(), "int64"),
                "operator" => (value.as_str().is_some(), "core.TolerationOperator"),
                "effect" => (value.as_str().is_some(), "core.TaintEffect"),
                _ => (value.as_str().is_some(), "string"),
            };
            if !fits {
                let kind = kind(value);
                return Err(format!(
                    "json: cannot unmarshal {kind} into Go struct field Toleration.{name} of type {ty}"
                ));
            }
            toleration.insert(*field, value.clone());
        }
        all.push(Value::Map(toleration));
    }
    Ok(all)
}

/// What may change of the annotations of a pod.
pub(super) fn update(errors: &mut Errors, new: Pod<'_>, old: Pod<'_>, options: Options<'_>) {
    let metadata = Path::root("metadata");
    let path = metadata.child("annotations");
    let of =
        |pod: Pod<'_>| pod.metadata().and_then(|metadata| metadata.annotations().map().cloned()).unwrap_or_default();
    let (now, was) = (of(new), of(old));
    let what = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        key if key.starts_with(APP_ARMOR_OF) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, _) in was.iter().filter(|(key, value)| now.get(key) != Some(value)) {
        if let Some(what) = what(key) {
            errors.push(FieldError::forbidden(&path.key(key), format!("may not remove or update {what}")));
        }
    }
    for (key, _) in now.iter().filter(|(key, _)| !was.contains_key(key)) {
        if let Some(what) = what(key) {
            errors.push(FieldError::forbidden(&path.key(key), format!("may not add {what}")));
        }
    }
    // Upstream looks at them again here, so what is wrong is told twice.
    if let (Some(metadata), Some(spec)) = (new.metadata(), new.spec()) {
        check(errors, &path, metadata.annotations(), spec, options);
    }
}

/// Annotations of seccomp say the same as the fields; `path` is the spec's.
pub(super) fn seccomp_fields(errors: &mut Errors, path: &Path<'_>, annotations: StrMap<'_>, spec: PodSpec<'_>) {
    let whole = spec.security_context().and_then(|context| context.seccomp_profile());
    if let (Some(profile), Some(annotation)) = (whole, annotations.get(SECCOMP)) {
        let path = path.child("securityContext");
        same_seccomp(errors, &path.child("seccompProfile"), profile, annotation);
    }
    if !has_any(annotations, SECCOMP_OF) {
        return;
    }
    for (field, i, container) in of_all_kinds(spec) {
        let profile = container.security_context().and_then(|context| context.seccomp_profile());
        let annotation = annotation_of(annotations, SECCOMP_OF, container.name());
        if let (Some(profile), Some(annotation)) = (profile, annotation) {
            let list = path.child(field);
            let container = list.index(i);
            let context = container.child("securityContext");
            same_seccomp(errors, &context.child("seccompProfile"), profile, annotation);
        }
    }
}

/// The annotation of a container.
fn annotation_of<'a>(annotations: StrMap<'a>, prefix: &str, name: Option<&str>) -> Option<&'a str> {
    annotations.get(&format!("{prefix}{}", name.unwrap_or("")))
}

fn same_seccomp(errors: &mut Errors, path: &Path<'_>, profile: SeccompProfile<'_>, annotation: &str) {
    let defaults = ["runtime/default", "docker/default"];
    same_profile(errors, path, "seccomp", (profile.type_(), profile.localhost_profile()), &defaults, annotation);
}

/// Annotations of AppArmor say the same as the fields, that of the pod for containers that have none.
pub(super) fn app_armor_fields(errors: &mut Errors, path: &Path<'_>, annotations: StrMap<'_>, spec: PodSpec<'_>) {
    if !has_any(annotations, APP_ARMOR_OF) || spec.os().and_then(|os| os.name()) == Some("windows") {
        return;
    }
    let whole = spec.security_context().and_then(|context| context.app_armor_profile());
    for (field, i, container) in of_all_kinds(spec) {
        let own = container.security_context().and_then(|context| context.app_armor_profile());
        let annotation = annotation_of(annotations, APP_ARMOR_OF, container.name());
        if let (Some(profile), Some(annotation)) = (own.or(whole), annotation) {
            let list = path.child(field);
            let container = list.index(i);
            let context = container.child("securityContext");
            let said = (profile.type_(), profile.localhost_profile());
            same_profile(errors, &context.child("appArmorProfile"), "apparmor", said, &["runtime/default"], annotation);
        }
    }
}

/// Whether an annotation says what a field does; `defaults` are the names of the runtime's own profile.
fn same_profile(
    errors: &mut Errors,
    path: &Path<'_>,
    what: &str,
    (kind, local): (Option<&str>, Option<&str>),
    defaults: &[&str],
    annotation: &str,
) {
    let same_type = match kind.unwrap_or("") {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => defaults.contains(&annotation),
        "Localhost" => annotation.starts_with(LOCALHOST),
        _ => return,
    };
    if !same_type {
        let why = format!("{what} type in annotation and field must match");
        errors.push(FieldError::forbidden(&path.child("type"), why));
    } else if kind == Some("Localhost") && annotation.strip_prefix(LOCALHOST) != local {
        let why = format!("{what} profile in annotation and field must match");
        errors.push(FieldError::forbidden(&path.child("localhostProfile"), why));
    }
}
