//! NodeAffinity: the node selector, required and preferred node affinity.

use crate::framework::{Change, Plugin, PreFilter, Rejection, scale};
use crate::objects::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;
use api::selector::{Operator, Requirement};
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

pub(crate) struct NodeAffinity;

fn label_matches(requirement: &NodeSelectorRequirement, node: &NodeInfo) -> bool {
    let operator = match requirement.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return false,
    };
    let values = requirement.values.clone().unwrap_or_default();
    Requirement { key: requirement.key.clone(), operator, values }.matches(&node.labels)
}

/// Only `metadata.name` is a field.
fn field_matches(requirement: &NodeSelectorRequirement, node: &NodeInfo) -> bool {
    let named = requirement.values.iter().flatten().any(|v| **v == *node.name);
    requirement.key == "metadata.name"
        && match requirement.operator.as_str() {
            "In" => named,
            "NotIn" => !named,
            _ => false,
        }
}

/// A term without requirements matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or(&[]);
    let fields = term.match_fields.as_deref().unwrap_or(&[]);
    (!labels.is_empty() || !fields.is_empty())
        && labels.iter().all(|r| label_matches(r, node))
        && fields.iter().all(|r| field_matches(r, node))
}

fn fits(pod: &PodInfo, node: &NodeInfo) -> bool {
    let selected = pod.node_selector.iter().all(|(k, v)| node.labels.get(k) == Some(v));
    let required =
        pod.node_affinity.as_ref().and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term_matches(t, node)))
}

/// The nodes that every term names, if every term does: then no other needs a look.
fn named(pod: &PodInfo) -> Option<Vec<Box<str>>> {
    let required = pod.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut all: Vec<Box<str>> = Vec::new();
    for term in &required.node_selector_terms {
        let by_name = |r: &&NodeSelectorRequirement| r.key == "metadata.name" && r.operator == "In";
        let names = term.match_fields.iter().flatten().find(by_name)?.values.iter().flatten();
        for name in names {
            if !all.iter().any(|n| **n == **name) {
                all.push(name.clone().into_boxed_str());
            }
        }
    }
    (!all.is_empty()).then_some(all)
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }
    fn pre_filter(&self, pod: &PodInfo) -> PreFilter {
        let required =
            pod.node_affinity.as_ref().and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        match named(pod) {
            Some(names) => PreFilter::Only(names),
            None if required.is_none() && pod.node_selector.is_empty() => PreFilter::Skip,
            None => PreFilter::Continue,
        }
    }
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if fits(pod, node) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }
    fn scores(&self, pod: &PodInfo) -> bool {
        pod.node_affinity.as_ref().is_some_and(|a| !a.preferred_during_scheduling_ignored_during_execution.is_empty())
    }
    fn score(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> i64 {
        let preferred = pod.node_affinity.iter().flat_map(|a| &a.preferred_during_scheduling_ignored_during_execution);
        preferred.filter(|p| term_matches(&p.preference, node)).map(|p| i64::from(p.weight)).sum()
    }
    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, false);
    }
    fn helps(&self, pod: &PodInfo, change: &Change<'_>) -> bool {
        match change {
            Change::NodeAdded(node) => fits(pod, node),
            Change::NodeUpdated(old, new) => !fits(pod, old) && fits(pod, new),
            Change::PodUpdated => true,
            Change::PodRemoved(_) | Change::PodShrank => false,
        }
    }
}
