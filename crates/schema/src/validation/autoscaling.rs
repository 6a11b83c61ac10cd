//! HorizontalPodAutoscalers, in the version that is stored (v2).

use super::Features;
use super::fields::{Errors, json, non_negative, problems, quantity, required, supported_of};
use super::pod::resources;
use crate::tree::{Map, Value};
use crate::view::autoscaling_v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
};
use api::{FieldError, Path, names};

const SPEC: Path<'static> = Path::root("spec");
const MAX_PERIOD: i64 = 1800;
const MAX_WINDOW: i64 = 3600;
static EMPTY: Map = Map::new();

/// What a reference may leave out.
#[derive(Clone, Copy)]
enum Version {
    /// Not looked at: it was there before.
    Any,
    /// The core group, which has no name.
    Core,
    /// A group and a version.
    Group,
}

fn spec_of(object: &Map) -> HorizontalPodAutoscalerSpec<'_> {
    HorizontalPodAutoscaler(object).spec().unwrap_or(HorizontalPodAutoscalerSpec(&EMPTY))
}

pub(super) fn create(object: &Map, features: Features) -> Errors {
    checked(object, None, features)
}

pub(super) fn update(subresource: &str, new: &Map, old: &Map, features: Features) -> Errors {
    if subresource == "status" {
        let mut errors = Errors::new();
        let path = Path::root("status");
        for field in ["currentReplicas", "desiredReplicas"] {
            non_negative(&mut errors, &path.child(field), new.at(&["status", field]).and_then(Value::as_i64));
        }
        return errors;
    }
    checked(new, Some(spec_of(old)), features)
}

fn checked(object: &Map, old: Option<HorizontalPodAutoscalerSpec<'_>>, features: Features) -> Errors {
    let mut errors = Errors::new();
    let spec = spec_of(object);
    let (least, most) = (spec.min_replicas(), spec.max_replicas().unwrap_or(0));
    // Who may scale to nothing already keeps it.
    let to_zero = features.scale_to_zero || old.is_some_and(|old| old.min_replicas() == Some(0));
    let bound = i64::from(!to_zero);
    if let Some(least) = least.filter(|least| *least < bound) {
        let why = format!("must be greater than or equal to {bound}");
        errors.push(FieldError::invalid(&SPEC.child("minReplicas"), least, why));
    }
    let path = SPEC.child("maxReplicas");
    if most < 1 {
        errors.push(FieldError::invalid(&path, most, "must be greater than 0"));
    }
    if least.is_some_and(|least| most < least) {
        errors.push(FieldError::invalid(&path, most, "must be greater than or equal to `minReplicas`"));
    }
    let target = spec.scale_target_ref().unwrap_or(CrossVersionObjectReference(&EMPTY));
    let same_kind = old.and_then(|old| old.scale_target_ref()).is_some_and(|old| {
        old.kind() == target.kind() && old.api_version().unwrap_or("") == target.api_version().unwrap_or("")
    });
    let version = match target.kind() {
        _ if same_kind => Version::Any,
        Some("ReplicationController") => Version::Core,
        _ => Version::Group,
    };
    reference(&mut errors, &SPEC.child("scaleTargetRef"), target, version);
    metrics(&mut errors, spec, old);
    if let Some(behavior) = spec.behavior() {
        let path = SPEC.child("behavior");
        for (field, rules) in [("scaleUp", behavior.scale_up()), ("scaleDown", behavior.scale_down())] {
            if let Some(rules) = rules {
                scaling_rules(&mut errors, &path.child(field), rules);
            }
        }
    }
    errors
}

/// What is wrong with an `apiVersion`.
fn version_problem(text: &str, version: Version) -> Option<String> {
    let group = match text.split('/').collect::<Vec<_>>()[..] {
        [group, _] => group,
        [_] => "",
        _ => return Some(format!("unexpected GroupVersion string: {text}")),
    };
    let missing = matches!(version, Version::Group) && group.is_empty();
    missing.then(|| "apiVersion must specify API group".to_owned())
}

fn reference(errors: &mut Errors, path: &Path<'_>, target: CrossVersionObjectReference<'_>, version: Version) {
    for (field, value) in [("kind", target.kind()), ("name", target.name())] {
        if required(errors, &path.child(field), value) {
            let value = value.unwrap_or("");
            problems(errors, &path.child(field), value, names::path_segment(value));
        }
    }
    let text = target.api_version().unwrap_or("");
    if !matches!(version, Version::Any)
        && let Some(why) = version_problem(text, version)
    {
        errors.push(FieldError::invalid(&path.child("apiVersion"), text, why));
    }
}

fn metrics(errors: &mut Errors, spec: HorizontalPodAutoscalerSpec<'_>, old: Option<HorizontalPodAutoscalerSpec<'_>>) {
    let path = SPEC.child("metrics");
    let described = |metric: MetricSpec<'_>| {
        let object = metric.object().filter(|_| metric.type_() == Some("Object"))?;
        let text = object.described_object().and_then(|described| described.api_version()).unwrap_or("");
        version_problem(text, Version::Core)
    };
    let was_bad = old.is_some_and(|old| old.metrics().iter().any(|metric| described(metric).is_some()));
    let version = if was_bad { Version::Any } else { Version::Core };
    for (i, metric) in spec.metrics().iter().enumerate() {
        metric_rules(errors, &path.index(i), metric, version);
    }
    let counts_nothing = !spec.metrics().iter().any(|m| matches!(m.type_(), Some("Object" | "External")));
    if spec.min_replicas() == Some(0) && counts_nothing {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden(&path, why));
    }
}

fn metric_rules(errors: &mut Errors, path: &Path<'_>, metric: MetricSpec<'_>, version: Version) {
    const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    let kind = metric.type_().unwrap_or("");
    if kind.is_empty() {
        errors.push(FieldError::required(&path.child("type"), "must specify a metric source type"));
    }
    supported_of(errors, &path.child("type"), Some(kind), &TYPES);
    let present: Vec<&str> = ["object", "external", "pods", "resource", "containerResource"]
        .into_iter()
        .filter(|field| metric.0.get(field).is_some_and(|value| !value.is_null()))
        .collect();
    // Only the first one is looked into.
    if let Some(first) = present.first() {
        source(errors, &path.child(first), first, metric, version);
    }
    let expected = match kind {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        _ => {
            supported_of(errors, &path.child("type"), Some(kind), &TYPES);
            ""
        }
    };
    if !expected.is_empty() && !present.contains(&expected) {
        let why = "must populate information for the given metric source";
        errors.push(FieldError::required(&path.child(expected), why));
    }
    if present.len() != 1 {
        for other in present.iter().filter(|field| **field != expected) {
            errors.push(FieldError::forbidden(&path.child(other), "must populate the given metric source only"));
        }
    }
}

fn source(errors: &mut Errors, path: &Path<'_>, field: &str, metric: MetricSpec<'_>, version: Version) {
    let target_path = path.child("target");
    let missing = |errors: &mut Errors, field: &str, why: &str| {
        errors.push(FieldError::required(&target_path.child(field), why));
    };
    let identifier = |errors: &mut Errors, metric: Option<MetricIdentifier<'_>>| {
        let name = metric.and_then(|metric| metric.name()).unwrap_or("");
        let path = path.child("metric");
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), "must specify a metric name"));
        } else {
            problems(errors, &path.child("name"), name, names::path_segment(name));
        }
    };
    let target = metric.0.at(&[field, "target"]).and_then(Value::as_map).map_or(MetricTarget(&EMPTY), MetricTarget);
    match field {
        "object" => {
            let Some(object) = metric.object() else { return };
            let described = object.described_object().unwrap_or(CrossVersionObjectReference(&EMPTY));
            reference(errors, &path.child("describedObject"), described, version);
            identifier(errors, object.metric());
            target_rules(errors, &target_path, target);
            if target.value().is_none() && target.average_value().is_none() {
                missing(errors, "averageValue", "must set either a target value or averageValue");
            }
        }
        "external" => {
            identifier(errors, metric.external().and_then(|external| external.metric()));
            target_rules(errors, &target_path, target);
            match (target.value().is_some(), target.average_value().is_some()) {
                (false, false) => {
                    missing(errors, "averageValue", "must set either a target value for metric or a per-pod target");
                }
                (true, true) => {
                    let why = "may not set both a target value for metric and a per-pod target";
                    errors.push(FieldError::forbidden(&target_path.child("value"), why));
                }
                _ => {}
            }
        }
        "pods" => {
            identifier(errors, metric.pods().and_then(|pods| pods.metric()));
            target_rules(errors, &target_path, target);
            if target.average_value().is_none() {
                missing(errors, "averageValue", "must specify a positive target averageValue");
            }
        }
        _ => {
            resource_name(errors, path, field, metric);
            target_rules(errors, &target_path, target);
            match (target.average_utilization().is_some(), target.average_value().is_some()) {
                (false, false) => {
                    let why = "must set either a target raw value or a target utilization";
                    missing(errors, "averageUtilization", why);
                }
                (true, true) => {
                    let why = "may not set both a target raw value and a target utilization";
                    errors.push(FieldError::forbidden(&target_path.child("averageValue"), why));
                }
                _ => {}
            }
        }
    }
}

fn resource_name(errors: &mut Errors, path: &Path<'_>, field: &str, metric: MetricSpec<'_>) {
    let of_container = metric.container_resource().filter(|_| field == "containerResource");
    let name = match of_container {
        Some(source) => source.name(),
        None => metric.resource().and_then(|source| source.name()),
    };
    let name = name.unwrap_or("");
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "must specify a resource name"));
    } else if of_container.is_some() {
        resources::container_resource_name(errors, &path.child("name"), name);
    }
    let Some(source) = of_container else { return };
    match source.container().unwrap_or("") {
        "" => errors.push(FieldError::required(&path.child("container"), "must specify a container")),
        container => problems(errors, &path.child("container"), container, names::dns1123_label(container)),
    }
}

fn target_rules(errors: &mut Errors, path: &Path<'_>, target: MetricTarget<'_>) {
    let kind = target.type_().unwrap_or("");
    if kind.is_empty() {
        errors.push(FieldError::required(&path.child("type"), "must specify a metric target type"));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let why = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(&path.child("type"), kind, why));
    }
    for (field, value) in [("value", target.value()), ("averageValue", target.average_value())] {
        if let Some(value) = value.filter(|value| quantity(value).signum() <= 0) {
            errors.push(FieldError::invalid(&path.child(field), value, "must be positive"));
        }
    }
    if let Some(utilization) = target.average_utilization().filter(|utilization| *utilization < 1) {
        let path = path.child("averageUtilization");
        errors.push(FieldError::invalid(&path, utilization, "must be greater than 0"));
    }
}

fn scaling_rules(errors: &mut Errors, path: &Path<'_>, rules: HPAScalingRules<'_>) {
    if let Some(window) = rules.stabilization_window_seconds() {
        let path = path.child("stabilizationWindowSeconds");
        if window < 0 {
            errors.push(FieldError::invalid(&path, window, "must be greater than or equal to zero"));
        }
        if window > MAX_WINDOW {
            let why = format!("must be less than or equal to {MAX_WINDOW}");
            errors.push(FieldError::invalid(&path, window, why));
        }
    }
    supported_of(errors, &path.child("selectPolicy"), rules.select_policy(), &["Disabled", "Max", "Min"]);
    let policies = path.child("policies");
    if rules.policies().is_empty() {
        errors.push(FieldError::required(&policies, "must specify at least one Policy"));
    }
    for (i, policy) in rules.policies().iter().enumerate() {
        scaling_policy(errors, &policies.index(i), policy);
    }
    if let Some(tolerance) = rules.tolerance().filter(|tolerance| quantity(tolerance).signum() < 0) {
        let shown = json(Some(&Value::from(tolerance)));
        errors.push(FieldError::invalid(&path.child("tolerance"), shown, super::fields::NEGATIVE));
    }
}

fn scaling_policy(errors: &mut Errors, path: &Path<'_>, policy: HPAScalingPolicy<'_>) {
    supported_of(errors, &path.child("type"), Some(policy.type_().unwrap_or("")), &["Percent", "Pods"]);
    let value = policy.value().unwrap_or(0);
    if value <= 0 {
        errors.push(FieldError::invalid(&path.child("value"), value, "must be greater than zero"));
    }
    let period = policy.period_seconds().unwrap_or(0);
    let path = path.child("periodSeconds");
    if period <= 0 {
        errors.push(FieldError::invalid(&path, period, "must be greater than zero"));
    }
    if period > MAX_PERIOD {
        errors.push(FieldError::invalid(&path, period, format!("must be less than or equal to {MAX_PERIOD}")));
    }
}
