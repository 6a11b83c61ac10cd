//! Ingress classes.

use super::{SPEC, segment};
use crate::tree::Map;
use crate::validation::fields::{Errors, domain_prefixed_path, immutable, problems, required};
use crate::view::networking_v1::{IngressClass, IngressClassParametersReference, IngressClassSpec};
use api::{FieldError, Path, names};

const MAX_CONTROLLER: usize = 250;

pub(in crate::validation) fn class(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let spec = IngressClass(object).spec().unwrap_or(IngressClassSpec(&empty));
    let path = SPEC.child("controller");
    if required(&mut errors, &path, spec.controller()) {
        let controller = spec.controller().unwrap_or("");
        if controller.len() > MAX_CONTROLLER {
            errors.push(FieldError::too_long(&path, MAX_CONTROLLER));
        }
        domain_prefixed_path(&mut errors, &path, controller);
    }
    if let Some(reference) = spec.parameters() {
        parameters(&mut errors, &SPEC.child("parameters"), reference);
    }
    errors
}

fn parameters(errors: &mut Errors, path: &Path<'_>, reference: IngressClassParametersReference<'_>) {
    if let Some(group) = reference.api_group() {
        problems(errors, &path.child("apiGroup"), group, names::dns1123_subdomain(group));
    }
    segment(errors, &path.child("kind"), reference.kind());
    segment(errors, &path.child("name"), reference.name());
    let namespace = path.child("namespace");
    match (reference.scope(), reference.namespace()) {
        (None, _) => errors.push(FieldError::required(&path.child("scope"), "")),
        (Some("Namespace"), None) => {
            errors.push(FieldError::required(&namespace, "`parameters.scope` is set to 'Namespace'"));
        }
        (Some("Namespace"), Some(name)) => problems(errors, &namespace, name, names::dns1123_label(name)),
        (Some("Cluster"), Some(_)) => {
            errors.push(FieldError::forbidden(&namespace, "`parameters.scope` is set to 'Cluster'"));
        }
        (Some("Cluster"), None) => {}
        (Some(other), _) => {
            errors.push(FieldError::not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]));
        }
    }
}

pub(in crate::validation) fn class_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    let path = SPEC.child("controller");
    immutable(&mut errors, &path, new.at(&["spec", "controller"]), old.at(&["spec", "controller"]));
    errors.extend(class(new));
    errors
}
