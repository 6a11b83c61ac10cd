//! The scheduling queue: pods to try now, pods backing off, and pods that wait until something may help. No IO; time is given.

use crate::framework::{Change, held_back, may_help};
use crate::objects::PodInfo;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Upstream's defaults.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// A pod that nothing helped is tried again after this all the same.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Pods of higher priority first, then those that came first.
type Order = (Reverse<i32>, u64);

/// A pod that waits to be placed.
#[derive(Clone, Debug)]
pub struct Queued {
    pub pod: Arc<PodInfo>,
    /// Failed tries.
    pub attempts: u32,
    /// The plugins that rejected it last.
    rejected_by: Vec<&'static str>,
    last_failure: Option<Instant>,
    arrival: u64,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Active(Order),
    BackOff(Instant, u64),
    Unschedulable(Instant),
    Gated,
    /// Handed out by [`Queue::pop`].
    InFlight,
}

/// What the queue says of a pod that it was given.
#[derive(Debug, PartialEq)]
pub enum Added {
    Queued,
    /// A plugin holds it back: its name and reason.
    Held(&'static str, String),
}

/// All pods that have no node yet.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<Box<str>, Queued>,
    active: BTreeMap<Order, Box<str>>,
    back_off: BTreeMap<(Instant, u64), Box<str>>,
    /// The unschedulable, by since when they are.
    waiting: BTreeMap<(Instant, u64), Box<str>>,
    next_arrival: u64,
}

fn back_off(attempts: u32) -> Duration {
    FIRST_BACK_OFF
        .saturating_mul(1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX))
        .min(LONGEST_BACK_OFF)
}

impl Queue {
    /// A pod without a node was added or changed.
    pub fn add(&mut self, pod: Arc<PodInfo>, now: Instant) -> Added {
        let uid = pod.uid.clone();
        let held = held_back(&pod);
        let known = self.pods.contains_key(&uid);
        if !known {
            let arrival = self.next_arrival;
            self.next_arrival += 1;
            let queued = Queued {
                pod: pod.clone(),
                attempts: 0,
                rejected_by: Vec::new(),
                last_failure: None,
                arrival,
                place: Place::Gated,
            };
            self.pods.insert(uid.clone(), queued);
        }
        let Some(queued) = self.pods.get_mut(&uid) else { return Added::Queued };
        let changed = known && !same_for_scheduling(&queued.pod, &pod);
        queued.pod = pod;
        if let Some((plugin, rejection)) = held {
            self.take_out(&uid);
            if let Some(queued) = self.pods.get_mut(&uid) {
                queued.place = Place::Gated;
            }
            return Added::Held(plugin, rejection.reason.into_owned());
        }
        match queued.place {
            Place::Gated => self.activate(&uid),
            Place::Unschedulable(_) if changed && may_help(&queued.rejected_by, &queued.pod, &Change::PodUpdated) => {
                self.requeue(&uid, now)
            }
            Place::Active(_) => self.activate(&uid),
            _ => {}
        }
        Added::Queued
    }

    /// A pod is gone, or has a node.
    pub fn remove(&mut self, uid: &str) {
        self.take_out(uid);
        self.pods.remove(uid);
    }

    fn take_out(&mut self, uid: &str) {
        let Some(queued) = self.pods.get(uid) else { return };
        match queued.place {
            Place::Active(order) => drop(self.active.remove(&order)),
            Place::BackOff(at, arrival) => drop(self.back_off.remove(&(at, arrival))),
            Place::Unschedulable(since) => drop(self.waiting.remove(&(since, queued.arrival))),
            Place::Gated | Place::InFlight => {}
        }
    }

    fn activate(&mut self, uid: &str) {
        self.take_out(uid);
        if let Some(queued) = self.pods.get_mut(uid) {
            let order = (Reverse(queued.pod.priority), queued.arrival);
            queued.place = Place::Active(order);
            self.active.insert(order, uid.into());
        }
    }

    /// Back to be tried: at once, or when its back-off is over.
    fn requeue(&mut self, uid: &str, now: Instant) {
        self.take_out(uid);
        let Some(queued) = self.pods.get_mut(uid) else { return };
        let due = queued.last_failure.map(|at| at + back_off(queued.attempts)).filter(|due| *due > now);
        match due {
            Some(due) => {
                queued.place = Place::BackOff(due, queued.arrival);
                self.back_off.insert((due, queued.arrival), uid.into());
            }
            None => self.activate(uid),
        }
    }

    /// The next pod to try, which is then in flight.
    pub fn pop(&mut self, now: Instant) -> Option<Queued> {
        self.ripen(now);
        let (_, uid) = self.active.pop_first()?;
        let queued = self.pods.get_mut(&uid)?;
        queued.place = Place::InFlight;
        Some(queued.clone())
    }

    /// What time brings back.
    fn ripen(&mut self, now: Instant) {
        while let Some((&(due, arrival), _)) = self.back_off.first_key_value().filter(|((due, _), _)| *due <= now) {
            if let Some(uid) = self.back_off.remove(&(due, arrival)) {
                self.activate(&uid);
            }
        }
        while let Some((&(since, arrival), _)) =
            self.waiting.first_key_value().filter(|((since, _), _)| *since + LONGEST_WAIT <= now)
        {
            if let Some(uid) = self.waiting.remove(&(since, arrival)) {
                self.requeue(&uid, now);
            }
        }
    }

    /// When [`Queue::pop`] may give something that it doesn't give now.
    pub fn next_due(&self) -> Option<Instant> {
        let back_off = self.back_off.first_key_value().map(|((due, _), _)| *due);
        let waiting = self.waiting.first_key_value().map(|((since, _), _)| *since + LONGEST_WAIT);
        back_off.into_iter().chain(waiting).min()
    }

    /// No node took a pod in flight: it waits until something may help what rejected it.
    pub fn unschedulable(&mut self, uid: &str, rejected_by: Vec<&'static str>, now: Instant) {
        if let Some(queued) = self.pods.get_mut(uid) {
            queued.attempts += 1;
            queued.rejected_by = rejected_by;
            queued.last_failure = Some(now);
            queued.place = Place::Unschedulable(now);
            self.waiting.insert((now, queued.arrival), uid.into());
        }
    }

    /// Placing a pod in flight failed for another reason (its binding was refused): it backs off.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        if let Some(queued) = self.pods.get_mut(uid) {
            queued.attempts += 1;
            queued.last_failure = Some(now);
            self.requeue(uid, now);
        }
    }

    /// Something changed: those that it may help are tried again.
    pub fn changed(&mut self, change: &Change<'_>, now: Instant) {
        let helped: Vec<Box<str>> = self
            .pods
            .iter()
            .filter(|(_, q)| matches!(q.place, Place::Unschedulable(_)) && may_help(&q.rejected_by, &q.pod, change))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in helped {
            self.requeue(&uid, now);
        }
    }

    pub fn len(&self) -> usize {
        self.pods.len()
    }
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }
}

/// Whether an update of a pod changes nothing that plugins look at.
fn same_for_scheduling(a: &PodInfo, b: &PodInfo) -> bool {
    a.requests == b.requests
        && a.node_selector == b.node_selector
        && a.tolerations == b.tolerations
        && a.host_ports == b.host_ports
        && a.gated == b.gated
        && a.priority == b.priority
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, priority: i32, gated: bool) -> Arc<PodInfo> {
        let gates = if gated { serde_json::json!([{"name": "g"}]) } else { serde_json::json!([]) };
        let pod = serde_json::json!({"metadata": {"name": uid, "uid": uid}, "spec": {"priority": priority, "schedulingGates": gates}});
        Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap_or_else(|e| panic!("{e}"))))
    }

    fn next(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.pop(now).map(|q| q.pod.uid.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn priority_then_arrival() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (uid, priority) in [("a", 0), ("b", 10), ("c", 10), ("d", 0)] {
            assert_eq!(queue.add(pod(uid, priority, false), now), Added::Queued);
        }
        let order: Vec<_> = std::iter::from_fn(|| next(&mut queue, now)).collect();
        assert_eq!(order, ["b", "c", "a", "d"]);
        assert_eq!(queue.len(), 4, "in flight until placed");
    }

    #[tokio::test(start_paused = true)]
    async fn the_unschedulable_wait_for_help_and_back_off() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0, false), now);
        assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
        queue.unschedulable("a", vec!["NodeResourcesFit"], now);
        assert_eq!(next(&mut queue, now), None);
        let gone = pod("x", 0, false);
        queue.changed(&Change::PodRemoved(&gone), now);
        assert_eq!(next(&mut queue, now), None, "backs off a second");
        assert_eq!(queue.next_due(), Some(now + FIRST_BACK_OFF));
        let later = now + FIRST_BACK_OFF;
        assert_eq!(next(&mut queue, later).as_deref(), Some("a"));
        queue.unschedulable("a", vec!["NodeAffinity"], later);
        queue.changed(&Change::PodRemoved(&gone), later + LONGEST_BACK_OFF);
        assert_eq!(next(&mut queue, later + LONGEST_BACK_OFF), None, "that change can't help");
        assert_eq!(next(&mut queue, later + LONGEST_WAIT).as_deref(), Some("a"), "tried again after long all the same");
        // However a pod stops waiting, nothing of its waiting stays.
        queue.unschedulable("a", vec!["NodeAffinity"], later);
        queue.remove("a");
        assert!(queue.waiting.is_empty() && queue.next_due().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn gates_hold_until_the_last_is_gone() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        assert!(matches!(queue.add(pod("a", 0, true), now), Added::Held("SchedulingGates", _)));
        assert_eq!(next(&mut queue, now), None);
        assert_eq!(queue.add(pod("a", 0, false), now), Added::Queued);
        assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
        queue.remove("a");
        assert!(queue.is_empty());
    }

    #[test]
    fn back_off_doubles_up_to_ten_seconds() {
        assert_eq!([1, 2, 3, 4, 5, 50].map(|n| back_off(n).as_secs()), [1, 2, 4, 8, 10, 10]);
    }
}
