//! What becomes of an object when it has been decoded: its defaults, and what upstream's conversion from the served to the
//! internal form and back does to fields that say the same twice.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schema::{Map, TypeRef, Value};

/// Fills in the defaults, and makes fields agree that are aliases of each other. `from`: the object that went through this when it
/// was written, and of which this one was made.
pub fn complete(ty: TypeRef<'_>, object: &mut Map, from: Option<&Map>) {
    let name = ty.as_struct().map_or("", |s| s.name());
    let rules: &[Rule] = match name.strip_prefix("io.k8s.api.").unwrap_or("") {
        "core.v1.Secret" => &[("stringData", string_data)],
        "core.v1.Pod" => &[("spec", |pod| account(pod, &["spec"])), ("status", pod_ips)],
        "apps.v1.StatefulSet" => &[("spec", templated), ("spec", claims)],
        "core.v1.PodTemplate" => &[("template", |object| account(object, &["template", "spec"]))],
        "core.v1.ReplicationController"
        | "apps.v1.Deployment"
        | "apps.v1.ReplicaSet"
        | "apps.v1.DaemonSet"
        | "batch.v1.Job" => &[("spec", templated)],
        "batch.v1.CronJob" => {
            &[("spec", |object| account(object, &["spec", "jobTemplate", "spec", "template", "spec"]))]
        }
        _ => &[],
    };
    for (member, rule) in rules {
        if !from.is_some_and(|from| object.shares(from, member)) {
            rule(object);
        }
    }
    schema::defaults::changed(ty, object, from);
}

/// The member of an object that a rule is about, and the rule.
type Rule = (&'static str, fn(&mut Map));

fn templated(object: &mut Map) {
    account(object, &["spec", "template", "spec"]);
}

/// `stringData` is written only: it becomes `data`.
fn string_data(secret: &mut Map) {
    let Some(Value::Map(text)) = secret.remove("stringData") else { return };
    let data = secret.entry("data", || Value::Map(Map::new()));
    let Some(data) = data.as_map_mut() else { return };
    for (key, value) in text.into_entries() {
        data.insert(key, STANDARD.encode(value.as_str().unwrap_or("")));
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are shown.
fn account(object: &mut Map, path: &[&str]) {
    let Some(spec) = object.at(path).and_then(Value::as_map) else { return };
    let name = match (spec.str_at(&["serviceAccountName"]), spec.str_at(&["serviceAccount"])) {
        (name, old) if name == old => return,
        ("", old) => old.to_owned(),
        (name, _) => name.to_owned(),
    };
    let Some(spec) = object.at_mut(path).and_then(Value::as_map_mut) else { return };
    spec.insert("serviceAccount", name.as_str());
    spec.insert("serviceAccountName", name);
}

/// Claims in a StatefulSet say their kind, whatever they were given with.
fn claims(set: &mut Map) {
    let claims = set.at_mut(&["spec", "volumeClaimTemplates"]).and_then(Value::as_list_mut);
    for claim in claims.into_iter().flatten().filter_map(Value::as_map_mut) {
        claim.insert("apiVersion", "v1");
        claim.insert("kind", "PersistentVolumeClaim");
    }
}

/// `podIP` is the first of `podIPs`; where they differ, it counts.
fn pod_ips(pod: &mut Map) {
    let Some(status) = pod.get_mut("status").and_then(Value::as_map_mut) else { return };
    let one = status.str_at(&["podIP"]).to_owned();
    let list = status.get("podIPs").and_then(Value::as_list).unwrap_or_default();
    let first = list.first().and_then(Value::as_map).map_or("", |ip| ip.str_at(&["ip"])).to_owned();
    if one.is_empty() && !first.is_empty() {
        status.insert("podIP", first);
    } else if !one.is_empty() && one != first {
        let mut ip = Map::new();
        ip.insert("ip", one);
        status.insert("podIPs", vec![Value::Map(ip)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(kind: &str, json: &str) -> String {
        let row = schema::resource::of_kind("", "v1", kind).expect("a kind");
        let mut object = schema::json::decode(row.schema.root(), json.as_bytes()).expect("an object").object;
        complete(row.schema.root(), &mut object, None);
        schema::json::to_string(&object)
    }

    #[test]
    fn aliases_agree() {
        let secret = completed("Secret", r#"{"data":{"a":"YQ=="},"stringData":{"b":"b"}}"#);
        assert!(secret.contains(r#""data":{"a":"YQ==","b":"Yg=="}"#) && !secret.contains("stringData"), "{secret}");
        let pod =
            completed("Pod", r#"{"spec":{"containers":[],"serviceAccountName":"x"},"status":{"podIP":"10.0.0.1"}}"#);
        assert!(pod.contains(r#""serviceAccount":"x""#), "{pod}");
        assert!(pod.contains(r#""podIPs":[{"ip":"10.0.0.1"}]"#), "{pod}");
    }
}
