//! Requests to tell what is left of the pools of a driver. Each is answered once.

use super::{at_most, names};
use crate::tree::{Map, Value};
use crate::validation::conditions::conditions;
use crate::validation::fields::{
    Errors, IMMUTABLE, at_least, json, problems, required, same, shape, shown_list, unchangeable,
};
use crate::view::resource_v1alpha3::{
    PoolStatus, ResourcePoolStatusRequest, ResourcePoolStatusRequestSpec, ResourcePoolStatusRequestStatus,
};
use api::{FieldError, Path, names as words};

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
/// Of pools: asked for, and told of.
const MAX_POOLS: i64 = 1000;
const MAX_CONDITIONS: usize = 10;
/// Bytes of what is wrong with a pool.
const MAX_TOLD: usize = 256;
static EMPTY: Map = Map::new();

pub(in crate::validation) fn pools(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let spec = ResourcePoolStatusRequest(object).spec().unwrap_or(ResourcePoolStatusRequestSpec(&EMPTY));
    let path = SPEC.child("driver");
    if required(&mut errors, &path, spec.driver()) {
        names::driver(&mut errors, &path, spec.driver().unwrap_or(""));
    }
    if let Some(pool) = spec.pool_name() {
        names::pool(&mut errors, &SPEC.child("poolName"), pool);
    }
    let path = SPEC.child("limit");
    match spec.limit() {
        // It has a default.
        None => errors.push(FieldError::required(&path, "")),
        Some(limit) if limit > MAX_POOLS => {
            errors.push(FieldError::invalid(&path, limit, format!("must be less than or equal to {MAX_POOLS}")));
        }
        Some(limit) => at_least(&mut errors, &path, limit, 1),
    }
    errors
}

pub(in crate::validation) fn pools_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    if subresource == "status" {
        answer(&mut errors, new, old);
    } else {
        unchangeable(&mut errors, &SPEC, new.get("spec"), old.get("spec"));
    }
    errors
}

fn answer(errors: &mut Errors, new: &Map, old: &Map) {
    let status = ResourcePoolStatusRequest(new).status();
    let changed = !same(new.get("status"), old.get("status"));
    if old.get("status").is_some_and(|status| !status.is_null()) {
        if changed {
            errors.push(FieldError::invalid(&STATUS, shown(status), IMMUTABLE));
        }
    } else if let Some(status) = status {
        conditions(errors, &STATUS.child("conditions"), status.conditions());
    }
    let Some(status) = status.filter(|_| changed) else { return };
    match status.pool_count() {
        None => errors.push(FieldError::required(&STATUS.child("poolCount"), "")),
        Some(count) => at_least(errors, &STATUS.child("poolCount"), count, 0),
    }
    let path = STATUS.child("pools");
    if at_most(errors, &path, status.pools().len(), usize::try_from(MAX_POOLS).unwrap_or(usize::MAX)) {
        for (i, pool) in status.pools().iter().enumerate() {
            told(errors, &path.index(i), pool);
        }
    }
    at_most(errors, &STATUS.child("conditions"), status.conditions().len(), MAX_CONDITIONS);
}

fn told(errors: &mut Errors, path: &Path<'_>, pool: PoolStatus<'_>) {
    if required(errors, &path.child("driver"), pool.driver()) {
        names::driver(errors, &path.child("driver"), pool.driver().unwrap_or(""));
    }
    names::pool(errors, &path.child("poolName"), pool.pool_name().unwrap_or(""));
    match pool.generation().unwrap_or(0) {
        0 => errors.push(FieldError::required(&path.child("generation"), "")),
        generation => at_least(errors, &path.child("generation"), generation, 0),
    }
    for (field, count, least) in [
        ("resourceSliceCount", pool.resource_slice_count(), 1),
        ("totalDevices", pool.total_devices(), 0),
        ("allocatedDevices", pool.allocated_devices(), 0),
        ("availableDevices", pool.available_devices(), 0),
        ("unavailableDevices", pool.unavailable_devices(), 0),
    ] {
        if let Some(count) = count {
            at_least(errors, &path.child(field), count, least);
        }
    }
    if let Some(node) = pool.node_name() {
        problems(errors, &path.child("nodeName"), node, words::dns1123_subdomain(node));
    }
    if pool.validation_error().is_some_and(|text| text.len() > MAX_TOLD) {
        errors.push(FieldError::too_long(&path.child("validationError"), MAX_TOLD));
    }
}

/// As Go's JSON writes its internal type.
fn shown(status: Option<ResourcePoolStatusRequestStatus<'_>>) -> api::field::Raw {
    let Some(status) = status else { return json(None) };
    let text = |map: &Map, field: &str| json(Some(map.get(field).unwrap_or(&Value::from(""))));
    let pool = |pool: PoolStatus<'_>| {
        let part = |name: &'static str, field: &str| (name, json(pool.0.get(field)));
        shape(&[
            ("Driver", text(pool.0, "driver")),
            ("PoolName", text(pool.0, "poolName")),
            ("Generation", json(Some(&Value::Int(pool.generation().unwrap_or(0))))),
            part("ResourceSliceCount", "resourceSliceCount"),
            part("TotalDevices", "totalDevices"),
            part("AllocatedDevices", "allocatedDevices"),
            part("AvailableDevices", "availableDevices"),
            part("UnavailableDevices", "unavailableDevices"),
            part("NodeName", "nodeName"),
            part("ValidationError", "validationError"),
        ])
    };
    shape(&[
        ("PoolCount", json(status.0.get("poolCount"))),
        ("Pools", shown_list(status.pools().iter().map(pool).collect())),
        ("Conditions", json(status.0.get("conditions"))),
    ])
}
