//! Nobody grants more than they hold: the checks on writes of roles and bindings.
//!
//! A write passes when its author is of `system:masters`, may `escalate` (roles) or `bind` (bindings), holds all that it
//! grants, or changes only what garbage collection needs.

use super::index::RoleRef;
use super::rule::{self, PolicyRule};
use super::{GROUP, Rbac};
use crate::admission::{Admission, Attributes as Write, Operation, Sides};
use crate::authz::{Attributes, Authorizer};
use crate::user::{self, UserInfo};
use api::field::go_quote;
use api::{GroupResource, Reason, Status};
use async_trait::async_trait;
use schema::{Map, Value};
use std::sync::Arc;

/// Runs behind the mutating plugins and before the rules of the kinds, as upstream asks it in front of its storage; it has no name
/// to be disabled by.
pub struct Escalation {
    pub rbac: Arc<Rbac>,
    pub authorizer: Arc<dyn Authorizer>,
}

impl Escalation {
    /// Refuses to hand on what the user does not hold in the namespace.
    fn holds(&self, user: &UserInfo, namespace: &str, wanted: &[PolicyRule]) -> Result<(), String> {
        let (held, errors) = self.rbac.read().rules_for(&user.name, &user.groups, namespace);
        let missing = rule::missing(&held, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let mut message = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            rule::go_list(&user.groups),
            rule::shown_missing(missing)
        );
        if let Some(errors) = errors.strip_prefix("RBAC: ") {
            let list = if errors.starts_with('[') { errors.to_owned() } else { format!("[{errors}]") };
            message.push_str(&format!("; resolution errors: {list}"));
        }
        Err(message)
    }

    async fn may(&self, write: &Write<'_>, verb: &str, resource: &str, name: &str) -> bool {
        let attributes = Attributes {
            user: &write.cx.user,
            verb,
            is_resource: true,
            group: GROUP,
            version: "v1",
            resource,
            subresource: "",
            namespace: write.namespace,
            name,
            path: "",
            label_selector: "",
            field_selector: "",
        };
        self.authorizer.authorize(&attributes).await.allowed()
    }

    async fn role(&self, write: &Write<'_>, cluster: bool) -> Result<(), Status> {
        let plural = if cluster { "clusterroles" } else { "roles" };
        if self.may(write, "escalate", plural, write.name).await {
            return Ok(());
        }
        self.holds(&write.cx.user, write.namespace, &PolicyRule::list_of(write.object))
            .map_err(|why| refuse(write, &why))?;
        let aggregates = |role: &Map| role.get("aggregationRule").is_some_and(|r| !r.is_null());
        if cluster && (aggregates(write.object) || write.old.is_some_and(aggregates)) {
            // It gathers whatever comes to carry its labels, so only somebody who holds everything may say so.
            let article = if write.old.is_some() { "the" } else { "an" };
            self.holds(&write.cx.user, "", &PolicyRule::everything()).map_err(|_| {
                refuse(write, &format!("must have cluster-admin privileges to use {article} aggregationRule"))
            })?;
        }
        Ok(())
    }

    async fn binding(&self, write: &Write<'_>) -> Result<(), Status> {
        let role = RoleRef::of(write.object);
        let plural = if role.cluster { "clusterroles" } else { "roles" };
        let of = |key| write.object.str_at(&["roleRef", key]);
        let known = matches!(of("kind"), "ClusterRole" | "Role");
        if known
            && of("apiGroup") == GROUP
            && !role.name.is_empty()
            && self.may(write, "bind", plural, &role.name).await
        {
            return Ok(());
        }
        if !known {
            let why = format!("unsupported role reference kind: {}", go_quote(of("kind")));
            return Err(Status::new(500, Reason::Unknown, why));
        }
        let rules = self.rbac.read().rules_of(&role, write.namespace);
        let rules = rules.ok_or_else(|| Status::not_found(&GroupResource::new(GROUP, plural), &role.name))?;
        self.holds(&write.cx.user, write.namespace, &rules).map_err(|why| refuse(write, &why))
    }
}

fn refuse(write: &Write<'_>, why: &str) -> Status {
    let name = write.object.str_at(&["metadata", "name"]);
    Status::forbidden(&GroupResource::new(GROUP, write.resource.plural.clone()), name, why)
}

/// Whether an update touches nothing but owner references and finalizers.
fn only_for_garbage_collection(after: &Map, before: &Map) -> bool {
    let stripped = |object: &Map| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_map_mut) {
            for key in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
                metadata.remove(key);
            }
        }
        object
    };
    stripped(after) == stripped(before)
}

#[async_trait]
impl Admission for Escalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn sides(&self) -> Sides {
        Sides::Admits
    }

    fn is_a_plugin(&self) -> bool {
        false
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, write: &mut Write<'_>) -> Result<(), Status> {
        if write.resource.group != GROUP || !write.subresource.is_empty() || write.cx.user.in_group(user::MASTERS) {
            return Ok(());
        }
        if write.old.is_some_and(|old| only_for_garbage_collection(write.object, old)) {
            return Ok(());
        }
        match write.resource.plural.as_ref() {
            "roles" => self.role(write, false).await,
            "clusterroles" => self.role(write, true).await,
            "rolebindings" | "clusterrolebindings" => self.binding(write).await,
            _ => Ok(()),
        }
    }
}
