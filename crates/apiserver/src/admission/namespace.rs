//! NamespaceLifecycle: nothing new in a namespace that ends or does not exist, and some namespaces never end.

use super::{Admission, Attributes, Operation};
use crate::lookup::{Lookup, NAMESPACES};
use api::{Cause, GroupResource, Status};
use async_trait::async_trait;
use std::sync::Arc;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle {
    pub objects: Arc<dyn Lookup>,
}

#[async_trait]
impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let resource = GroupResource::new("", "namespaces");
        if a.resource.group.is_empty() && a.resource.plural == "namespaces" {
            let forbidden = a.operation == Operation::Delete && a.subresource.is_empty() && IMMORTAL.contains(&a.name);
            return if forbidden {
                Err(Status::forbidden(&resource, a.name, "this namespace may not be deleted"))
            } else {
                Ok(())
            };
        }
        if a.namespace.is_empty() || a.operation == Operation::Delete {
            return Ok(());
        }
        let Some(namespace) = self.objects.find(NAMESPACES, "", a.namespace).await? else {
            return Err(Status::not_found(&resource, a.namespace));
        };
        if a.operation != Operation::Create || namespace.str_at(&["status", "phase"]) != "Terminating" {
            return Ok(());
        }
        let mut status = a.forbidden(format!(
            "unable to create new content in namespace {} because it is being terminated",
            a.namespace
        ));
        status.details_mut().causes.push(Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {} is being terminated", a.namespace),
            field: "metadata.namespace".into(),
        });
        Err(status)
    }
}
