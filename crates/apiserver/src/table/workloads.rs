//! Cells of workloads: replicas, containers, jobs, autoscalers.

use super::{NONE, int, maps, or, shown};
use api::duration;
use jiff::Timestamp;
use schema::resource::Column;
use schema::types::Docs;
use schema::{Map, Value};
use std::sync::LazyLock;

/// A member of each of a list's maps, joined.
pub(super) fn names_of(object: &Map, path: &[&str], member: &str) -> Value {
    maps(object, path).map(|c| c.str_at(&[member])).collect::<Vec<_>>().join(",").into()
}

/// The columns of a Scale, made of the usual ones and of what its type says of its numbers.
pub(super) static SCALE_COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let docs = Docs::unpack();
    let replicas = |part: &str| {
        let ty = schema::types::find(&format!("io.k8s.api.autoscaling.v1.{part}"));
        let field = ty.and_then(|ty| ty.as_struct()?.fields().find(|field| field.name() == "replicas"));
        field.map(|field| docs.of_field(field).to_owned()).unwrap_or_default()
    };
    let number = |name: &'static str, part: &str| Column {
        name: name.into(),
        kind: "integer".into(),
        format: "".into(),
        description: replicas(part).into(),
        priority: 0,
    };
    let usual = schema::resource::usual_columns();
    let age = usual.last().cloned().map(|created| Column { name: "Age".into(), kind: "string".into(), ..created });
    let numbers = [number("Desired", "ScaleSpec"), number("Available", "ScaleStatus")];
    usual.first().cloned().into_iter().chain(numbers).chain(age).collect()
});

pub(super) fn containers(object: &Map, _: Timestamp) -> Value {
    names_of(object, &["spec", "template", "spec", "containers"], "name")
}

pub(super) fn images(object: &Map, _: Timestamp) -> Value {
    names_of(object, &["spec", "template", "spec", "containers"], "image")
}

pub(super) fn deployment_ready(object: &Map, _: Timestamp) -> Value {
    format!("{}/{}", int(object, &["status", "readyReplicas"]), int(object, &["spec", "replicas"])).into()
}

pub(super) fn controller(object: &Map, _: Timestamp) -> Value {
    let owner = maps(object, &["metadata", "ownerReferences"])
        .find(|o| o.get("controller").and_then(Value::as_bool) == Some(true));
    let Some(owner) = owner else { return NONE.into() };
    let group = owner.str_at(&["apiVersion"]).split_once('/').map_or("", |(g, _)| g);
    let kind = owner.str_at(&["kind"]).to_lowercase();
    let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
    format!("{kind}/{}", owner.str_at(&["name"])).into()
}

pub(super) fn scale_target(object: &Map, _: Timestamp) -> Value {
    format!(
        "{}/{}",
        object.str_at(&["spec", "scaleTargetRef", "kind"]),
        object.str_at(&["spec", "scaleTargetRef", "name"])
    )
    .into()
}

fn percent(value: Option<&Value>) -> String {
    value.map_or_else(|| "<unknown>".to_owned(), |v| format!("{}%", shown(v)))
}

fn plain(value: Option<&Value>) -> String {
    value.map_or_else(|| "<unknown>".to_owned(), shown)
}

/// `cpu: 3%/50%`, `12/20`: each metric's current and target value; at most two.
pub(super) fn targets(object: &Map, _: Timestamp) -> Value {
    let mut current = maps(object, &["status", "currentMetrics"]);
    let mut list = Vec::new();
    for metric in maps(object, &["spec", "metrics"]) {
        let now = current.next();
        let section = match metric.str_at(&["type"]) {
            "Resource" => "resource",
            "ContainerResource" => "containerResource",
            "Pods" => "pods",
            "Object" => "object",
            "External" => "external",
            _ => {
                list.push("<unknown type>".to_owned());
                continue;
            }
        };
        let target = |key: &str| metric.at(&[section, "target", key]);
        let value = |key: &str| now.and_then(|n| n.at(&[section, "current", key]));
        let of_resource = matches!(section, "resource" | "containerResource");
        let text = if let Some(average) = target("averageValue") {
            let suffix = if matches!(section, "object" | "external") { " (avg)" } else { "" };
            format!("{}/{}{suffix}", plain(value("averageValue")), shown(average))
        } else if of_resource {
            let wanted =
                target("averageUtilization").map_or("<auto>".to_owned(), |wanted| format!("{}%", shown(wanted)));
            format!("{}/{wanted}", percent(value("averageUtilization")))
        } else {
            format!("{}/{}", plain(value("value")), target("value").map(shown).unwrap_or_default())
        };
        let name = metric.str_at(&[section, "name"]);
        list.push(if of_resource { format!("{name}: {text}") } else { text });
    }
    let rest = list.len().saturating_sub(2);
    let mut text = or(list.into_iter().take(2).collect::<Vec<_>>().join(", "), NONE);
    if rest > 0 {
        text.push_str(&format!(" + {rest} more..."));
    }
    text.into()
}

pub(super) fn job_status(object: &Map, _: Timestamp) -> Value {
    let has = |ty: &str| {
        maps(object, &["status", "conditions"]).any(|c| c.str_at(&["type"]) == ty && c.str_at(&["status"]) == "True")
    };
    let status = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if object.at(&["metadata", "deletionTimestamp"]).is_some() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    status.into()
}

pub(super) fn completions(object: &Map, _: Timestamp) -> Value {
    let succeeded = int(object, &["status", "succeeded"]);
    match object.at(&["spec", "completions"]).and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}").into(),
        None => {
            let parallelism = int(object, &["spec", "parallelism"]);
            if parallelism > 1 {
                format!("{succeeded}/1 of {parallelism}").into()
            } else {
                format!("{succeeded}/1").into()
            }
        }
    }
}

pub(super) fn job_duration(object: &Map, now: Timestamp) -> Value {
    let time = |key: &str| object.str_at(&["status", key]).parse::<Timestamp>().ok();
    let Some(start) = time("startTime") else { return "".into() };
    let end = time("completionTime").unwrap_or(now);
    duration::human(end.as_second() - start.as_second()).into()
}
