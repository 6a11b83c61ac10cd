//! PodDisruptionBudgets.

use super::conditions::conditions;
use super::fields::{
    Errors, Values, json, label_selector_with, non_negative, not_over_100_percent, positive_int_or_percent, shape,
    supported_of,
};
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::policy_v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use api::{FieldError, Path};

const SPEC: Path<'static> = Path::root("spec");

pub(super) fn create(object: &Map) -> Errors {
    checked(object, Values::Checked)
}

fn checked(object: &Map, values: Values) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let spec = PodDisruptionBudget(object).spec().unwrap_or(PodDisruptionBudgetSpec(&empty));
    if spec.min_available().is_some() && spec.max_unavailable().is_some() {
        let field = |name: &str| json(spec.0.get(name));
        let shown = shape(&[
            ("MinAvailable", field("minAvailable")),
            ("Selector", field("selector")),
            ("MaxUnavailable", field("maxUnavailable")),
            ("UnhealthyPodEvictionPolicy", field("unhealthyPodEvictionPolicy")),
        ]);
        errors.push(FieldError::invalid(&SPEC, shown, "minAvailable and maxUnavailable cannot be both set"));
    }
    for (field, value) in [("minAvailable", spec.min_available()), ("maxUnavailable", spec.max_unavailable())] {
        positive_int_or_percent(&mut errors, &SPEC.child(field), value);
        not_over_100_percent(&mut errors, &SPEC.child(field), value);
    }
    label_selector_with(&mut errors, &SPEC.child("selector"), spec.selector(), values);
    let path = SPEC.child("unhealthyPodEvictionPolicy");
    supported_of(&mut errors, &path, spec.unhealthy_pod_eviction_policy(), &["AlwaysAllow", "IfHealthyBudget"]);
    errors
}

pub(super) fn update(subresource: &str, new: &Map, old: &Map) -> Errors {
    if subresource != "status" {
        return checked(new, Values::after(PodDisruptionBudget(old).spec().and_then(|spec| spec.selector())));
    }
    let mut errors = Errors::new();
    let path = Path::root("status");
    let list = new.at(&["status", "conditions"]).and_then(Value::as_list).unwrap_or_default();
    conditions(&mut errors, &path.child("conditions"), List::new(list));
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        non_negative(&mut errors, &path.child(field), new.at(&["status", field]).and_then(Value::as_i64));
    }
    errors
}
