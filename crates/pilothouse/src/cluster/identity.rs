//! Who the components are: each its own, with the default roles' rights and no more.

use apiserver::user::UserInfo;

pub fn manager() -> UserInfo {
    UserInfo::new("system:kube-controller-manager", Vec::<String>::new())
}

pub fn scheduler() -> UserInfo {
    UserInfo::new("system:kube-scheduler", Vec::<String>::new())
}

pub fn proxy() -> UserInfo {
    UserInfo::new("system:kube-proxy", Vec::<String>::new())
}

pub fn node(name: &str) -> UserInfo {
    UserInfo::new(format!("system:node:{name}"), ["system:nodes"])
}

/// A service account of `kube-system`.
pub fn service_account(name: &str) -> UserInfo {
    UserInfo::new(
        format!("system:serviceaccount:kube-system:{name}"),
        ["system:serviceaccounts", "system:serviceaccounts:kube-system"],
    )
}
