//! The ServiceCIDR of the ranges that the server is started with: made when it is not there, told to be ready, and followed when
//! a second family comes to it, as upstream's kubernetes-service-cidr controller does. What is wrong with it is told in an event.

use super::objects::{list, named};
use super::{BootstrapError, Keep, Step, Wanted};
use crate::cache::Chain;
use crate::events::Counting;
use crate::registry::Registry;
use api::Status;
use api::events::{Kind, Reference, Report};
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

/// What was to become of it, and could not; `None`: nothing was.
fn failed(ranges: &[String], existing: Option<&Map>, why: &str) -> Option<String> {
    let Some(existing) = existing else { return Some("The default ServiceCIDR can not be created".to_owned()) };
    let Step::Put(updated) = step(&wanted(ranges, "").object, existing) else { return None };
    let cidrs = ["spec", "cidrs"];
    Some(if items(&updated, &cidrs) == items(existing, &cidrs) {
        "The default ServiceCIDR Status can not be set to Ready=True".to_owned()
    } else {
        let first = ranges.first().map_or("", String::as_str);
        format!("The default ServiceCIDR can not be upgraded from {first} to dual stack [{}] : {why}", ranges.join(" "))
    })
}

/// Tells of the problems of the ServiceCIDR. What is wrong with it is told once since the start of the server, what could not be
/// done for it each time.
#[derive(Debug)]
pub(crate) struct Problems {
    told: BTreeSet<Problem>,
    events: Counting,
}

impl Problems {
    pub(crate) fn new() -> Self {
        Problems { told: BTreeSet::new(), events: Counting::new(CONTROLLER) }
    }

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
            return Some((Problem::OtherRanges, reason, message)).filter(|(problem, ..)| !self.told.contains(problem));
        }
        let mut conditions = items(existing, &["status", "conditions"]).iter();
        let ready = conditions.find(|condition| is_ready_condition(condition)).and_then(Value::as_map)?;
        if ready.str_at(&["status"]) != "False" {
            return None;
        }
        let message = format!("Configuration matches, but {}", ready.str_at(&["message"]));
        let reason = ready.str_at(&["reason"]).to_owned();
        Some((Problem::Unready, reason, message)).filter(|(problem, ..)| !self.told.contains(problem))
    }

    /// Tells what is wrong with it, if something is that was not mended. Whether all is told then.
    pub(crate) async fn look(&mut self, registry: &Arc<Registry>, ranges: &[String]) -> bool {
        let mut found = None;
        let told = self.tell_of(registry, ranges, |problems, existing| {
            let (problem, reason, message) = problems.untold(ranges, existing?)?;
            found = Some(problem);
            Some((reason, message))
        });
        let told = told.await;
        if told {
            self.told.extend(found);
        }
        told
    }

    /// Tells what could not be done for it, if it is of the first objects that something was to be done for.
    pub(crate) async fn not_mended(&mut self, registry: &Arc<Registry>, ranges: &[String], error: &BootstrapError) {
        // It may be written, and not be seen yet.
        if matches!(error, BootstrapError::NotSeen(_)) {
            return;
        }
        self.tell_of(registry, ranges, |_, existing| {
            let message = failed(ranges, existing, &Chain(error).to_string())?;
            Some(("KubernetesDefaultServiceCIDRError".to_owned(), message))
        })
        .await;
    }

    /// Tells what `of` makes of the one that is there: a reason and a message. Whether nothing is left to tell.
    async fn tell_of(
        &mut self,
        registry: &Arc<Registry>,
        ranges: &[String],
        of: impl FnOnce(&mut Self, Option<&Map>) -> Option<(String, String)>,
    ) -> bool {
        if ranges.is_empty() {
            return true;
        }
        let (existing, revision) = match there(registry) {
            Ok(there) => there,
            Err(status) => {
                tracing::warn!(why = status.message, "the default ServiceCIDR cannot be looked at");
                return false;
            }
        };
        let Some((reason, message)) = of(self, existing.as_ref()) else { return true };
        tracing::warn!(reason, "{message}");
        let uid = existing.as_ref().map_or("", |existing| existing.str_at(&["metadata", "uid"]));
        let about = Reference {
            kind: "ServiceCIDR".to_owned(),
            name: NAME.to_owned(),
            uid: uid.to_owned(),
            api_version: format!("{GROUP}/v1"),
            resource_version: revision.map(|revision| revision.to_string()).unwrap_or_default(),
            ..Reference::default()
        };
        let report = Report { about, kind: Kind::Warning, reason, message, at: Timestamp::now() };
        self.events.tell(registry, &report).await
    }
}

/// The one that is there, and its revision.
fn there(registry: &Registry) -> Result<(Option<Map>, Option<u64>), Status> {
    let served = registry.served(GROUP, "v1", PLURAL);
    let served = served.ok_or_else(|| Status::internal(format!("{PLURAL} are not served")))?;
    match served.storage("get")?.get(NAME)? {
        Some(entry) => Ok((Some(served.decode(&entry)?), Some(entry.revision()))),
        None => Ok((None, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Admission, Attributes, Operation, Sides};
    use crate::test_support::map;
    use std::sync::atomic::{AtomicBool, Ordering};

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
        let mut told = Problems::new();
        let ours = ranges(&["10.0.0.0/24"]);
        let other = map("{spec: {cidrs: [10.1.0.0/24, 'fd00::/112']}}");
        let (problem, reason, message) = told.untold(&ours, &other).expect("told");
        assert_eq!(reason, "KubernetesDefaultServiceCIDRInconsistent");
        assert_eq!(
            message,
            "The default ServiceCIDR [10.1.0.0/24 fd00::/112] does not match the controller flag configurations [10.0.0.0/24]"
        );
        assert!(told.untold(&ours, &other).is_some(), "until it could be told");
        told.told.insert(problem);
        assert_eq!(told.untold(&ours, &other), None);
        let unready = map(
            "{spec: {cidrs: [10.0.0.0/24]}, status: {conditions: [{type: Ready, status: 'False', reason: R, message: m}]}}",
        );
        let untold = (Problem::Unready, "R".into(), "Configuration matches, but m".into());
        assert_eq!(told.untold(&ours, &unready), Some(untold));
        told.told.insert(Problem::Unready);
        assert_eq!(told.untold(&ours, &unready), None);
    }

    #[test]
    fn what_could_not_be_done_is_told_as_upstream_does() {
        let (one, two) = (ranges(&["10.0.0.0/24"]), ranges(&["10.0.0.0/24", "fd00::/112"]));
        let told = |ranges: &[String], existing: &str| failed(ranges, Some(&map(existing)), "why");
        let upgraded =
            "The default ServiceCIDR can not be upgraded from 10.0.0.0/24 to dual stack [10.0.0.0/24 fd00::/112] : why";
        assert_eq!(told(&two, "{spec: {cidrs: [10.0.0.0/24]}}").as_deref(), Some(upgraded));
        let unready = "The default ServiceCIDR Status can not be set to Ready=True";
        assert_eq!(told(&one, "{spec: {cidrs: [10.0.0.0/24]}}").as_deref(), Some(unready));
        assert_eq!(told(&one, "{spec: {cidrs: [10.1.0.0/24]}}"), None, "nothing was to be done");
        assert_eq!(failed(&one, None, "why").as_deref(), Some("The default ServiceCIDR can not be created"));
    }

    /// Refuses the first event.
    #[derive(Default)]
    struct NotYet(AtomicBool);

    #[async_trait::async_trait]
    impl Admission for NotYet {
        fn name(&self) -> &'static str {
            "NotYet"
        }
        fn handles(&self, operation: Operation) -> bool {
            operation == Operation::Create
        }
        fn sides(&self) -> Sides {
            Sides::Validates
        }
        async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
            if attributes.is("", "events") && !self.0.swap(true, Ordering::Relaxed) {
                return Err(Status::internal("not yet"));
            }
            Ok(())
        }
    }

    /// Waits until all that was written is seen.
    async fn seen(registry: &Registry) {
        let revision = registry.store().status().await.expect("a status").revision;
        registry.caches().reached(revision.cast_unsigned()).await.expect("seen");
    }

    /// What the events say that are there.
    async fn events(registry: &Registry) -> Vec<Map> {
        seen(registry).await;
        let served = registry.served("", "v1", "events").expect("served");
        let (state, _) = served.storage("list").expect("stored").now();
        state.range(&crate::cache::Scope::All, None).map(|entry| served.decode(entry).expect("readable")).collect()
    }

    #[tokio::test]
    async fn what_could_not_be_told_is_told_later_and_once() {
        let opened = crate::test_support::opened().await;
        let registry = &opened.registry;
        let admission = crate::admission::Chain(vec![Arc::new(NotYet::default())]);
        registry.install(crate::registry::Hooks { admission, ..Default::default() });
        let (ours, theirs) = (ranges(&["10.0.0.0/24"]), ranges(&["10.1.0.0/24"]));
        let mut problems = Problems::new();
        assert!(problems.look(registry, &ours).await, "there is nothing to tell");
        let served = registry.served(GROUP, "v1", PLURAL).expect("served");
        let cx = crate::context::Context::new(
            Arc::new(crate::user::UserInfo::apiserver()),
            "kube-apiserver",
            Timestamp::now(),
        );
        let object = wanted(&theirs, "2026-01-01T00:00:00Z").object;
        registry.create(&cx, &served, "", object, &crate::options::Options::default()).await.expect("made");
        seen(registry).await;
        assert!(!problems.look(registry, &ours).await, "the event was refused");
        assert!(events(registry).await.is_empty());
        assert!(problems.look(registry, &ours).await);
        let told = events(registry).await;
        let [event] = &told[..] else { panic!("{told:?}") };
        assert_eq!(event.str_at(&["reason"]), "KubernetesDefaultServiceCIDRInconsistent");
        assert!(problems.look(registry, &ours).await);
        assert_eq!(events(registry).await, told, "it is told once");
    }

    #[tokio::test]
    async fn what_could_not_be_done_is_told_in_one_event_that_is_counted() {
        let opened = crate::test_support::opened().await;
        let registry = &opened.registry;
        let mut problems = Problems::new();
        for _ in 0..3 {
            problems.not_mended(registry, &ranges(&["10.0.0.0/24"]), &BootstrapError::Contended(8)).await;
        }
        problems.not_mended(registry, &[], &BootstrapError::Contended(8)).await;
        let events = events(registry).await;
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!(event.at(&["count"]).and_then(Value::as_i64), Some(3));
        assert_eq!(event.str_at(&["reason"]), "KubernetesDefaultServiceCIDRError");
        assert_eq!(event.str_at(&["message"]), "The default ServiceCIDR can not be created");
        assert_eq!(event.str_at(&["involvedObject", "name"]), "kubernetes");
        assert_eq!(event.str_at(&["source", "component"]), CONTROLLER);
        let managers = items(event, &["metadata", "managedFields"]);
        assert!(managers.iter().all(|m| m.as_map().is_some_and(|m| m.str_at(&["manager"]) == "kube-apiserver")));
    }
}
