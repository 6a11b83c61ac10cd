//! NodePorts: ports of the host are taken once.

use crate::framework::{Change, Plugin, PreFilter, Rejection};
use crate::objects::{NodeInfo, PodInfo};

pub(crate) struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }
    fn pre_filter(&self, pod: &PodInfo) -> PreFilter {
        if pod.host_ports.is_empty() { PreFilter::Skip } else { PreFilter::Continue }
    }
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let taken = pod.host_ports.iter().any(|wanted| node.ports.keys().any(|held| held.conflicts(wanted)));
        if taken {
            return Err(Rejection::new("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }
    fn helps(&self, pod: &PodInfo, change: &Change<'_>) -> bool {
        match change {
            Change::NodeAdded(_) | Change::PodUpdated => true,
            Change::NodeUpdated(..) | Change::PodShrank => false,
            Change::PodRemoved(gone) => {
                gone.host_ports.iter().any(|held| pod.host_ports.iter().any(|wanted| held.conflicts(wanted)))
            }
        }
    }
}
