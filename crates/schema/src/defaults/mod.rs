//! Defaulting: what the API server fills in where a client said nothing.
//!
//! One walk over the tree, guided by its type. Constants are rows of [`CONSTANTS`]; what depends on the object is a
//! function in [`COMPUTED`]. A struct's own constants come first, then its computed ones, then its parts, then what its
//! parts decide ([`AFTER`]).

mod kinds;
mod rules;

use crate::tree::{Beside, Map, Value};
use crate::types::{Kind, TypeRef};

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

const CONSTANTS: Constants = rules::CONSTANTS;
const COMPUTED: Computed = rules::COMPUTED;
const AFTER: Computed = rules::AFTER;

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
                    if object.get(field).is_none_or(Value::is_null) {
                        object.insert(*field, constant.value());
                    }
                }
            }
            run(COMPUTED, name, object);
            for (key, value) in object.iter_mut() {
                // Scalars have no parts.
                if matches!(value, Value::Map(_) | Value::List(_))
                    && let Some(field) = s.field(key)
                {
                    below(field.ty(), value, beside.value(key));
                }
            }
            run(AFTER, name, object);
        }
        Kind::Map(of) => object.iter_mut().for_each(|(key, value)| below(of, value, beside.value(key))),
        _ => {}
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
        sorted(AFTER.iter().map(|(n, _)| *n).collect());
        for (name, fields) in CONSTANTS {
            let ty = crate::types::find(&format!("io.k8s.{name}")).and_then(TypeRef::as_struct);
            let ty = ty.unwrap_or_else(|| panic!("{name} is no type"));
            for (field, _) in *fields {
                assert!(ty.field(field).is_some(), "{name} has no field {field}");
            }
        }
        for (name, _) in COMPUTED.iter().chain(AFTER) {
            assert!(crate::types::find(&format!("io.k8s.{name}")).is_some(), "{name} is no type");
        }
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
