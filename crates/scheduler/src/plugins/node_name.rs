//! NodeName: a pod that names its node goes there or nowhere.

use crate::framework::{Change, Plugin, PreFilter, Rejection};
use crate::objects::{NodeInfo, PodInfo};

pub(crate) struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }
    fn pre_filter(&self, pod: &PodInfo) -> PreFilter {
        if pod.node_name.is_empty() { PreFilter::Skip } else { PreFilter::Continue }
    }
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if pod.node_name == node.name {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) didn't match the requested node name"))
    }
    fn helps(&self, pod: &PodInfo, change: &Change<'_>) -> bool {
        matches!(change, Change::NodeAdded(node) if node.name == pod.node_name)
    }
}
