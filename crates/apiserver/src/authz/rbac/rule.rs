//! One policy rule: what it allows, what it covers of another, how it is shown.

use api::field::go_quote;
use schema::{Map, Value};
use std::collections::BTreeSet;

/// A rule of a role (`rbac.authorization.k8s.io/v1` `PolicyRule`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PolicyRule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    pub non_resource_urls: Vec<String>,
}

/// What is asked of a rule.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    Resource { verb: &'a str, group: &'a str, resource: &'a str, subresource: &'a str, name: &'a str },
    Path { verb: &'a str, path: &'a str },
}

const ALL: &str = "*";

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted)
}

fn has_or_all(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == ALL || item == wanted)
}

fn covers_all(list: &[String], wanted: &[String]) -> bool {
    has(list, ALL) || wanted.iter().all(|w| has(list, w))
}

impl PolicyRule {
    /// Reads a rule from its object; what is absent is empty.
    pub fn from_map(map: &Map) -> Self {
        let strings = |key| -> Vec<String> {
            let list = map.get(key).and_then(Value::as_list).unwrap_or_default();
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        PolicyRule {
            verbs: strings("verbs"),
            api_groups: strings("apiGroups"),
            resources: strings("resources"),
            resource_names: strings("resourceNames"),
            non_resource_urls: strings("nonResourceURLs"),
        }
    }

    /// The `rules` of a role.
    pub fn list_of(role: &Map) -> Vec<Self> {
        let list = role.get("rules").and_then(Value::as_list).unwrap_or_default();
        list.iter().filter_map(Value::as_map).map(PolicyRule::from_map).collect()
    }

    /// The rule as it is stored.
    pub fn to_map(&self) -> Map {
        let mut map = Map::new();
        let lists = [
            ("verbs", &self.verbs),
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ];
        for (key, list) in lists {
            if !list.is_empty() || key == "verbs" {
                map.insert(key, list.iter().map(|s| Value::from(s.as_str())).collect::<Vec<_>>());
            }
        }
        map
    }

    /// Everything: the authority that an aggregated role may gather.
    pub fn everything() -> [Self; 2] {
        let all = || vec![ALL.to_owned()];
        [
            PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() },
            PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() },
        ]
    }

    /// Whether the rule allows what is asked.
    pub fn allows(&self, ask: Ask<'_>) -> bool {
        match ask {
            Ask::Resource { verb, group, resource, subresource, name } => {
                has_or_all(&self.verbs, verb)
                    && has_or_all(&self.api_groups, group)
                    && self.resources.iter().any(|r| resource_matches(r, resource, subresource))
                    && (self.resource_names.is_empty() || has(&self.resource_names, name))
            }
            Ask::Path { verb, path } => {
                has_or_all(&self.verbs, verb) && self.non_resource_urls.iter().any(|u| url_matches(u, path))
            }
        }
    }

    /// The rule as rules of one verb on one thing each.
    fn broken_down(&self) -> Vec<PolicyRule> {
        let one = |s: &str| vec![s.to_owned()];
        let mut out = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let simple = PolicyRule {
                        verbs: one(verb),
                        api_groups: one(group),
                        resources: one(resource),
                        ..PolicyRule::default()
                    };
                    if self.resource_names.is_empty() {
                        out.push(simple);
                    } else {
                        out.extend(
                            self.resource_names.iter().map(|n| PolicyRule { resource_names: one(n), ..simple.clone() }),
                        );
                    }
                }
            }
        }
        for url in &self.non_resource_urls {
            for verb in &self.verbs {
                out.push(PolicyRule { verbs: one(verb), non_resource_urls: one(url), ..PolicyRule::default() });
            }
        }
        out
    }

    /// Whether holding this rule is enough to hand on a broken-down one.
    fn covers(&self, simple: &PolicyRule) -> bool {
        let resources = has(&self.resources, ALL)
            || simple.resources.iter().all(|wanted| {
                let any_parent = wanted.split_once('/').map(|(_, sub)| format!("*/{sub}"));
                has(&self.resources, wanted) || any_parent.is_some_and(|any| has(&self.resources, &any))
            });
        let urls =
            simple.non_resource_urls.iter().all(|wanted| self.non_resource_urls.iter().any(|u| url_matches(u, wanted)));
        let names = self.resource_names.is_empty()
            || (!simple.resource_names.is_empty()
                && simple.resource_names.iter().all(|n| has(&self.resource_names, n)));
        covers_all(&self.verbs, &simple.verbs)
            && covers_all(&self.api_groups, &simple.api_groups)
            && resources
            && urls
            && names
    }

    /// As refusals show it: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}`.
    fn shown(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let shown: Vec<String> = parts
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| format!("{name}:{}", go_list(list)))
            .collect();
        format!("{{{}}}", shown.join(", "))
    }
}

/// A list of strings as Go's `%q` prints it: `["a" "b"]`.
pub fn go_list<S: AsRef<str>>(list: &[S]) -> String {
    let quoted: Vec<String> = list.iter().map(|s| go_quote(s.as_ref())).collect();
    format!("[{}]", quoted.join(" "))
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    match rule.split_once('/') {
        Some((parent, sub)) => !subresource.is_empty() && sub == subresource && (parent == ALL || parent == resource),
        None => subresource.is_empty() && rule == resource,
    }
}

fn url_matches(rule: &str, path: &str) -> bool {
    rule == ALL || rule == path || rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*'))
}

/// What of `wanted` is not covered by `held`, in broken-down rules; empty when all is.
pub fn missing(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut simple: Vec<PolicyRule> = wanted.iter().flat_map(PolicyRule::broken_down).collect();
    simple.retain(|s| !held.iter().any(|h| h.covers(s)));
    simple
}

/// Rules about the same single resource joined into one.
pub fn compacted(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut out: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let simple = rule.resource_names.len() <= 1
            && rule.non_resource_urls.is_empty()
            && rule.api_groups.len() == 1
            && rule.resources.len() == 1;
        let same = |o: &&mut PolicyRule| {
            o.api_groups == rule.api_groups && o.resources == rule.resources && o.resource_names == rule.resource_names
        };
        match out.iter_mut().find(same) {
            Some(existing) if simple => existing.verbs.extend(rule.verbs),
            _ => out.push(rule),
        }
    }
    out
}

/// The lines of upstream's refusal to grant rules that the granter does not hold.
pub fn shown_missing(missing: Vec<PolicyRule>) -> String {
    let lines: BTreeSet<String> = compacted(missing).iter().map(PolicyRule::shown).collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> PolicyRule {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
        PolicyRule {
            verbs: own(verbs),
            api_groups: own(groups),
            resources: own(resources),
            resource_names: own(names),
            non_resource_urls: Vec::new(),
        }
    }
    fn ask<'a>(verb: &'a str, group: &'a str, resource: &'a str, subresource: &'a str, name: &'a str) -> Ask<'a> {
        Ask::Resource { verb, group, resource, subresource, name }
    }

    #[test]
    fn wildcards_reach_as_far_as_upstreams() {
        let all_scales = rule(&["get"], &["*"], &["*/scale"], &[]);
        assert!(all_scales.allows(ask("get", "apps", "deployments", "scale", "x")));
        assert!(!all_scales.allows(ask("get", "apps", "deployments", "", "x")));
        assert!(!all_scales.allows(ask("get", "apps", "deployments", "status", "x")));
        let pods = rule(&["*"], &[""], &["pods"], &[]);
        assert!(!pods.allows(ask("get", "", "pods", "exec", "x")));
        assert!(rule(&["*"], &[""], &["*"], &[]).allows(ask("get", "", "pods", "exec", "x")));
        let named = rule(&["get"], &[""], &["secrets"], &["one"]);
        assert!(named.allows(ask("get", "", "secrets", "", "one")));
        assert!(!named.allows(ask("get", "", "secrets", "", "")));
    }

    #[test]
    fn paths_match_exactly_or_by_a_trailing_star() {
        let api =
            PolicyRule { verbs: vec!["get".into()], non_resource_urls: vec!["/api/*".into()], ..PolicyRule::default() };
        assert!(api.allows(Ask::Path { verb: "get", path: "/api/v1" }));
        assert!(!api.allows(Ask::Path { verb: "get", path: "/apis" }));
        assert!(!api.allows(Ask::Path { verb: "post", path: "/api/v1" }));
    }

    #[test]
    fn what_is_missing_is_shown_compactly_and_sorted() {
        let held = [rule(&["get"], &["apps"], &["deployments"], &[])];
        let wanted = [
            rule(&["get", "list", "watch"], &["apps"], &["deployments"], &[]),
            rule(&["get"], &[""], &["pods"], &["x"]),
        ];
        assert_eq!(
            shown_missing(missing(&held, &wanted)),
            "{APIGroups:[\"\"], Resources:[\"pods\"], ResourceNames:[\"x\"], Verbs:[\"get\"]}\n\
             {APIGroups:[\"apps\"], Resources:[\"deployments\"], Verbs:[\"list\" \"watch\"]}"
        );
    }

    #[test]
    fn a_named_holder_covers_only_the_named() {
        let held = [rule(&["get"], &[""], &["secrets"], &["a"])];
        assert!(missing(&held, &[rule(&["get"], &[""], &["secrets"], &["a"])]).is_empty());
        assert_eq!(missing(&held, &[rule(&["get"], &[""], &["secrets"], &[])]).len(), 1);
    }

    fn word() -> impl Strategy<Value = String> {
        prop_oneof![Just("*".to_owned()), Just("a".to_owned()), Just("b".to_owned()), Just("a/s".to_owned())]
    }
    fn words() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(word(), 1..3)
    }
    prop_compose! {
        fn rules()(verbs in words(), api_groups in words(), resources in words(), resource_names in prop::collection::vec(word(), 0..2)) -> PolicyRule {
            PolicyRule { verbs, api_groups, resources, resource_names, non_resource_urls: Vec::new() }
        }
    }
    proptest! {
        #[test]
        fn a_rule_covers_itself(r in rules()) {
            prop_assert!(missing(std::slice::from_ref(&r), std::slice::from_ref(&r)).is_empty());
        }

        /// Whoever may grant a rule may already do all that it allows.
        #[test]
        fn nothing_covered_exceeds_what_is_held(held in rules(), wanted in rules()) {
            if missing(std::slice::from_ref(&held), std::slice::from_ref(&wanted)).is_empty() {
                for verb in ["a", "b", "c"] { for group in ["a", "b", "c"] { for (resource, sub) in [("a", ""), ("b", ""), ("a", "s"), ("b", "s")] { for name in ["", "a", "b"] {
                    let ask = ask(verb, group, resource, sub, name);
                    prop_assert!(!wanted.allows(ask) || held.allows(ask));
                } } } }
            }
        }
    }
}
