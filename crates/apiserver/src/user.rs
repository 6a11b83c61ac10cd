//! Who makes a request.

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

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}
