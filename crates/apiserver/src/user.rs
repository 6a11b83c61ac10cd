//! Who makes a request.

use api::names;
use std::collections::BTreeMap;

/// An identity, as authentication found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Every request that proved who makes it.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Every request that did not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name of a request without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// Whose members may do everything.
pub const MASTERS: &str = "system:masters";
/// Whose members are nodes.
pub const NODES: &str = "system:nodes";
/// The server itself.
pub const APISERVER: &str = "system:apiserver";

impl UserInfo {
    /// A user of a name in groups.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        UserInfo { name: name.into(), groups: groups.into_iter().map(Into::into).collect(), ..UserInfo::default() }
    }

    /// `system:anonymous` in `system:unauthenticated`.
    pub fn anonymous() -> Self {
        Self::new(ANONYMOUS, [UNAUTHENTICATED])
    }

    /// The server's own identity, which may do everything.
    pub fn apiserver() -> Self {
        Self::new(APISERVER, [MASTERS, AUTHENTICATED])
    }

    /// The node that the token of a service account belongs to.
    pub fn node(&self) -> Option<&str> {
        match self.extra.get("authentication.kubernetes.io/node-name")?.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// Namespace and name of the service account that a user's name stands for.
pub fn account(name: &str) -> Option<(&str, &str)> {
    let (namespace, name) = name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let valid = names::dns1123_label(namespace).is_empty() && names::dns1123_subdomain(name).is_empty();
    valid.then_some((namespace, name))
}

/// The name of the node that a user's name stands for.
pub fn node_name(name: &str) -> Option<&str> {
    name.strip_prefix("system:node:").filter(|name| names::dns1123_subdomain(name).is_empty())
}
