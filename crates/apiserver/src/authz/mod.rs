//! What a user may do.

mod counted;
pub mod node;
pub mod rbac;
pub mod reviews;
mod union;

pub use counted::{Counted, Decisions};
pub use union::{Union, forbidden};

use crate::request::RequestInfo;
use crate::user::UserInfo;
use async_trait::async_trait;

/// What somebody wants to do. Made of a request, or of a SubjectAccessReview.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    pub verb: &'a str,
    pub is_resource: bool,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    /// Selectors as the request spelled them; empty when it selects everything.
    pub label_selector: &'a str,
    pub field_selector: &'a str,
}

impl<'a> Attributes<'a> {
    pub fn of(user: &'a UserInfo, info: &'a RequestInfo) -> Self {
        Attributes {
            user,
            verb: &info.verb,
            is_resource: info.is_resource,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            label_selector: &info.label_selector,
            field_selector: &info.field_selector,
        }
    }

    pub fn read_only(&self) -> bool {
        matches!(self.verb, "get" | "list" | "watch")
    }
}

/// What an authorizer says. Authorizers in a row are asked until one has an opinion; no opinion at all is a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// With the reason, for the audit log.
    Allow(String),
    /// With the reason, which the client is told.
    Deny(String),
    NoOpinion(String),
}

impl Decision {
    pub fn allowed(&self) -> bool {
        matches!(self, Decision::Allow(_))
    }
    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow(reason) | Decision::Deny(reason) | Decision::NoOpinion(reason) => reason,
        }
    }
}

/// What a user may do in a namespace, as far as it can be told (SelfSubjectRulesReview).
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub resources: Vec<ResourceRule>,
    pub paths: Vec<PathRule>,
    /// There may be more than is listed here.
    pub incomplete: bool,
    /// Why, when something went wrong.
    pub error: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceRule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathRule {
    pub verbs: Vec<String>,
    pub paths: Vec<String>,
}

/// Decides what a user may do.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision;

    /// All that the user may do in a namespace, as far as this one can tell.
    async fn rules_for(&self, user: &UserInfo, namespace: &str) -> Rules;
}
