//! Cells of requests for certificates.

use super::{NONE, maps};
use jiff::Timestamp;
use schema::{Map, Value};

/// Which of the conditions that end a request it has.
pub(super) fn certificate_state(object: &Map, _: Timestamp) -> Value {
    let mut types = maps(object, &["status", "conditions"]).map(|c| c.str_at(&["type"]));
    types.find(|ty| matches!(*ty, "Issued" | "Denied" | "Failed")).unwrap_or("Pending").into()
}

pub(super) fn requested_duration(object: &Map, _: Timestamp) -> Value {
    match object.at(&["spec", "expirationSeconds"]).and_then(Value::as_i64) {
        Some(seconds) => api::duration::human(seconds).into(),
        None => NONE.into(),
    }
}

pub(super) fn signing_condition(object: &Map, _: Timestamp) -> Value {
    let has = |ty: &str| maps(object, &["status", "conditions"]).any(|c| c.str_at(&["type"]) == ty);
    let mut state = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !object.str_at(&["status", "certificate"]).is_empty() {
        state.push_str(",Issued");
    }
    state.into()
}
