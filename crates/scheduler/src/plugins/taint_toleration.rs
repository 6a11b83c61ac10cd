//! TaintToleration: taints keep pods away that don't tolerate them; `PreferNoSchedule` only weighs.

use crate::framework::{Change, Plugin, PreFilter, Rejection, scale};
use crate::objects::{NodeInfo, PodInfo};
use crate::snapshot::Snapshot;
use k8s_openapi::api::core::v1::{Taint, Toleration};

pub(crate) struct TaintToleration;

/// Whether a toleration covers a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    let key = toleration.key.as_deref().unwrap_or("");
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "Exists" => true,
        "" | "Equal" => toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""),
        _ => false,
    }
}

fn untolerated<'n>(pod: &PodInfo, node: &'n NodeInfo) -> Option<&'n Taint> {
    let keeps_away = |t: &&Taint| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute");
    node.taints.iter().filter(keeps_away).find(|taint| !pod.tolerations.iter().any(|t| tolerates(t, taint)))
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }
    fn pre_filter(&self, _: &PodInfo) -> PreFilter {
        PreFilter::Continue
    }
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        match untolerated(pod, node) {
            None => Ok(()),
            Some(_) => Err(Rejection::unresolvable("node(s) had untolerated taint(s)")),
        }
    }
    fn scores(&self, _: &PodInfo) -> bool {
        true
    }
    /// How many `PreferNoSchedule` taints are not tolerated.
    fn score(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> i64 {
        let soft = node.taints.iter().filter(|t| t.effect == "PreferNoSchedule");
        let count = soft.filter(|taint| {
            let fits = |t: &&Toleration| matches!(t.effect.as_deref(), None | Some("" | "PreferNoSchedule"));
            !pod.tolerations.iter().filter(fits).any(|t| tolerates(t, taint))
        });
        i64::try_from(count.count()).unwrap_or(i64::MAX)
    }
    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, true);
    }
    fn helps(&self, pod: &PodInfo, change: &Change<'_>) -> bool {
        match change {
            Change::NodeAdded(node) => untolerated(pod, node).is_none(),
            Change::NodeUpdated(old, new) => untolerated(pod, old).is_some() && untolerated(pod, new).is_none(),
            Change::PodUpdated => true,
            Change::PodRemoved(_) | Change::PodShrank => false,
        }
    }
}
