//! Cells of devices: claims, pools, taints.

use super::{ago, int, maps};
use jiff::Timestamp;
use schema::{Map, Value};

pub(super) fn claim_state(object: &Map, _: Timestamp) -> Value {
    let mut states = Vec::new();
    if object.at(&["metadata", "deletionTimestamp"]).is_some() {
        states.push("deleted");
    }
    if object.at(&["status", "allocation"]).is_some() {
        states.push("allocated");
        if super::count(object, &["status", "reservedFor"]) > 0 {
            states.push("reserved");
        }
    }
    if states.is_empty() {
        states.push("pending");
    }
    states.join(",").into()
}

/// Devices of all pools that are told, of one sort; nothing as long as nothing is told.
pub(super) fn devices_of_pools(object: &Map, sort: &str) -> Value {
    if object.at(&["status"]).is_none() {
        return "".into();
    }
    maps(object, &["status", "pools"]).map(|pool| int(pool, &[sort])).sum::<i64>().to_string().into()
}

pub(super) fn pool_errors(object: &Map, _: Timestamp) -> Value {
    if object.at(&["status"]).is_none() {
        return "".into();
    }
    let errors = maps(object, &["status", "pools"]).filter(|pool| !pool.str_at(&["validationError"]).is_empty());
    errors.count().to_string().into()
}

/// The condition that says how a request for the state of pools has ended.
pub(super) fn pools_condition(object: &Map) -> Option<&Map> {
    let ended = |c: &&Map| matches!(c.str_at(&["type"]), "Complete" | "Failed") && c.str_at(&["status"]) == "True";
    maps(object, &["status", "conditions"]).find(ended)
}

pub(super) fn tainted_since(object: &Map, now: Timestamp) -> Value {
    match object.str_at(&["spec", "taint", "timeAdded"]) {
        "" => "".into(),
        added => ago(added, now).into(),
    }
}
