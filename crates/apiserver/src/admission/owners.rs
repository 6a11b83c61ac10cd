//! OwnerReferencesPermissionEnforcement: who makes an object depend on another must be allowed to delete it, and who
//! makes it hold up the owner's deletion must be allowed to do that to the owner.

use super::{Admission, Attributes, Operation, Sides, walk};
use crate::authz::{self, Authorizer};
use api::Status;
use async_trait::async_trait;
use schema::{Map, Value};
use std::sync::Arc;

pub struct OwnerReferencesPermissionEnforcement {
    pub authorizer: Arc<dyn Authorizer>,
}

/// The references that hold up their owner's deletion.
fn blocking(object: &Map) -> impl Iterator<Item = &Map> {
    walk::items(object, &["metadata", "ownerReferences"])
        .filter(|r| r.get("blockOwnerDeletion").and_then(Value::as_bool) == Some(true))
}

fn references(object: &Map) -> &[Value] {
    object.at(&["metadata", "ownerReferences"]).and_then(Value::as_list).unwrap_or_default()
}

impl OwnerReferencesPermissionEnforcement {
    async fn may_delete(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let attributes = authz::Attributes {
            user: &a.cx.user,
            verb: "delete",
            is_resource: true,
            group: &a.resource.group,
            version: &a.resource.version,
            resource: &a.resource.plural,
            subresource: a.subresource,
            namespace: a.namespace,
            name: a.name,
            path: "",
            label_selector: "",
            field_selector: "",
        };
        let decision = self.authorizer.authorize(&attributes).await;
        if decision.allowed() {
            return Ok(());
        }
        let reason = decision.reason();
        Err(a.forbidden(format!("cannot set an ownerRef on a resource you can't delete: {reason}, <nil>")))
    }

    async fn may_block(&self, a: &Attributes<'_>, reference: &Map) -> Result<(), Status> {
        let (api_version, kind) = (reference.str_at(&["apiVersion"]), reference.str_at(&["kind"]));
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let Some(row) = schema::resource::of_kind(group, version, kind) else {
            return Err(a.forbidden(format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind {kind}: no matches for kind {kind:?} in version {api_version:?}"
            )));
        };
        let attributes = authz::Attributes {
            user: &a.cx.user,
            verb: "update",
            is_resource: true,
            group: &row.group,
            version: &row.version,
            resource: &row.plural,
            subresource: "finalizers",
            namespace: if row.namespaced { a.namespace } else { "" },
            name: reference.str_at(&["name"]),
            path: "",
            label_selector: "",
            field_selector: "",
        };
        let decision = self.authorizer.authorize(&attributes).await;
        if decision.allowed() {
            return Ok(());
        }
        let reason = decision.reason();
        Err(a.forbidden(format!(
            "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {reason}, <nil>"
        )))
    }
}

#[async_trait]
impl Admission for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        // A pod's status is not where references are set.
        if a.is_subresource("", "pods", "status") {
            return Ok(());
        }
        let before: &[Value] = a.old.map(references).unwrap_or_default();
        if references(a.object) == before {
            return Ok(());
        }
        if a.operation != Operation::Create {
            self.may_delete(a).await?;
        }
        let uid = |reference: &Map| reference.str_at(&["uid"]).to_owned();
        let known: Vec<String> = a.old.into_iter().flat_map(blocking).map(uid).collect();
        for reference in blocking(a.object).filter(|r| !known.contains(&uid(r))) {
            self.may_block(a, reference).await?;
        }
        Ok(())
    }
}
