//! NamespaceLifecycle: nothing new in a namespace that ends or does not exist, and some namespaces never end.
//! NamespaceAutoProvision makes the namespaces that are named; NamespaceExists refuses where there is none.

use super::{Admission, Attributes, Operation, Sides};
use crate::lookup::{Lookup, NAMESPACES};
use api::{Cause, GroupResource, Reason, Status};
use async_trait::async_trait;
use std::sync::Arc;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

fn resource() -> GroupResource {
    GroupResource::new("", "namespaces")
}

/// Whether the write is in a namespace, and not of one.
fn is_within(a: &Attributes<'_>) -> bool {
    let is_one = a.resource.group.is_empty() && a.resource.plural == "namespaces";
    !a.namespace.is_empty() && !is_one
}

pub struct NamespaceLifecycle {
    pub objects: Arc<dyn Lookup>,
}

#[async_trait]
impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn sides(&self) -> Sides {
        Sides::Admits
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if a.operation == Operation::Delete && a.is("", "namespaces") && IMMORTAL.contains(&a.name) {
            return Err(Status::forbidden(&resource(), a.name, "this namespace may not be deleted"));
        }
        if !is_within(a) || a.operation == Operation::Delete {
            return Ok(());
        }
        // To ask whether something may be done is no content.
        if a.resource.group == "authorization.k8s.io" && a.resource.plural == "localsubjectaccessreviews" {
            return Ok(());
        }
        let Some(namespace) = self.objects.find(NAMESPACES, "", a.namespace).await? else {
            return Err(Status::not_found(&resource(), a.namespace));
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

pub struct NamespaceExists {
    pub objects: Arc<dyn Lookup>,
}

#[async_trait]
impl Admission for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if !is_within(a) || self.objects.find(NAMESPACES, "", a.namespace).await?.is_some() {
            return Ok(());
        }
        Err(Status::not_found(&resource(), a.namespace))
    }
}

/// Makes namespaces.
#[async_trait]
pub trait NamespaceMaker: Send + Sync + 'static {
    /// Makes the namespace.
    ///
    /// # Errors
    /// 409 when it is there already; what the registry refuses otherwise.
    async fn make(&self, name: &str) -> Result<(), Status>;
}

pub struct NamespaceAutoProvision {
    pub objects: Arc<dyn Lookup>,
    pub maker: Arc<dyn NamespaceMaker>,
}

#[async_trait]
impl Admission for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    fn sides(&self) -> Sides {
        Sides::Admits
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if !is_within(a) || a.dry_run || self.objects.find(NAMESPACES, "", a.namespace).await?.is_some() {
            return Ok(());
        }
        match self.maker.make(a.namespace).await {
            Err(status) if status.reason != Reason::AlreadyExists => Err(status),
            _ => Ok(()),
        }
    }
}
