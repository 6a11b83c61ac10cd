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
        "core.v1.Node" => &[("spec", pod_ranges)],
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
    let first = |ip: &Value| ip.as_map().map_or("", |ip| ip.str_at(&["ip"])).to_owned();
    let listed = |address: String| {
        let mut ip = Map::new();
        ip.insert("ip", address);
        Value::Map(ip)
    };
    one_of_many(status, ("podIP", "podIPs"), first, listed);
}

/// `podCIDR` is the first of a node's `podCIDRs`; where they differ, it counts.
fn pod_ranges(node: &mut Map) {
    let Some(spec) = node.get_mut("spec").and_then(Value::as_map_mut) else { return };
    let first = |range: &Value| range.as_str().unwrap_or("").to_owned();
    one_of_many(spec, ("podCIDR", "podCIDRs"), first, Value::from);
}

/// Makes a field agree with the list that came after it, of which it is the first.
fn one_of_many(
    of: &mut Map,
    (one, many): (&'static str, &'static str),
    first: impl Fn(&Value) -> String,
    listed: impl Fn(String) -> Value,
) {
    let said = of.str_at(&[one]).to_owned();
    let first = of.get(many).and_then(Value::as_list).and_then(<[Value]>::first).map_or(String::new(), first);
    if said.is_empty() && !first.is_empty() {
        of.insert(one, first);
    } else if !said.is_empty() && said != first {
        of.insert(many, vec![listed(said)]);
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
        let node = |spec: &str| completed("Node", &format!(r#"{{"spec":{spec}}}"#));
        for one in [
            r#"{"podCIDR":"10.0.0.0/24"}"#,
            r#"{"podCIDRs":["10.0.0.0/24"]}"#,
            r#"{"podCIDR":"10.0.0.0/24","podCIDRs":["10.0.1.0/24","fd00::/64"]}"#,
        ] {
            let node = node(one);
            assert!(node.contains(r#""podCIDR":"10.0.0.0/24""#), "{node}");
            assert!(node.contains(r#""podCIDRs":["10.0.0.0/24"]"#), "{node}");
        }
        let two = node(r#"{"podCIDR":"10.0.1.0/24","podCIDRs":["10.0.1.0/24","fd00::/64"]}"#);
        assert!(two.contains(r#""podCIDRs":["10.0.1.0/24","fd00::/64"]"#), "{two}");
    }
}
