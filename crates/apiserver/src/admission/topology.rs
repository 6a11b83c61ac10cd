//! PodTopologyLabels: a pod that is bound to a node carries the node's zone and region.

use super::{Admission, Attributes, Operation, Sides};
use crate::lookup::{Lookup, NODES};
use api::Status;
use async_trait::async_trait;
use std::sync::Arc;

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub struct PodTopologyLabels {
    pub objects: Arc<dyn Lookup>,
}

#[async_trait]
impl Admission for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn sides(&self) -> Sides {
        Sides::Admits
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let node = if a.is_subresource("", "pods", "binding") {
            let kind = a.object.str_at(&["target", "kind"]);
            if matches!(kind, "" | "Node") { a.object.str_at(&["target", "name"]) } else { "" }
        } else if a.is("", "pods") {
            a.object.str_at(&["spec", "nodeName"])
        } else {
            ""
        };
        if node.is_empty() {
            return Ok(());
        }
        let Some(node) = self.objects.find(NODES, "", node).await? else { return Ok(()) };
        for label in LABELS {
            let value = node.str_at(&["metadata", "labels", label]);
            if !value.is_empty() {
                a.object.set_at(&["metadata", "labels", label], value);
            }
        }
        Ok(())
    }
}
