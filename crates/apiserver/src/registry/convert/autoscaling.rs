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

fn is_cpu_utilization(metric: &Value) -> bool {
    metric
        .as_map()
        .is_some_and(|metric| metric.str_at(&["type"]) == "Resource" && metric.str_at(&["resource", "name"]) == "cpu")
}

fn to_stored(object: &mut Map) {
    let mut metrics = match take(object, METRICS) {
        Some(Value::List(metrics)) => metrics,
        _ => Vec::new(),
    };
    if let Some(target) = object.remove_at(&["spec", "targetCPUUtilizationPercentage"]) {
        let mut cpu = Map::new();
        cpu.insert("type", "Resource");
        cpu.set_at(&["resource", "name"], "cpu");
        cpu.set_at(&["resource", "target", "type"], "Utilization");
        cpu.set_at(&["resource", "target", "averageUtilization"], target);
        metrics.insert(0, Value::Map(cpu));
    }
    if !metrics.is_empty() {
        object.set_at(&["spec", "metrics"], metrics);
    }
    if let Some(behavior) = take(object, BEHAVIOR) {
        object.set_at(&["spec", "behavior"], behavior);
    }
    let mut current = match take(object, CURRENT) {
        Some(Value::List(current)) => current,
        _ => Vec::new(),
    };
    if let Some(percentage) = object.remove_at(&["status", "currentCPUUtilizationPercentage"]) {
        let mut cpu = Map::new();
        cpu.insert("type", "Resource");
        cpu.set_at(&["resource", "name"], "cpu");
        cpu.set_at(&["resource", "current", "averageUtilization"], percentage);
        current.insert(0, Value::Map(cpu));
    }
    if !current.is_empty() {
        object.set_at(&["status", "currentMetrics"], current);
    }
    if let Some(conditions) = take(object, CONDITIONS) {
        object.set_at(&["status", "conditions"], conditions);
    }
}

fn from_stored(object: &mut Map) {
    if let Some(Value::List(mut metrics)) = object.remove_at(&["spec", "metrics"]) {
        let utilization = metrics.iter().position(|metric| {
            is_cpu_utilization(metric)
                && metric.as_map().and_then(|m| m.at(&["resource", "target", "averageUtilization"])).is_some()
        });
        if let Some(at) = utilization {
            let metric = metrics.remove(at);
            if let Some(target) = metric.as_map().and_then(|m| m.at(&["resource", "target", "averageUtilization"])) {
                object.set_at(&["spec", "targetCPUUtilizationPercentage"], target.clone());
            }
        }
        if !metrics.is_empty() {
            annotate(object, METRICS, &Value::List(metrics));
        }
    }
    if let Some(behavior) = object.remove_at(&["spec", "behavior"]) {
        annotate(object, BEHAVIOR, &behavior);
    }
    if let Some(Value::List(mut current)) = object.remove_at(&["status", "currentMetrics"]) {
        let utilization = current.iter().position(|metric| {
            is_cpu_utilization(metric)
                && metric.as_map().and_then(|m| m.at(&["resource", "current", "averageUtilization"])).is_some()
        });
        if let Some(at) = utilization {
            let metric = current.remove(at);
            if let Some(value) = metric.as_map().and_then(|m| m.at(&["resource", "current", "averageUtilization"])) {
                object.set_at(&["status", "currentCPUUtilizationPercentage"], value.clone());
            }
        }
        if !current.is_empty() {
            annotate(object, CURRENT, &Value::List(current));
        }
    }
    if let Some(conditions @ Value::List(_)) = object.remove_at(&["status", "conditions"]) {
        annotate(object, CONDITIONS, &conditions);
    }
}
