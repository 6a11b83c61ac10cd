//! The default roles and bindings: the table, read into objects, and what reconciling an existing object would change.

use crate::authz::rbac::rule::{self, PolicyRule};
use api::features::Gates;
use schema::{Map, Value};
use std::collections::BTreeMap;

const TABLE: &str = include_str!("rbac.table");
const API_GROUP: &str = "rbac.authorization.k8s.io";
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";
/// While it is `true` the server adds what an object lacks of its default; a person who wants to keep it as it is says `false`.
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// An object that is there from the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Default {
    /// The plural that it is stored under, in the group of RBAC.
    pub resource: &'static str,
    /// Empty for objects of the cluster.
    pub namespace: String,
    pub name: String,
    pub object: Map,
}

/// Every default role and binding under these gates, roles before the bindings that refer to them.
pub fn defaults(gates: &Gates) -> Vec<Default> {
    read(TABLE, gates)
}

struct Role<'a> {
    cluster: bool,
    namespace: &'a str,
    name: &'a str,
    into: Vec<&'a str>,
    of: Option<&'a str>,
    rules: Vec<PolicyRule>,
}

/// Reads the table. It is part of the program and a test reads all of it, so a word out of place is not an input error.
fn read(table: &str, gates: &Gates) -> Vec<Default> {
    let (mut roles, mut bindings): (Vec<Role<'_>>, Vec<Default>) = (Vec::new(), Vec::new());
    // A role whose gate is off has neither rules nor bindings.
    let mut off = false;
    for line in table.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let mut words = line.split_whitespace();
        let mut first = words.next().unwrap_or_default();
        if line.starts_with(' ') {
            let closed = first.strip_prefix("if:").map(|gate| {
                first = words.next().unwrap_or_default();
                !gates.enabled(gate)
            });
            if off || closed == Some(true) {
                continue;
            }
        }
        match (line.starts_with(' '), first, roles.last_mut()) {
            (false, kind, _) => {
                let place = words.next().unwrap_or_default();
                let cluster = kind == "ClusterRole";
                let (namespace, name) =
                    if cluster { ("", place) } else { place.split_once('/').unwrap_or(("", place)) };
                let mut closed = false;
                let mut role = Role { cluster, namespace, name, into: Vec::new(), of: None, rules: Vec::new() };
                for mark in words {
                    match mark.split_once(':') {
                        Some(("into", target)) => role.into.push(target),
                        Some(("of", gathered)) => role.of = Some(gathered),
                        Some(("if", gate)) => closed = !gates.enabled(gate),
                        _ => unreachable!("unknown mark {mark:?} in the table of default roles"),
                    }
                }
                off = closed;
                if !off {
                    roles.push(role);
                }
            }
            (true, "<", Some(role)) => bindings.push(binding(role, words)),
            (true, verbs, Some(role)) => role.rules.push(read_rule(verbs, words)),
            (true, _, None) => unreachable!("the table of default roles begins with a rule"),
        }
    }
    let gathered = gather(&roles);
    let mut all: Vec<Default> = roles.iter().map(|r| role_object(r, &gathered)).collect();
    all.extend(bindings);
    all
}

fn read_rule<'a>(verbs: &str, mut words: impl Iterator<Item = &'a str>) -> PolicyRule {
    let split = |list: &str| list.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut rule = PolicyRule { verbs: split(verbs), ..PolicyRule::default() };
    let groups = words.next().unwrap_or_default();
    if groups == "url" {
        rule.non_resource_urls = words.map(str::to_owned).collect();
        return rule;
    }
    rule.api_groups = groups.split(',').map(|g| if g == "core" { String::new() } else { g.to_owned() }).collect();
    for word in words {
        match word.strip_prefix('=') {
            Some(names) => rule.resource_names = split(names),
            None => rule.resources.push(word.to_owned()),
        }
    }
    rule
}

/// The rules of the aggregated roles, as their controller would gather them: by name of the source, each rule once.
fn gather(roles: &[Role<'_>]) -> BTreeMap<String, Vec<PolicyRule>> {
    // A source may itself be aggregated (view into edit into admin), so repeat until nothing is added.
    let mut gathered: BTreeMap<String, Vec<PolicyRule>> = BTreeMap::new();
    loop {
        let mut changed = false;
        for target in roles.iter().filter_map(|r| r.of.map(|of| (r.name, of))) {
            let (name, mark) = target;
            let mut sources: Vec<&Role<'_>> = roles.iter().filter(|r| r.into.contains(&mark)).collect();
            sources.sort_by_key(|r| r.name);
            let mut rules: Vec<PolicyRule> = Vec::new();
            for source in sources {
                let own = if source.of.is_some() {
                    gathered.get(source.name).map(Vec::as_slice)
                } else {
                    Some(&*source.rules)
                };
                for rule in own.unwrap_or_default() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
            if gathered.get(name) != Some(&rules) {
                gathered.insert(name.to_owned(), rules);
                changed = true;
            }
        }
        if !changed {
            return gathered;
        }
    }
}

fn base(kind: &'static str, namespace: &str, name: &str) -> Map {
    let mut object = Map::new();
    object.insert("apiVersion", API_VERSION);
    object.insert("kind", kind);
    object.set_at(&["metadata", "name"], name);
    if !namespace.is_empty() {
        object.set_at(&["metadata", "namespace"], namespace);
    }
    object.set_at(&["metadata", "labels", "kubernetes.io/bootstrapping"], "rbac-defaults");
    object.set_at(&["metadata", "annotations", AUTO_UPDATE], "true");
    object
}

fn role_object(role: &Role<'_>, gathered: &BTreeMap<String, Vec<PolicyRule>>) -> Default {
    let mut object = base(if role.cluster { "ClusterRole" } else { "Role" }, role.namespace, role.name);
    if let Some(labels) = object.at_mut(&["metadata", "labels"]).and_then(Value::as_map_mut) {
        for target in &role.into {
            labels.insert(format!("{AGGREGATE}{target}"), "true");
        }
    }
    let rules = match role.of {
        None => &role.rules,
        Some(mark) => {
            let mut labels = Map::new();
            labels.insert(format!("{AGGREGATE}{mark}"), "true");
            let mut selector = Map::new();
            selector.insert("matchLabels", labels);
            object.set_at(&["aggregationRule", "clusterRoleSelectors"], vec![Value::Map(selector)]);
            gathered.get(role.name).unwrap_or(&role.rules)
        }
    };
    object.insert("rules", rules.iter().map(|r| Value::Map(r.to_map())).collect::<Vec<_>>());
    Default {
        resource: if role.cluster { "clusterroles" } else { "roles" },
        namespace: role.namespace.to_owned(),
        name: role.name.to_owned(),
        object,
    }
}

fn binding<'a>(role: &Role<'_>, words: impl Iterator<Item = &'a str>) -> Default {
    let (mut name, mut subjects) = (role.name, Vec::new());
    for word in words {
        let (kind, rest) = word.split_once(':').unwrap_or((word, ""));
        let mut subject = Map::new();
        match kind {
            "as" => {
                name = rest;
                continue;
            }
            "sa" => {
                let (namespace, account) = rest.split_once('/').unwrap_or(("", rest));
                subject.insert("kind", "ServiceAccount");
                subject.insert("namespace", namespace);
                subject.insert("name", account);
            }
            "user" | "group" => {
                subject.insert("apiGroup", API_GROUP);
                subject.insert("kind", if kind == "user" { "User" } else { "Group" });
                subject.insert("name", rest);
            }
            _ => unreachable!("unknown subject {word:?} in the table of default roles"),
        }
        subjects.push(Value::Map(subject));
    }
    let mut object = base(if role.cluster { "ClusterRoleBinding" } else { "RoleBinding" }, role.namespace, name);
    object.set_at(&["roleRef", "apiGroup"], API_GROUP);
    object.set_at(&["roleRef", "kind"], if role.cluster { "ClusterRole" } else { "Role" });
    object.set_at(&["roleRef", "name"], role.name);
    if !subjects.is_empty() {
        object.insert("subjects", subjects);
    }
    Default {
        resource: if role.cluster { "clusterrolebindings" } else { "rolebindings" },
        namespace: role.namespace.to_owned(),
        name: name.to_owned(),
        object,
    }
}

/// What an existing object needs to have all of its default.
#[derive(Debug, PartialEq)]
pub enum Change {
    /// It has everything, or its owner asked that it be left alone.
    Keep,
    Update(Map),
    /// A binding that refers to another role: `roleRef` cannot be changed, so it is deleted and made anew.
    Recreate(Map),
}

/// Compares an existing role or binding with its default. Permissions and subjects are added, never taken away.
pub fn reconcile(existing: &Map, default: &Map) -> Change {
    if existing.str_at(&["metadata", "annotations", AUTO_UPDATE]) != "true" {
        return Change::Keep;
    }
    if existing.get("roleRef") != default.get("roleRef") {
        return Change::Recreate(default.clone());
    }
    if has_all(existing, default) {
        return Change::Keep;
    }
    let mut wanted = existing.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in default.at(&["metadata", field]).and_then(Value::as_map).into_iter().flat_map(Map::iter) {
            let map = wanted.entry("metadata", || Map::new().into());
            let map = map.as_map_mut().map(|m| m.entry(field, || Map::new().into()));
            if let Some(map) = map.and_then(Value::as_map_mut)
                && !map.contains_key(key)
            {
                map.insert(key.to_owned(), value.clone());
            }
        }
    }
    if default.contains_key("aggregationRule") {
        // The rules of an aggregated role belong to its controller; only what it gathers is a default.
        add_missing(&mut wanted, default, &["aggregationRule", "clusterRoleSelectors"]);
    } else {
        let (held, needed) = (PolicyRule::list_of(existing), PolicyRule::list_of(default));
        let missing = rule::missing(&held, &needed);
        if !missing.is_empty() {
            let added = rule::compacted(missing).into_iter().map(|r| Value::Map(r.to_map()));
            if let Some(list) = wanted.entry("rules", || Vec::new().into()).as_list_mut() {
                list.extend(added);
            }
        }
    }
    add_missing(&mut wanted, default, &["subjects"]);
    if wanted == *existing { Change::Keep } else { Change::Update(wanted) }
}

/// Whether an object plainly has what its default has: almost always so, and told without taking rules apart.
fn has_all(existing: &Map, default: &Map) -> bool {
    let aggregated = default.contains_key("aggregationRule");
    let same = |key: &str| existing.get(key) == default.get(key);
    let marked = ["labels", "annotations"].into_iter().all(|field| {
        let marks = default.at(&["metadata", field]).and_then(Value::as_map).into_iter().flat_map(Map::iter);
        let own = existing.at(&["metadata", field]).and_then(Value::as_map);
        marks.into_iter().all(|(key, _)| own.is_some_and(|own| own.contains_key(key)))
    });
    marked && same("subjects") && same("aggregationRule") && (aggregated || same("rules"))
}

/// Adds the items of a list that the object lacks.
fn add_missing(object: &mut Map, default: &Map, path: &[&'static str]) {
    let Some(wanted) = default.at(path).and_then(Value::as_list) else { return };
    let mut list = object.at(path).and_then(Value::as_list).unwrap_or_default().to_vec();
    let before = list.len();
    for item in wanted {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
    if list.len() > before {
        object.set_at(path, list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::features::Asked;
    use rule::Ask;

    fn find(resource: &str, name: &str) -> Default {
        usual().into_iter().find(|d| d.resource == resource && d.name == name).expect("a default")
    }

    fn usual() -> Vec<Default> {
        defaults(&Gates::default())
    }

    /// The value as JSON, its keys sorted.
    fn json(value: &Value) -> String {
        match value {
            Value::List(list) => format!("[{}]", list.iter().map(json).collect::<Vec<_>>().join(",")),
            Value::Map(map) => {
                let members: Vec<String> = map.iter().map(|(k, v)| format!("{k:?}:{}", json(v))).collect();
                format!("{{{}}}", members.join(","))
            }
            Value::Str(s) => format!("{:?}", s.as_str()),
            other => unreachable!("no default has {other:?}"),
        }
    }

    /// Each default as a line of JSON, in order; the rules of aggregated roles are left out, as upstream has none there.
    fn canonical() -> String {
        let mut lines: Vec<String> = Vec::new();
        for d in usual() {
            let mut object = d.object.clone();
            if object.contains_key("aggregationRule") {
                object.remove("rules");
            }
            lines.push(json(&Value::Map(object)));
        }
        lines.sort();
        lines.join("\n")
    }

    #[test]
    fn the_table_has_every_default_of_upstream() {
        let count = |resource| usual().iter().filter(|d| d.resource == resource).count();
        let counts = ["clusterroles", "clusterrolebindings", "roles", "rolebindings"].map(count);
        assert_eq!(counts, [70, 50, 7, 7], "{counts:?}");
        let digest = ring::digest::digest(&ring::digest::SHA256, canonical().as_bytes());
        let hex: String = digest.as_ref().iter().take(8).map(|b| format!("{b:02x}")).collect();
        // Compared member by member with the roles of Kubernetes 1.36 when it was written down.
        assert_eq!(
            hex, "895a5951a17dfa77",
            "the default roles have changed: compare them with upstream's, then write down the new digest"
        );
    }

    #[test]
    fn aggregated_roles_have_their_rules_from_the_start() {
        let rules = |name| PolicyRule::list_of(&find("clusterroles", name).object);
        let (view, edit, admin) = (rules("view"), rules("edit"), rules("admin"));
        assert!(!view.is_empty() && view.len() < edit.len() && edit.len() < admin.len());
        assert!(rule::missing(&edit, &view).is_empty(), "edit can do all that view can");
        assert!(rule::missing(&admin, &edit).is_empty(), "admin can do all that edit can");
    }

    #[test]
    fn some_rules_come_with_their_gates() {
        let asked: Asked = "PodCertificateRequest=true,GenericWorkload=true".parse().expect("gates");
        let all = defaults(&asked.gates().expect("gates").0);
        let allows = |all: &[Default], role: &str, verb: &str, group: &str, resource: &str| {
            let role = all.iter().find(|d| d.resource == "clusterroles" && d.name == role);
            let ask = Ask::Resource { verb, group, resource, subresource: "", name: "" };
            role.is_some_and(|d| PolicyRule::list_of(&d.object).iter().any(|rule| rule.allows(ask)))
        };
        for (role, verb, group, resource) in [
            ("system:node", "create", "certificates.k8s.io", "podcertificaterequests"),
            ("system:kube-scheduler", "watch", "scheduling.k8s.io", "podgroups"),
            ("system:controller:podgroup-protection-controller", "update", "scheduling.k8s.io", "podgroups"),
            (
                "system:controller:podcertificaterequestcleaner",
                "delete",
                "certificates.k8s.io",
                "podcertificaterequests",
            ),
        ] {
            assert!(allows(&all, role, verb, group, resource), "{role}");
            assert!(!allows(&usual(), role, verb, group, resource), "{role}");
        }
        let bound = |all: &[Default]| all.iter().filter(|d| d.name.ends_with("podcertificaterequestcleaner")).count();
        assert_eq!((bound(&all), bound(&usual())), (2, 0));
    }

    #[test]
    fn an_unchanged_default_needs_no_write() {
        for d in usual() {
            assert_eq!(reconcile(&d.object, &d.object), Change::Keep, "{}", d.name);
        }
    }

    #[test]
    fn what_was_taken_away_is_added_and_what_was_added_stays() {
        let default = &find("clusterroles", "system:kube-dns").object;
        let mut existing = default.clone();
        let own =
            PolicyRule { verbs: vec!["get".into()], non_resource_urls: vec!["/own".into()], ..PolicyRule::default() };
        existing.insert("rules", vec![Value::Map(own.to_map())]);
        let Change::Update(updated) = reconcile(&existing, default) else { panic!("an update") };
        let rules = PolicyRule::list_of(&updated);
        assert!(rules.contains(&own));
        assert!(rule::missing(&rules, &PolicyRule::list_of(default)).is_empty());
        existing.set_at(&["metadata", "annotations", AUTO_UPDATE], "false");
        assert_eq!(reconcile(&existing, default), Change::Keep);
    }

    #[test]
    fn a_binding_to_another_role_is_made_anew() {
        let default = &find("clusterrolebindings", "system:basic-user").object;
        let mut existing = default.clone();
        existing.set_at(&["roleRef", "name"], "cluster-admin");
        assert_eq!(reconcile(&existing, default), Change::Recreate(default.clone()));
    }
}
