//! NodeUnschedulable: a cordoned node takes only pods that tolerate it.

use super::taint_toleration::tolerates;
use crate::framework::{Change, Plugin, PreFilter, Rejection};
use crate::objects::{NodeInfo, PodInfo};
use k8s_openapi::api::core::v1::Taint;

pub(crate) struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }
    fn pre_filter(&self, _: &PodInfo) -> PreFilter {
        PreFilter::Continue
    }
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if !node.unschedulable {
            return Ok(());
        }
        let taint =
            Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
        if pod.tolerations.iter().any(|t| tolerates(t, &taint)) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) were unschedulable"))
    }
    fn helps(&self, _: &PodInfo, change: &Change<'_>) -> bool {
        match change {
            Change::NodeAdded(node) => !node.unschedulable,
            Change::NodeUpdated(old, new) => old.unschedulable && !new.unschedulable,
            Change::PodUpdated => true,
            Change::PodRemoved(_) | Change::PodShrank => false,
        }
    }
}
