//! Who may do what, kept ready: roles compiled to rules, bindings filed under their subjects.
//!
//! A decision looks only at the bindings of the asking user and groups, so its cost does not grow with the roles and
//! bindings of others.

use super::rule::{Ask, PolicyRule};
use schema::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// The role that a binding refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRef {
    /// `ClusterRole`, or else `Role` in the binding's namespace.
    pub cluster: bool,
    pub name: String,
}

/// To whom a binding gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

/// A binding, read from its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Empty for a ClusterRoleBinding.
    pub namespace: String,
    pub name: String,
    pub role: RoleRef,
    pub subjects: Vec<Subject>,
}

impl RoleRef {
    /// Reads the `roleRef` of a binding.
    pub fn of(binding: &Map) -> Self {
        RoleRef {
            cluster: binding.str_at(&["roleRef", "kind"]) == "ClusterRole",
            name: binding.str_at(&["roleRef", "name"]).to_owned(),
        }
    }
    fn kind(&self) -> &'static str {
        if self.cluster { "ClusterRole" } else { "Role" }
    }
}

impl Binding {
    /// Reads a RoleBinding or ClusterRoleBinding; subjects of unknown kinds give nothing to anyone.
    pub fn from_map(map: &Map) -> Self {
        let namespace = map.str_at(&["metadata", "namespace"]).to_owned();
        let list = map.get("subjects").and_then(Value::as_list).unwrap_or_default();
        let subjects = list.iter().filter_map(Value::as_map).filter_map(|subject| {
            let name = subject.str_at(&["name"]).to_owned();
            match subject.str_at(&["kind"]) {
                "User" => Some(Subject::User(name)),
                "Group" => Some(Subject::Group(name)),
                "ServiceAccount" => {
                    let own = subject.str_at(&["namespace"]);
                    let namespace = if own.is_empty() { namespace.clone() } else { own.to_owned() };
                    (!namespace.is_empty()).then_some(Subject::ServiceAccount { namespace, name })
                }
                _ => None,
            }
        });
        let subjects = subjects.collect();
        Binding { name: map.str_at(&["metadata", "name"]).to_owned(), role: RoleRef::of(map), subjects, namespace }
    }
}

#[derive(Clone, Debug)]
struct Grant {
    binding: Arc<Binding>,
    /// Which of its subjects this entry stands for.
    subject: usize,
}

/// The grants of one namespace, or those of the whole cluster, by subject.
#[derive(Debug, Default)]
struct Grants {
    /// By name of a binding, to take it back.
    bindings: HashMap<String, Arc<Binding>>,
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

impl Subject {
    /// The user name, or the group's name.
    fn filed(&self) -> (bool, String) {
        match self {
            Subject::User(name) => (false, name.clone()),
            Subject::Group(name) => (true, name.clone()),
            Subject::ServiceAccount { namespace, name } => (false, format!("system:serviceaccount:{namespace}:{name}")),
        }
    }
    fn shown(&self) -> String {
        match self {
            Subject::User(name) => format!("User {name:?}"),
            Subject::Group(name) => format!("Group {name:?}"),
            Subject::ServiceAccount { namespace, name } => format!("ServiceAccount \"{name}/{namespace}\""),
        }
    }
}

impl Grants {
    fn remove(&mut self, name: &str) {
        let Some(binding) = self.bindings.remove(name) else { return };
        for subject in &binding.subjects {
            let (group, key) = subject.filed();
            let filed = if group { &mut self.groups } else { &mut self.users };
            if let Some(list) = filed.get_mut(&key) {
                list.retain(|g| !Arc::ptr_eq(&g.binding, &binding));
                if list.is_empty() {
                    filed.remove(&key);
                }
            }
        }
    }

    fn put(&mut self, binding: Binding) {
        self.remove(&binding.name);
        let binding = Arc::new(binding);
        for (i, subject) in binding.subjects.iter().enumerate() {
            let (group, key) = subject.filed();
            let filed = if group { &mut self.groups } else { &mut self.users };
            filed.entry(key).or_default().push(Grant { binding: binding.clone(), subject: i });
        }
        self.bindings.insert(binding.name.clone(), binding);
    }

    fn of<'a>(&'a self, user: &'a str, groups: &'a [String]) -> impl Iterator<Item = &'a Grant> {
        let by_user = self.users.get(user).into_iter().flatten();
        by_user.chain(groups.iter().filter_map(|g| self.groups.get(g)).flatten())
    }
}

/// What the index says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// With upstream's reason: `RBAC: allowed by ClusterRoleBinding "x" of ClusterRole "y" to User "z"`.
    Allowed(String),
    /// With the roles that bindings name but that do not exist, as upstream's reason shows them; empty when there are none.
    NoOpinion(String),
}

/// Every role and binding, compiled.
#[derive(Debug, Default)]
pub struct Index {
    cluster_roles: HashMap<String, Arc<[PolicyRule]>>,
    roles: HashMap<String, HashMap<String, Arc<[PolicyRule]>>>,
    cluster: Grants,
    namespaces: HashMap<String, Grants>,
}

impl Index {
    /// Takes in a ClusterRole (`namespace` empty) or Role.
    pub fn put_role(&mut self, namespace: &str, name: &str, rules: Vec<PolicyRule>) {
        let roles = match namespace {
            "" => &mut self.cluster_roles,
            _ => self.roles.entry(namespace.to_owned()).or_default(),
        };
        roles.insert(name.to_owned(), rules.into());
    }

    pub fn remove_role(&mut self, namespace: &str, name: &str) {
        if namespace.is_empty() {
            self.cluster_roles.remove(name);
        } else if let Some(roles) = self.roles.get_mut(namespace) {
            roles.remove(name);
            if roles.is_empty() {
                self.roles.remove(namespace);
            }
        }
    }

    /// Takes in a binding of either kind.
    pub fn put_binding(&mut self, binding: Binding) {
        match binding.namespace.as_str() {
            "" => self.cluster.put(binding),
            namespace => self.namespaces.entry(namespace.to_owned()).or_default().put(binding),
        }
    }

    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        if namespace.is_empty() {
            self.cluster.remove(name);
        } else if let Some(grants) = self.namespaces.get_mut(namespace) {
            grants.remove(name);
            if grants.bindings.is_empty() {
                self.namespaces.remove(namespace);
            }
        }
    }

    /// The rules of the role a binding in `namespace` refers to; `None` when there is no such role.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Option<Arc<[PolicyRule]>> {
        if role.cluster {
            self.cluster_roles.get(&role.name).cloned()
        } else {
            self.roles.get(namespace)?.get(&role.name).cloned()
        }
    }

    /// Every grant that counts for a request in `namespace` (empty: cluster scope), cluster-wide ones first.
    fn grants<'a>(&'a self, user: &'a str, groups: &'a [String], namespace: &str) -> impl Iterator<Item = &'a Grant> {
        let local = if namespace.is_empty() { None } else { self.namespaces.get(namespace) };
        self.cluster.of(user, groups).chain(local.into_iter().flat_map(|g| g.of(user, groups)))
    }

    /// Decides a request.
    pub fn decide(&self, user: &str, groups: &[String], namespace: &str, ask: Ask<'_>) -> Verdict {
        let mut absent = Vec::new();
        for grant in self.grants(user, groups, namespace) {
            let binding = &grant.binding;
            match self.rules_of(&binding.role, &binding.namespace) {
                None => note_absent(&mut absent, &binding.role),
                Some(rules) if rules.iter().any(|r| r.allows(ask)) => {
                    let subject = binding.subjects[grant.subject].shown();
                    let (kind, place) = match binding.namespace.as_str() {
                        "" => ("ClusterRoleBinding", binding.name.clone()),
                        namespace => ("RoleBinding", format!("{}/{namespace}", binding.name)),
                    };
                    let role = &binding.role;
                    return Verdict::Allowed(format!(
                        "RBAC: allowed by {kind} {place:?} of {} {:?} to {subject}",
                        role.kind(),
                        role.name
                    ));
                }
                Some(_) => {}
            }
        }
        Verdict::NoOpinion(shown_absent(&absent))
    }

    /// Every rule that the user holds in `namespace`, and the roles that are named but absent, shown.
    pub fn rules_for(&self, user: &str, groups: &[String], namespace: &str) -> (Vec<PolicyRule>, String) {
        let (mut rules, mut absent) = (Vec::new(), Vec::new());
        for grant in self.grants(user, groups, namespace) {
            match self.rules_of(&grant.binding.role, &grant.binding.namespace) {
                Some(held) => rules.extend_from_slice(&held),
                None => note_absent(&mut absent, &grant.binding.role),
            }
        }
        (rules, shown_absent(&absent))
    }
}

fn note_absent(absent: &mut Vec<String>, role: &RoleRef) {
    let text = format!("{}.rbac.authorization.k8s.io {:?} not found", role.kind().to_lowercase(), role.name);
    if !absent.contains(&text) {
        absent.push(text);
    }
}

/// As upstream shows a list of errors: one bare, several in brackets.
fn shown_absent(absent: &[String]) -> String {
    match absent {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verb: &str, resource: &str) -> PolicyRule {
        PolicyRule {
            verbs: vec![verb.into()],
            api_groups: vec![String::new()],
            resources: vec![resource.into()],
            ..PolicyRule::default()
        }
    }
    fn binding(namespace: &str, name: &str, cluster: bool, role: &str, subjects: Vec<Subject>) -> Binding {
        Binding {
            namespace: namespace.into(),
            name: name.into(),
            role: RoleRef { cluster, name: role.into() },
            subjects,
        }
    }
    fn get<'a>(resource: &'a str) -> Ask<'a> {
        Ask::Resource { verb: "get", group: "", resource, subresource: "", name: "" }
    }

    #[test]
    fn bindings_reach_users_groups_and_service_accounts_in_their_namespace() {
        let mut index = Index::default();
        index.put_role("", "reader", vec![rule("get", "pods")]);
        index.put_role("a", "local", vec![rule("get", "secrets")]);
        index.put_binding(binding("", "everyone", true, "reader", vec![Subject::Group("g".into())]));
        let account = Subject::ServiceAccount { namespace: "a".into(), name: "sa".into() };
        index.put_binding(binding("a", "own", false, "local", vec![account]));
        let groups = ["g".to_owned()];
        assert_eq!(
            index.decide("u", &groups, "", get("pods")),
            Verdict::Allowed(
                "RBAC: allowed by ClusterRoleBinding \"everyone\" of ClusterRole \"reader\" to Group \"g\"".into()
            )
        );
        assert_eq!(
            index.decide("system:serviceaccount:a:sa", &[], "a", get("secrets")),
            Verdict::Allowed(
                "RBAC: allowed by RoleBinding \"own/a\" of Role \"local\" to ServiceAccount \"sa/a\"".into()
            )
        );
        assert_eq!(
            index.decide("system:serviceaccount:a:sa", &[], "b", get("secrets")),
            Verdict::NoOpinion(String::new())
        );
        index.remove_binding("a", "own");
        assert_eq!(
            index.decide("system:serviceaccount:a:sa", &[], "a", get("secrets")),
            Verdict::NoOpinion(String::new())
        );
        assert!(index.namespaces.is_empty());
    }

    #[test]
    fn a_changed_binding_leaves_nothing_of_the_old_behind() {
        let mut index = Index::default();
        index.put_role("", "reader", vec![rule("get", "pods")]);
        index.put_binding(binding("", "b", true, "reader", vec![Subject::User("x".into()), Subject::User("y".into())]));
        index.put_binding(binding("", "b", true, "reader", vec![Subject::User("y".into())]));
        assert!(matches!(index.decide("x", &[], "", get("pods")), Verdict::NoOpinion(_)));
        assert!(matches!(index.decide("y", &[], "", get("pods")), Verdict::Allowed(_)));
        assert!(!index.cluster.users.contains_key("x"));
    }

    #[test]
    fn roles_that_do_not_exist_are_named_as_the_reason() {
        let mut index = Index::default();
        index.put_binding(binding("", "b", true, "gone", vec![Subject::User("x".into())]));
        assert_eq!(
            index.decide("x", &[], "", get("pods")),
            Verdict::NoOpinion("RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found".into())
        );
    }
}
