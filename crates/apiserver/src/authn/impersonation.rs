//! `Impersonate-*` headers: acting as somebody else, where that is authorized for every part of the other identity.

use crate::authz::{self, Attributes, Authorizer};
use crate::user::{self, UserInfo};
use api::Status;
use http::HeaderMap;
use std::collections::BTreeMap;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const ACCOUNT: &str = "system:serviceaccount:";

/// Whom the headers ask to act as, before it is authorized.
///
/// # Errors
/// 400 for a header that can't be read: taken for absent, the request would be carried out as the impersonator.
fn asked(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    let read = |name: &str, value| {
        super::header_text(value).ok_or_else(|| Status::bad_request(format!("the header {name} is not valid UTF-8")))
    };
    let values = |name: &str| -> Result<Vec<String>, Status> {
        headers.get_all(name).iter().map(|value| read(name, value).map(str::to_owned)).collect()
    };
    let first = |name: &str| values(name).map(|values| values.into_iter().next().unwrap_or_default());
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let value = read(name.as_str(), value)?.to_owned();
            extra.entry(crate::request::unescape_path(key)).or_default().push(value);
        }
    }
    let user = UserInfo { name: first(USER)?, uid: first(UID)?, groups: values(GROUP)?, extra };
    Ok((user != UserInfo::default()).then_some(user))
}

/// Namespace and name of the service account that a user name stands for.
fn account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(ACCOUNT)?.split_once(':').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
}

/// Who the request is to be treated as coming from; `None` when its headers ask for nobody else.
///
/// # Errors
/// 403 for a part of the identity that `user` may not take on, 500 for headers without `Impersonate-User`, 400 for one that
/// can't be read.
pub async fn impersonate(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    headers: &HeaderMap,
) -> Result<Option<UserInfo>, Status> {
    let Some(mut wanted) = asked(headers)? else { return Ok(None) };
    if wanted.name.is_empty() {
        return Err(Status::internal("requested groups, uid or extra without impersonating a user"));
    }
    let base = Attributes {
        user,
        verb: "impersonate",
        is_resource: true,
        group: "",
        version: "v1",
        resource: "",
        subresource: "",
        namespace: "",
        name: "",
        path: "",
        label_selector: "",
        field_selector: "",
    };
    let mut needed = match account(&wanted.name) {
        Some((namespace, name)) => vec![Attributes { resource: "serviceaccounts", namespace, name, ..base }],
        None => vec![Attributes { resource: "users", name: &wanted.name, ..base }],
    };
    needed.extend(wanted.groups.iter().map(|group| Attributes { resource: "groups", name: group, ..base }));
    if !wanted.uid.is_empty() {
        needed.push(Attributes { group: "authentication.k8s.io", resource: "uids", name: &wanted.uid, ..base });
    }
    for (key, values) in &wanted.extra {
        needed.extend(values.iter().map(|value| Attributes {
            group: "authentication.k8s.io",
            resource: "userextras",
            subresource: key,
            name: value,
            ..base
        }));
    }
    for attributes in &needed {
        let decision = authorizer.authorize(attributes).await;
        if !decision.allowed() {
            return Err(authz::forbidden(attributes, decision.reason()));
        }
    }
    let given_groups = !wanted.groups.is_empty();
    if let (false, Some((namespace, _))) = (given_groups, account(&wanted.name)) {
        wanted.groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let every = if wanted.name == user::ANONYMOUS { user::UNAUTHENTICATED } else { user::AUTHENTICATED };
    if !wanted.in_group(user::AUTHENTICATED) && !wanted.in_group(user::UNAUTHENTICATED) {
        wanted.groups.push(every.to_owned());
    }
    Ok(Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::{Decision, Rules};
    use async_trait::async_trait;

    /// Allows to take on what is listed as `resource/name`.
    struct May(&'static [&'static str]);

    #[async_trait]
    impl Authorizer for May {
        async fn authorize(&self, a: &Attributes<'_>) -> Decision {
            let asked = match a.subresource {
                "" => format!("{}/{}", a.resource, a.name),
                subresource => format!("{}/{subresource}/{}", a.resource, a.name),
            };
            if self.0.contains(&asked.as_str()) {
                Decision::Allow(String::new())
            } else {
                Decision::NoOpinion(String::new())
            }
        }
        async fn rules_for(&self, _: &UserInfo, _: &str) -> Rules {
            Rules::default()
        }
    }

    async fn run(
        may: &'static [&'static str],
        headers: &[(&'static str, &'static str)],
    ) -> Result<Option<UserInfo>, Status> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, http::HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        impersonate(&May(may), &UserInfo::new("root", ["g"]), &map).await
    }

    #[tokio::test]
    async fn names_beyond_ascii_are_names() {
        let headers = &[("impersonate-user", "jané"), ("impersonate-group", "développeurs")];
        let user = run(&["users/jané", "groups/développeurs"], headers).await.expect("allowed").expect("another user");
        assert_eq!((user.name.as_str(), user.groups[0].as_str()), ("jané", "développeurs"));
        assert_eq!(run(&[], headers).await.expect_err("not allowed").code, 403);
    }

    #[tokio::test]
    async fn an_unreadable_header_is_an_error_and_nobody_is_taken_for_the_impersonator() {
        for name in ["impersonate-user", "impersonate-group", "impersonate-uid", "impersonate-extra-team"] {
            let mut map = HeaderMap::new();
            map.append(name, http::HeaderValue::from_bytes(b"jan\xe9").expect("a value"));
            let refused = impersonate(&May(&[]), &UserInfo::new("root", ["g"]), &map).await.expect_err("unreadable");
            assert_eq!(refused.code, 400, "{name}");
        }
    }

    #[tokio::test]
    async fn every_part_of_the_identity_is_authorized() {
        let headers =
            &[("impersonate-user", "jane"), ("impersonate-group", "devs"), ("impersonate-extra-acme.com%2fx", "1")];
        let user = run(&["users/jane", "groups/devs", "userextras/acme.com/x/1"], headers)
            .await
            .expect("allowed")
            .expect("somebody");
        assert_eq!(user.groups, ["devs", user::AUTHENTICATED]);
        assert_eq!(user.extra["acme.com/x"], ["1"]);
        let refused = run(&["users/jane"], headers).await.expect_err("refused");
        assert_eq!(
            refused.message,
            "groups \"devs\" is forbidden: User \"root\" cannot impersonate resource \"groups\" in API group \"\" at the cluster scope"
        );
    }

    #[tokio::test]
    async fn a_service_account_brings_its_groups() {
        let user = run(&["serviceaccounts/sa"], &[("impersonate-user", "system:serviceaccount:ns:sa")]).await;
        let user = user.expect("allowed").expect("somebody");
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", user::AUTHENTICATED]);
    }

    #[tokio::test]
    async fn headers_without_a_user_are_an_error_and_none_are_nobody() {
        assert_eq!(run(&[], &[]).await.ok(), Some(None));
        assert_eq!(run(&[], &[("impersonate-group", "g")]).await.expect_err("refused").code, 500);
    }
}
