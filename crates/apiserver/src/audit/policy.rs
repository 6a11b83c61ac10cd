//! Which requests are recorded, and how much of them (`audit.k8s.io/v1` `Policy`).

use crate::request::RequestInfo;
use crate::user::UserInfo;
use api::FieldError;
use api::field::{Path, Raw, aggregate, go_quote};
use api::names::dns1123_subdomain;
use schema::{Map, Value};
use thiserror::Error;

const LEVELS: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];
/// What may be left out.
const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];

/// How much is recorded; each includes what the ones before it say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
    fn parse(text: &str) -> Option<Self> {
        [Level::None, Level::Metadata, Level::Request, Level::RequestResponse].into_iter().find(|l| l.as_str() == text)
    }
    /// The level that a rule names, if there is one of that name.
    fn of(rule: &Map, path: &Path<'_>) -> Result<Self, FieldError> {
        match rule.str_at(&["level"]) {
            "" => Err(FieldError::required(path, "")),
            text => Level::parse(text).ok_or_else(|| FieldError::not_supported(path, text, &LEVELS)),
        }
    }
}

/// When in a request's life something is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum PolicyError {
    #[error("the audit policy is not YAML: {0}")]
    Yaml(String),
    #[error("the audit policy must have apiVersion audit.k8s.io/v1 and kind Policy, not {0:?}")]
    Kind(String),
    #[error("loaded illegal policy with 0 rules")]
    NoRules,
    /// A field has another type than its kind says: without it a rule would say more than it is meant to.
    #[error("failed decoding: json: cannot unmarshal {found} into Go struct field {field} of type {wanted}")]
    Type { found: &'static str, field: String, wanted: &'static str },
    /// Everything that is wrong with the rules.
    #[error("{0}")]
    Invalid(String),
}

#[derive(Clone, Debug, Default)]
struct Rule {
    level: Level,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    namespaces: Vec<String>,
    resources: Vec<ResourceRule>,
    paths: Vec<String>,
    omit: Vec<String>,
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default)]
struct ResourceRule {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

/// A policy: the first rule that fits decides.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    omit: Vec<String>,
    omit_managed_fields: bool,
}

/// What the policy says of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    /// Names of stages that are left out.
    pub omit: Vec<String>,
    pub omit_managed_fields: bool,
}

fn list<'a>(map: &'a Map, key: &str) -> &'a [Value] {
    map.get(key).and_then(Value::as_list).unwrap_or_default()
}

/// The strings of a list, whose types are checked. `null` is an empty one, as to Go: were it passed over, a list of nothing else
/// would be empty, and its rule would fit everybody.
fn strings(map: &Map, key: &str) -> Vec<String> {
    list(map, key).iter().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
}

/// The structs of a list, whose types are checked. `null` is one that says nothing, as to Go.
fn structs(map: &Map, key: &str) -> Vec<Map> {
    list(map, key).iter().map(|item| item.as_map().cloned().unwrap_or_default()).collect()
}

/// What is wrong with the stages that are left out.
fn check_stages(omitted: &[String], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (i, stage) in omitted.iter().enumerate().filter(|(_, stage)| !STAGES.contains(&stage.as_str())) {
        let why = format!("allowed stages are {}", STAGES.join(","));
        errors.push(FieldError::invalid(&path.index(i), stage, why));
    }
}

fn shown(list: &[String]) -> Raw {
    Raw(format!("[{}]", list.iter().map(|text| go_quote(text)).collect::<Vec<_>>().join(",")))
}

/// What is wrong with a rule but for its level.
fn check_rule(rule: &Rule, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let urls = path.child("nonResourceURLs");
    for (i, url) in rule.paths.iter().enumerate().filter(|(_, url)| *url != "*") {
        if !url.starts_with('/') {
            let why = "non-resource URL rules must begin with a '/' character";
            errors.push(FieldError::invalid(&urls.index(i), url, why));
        }
        if url.find('*').is_some_and(|at| at + 1 < url.len()) {
            let why = "non-resource URL wildcards '*' must be the final character of the rule";
            errors.push(FieldError::invalid(&urls.index(i), url, why));
        }
    }
    let resources = path.child("resources");
    for resource in &rule.resources {
        let wrong = if resource.group.is_empty() { Vec::new() } else { dns1123_subdomain(&resource.group) };
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(&resources.child("group"), &resource.group, wrong.join(",")));
        }
        if !resource.names.is_empty() && resource.resources.is_empty() {
            let why = "using resourceNames requires at least one resource";
            errors.push(FieldError::invalid(&resources.child("resourceNames"), shown(&resource.names), why));
        }
    }
    check_stages(&rule.omit, &path.child("omitStages"), errors);
    let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
    if of_resources && !rule.paths.is_empty() {
        let why = "rules cannot apply to both regular resources and non-resource URLs";
        errors.push(FieldError::invalid(&urls, shown(&rule.paths), why));
    }
}

/// The fields of a struct: name, and Go's type.
type Fields = &'static [(&'static str, &'static str)];

const POLICY_FIELDS: Fields = &[
    ("apiVersion", "string"),
    ("kind", "string"),
    ("metadata", "v1.ObjectMeta"),
    ("rules", "[]v1.PolicyRule"),
    ("omitStages", "[]v1.Stage"),
    ("omitManagedFields", "bool"),
];
const RULE_FIELDS: Fields = &[
    ("level", "v1.Level"),
    ("users", "[]string"),
    ("userGroups", "[]string"),
    ("verbs", "[]string"),
    ("resources", "[]v1.GroupResources"),
    ("namespaces", "[]string"),
    ("nonResourceURLs", "[]string"),
    ("omitStages", "[]v1.Stage"),
    ("omitManagedFields", "bool"),
];
const RESOURCE_FIELDS: Fields = &[("group", "string"), ("resources", "[]string"), ("resourceNames", "[]string")];

fn found(value: &Value) -> &'static str {
    match value {
        Value::Map(_) => "object",
        Value::List(_) => "array",
        Value::Bool(_) => "bool",
        value if value.as_str().is_some() => "string",
        _ => "number",
    }
}

/// Whether every known field has its type; names that no field has go to `unknown`.
fn check_types(
    object: &Map,
    name: &str,
    (fields, of): (Fields, &str),
    unknown: &mut Vec<String>,
) -> Result<(), PolicyError> {
    for (key, value) in object.iter() {
        let path = if of.is_empty() { key.to_owned() } else { format!("{of}.{key}") };
        let Some((_, wanted)) = fields.iter().find(|(field, _)| *field == key) else {
            unknown.push(path);
            continue;
        };
        let is = |value: &Value, wanted: &str| match wanted {
            "bool" => value.as_bool().is_some(),
            "v1.ObjectMeta" | "v1.PolicyRule" | "v1.GroupResources" => value.as_map().is_some(),
            _ => value.as_str().is_some(),
        };
        let (wrong, wanted) = match (wanted.strip_prefix("[]"), value.as_list()) {
            _ if value.is_null() => continue,
            (Some(item), Some(list)) => match list.iter().find(|value| !value.is_null() && !is(value, item)) {
                Some(wrong) => (wrong, item),
                None => continue,
            },
            (None, _) if is(value, wanted) => continue,
            _ => (value, *wanted),
        };
        return Err(PolicyError::Type { found: found(wrong), field: format!("{name}.{path}"), wanted });
    }
    Ok(())
}

/// Checks the types of a whole policy, and gives the names that no field has.
fn check_all_types(policy: &Map) -> Result<Vec<String>, PolicyError> {
    let mut unknown = Vec::new();
    check_types(policy, "Policy", (POLICY_FIELDS, ""), &mut unknown)?;
    for rule in structs(policy, "rules") {
        check_types(&rule, "PolicyRule", (RULE_FIELDS, "rules"), &mut unknown)?;
        for resource in structs(&rule, "resources") {
            check_types(&resource, "GroupResources", (RESOURCE_FIELDS, "rules.resources"), &mut unknown)?;
        }
    }
    Ok(unknown)
}

impl Policy {
    /// Everything, but only who did what: the policy when none is given.
    pub fn metadata() -> Self {
        Policy { rules: vec![Rule { level: Level::Metadata, ..Rule::default() }], ..Policy::default() }
    }

    /// Reads a policy file.
    ///
    /// # Errors
    /// It is no policy, or not a valid one.
    pub fn parse(text: &[u8]) -> Result<Self, PolicyError> {
        let value = schema::yaml::parse(text).map_err(|e| PolicyError::Yaml(e.to_string()))?;
        let empty = Map::new();
        let map = value.as_map().unwrap_or(&empty);
        let (version, kind) = (map.str_at(&["apiVersion"]), map.str_at(&["kind"]));
        if version != "audit.k8s.io/v1" || kind != "Policy" {
            return Err(PolicyError::Kind(format!("{version} {kind}")));
        }
        let unknown = check_all_types(map)?;
        if !unknown.is_empty() {
            tracing::warn!(fields = unknown.join(", "), "the audit policy has unknown fields, which say nothing");
        }
        let flag = |map: &Map, key| map.get(key).and_then(Value::as_bool);
        let omit = strings(map, "omitStages");
        let mut errors = Vec::new();
        check_stages(&omit, &Path::root("omitStages"), &mut errors);
        let omit_managed_fields = flag(map, "omitManagedFields").unwrap_or(false);
        let mut rules = Vec::new();
        for (i, rule) in structs(map, "rules").iter().enumerate() {
            let all = Path::root("rules");
            let path = all.index(i);
            let level = Level::of(rule, &path.child("level")).unwrap_or_else(|error| {
                errors.push(error);
                Level::None
            });
            let resources = structs(rule, "resources").into_iter().map(|r| ResourceRule {
                group: r.str_at(&["group"]).to_owned(),
                resources: strings(&r, "resources"),
                names: strings(&r, "resourceNames"),
            });
            let rule = Rule {
                level,
                users: strings(rule, "users"),
                groups: strings(rule, "userGroups"),
                verbs: strings(rule, "verbs"),
                namespaces: strings(rule, "namespaces"),
                resources: resources.collect(),
                paths: strings(rule, "nonResourceURLs"),
                omit: strings(rule, "omitStages"),
                omit_managed_fields: flag(rule, "omitManagedFields").unwrap_or(omit_managed_fields),
            };
            check_rule(&rule, &path, &mut errors);
            rules.push(rule);
        }
        if !errors.is_empty() {
            return Err(PolicyError::Invalid(aggregate(&errors)));
        }
        if rules.is_empty() {
            return Err(PolicyError::NoRules);
        }
        Ok(Policy { rules, omit, omit_managed_fields })
    }

    /// What to record of a request.
    pub fn verdict(&self, info: &RequestInfo, user: &UserInfo) -> Verdict {
        match self.rules.iter().find(|r| r.fits(info, user)) {
            Some(rule) => {
                let mut omit = self.omit.clone();
                omit.extend(rule.omit.iter().cloned());
                Verdict { level: rule.level, omit, omit_managed_fields: rule.omit_managed_fields }
            }
            None => Verdict { level: Level::None, omit: Vec::new(), omit_managed_fields: self.omit_managed_fields },
        }
    }
}

impl Rule {
    fn fits(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        let listed = |list: &[String], value: &str| list.is_empty() || list.iter().any(|v| v == value);
        let in_groups = self.groups.is_empty() || self.groups.iter().any(|g| user.in_group(g));
        if !listed(&self.users, &user.name) || !in_groups || !listed(&self.verbs, &info.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource
                && listed(&self.namespaces, &info.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.fits(info)));
        }
        if self.paths.is_empty() {
            return true;
        }
        !info.is_resource && self.paths.iter().any(|p| path_fits(p, &info.path))
    }
}

fn path_fits(pattern: &str, path: &str) -> bool {
    pattern == "*" || pattern == path || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

impl ResourceRule {
    fn fits(&self, info: &RequestInfo) -> bool {
        if self.group != info.group {
            return false;
        }
        let combined = match info.subresource.as_str() {
            "" => info.resource.clone(),
            subresource => format!("{}/{subresource}", info.resource),
        };
        let kind = self.resources.is_empty()
            || self.resources.iter().any(|r| {
                r == "*"
                    || *r == combined
                    || !info.subresource.is_empty()
                        && (r.strip_prefix("*/") == Some(&info.subresource)
                            || r.strip_suffix("/*") == Some(&info.resource))
            });
        kind && (self.names.is_empty() || self.names.contains(&info.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &[u8] = br#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: [watch]
- level: None
  nonResourceURLs: ["/healthz*", /version]
- level: Metadata
  resources: [{group: "", resources: [secrets, "pods/*"]}]
- level: RequestResponse
  namespaces: [prod]
- level: Request
  userGroups: [devs]
"#;

    fn level(user: &UserInfo, method: &str, target: &str) -> Level {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let info = RequestInfo::parse(method, path, query).expect("a path");
        Policy::parse(POLICY).expect("a policy").verdict(&info, user).level
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let (dev, other) = (UserInfo::new("jane", ["devs"]), UserInfo::new("joe", ["x"]));
        assert_eq!(level(&UserInfo::new("system:kube-proxy", ["x"]), "GET", "/api/v1/services?watch=1"), Level::None);
        assert_eq!(level(&dev, "GET", "/healthz/ping"), Level::None);
        assert_eq!(level(&dev, "GET", "/api/v1/namespaces/prod/secrets/x"), Level::Metadata);
        assert_eq!(level(&dev, "GET", "/api/v1/namespaces/a/pods/p/log"), Level::Metadata);
        assert_eq!(level(&other, "POST", "/apis/apps/v1/namespaces/prod/deployments"), Level::RequestResponse);
        assert_eq!(level(&dev, "POST", "/apis/apps/v1/namespaces/a/deployments"), Level::Request);
        assert_eq!(level(&other, "GET", "/api/v1/nodes"), Level::None);
    }

    #[test]
    fn what_is_no_policy_is_said() {
        assert_eq!(Policy::parse(b"kind: X").err(), Some(PolicyError::Kind(" X".into())));
        let none = b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []";
        assert_eq!(Policy::parse(none).err(), Some(PolicyError::NoRules));
    }

    fn refused(rest: &str) -> String {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rest}");
        Policy::parse(text.as_bytes()).expect_err(rest).to_string()
    }

    #[test]
    fn rules_are_checked_as_upstream_checks_them() {
        let rule = |rule: &str| refused(&format!("rules: [{{level: None, {rule}}}]"));
        let stages = "allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic";
        assert_eq!(
            refused("rules: [{level: All}, {}]"),
            "[rules[0].level: Unsupported value: \"All\": supported values: \"None\", \"Metadata\", \"Request\", \"RequestResponse\", \
             rules[1].level: Required value]"
        );
        assert_eq!(
            rule("nonResourceURLs: ['*', a, /a*b, /a*]"),
            "[rules[0].nonResourceURLs[1]: Invalid value: \"a\": non-resource URL rules must begin with a '/' character, \
             rules[0].nonResourceURLs[2]: Invalid value: \"/a*b\": non-resource URL wildcards '*' must be the final character of the rule]"
        );
        let both = "rules[0].nonResourceURLs: Invalid value: [\"/a\"]: rules cannot apply to both regular resources and non-resource URLs";
        assert_eq!(rule("nonResourceURLs: [/a], namespaces: [ns]"), both);
        assert_eq!(rule("nonResourceURLs: [/a], resources: [{group: ''}]"), both);
        let group = rule("resources: [{group: apps/v1}]");
        assert!(
            group.starts_with(
                "rules[0].resources.group: Invalid value: \"apps/v1\": a lowercase RFC 1123 subdomain must"
            ),
            "{group}"
        );
        assert_eq!(
            rule("resources: [{resourceNames: [a]}]"),
            "rules[0].resources.resourceNames: Invalid value: [\"a\"]: using resourceNames requires at least one resource"
        );
        assert_eq!(rule("omitStages: [Bar]"), format!("rules[0].omitStages[0]: Invalid value: \"Bar\": {stages}"));
        assert_eq!(refused("omitStages: [Bar]"), format!("omitStages[0]: Invalid value: \"Bar\": {stages}"));
    }

    #[test]
    fn what_has_another_type_is_not_passed_over() {
        let of = |found: &str, field: &str, wanted: &str| {
            format!("failed decoding: json: cannot unmarshal {found} into Go struct field {field} of type {wanted}")
        };
        assert_eq!(refused("rules: [{level: None, users: jane}]"), of("string", "PolicyRule.rules.users", "[]string"));
        assert_eq!(refused("rules: {}"), of("object", "Policy.rules", "[]v1.PolicyRule"));
        assert_eq!(
            refused("rules: [{level: None, resources: [{resources: [1]}]}]"),
            of("number", "GroupResources.rules.resources.resources", "string")
        );
        let unknown = b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, foo: 1, verbs: null}]";
        assert!(Policy::parse(unknown).is_ok());
    }

    #[test]
    fn null_in_a_list_fits_nobody_and_not_everybody() {
        let of = |rules: &str| {
            let text = format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{rules}, {{level: Metadata}}]}}");
            Policy::parse(text.as_bytes()).expect(rules)
        };
        let jane = UserInfo::new("jane", ["devs"]);
        let level = |policy: &Policy, target: &str| {
            let info = RequestInfo::parse("GET", target, "").expect("a path");
            policy.verdict(&info, &jane).level
        };
        let pods = "/api/v1/namespaces/a/pods";
        for rule in [
            "users: [~]",
            "userGroups: [null]",
            "verbs: [~]",
            "namespaces: [~]",
            "resources: [{resources: [~]}]",
            "resources: [{resources: [pods], resourceNames: [~]}]",
        ] {
            let policy = of(&format!("{{level: None, {rule}}}"));
            assert_eq!(level(&policy, &format!("{pods}/p")), Level::Metadata, "{rule}");
            assert_eq!(level(&policy, "/version"), Level::Metadata, "{rule}");
        }
        // An empty name is that of what has none, and an empty group is one of resources.
        assert_eq!(level(&of("{level: None, namespaces: [~]}"), "/api/v1/nodes"), Level::None);
        let core = of("{level: None, resources: [~]}");
        assert_eq!(level(&core, pods), Level::None);
        assert_eq!(level(&core, "/apis/apps/v1/deployments"), Level::Metadata);
        assert_eq!(level(&core, "/version"), Level::Metadata);
        // No list at all fits everybody.
        assert_eq!(level(&of("{level: None, users: ~}"), pods), Level::None);
        assert_eq!(refused("rules: [~]"), "rules[0].level: Required value");
        let stages = "allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic";
        assert_eq!(
            refused("omitStages: [~]\nrules: [{level: None}]"),
            format!("omitStages[0]: Invalid value: \"\": {stages}")
        );
        assert_eq!(
            refused("rules: [{level: None, nonResourceURLs: [~]}]"),
            "rules[0].nonResourceURLs[0]: Invalid value: \"\": non-resource URL rules must begin with a '/' character"
        );
    }
}
