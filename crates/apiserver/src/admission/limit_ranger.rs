//! LimitRanger: a namespace's limit ranges give containers their default resources and bound what is asked for.

use super::quota::amounts::{Amounts, amounts, of_pod};
use super::{Admission, Attributes, Operation, Sides, walk};
use crate::lookup::{LIMIT_RANGES, Lookup};
use api::{Quantity, Status};
use async_trait::async_trait;
use schema::{Map, Value};
use std::sync::Arc;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The items of the limit ranges, in their order.
fn limits<'a>(ranges: &'a [Map], kind: &'a str) -> impl Iterator<Item = &'a Map> {
    ranges.iter().flat_map(|r| walk::items(r, &["spec", "limits"])).filter(move |l| l.str_at(&["type"]) == kind)
}

/// Gives the containers of a pod the defaults that they lack, and notes so in an annotation.
pub(super) fn apply_defaults(pod: &mut Map, ranges: &[Map]) {
    for range in ranges {
        let (mut requests, mut bounds) = (Amounts::new(), Amounts::new());
        for limit in limits(std::slice::from_ref(range), "Container") {
            requests.extend(amounts(limit, &["defaultRequest"]));
            bounds.extend(amounts(limit, &["default"]));
        }
        let mut notes = Vec::new();
        for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
            for container in walk::items_mut(pod, &["spec", list]) {
                let name = container.str_at(&["name"]).to_owned();
                let set_limits = fill(container, "limits", &bounds);
                let set_requests = fill(container, "requests", &requests);
                for (set, word) in [(set_requests, "request"), (set_limits, "limit")] {
                    if !set.is_empty() {
                        notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                    }
                }
            }
        }
        if !notes.is_empty() {
            pod.set_at(
                &["metadata", "annotations", ANNOTATION],
                format!("LimitRanger plugin set: {}", notes.join("; ")),
            );
        }
    }
}

fn fill(container: &mut Map, which: &'static str, defaults: &Amounts) -> Vec<String> {
    let mut set = Vec::new();
    for (name, value) in defaults {
        if container.at(&["resources", which, name]).is_none() {
            let resources = container.entry("resources", || Map::new().into()).as_map_mut();
            let list = resources.map(|r| r.entry(which, || Map::new().into())).and_then(Value::as_map_mut);
            if let Some(list) = list {
                list.insert(name.clone(), value.to_string());
                set.push(name.clone());
            }
        }
    }
    set
}

/// Checks a pod against the limit ranges; the refusal lists everything that is wrong.
pub(super) fn check_pod(pod: &Map, ranges: &[Map]) -> Result<(), String> {
    let mut errors = Vec::new();
    for limit in limits(ranges, "Container") {
        for list in ["containers", "initContainers"] {
            for container in walk::items(pod, &["spec", list]) {
                let requests = amounts(container, &["resources", "requests"]);
                bound("Container", limit, &requests, &amounts(container, &["resources", "limits"]), &mut errors);
            }
        }
    }
    for limit in limits(ranges, "Pod") {
        let (requests, bounds) = (of_pod(pod, "requests"), of_pod(pod, "limits"));
        bound("Pod", limit, &requests, &bounds, &mut errors);
    }
    joined(&errors)
}

/// Checks a claim's storage request.
pub(super) fn check_claim(claim: &Map, ranges: &[Map]) -> Result<(), String> {
    let mut errors = Vec::new();
    let kind = "PersistentVolumeClaim";
    let requests = amounts(claim, &["spec", "resources", "requests"]);
    for limit in limits(ranges, kind) {
        for (name, least) in amounts(limit, &["min"]) {
            errors.extend(below_min(kind, &name, &least, requests.get(&name), None));
        }
        for (name, most) in amounts(limit, &["max"]) {
            match requests.get(&name) {
                None => errors.push(format!("maximum {name} usage per {kind} is {most}.  No request is specified")),
                Some(asked) if *asked > most => {
                    errors.push(format!("maximum {name} usage per {kind} is {most}, but request is {asked}"));
                }
                Some(_) => {}
            }
        }
    }
    joined(&errors)
}

/// As upstream shows several errors at once.
fn joined(errors: &[String]) -> Result<(), String> {
    match errors {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

fn below_min(
    kind: &str,
    name: &str,
    least: &Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    match (request, limit) {
        (None, _) => Some(format!("minimum {name} usage per {kind} is {least}.  No request is specified")),
        (Some(asked), _) if asked < least => {
            Some(format!("minimum {name} usage per {kind} is {least}, but request is {asked}"))
        }
        (_, Some(bound)) if bound < least => {
            Some(format!("minimum {name} usage per {kind} is {least}, but limit is {bound}"))
        }
        _ => None,
    }
}

fn above_max(
    kind: &str,
    name: &str,
    most: &Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    match (request, limit) {
        (_, None) => Some(format!("maximum {name} usage per {kind} is {most}.  No limit is specified")),
        (_, Some(bound)) if bound > most => {
            Some(format!("maximum {name} usage per {kind} is {most}, but limit is {bound}"))
        }
        (Some(asked), _) if asked > most => {
            Some(format!("maximum {name} usage per {kind} is {most}, but request is {asked}"))
        }
        _ => None,
    }
}

fn above_ratio(
    kind: &str,
    name: &str,
    most: &Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let what = format!("{name} max limit to request ratio per {kind} is {most}");
    let Some(asked) = request.filter(|q| !q.is_zero()) else {
        return Some(format!("{what}, but no request is specified or request is 0"));
    };
    let Some(bound) = limit.filter(|q| !q.is_zero()) else {
        return Some(format!("{what}, but no limit is specified or limit is 0"));
    };
    let ratio = bound.nanos() as f64 / asked.nanos() as f64;
    (ratio * 1e9 > most.nanos() as f64).then(|| format!("{what}, but provided ratio is {ratio:.6}"))
}

fn bound(kind: &str, limit: &Map, requests: &Amounts, bounds: &Amounts, errors: &mut Vec<String>) {
    type Check = fn(&str, &str, &Quantity, Option<&Quantity>, Option<&Quantity>) -> Option<String>;
    let checks: [(&str, Check); 3] = [("min", below_min), ("max", above_max), ("maxLimitRequestRatio", above_ratio)];
    for (key, check) in checks {
        for (name, value) in amounts(limit, &[key]) {
            errors.extend(check(kind, &name, &value, requests.get(&name), bounds.get(&name)));
        }
    }
}

pub struct LimitRanger {
    pub objects: Arc<dyn Lookup>,
}

impl LimitRanger {
    fn ranges(&self, namespace: &str) -> Result<Vec<Map>, Status> {
        Ok(self.objects.list(LIMIT_RANGES, Some(namespace))?.iter().map(|range| (**range).clone()).collect())
    }
}

#[async_trait]
impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn sides(&self) -> Sides {
        Sides::Both
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if a.operation == Operation::Create && a.is("", "pods") {
            apply_defaults(a.object, &self.ranges(a.namespace)?);
        }
        Ok(())
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let created = a.operation == Operation::Create;
        // The resources of a pod change by a resize alone.
        let pod = created && a.is("", "pods") || !created && a.is_subresource("", "pods", "resize");
        if a.old.is_some_and(|old| old.at(&["metadata", "deletionTimestamp"]).is_some()) {
            return Ok(());
        }
        if pod {
            return check_pod(a.object, &self.ranges(a.namespace)?).map_err(|why| a.forbidden(why));
        }
        if a.is("", "persistentvolumeclaims") {
            return check_claim(a.object, &self.ranges(a.namespace)?).map_err(|why| a.forbidden(why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    fn range(limits: &str) -> Vec<Map> {
        vec![map(&format!("{{spec: {{limits: [{limits}]}}}}"))]
    }

    #[test]
    fn defaults_fill_gaps_and_are_noted() {
        let ranges = range("{type: Container, defaultRequest: {cpu: 100m, memory: 64Mi}, default: {cpu: '1'}}");
        let mut pod =
            map("{spec: {containers: [{name: a, resources: {requests: {cpu: 50m}}}], initContainers: [{name: i}]}}");
        apply_defaults(&mut pod, &ranges);
        let container = walk::items(&pod, &["spec", "containers"]).next().expect("a container");
        assert_eq!(container.str_at(&["resources", "requests", "cpu"]), "50m");
        assert_eq!(container.str_at(&["resources", "requests", "memory"]), "64Mi");
        assert_eq!(
            pod.str_at(&["metadata", "annotations", ANNOTATION]),
            "LimitRanger plugin set: memory request for container a; cpu limit for container a; \
             cpu, memory request for init container i; cpu limit for init container i"
        );
    }

    #[test]
    fn bounds_are_checked_in_upstreams_words() {
        let ranges = range("{type: Container, min: {cpu: 100m}, max: {memory: 1Gi}, maxLimitRequestRatio: {cpu: 2}}");
        let pod = map(
            "{spec: {containers: [{name: a, resources: {requests: {cpu: 50m}, limits: {cpu: '1', memory: 2Gi}}}]}}",
        );
        assert_eq!(
            check_pod(&pod, &ranges),
            Err("[minimum cpu usage per Container is 100m, but request is 50m, \
                 maximum memory usage per Container is 1Gi, but limit is 2Gi, \
                 cpu max limit to request ratio per Container is 2, but provided ratio is 20.000000]"
                .into())
        );
        let bare = map("{spec: {containers: [{name: a}]}}");
        let refused = check_pod(&bare, &range("{type: Container, max: {cpu: 1}}")).expect_err("refused");
        assert_eq!(refused, "maximum cpu usage per Container is 1.  No limit is specified");
    }

    #[test]
    fn a_pods_sum_counts_sidecars_and_the_greediest_init_container() {
        let pod = map("{spec: {containers: [{resources: {limits: {cpu: '1'}}}], initContainers: [
            {restartPolicy: Always, resources: {limits: {cpu: '1'}}}, {resources: {limits: {cpu: '5'}}}]}}");
        assert_eq!(of_pod(&pod, "limits").get("cpu").map(ToString::to_string).as_deref(), Some("6"));
        assert!(check_pod(&pod, &range("{type: Pod, max: {cpu: '6'}}")).is_ok());
        assert!(check_pod(&pod, &range("{type: Pod, max: {cpu: '5'}}")).is_err());
    }

    #[test]
    fn claims_are_bounded_too() {
        let ranges = range("{type: PersistentVolumeClaim, max: {storage: 1Gi}}");
        let claim = map("{spec: {resources: {requests: {storage: 2Gi}}}}");
        assert_eq!(
            check_claim(&claim, &ranges),
            Err("maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi".into())
        );
    }
}
