//! HorizontalPodAutoscalers: stored as autoscaling/v2, served as v1 too. What v1 has no field for travels in annotations,
//! under upstream's keys.

use super::Conversion;
use schema::{Map, Value};

pub(super) static CONVERSION: Conversion = Conversion { to_stored, from_stored, labels: None };

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

fn text(value: &Value) -> String {
    let mut out = Vec::new();
    schema::json::encode_value(value, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

fn annotate(object: &mut Map, key: &'static str, value: &Value) {
    let metadata = object.entry("metadata", || Value::Map(Map::new()));
    if let Some(metadata) = metadata.as_map_mut()
        && let Some(annotations) = metadata.entry("annotations", || Value::Map(Map::new())).as_map_mut()
    {
        annotations.insert(key, text(value));
    }
}

fn take(object: &mut Map, key: &str) -> Option<Value> {
    let annotations = object.at_mut(&["metadata", "annotations"])?.as_map_mut()?;
    let taken = annotations.remove(key)?;
    let empty = annotations.is_empty();
    if empty {
        object.remove_at(&["metadata", "annotations"]);
    }
    schema::json::parse(taken.as_str()?.as_bytes()).ok()
}

/// Takes out what is said of the processor's utilization, for which v1 has a field; the first counts.
fn take_utilization(metrics: &mut Vec<Value>, side: &str) -> Option<Value> {
    let utilization = |metric: &Value| {
        let metric = metric.as_map().filter(|metric| metric.str_at(&["type"]) == "Resource")?;
        let of_cpu = metric.str_at(&["resource", "name"]) == "cpu";
        metric.at(&["resource", side, "averageUtilization"]).filter(|_| of_cpu).cloned()
    };
    let first = metrics.iter().find_map(utilization);
    metrics.retain(|metric| utilization(metric).is_none());
    first
}

/// Where v1 has a field of a metric, and where v2 has it; whether v1 always writes it, as a quantity of nothing.
type Field = (&'static str, &'static [&'static str], bool);
/// Of each source of metrics its fields, of a spec (whose last part is `target`) or of a status (`current`).
type Sources = &'static [(&'static str, &'static [Field])];

const NAME: Field = ("name", &["name"], false);
const CONTAINER: Field = ("container", &["container"], false);
const METRIC_NAME: Field = ("metricName", &["metric", "name"], false);
const SELECTOR: Field = ("selector", &["metric", "selector"], false);
const OBJECT: Field = ("target", &["describedObject"], false);

const SPECS: Sources = &[
    (
        "object",
        &[
            OBJECT,
            METRIC_NAME,
            SELECTOR,
            ("targetValue", &["target", "value"], true),
            ("averageValue", &["target", "averageValue"], false),
        ],
    ),
    ("pods", &[METRIC_NAME, SELECTOR, ("targetAverageValue", &["target", "averageValue"], true)]),
    ("resource", &[NAME, UTILIZATION, AVERAGE]),
    ("containerResource", &[NAME, CONTAINER, UTILIZATION, AVERAGE]),
    (
        "external",
        &[
            METRIC_NAME,
            ("metricSelector", &["metric", "selector"], false),
            ("targetValue", &["target", "value"], false),
            AVERAGE,
        ],
    ),
];
const UTILIZATION: Field = ("targetAverageUtilization", &["target", "averageUtilization"], false);
const AVERAGE: Field = ("targetAverageValue", &["target", "averageValue"], false);

const STATUSES: Sources = &[
    (
        "object",
        &[
            OBJECT,
            METRIC_NAME,
            SELECTOR,
            ("currentValue", &["current", "value"], true),
            ("averageValue", &["current", "averageValue"], false),
        ],
    ),
    ("pods", &[METRIC_NAME, SELECTOR, ("currentAverageValue", &["current", "averageValue"], true)]),
    ("resource", &[NAME, USED, USED_AVERAGE]),
    ("containerResource", &[NAME, CONTAINER, USED, USED_AVERAGE]),
    (
        "external",
        &[
            METRIC_NAME,
            ("metricSelector", &["metric", "selector"], false),
            ("currentValue", &["current", "value"], true),
            ("currentAverageValue", &["current", "averageValue"], false),
        ],
    ),
];
const USED: Field = ("currentAverageUtilization", &["current", "averageUtilization"], false);
const USED_AVERAGE: Field = ("currentAverageValue", &["current", "averageValue"], true);

/// A metric of v2 in the shape of v1.
fn old_metric(metric: &Value, sources: Sources) -> Value {
    let mut out = Map::new();
    let Some(metric) = metric.as_map() else { return Value::Map(out) };
    out.insert("type", metric.str_at(&["type"]));
    for (source, fields) in sources {
        let Some(given) = metric.get(source).and_then(Value::as_map) else { continue };
        for (old, new, always) in *fields {
            match given.at(new) {
                Some(value) => out.set_at(&[source, old], value.clone()),
                None if *always => out.set_at(&[source, old], "0"),
                None => {}
            }
        }
    }
    Value::Map(out)
}

/// A metric of v1 in the shape of v2. `aims`: it is one of a spec, whose target says what it is.
fn new_metric(metric: &Value, sources: Sources, aims: bool) -> Value {
    let mut out = Map::new();
    let Some(metric) = metric.as_map() else { return Value::Map(out) };
    out.insert("type", metric.str_at(&["type"]));
    for (source, fields) in sources {
        let Some(given) = metric.get(source).and_then(Value::as_map) else { continue };
        for (old, new, _) in *fields {
            if let Some(value) = given.get(old) {
                let path = [&[*source], *new].concat();
                out.set_at(&path, value.clone());
            }
        }
        if aims {
            let kind = match *source {
                "object" if !given.contains_key("averageValue") => "Value",
                "external" if given.contains_key("targetValue") => "Value",
                "resource" | "containerResource" if given.contains_key("targetAverageUtilization") => "Utilization",
                _ => "AverageValue",
            };
            out.set_at(&[source, "target", "type"], kind);
        }
    }
    Value::Map(out)
}

fn take_metrics(object: &mut Map, key: &str, sources: Sources, aims: bool) -> Vec<Value> {
    match take(object, key) {
        Some(Value::List(metrics)) => metrics.iter().map(|metric| new_metric(metric, sources, aims)).collect(),
        _ => Vec::new(),
    }
}

fn to_stored(object: &mut Map) {
    let mut metrics = take_metrics(object, METRICS, SPECS, true);
    if let Some(target) = object.remove_at(&["spec", "targetCPUUtilizationPercentage"]) {
        let mut cpu = Map::new();
        cpu.insert("type", "Resource");
        cpu.set_at(&["resource", "name"], "cpu");
        cpu.set_at(&["resource", "target", "type"], "Utilization");
        cpu.set_at(&["resource", "target", "averageUtilization"], target);
        metrics.push(Value::Map(cpu));
    }
    if !metrics.is_empty() {
        object.set_at(&["spec", "metrics"], metrics);
    }
    if let Some(behavior) = take(object, BEHAVIOR) {
        object.set_at(&["spec", "behavior"], behavior);
    }
    let mut current = take_metrics(object, CURRENT, STATUSES, false);
    if let Some(percentage) = object.remove_at(&["status", "currentCPUUtilizationPercentage"]) {
        let mut cpu = Map::new();
        cpu.insert("type", "Resource");
        cpu.set_at(&["resource", "name"], "cpu");
        cpu.set_at(&["resource", "current", "averageUtilization"], percentage);
        current.push(Value::Map(cpu));
    }
    if !current.is_empty() {
        object.set_at(&["status", "currentMetrics"], current);
    }
    if let Some(conditions) = take(object, CONDITIONS) {
        object.set_at(&["status", "conditions"], conditions);
    }
    // What nobody says is what v2 has for it: v1 can't tell whether the annotations say something.
    if let Some(ty) = schema::types::of_kind("autoscaling", "v2", "HorizontalPodAutoscaler") {
        schema::defaults::apply(ty, object);
    }
}

fn from_stored(object: &mut Map) {
    if let Some(Value::List(mut metrics)) = object.remove_at(&["spec", "metrics"]) {
        if let Some(target) = take_utilization(&mut metrics, "target") {
            object.set_at(&["spec", "targetCPUUtilizationPercentage"], target);
        }
        if !metrics.is_empty() {
            let metrics = metrics.iter().map(|metric| old_metric(metric, SPECS)).collect();
            annotate(object, METRICS, &Value::List(metrics));
        }
    }
    if let Some(behavior) = object.remove_at(&["spec", "behavior"]) {
        annotate(object, BEHAVIOR, &behavior);
    }
    if let Some(Value::List(mut current)) = object.remove_at(&["status", "currentMetrics"]) {
        if let Some(value) = take_utilization(&mut current, "current") {
            object.set_at(&["status", "currentCPUUtilizationPercentage"], value);
        }
        if !current.is_empty() {
            let current = current.iter().map(|metric| old_metric(metric, STATUSES)).collect();
            annotate(object, CURRENT, &Value::List(current));
        }
    }
    if let Some(conditions @ Value::List(_)) = object.remove_at(&["status", "conditions"]) {
        annotate(object, CONDITIONS, &conditions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    const V2: &str = "{metadata: {name: h}, spec: {maxReplicas: 3, minReplicas: 1, metrics: [
        {type: Object, object: {describedObject: {kind: Service, name: s}, metric: {name: q},
            target: {type: Value, value: '5'}}},
        {type: Pods, pods: {metric: {name: p, selector: {matchLabels: {a: b}}},
            target: {type: AverageValue, averageValue: '7'}}},
        {type: ContainerResource, containerResource: {name: memory, container: c,
            target: {type: Utilization, averageUtilization: 60}}},
        {type: External, external: {metric: {name: e, selector: {matchLabels: {a: b}}},
            target: {type: AverageValue, averageValue: '9'}}},
        {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}}";

    #[test]
    fn metrics_have_the_older_shape_in_their_annotation() {
        let mut object = map(V2);
        from_stored(&mut object);
        assert_eq!(object.at(&["spec", "targetCPUUtilizationPercentage"]), Some(&Value::Int(50)));
        let told = object.at(&["metadata", "annotations", METRICS]).and_then(Value::as_str).unwrap_or("").to_owned();
        let expected = map("{metrics: [
            {type: Object, object: {target: {kind: Service, name: s}, metricName: q, targetValue: '5'}},
            {type: Pods, pods: {metricName: p, selector: {matchLabels: {a: b}}, targetAverageValue: '7'}},
            {type: ContainerResource, containerResource: {name: memory, container: c, targetAverageUtilization: 60}},
            {type: External, external: {metricName: e, metricSelector: {matchLabels: {a: b}},
                targetAverageValue: '9'}}]}");
        assert_eq!(schema::json::parse(told.as_bytes()).ok().as_ref(), expected.get("metrics"), "{told}");
        to_stored(&mut object);
        assert_eq!(object, map(V2));
    }

    #[test]
    fn statuses_have_it_too() {
        let v2 = "{metadata: {name: h}, spec: {maxReplicas: 3, minReplicas: 1, metrics: [
            {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]},
            status: {currentMetrics: [
            {type: Pods, pods: {metric: {name: p}, current: {averageValue: '7'}}},
            {type: Resource, resource: {name: cpu, current: {averageUtilization: 40}}}]}}";
        let mut object = map(v2);
        from_stored(&mut object);
        assert_eq!(object.at(&["status", "currentCPUUtilizationPercentage"]), Some(&Value::Int(40)));
        let told = object.at(&["metadata", "annotations", CURRENT]).and_then(Value::as_str).unwrap_or("").to_owned();
        assert_eq!(told, r#"[{"pods":{"currentAverageValue":"7","metricName":"p"},"type":"Pods"}]"#);
        to_stored(&mut object);
        assert_eq!(object, map(v2));
    }

    #[test]
    fn who_says_nothing_of_metrics_has_those_of_v2() {
        let mut object = map("{metadata: {name: h}, spec: {maxReplicas: 3}}");
        to_stored(&mut object);
        let metrics = object.at(&["spec", "metrics"]).and_then(Value::as_list).map(<[Value]>::len);
        assert_eq!((object.at(&["spec", "minReplicas"]), metrics), (Some(&Value::Int(1)), Some(1)));
    }
}
