//! Tables: the cells that `kubectl get` shows (`meta.k8s.io/v1 Table`), as upstream's printers make them.
//!
//! Columns are data of the kind's row; a cell is a path, a count, or a small function of the kind's group.

mod access;
mod cells;
mod certificates;
mod devices;
mod events;
mod network;
mod pod;
mod storage;
mod workloads;

use crate::registry::convert;
use api::duration;
use jiff::Timestamp;
use schema::resource::Column;
use schema::{Map, Resource, Value};

/// How one cell is made.
enum Cell {
    /// The value at a path; empty text when there is none.
    Path(&'static [&'static str]),
    /// The value at a path, or this text.
    Or(&'static [&'static str], &'static str),
    /// The same, as text.
    Text(&'static [&'static str], &'static str),
    /// The value at a path, or this number.
    Number(&'static [&'static str], i64),
    /// The length of the list or map at a path.
    Count(&'static [&'static str]),
    /// How long ago the time at a path was.
    Ago(&'static [&'static str]),
    By(fn(&Map, Timestamp) -> Value),
}

const UNKNOWN: &str = "<unknown>";
const NONE: &str = "<none>";
const UNSET: &str = "<unset>";

/// How the cells of a kind are made, of what is stored of it.
fn rules(row: &Resource) -> Option<&'static [Cell]> {
    let (group, kind) = row.storage.as_ref().map_or((&row.group, &row.kind), |stored| (&stored.group, &stored.kind));
    cells::of(group, kind)
}

/// The cells of an object, in the order of [`columns`]. Whatever version it is of, they are made of what is stored.
pub fn cells(row: &Resource, object: &Map, now: Timestamp) -> Vec<Value> {
    let stored = convert::of(row).map(|conversion| {
        let mut object = object.clone();
        (conversion.to_stored)(&mut object);
        object
    });
    let object = stored.as_ref().unwrap_or(object);
    let Some(rules) = rules(row) else { return usual_cells(object) };
    rules.iter().map(|rule| cell(rule, object, now)).collect()
}

/// The columns and cells of an object as a subresource shows it.
pub fn of_lens(group: &str, kind: &str, object: &Map, now: Timestamp) -> (Vec<Column>, Vec<Value>) {
    match cells::of(group, kind) {
        Some(rules) if (group, kind) == ("autoscaling", "Scale") => {
            (workloads::SCALE_COLUMNS.clone(), rules.iter().map(|rule| cell(rule, object, now)).collect())
        }
        _ => (schema::resource::usual_columns().to_vec(), usual_cells(object)),
    }
}

/// Kinds without columns of their own show name and age (creation time as it is).
fn usual_cells(object: &Map) -> Vec<Value> {
    vec![object.str_at(&["metadata", "name"]).into(), object.str_at(&["metadata", "creationTimestamp"]).into()]
}

/// What is told of a row beside its cells: that a pod has ended.
pub fn conditions(row: &Resource, object: &Map) -> Option<Value> {
    if !row.group.is_empty() || row.kind != "Pod" {
        return None;
    }
    let (reason, message) = match object.str_at(&["status", "phase"]) {
        phase @ "Succeeded" => (phase, "The pod has completed successfully."),
        phase @ "Failed" => (phase, "The pod failed."),
        _ => return None,
    };
    let mut condition = Map::new();
    for (key, value) in [("type", "Completed"), ("status", "True"), ("reason", reason), ("message", message)] {
        condition.insert(key, value);
    }
    Some(Value::List(vec![Value::Map(condition)]))
}

/// Whether the rows of a kind have an order of their own (see [`sort`]).
pub fn is_sorted(row: &Resource) -> bool {
    row.kind == "FlowSchema" && row.group == "flowcontrol.apiserver.k8s.io"
}

/// Brings the objects of a list into the order of their rows: flow schemas stand in the order in which they are asked.
pub fn sort(objects: &mut [Map]) {
    objects.sort_by_cached_key(|object| {
        (int(object, &["spec", "matchingPrecedence"]), object.str_at(&["metadata", "name"]).to_owned())
    });
}

/// The columns of a kind.
pub fn columns(row: &Resource) -> Vec<Column> {
    match &*row.columns {
        [] => schema::resource::usual_columns().to_vec(),
        own => own.to_vec(),
    }
}

fn cell(rule: &Cell, object: &Map, now: Timestamp) -> Value {
    match rule {
        Cell::Path(path) => object.at(path).cloned().unwrap_or_else(|| "".into()),
        Cell::Or(path, text) => match object.at(path) {
            Some(Value::Str(s)) if s.is_empty() => (*text).into(),
            Some(value) if !value.is_null() => value.clone(),
            _ => (*text).into(),
        },
        Cell::Text(path, text) => or(object.at(path).map(shown).unwrap_or_default(), text).into(),
        Cell::Number(path, number) => object.at(path).cloned().unwrap_or(Value::Int(*number)),
        Cell::Count(path) => Value::Int(count(object, path)),
        Cell::Ago(path) => ago(object.str_at(path), now).into(),
        Cell::By(make) => make(object, now),
    }
}

fn count(object: &Map, path: &[&str]) -> i64 {
    let len = match object.at(path) {
        Some(Value::List(list)) => list.len(),
        Some(Value::Map(map)) => map.len(),
        _ => 0,
    };
    i64::try_from(len).unwrap_or(i64::MAX)
}

/// How long ago an RFC 3339 time was.
fn ago(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => duration::human(now.as_second() - then.as_second()),
        Err(_) => UNKNOWN.to_owned(),
    }
}

/// A list's strings, joined.
fn joined(object: &Map, path: &[&str], separator: &str) -> String {
    let items = object.at(path).and_then(Value::as_list).unwrap_or(&[]);
    items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(separator)
}

fn or(text: String, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text }
}

/// The maps of a list.
fn maps<'o>(object: &'o Map, path: &[&str]) -> impl DoubleEndedIterator<Item = &'o Map> + use<'o> {
    object.at(path).and_then(Value::as_list).unwrap_or(&[]).iter().filter_map(Value::as_map)
}

fn int(object: &Map, path: &[&str]) -> i64 {
    object.at(path).and_then(Value::as_i64).unwrap_or(0)
}

fn flag(object: &Map, path: &[&str]) -> bool {
    object.at(path).and_then(Value::as_bool).unwrap_or(false)
}

/// A scalar as text.
fn shown(value: &Value) -> String {
    match value {
        Value::Str(s) => s.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Float(f) => f.to_string(),
        _ => String::new(),
    }
}

/// A map as a selector: `a=b,c=d`.
fn selector_of_map(object: &Map, path: &[&str]) -> String {
    let map = object.at(path).and_then(Value::as_map);
    let pairs = map.into_iter().flat_map(Map::iter).map(|(k, v)| format!("{k}={}", shown(v)));
    or(pairs.collect::<Vec<_>>().join(","), NONE)
}

/// A `metav1.LabelSelector` as text (`metav1.FormatLabelSelector`).
fn selector(object: &Map, path: &[&str]) -> String {
    let Some(selector) = object.at(path).and_then(Value::as_map) else { return NONE.to_owned() };
    let mut parts: Vec<String> = Vec::new();
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_map) {
        parts.extend(labels.iter().map(|(k, v)| format!("{k}={}", shown(v))));
    }
    for expression in maps(selector, &["matchExpressions"]) {
        let key = expression.str_at(&["key"]);
        let values = joined(expression, &["values"], ",");
        parts.push(match expression.str_at(&["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.sort();
    or(parts.join(","), NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(group: &str, version: &str, kind: &str, json: &str) -> Vec<String> {
        let row = schema::resource::of_kind(group, version, kind).unwrap_or_else(|| panic!("{kind} is served"));
        let object = match schema::json::parse(json.as_bytes()) {
            Ok(Value::Map(map)) => map,
            other => panic!("{other:?}"),
        };
        let now = Timestamp::from_second(1_000_000).unwrap_or_else(|e| panic!("{e}"));
        let cells = cells(row, &object, now);
        assert_eq!(cells.len(), columns(row).len(), "{kind} has a cell for each column");
        cells.iter().map(shown).collect()
    }

    #[test]
    fn every_kind_has_a_cell_for_each_column() {
        let mut seen = 0;
        let rows = schema::resource::all().iter().chain(schema::resource::optional());
        for resource in rows.filter(|r| !r.columns.is_empty()) {
            let cells = cells(resource, &Map::new(), Timestamp::UNIX_EPOCH);
            assert_eq!(cells.len(), columns(resource).len(), "{} {}", resource.group, resource.kind);
            let own = resource.columns.iter().all(|column| column.name != "Created At");
            assert_eq!(rules(resource).is_some(), own, "{} {}", resource.group, resource.kind);
            seen += usize::from(own);
        }
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn columns_are_described_as_upstream_does() {
        let told = |group, version, kind, name| -> String {
            let row = schema::resource::of_kind(group, version, kind).unwrap_or_else(|| panic!("{kind} is served"));
            let columns = columns(row);
            let column = columns.iter().find(|column| column.name == name).unwrap_or_else(|| panic!("{kind} {name}"));
            column.description.to_string()
        };
        let name = "Name must be unique within a namespace. Is required when creating resources,";
        for (group, version, kind, column, begins) in [
            ("", "v1", "Pod", "Name", name),
            ("", "v1", "Pod", "Ready", "The aggregate readiness state of this pod for accepting traffic."),
            ("", "v1", "Pod", "Node", "NodeName indicates in which node this pod is scheduled."),
            ("events.k8s.io", "v1", "Event", "Object", "The object that this event is about."),
            (
                "apps",
                "v1",
                "DaemonSet",
                "Node Selector",
                "NodeSelector is a selector which must be true for the pod to fit",
            ),
            ("autoscaling", "v1", "HorizontalPodAutoscaler", "MinPods", "minReplicas is the lower limit"),
            (
                "certificates.k8s.io",
                "v1",
                "CertificateSigningRequest",
                "SignerName",
                "Requested signer for the request. It",
            ),
            ("", "v1", "LimitRange", "Name", name),
            ("", "v1", "LimitRange", "Created At", "CreationTimestamp is a timestamp representing the server time"),
            ("authorization.k8s.io", "v1", "SubjectAccessReview", "Name", name),
            ("resource.k8s.io", "v1beta2", "DeviceTaintRule", "Effect", "The effect of the taint on claims"),
            ("certificates.k8s.io", "v1beta1", "PodCertificateRequest", "State", "Is the request Pending, Issued,"),
            ("certificates.k8s.io", "v1beta1", "PodCertificateRequest", "NodeName", "nodeName is the name of the node"),
        ] {
            let told = told(group, version, kind, column);
            assert!(told.starts_with(begins), "{kind} {column}: {told}");
        }
        assert!(
            told("certificates.k8s.io", "v1", "CertificateSigningRequest", "SignerName").contains("defaulted:\n 1. If")
        );
        let rows = schema::resource::all().iter().chain(schema::resource::optional());
        for row in rows {
            let undescribed = columns(row).into_iter().filter(|column| column.description.is_empty());
            let undescribed: Vec<_> = undescribed.map(|column| column.name.into_owned()).collect();
            let expected: &[&str] = match row.kind.as_ref() {
                // Upstream looks for their documentation where there is none.
                "RuntimeClass" => &["Handler"],
                "LeaseCandidate" => &["BinaryVersion", "EmulationVersion"],
                // What upstream says of these is not known.
                "PodCertificateRequest" => &["UnverifiedUserAnnotations"],
                "PodGroup" => &["Policy", "Workload", "Status"],
                "StorageVersionMigration" => &["Status"],
                "ResourcePoolStatusRequest" => &[
                    "Driver",
                    "Total",
                    "Available",
                    "Allocated",
                    "Unavailable",
                    "Errors",
                    "Pools",
                    "Status",
                    "Completed",
                ],
                _ => &[],
            };
            assert_eq!(undescribed, expected, "{} {}", row.version, row.kind);
        }
    }

    #[test]
    fn deployments_services_and_nodes() {
        let deployment = row(
            "apps",
            "v1",
            "Deployment",
            r#"{"metadata":{"name":"d","creationTimestamp":"1970-01-12T13:46:35Z"},"spec":{"replicas":3,"selector":{"matchLabels":{"app":"x"}},
                "template":{"spec":{"containers":[{"name":"a","image":"i"},{"name":"b","image":"j"}]}}},"status":{"readyReplicas":2,"updatedReplicas":3}}"#,
        );
        assert_eq!(deployment, ["d", "2/3", "3", "0", "5s", "a,b", "i,j", "app=x"]);
        let service = row(
            "",
            "v1",
            "Service",
            r#"{"metadata":{"name":"s"},"spec":{"type":"NodePort","clusterIP":"10.0.0.1","ports":[{"port":80,"nodePort":30008,"protocol":"TCP"},{"port":53,"protocol":"UDP"}]}}"#,
        );
        assert_eq!(service, ["s", "NodePort", "10.0.0.1", "<none>", "80:30008/TCP,53/UDP", "<unknown>", "<none>"]);
        let node = row(
            "",
            "v1",
            "Node",
            r#"{"metadata":{"name":"n","labels":{"node-role.kubernetes.io/control-plane":""}},"spec":{"unschedulable":true},
                "status":{"conditions":[{"type":"Ready","status":"True"}],"addresses":[{"type":"InternalIP","address":"1.2.3.4"}]}}"#,
        );
        assert_eq!(&node[..3], ["n", "Ready,SchedulingDisabled", "control-plane"]);
        assert_eq!(&node[5..7], ["1.2.3.4", "<none>"]);
    }

    /// Rows by kind: the object without its name, and what stands behind the name and before the age.
    #[test]
    fn cells_are_what_upstream_prints() {
        let rows: &[(&str, &str, &str, &str, &[&str])] = &[
            (
                "",
                "v1",
                "Endpoints",
                r#""subsets":[{"addresses":[{"ip":"1.1.1.1"},{"ip":"fd00::1"}],"ports":[{"port":80},{"port":443}]}]"#,
                &["1.1.1.1:80,[fd00::1]:80,1.1.1.1:443 + 1 more..."],
            ),
            ("", "v1", "Endpoints", r#""subsets":[{"notReadyAddresses":[{"ip":"1.1.1.1"}]}]"#, &[""]),
            ("", "v1", "Endpoints", r#""subsets":[]"#, &["<none>"]),
            (
                "discovery.k8s.io",
                "v1",
                "EndpointSlice",
                r#""addressType":"IPv4","ports":[{"port":80},{"name":"any"},{}],"endpoints":[{"addresses":["a","b"]},{"addresses":["c","d"]}]"#,
                &["IPv4", "80,any,*", "a,b,c + 1 more..."],
            ),
            ("discovery.k8s.io", "v1", "EndpointSlice", r#""addressType":"IPv4""#, &["IPv4", "<unset>", "<unset>"]),
            (
                "networking.k8s.io",
                "v1",
                "Ingress",
                r#""spec":{"rules":[{"host":"a"},{"host":"b"},{"host":"c"},{}]},"status":{"loadBalancer":{"ingress":[{"ip":"2.2.2.2"},{"hostname":"h"},{"ip":"1.1.1.1"},{"ip":"2.2.2.2"}]}}"#,
                &["<none>", "a,b,c + 1 more...", "1.1.1.1,2.2.2.2,h", "80"],
            ),
            (
                "networking.k8s.io",
                "v1",
                "IPAddress",
                r#""spec":{"parentRef":{"group":"Example.com","resource":"Things","name":"n"}}"#,
                &["things.example.com/n"],
            ),
            (
                "policy",
                "v1",
                "PodDisruptionBudget",
                r#""spec":{"minAvailable":1},"status":{"disruptionsAllowed":2}"#,
                &["1", "N/A", "2"],
            ),
            (
                "",
                "v1",
                "ResourceQuota",
                r#""spec":{"hard":{"pods":"9"}},"status":{"hard":{"pods":"5","cpu":"2","limits.cpu":"4"},"used":{"pods":"1"}}"#,
                &["cpu: 0/2, pods: 1/5", "limits.cpu: 0/4"],
            ),
            (
                "",
                "v1",
                "PersistentVolumeClaim",
                r#""metadata":{"name":"n","annotations":{"volume.beta.kubernetes.io/storage-class":"old"}},"spec":{"volumeName":"v","storageClassName":"new"},"status":{"phase":"Bound"}"#,
                &["Bound", "v", "0", "", "old", "<unset>"],
            ),
            (
                "storage.k8s.io",
                "v1",
                "CSIDriver",
                r#""spec":{"attachRequired":false,"tokenRequests":[{"audience":"a"},{"audience":"b"}],"volumeLifecycleModes":["Persistent","Ephemeral"]}"#,
                &["false", "false", "false", "a,b", "false", "Persistent,Ephemeral"],
            ),
            ("storage.k8s.io", "v1", "CSIDriver", "", &["true", "false", "false", "<unset>", "false", "<none>"]),
            ("storage.k8s.io", "v1", "CSIStorageCapacity", r#""storageClassName":"c""#, &["c", "<unset>"]),
            (
                "admissionregistration.k8s.io",
                "v1",
                "ValidatingAdmissionPolicyBinding",
                r#""spec":{"policyName":"p","paramRef":{"name":"n"}}"#,
                &["p", "*/n"],
            ),
            (
                "admissionregistration.k8s.io",
                "v1",
                "ValidatingAdmissionPolicyBinding",
                r#""spec":{"policyName":"p","paramRef":{"selector":{"matchLabels":{"b":"2","a":"1"},"matchExpressions":[{"key":"k","operator":"In","values":["x","y"]}]}}}"#,
                &[
                    "p",
                    "&LabelSelector{MatchLabels:map[string]string{a: 1,b: 2,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}",
                ],
            ),
            (
                "admissionregistration.k8s.io",
                "v1",
                "ValidatingAdmissionPolicyBinding",
                r#""spec":{"policyName":"p"}"#,
                &["p", "<unset>"],
            ),
            (
                "flowcontrol.apiserver.k8s.io",
                "v1",
                "PriorityLevelConfiguration",
                r#""spec":{"type":"Exempt","exempt":{"nominalConcurrencyShares":0}}"#,
                &["Exempt", "<none>", "<none>", "<none>", "<none>"],
            ),
            (
                "apiregistration.k8s.io",
                "v1",
                "APIService",
                r#""spec":{"service":{"namespace":"s","name":"m"}},"status":{"conditions":[{"type":"Available","status":"False","reason":"MissingEndpoints"}]}"#,
                &["s/m", "False (MissingEndpoints)"],
            ),
            (
                "autoscaling",
                "v2",
                "HorizontalPodAutoscaler",
                r#""spec":{"scaleTargetRef":{"kind":"Deployment","name":"d"},"minReplicas":1,"maxReplicas":3,"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"averageUtilization":50}}},{"type":"External","external":{"target":{"averageValue":"5"}}}]},"status":{"currentMetrics":[{"type":"Resource","resource":{"current":{"averageUtilization":3}}}]}"#,
                &["Deployment/d", "cpu: 3%/50%, <unknown>/5 (avg)", "1", "3", "0"],
            ),
            (
                "autoscaling",
                "v1",
                "HorizontalPodAutoscaler",
                r#""metadata":{"name":"n","annotations":{"autoscaling.alpha.kubernetes.io/metrics":"[{\"type\":\"Pods\",\"pods\":{\"metricName\":\"p\",\"targetAverageValue\":\"7\"}}]"}},"spec":{"scaleTargetRef":{"kind":"Deployment","name":"d"},"minReplicas":1,"maxReplicas":3,"targetCPUUtilizationPercentage":50}"#,
                &["Deployment/d", "<unknown>/7, cpu: <unknown>/50%", "1", "3", "0"],
            ),
        ];
        for (group, version, kind, members, cells) in rows {
            let comma = if members.is_empty() || members.starts_with(r#""metadata""#) { "" } else { "," };
            let name = if members.starts_with(r#""metadata""#) { "" } else { r#""metadata":{"name":"n"}"# };
            let told = row(group, version, kind, &format!("{{{name}{comma}{members}}}"));
            assert_eq!(&told[1..=cells.len()], *cells, "{kind} {members}");
        }
    }

    #[test]
    fn events_of_both_groups_show_the_same() {
        let times = r#""metadata":{"name":"e"},"type":"Normal","reason":"R""#;
        let core = format!(
            r#"{{{times},"involvedObject":{{"kind":"Pod","name":"p"}},"message":" m ","source":{{"component":"c","host":"h"}},"firstTimestamp":"1970-01-12T13:45:40Z","lastTimestamp":"1970-01-12T13:46:35Z","count":3}}"#
        );
        let new = format!(
            r#"{{{times},"regarding":{{"kind":"Pod","name":"p"}},"note":" m ","deprecatedSource":{{"component":"c","host":"h"}},"deprecatedFirstTimestamp":"1970-01-12T13:45:40Z","deprecatedLastTimestamp":"1970-01-12T13:46:35Z","deprecatedCount":3}}"#
        );
        let shown = ["5s", "Normal", "R", "pod/p", "", "c, h", "m", "60s", "3", "e"];
        assert_eq!(row("", "v1", "Event", &core), shown);
        assert_eq!(row("events.k8s.io", "v1", "Event", &new), shown);
        let series = format!(
            r#"{{{times},"involvedObject":{{"kind":"Pod"}},"reportingComponent":"c","eventTime":"1970-01-12T13:45:40.000000Z","series":{{"count":0,"lastObservedTime":"1970-01-12T13:46:35.000000Z"}}}}"#
        );
        assert_eq!(row("", "v1", "Event", &series), ["5s", "Normal", "R", "pod", "", "c", "", "60s", "0", "e"]);
    }

    #[test]
    fn numbers_and_texts_are_what_they_are_upstream() {
        let cells_of = |group: &str, kind: &str, json: &str| {
            let row = schema::resource::of_kind(group, "v1", kind).expect("served");
            let Ok(Value::Map(object)) = schema::json::parse(json.as_bytes()) else { panic!("{json}") };
            cells(row, &object, Timestamp::UNIX_EPOCH)
        };
        let budget = cells_of("policy", "PodDisruptionBudget", r#"{"spec":{"minAvailable":1}}"#);
        assert_eq!((&budget[1], &budget[3]), (&Value::from("1"), &Value::Int(0)));
        let limited = r#"{"spec":{"type":"Limited","limited":{"nominalConcurrencyShares":5,"limitResponse":{"queuing":{"queues":8}}}}}"#;
        let level = cells_of("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", limited);
        assert_eq!((&level[2], &level[3], &level[4]), (&Value::Int(5), &Value::Int(8), &Value::from("<none>")));
    }

    #[test]
    fn rows_of_pods_that_ended_say_so_and_flow_schemas_stand_in_their_order() {
        let object = |json: &str| match schema::json::parse(json.as_bytes()) {
            Ok(Value::Map(object)) => object,
            other => panic!("{other:?}"),
        };
        let pods = schema::resource::get("", "v1", "pods").expect("served");
        assert_eq!(conditions(pods, &object(r#"{"status":{"phase":"Running"}}"#)), None);
        let told = conditions(pods, &object(r#"{"status":{"phase":"Failed"}}"#));
        let told = told.as_ref().and_then(Value::as_list).and_then(|list| list[0].as_map()).expect("a condition");
        assert_eq!((told.str_at(&["type"]), told.str_at(&["reason"])), ("Completed", "Failed"));
        assert_eq!(told.str_at(&["message"]), "The pod failed.");
        let schemas = schema::resource::get("flowcontrol.apiserver.k8s.io", "v1", "flowschemas").expect("served");
        let of = |name: &str, precedence: i64| {
            object(&format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"matchingPrecedence":{precedence}}}}}"#))
        };
        let mut list = [of("a", 9), of("c", 2), of("b", 2)];
        assert!(is_sorted(schemas));
        sort(&mut list);
        assert_eq!(list.each_ref().map(|object| object.str_at(&["metadata", "name"])), ["b", "c", "a"]);
    }
}
