//! Device classes, claims and claim templates: what is asked for. Expressions are checked where they are compiled.

use super::{at_most, named, names, opaque, request_refs, tolerations, unique};
use crate::tree::{Map, Value};
use crate::validation::fields::{Errors, immutable, same};
use crate::validation::{metadata, pod};
use crate::view::List;
use crate::view::resource_v1::{
    DeviceClaim, DeviceClass, DeviceConstraint, DeviceRequest, DeviceSelector, ResourceClaim, ResourceClaimTemplate,
};
use api::field::Raw;
use api::{FieldError, Path, names as words};
use std::collections::{BTreeMap, BTreeSet};

const SPEC: Path<'static> = Path::root("spec");
pub(super) const MAX_REQUESTS: usize = 32;
const MAX_CONSTRAINTS: usize = 32;
pub(super) const MAX_CONFIG: usize = 32;
const MAX_SELECTORS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MAX_EXPRESSION: usize = 10 * 1024;

/// The names of a claim's requests, each with its alternatives.
pub(super) struct Requests<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Requests<'a> {
    pub(super) fn of(claim: Option<DeviceClaim<'a>>) -> Self {
        let requests = claim.map_or(List::new(&[]), |claim| claim.requests());
        let named = |request: DeviceRequest<'a>| {
            let alternatives = request.first_available().iter().filter_map(|alternative| alternative.name());
            (request.name().unwrap_or(""), alternatives.collect())
        };
        Requests(requests.iter().map(named).collect())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        let (request, alternative) = name.split_once('/').map_or((name, None), |(one, two)| (one, Some(two)));
        self.0.get(request).is_some_and(|known| alternative.is_none_or(|alternative| known.contains(alternative)))
    }
}

pub(in crate::validation) fn claim(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let spec = ResourceClaim(object).spec();
    device_claim(&mut errors, &SPEC.child("devices"), spec.and_then(|spec| spec.devices()));
    errors
}

pub(in crate::validation) fn claim_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    if subresource == "status" {
        return super::status::update(new, old);
    }
    unchanged(new, old)
}

/// What can't be changed need not be judged again.
fn unchanged(new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    immutable(&mut errors, &SPEC, new.get("spec"), old.get("spec"));
    errors
}

pub(in crate::validation) fn template(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let spec = ResourceClaimTemplate(object).spec();
    metadata::template(&mut errors, &SPEC.child("metadata"), spec.and_then(|spec| spec.metadata()));
    let inner = SPEC.child("spec");
    let devices = spec.and_then(|spec| spec.spec()).and_then(|spec| spec.devices());
    device_claim(&mut errors, &inner.child("devices"), devices);
    errors
}

pub(in crate::validation) fn template_update(_: &str, new: &Map, old: &Map) -> Errors {
    unchanged(new, old)
}

fn device_claim(errors: &mut Errors, path: &Path<'_>, claim: Option<DeviceClaim<'_>>) {
    let Some(claim) = claim else { return };
    let requests = Requests::of(Some(claim));
    let here = path.child("requests");
    if at_most(errors, &here, claim.requests().len(), MAX_REQUESTS) {
        for (i, one) in claim.requests().iter().enumerate() {
            request(errors, &here.index(i), one);
        }
        unique(errors, &here, claim.requests().iter().map(|request| request.name().unwrap_or("")));
    }
    let here = path.child("constraints");
    if at_most(errors, &here, claim.constraints().len(), MAX_CONSTRAINTS) {
        for (i, one) in claim.constraints().iter().enumerate() {
            constraint(errors, &here.index(i), one, &requests);
        }
    }
    let here = path.child("config");
    if at_most(errors, &here, claim.config().len(), MAX_CONFIG) {
        for (i, config) in claim.config().iter().enumerate() {
            let path = here.index(i);
            request_refs(errors, &path, config.requests(), &requests);
            opaque(errors, &path, config.opaque(), false);
        }
    }
}

fn request(errors: &mut Errors, path: &Path<'_>, request: DeviceRequest<'_>) {
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    let name = request.name().unwrap_or("");
    crate::validation::fields::problems(errors, &path.child("name"), name, words::dns1123_label(name));
    let alternatives = request.first_available();
    match (request.exactly(), alternatives.is_empty()) {
        (None, true) => errors.push(FieldError::required(path, ONE)),
        (Some(_), false) => {
            let why = format!("{ONE}, but multiple fields are set");
            errors.push(FieldError::invalid(path, Raw("\"null\"".to_owned()), why));
        }
        (Some(exactly), true) => {
            let path = path.child("exactly");
            asked(
                errors,
                &path,
                exactly.device_class_name(),
                exactly.selectors(),
                exactly.allocation_mode(),
                exactly.count(),
            );
            tolerations(errors, &path, exactly.tolerations());
        }
        (None, false) => {
            let path = path.child("firstAvailable");
            if !at_most(errors, &path, alternatives.len(), MAX_ALTERNATIVES) {
                return;
            }
            for (i, one) in alternatives.iter().enumerate() {
                let path = path.index(i);
                let name = one.name().unwrap_or("");
                crate::validation::fields::problems(errors, &path.child("name"), name, words::dns1123_label(name));
                asked(errors, &path, one.device_class_name(), one.selectors(), one.allocation_mode(), one.count());
                tolerations(errors, &path, one.tolerations());
            }
            unique(errors, &path, alternatives.iter().map(|one| one.name().unwrap_or("")));
        }
    }
}

/// What a request and an alternative have in common.
fn asked(
    errors: &mut Errors,
    path: &Path<'_>,
    class: Option<&str>,
    list: List<'_, DeviceSelector<'_>>,
    mode: Option<&str>,
    count: Option<i64>,
) {
    named(errors, &path.child("deviceClassName"), class, words::dns1123_subdomain);
    selectors(errors, &path.child("selectors"), list, false);
    let count = count.unwrap_or(0);
    match mode.unwrap_or("") {
        "All" if count != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(&path.child("count"), count, why));
        }
        "All" => {}
        "ExactCount" if count <= 0 => {
            errors.push(FieldError::invalid(&path.child("count"), count, "must be greater than zero"));
        }
        "ExactCount" => {}
        other => {
            let supported = ["All", "ExactCount"];
            errors.push(FieldError::not_supported(&path.child("allocationMode"), other, &supported));
        }
    }
}

fn selectors(errors: &mut Errors, path: &Path<'_>, list: List<'_, DeviceSelector<'_>>, stored: bool) {
    if !at_most(errors, path, list.len(), MAX_SELECTORS) {
        return;
    }
    for (i, selector) in list.iter().enumerate() {
        let path = path.index(i);
        let path = path.child("cel");
        match selector.cel() {
            None => errors.push(FieldError::required(&path, "")),
            Some(cel) if !stored && cel.expression().unwrap_or("").len() > MAX_EXPRESSION => {
                errors.push(FieldError::too_long(&path.child("expression"), MAX_EXPRESSION));
            }
            Some(_) => {}
        }
    }
}

fn constraint(errors: &mut Errors, path: &Path<'_>, constraint: DeviceConstraint<'_>, requests: &Requests<'_>) {
    request_refs(errors, path, constraint.requests(), requests);
    if let Some(name) = constraint.match_attribute() {
        names::fully_qualified(errors, &path.child("matchAttribute"), name);
    } else if let Some(name) = constraint.distinct_attribute() {
        names::fully_qualified(errors, &path.child("distinctAttribute"), name);
    } else {
        let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
        errors.push(FieldError::required(path, why));
    }
}

pub(in crate::validation) fn class(object: &Map) -> Errors {
    class_spec(object, None)
}

pub(in crate::validation) fn class_update(_: &str, new: &Map, old: &Map) -> Errors {
    class_spec(new, Some(old))
}

/// What did not change is not judged again.
fn class_spec(object: &Map, old: Option<&Map>) -> Errors {
    let mut errors = Errors::new();
    let Some(spec) = DeviceClass(object).spec() else { return errors };
    let stored = |field| {
        let of = |map: &Map| map.at(&["spec", field]).cloned();
        old.is_some_and(|old| same(of(object).as_ref(), of(old).as_ref()))
    };
    selectors(&mut errors, &SPEC.child("selectors"), spec.selectors(), stored("selectors"));
    let path = SPEC.child("config");
    let kept: bool = stored("config");
    if at_most(&mut errors, &path, spec.config().len(), MAX_CONFIG) {
        for (i, config) in spec.config().iter().enumerate() {
            opaque(&mut errors, &path.index(i), config.opaque(), kept);
        }
    }
    if let Some(name) = spec.extended_resource_name().filter(|name| !pod::resources::is_extended(name)) {
        let path = SPEC.child("extendedResourceName");
        errors.push(FieldError::invalid(&path, name, "must be a valid extended resource name"));
    }
    errors
}

/// The claim that a status belongs to.
pub(super) fn devices(object: &Map) -> Option<DeviceClaim<'_>> {
    object.at(&["spec", "devices"]).and_then(Value::as_map).map(DeviceClaim)
}
