//! The priority levels and flow schemas that upstream makes: those without which no request has a place, and those it suggests.

use super::objects::{list, named};
use super::{Keep, Wanted};
use api::features::parse_bool;
use schema::{Map, Value};

pub(super) const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const LEVELS: &str = "prioritylevelconfigurations";
/// The resources of all these.
pub(super) const PLURALS: [&str; 2] = [LEVELS, "flowschemas"];
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Queues, hand size, queue length limit.
type Queuing = (i64, i64, i64);

/// Name, shares, percentage that may be lent, and how requests wait (`None`: they are refused).
const LIMITED: &[(&str, i64, i64, Option<Queuing>)] = &[
    ("catch-all", 5, 0, None),
    ("system", 30, 33, Some((64, 6, 50))),
    ("node-high", 40, 25, Some((64, 6, 50))),
    ("leader-election", 10, 0, Some((16, 4, 50))),
    ("workload-high", 40, 50, Some((128, 6, 50))),
    ("workload-low", 100, 90, Some((128, 6, 50))),
    ("global-default", 20, 50, Some((128, 6, 50))),
];

#[derive(Clone, Copy)]
enum Subject {
    Group(&'static str),
    User(&'static str),
    /// Of `kube-system`; `*`: all of them.
    Account(&'static str),
}
use Subject::{Account, Group, User};

/// What a schema is about.
#[derive(Clone, Copy)]
enum Rules {
    Everything,
    /// Verbs, group, resources, whether objects outside of namespaces too; in every namespace.
    Resources(&'static [(&'static [&'static str], &'static str, &'static [&'static str], bool)]),
    /// Verbs, paths.
    Paths(&'static [&'static str], &'static [&'static str]),
}
use Rules::{Everything, Paths, Resources};

struct Row {
    name: &'static str,
    level: &'static str,
    precedence: i64,
    by_user: bool,
    subjects: &'static [Subject],
    rules: Rules,
}

const fn row(
    name: &'static str,
    level: &'static str,
    precedence: i64,
    subjects: &'static [Subject],
    rules: Rules,
) -> Row {
    Row { name, level, precedence, by_user: true, subjects, rules }
}

const MANAGER: Subject = User("system:kube-controller-manager");
const SCHEDULER: Subject = User("system:kube-scheduler");
const NODES: Subject = Group("system:nodes");
const EVERYBODY: &[Subject] = &[Group("system:unauthenticated"), Group("system:authenticated")];
const LEADS: &[&str] = &["get", "create", "update"];
const LEASES: &str = "coordination.k8s.io";

#[rustfmt::skip]
const SCHEMAS: &[Row] = &[
    Row { by_user: false, ..row("exempt", "exempt", 1, &[Group("system:masters")], Everything) },
    Row { by_user: false, ..row("probes", "exempt", 2, EVERYBODY, Paths(&["get"], &["/healthz", "/readyz", "/livez"])) },
    row("system-leader-election", "leader-election", 100, &[MANAGER, SCHEDULER, Account("*")],
        Resources(&[(LEADS, LEASES, &["leases"], false)])),
    row("endpoint-controller", "workload-high", 150,
        &[MANAGER, Account("endpoint-controller"), Account("endpointslicemirroring-controller")],
        Resources(&[(LEADS, "", &["endpoints"], false)])),
    row("workload-leader-election", "leader-election", 200, &[Account("*")],
        Resources(&[(LEADS, "", &["endpoints", "configmaps"], false), (LEADS, LEASES, &["leases"], false)])),
    row("system-node-high", "node-high", 400, &[NODES],
        Resources(&[(&["*"], "", &["nodes", "nodes/status"], true), (&["*"], LEASES, &["leases"], false)])),
    row("system-nodes", "system", 500, &[NODES], Everything),
    row("kube-controller-manager", "workload-high", 800, &[MANAGER], Everything),
    row("kube-scheduler", "workload-high", 800, &[SCHEDULER], Everything),
    row("kube-system-service-accounts", "workload-high", 900, &[Account("*")], Everything),
    row("service-accounts", "workload-low", 9000, &[Group("system:serviceaccounts")], Everything),
    row("global-default", "global-default", 9900, EVERYBODY, Everything),
    row("catch-all", "catch-all", 10_000, EVERYBODY, Everything),
];

/// The levels and schemas without which nothing would be handled.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

fn wanted(plural: &'static str, name: &str, spec: Map) -> Wanted {
    let mut object = named(name);
    object.set_at(&["metadata", "annotations", AUTOUPDATE], "true");
    object.set_at(&["metadata", "generation"], 1);
    object.insert("spec", spec);
    Wanted::new(
        GROUP,
        "v1",
        plural,
        object,
        Keep::Marked { annotation: AUTOUPDATE, mandatory: MANDATORY.contains(&name) },
    )
}

fn limited(shares: i64, lendable: i64, queuing: Option<Queuing>) -> Map {
    let mut spec = Map::new();
    spec.insert("type", "Limited");
    spec.set_at(&["limited", "nominalConcurrencyShares"], shares);
    spec.set_at(&["limited", "lendablePercent"], lendable);
    match queuing {
        None => spec.set_at(&["limited", "limitResponse", "type"], "Reject"),
        Some((queues, hand, length)) => {
            spec.set_at(&["limited", "limitResponse", "type"], "Queue");
            let at = |field| ["limited", "limitResponse", "queuing", field];
            spec.set_at(&at("queues"), queues);
            spec.set_at(&at("handSize"), hand);
            spec.set_at(&at("queueLengthLimit"), length);
        }
    }
    spec
}

fn subject(subject: Subject) -> Value {
    let mut map = Map::new();
    match subject {
        Group(name) => {
            map.insert("kind", "Group");
            map.set_at(&["group", "name"], name);
        }
        User(name) => {
            map.insert("kind", "User");
            map.set_at(&["user", "name"], name);
        }
        Account(name) => {
            map.insert("kind", "ServiceAccount");
            map.set_at(&["serviceAccount", "name"], name);
            map.set_at(&["serviceAccount", "namespace"], "kube-system");
        }
    }
    Value::Map(map)
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = Map::new();
    rule.insert("verbs", list(verbs.iter().copied()));
    rule.insert("apiGroups", list([group]));
    rule.insert("resources", list(resources.iter().copied()));
    if cluster {
        rule.insert("clusterScope", true);
    }
    rule.insert("namespaces", list(["*"]));
    Value::Map(rule)
}

fn paths(verbs: &[&str], paths: &[&str]) -> Value {
    let mut rule = Map::new();
    rule.insert("verbs", list(verbs.iter().copied()));
    rule.insert("nonResourceURLs", list(paths.iter().copied()));
    Value::Map(rule)
}

fn flow_schema(row: &Row) -> Wanted {
    let mut spec = Map::new();
    spec.set_at(&["priorityLevelConfiguration", "name"], row.level);
    spec.insert("matchingPrecedence", row.precedence);
    if row.by_user {
        spec.set_at(&["distinguisherMethod", "type"], "ByUser");
    }
    let mut rule = Map::new();
    rule.insert("subjects", row.subjects.iter().map(|s| subject(*s)).collect::<Vec<_>>());
    match row.rules {
        Everything => {
            rule.insert("resourceRules", vec![resources(&["*"], "*", &["*"], true)]);
            rule.insert("nonResourceRules", vec![paths(&["*"], &["*"])]);
        }
        Resources(rows) => {
            let rules = rows.iter().map(|(verbs, group, of, cluster)| resources(verbs, group, of, *cluster));
            rule.insert("resourceRules", rules.collect::<Vec<_>>());
        }
        Paths(verbs, of) => {
            rule.insert("nonResourceRules", vec![paths(verbs, of)]);
        }
    }
    spec.insert("rules", vec![Value::Map(rule)]);
    wanted("flowschemas", row.name, spec)
}

/// All of them.
pub(super) fn flow_control() -> Vec<Wanted> {
    let mut exempt = Map::new();
    exempt.insert("type", "Exempt");
    exempt.set_at(&["exempt", "nominalConcurrencyShares"], 0);
    exempt.set_at(&["exempt", "lendablePercent"], 0);
    let mut all = vec![wanted(LEVELS, "exempt", exempt)];
    all.extend(
        LIMITED
            .iter()
            .map(|(name, shares, lendable, queuing)| wanted(LEVELS, name, limited(*shares, *lendable, *queuing))),
    );
    all.extend(SCHEMAS.iter().map(flow_schema));
    all
}

/// The objects of a resource without which nothing would be handled, as they are when nobody has changed them.
pub(crate) fn mandatory(plural: &str) -> Vec<Map> {
    let own = |one: &Wanted| one.plural == plural && matches!(one.keep, Keep::Marked { mandatory: true, .. });
    flow_control().into_iter().filter(own).map(|one| one.object).collect()
}

/// Whether an object was made by a server of another version, and none of this one needs it.
pub(super) fn is_superfluous(plural: &str, object: &Map) -> bool {
    let name = object.str_at(&["metadata", "name"]);
    let marked = parse_bool(object.str_at(&["metadata", "annotations", AUTOUPDATE])) == Some(true);
    let own = match plural {
        LEVELS => name == MANDATORY[0] || LIMITED.iter().any(|(level, ..)| *level == name),
        _ => SCHEMAS.iter().any(|row| row.name == name),
    };
    marked && !own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_keep_to_the_rules_of_their_kinds_and_name_levels_that_exist() {
        let all = flow_control();
        let level = |name: &str| LIMITED.iter().any(|(level, ..)| *level == name) || name == "exempt";
        assert!(SCHEMAS.iter().all(|row| level(row.level)));
        for one in &all {
            let row = one.row().expect("served");
            let mut object = one.object.clone();
            let text = schema::json::to_string(&object);
            let decoded = schema::json::decode(row.schema.root(), text.as_bytes()).expect("an object");
            assert!(decoded.problems.is_empty(), "{text}: {:?}", decoded.problems);
            schema::defaults::apply(row.schema.root(), &mut object);
            let errors =
                schema::validation::create(&row.group, &row.kind, &object, schema::validation::Features::default());
            assert!(errors.is_empty(), "{text}: {errors:?}");
        }
    }
}
