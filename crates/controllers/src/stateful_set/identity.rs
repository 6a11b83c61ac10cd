//! Who each pod of a StatefulSet is: its name, its labels, its claims.

use super::retention;
use crate::history::Revision;
use crate::objects::{Pod, StatefulSet};
use crate::pod_control;
use serde_json::{Value, json};

/// The label of a pod's revision.
const REVISION: &str = "controller-revision-hash";

/// The pod's ordinal, when its name is one of the set's.
pub(super) fn ordinal(set: &str, pod: &Pod) -> Option<i32> {
    let (parent, ordinal) = pod.metadata.name.as_deref()?.rsplit_once('-')?;
    (parent == set).then(|| ordinal.parse().ok()).flatten()
}

/// The name of the revision that a pod was made of.
pub(super) fn revision(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(REVISION).map(String::as_str)
}

fn claim_name(template: &Value, pod: &str) -> String {
    format!("{}-{pod}", template.pointer("/metadata/name").and_then(Value::as_str).unwrap_or(""))
}

/// The names of the claims of a pod.
pub(super) fn claim_names(set: &StatefulSet, pod: &str) -> Vec<String> {
    set.spec.volume_claim_templates.iter().map(|template| claim_name(template, pod)).collect()
}

/// The claims of a pod, as they are made.
pub(super) fn claims(set: &StatefulSet, pod: &str) -> Vec<Value> {
    let selected = json!(set.spec.selector.match_labels);
    let of = |template: &Value| {
        let mut labels = template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
        for (key, value) in selected.as_object().into_iter().flatten() {
            labels[key] = value.clone();
        }
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim_name(template, pod), "labels": labels,
                "annotations": template.pointer("/metadata/annotations"), "ownerReferences": retention::of_new(set)},
            "spec": template.get("spec"),
        })
    };
    set.spec.volume_claim_templates.iter().map(of).collect()
}

/// The pod of an ordinal, made of a revision.
pub(super) fn pod(set: &StatefulSet, ordinal: i32, revision: &Revision) -> Value {
    let mut pod = pod_control::body(set, &revision.template);
    let name = format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or(""));
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("generateName");
        metadata.insert("name".into(), name.as_str().into());
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        labels["statefulset.kubernetes.io/pod-name"] = name.as_str().into();
        labels["apps.kubernetes.io/pod-index"] = ordinal.to_string().into();
        labels[REVISION] = revision.name.as_str().into();
    }
    pod["spec"]["hostname"] = name.as_str().into();
    if !set.spec.service_name.is_empty() {
        pod["spec"]["subdomain"] = set.spec.service_name.as_str().into();
    }
    let templates = &set.spec.volume_claim_templates;
    if !templates.is_empty() {
        let claimed = |t: &Value| t.pointer("/metadata/name").cloned().unwrap_or_default();
        let volumes = pod["spec"].get("volumes").and_then(Value::as_array).cloned().unwrap_or_default();
        // A claim takes the place of a volume of its name.
        let kept = volumes.into_iter().filter(|v| !templates.iter().any(|t| claimed(t) == v["name"]));
        let ours = templates.iter().map(|template| {
            let claim = claim_name(template, &name);
            json!({"name": claimed(template), "persistentVolumeClaim": {"claimName": claim}})
        });
        pod["spec"]["volumes"] = Value::Array(ours.chain(kept).collect());
    }
    pod
}
