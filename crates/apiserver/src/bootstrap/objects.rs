//! The first objects beside roles: namespaces, priority classes, what extension servers need.

use super::{Keep, Wanted};
use api::field::go_quote;
use schema::{Map, Value};

pub(super) fn named(name: &str) -> Map {
    let mut object = Map::new();
    object.set_at(&["metadata", "name"], name);
    object
}

pub(super) fn list<'a>(items: impl IntoIterator<Item = &'a str>) -> Value {
    Value::List(items.into_iter().map(Value::from).collect())
}

/// The namespaces that upstream has from the start.
pub(super) fn namespaces() -> Vec<Wanted> {
    let make = |name: &str| {
        let mut object = named(name);
        object.set_at(&["metadata", "labels", "kubernetes.io/metadata.name"], name);
        object.set_at(&["spec", "finalizers"], list(["kubernetes"]));
        object.set_at(&["status", "phase"], "Active");
        Wanted { given: &["spec"], ..Wanted::new("", "v1", "namespaces", object, Keep::Absent) }
    };
    ["default", "kube-system", "kube-public", "kube-node-lease"].map(make).into()
}

pub(super) fn priority_classes() -> Vec<Wanted> {
    let make = |(name, value, description): (&str, i64, &str)| {
        let mut object = named(name);
        object.set_at(&["metadata", "generation"], 1);
        object.insert("value", value);
        object.insert("description", description);
        object.insert("preemptionPolicy", "PreemptLowerPriority");
        Wanted::new("scheduling.k8s.io", "v1", "priorityclasses", object, Keep::Absent)
    };
    [
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
    .map(make)
    .into()
}

/// What a front proxy is known by, as extension servers are told.
#[derive(Clone, Debug, Default)]
pub struct FrontProxy {
    /// PEM of its authorities.
    pub authorities: String,
    pub allowed_names: Vec<String>,
    pub user_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_prefixes: Vec<String>,
}

/// The ConfigMap from which extension servers learn whom to trust.
pub(super) fn extension_authentication(client_ca: &str, proxy: Option<&FrontProxy>) -> Wanted {
    let mut object = named("extension-apiserver-authentication");
    object.set_at(&["metadata", "namespace"], "kube-system");
    let mut data = Map::new();
    if !client_ca.is_empty() {
        data.insert("client-ca-file", client_ca);
    }
    if let Some(proxy) = proxy {
        let json = |names: &[String]| format!("[{}]", names.iter().map(|n| go_quote(n)).collect::<Vec<_>>().join(","));
        data.insert("requestheader-client-ca-file", proxy.authorities.as_str());
        data.insert("requestheader-allowed-names", json(&proxy.allowed_names));
        data.insert("requestheader-username-headers", json(&proxy.user_headers));
        data.insert("requestheader-uid-headers", json(&proxy.uid_headers));
        data.insert("requestheader-group-headers", json(&proxy.group_headers));
        data.insert("requestheader-extra-headers-prefix", json(&proxy.extra_prefixes));
    }
    object.insert("data", data);
    Wanted::new("", "v1", "configmaps", object, Keep::Same(&[&["data"]]))
}

/// Since when uses of tokens in Secrets are noted, for who cleans those that are not used.
pub(super) fn legacy_token_tracking(today: &str) -> Wanted {
    let mut object = named("kube-apiserver-legacy-service-account-token-tracking");
    object.set_at(&["metadata", "namespace"], "kube-system");
    object.set_at(&["data", "since"], today);
    Wanted::new("", "v1", "configmaps", object, Keep::Absent)
}
