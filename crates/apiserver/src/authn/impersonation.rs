//! `Impersonate-*` headers: acting as somebody else, where that is authorized for every part of the other identity.
//!
//! There are five ways ([`MODES`]) that it can be allowed in, asked one after the other. All but the old one also ask whether
//! the request itself may be made in that way.

use crate::authz::{self, Attributes, Authorizer};
use crate::request::RequestInfo;
use crate::user::{self, UserInfo};
use api::field::{aggregate, go_quote};
use api::{FieldError, Path, Status, names};
use http::HeaderMap;
use std::collections::BTreeMap;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
/// From so many groups, or values of extra, on it is asked first whether all are allowed.
const MANY: usize = 4;

/// Whom somebody acts as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acting {
    pub user: UserInfo,
    /// The verb that it was allowed by, for the audit log; empty for the old one.
    pub constraint: &'static str,
}

/// A way to act as somebody else.
struct Mode {
    name: &'static str,
    verb: &'static str,
    /// Whether it is for who is wanted, by who asks.
    applies: fn(&UserInfo, &UserInfo) -> bool,
}

const ASSOCIATED: &str = "associated-node";

/// The most limited first.
const MODES: [Mode; 5] = [
    Mode {
        name: ASSOCIATED,
        verb: "impersonate:associated-node",
        applies: |wanted, asks| {
            let node = only_named(wanted).and_then(user::node_name);
            node.is_some() && user::account(&asks.name).is_some() && asks.node() == node
        },
    },
    Mode {
        name: "arbitrary-node",
        verb: "impersonate:arbitrary-node",
        applies: |wanted, _| only_named(wanted).and_then(user::node_name).is_some(),
    },
    Mode {
        name: "serviceaccount",
        verb: "impersonate:serviceaccount",
        applies: |wanted, _| only_named(wanted).and_then(user::account).is_some(),
    },
    Mode {
        name: "user-info",
        verb: "impersonate:user-info",
        applies: |wanted, _| user::node_name(&wanted.name).is_none() && user::account(&wanted.name).is_none(),
    },
    Mode { name: "", verb: "impersonate", applies: |_, _| true },
];

/// The name of somebody of whom nothing else is said.
fn only_named(wanted: &UserInfo) -> Option<&str> {
    let alone = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
    alone.then_some(wanted.name.as_str())
}

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

/// Who the request is to be treated as coming from; `None` when its headers ask for nobody else.
///
/// `constrained` is the request, where the ways that depend on it are open.
///
/// # Errors
/// 403 for a part of the identity that `user` may not take on, 400 for headers without `Impersonate-User` (500 where only the
/// old way is open), and for one that can't be read.
pub async fn impersonate(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    headers: &HeaderMap,
    constrained: Option<&RequestInfo>,
) -> Result<Option<Acting>, Status> {
    let Some(wanted) = asked(headers)? else { return Ok(None) };
    if wanted.name.is_empty() {
        return Err(match constrained {
            Some(_) => {
                Status::bad_request(format!("requested {} without impersonating a user name", go_syntax(&wanted)))
            }
            None => Status::internal("requested groups, uid or extra without impersonating a user"),
        });
    }
    let mut refused = None;
    for mode in &MODES {
        let checked = match constrained {
            _ if mode.name.is_empty() => take_on(authorizer, user, mode, &wanted).await,
            Some(info) if (mode.applies)(&wanted, user) => constrain(authorizer, user, mode, &wanted, info).await,
            _ => continue,
        };
        match checked {
            Ok(()) => {
                let constraint = if mode.name.is_empty() { "" } else { mode.verb };
                return Ok(Some(Acting { user: completed(wanted, mode), constraint }));
            }
            Err(status) => {
                refused.get_or_insert(status);
            }
        }
    }
    Err(refused.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
}

/// Whether the request may be made in this way, as who is wanted.
async fn constrain(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    mode: &Mode,
    wanted: &UserInfo,
    info: &RequestInfo,
) -> Result<(), Status> {
    let mut asks = user.clone();
    if mode.name == ASSOCIATED {
        // What is decided holds for all nodes that the account runs on, so nothing of this one may decide it.
        let keys = user.extra.keys().cloned().collect();
        asks.extra = BTreeMap::from([("authentication.kubernetes.io/associated-node-keys".to_owned(), keys)]);
    }
    let verb = format!("impersonate-on:{}:{}", mode.name, info.verb);
    authorized(authorizer, &Attributes { verb: &verb, ..Attributes::of(&asks, info) }).await?;
    take_on(authorizer, &asks, mode, wanted).await
}

/// Whether every part of the identity may be taken on in this way.
async fn take_on(authorizer: &dyn Authorizer, user: &UserInfo, mode: &Mode, wanted: &UserInfo) -> Result<(), Status> {
    let constrained = !mode.name.is_empty();
    let group = if constrained { AUTHENTICATION } else { "" };
    let base = Attributes {
        user,
        verb: mode.verb,
        is_resource: true,
        group,
        version: "v1",
        resource: "",
        subresource: "",
        namespace: "",
        name: "",
        path: "",
        label_selector: "",
        field_selector: "",
    };
    let of_user = match (user::account(&wanted.name), user::node_name(&wanted.name)) {
        (Some((namespace, name)), _) => Attributes { resource: "serviceaccounts", namespace, name, ..base },
        (None, Some(_)) if mode.name == ASSOCIATED => Attributes { resource: "nodes", name: "*", ..base },
        (None, Some(name)) if constrained => Attributes { resource: "nodes", name, ..base },
        _ => Attributes { resource: "users", name: &wanted.name, ..base },
    };
    authorized(authorizer, &of_user).await?;
    if !wanted.uid.is_empty() {
        let uid = Attributes { group: AUTHENTICATION, resource: "uids", name: &wanted.uid, ..base };
        authorized(authorizer, &uid).await?;
    }
    let groups = Attributes { resource: "groups", ..base };
    if constrained && wanted.groups.iter().any(String::is_empty) {
        return Err(authz::forbidden(&groups, "impersonating the empty string group is not allowed"));
    }
    if constrained && wanted.in_group(user::MASTERS) {
        let masters = Attributes { name: user::MASTERS, ..groups };
        return Err(authz::forbidden(&masters, "impersonating the system:masters group is not allowed"));
    }
    let all = Attributes { name: "*", ..groups };
    if !(constrained && wanted.groups.len() >= MANY && authorizer.authorize(&all).await.allowed()) {
        for group in &wanted.groups {
            authorized(authorizer, &Attributes { name: group, ..groups }).await?;
        }
    }
    let extras = Attributes { group: AUTHENTICATION, resource: "userextras", ..base };
    if constrained && let Err(why) = check_extra(&wanted.extra) {
        return Err(authz::forbidden(&extras, &why));
    }
    let values: usize = wanted.extra.values().map(Vec::len).sum();
    let all = Attributes { subresource: "*", name: "*", ..extras };
    if constrained && values >= MANY && authorizer.authorize(&all).await.allowed() {
        return Ok(());
    }
    for (key, values) in &wanted.extra {
        for value in values {
            authorized(authorizer, &Attributes { subresource: key, name: value, ..extras }).await?;
        }
    }
    Ok(())
}

async fn authorized(authorizer: &dyn Authorizer, attributes: &Attributes<'_>) -> Result<(), Status> {
    let decision = authorizer.authorize(attributes).await;
    if decision.allowed() { Ok(()) } else { Err(authz::forbidden(attributes, decision.reason())) }
}

/// What may not be taken on as extra in any but the old way.
fn check_extra(extra: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
    for (key, values) in extra {
        if key.is_empty() {
            return Err("impersonating the empty string key in extra is not allowed".into());
        }
        let errors = prefixed_path(key);
        if !errors.is_empty() {
            let errors = aggregate(&errors);
            return Err(format!("impersonating an invalid key in extra is not allowed: {errors}"));
        }
        if *key != key.to_lowercase() {
            let key = go_quote(key);
            return Err(format!("impersonating a non-lowercase key in extra is not allowed: {key}"));
        }
        if values.is_empty() {
            return Err("impersonating empty values in extra is not allowed".into());
        }
        if values.iter().any(String::is_empty) {
            return Err("impersonating the empty string value in extra is not allowed".into());
        }
    }
    Ok(())
}

/// What is wrong with `acme.io/foo`.
fn prefixed_path(key: &str) -> Vec<FieldError> {
    let extra = Path::root("extra");
    let path = extra.child("key");
    let Some((host, rest)) = key.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty()) else {
        let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        return vec![FieldError::invalid(&path, key, why)];
    };
    let mut errors: Vec<FieldError> =
        names::dns1123_subdomain(host).into_iter().map(|why| FieldError::invalid(&path, host, why)).collect();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !rest.bytes().all(fits) {
        let why = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        errors.push(FieldError::invalid(&path, rest, why));
    }
    errors
}

/// The identity with the groups that follow from it.
fn completed(mut wanted: UserInfo, mode: &Mode) -> UserInfo {
    if wanted.groups.is_empty() {
        if let Some((namespace, _)) = user::account(&wanted.name) {
            wanted.groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        } else if !mode.name.is_empty() && user::node_name(&wanted.name).is_some() {
            wanted.groups = vec![user::NODES.to_owned()];
        }
    }
    let every = match wanted.name.as_str() {
        user::ANONYMOUS => Some(user::UNAUTHENTICATED),
        _ => (!wanted.in_group(user::UNAUTHENTICATED)).then_some(user::AUTHENTICATED),
    };
    if let Some(every) = every.filter(|every| !wanted.in_group(every)) {
        wanted.groups.push(every.to_owned());
    }
    wanted
}

/// A user as Go prints one with `%#v`.
fn go_syntax(user: &UserInfo) -> String {
    let list = |values: &[String]| {
        let values: Vec<String> = values.iter().map(|value| go_quote(value)).collect();
        if values.is_empty() { "[]string(nil)".to_owned() } else { format!("[]string{{{}}}", values.join(", ")) }
    };
    let extra: Vec<String> =
        user.extra.iter().map(|(key, values)| format!("{}:{}", go_quote(key), list(values))).collect();
    let extra = match extra.as_slice() {
        [] => "map[string][]string(nil)".to_owned(),
        extra => format!("map[string][]string{{{}}}", extra.join(", ")),
    };
    let (name, uid) = (go_quote(&user.name), go_quote(&user.uid));
    format!("&user.DefaultInfo{{Name:{name}, UID:{uid}, Groups:{}, Extra:{extra}}}", list(&user.groups))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::{Decision, Rules};
    use async_trait::async_trait;

    /// Allows to take on what is listed as `resource/name`, and what is listed with its verb before that.
    struct May(&'static [&'static str]);

    #[async_trait]
    impl Authorizer for May {
        async fn authorize(&self, a: &Attributes<'_>) -> Decision {
            let asked = match a.subresource {
                "" => format!("{}/{}", a.resource, a.name),
                subresource => format!("{}/{subresource}/{}", a.resource, a.name),
            };
            let asked = if a.verb == "impersonate" { asked } else { format!("{} {asked}", a.verb) };
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
        let acting = impersonate(&May(may), &UserInfo::new("root", ["g"]), &map, None).await?;
        Ok(acting.map(|acting| acting.user))
    }

    /// As the account of a pod on a node asks who wants to list pods; whom it acts as, and by what.
    async fn constrained(
        may: &'static [&'static str],
        headers: &[(&'static str, &'static str)],
    ) -> Result<Acting, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, http::HeaderValue::from_static(value));
        }
        let mut asks = UserInfo::new("system:serviceaccount:ns:agent", ["g"]);
        asks.extra.insert("authentication.kubernetes.io/node-name".into(), vec!["n1".into()]);
        let info = RequestInfo::parse("GET", "/api/v1/pods", "").expect("a path");
        let acting = impersonate(&May(may), &asks, &map, Some(&info)).await.map_err(|status| status.message)?;
        Ok(acting.expect("somebody"))
    }

    #[tokio::test]
    async fn each_way_asks_for_the_request_and_for_the_identity() {
        let node = &[("impersonate-user", "system:node:n1")];
        for (may, headers, constraint, groups) in [
            (
                &["impersonate-on:associated-node:list pods/", "impersonate:associated-node nodes/*"][..],
                &node[..],
                "impersonate:associated-node",
                &[user::NODES, user::AUTHENTICATED][..],
            ),
            (
                &["impersonate-on:arbitrary-node:list pods/", "impersonate:arbitrary-node nodes/n1"],
                node,
                "impersonate:arbitrary-node",
                &[user::NODES, user::AUTHENTICATED],
            ),
            (
                &["impersonate-on:serviceaccount:list pods/", "impersonate:serviceaccount serviceaccounts/sa"],
                &[("impersonate-user", "system:serviceaccount:ns:sa")],
                "impersonate:serviceaccount",
                &["system:serviceaccounts", "system:serviceaccounts:ns", user::AUTHENTICATED],
            ),
            (
                &[
                    "impersonate-on:user-info:list pods/",
                    "impersonate:user-info users/jane",
                    "impersonate:user-info groups/devs",
                    "impersonate:user-info userextras/acme.com/x/1",
                ],
                &[("impersonate-user", "jane"), ("impersonate-group", "devs"), ("impersonate-extra-acme.com%2fx", "1")],
                "impersonate:user-info",
                &["devs", user::AUTHENTICATED],
            ),
            (&["users/jane"], &[("impersonate-user", "jane")], "", &[user::AUTHENTICATED]),
        ] {
            let acting = constrained(may, headers).await.expect(constraint);
            assert_eq!(
                (acting.constraint, acting.user.groups.as_slice()),
                (constraint, &groups.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>()[..])
            );
            // Either half alone is not enough.
            for part in may.iter().filter(|_| may.len() > 1) {
                let part: &'static [&'static str] = std::slice::from_ref(part);
                assert!(constrained(part, headers).await.is_err(), "{part:?}");
            }
        }
    }

    #[tokio::test]
    async fn refusals_are_those_of_the_first_way() {
        let first = constrained(&[], &[("impersonate-user", "jane")]).await.expect_err("refused");
        assert_eq!(
            first,
            "pods is forbidden: User \"system:serviceaccount:ns:agent\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" at the cluster scope"
        );
        let masters = &[("impersonate-user", "jane"), ("impersonate-group", "system:masters")];
        let may = &[
            "impersonate-on:user-info:list pods/",
            "impersonate:user-info users/jane",
            "impersonate:user-info groups/*",
        ];
        let refused = constrained(may, masters).await.expect_err("refused");
        assert!(refused.ends_with("impersonating the system:masters group is not allowed"), "{refused}");
        let extra = &[("impersonate-user", "jane"), ("impersonate-extra-plain", "1")];
        let refused = constrained(may, extra).await.expect_err("refused");
        let why = "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: \"plain\": must be a domain-prefixed path (such as \"acme.io/foo\")";
        assert!(refused.ends_with(why), "{refused}");
        // Nodes and accounts have groups of their own.
        let more = &[("impersonate-user", "system:node:n1"), ("impersonate-group", "g")];
        let refused =
            constrained(&["impersonate-on:arbitrary-node:list pods/", "impersonate:arbitrary-node nodes/n1"], more);
        assert!(refused.await.expect_err("refused").starts_with("users \"system:node:n1\" is forbidden"));
        let nobody = constrained(&[], &[("impersonate-group", "g")]).await.expect_err("refused");
        assert_eq!(
            nobody,
            r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"g"}, Extra:map[string][]string(nil)} without impersonating a user name"#
        );
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
            let refused =
                impersonate(&May(&[]), &UserInfo::new("root", ["g"]), &map, None).await.expect_err("unreadable");
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
