//! What upstream's scheme makes of the versions and kinds that bodies say they are, in its words.

use schema::Resource;

/// Where upstream makes its scheme, which messages name.
const NAME: &str = "pkg/api/legacyscheme/scheme.go:30";

/// Versions of kinds that upstream reads still, or already, and does not serve. The catalogue, which is of what is served, cannot know
/// them: each is of a kind at least that the catalogue has in v1 and not in that version. Which of those kinds it is does not matter
/// but to the words of a refusal.
const READ: [(&str, &[&str]); 17] = [
    ("admissionregistration.k8s.io", &["v1alpha1", "v1beta1"]),
    ("apps", &["v1beta1", "v1beta2"]),
    ("authentication.k8s.io", &["v1alpha1", "v1beta1"]),
    ("authorization.k8s.io", &["v1beta1"]),
    ("batch", &["v1beta1"]),
    ("certificates.k8s.io", &["v1alpha1", "v1beta1"]),
    ("coordination.k8s.io", &["v1alpha2", "v1beta1"]),
    ("discovery.k8s.io", &["v1beta1"]),
    ("events.k8s.io", &["v1beta1"]),
    ("flowcontrol.apiserver.k8s.io", &["v1beta1", "v1beta2", "v1beta3"]),
    ("networking.k8s.io", &["v1beta1"]),
    ("node.k8s.io", &["v1alpha1", "v1beta1"]),
    ("policy", &["v1beta1"]),
    ("rbac.authorization.k8s.io", &["v1alpha1", "v1beta1"]),
    ("resource.k8s.io", &["v1alpha3"]),
    ("scheduling.k8s.io", &["v1alpha1", "v1beta1"]),
    ("storage.k8s.io", &["v1alpha1", "v1beta1"]),
];

/// Upstream's packages of internal types that are not called as the first label of their group.
const PACKAGES: [(&str, &str); 4] = [
    ("", "core"),
    ("events.k8s.io", "core"),
    ("internal.apiserver.k8s.io", "apiserverinternal"),
    ("rbac.authorization.k8s.io", "rbac"),
];

/// A version and a kind, as a body says them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
}

impl<'a> Said<'a> {
    /// Group and version; empty when nothing is said.
    ///
    /// # Errors
    /// Upstream's refusal of what is none.
    pub fn group_version(&self) -> Result<(&'a str, &'a str), String> {
        match self.api_version.matches('/').count() {
            0 => Ok(("", self.api_version)),
            1 => Ok(self.api_version.split_once('/').unwrap_or_default()),
            _ => Err(format!("unexpected GroupVersion string: {}", self.api_version)),
        }
    }

    /// The version alone: what follows the last slash.
    pub fn version(&self) -> &'a str {
        self.api_version.rsplit('/').next().unwrap_or_default()
    }

    fn group(&self) -> &'a str {
        self.api_version.rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// Whether upstream knows the kind in the version.
    pub fn is_registered(&self) -> bool {
        let Ok((group, version)) = self.group_version() else { return false };
        let known = |group, version| schema::types::of_kind(group, version, self.kind).is_some();
        let read = READ.iter().any(|(of, versions)| *of == group && versions.contains(&version));
        known(group, version) || read && known(group, "v1")
    }

    /// Why nothing can be made of a kind that is not known.
    pub fn unregistered(&self) -> String {
        self.unregistered_in(NAME)
    }

    /// The same where upstream has a scheme of its own.
    pub fn unregistered_in(&self, scheme: &str) -> String {
        format!("no kind {:?} is registered for version {:?} in scheme {scheme:?}", self.kind, self.api_version)
    }

    /// Why nothing can be made of a kind that is known and is not the expected one.
    pub fn unconvertible(&self, expected: Said<'_>) -> String {
        let package = package(expected.group());
        format!("converting ({}.{}) to ({package}.{}): unknown conversion", self.version(), self.kind, expected.kind)
    }
}

/// The Go package that has the kinds of a group as upstream's server works with them.
pub fn package(group: &str) -> &str {
    let package = PACKAGES.iter().find(|(of, _)| *of == group).map(|(_, package)| *package);
    package.unwrap_or_else(|| group.split('.').next().unwrap_or_default())
}

/// The Go type that upstream holds an object or list of a resource in: `*core.PodList`.
pub fn go_type(row: &Resource, list: bool) -> String {
    if row.schema.built_in().is_none() {
        return format!("*unstructured.Unstructured{}", if list { "List" } else { "" });
    }
    format!("*{}.{}", package(&row.group), if list { &row.list_kind } else { &row.kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_says_more_than_the_catalogue() {
        for (group, versions) in READ {
            let kinds: Vec<&str> = schema::resource::all()
                .iter()
                .filter(|row| row.group == group && row.version == "v1")
                .map(|row| &*row.kind)
                .collect();
            for version in versions {
                let read = kinds.iter().any(|kind| schema::types::of_kind(group, version, kind).is_none());
                assert!(read, "all of {group}/{version} is served");
            }
        }
        let registered = |api_version, kind| Said { api_version, kind }.is_registered();
        assert!(registered("apps/v1beta1", "Deployment") && registered("networking.k8s.io/v1beta1", "Ingress"));
        assert!(registered("resource.k8s.io/v1beta1", "ResourceClaim"), "as it is served");
        assert!(!registered("apps/v1beta3", "Deployment") && !registered("apps/v1beta1", "Pod"));
    }
}
