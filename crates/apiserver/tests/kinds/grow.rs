//! Grows a minimal object into a full one: every field that the schema has is tried, with values that are likely for its
//! name and type, and kept if the server takes it and gives it back.

use crate::client::Client;
use schema::{Kind, TypeRef};
use serde_json::{Value, json};
use std::collections::VecDeque;

/// How far below the root fields are tried.
const DEPTH: usize = 9;

/// Values that are likely for a field of this name.
const LIKELY: &[(&str, &[&str])] = &[
    ("imagePullPolicy", &["Always"]),
    ("pullPolicy", &["Always"]),
    ("restartPolicy", &["Always", "Never"]),
    ("dnsPolicy", &["ClusterFirst"]),
    ("protocol", &["TCP"]),
    ("appProtocol", &["http"]),
    ("effect", &["NoSchedule"]),
    ("operator", &["Exists", "In", "Equal"]),
    ("topologyKey", &["kubernetes.io/hostname"]),
    ("whenUnsatisfiable", &["DoNotSchedule"]),
    ("nodeAffinityPolicy", &["Honor"]),
    ("nodeTaintsPolicy", &["Honor"]),
    ("preemptionPolicy", &["PreemptLowerPriority", "Never"]),
    ("terminationMessagePolicy", &["File"]),
    ("mountPath", &["/a"]),
    ("devicePath", &["/dev/b"]),
    ("subPath", &["a"]),
    ("path", &["a", "/a"]),
    ("port", &["80"]),
    ("scheme", &["HTTP"]),
    ("seLinuxChangePolicy", &["MountOption"]),
    ("supplementalGroupsPolicy", &["Merge"]),
    ("fsGroupChangePolicy", &["OnRootMismatch"]),
    ("procMount", &["Default"]),
    ("mountPropagation", &["HostToContainer"]),
    ("recursiveReadOnly", &["Disabled"]),
    ("fieldPath", &["metadata.name"]),
    ("resource", &["limits.cpu", "pods"]),
    ("divisor", &["1"]),
    ("ip", &["192.0.2.7"]),
    ("hostIP", &["192.0.2.7"]),
    ("podCIDR", &["10.244.3.0/24"]),
    ("podCIDRs", &["10.244.3.0/24"]),
    ("cidr", &["10.0.0.0/8"]),
    ("nameservers", &["192.0.2.53"]),
    ("resourceName", &["cpu"]),
    ("resizePolicy", &["cpu"]),
    ("claimName", &["a"]),
    ("accessModes", &["ReadWriteOnce"]),
    ("volumeMode", &["Filesystem"]),
    ("persistentVolumeReclaimPolicy", &["Retain"]),
    ("reclaimPolicy", &["Retain"]),
    ("volumeBindingMode", &["WaitForFirstConsumer"]),
    ("type", &["RollingUpdate", "Utilization", "Resource", "Opaque", "ClusterIP", "Container", "Pods", "Recreate"]),
    ("sessionAffinity", &["ClientIP"]),
    ("externalTrafficPolicy", &["Local"]),
    ("internalTrafficPolicy", &["Local"]),
    ("trafficDistribution", &["PreferClose"]),
    ("ipFamilies", &["IPv4"]),
    ("ipFamily", &["IPv4"]),
    ("ipFamilyPolicy", &["SingleStack"]),
    ("externalIPs", &["192.0.2.9"]),
    ("loadBalancerSourceRanges", &["192.0.2.0/24"]),
    ("podManagementPolicy", &["Parallel"]),
    ("whenDeleted", &["Retain"]),
    ("whenScaled", &["Delete"]),
    ("concurrencyPolicy", &["Forbid"]),
    ("timeZone", &["Etc/UTC"]),
    ("completionMode", &["NonIndexed"]),
    ("podReplacementPolicy", &["TerminatingOrFailed", "Failed"]),
    ("action", &["FailJob", "A"]),
    ("pathType", &["Prefix"]),
    ("policyTypes", &["Ingress"]),
    ("unhealthyPodEvictionPolicy", &["AlwaysAllow"]),
    ("verbs", &["get"]),
    ("apiGroups", &["apps"]),
    ("apiGroup", &["rbac.authorization.k8s.io", "example.com"]),
    ("resources", &["deployments"]),
    ("nonResourceURLs", &["/healthz"]),
    ("kind", &["User", "Deployment"]),
    ("fsGroupPolicy", &["File"]),
    ("volumeLifecycleModes", &["Ephemeral"]),
    ("scope", &["*", "Cluster"]),
    ("scopeName", &["PriorityClass"]),
    ("scopes", &["BestEffort"]),
    ("failurePolicy", &["Ignore"]),
    ("matchPolicy", &["Exact"]),
    ("sideEffects", &["None"]),
    ("reinvocationPolicy", &["IfNeeded"]),
    ("operations", &["CREATE"]),
    ("admissionReviewVersions", &["v1"]),
    ("apiVersions", &["v1"]),
    ("validationActions", &["Deny"]),
    ("parameterNotFoundAction", &["Allow"]),
    ("expression", &["true", "'a'"]),
    ("messageExpression", &["'a'"]),
    ("valueExpression", &["'a'"]),
    ("reason", &["Forbidden", "Because"]),
    ("strategy", &["HolderIdentity"]),
    ("holderIdentity", &["a"]),
    ("conditions", &["a"]),
    ("zones", &["a"]),
    ("allocationMode", &["ExactCount"]),
    ("selectPolicy", &["Max"]),
    ("usages", &["digital signature"]),
    ("unit", &["a"]),
    ("value", &["1", "a"]),
    ("url", &["https://example.com/"]),
    ("providerID", &["a://b"]),
    ("signerName", &["example.com/signer"]),
    ("schedule", &["0 * * * *"]),
    ("level", &["s0"]),
    ("hostname", &["a"]),
    ("host", &["example.com"]),
    ("hosts", &["example.com"]),
    ("driver", &["example.com"]),
    ("ports", &["80"]),
];

/// Fields that a row's own text sets, if anything does: what they hold is of no use to guess.
const LEFT: &[&str] = &["apiVersion", "kind", "metadata", "status"];

fn likely(name: &str, last: &str) -> Vec<Value> {
    let named = LIKELY.iter().find(|(field, _)| *field == name).map_or(&[][..], |(_, values)| values);
    named.iter().chain(&["a", "b.example.com", last]).map(|text| json!(text)).collect()
}

/// Values to try for a field, the likeliest first.
fn candidates(name: &str, ty: TypeRef<'_>, depth: usize) -> Vec<Value> {
    match ty.kind() {
        Kind::String => likely(name, "/a"),
        Kind::Bool => vec![json!(true), json!(false)],
        Kind::Int32 | Kind::Int64 => vec![json!(1), json!(80), json!(0), json!(1000)],
        Kind::Float => vec![json!(0.5)],
        Kind::Quantity => vec![json!("1")],
        Kind::IntOrString => vec![json!(1), json!("25%")],
        Kind::Time => vec![json!("2030-01-01T00:00:00Z")],
        Kind::MicroTime => vec![json!("2030-01-01T00:00:00.000001Z")],
        Kind::Duration => vec![json!("10s")],
        Kind::Bytes => vec![json!("YQ==")],
        Kind::Raw => vec![json!({"apiVersion": "example.com/v1", "kind": "X"})],
        Kind::Json => vec![json!({"a": [1]})],
        Kind::Fields => Vec::new(),
        Kind::List(of) => candidates(name, of, depth).into_iter().map(|value| json!([value])).collect(),
        Kind::Map(of) => {
            let values = candidates(name, of, depth);
            let keys = ["a", "example.com/a", "cpu"];
            values.iter().flat_map(|value| keys.map(|key| json!({key: value}))).take(6).collect()
        }
        Kind::OrBool(of) | Kind::OrList(of) | Kind::OrStrings(of) => candidates(name, of, depth),
        Kind::Struct(s) => {
            let mut required = json!({});
            if depth < DEPTH {
                for field in s.fields().filter(|field| field.required()) {
                    if let Some(value) = candidates(field.name(), field.ty(), depth + 1).into_iter().next() {
                        required[field.name()] = value;
                    }
                }
            }
            // One member of a union is often all that is asked.
            let mut tries = vec![required.clone()];
            let optional = s.fields().filter(|field| !field.required()).take(if depth < DEPTH { 3 } else { 0 });
            for field in optional {
                if let Some(value) = candidates(field.name(), field.ty(), depth + 3).into_iter().next() {
                    let mut one = required.clone();
                    one[field.name()] = value;
                    tries.push(one);
                }
            }
            tries
        }
    }
}

/// Where `whole` is not what `part` says; `None`: all of `part` is in it.
pub fn lacks(whole: &Value, part: &Value) -> Option<String> {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().find_map(|(key, value)| {
            let missing = || (!value.is_null()).then(|| " is missing".to_owned());
            let below = whole.get(key).filter(|_| !value.is_null()).map_or_else(missing, |whole| lacks(whole, value));
            below.map(|below| format!(".{key}{below}"))
        }),
        // Admission appends.
        (Value::Array(whole), Value::Array(part)) if whole.len() >= part.len() => {
            let pairs = whole.iter().zip(part).enumerate();
            pairs.filter_map(|(n, (whole, part))| lacks(whole, part).map(|below| format!("[{n}]{below}"))).next()
        }
        (whole, part) => (whole != part).then(|| format!(" is {whole}, not {part}")),
    }
}

/// Whether all of `part` is in `whole`.
pub fn holds(whole: &Value, part: &Value) -> bool {
    lacks(whole, part).is_none()
}

/// How many scalars an object has.
pub fn leaves(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.values().map(leaves).sum(),
        Value::Array(list) => list.iter().map(leaves).sum(),
        _ => 1,
    }
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// What is already known of types that many kinds have.
#[derive(Clone)]
pub struct Known {
    /// A full pod's spec, for every template.
    pub pod_spec: Option<Value>,
}

/// Grows `object`, which the server takes as it is.
pub async fn grow(client: &Client, collection: &str, ty: TypeRef<'_>, mut object: Value, known: &Known) -> Value {
    let path = format!("{collection}?dryRun=All&fieldValidation=Strict");
    let mut open: VecDeque<(String, TypeRef<'_>, Vec<&str>)> = VecDeque::from([(String::new(), ty, Vec::new())]);
    while let Some((at, ty, above)) = open.pop_front() {
        let depth = above.len();
        match ty.kind() {
            Kind::List(of) => {
                let length = object.pointer(&at).and_then(Value::as_array).map_or(0, Vec::len);
                open.extend((0..length).map(|index| (format!("{at}/{index}"), of, above.clone())));
            }
            Kind::Map(of) => {
                let keys = object.pointer(&at).and_then(Value::as_object).map(|map| map.keys().cloned().collect());
                let keys: Vec<String> = keys.unwrap_or_default();
                open.extend(keys.iter().map(|key| (format!("{at}/{}", escaped(key)), of, above.clone())));
            }
            // A type within itself is not followed.
            Kind::Struct(s) if depth < DEPTH && !above.contains(&s.name()) => {
                let root = at.is_empty();
                let mut here_and_above = above.clone();
                here_and_above.push(s.name());
                if s.short_name() == "PodSpec"
                    && let Some(full) = &known.pod_spec
                {
                    let mut with = object.clone();
                    if let Some(Value::Object(spec)) = with.pointer_mut(&at) {
                        for (key, value) in full.as_object().expect("an object") {
                            spec.entry(key.clone()).or_insert_with(|| value.clone());
                        }
                    }
                    if client.post(&path, &with).await.code.is_success() {
                        object = with;
                        continue;
                    }
                }
                for field in s.fields() {
                    if root && LEFT.contains(&field.name()) {
                        continue;
                    }
                    let here = format!("{at}/{}", field.name());
                    if object.pointer(&here).is_none() {
                        for candidate in candidates(field.name(), field.ty(), depth) {
                            let mut with = object.clone();
                            let Some(Value::Object(parent)) = with.pointer_mut(&at) else { break };
                            parent.insert(field.name().to_owned(), candidate.clone());
                            let answer = client.post(&path, &with).await;
                            if answer.code.is_success() {
                                let given = answer.json().pointer(&here).is_some_and(|given| holds(given, &candidate));
                                // What is old enough to be warned of is no part of a full object.
                                if given && !warned(&answer.headers) {
                                    object = with;
                                }
                                break;
                            }
                        }
                    }
                    if object.pointer(&here).is_some() {
                        open.push_back((here, field.ty(), here_and_above.clone()));
                    }
                }
            }
            _ => {}
        }
    }
    object
}

/// Whether an answer warns of anything but the kind itself: that it goes away, that nothing acts on it.
pub(crate) fn warned(headers: &http::HeaderMap) -> bool {
    let of_kind = |text: &str| text.contains(" is deprecated in v1.") || text.contains(" is stored, but ");
    headers.get_all("warning").iter().any(|warning| !warning.to_str().is_ok_and(of_kind))
}
