//! Roles and bindings.

use super::fields::{Errors, json_list, label_selector, problems, required};
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::rbac_v1::{ClusterRole, PolicyRule, RoleRef, Subject};
use api::field::Raw;
use api::{FieldError, Path, names};

const GROUP: &str = "rbac.authorization.k8s.io";

fn rules(errors: &mut Errors, object: &Map, namespaced: bool) {
    let root = Path::root("rules");
    let list: List<'_, PolicyRule<'_>> = List::new(object.get("rules").and_then(Value::as_list).unwrap_or_default());
    for (i, rule) in list.iter().enumerate() {
        let path = root.index(i);
        if rule.verbs().is_empty() {
            errors.push(FieldError::required(&path.child("verbs"), "verbs must contain at least one value"));
        }
        let urls = rule.non_resource_urls();
        if !urls.is_empty() {
            let path = path.child("nonResourceURLs");
            if namespaced {
                let why = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(&path, json_list(urls), why));
            }
            if !(rule.api_groups().is_empty() && rule.resources().is_empty() && rule.resource_names().is_empty()) {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(&path, json_list(urls), why));
            }
            continue;
        }
        if rule.api_groups().is_empty() {
            let why = "resource rules must supply at least one api group";
            errors.push(FieldError::required(&path.child("apiGroups"), why));
        }
        if rule.resources().is_empty() {
            let why = "resource rules must supply at least one resource";
            errors.push(FieldError::required(&path.child("resources"), why));
        }
    }
}

pub(super) fn role(object: &Map) -> Errors {
    let mut errors = Errors::new();
    rules(&mut errors, object, true);
    errors
}

pub(super) fn cluster_role(object: &Map) -> Errors {
    let mut errors = Errors::new();
    rules(&mut errors, object, false);
    if let Some(aggregation) = ClusterRole(object).aggregation_rule() {
        let root = Path::root("aggregationRule");
        let path = root.child("clusterRoleSelectors");
        if aggregation.cluster_role_selectors().is_empty() {
            let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            errors.push(FieldError::required(&path, why));
        }
        for (i, selector) in aggregation.cluster_role_selectors().iter().enumerate() {
            label_selector(&mut errors, &path.index(i), Some(selector));
        }
    }
    errors
}

fn binding(object: &Map, namespaced: bool) -> Errors {
    let mut errors = Errors::new();
    let path = Path::root("roleRef");
    let empty = Map::new();
    let role = RoleRef(object.get("roleRef").and_then(Value::as_map).unwrap_or(&empty));
    let group = role.api_group().unwrap_or("");
    if group != GROUP {
        errors.push(FieldError::not_supported(&path.child("apiGroup"), group, &[GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    super::fields::supported_of(&mut errors, &path.child("kind"), Some(role.kind().unwrap_or("")), kinds);
    if required(&mut errors, &path.child("name"), role.name()) {
        let name = role.name().unwrap_or("");
        problems(&mut errors, &path.child("name"), name, names::path_segment(name));
    }
    let root = Path::root("subjects");
    let list: List<'_, Subject<'_>> = List::new(object.get("subjects").and_then(Value::as_list).unwrap_or_default());
    for (i, one) in list.iter().enumerate() {
        subject(&mut errors, &root.index(i), one, namespaced);
    }
    errors
}

fn subject(errors: &mut Errors, path: &Path<'_>, subject: Subject<'_>, namespaced: bool) {
    let (name, group) = (subject.name().unwrap_or(""), subject.api_group().unwrap_or(""));
    required(errors, &path.child("name"), Some(name));
    match subject.kind().unwrap_or("") {
        "ServiceAccount" => {
            if !name.is_empty() {
                problems(errors, &path.child("name"), name, names::dns1123_subdomain(name));
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(&path.child("apiGroup"), group, &[""]));
            }
            if !namespaced {
                required(errors, &path.child("namespace"), subject.namespace());
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.push(FieldError::not_supported(&path.child("apiGroup"), group, &[GROUP]));
            }
        }
        other => {
            let supported = ["ServiceAccount", "User", "Group"];
            errors.push(FieldError::not_supported(&path.child("kind"), other, &supported));
        }
    }
}

fn changed(errors: &mut Errors, new: &Map, old: &Map) {
    if new.get("roleRef") != old.get("roleRef") {
        let text = |field| api::field::go_quote(new.str_at(&["roleRef", field]));
        let shown =
            format!("{{\"APIGroup\":{},\"Kind\":{},\"Name\":{}}}", text("apiGroup"), text("kind"), text("name"));
        errors.push(FieldError::invalid(&Path::root("roleRef"), Raw(shown), "cannot change roleRef"));
    }
}

pub(super) fn role_binding(object: &Map) -> Errors {
    binding(object, true)
}

pub(super) fn cluster_role_binding(object: &Map) -> Errors {
    binding(object, false)
}

pub(super) fn role_binding_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = binding(new, true);
    changed(&mut errors, new, old);
    errors
}

pub(super) fn cluster_role_binding_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = binding(new, false);
    changed(&mut errors, new, old);
    errors
}
