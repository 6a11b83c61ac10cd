//! `pods/eviction`: a delete that asks the pod's disruption budget first.

use super::success;
use crate::admission::walk;
use crate::context::Context;
use crate::lookup::{DISRUPTION_BUDGETS, Lookup, PODS};
use crate::options::Options;
use crate::registry::mutation::{Change, Mutation};
use crate::registry::{Place, Registry, Subresource, Target, other_is_meant};
use api::selector::{LabelSelector, Labels, Operator, Requirement};
use api::{Cause, GroupKind, GroupResource, Reason, Status};
use async_trait::async_trait;
use schema::{Map, Value};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often an eviction that somebody came between is tried.
const TRIES: u32 = 20;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// More disruptions than this wait for the controller: it is behind, and the budget can't be relied on.
const MOST_DISRUPTED: usize = 2000;
const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

pub struct Eviction {
    pub registry: Weak<Registry>,
    pub objects: Arc<dyn Lookup>,
}

/// The labels of an object, as selectors ask them.
struct Own<'a>(&'a Map);

impl Labels for Own<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.0.at(&["metadata", "labels", key]).and_then(Value::as_str)
    }
}

/// Whether a `metav1.LabelSelector` selects an object; an absent one selects nothing, an empty one everything.
fn selects(selector: Option<&Map>, object: &Map) -> bool {
    let Some(selector) = selector else { return false };
    let pairs = selector.get("matchLabels").and_then(Value::as_map).into_iter().flat_map(Map::iter);
    let exact =
        pairs.map(|(key, value)| Requirement::new(key, Operator::In, vec![value.as_str().unwrap_or("").to_owned()]));
    let listed = walk::items(selector, &["matchExpressions"]).map(|e| {
        let operator = match e.str_at(&["operator"]) {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            _ => Operator::DoesNotExist,
        };
        let values = e.get("values").and_then(Value::as_list).unwrap_or_default();
        Requirement::new(
            e.str_at(&["key"]),
            operator,
            values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        )
    });
    let requirements: Result<Vec<Requirement>, _> = exact.chain(listed).collect();
    // One that cannot be read selects nothing; validation lets none in.
    requirements.is_ok_and(|r| LabelSelector::from_requirements(r).matches(&Own(object)))
}

fn number(map: &Map, path: &[&str]) -> i64 {
    map.at(path).and_then(Value::as_i64).unwrap_or(0)
}

/// A pod that has ended, or is ending.
fn is_over(pod: &Map) -> bool {
    matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed")
        || pod.at(&["metadata", "deletionTimestamp"]).is_some()
}

/// A pod that disturbs nobody when it goes.
fn disturbs_nobody(pod: &Map) -> bool {
    is_over(pod) || pod.str_at(&["status", "phase"]) == "Pending"
}

fn is_ready(pod: &Map) -> bool {
    walk::items(pod, &["status", "conditions"])
        .any(|c| c.str_at(&["type"]) == "Ready" && c.str_at(&["status"]) == "True")
}

/// Whether the budget lets a pod that is not ready go without counting it.
fn lets_unready_go(budget: &Map, pod: &Map) -> bool {
    if is_ready(pod) {
        return false;
    }
    let (healthy, desired) =
        (number(budget, &["status", "currentHealthy"]), number(budget, &["status", "desiredHealthy"]));
    budget.str_at(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow" || healthy >= desired && desired > 0
}

fn wait(why: String, seconds: u32) -> Status {
    let mut status = Status::too_many_requests(VIOLATES, seconds);
    status.details_mut().causes.push(Cause { reason: "DisruptionBudget".into(), message: why, field: String::new() });
    status
}

fn still_processed(budget: &str) -> Status {
    wait(format!("The disruption budget {budget} is still being processed by the server."), 10)
}

/// Why a budget allows no disruption.
fn why_none(budget: &Map) -> String {
    let denial = walk::items(budget, &["status", "conditions"]).find(|c| c.str_at(&["type"]) == "DisruptionAllowed");
    let denial = denial.filter(|c| c.str_at(&["status"]) == "False");
    let (reason, message) = denial.map_or(("", ""), |c| (c.str_at(&["reason"]), c.str_at(&["message"])));
    let desired = number(budget, &["status", "desiredHealthy"]);
    let current = number(budget, &["status", "currentHealthy"]);
    let denies = "does not allow evicting pods currently";
    match (reason, message) {
        // The numbers are of an earlier time then.
        ("SyncFailed", message) if !message.is_empty() => format!("{denies} because it failed sync: {message}"),
        _ if current <= desired => format!("needs {desired} healthy pods and has {current} currently"),
        (_, "") => denies.to_owned(),
        (reason, message) => format!("{denies} ({reason}): {message}"),
    }
}

/// Takes one disruption from a budget.
fn take(budget: &mut Map, pod: &str, now: &str) -> Result<(), Status> {
    let name = budget.str_at(&["metadata", "name"]).to_owned();
    let forbidden = |why: &str| Status::forbidden(&GroupResource::new("policy", "poddisruptionbudget"), &name, why);
    if number(budget, &["status", "observedGeneration"]) < number(budget, &["metadata", "generation"]) {
        return Err(still_processed(&name));
    }
    let allowed = number(budget, &["status", "disruptionsAllowed"]);
    if allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    let disrupted = budget.at(&["status", "disruptedPods"]).and_then(Value::as_map).map_or(0, Map::len);
    if disrupted > MOST_DISRUPTED {
        return Err(forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller"));
    }
    if allowed == 0 {
        return Err(wait(format!("The disruption budget {name} {}", why_none(budget)), 0));
    }
    budget.set_at(&["status", "disruptionsAllowed"], allowed - 1);
    if allowed == 1 {
        used_up(budget, now);
    }
    let pods = budget.entry("status", || Map::new().into()).as_map_mut();
    if let Some(pods) = pods.map(|s| s.entry("disruptedPods", || Map::new().into())).and_then(Value::as_map_mut) {
        pods.insert(pod.to_owned(), now);
    }
    Ok(())
}

/// Sets a condition of the status in its place; its time is the old one's where that had the same status.
fn set_condition(object: &mut Map, mut condition: Map, now: &str) {
    let Some(conditions) = walk::list_mut(object, "status", "conditions") else { return };
    let of_type = |c: &&mut Value| c.as_map().is_some_and(|c| c.str_at(&["type"]) == condition.str_at(&["type"]));
    let old = conditions.iter_mut().find(of_type);
    let same =
        old.as_deref().and_then(Value::as_map).filter(|c| c.str_at(&["status"]) == condition.str_at(&["status"]));
    let since = same.map_or(now, |c| c.str_at(&["lastTransitionTime"])).to_owned();
    condition.insert("lastTransitionTime", since);
    match old {
        Some(old) => *old = condition.into(),
        None => conditions.push(condition.into()),
    }
}

/// Sets the condition that tells why the pod goes.
fn mark(pod: &mut Map, now: &str) {
    let mut condition = Map::new();
    for (key, value) in [
        ("type", "DisruptionTarget"),
        ("status", "True"),
        ("reason", "EvictionByEvictionAPI"),
        ("message", "Eviction API: evicting"),
    ] {
        condition.insert(key, value);
    }
    condition.insert("observedGeneration", number(pod, &["metadata", "generation"]));
    condition.insert("lastProbeTime", Value::Null);
    set_condition(pod, condition, now);
}

/// Sets the condition that tells that a budget allows no further disruption.
fn used_up(budget: &mut Map, now: &str) {
    let mut condition = Map::new();
    for (key, value) in
        [("type", "DisruptionAllowed"), ("status", "False"), ("reason", "InsufficientPods"), ("message", "")]
    {
        condition.insert(key, value);
    }
    condition.insert("observedGeneration", number(budget, &["status", "observedGeneration"]));
    set_condition(budget, condition, now);
}

/// The options of an Eviction's own delete.
fn delete_options(eviction: &Map, options: &Options) -> Result<Options, Status> {
    let Some(asked) = eviction.get("deleteOptions").and_then(Value::as_map) else { return Ok(options.clone()) };
    let mut own = Options::of_delete_body(asked)?;
    own.dry_run |= options.dry_run;
    Ok(own)
}

impl Eviction {
    fn budgets(&self, pod: &Map) -> Result<Vec<Arc<Map>>, Status> {
        let mut budgets = self.objects.list(DISRUPTION_BUDGETS, Some(pod.str_at(&["metadata", "namespace"])))?;
        budgets.retain(|b| selects(b.at(&["spec", "selector"]).and_then(Value::as_map), pod));
        Ok(budgets)
    }

    async fn change(
        &self,
        registry: &Registry,
        what: (&str, &str),
        place: Place<'_>,
        mutation: &dyn Mutation,
        dry_run: bool,
    ) -> Result<Map, Status> {
        let served = registry.preferred(what.0, what.1).ok_or_else(Status::no_such_path)?;
        let options = Options { dry_run, ..Options::default() };
        registry.update(&Context::internal(), &served, place, mutation, &options).await.map(|written| written.object)
    }

    /// Asks the pod's budget, and takes from it.
    async fn allow(&self, registry: &Registry, pod: &Map, now: &str, dry_run: bool) -> Result<Leave, Status> {
        let budgets = self.budgets(pod)?;
        let budget = match budgets.as_slice() {
            [] => return Ok(Leave::Free),
            [one] => one,
            _ => {
                let why =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(Status::new(500, Reason::Unknown, why));
            }
        };
        let name = budget.str_at(&["metadata", "name"]);
        if lets_unready_go(budget, pod) {
            return Ok(Leave::AsItIs { budget: name.to_owned() });
        }
        let place = Place { namespace: pod.str_at(&["metadata", "namespace"]), name, subresource: "status" };
        let name = pod.str_at(&["metadata", "name"]).to_owned();
        let now = now.to_owned();
        let mutation = Change(move |budget: &mut Map| take(budget, &name, &now));
        self.change(registry, ("policy", "poddisruptionbudgets"), place, &mutation, dry_run).await?;
        Ok(Leave::Free)
    }

    /// Tells the pod why it goes, and deletes it.
    async fn evict(
        &self,
        cx: &Context,
        registry: &Registry,
        target: &Target,
        now: &str,
        mut options: Options,
    ) -> Result<(), Status> {
        let (namespace, name) = (target.namespace.as_str(), target.name.as_str());
        if !options.dry_run {
            let wanted = &options.delete;
            let mutation = Change(|pod: &mut Map| {
                for (key, what, wanted, perhaps) in [
                    ("uid", "UID", &wanted.uid, "deleted and then recreated"),
                    ("resourceVersion", "ResourceVersion", &wanted.resource_version, "modified"),
                ] {
                    let actual = pod.str_at(&["metadata", key]);
                    if let Some(wanted) = wanted.as_deref().filter(|wanted| !wanted.is_empty() && *wanted != actual) {
                        return Err(other_is_meant(&GroupKind::new("", "Pod"), name, what, wanted, actual, perhaps));
                    }
                }
                mark(pod, now);
                Ok(())
            });
            let place = Place { namespace, name, subresource: "status" };
            let marked = self.change(registry, ("", "pods"), place, &mutation, false).await?;
            if options.delete.resource_version.is_some() {
                options.delete.resource_version = Some(marked.str_at(&["metadata", "resourceVersion"]).to_owned());
            }
        }
        let served = registry.served("", "v1", "pods").ok_or_else(Status::no_such_path)?;
        registry.delete(cx, &served, namespace, name, &options).await?;
        Ok(())
    }
}

/// A pod may go.
enum Leave {
    Free,
    /// As long as it is as it was seen: not ready, which the budget does not count.
    AsItIs {
        budget: String,
    },
}

#[async_trait]
impl Subresource for Eviction {
    async fn create(&self, cx: &Context, target: &Target, object: Map, options: &Options) -> Result<Map, Status> {
        if object.str_at(&["metadata", "name"]) != target.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let asked = delete_options(&object, options)?;
        let versioned = asked.delete.resource_version.is_some();
        let (namespace, name) = (target.namespace.as_str(), target.name.as_str());
        let registry =
            self.registry.upgrade().ok_or_else(|| Status::service_unavailable("the server is shutting down"))?;
        let now = cx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut tries = 0;
        loop {
            // Who came between is seen the next time.
            let pod = match tries {
                0 => self.objects.find(PODS, namespace, name).await?,
                _ => self.objects.fresh(PODS, namespace, name).await?,
            };
            let pod = pod.ok_or_else(|| Status::not_found(&GroupResource::new("", "pods"), name))?;
            let version = pod.str_at(&["metadata", "resourceVersion"]).to_owned();
            let mut options = asked.clone();
            let is_meant = asked.delete.uid.as_deref().is_none_or(|uid| uid == pod.str_at(&["metadata", "uid"]));
            // Judged as the pod it was: another of its name is not meant.
            options.delete.uid.get_or_insert_with(|| pod.str_at(&["metadata", "uid"]).to_owned());
            if !disturbs_nobody(&pod) {
                let leave = self.allow(&registry, &pod, &now, options.dry_run).await?;
                if matches!(leave, Leave::AsItIs { .. }) {
                    options.delete.resource_version = Some(version);
                }
                return match (self.evict(cx, &registry, target, &now, options).await, leave) {
                    (Ok(()), _) => Ok(success()),
                    // It may be ready by now, and counted.
                    (Err(e), Leave::AsItIs { budget }) if e.code == 409 && !versioned => Err(still_processed(&budget)),
                    (Err(e), _) => Err(e),
                };
            }
            // One that has not begun may begin meanwhile, and be counted.
            if !is_over(&pod) && !versioned {
                options.delete.resource_version = Some(version);
            }
            match self.evict(cx, &registry, target, &now, options).await {
                Ok(()) => return Ok(success()),
                Err(e) if e.code == 409 && !versioned && is_meant && tries + 1 < TRIES => tries += 1,
                Err(e) => return Err(e),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    #[test]
    fn a_budget_is_used_up_and_then_says_so() {
        let mut budget = map(
            "{metadata: {name: b, generation: 1}, status: {observedGeneration: 1, disruptionsAllowed: 1, desiredHealthy: 2, currentHealthy: 3}}",
        );
        take(&mut budget, "p", "2026-01-01T00:00:00Z").expect("one is allowed");
        assert_eq!(budget.str_at(&["status", "disruptedPods", "p"]), "2026-01-01T00:00:00Z");
        let conditions: Vec<&Map> = walk::items(&budget, &["status", "conditions"]).collect();
        let told: Vec<&str> = ["type", "status", "reason"].iter().map(|key| conditions[0].str_at(&[key])).collect();
        assert_eq!(told, ["DisruptionAllowed", "False", "InsufficientPods"]);
        let refused = take(&mut budget, "q", "2026-01-01T00:00:00Z").expect_err("none left");
        assert_eq!((refused.code, refused.message.as_str()), (429, VIOLATES));
        let details = refused.details.expect("details");
        assert_eq!(details.name, "", "nothing was asked of the budget by name");
        let cause = &details.causes[0];
        assert_eq!(cause.message, "The disruption budget b does not allow evicting pods currently");
        let mut stale =
            map("{metadata: {name: b, generation: 2}, status: {observedGeneration: 1, disruptionsAllowed: 5}}");
        assert_eq!(take(&mut stale, "p", "").expect_err("not yet").retry_after(), Some(10));
    }

    #[test]
    fn a_budget_tells_why_it_allows_none() {
        let why = |current: u8, condition: &str| {
            why_none(&map(&format!(
                "{{status: {{desiredHealthy: 2, currentHealthy: {current}, conditions: [{{type: DisruptionAllowed, {condition}}}]}}}}"
            )))
        };
        let failed = "status: 'False', reason: SyncFailed, message: m";
        for current in [1, 3] {
            assert_eq!(why(current, failed), "does not allow evicting pods currently because it failed sync: m");
        }
        let needs = "needs 2 healthy pods and has 2 currently";
        assert_eq!(why(2, "status: 'False', reason: R, message: m"), needs);
        assert_eq!(why(2, "status: 'False', reason: SyncFailed, message: ''"), needs);
        assert_eq!(why(2, "status: 'True', reason: SyncFailed, message: m"), needs);
        let denies = "does not allow evicting pods currently";
        assert_eq!(why(3, "status: 'False', reason: R, message: m"), format!("{denies} (R): m"));
        assert_eq!(why(3, "status: 'False', reason: R, message: ''"), denies);
        assert_eq!(why(3, "status: 'True', reason: R, message: m"), denies);
    }

    #[test]
    fn selectors_of_budgets_select() {
        let pod = map("{metadata: {labels: {app: web}}}");
        let select = |text: &str| selects(Some(&map(text)), &pod);
        assert!(select("{matchLabels: {app: web}}"));
        assert!(!select("{matchLabels: {app: db}}"));
        assert!(select("{matchExpressions: [{key: app, operator: In, values: [web, db]}]}"));
        assert!(select("{}"), "an empty selector selects everything");
        assert!(!selects(None, &pod));
    }

    #[test]
    fn pods_that_are_not_ready_go_when_the_healthy_are_enough() {
        let pod = map("{status: {conditions: [{type: Ready, status: 'False'}]}}");
        assert!(lets_unready_go(&map("{spec: {unhealthyPodEvictionPolicy: AlwaysAllow}}"), &pod));
        assert!(lets_unready_go(&map("{status: {currentHealthy: 2, desiredHealthy: 2}}"), &pod));
        assert!(!lets_unready_go(&map("{status: {currentHealthy: 1, desiredHealthy: 2}}"), &pod));
    }
}
