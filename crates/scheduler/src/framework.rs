//! The plugin framework: extension points with upstream's names, and one scheduling cycle over them. No IO.

use crate::objects::{NodeInfo, PodInfo};
use crate::plugins::TABLE;
use crate::snapshot::Snapshot;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Scores are from 0 to this.
pub const MAX_SCORE: i64 = 100;

/// What the plugin of dynamic resources says of a pod that none of its claims keeps from its node.
const NO_CLAIMS: &str = "no new claims to deallocate";

/// Below so many nodes all are looked at.
const ALWAYS_FIND: usize = 100;

/// Why a node, or any node, can't take a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: Cow<'static, str>,
    /// Removing pods from the node could help.
    pub resolvable: bool,
}

impl Rejection {
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Rejection { reason: reason.into(), resolvable: true }
    }
    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Rejection { reason: reason.into(), resolvable: false }
    }
}

/// What a PreFilter says of a pod as such.
#[derive(Clone, Debug, PartialEq)]
pub enum PreFilter {
    /// Its Filter is asked for each node.
    Continue,
    /// Its Filter has nothing to say of this pod.
    Skip,
    /// Only these nodes can do; the Filter is asked for them.
    Only(Vec<Box<str>>),
    Reject(Rejection),
}

/// A change in the cluster that may help a pod that waits.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    NodeAdded(&'a NodeInfo),
    /// A node as it was and as it is.
    NodeUpdated(&'a NodeInfo, &'a NodeInfo),
    /// A pod that had its place went, or is finished.
    PodRemoved(&'a PodInfo),
    /// A pod that has its place asks for less than it did.
    PodShrank,
    /// The pod that waits was itself changed.
    PodUpdated,
}

/// A scheduling plugin. Every extension point has a default that does nothing.
pub trait Plugin: Send + Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// Whether the pod may be tried at all (PreEnqueue).
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        let _ = pod;
        Ok(())
    }
    fn pre_filter(&self, pod: &PodInfo) -> PreFilter {
        let _ = pod;
        PreFilter::Skip
    }
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let _ = (pod, node);
        Ok(())
    }
    /// Whether it has a say in where this pod goes (PreScore).
    fn scores(&self, pod: &PodInfo) -> bool {
        let _ = pod;
        false
    }
    /// How well a node suits, as a raw number ([`Plugin::normalize`] brings it to 0 to [`MAX_SCORE`]).
    fn score(&self, pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) -> i64 {
        let _ = (pod, node, snapshot);
        0
    }
    fn normalize(&self, scores: &mut [i64]) {
        let _ = scores;
    }
    /// The queueing hint: whether a change may help a pod that this plugin rejected.
    fn helps(&self, pod: &PodInfo, change: &Change<'_>) -> bool {
        let _ = (pod, change);
        true
    }
}

/// Why no node takes a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagnosis {
    /// Nodes looked at.
    pub nodes: usize,
    /// Reason → how many nodes gave it.
    pub reasons: BTreeMap<Cow<'static, str>, usize>,
    /// Said of the pod as such, before any node was looked at.
    pub pre_filter: Option<Cow<'static, str>>,
    /// The plugins that rejected.
    pub plugins: Vec<&'static str>,
    /// Said when it was asked whether other pods might make room (PostFilter).
    pub post_filter: Option<String>,
    /// The nodes on which that could help.
    resolvable: Vec<Box<str>>,
}

impl Diagnosis {
    fn add(&mut self, plugin: &'static str, reason: Cow<'static, str>) {
        self.count(reason, 1);
        if !self.plugins.contains(&plugin) {
            self.plugins.push(plugin);
        }
    }

    fn count(&mut self, reason: Cow<'static, str>, nodes: usize) {
        *self.reasons.entry(reason).or_insert(0) += nodes;
    }

    /// Upstream's message: `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`, and what came of the
    /// search for pods that might make room.
    pub fn message(&self) -> String {
        if self.nodes == 0 && self.pre_filter.is_none() {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut text = format!("0/{} nodes are available:", self.nodes);
        let mut parts: Vec<String> = match &self.pre_filter {
            Some(reason) => vec![reason.to_string()],
            None => self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect(),
        };
        parts.sort();
        if !parts.is_empty() {
            text.push_str(&format!(" {}.", parts.join(", ")));
        }
        if let Some(post_filter) = &self.post_filter {
            text.push_str(&format!(" {post_filter}"));
        }
        text
    }
}

/// What outlasts a cycle: where the search for nodes goes on, and chance among equals.
#[derive(Clone, Debug)]
pub struct Scheduler {
    next_start: usize,
    random: u64,
}

impl Scheduler {
    /// `seed` decides among equally good nodes.
    pub fn new(seed: u64) -> Self {
        Scheduler { next_start: 0, random: seed | 1 }
    }

    /// One cycle: the node for a pod.
    ///
    /// # Errors
    /// The diagnosis when none fits.
    pub fn schedule(&mut self, pod: &PodInfo, snapshot: &Snapshot) -> Result<Box<str>, Box<Diagnosis>> {
        let total = snapshot.nodes().len();
        let mut diagnosis = Box::new(Diagnosis { nodes: total, ..Diagnosis::default() });
        let mut filters: Vec<&dyn Plugin> = Vec::with_capacity(TABLE.len());
        let mut only: Option<Vec<Box<str>>> = None;
        let mut narrowed: Vec<&str> = Vec::new();
        for row in TABLE {
            match row.plugin.pre_filter(pod) {
                PreFilter::Skip => {}
                PreFilter::Continue => filters.push(row.plugin),
                PreFilter::Only(names) => {
                    filters.push(row.plugin);
                    narrowed.push(row.plugin.name());
                    only = Some(match only {
                        None => names,
                        Some(before) => before.into_iter().filter(|n| names.contains(n)).collect(),
                    });
                }
                PreFilter::Reject(rejection) => {
                    diagnosis.pre_filter = Some(rejection.reason);
                    diagnosis.plugins.push(row.plugin.name());
                    if rejection.resolvable {
                        diagnosis.resolvable = snapshot.nodes().iter().map(|node| node.name.clone()).collect();
                    }
                    diagnosis.post_filter = post_filter(&filters, pod, snapshot, &diagnosis);
                    return Err(diagnosis);
                }
            }
        }
        let feasible = match only {
            Some(names) => {
                let named: Vec<&Arc<NodeInfo>> = names.iter().filter_map(|n| snapshot.get(n)).collect();
                if named.len() < total {
                    narrowed.sort_unstable();
                    let reason = format!("node(s) didn't satisfy plugin(s) [{}]", narrowed.join(" "));
                    diagnosis.count(reason.into(), total - named.len());
                }
                named.into_iter().filter(|node| passes(&filters, pod, node, &mut diagnosis)).collect()
            }
            None => self.find(pod, snapshot, &filters, &mut diagnosis),
        };
        match feasible.as_slice() {
            [] => {
                diagnosis.post_filter = post_filter(&filters, pod, snapshot, &diagnosis);
                Err(diagnosis)
            }
            [one] => Ok(one.name.clone()),
            several => Ok(self.best(pod, snapshot, several)),
        }
    }

    /// Enough nodes that fit, beginning where the last search ended, so that all nodes get their turn.
    fn find<'s>(
        &mut self,
        pod: &PodInfo,
        snapshot: &'s Snapshot,
        filters: &[&dyn Plugin],
        diagnosis: &mut Diagnosis,
    ) -> Vec<&'s Arc<NodeInfo>> {
        let nodes = snapshot.nodes();
        let wanted = enough(nodes.len());
        let mut feasible = Vec::with_capacity(wanted.min(nodes.len()));
        let mut looked = 0;
        for i in 0..nodes.len() {
            let node = &nodes[(self.next_start + i) % nodes.len()];
            looked += 1;
            if passes(filters, pod, node, diagnosis) {
                feasible.push(node);
                if feasible.len() == wanted {
                    break;
                }
            }
        }
        if !nodes.is_empty() {
            self.next_start = (self.next_start + looked) % nodes.len();
        }
        feasible
    }

    fn best(&mut self, pod: &PodInfo, snapshot: &Snapshot, nodes: &[&Arc<NodeInfo>]) -> Box<str> {
        let mut totals = vec![0i64; nodes.len()];
        let mut scores = vec![0i64; nodes.len()];
        for row in TABLE.iter().filter(|row| row.weight > 0 && row.plugin.scores(pod)) {
            for (score, node) in scores.iter_mut().zip(nodes) {
                *score = row.plugin.score(pod, node, snapshot);
            }
            row.plugin.normalize(&mut scores);
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += score * row.weight;
            }
        }
        let (mut best, mut ties) = (0, 1u64);
        for i in 1..totals.len() {
            if totals[i] > totals[best] {
                (best, ties) = (i, 1);
            } else if totals[i] == totals[best] {
                ties += 1;
                if self.chance().is_multiple_of(ties) {
                    best = i;
                }
            }
        }
        nodes[best].name.clone()
    }

    /// xorshift64
    fn chance(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// What upstream's PostFilter plugins, dynamic resources and preemption, say of a pod that no node takes: whether there are pods
/// of lower priority that might make room. `None`: there are, or there is no node at all.
fn post_filter(filters: &[&dyn Plugin], pod: &PodInfo, snapshot: &Snapshot, found: &Diagnosis) -> Option<String> {
    if found.nodes == 0 {
        return None;
    }
    if pod.never_preempts {
        return Some(format!("{NO_CLAIMS}, preemption: not eligible due to preemptionPolicy=Never."));
    }
    let mut preemption = Diagnosis { nodes: found.nodes, ..Diagnosis::default() };
    for node in found.resolvable.iter().filter_map(|name| snapshot.get(name)) {
        if node.pods.values().all(|other| other.priority >= pod.priority) {
            preemption.count("No preemption victims found for incoming pod".into(), 1);
            continue;
        }
        if passes(filters, pod, &node.without_below(pod.priority), &mut preemption) {
            return None;
        }
    }
    let hopeless = found.nodes - found.resolvable.len();
    if hopeless > 0 {
        preemption.count("Preemption is not helpful for scheduling".into(), hopeless);
    }
    Some(format!("{NO_CLAIMS}, preemption: {}", preemption.message()))
}

fn passes(filters: &[&dyn Plugin], pod: &PodInfo, node: &NodeInfo, diagnosis: &mut Diagnosis) -> bool {
    for plugin in filters {
        if let Err(rejection) = plugin.filter(pod, node) {
            if rejection.resolvable {
                diagnosis.resolvable.push(node.name.clone());
            }
            // A plugin may have several reasons for one node (several resources).
            for reason in rejection.reason.split('\n') {
                diagnosis.add(plugin.name(), Cow::Owned(reason.to_owned()));
            }
            return false;
        }
    }
    true
}

/// How many nodes that fit are enough: all of a small cluster, then 50 % falling to 5 % (upstream's adaptive percentage).
fn enough(nodes: usize) -> usize {
    if nodes <= ALWAYS_FIND {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(ALWAYS_FIND)
}

/// The first plugin that holds a pod back from being tried.
pub fn held_back(pod: &PodInfo) -> Option<(&'static str, Rejection)> {
    TABLE.iter().find_map(|row| row.plugin.pre_enqueue(pod).err().map(|r| (row.plugin.name(), r)))
}

/// Whether a change may help a pod that these plugins rejected.
pub fn may_help(plugins: &[&'static str], pod: &PodInfo, change: &Change<'_>) -> bool {
    // Nobody in particular rejected it: anything may help.
    plugins.is_empty() || TABLE.iter().any(|row| plugins.contains(&row.plugin.name()) && row.plugin.helps(pod, change))
}

/// Scales raw scores so that the highest is [`MAX_SCORE`]; `reverse` makes the lowest the best.
pub(crate) fn scale(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores.iter_mut() {
        *score = match (max, reverse) {
            (0, true) => MAX_SCORE,
            (0, false) => 0,
            (max, _) => {
                let scaled = *score * MAX_SCORE / max;
                if reverse { MAX_SCORE - scaled } else { scaled }
            }
        };
    }
}

#[cfg(test)]
#[path = "framework_tests.rs"]
mod tests;
