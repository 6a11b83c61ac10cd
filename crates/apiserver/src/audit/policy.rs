//! Which requests are recorded, and how much of them (`audit.k8s.io/v1` `Policy`).

use crate::admission::walk;
use crate::request::RequestInfo;
use crate::user::UserInfo;
use schema::{Map, Value};
use thiserror::Error;

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
}

/// When in a request's life something is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
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
    #[error("rules[{rule}].level: {level:?} is not one of None, Metadata, Request, RequestResponse")]
    Level { rule: usize, level: String },
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

fn strings(map: &Map, key: &str) -> Vec<String> {
    let list = map.get(key).and_then(Value::as_list).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Policy {
    /// Everything, but only who did what: the policy when none is given.
    pub fn metadata() -> Self {
        Policy { rules: vec![Rule { level: Level::Metadata, ..Rule::default() }], ..Policy::default() }
    }

    /// Reads a policy file.
    ///
    /// # Errors
    /// It is no policy, or has a level that does not exist.
    pub fn parse(text: &[u8]) -> Result<Self, PolicyError> {
        let value = schema::yaml::parse(text).map_err(|e| PolicyError::Yaml(e.to_string()))?;
        let empty = Map::new();
        let map = value.as_map().unwrap_or(&empty);
        let (version, kind) = (map.str_at(&["apiVersion"]), map.str_at(&["kind"]));
        if version != "audit.k8s.io/v1" || kind != "Policy" {
            return Err(PolicyError::Kind(format!("{version} {kind}")));
        }
        let flag = |map: &Map, key| map.get(key).and_then(Value::as_bool);
        let omit_managed_fields = flag(map, "omitManagedFields").unwrap_or(false);
        let mut rules = Vec::new();
        for (i, rule) in walk::items(map, &["rules"]).enumerate() {
            let level = rule.str_at(&["level"]);
            let level = Level::parse(level).ok_or_else(|| PolicyError::Level { rule: i, level: level.to_owned() })?;
            let resources = walk::items(rule, &["resources"]).map(|r| ResourceRule {
                group: r.str_at(&["group"]).to_owned(),
                resources: strings(r, "resources"),
                names: strings(r, "resourceNames"),
            });
            rules.push(Rule {
                level,
                users: strings(rule, "users"),
                groups: strings(rule, "userGroups"),
                verbs: strings(rule, "verbs"),
                namespaces: strings(rule, "namespaces"),
                resources: resources.collect(),
                paths: strings(rule, "nonResourceURLs"),
                omit: strings(rule, "omitStages"),
                omit_managed_fields: flag(rule, "omitManagedFields").unwrap_or(omit_managed_fields),
            });
        }
        if rules.is_empty() {
            return Err(PolicyError::NoRules);
        }
        Ok(Policy { rules, omit: strings(map, "omitStages"), omit_managed_fields })
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
        let bad = b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: All}]";
        assert_eq!(Policy::parse(bad).err(), Some(PolicyError::Level { rule: 0, level: "All".into() }));
    }
}
