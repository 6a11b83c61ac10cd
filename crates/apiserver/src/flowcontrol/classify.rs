//! Which flow schema a request is of: subjects and rules as they were prepared from the objects.

use crate::request::RequestInfo;
use crate::user::UserInfo;
use schema::view::flowcontrol_v1::{FlowSchemaSpec, PolicyRulesWithSubjects, Subject as SubjectView};
use schema::{Map, Value};

/// A list of names, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    All,
    These(Box<[Box<str>]>),
}

impl Names {
    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let names: Box<[Box<str>]> = names.map(Box::from).collect();
        if *names == [Box::from("*")] { Names::All } else { Names::These(names) }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Names::All => true,
            Names::These(names) => names.iter().any(|own| **own == *name),
        }
    }

    /// Whether it has `resource`, or `resource/subresource`.
    fn has_resource(&self, resource: &str, subresource: &str) -> bool {
        match self {
            Names::All => true,
            Names::These(_) if subresource.is_empty() => self.has(resource),
            Names::These(names) => names.iter().any(|own| {
                let rest = own.strip_prefix(resource).and_then(|rest| rest.strip_prefix('/'));
                rest == Some(subresource)
            }),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    Everybody,
    User(Box<str>),
    Group(Box<str>),
    /// The beginning of the names of a namespace's accounts.
    AccountsOf(Box<str>),
}

impl Subject {
    fn of(subject: SubjectView<'_>) -> Option<Self> {
        let name = |field: &str, key: &str| subject.0.get(field).and_then(Value::as_map).map(|of| of.str_at(&[key]));
        match subject.kind().unwrap_or("") {
            "User" => match name("user", "name")? {
                "*" => Some(Subject::Everybody),
                name => Some(Subject::User(name.into())),
            },
            "Group" => match name("group", "name")? {
                "*" => Some(Subject::Everybody),
                name => Some(Subject::Group(name.into())),
            },
            "ServiceAccount" => {
                let all = format!("system:serviceaccount:{}:", name("serviceAccount", "namespace")?);
                match name("serviceAccount", "name")? {
                    "*" => Some(Subject::AccountsOf(all.into())),
                    name => Some(Subject::User(format!("{all}{name}").into())),
                }
            }
            _ => None,
        }
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Subject::Everybody => true,
            Subject::User(name) => **name == *user.name,
            Subject::Group(group) => user.in_group(group),
            Subject::AccountsOf(beginning) => user.name.starts_with(&**beginning),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ResourceRule {
    verbs: Names,
    groups: Names,
    resources: Names,
    namespaces: Names,
    cluster: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PathRule {
    verbs: Names,
    /// Each with what it is the beginning of, too: `/healthz` has `/healthz/etcd`.
    paths: Box<[(Box<str>, Box<str>)]>,
    all: bool,
}

/// Who, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    subjects: Box<[Subject]>,
    resources: Box<[ResourceRule]>,
    paths: Box<[PathRule]>,
}

impl Rule {
    fn of(rule: PolicyRulesWithSubjects<'_>) -> Self {
        let resources = rule.resource_rules().iter().map(|rule| ResourceRule {
            verbs: Names::of(rule.verbs().iter()),
            groups: Names::of(rule.api_groups().iter()),
            resources: Names::of(rule.resources().iter()),
            namespaces: Names::of(rule.namespaces().iter()),
            cluster: rule.cluster_scope() == Some(true),
        });
        let paths = rule.non_resource_rules().iter().map(|rule| {
            let paths = rule.non_resource_urls().iter().map(|path| {
                let beginning = path.strip_suffix('*').unwrap_or(path);
                let slash = if beginning.ends_with('/') { "" } else { "/" };
                (path.into(), format!("{beginning}{slash}").into())
            });
            let all = rule.non_resource_urls().iter().any(|path| path == "*");
            PathRule { verbs: Names::of(rule.verbs().iter()), paths: paths.collect(), all }
        });
        Rule {
            subjects: rule.subjects().iter().filter_map(Subject::of).collect(),
            resources: resources.collect(),
            paths: paths.collect(),
        }
    }

    fn matches(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        let what = if info.is_resource {
            self.resources.iter().any(|rule| {
                rule.verbs.has(&info.verb)
                    && rule.resources.has_resource(&info.resource, &info.subresource)
                    && rule.groups.has(&info.group)
                    && if info.namespace.is_empty() { rule.cluster } else { rule.namespaces.has(&info.namespace) }
            })
        } else {
            self.paths.iter().any(|rule| {
                let named = |(path, beginning): &(Box<str>, Box<str>)| {
                    **path == *info.path || info.path.starts_with(&**beginning)
                };
                rule.verbs.has(&info.verb) && (rule.all || rule.paths.iter().any(named))
            })
        };
        what && self.subjects.iter().any(|subject| subject.is(user))
    }
}

/// What tells the flows of a schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distinguisher {
    Nothing,
    User,
    Namespace,
}

impl Distinguisher {
    pub(super) fn of<'a>(self, info: &'a RequestInfo, user: &'a UserInfo) -> &'a str {
        match self {
            Distinguisher::Nothing => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace => &info.namespace,
        }
    }
}

/// Of an object that was stored without one.
const DEFAULT_PRECEDENCE: i64 = 1000;

/// A flow schema, as far as requests are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FlowSpec {
    pub(super) level: String,
    pub(super) precedence: i64,
    pub(super) distinguisher: Distinguisher,
    rules: Box<[Rule]>,
}

impl FlowSpec {
    /// Reads `spec` of a FlowSchema.
    pub(super) fn of(spec: &Map) -> Self {
        let spec = FlowSchemaSpec(spec);
        let level = spec.priority_level_configuration().and_then(|level| level.name()).unwrap_or("");
        let distinguisher = match spec.distinguisher_method().and_then(|method| method.type_()) {
            Some("ByUser") => Distinguisher::User,
            Some("ByNamespace") => Distinguisher::Namespace,
            _ => Distinguisher::Nothing,
        };
        FlowSpec {
            level: level.to_owned(),
            precedence: spec.matching_precedence().unwrap_or(DEFAULT_PRECEDENCE),
            distinguisher,
            rules: spec.rules().iter().map(Rule::of).collect(),
        }
    }

    pub(super) fn matches(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        self.rules.iter().any(|rule| rule.matches(info, user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    fn info(method: &str, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        RequestInfo::parse(method, path, query).expect("a path")
    }

    fn rule(text: &str) -> FlowSpec {
        FlowSpec::of(&map(&format!("{{rules: [{text}]}}")))
    }

    const ALL: &str = "resourceRules: [{verbs: ['*'], apiGroups: ['*'], resources: ['*'], namespaces: ['*']}]";

    #[test]
    fn subjects_are_users_groups_and_accounts_or_all_of_them() {
        let pods = info("GET", "/api/v1/namespaces/a/pods");
        let jane = UserInfo::new("jane", ["g", "system:authenticated"]);
        let account = UserInfo::new("system:serviceaccount:kube-system:x", ["system:serviceaccounts"]);
        for (subject, of_jane, of_account) in [
            ("{kind: User, user: {name: jane}}", true, false),
            ("{kind: User, user: {name: '*'}}", true, true),
            ("{kind: Group, group: {name: g}}", true, false),
            ("{kind: Group, group: {name: '*'}}", true, true),
            ("{kind: ServiceAccount, serviceAccount: {name: x, namespace: kube-system}}", false, true),
            ("{kind: ServiceAccount, serviceAccount: {name: '*', namespace: kube-system}}", false, true),
            ("{kind: ServiceAccount, serviceAccount: {name: '*', namespace: kube}}", false, false),
            ("{kind: User}", false, false),
        ] {
            let spec = rule(&format!("{{subjects: [{subject}], {ALL}}}"));
            assert_eq!(spec.matches(&pods, &jane), of_jane, "{subject}");
            assert_eq!(spec.matches(&pods, &account), of_account, "{subject}");
        }
    }

    #[test]
    fn resource_rules_name_verb_group_resource_and_place() {
        let user = UserInfo::new("jane", ["g"]);
        let spec = rule(
            "{subjects: [{kind: Group, group: {name: '*'}}], resourceRules: [{verbs: [get, update], apiGroups: [''], resources: [pods, pods/status], namespaces: [a]}]}",
        );
        for (method, target, matched) in [
            ("GET", "/api/v1/namespaces/a/pods/b", true),
            ("GET", "/api/v1/namespaces/a/pods", false),
            ("PUT", "/api/v1/namespaces/a/pods/b/status", true),
            ("PUT", "/api/v1/namespaces/a/pods/b/resize", false),
            ("GET", "/api/v1/namespaces/b/pods/b", false),
            ("GET", "/apis/apps/v1/namespaces/a/pods/b", false),
            ("GET", "/api/v1/nodes/pods", false),
            ("GET", "/healthz", false),
        ] {
            assert_eq!(spec.matches(&info(method, target), &user), matched, "{method} {target}");
        }
        let cluster = rule(
            "{subjects: [{kind: Group, group: {name: '*'}}], resourceRules: [{verbs: ['*'], apiGroups: ['*'], resources: [nodes], clusterScope: true}]}",
        );
        assert!(cluster.matches(&info("GET", "/api/v1/nodes"), &user));
        assert!(!cluster.matches(&info("GET", "/api/v1/namespaces/a/nodes"), &user));
    }

    #[test]
    fn paths_are_named_with_what_is_below_them() {
        let user = UserInfo::new("jane", ["g"]);
        let spec = rule(
            "{subjects: [{kind: Group, group: {name: g}}], nonResourceRules: [{verbs: [get], nonResourceURLs: [/healthz, '/a/*']}]}",
        );
        for (method, target, matched) in [
            ("GET", "/healthz", true),
            ("GET", "/healthz/etcd", true),
            ("GET", "/healthzz", false),
            ("POST", "/healthz", false),
            ("GET", "/a/b", true),
            ("GET", "/a", false),
            ("GET", "/api/v1/nodes", false),
        ] {
            assert_eq!(spec.matches(&info(method, target), &user), matched, "{method} {target}");
        }
    }
}
