//! The ServiceCIDR of the ranges that the server is started with: made when it is not there, told to be ready, and followed when
//! a second family comes to it, as upstream's kubernetes-service-cidr controller does. What is wrong with it is told in an event.

use super::objects::{list, named};
use super::{Keep, Step, Wanted};
use crate::registry::Registry;
use api::Status;
use api::events::{Event, Kind, Reference, Report, Source};
use jiff::Timestamp;
use schema::{Map, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

const GROUP: &str = "networking.k8s.io";
const PLURAL: &str = "servicecidrs";
const NAME: &str = "kubernetes";
const CONTROLLER: &str = "kubernetes-service-cidr-controller";

/// The object that is to be there.
pub(super) fn wanted(ranges: &[String], now: &str) -> Wanted {
    let mut object = named(NAME);
    object.set_at(&["metadata", "finalizers"], list(["networking.k8s.io/service-cidr-finalizer"]));
    object.set_at(&["spec", "cidrs"], list(ranges.iter().map(String::as_str)));
    let mut ready = Map::new();
    ready.insert("type", "Ready");
    ready.insert("status", "True");
    ready.insert("lastTransitionTime", now);
    ready.insert("reason", "");
    ready.insert("message", "Kubernetes default Service CIDR is ready");
    object.set_at(&["status", "conditions"], vec![Value::Map(ready)]);
    Wanted::new(GROUP, "v1", PLURAL, object, Keep::Range)
}

fn items<'a>(object: &'a Map, path: &[&str]) -> &'a [Value] {
    object.at(path).and_then(Value::as_list).unwrap_or_default()
}

fn is_ready_condition(condition: &Value) -> bool {
    condition.as_map().is_some_and(|condition| condition.str_at(&["type"]) == "Ready")
}

/// What becomes of the one that is there.
pub(super) fn step(wanted: &Map, existing: &Map) -> Step {
    let (ours, theirs) = (items(wanted, &["spec", "cidrs"]), items(existing, &["spec", "cidrs"]));
    let mut updated = existing.clone();
    if ours.len() == 2 && theirs.len() == 1 && ours.first() == theirs.first() {
        updated.set_at(&["spec", "cidrs"], ours.to_vec());
        return Step::Put(updated);
    }
    // Its end is the controller manager's matter, and other ranges are told of instead.
    if existing.at(&["metadata", "deletionTimestamp"]).is_some() || ours != theirs {
        return Step::Nothing;
    }
    let mut conditions = items(existing, &["status", "conditions"]).to_vec();
    let ready = conditions.iter().find(|condition| is_ready_condition(condition)).and_then(Value::as_map);
    // Who says that it is not ready has a reason.
    if ready.is_some_and(|ready| ready.str_at(&["status"]) != "Unknown") {
        return Step::Nothing;
    }
    conditions.retain(|condition| !is_ready_condition(condition));
    conditions.extend_from_slice(items(wanted, &["status", "conditions"]));
    updated.set_at(&["status", "conditions"], conditions);
    Step::Put(updated)
}

/// What can be wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Problem {
    OtherRanges,
    Unready,
}

/// The problems that were told since the start of the server: each is only once.
#[derive(Debug, Default)]
pub(crate) struct Problems(BTreeSet<Problem>);

impl Problems {
    /// What is wrong with it and was not told, with its reason and message.
    fn untold(&self, ranges: &[String], existing: &Map) -> Option<(Problem, String, String)> {
        if existing.at(&["metadata", "deletionTimestamp"]).is_some() {
            return None;
        }
        let theirs: Vec<&str> = items(existing, &["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
        if theirs != ranges {
            let (theirs, ours) = (theirs.join(" "), ranges.join(" "));
            let message = format!(
                "The default ServiceCIDR [{theirs}] does not match the controller flag configurations [{ours}]"
            );
            let reason = "KubernetesDefaultServiceCIDRInconsistent".to_owned();
            return Some((Problem::OtherRanges, reason, message)).filter(|(problem, ..)| !self.0.contains(problem));
        }
        let mut conditions = items(existing, &["status", "conditions"]).iter();
        let ready = conditions.find(|condition| is_ready_condition(condition)).and_then(Value::as_map)?;
        if ready.str_at(&["status"]) != "False" {
            return None;
        }
        let message = format!("Configuration matches, but {}", ready.str_at(&["message"]));
        let reason = ready.str_at(&["reason"]).to_owned();
        Some((Problem::Unready, reason, message)).filter(|(problem, ..)| !self.0.contains(problem))
    }

    /// Tells what is wrong with it, if something is that was not mended.
    pub(crate) async fn look(&mut self, registry: &Arc<Registry>, ranges: &[String]) {
        if let Err(status) = self.tell(registry, ranges).await {
            tracing::warn!(why = status.message, "an event about the default ServiceCIDR could not be written");
        }
    }

    async fn tell(&mut self, registry: &Arc<Registry>, ranges: &[String]) -> Result<(), Status> {
        if ranges.is_empty() {
            return Ok(());
        }
        let not_served = |what: &str| Status::internal(format!("{what} are not served"));
        let served = registry.served(GROUP, "v1", PLURAL).ok_or_else(|| not_served(PLURAL))?;
        let Some(entry) = served.storage("get")?.get(NAME)? else { return Ok(()) };
        let existing = served.decode(&entry)?;
        let Some((problem, reason, message)) = self.untold(ranges, &existing) else { return Ok(()) };
        tracing::warn!(reason, "{message}");
        let about = Reference {
            kind: "ServiceCIDR".to_owned(),
            name: NAME.to_owned(),
            uid: existing.str_at(&["metadata", "uid"]).to_owned(),
            api_version: format!("{GROUP}/v1"),
            resource_version: entry.revision().to_string(),
            ..Reference::default()
        };
        let at = Timestamp::now();
        let source = Source { component: CONTROLLER.to_owned(), host: String::new() };
        let event = Event::new(&source, &Report { about, kind: Kind::Warning, reason, message, at });
        crate::events::create(registry, super::MANAGER, &event.metadata.namespace, &event.object()).await?;
        self.0.insert(problem);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    fn ranges(all: &[&str]) -> Vec<String> {
        all.iter().map(|range| (*range).to_owned()).collect()
    }

    /// What is there becomes this; `None`: it stays.
    fn became(ranges_: &[&str], existing: &str) -> Option<Map> {
        let wanted = wanted(&ranges(ranges_), "2026-01-01T00:00:00Z");
        match step(&wanted.object, &map(existing)) {
            Step::Nothing => None,
            Step::Put(object) => Some(object),
            Step::Replace(_) => panic!("replaced"),
        }
    }

    #[test]
    fn it_is_told_to_be_ready_unless_somebody_says_otherwise() {
        let one = ["10.0.0.0/24"];
        let ready = became(&one, "{spec: {cidrs: [10.0.0.0/24]}, status: {conditions: [{type: X, status: 'True'}]}}");
        let conditions = ready.expect("a write");
        let conditions = items(&conditions, &["status", "conditions"]);
        assert_eq!(conditions.len(), 2);
        let of = |key| conditions[1].as_map().expect("a condition").str_at(&[key]).to_owned();
        assert_eq!((of("type"), of("status")), ("Ready".into(), "True".into()));
        assert_eq!(of("message"), "Kubernetes default Service CIDR is ready");
        let with = |status: &str, metadata: &str| {
            let ready = format!("{{conditions: [{{type: Ready, status: '{status}'}}]}}");
            became(&one, &format!("{{metadata: {metadata}, spec: {{cidrs: [10.0.0.0/24]}}, status: {ready}}}"))
        };
        assert!(with("Unknown", "{}").is_some());
        assert!(with("Unknown", "{deletionTimestamp: '2026-01-01T00:00:00Z'}").is_none());
        assert!(with("False", "{}").is_none() && with("True", "{}").is_none());
    }

    #[test]
    fn a_second_family_is_added_and_other_ranges_stay() {
        let two = ["10.0.0.0/24", "fd00::/112"];
        let both = became(&two, "{spec: {cidrs: [10.0.0.0/24]}}").expect("a write");
        assert_eq!(items(&both, &["spec", "cidrs"]).len(), 2);
        assert!(became(&two, "{spec: {cidrs: [10.1.0.0/24]}}").is_none());
        assert!(became(&["10.0.0.0/24"], "{spec: {cidrs: [10.1.0.0/24]}}").is_none());
    }

    #[test]
    fn what_is_wrong_is_told_once() {
        let mut told = Problems::default();
        let ours = ranges(&["10.0.0.0/24"]);
        let other = map("{spec: {cidrs: [10.1.0.0/24, 'fd00::/112']}}");
        let (problem, reason, message) = told.untold(&ours, &other).expect("told");
        assert_eq!(reason, "KubernetesDefaultServiceCIDRInconsistent");
        assert_eq!(
            message,
            "The default ServiceCIDR [10.1.0.0/24 fd00::/112] does not match the controller flag configurations [10.0.0.0/24]"
        );
        assert!(told.untold(&ours, &other).is_some(), "until it could be told");
        told.0.insert(problem);
        assert_eq!(told.untold(&ours, &other), None);
        let unready = map(
            "{spec: {cidrs: [10.0.0.0/24]}, status: {conditions: [{type: Ready, status: 'False', reason: R, message: m}]}}",
        );
        let untold = (Problem::Unready, "R".into(), "Configuration matches, but m".into());
        assert_eq!(told.untold(&ours, &unready), Some(untold));
        told.0.insert(Problem::Unready);
        assert_eq!(told.untold(&ours, &unready), None);
    }
}
