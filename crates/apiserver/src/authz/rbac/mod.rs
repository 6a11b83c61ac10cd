//! Authorization by roles and bindings.

pub mod escalation;
pub mod index;
pub mod rule;

use super::{Attributes, Authorizer, Decision, PathRule, ResourceRule, Rules};
use crate::user::UserInfo;
use async_trait::async_trait;
use index::{Binding, Index, Verdict};
use rule::{Ask, PolicyRule};
use schema::Map;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// The RBAC authorizer: an index that follows the stored roles and bindings.
#[derive(Debug, Default)]
pub struct Rbac {
    index: RwLock<Index>,
}

impl Rbac {
    /// Takes in a stored object of this group: as it is now, or that it is gone.
    ///
    /// `plural` is `roles`, `clusterroles`, `rolebindings` or `clusterrolebindings`; others are ignored.
    pub fn apply(&self, plural: &str, namespace: &str, name: &str, object: Option<&Map>) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        match (plural, object) {
            ("roles" | "clusterroles", Some(role)) => index.put_role(namespace, name, PolicyRule::list_of(role)),
            ("roles" | "clusterroles", None) => index.remove_role(namespace, name),
            ("rolebindings" | "clusterrolebindings", Some(binding)) => index.put_binding(Binding::from_map(binding)),
            ("rolebindings" | "clusterrolebindings", None) => index.remove_binding(namespace, name),
            _ => {}
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is asked of a rule, of what is asked of an authorizer.
pub(super) fn ask<'a>(attributes: &Attributes<'a>) -> Ask<'a> {
    if attributes.is_resource {
        Ask::Resource {
            verb: attributes.verb,
            group: attributes.group,
            resource: attributes.resource,
            subresource: attributes.subresource,
            name: attributes.name,
        }
    } else {
        Ask::Path { verb: attributes.verb, path: attributes.path }
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let namespace = if attributes.is_resource { attributes.namespace } else { "" };
        let user = attributes.user;
        match self.read().decide(&user.name, &user.groups, namespace, ask(attributes)) {
            Verdict::Allowed(reason) => Decision::Allow(reason),
            Verdict::NoOpinion(reason) => Decision::NoOpinion(reason),
        }
    }

    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> Rules {
        let (held, error) = self.read().rules_for(&user.name, &user.groups, namespace);
        let mut rules = Rules { error, ..Rules::default() };
        for rule in held {
            if !rule.resources.is_empty() {
                rules.resources.push(ResourceRule {
                    verbs: rule.verbs.clone(),
                    groups: rule.api_groups,
                    resources: rule.resources,
                    names: rule.resource_names,
                });
            }
            if !rule.non_resource_urls.is_empty() {
                rules.paths.push(PathRule { verbs: rule.verbs, paths: rule.non_resource_urls });
            }
        }
        rules
    }
}
