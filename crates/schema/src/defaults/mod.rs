//! Defaulting: what the API server fills in where a client said nothing.
//!
//! One walk over the tree, guided by its type. Constants are rows of [`CONSTANTS`]; what depends on the object is a
//! function in [`COMPUTED`]. A struct's own constants come first, then its computed ones, then its parts, then what its
//! parts decide ([`AFTER`]).

mod conversion;
mod image;
mod kinds;
mod pod;
mod rules;

pub use conversion::problem;

use crate::tree::{Beside, Map, Value};
use crate::types::{Kind, Struct, TypeRef};
use api::quantity::Quantity;

/// A value that needs no object to be known.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Constant {
    Str(&'static str),
    Int(i64),
    Bool(bool),
    /// `{}`
    Empty,
}

impl Constant {
    fn value(self) -> Value {
        match self {
            Constant::Str(s) => Value::from(s),
            Constant::Int(i) => Value::Int(i),
            Constant::Bool(b) => Value::Bool(b),
            Constant::Empty => Value::Map(Map::new()),
        }
    }
}

/// Type (without `io.k8s.`) → field → constant; sorted by type.
type Constants = &'static [(&'static str, &'static [(&'static str, Constant)])];
/// Type → what is computed; sorted by type.
type Computed = &'static [(&'static str, fn(&mut Map))];
/// Type → the members by which something is computed, which is done when one of them changed → what; sorted by type.
type Deciding = &'static [(&'static str, &'static [&'static str], fn(&mut Map))];

const CONSTANTS: Constants = rules::CONSTANTS;
const COMPUTED: Computed = rules::COMPUTED;
const AFTER: Deciding = rules::AFTER;

/// Fills in the defaults of an object of a built-in type. Applying it again changes nothing.
pub fn apply(ty: TypeRef<'_>, object: &mut Map) {
    changed(ty, object, None);
}

/// The same for an object that was made from another of the type, which has its defaults: what they share is not looked at.
pub fn changed(ty: TypeRef<'_>, object: &mut Map, from: Option<&Map>) {
    if from.is_some_and(|from| from.is(object)) {
        return;
    }
    let mut beside = Beside::new(from);
    match ty.kind() {
        Kind::Struct(s) => {
            let name = s.ruled_as();
            let name = name.strip_prefix("io.k8s.").unwrap_or(&name);
            if let Ok(at) = CONSTANTS.binary_search_by(|(n, _)| (*n).cmp(name)) {
                for (field, constant) in CONSTANTS[at].1 {
                    if is_unset(s, field, object.get(field)) {
                        object.insert(*field, constant.value());
                    }
                }
            }
            run(COMPUTED, name, object);
            let amounts = name.starts_with(WITH_AMOUNTS.0) || name == WITH_AMOUNTS.1;
            for (key, value) in object.iter_mut() {
                // Scalars have no parts.
                if matches!(value, Value::Map(_) | Value::List(_))
                    && let Some(field) = s.field(key)
                {
                    let from = beside.value(key);
                    match (field.ty().kind(), &mut *value) {
                        (Kind::Map(of), Value::Map(list)) if amounts && matches!(of.kind(), Kind::Quantity) => {
                            round(list, from.and_then(Value::as_map));
                        }
                        _ => below(field.ty(), value, from),
                    }
                }
            }
            if let Ok(at) = AFTER.binary_search_by(|(n, ..)| (*n).cmp(name)) {
                let (_, members, rule) = AFTER[at];
                if !from.is_some_and(|from| members.iter().all(|member| object.shares(from, member))) {
                    rule(object);
                }
            }
        }
        Kind::Map(of) => object.iter_mut().for_each(|(key, value)| below(of, value, beside.value(key))),
        _ => {}
    }
}

/// The types whose maps of quantities are lists of resources: by their prefix, and the one beside them.
const WITH_AMOUNTS: (&str, &str) = ("api.core.v1.", "api.node.v1.Overhead");

/// Whether Go's field is as if nothing had been given: decoding makes the zero of what is absent when the field is always written.
fn is_unset(ty: Struct<'_>, field: &str, value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Str(text)) => text.is_empty() && !ty.field(field).is_some_and(|field| field.pointer()),
        Some(Value::Int(0)) => !ty.field(field).is_some_and(|field| field.pointer()),
        Some(_) => false,
    }
}

/// Amounts of resources are no finer than thousandths.
fn round(list: &mut Map, from: Option<&Map>) {
    if from.is_some_and(|from| from.is(list)) {
        return;
    }
    let finer = list.iter().filter_map(|(name, amount)| {
        let rounded = Quantity::rounded_to_milli(amount.as_str()?)?;
        Some((name.to_owned(), rounded))
    });
    for (name, rounded) in finer.collect::<Vec<_>>() {
        list.insert(name, rounded);
    }
}

fn run(table: Computed, name: &str, object: &mut Map) {
    if let Ok(at) = table.binary_search_by(|(n, _)| (*n).cmp(name)) {
        table[at].1(object);
    }
}

fn below(ty: TypeRef<'_>, value: &mut Value, from: Option<&Value>) {
    match (ty.kind(), value) {
        (Kind::Struct(_) | Kind::Map(_), Value::Map(map)) => changed(ty, map, from.and_then(Value::as_map)),
        (Kind::List(of), Value::List(items)) => {
            if matches!(of.kind(), Kind::Struct(_)) {
                let from = from.and_then(Value::as_list).unwrap_or_default();
                items.iter_mut().enumerate().for_each(|(n, item)| below(of, item, from.get(n)));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::tests_support::value;

    fn defaulted(group: &str, version: &str, kind: &str, json: &str) -> Map {
        let ty = crate::types::of_kind(group, version, kind).unwrap_or_else(|| panic!("{kind} is known"));
        let Value::Map(mut object) = value(json) else { panic!("an object") };
        apply(ty, &mut object);
        let once = object.clone();
        apply(ty, &mut object);
        assert_eq!(once, object, "defaulting is idempotent");
        object
    }

    #[test]
    fn tables_are_sorted_and_name_what_exists() {
        let sorted = |names: Vec<&str>| assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        sorted(CONSTANTS.iter().map(|(n, _)| *n).collect());
        sorted(COMPUTED.iter().map(|(n, _)| *n).collect());
        sorted(AFTER.iter().map(|(n, ..)| *n).collect());
        for (name, fields) in CONSTANTS {
            let ty = crate::types::find(&format!("io.k8s.{name}")).and_then(TypeRef::as_struct);
            let ty = ty.unwrap_or_else(|| panic!("{name} is no type"));
            for (field, _) in *fields {
                assert!(ty.field(field).is_some(), "{name} has no field {field}");
            }
        }
        for name in COMPUTED.iter().map(|(n, _)| n).chain(AFTER.iter().map(|(n, ..)| n)) {
            assert!(crate::types::find(&format!("io.k8s.{name}")).is_some(), "{name} is no type");
        }
    }

    #[test]
    fn what_decoding_made_of_nothing_is_filled_in_too() {
        let mut always = Vec::new();
        for (name, fields) in CONSTANTS {
            let ty = crate::types::find(&format!("io.k8s.{name}")).expect("a type");
            for (field, constant) in *fields {
                let declared = ty.as_struct().and_then(|s| s.field(field)).expect("a field");
                let zero = match constant {
                    Constant::Str(_) => Value::from(""),
                    Constant::Int(_) => Value::Int(0),
                    Constant::Bool(_) | Constant::Empty => continue,
                };
                let mut object: Map = [((*field).into(), zero.clone())].into_iter().collect();
                apply(ty, &mut object);
                // What a pointer leads to was given.
                let expected = if declared.pointer() { zero } else { constant.value() };
                assert_eq!(object.get(field), Some(&expected), "{name}.{field}");
                if !declared.pointer() && !declared.omit_empty() {
                    always.push((*name, *field));
                }
            }
        }
        assert_eq!(always, [("api.rbac.v1.RoleRef", "apiGroup")]);
        for given in ["", r#""apiGroup":"","#, r#""apiGroup":null,"#] {
            let text = format!(
                r#"{{"roleRef":{{{given}"kind":"Role","name":"r"}},"subjects":[{{{given}"kind":"User","name":"u"}},{{{given}"kind":"Group","name":"g"}},{{{given}"kind":"ServiceAccount","name":"s"}}]}}"#
            );
            for kind in ["RoleBinding", "ClusterRoleBinding"] {
                let ty = crate::types::of_kind("rbac.authorization.k8s.io", "v1", kind).expect("a kind");
                let mut binding = crate::json::decode(ty, text.as_bytes()).expect("a binding").object;
                apply(ty, &mut binding);
                assert_eq!(binding.str_at(&["roleRef", "apiGroup"]), "rbac.authorization.k8s.io", "{text}");
                let groups = binding.get("subjects").and_then(Value::as_list).expect("subjects").iter();
                let groups = groups.filter_map(Value::as_map).map(|subject| subject.str_at(&["apiGroup"]).to_owned());
                let expected = ["rbac.authorization.k8s.io", "rbac.authorization.k8s.io", ""];
                assert_eq!(groups.collect::<Vec<_>>(), expected, "{text}");
            }
        }
    }

    #[test]
    fn amounts_of_resources_are_rounded_up_to_thousandths() {
        const LIST: &str = r#"{"cpu":"0.0001","memory":"1n","a.b/c":"2.2222","storage":"1.500","pods":"12E"}"#;
        const ROUNDED: &str = r#"{"cpu":"1m","memory":"1m","a.b/c":"2223m","storage":"1.500","pods":"12E"}"#;
        for (group, version, kind, path) in [
            ("", "v1", "Pod", r#"{"spec":{"containers":[{"name":"a","image":"a:1","resources":{"requests":LIST}}]}}"#),
            ("", "v1", "Pod", r#"{"spec":{"containers":[],"overhead":LIST}}"#),
            ("", "v1", "Pod", r#"{"spec":{"containers":[],"resources":{"requests":LIST}}}"#),
            ("", "v1", "Pod", r#"{"status":{"containerStatuses":[{"allocatedResources":LIST}]}}"#),
            (
                "apps",
                "v1",
                "Deployment",
                r#"{"spec":{"template":{"spec":{"containers":[{"resources":{"limits":LIST}}]}}}}"#,
            ),
            ("", "v1", "ResourceQuota", r#"{"spec":{"hard":LIST},"status":{"used":LIST}}"#),
            ("", "v1", "LimitRange", r#"{"spec":{"limits":[{"type":"Pod","max":LIST}]}}"#),
            ("", "v1", "Node", r#"{"status":{"capacity":LIST,"allocatable":LIST}}"#),
            ("", "v1", "PersistentVolume", r#"{"spec":{"capacity":LIST}}"#),
            (
                "",
                "v1",
                "PersistentVolumeClaim",
                r#"{"spec":{"resources":{"requests":LIST}},"status":{"capacity":LIST}}"#,
            ),
            (
                "storage.k8s.io",
                "v1",
                "VolumeAttachment",
                r#"{"spec":{"source":{"inlineVolumeSpec":{"capacity":LIST}}}}"#,
            ),
            ("node.k8s.io", "v1", "RuntimeClass", r#"{"overhead":{"podFixed":LIST}}"#),
        ] {
            let given = defaulted(group, version, kind, &path.replace("LIST", LIST));
            let rounded = defaulted(group, version, kind, &path.replace("LIST", ROUNDED));
            assert_eq!(given, rounded, "{path}");
            assert_ne!(value(&path.replace("LIST", LIST)), Value::Map(given), "{path}");
        }
        // These are no such lists.
        let claim = r#"{"spec":{"devices":{"requests":[{"name":"a","exactly":{"deviceClassName":"d","capacity":{"requests":{"a":"1n"}}}}]}}}"#;
        let claim = format!("{:?}", defaulted("resource.k8s.io", "v1", "ResourceClaim", claim));
        assert!(claim.contains("1n"), "{claim}");
    }

    #[test]
    fn a_stateful_set_that_says_its_strategy_says_all_of_it() {
        let strategy = |given: &str| {
            let set = defaulted("apps", "v1", "StatefulSet", &format!(r#"{{"spec":{{"updateStrategy":{given}}}}}"#));
            set.at(&["spec", "updateStrategy"]).cloned()
        };
        let whole = r#"{"type":"RollingUpdate","rollingUpdate":{"partition":0}}"#;
        assert_eq!(strategy("{}"), Some(value(whole)));
        let alone = r#"{"type":"RollingUpdate"}"#;
        assert_eq!(strategy(alone), Some(value(alone)));
        assert_eq!(strategy(r#"{"type":"RollingUpdate","rollingUpdate":{}}"#), Some(value(whole)));
    }

    #[test]
    fn conditions_of_a_jobs_failure_policy_are_true_unless_it_is_said() {
        let job = r#"{"spec":{"podFailurePolicy":{"rules":[{"action":"Ignore","onPodConditions":[{"type":"A"},{"type":"B","status":""},{"type":"C","status":"False"}]}]}}}"#;
        let job = defaulted("batch", "v1", "Job", job);
        let rules = job.at(&["spec", "podFailurePolicy", "rules"]).and_then(Value::as_list).expect("rules");
        let expected = r#"[{"action":"Ignore","onPodConditions":[{"type":"A","status":"True"},{"type":"B","status":"True"},{"type":"C","status":"False"}]}]"#;
        assert_eq!(Value::List(rules.to_vec()), value(expected));
    }

    #[test]
    fn a_pod_is_filled_in_as_upstream_does() {
        let pod = defaulted(
            "",
            "v1",
            "Pod",
            r#"{"spec":{"containers":[{"name":"a","image":"nginx","ports":[{"containerPort":80}],
                "resources":{"limits":{"cpu":"1"}},"livenessProbe":{"httpGet":{"port":80}}},
                {"name":"b","image":"nginx:1.7.9"}],"volumes":[{"name":"v"},{"name":"c","configMap":{"name":"x"}}]}}"#,
        );
        assert_eq!(
            Value::Map(pod),
            value(
                r#"{"spec":{"containers":[
                {"name":"a","image":"nginx","imagePullPolicy":"Always","ports":[{"containerPort":80,"protocol":"TCP"}],
                 "resources":{"limits":{"cpu":"1"},"requests":{"cpu":"1"}},
                 "livenessProbe":{"httpGet":{"port":80,"path":"/","scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},
                 "terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"},
                {"name":"b","image":"nginx:1.7.9","imagePullPolicy":"IfNotPresent","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],
                "volumes":[{"name":"v","emptyDir":{}},{"name":"c","configMap":{"name":"x","defaultMode":420}}],
                "dnsPolicy":"ClusterFirst","enableServiceLinks":true,"restartPolicy":"Always","schedulerName":"default-scheduler",
                "securityContext":{},"terminationGracePeriodSeconds":30}}"#
            )
        );
    }

    #[test]
    fn ports_of_the_hosts_network_are_the_hosts_in_pods_alone() {
        let spec = r#"{"hostNetwork":true,"containers":[{"name":"a","image":"i:1","ports":[{"containerPort":80}]}],
            "initContainers":[{"name":"b","image":"i:1","ports":[{"containerPort":81},{"containerPort":82,"hostPort":9}]}]}"#;
        let ports = |object: &Map, path: &[&str]| -> Vec<Vec<Option<i64>>> {
            let spec = object.at(path).and_then(Value::as_map).expect("a spec");
            let of = |list: &str| {
                let containers = spec.get(list).and_then(Value::as_list).expect("a list");
                let ports = containers[0].as_map().and_then(|one| one.get("ports")).and_then(Value::as_list);
                let ports = ports.expect("ports").iter().filter_map(Value::as_map);
                ports.map(|port| port.get("hostPort").and_then(Value::as_i64)).collect()
            };
            vec![of("containers"), of("initContainers")]
        };
        let pod = defaulted("", "v1", "Pod", &format!(r#"{{"spec":{spec}}}"#));
        assert_eq!(ports(&pod, &["spec"]), [vec![Some(80)], vec![Some(81), Some(9)]]);
        let set = defaulted("apps", "v1", "DaemonSet", &format!(r#"{{"spec":{{"template":{{"spec":{spec}}}}}}}"#));
        assert_eq!(ports(&set, &["spec", "template", "spec"]), [vec![None], vec![None, Some(9)]]);
    }

    #[test]
    fn a_pod_as_a_whole_asks_for_what_its_containers_do_or_for_all_that_it_may_have() {
        const TWO: &str = r#"{"name":"a","image":"i:1","resources":{"requests":{"cpu":"1"}}},{"name":"b","image":"i:1","resources":{"requests":{"cpu":"500m"}}}"#;
        const HUGE: &str =
            r#"{"name":"a","image":"i:1","resources":{"limits":{"hugepages-2Mi":"4Mi","memory":"1Gi"}}}"#;
        const INIT: &str = r#"{"name":"a","image":"i:1"}],"initContainers":[{"name":"s","image":"i:1","restartPolicy":"Always","resources":{"requests":{"cpu":"1"}}},{"name":"i","image":"i:1","resources":{"requests":{"cpu":"4"}}}"#;
        const NONE: &str = r#"{"name":"a","image":"i:1"}"#;
        for (given, containers, expected) in [
            // Nothing is said for the pod, or only what it asks for.
            ("{}", TWO, "{}"),
            (r#"{"requests":{"cpu":"2"}}"#, TWO, r#"{"requests":{"cpu":"2"}}"#),
            // Limits alone: requests of containers first, then limits.
            (
                r#"{"limits":{"cpu":"2","memory":"1Gi"}}"#,
                TWO,
                r#"{"limits":{"cpu":"2","memory":"1Gi"},"requests":{"cpu":"1500m","memory":"1Gi"}}"#,
            ),
            (
                r#"{"limits":{"memory":"1Gi"}}"#,
                TWO,
                r#"{"limits":{"memory":"1Gi"},"requests":{"cpu":"1500m","memory":"1Gi"}}"#,
            ),
            (r#"{"limits":{"cpu":"2"}}"#, NONE, r#"{"limits":{"cpu":"2"},"requests":{"cpu":"2"}}"#),
            (
                r#"{"limits":{"cpu":"2"},"requests":{"cpu":"1900m"}}"#,
                TWO,
                r#"{"limits":{"cpu":"2"},"requests":{"cpu":"1900m"}}"#,
            ),
            (r#"{"limits":{"cpu":"9"}}"#, INIT, r#"{"limits":{"cpu":"9"},"requests":{"cpu":"5"}}"#),
            // Huge pages of containers are limits of the pod, unless it asks for some itself.
            (
                r#"{"requests":{"memory":"2Gi"}}"#,
                HUGE,
                r#"{"limits":{"hugepages-2Mi":"4Mi"},"requests":{"hugepages-2Mi":"4Mi","memory":"2Gi"}}"#,
            ),
            (
                r#"{"requests":{"hugepages-2Mi":"8Mi","memory":"2Gi"}}"#,
                HUGE,
                r#"{"requests":{"hugepages-2Mi":"8Mi","memory":"2Gi"}}"#,
            ),
        ] {
            let pod = format!(r#"{{"spec":{{"resources":{given},"containers":[{containers}]}}}}"#);
            let pod = defaulted("", "v1", "Pod", &pod);
            assert_eq!(pod.at(&["spec", "resources"]), Some(&value(expected)), "{given} {containers}");
        }
        // Not in templates.
        let template = format!(
            r#"{{"spec":{{"template":{{"spec":{{"resources":{{"limits":{{"cpu":"2"}}}},"containers":[{TWO}]}}}}}}}}"#
        );
        let deployment = defaulted("apps", "v1", "Deployment", &template);
        assert_eq!(
            deployment.at(&["spec", "template", "spec", "resources"]),
            Some(&value(r#"{"limits":{"cpu":"2"}}"#))
        );
    }

    #[test]
    fn images_of_volumes_and_addresses_of_balancers() {
        let volume = |reference: &str| {
            let text = format!(
                r#"{{"spec":{{"containers":[],"volumes":[{{"name":"v","image":{{"reference":"{reference}"}}}}]}}}}"#
            );
            let pod = defaulted("", "v1", "Pod", &text);
            let volumes = pod.at(&["spec", "volumes"]).and_then(Value::as_list).expect("volumes");
            volumes[0].as_map().expect("a volume").str_at(&["image", "pullPolicy"]).to_owned()
        };
        assert_eq!([volume("a"), volume("a:1"), volume("")], ["Always", "IfNotPresent", "IfNotPresent"]);
        let mode = |kind: &str| {
            let text = format!(
                r#"{{"spec":{{"type":"{kind}"}},"status":{{"loadBalancer":{{"ingress":[{{"ip":"192.0.2.1"}},{{"hostname":"a"}},{{"ip":"192.0.2.2","ipMode":"Proxy"}}]}}}}}}"#
            );
            let service = defaulted("", "v1", "Service", &text);
            let list = service.at(&["status", "loadBalancer", "ingress"]).and_then(Value::as_list).expect("a list");
            let modes = list.iter().filter_map(Value::as_map).map(|one| one.str_at(&["ipMode"]).to_owned());
            modes.collect::<Vec<_>>()
        };
        assert_eq!(mode("LoadBalancer"), ["VIP", "", "Proxy"]);
        assert_eq!(mode("ClusterIP"), ["", "", "Proxy"]);
    }

    #[test]
    fn services_and_deployments() {
        let service = defaulted("", "v1", "Service", r#"{"spec":{"type":"NodePort","ports":[{"port":80}]}}"#);
        assert_eq!(
            service.get("spec"),
            Some(&value(
                r#"{"type":"NodePort","sessionAffinity":"None","externalTrafficPolicy":"Cluster","internalTrafficPolicy":"Cluster",
                "ports":[{"port":80,"protocol":"TCP","targetPort":80}]}"#
            ))
        );
        let deployment = defaulted("apps", "v1", "Deployment", r#"{"spec":{"template":{}}}"#);
        assert_eq!(deployment.str_at(&["spec", "strategy", "rollingUpdate", "maxSurge"]), "25%");
        assert_eq!(deployment.at(&["spec", "progressDeadlineSeconds"]), Some(&Value::Int(600)));
        let recreate = defaulted(
            "apps",
            "v1",
            "Deployment",
            r#"{"spec":{"strategy":{"type":"Recreate"},"template":{"spec":{"containers":[]}}}}"#,
        );
        assert_eq!(recreate.at(&["spec", "strategy"]), Some(&value(r#"{"type":"Recreate"}"#)));
        let job = defaulted("batch", "v1", "Job", r#"{"spec":{"template":{"metadata":{"labels":{"a":"b"}}}}}"#);
        assert_eq!(job.str_at(&["metadata", "labels", "a"]), "b");
        assert_eq!(
            job.get("spec"),
            Some(&value(
                r#"{"backoffLimit":6,"completionMode":"NonIndexed","completions":1,"manualSelector":false,"parallelism":1,
                "podReplacementPolicy":"TerminatingOrFailed","suspend":false,"template":{"metadata":{"labels":{"a":"b"}}}}"#
            ))
        );
        // The template of a CronJob is no job yet.
        let cron = defaulted("batch", "v1", "CronJob", r#"{"spec":{"jobTemplate":{"spec":{"completions":2}}}}"#);
        assert_eq!(cron.at(&["spec", "jobTemplate"]), Some(&value(r#"{"spec":{"completions":2}}"#)));
        // Only pods, not templates.
        assert_eq!(recreate.at(&["spec", "template", "spec", "enableServiceLinks"]), None);
    }

    #[test]
    fn limits_claims_and_autoscalers() {
        let limits = defaulted(
            "",
            "v1",
            "LimitRange",
            r#"{"spec":{"limits":[{"type":"Container","max":{"cpu":"2"},"min":{"cpu":"1","memory":"1Gi"}},{"type":"Pod","max":{"cpu":"4"}}]}}"#,
        );
        assert_eq!(
            limits.get("spec"),
            Some(&value(
                r#"{"limits":[{"type":"Container","max":{"cpu":"2"},"min":{"cpu":"1","memory":"1Gi"},"default":{"cpu":"2"},
                "defaultRequest":{"cpu":"2","memory":"1Gi"}},{"type":"Pod","max":{"cpu":"4"}}]}"#
            ))
        );
        let set = defaulted("apps", "v1", "StatefulSet", r#"{"spec":{"volumeClaimTemplates":[{"spec":{}}]}}"#);
        assert_eq!(
            set.at(&["spec", "volumeClaimTemplates"]),
            Some(&value(
                r#"[{"apiVersion":"v1","kind":"PersistentVolumeClaim","spec":{"volumeMode":"Filesystem"},"status":{"phase":"Pending"}}]"#
            ))
        );
        let scaler = defaulted(
            "autoscaling",
            "v2",
            "HorizontalPodAutoscaler",
            r#"{"spec":{"behavior":{"scaleUp":{"selectPolicy":"Min"}}}}"#,
        );
        assert_eq!(
            scaler.get("spec"),
            Some(&value(
                r#"{"minReplicas":1,"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":80}}}],
                "behavior":{"scaleUp":{"selectPolicy":"Min","stabilizationWindowSeconds":0,"policies":[
                {"type":"Pods","value":4,"periodSeconds":15},{"type":"Percent","value":100,"periodSeconds":15}]},
                "scaleDown":{"selectPolicy":"Max","policies":[{"type":"Percent","value":100,"periodSeconds":15}]}}}"#
            ))
        );
        let selector = |selector: &str| {
            let text = format!(r#"{{"spec":{{"selector":{selector}}}}}"#);
            defaulted("policy", "v1", "PodDisruptionBudget", &text).at(&["spec", "selector"]).cloned()
        };
        let label = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";
        let old = |operator: &str| format!(r#"{{"key":"{label}","operator":"{operator}"}}"#);
        let none = format!(r#"{{"matchExpressions":[{}]}}"#, old("Exists"));
        assert_eq!(selector(&none), Some(value(&none)), "no pod at all");
        let all = format!(r#"{{"matchExpressions":[{}]}}"#, old("DoesNotExist"));
        assert_eq!(selector(&all), Some(value("{}")), "every pod");
        let mixed = format!(r#"{{"matchLabels":{{"a":"b"}},"matchExpressions":[{}]}}"#, old("Exists"));
        assert_eq!(selector(&mixed), Some(value(r#"{"matchLabels":{"a":"b"}}"#)));
        let controller =
            defaulted("", "v1", "ReplicationController", r#"{"spec":{"template":{"metadata":{"labels":{"a":"b"}}}}}"#);
        assert_eq!(controller.str_at(&["spec", "selector", "a"]), "b");
        assert_eq!(controller.str_at(&["metadata", "labels", "a"]), "b");
    }
}
