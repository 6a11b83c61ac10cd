//! What may be used only where a quota covers it: the plugin's `limitedResources`.

use super::amounts::{Amounts, Node};
use api::quota::View;
use api::quota::scope;
use schema::Map;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A resource of which some use needs a quota.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limited {
    pub group: String,
    pub plural: String,
    /// Amounts whose names contain one of these.
    pub contains: Vec<String>,
    /// Objects in one of these scopes.
    pub scopes: Vec<Scope>,
}

/// A requirement of a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub name: String,
    pub operator: String,
    pub values: Vec<String>,
}

impl Scope {
    fn selects(&self, group: &str, plural: &str, object: &Map) -> bool {
        let values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        scope::selects(&self.name, &self.operator, &values, group, plural, Node::Object(object))
    }

    /// As Go prints the struct.
    fn shown(&self) -> String {
        format!("{{{} {} [{}]}}", self.name, self.operator, self.values.join(" "))
    }
}

/// What a write uses that no quota covers: amounts by name, and scopes as they are printed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Uncovered {
    pub(super) amounts: Vec<String>,
    pub(super) scopes: Vec<String>,
}

/// Looks for use that none of the `quotas` of its namespace covers. A quota covers what its status bounds: not before it has
/// been counted, and not by its spec alone.
pub(super) fn uncovered(
    limited: &[Limited],
    (group, plural): (&str, &str),
    object: &Map,
    used: &Amounts,
    quotas: &[Arc<Map>],
) -> Uncovered {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    let mut scopes: Vec<&Scope> = Vec::new();
    for limited in limited {
        if limited.group == group && limited.plural == plural {
            let contained = |name: &str| limited.contains.iter().any(|part| name.contains(part.as_str()));
            let consumed = used.iter().filter(|(name, v)| v.signum() > 0 && contained(name));
            names.extend(consumed.map(|(name, _)| name.as_str()));
        }
        // Scopes tell themselves what they are about, whatever resource they are written under.
        scopes.extend(limited.scopes.iter().filter(|scope| scope.selects(group, plural, object)));
    }
    if names.is_empty() && scopes.is_empty() {
        return Uncovered::default();
    }
    for quota in quotas {
        let node = Node::Object(quota);
        scopes.retain(|scope| {
            !scope::of(node).any(|(name, operator, values)| {
                name == scope.name && scope::selects(name, operator, &values, group, plural, Node::Object(object))
            })
        });
        if scope::holds(node, group, plural, Node::Object(object)) {
            names.retain(|name| node.at(&["status", "hard", name]).is_none());
        }
    }
    Uncovered {
        amounts: names.into_iter().map(str::to_owned).collect(),
        scopes: scopes.into_iter().map(Scope::shown).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;
    use api::quota::usage;

    fn found(quotas: &[&str]) -> Uncovered {
        let limited = [
            Limited { group: String::new(), plural: "pods".into(), contains: vec!["cpu".into()], scopes: Vec::new() },
            Limited {
                group: String::new(),
                plural: "pods".into(),
                contains: Vec::new(),
                scopes: vec![Scope {
                    name: "PriorityClass".into(),
                    operator: "In".into(),
                    values: vec!["high".into(), "higher".into()],
                }],
            },
        ];
        let pod =
            map("{spec: {priorityClassName: high, containers: [{resources: {requests: {cpu: 1, memory: 1Gi}}}]}}");
        let used = usage::of("", "pods", Node::Object(&pod), jiff::Timestamp::UNIX_EPOCH);
        let quotas: Vec<Arc<Map>> = quotas.iter().map(|text| Arc::new(map(text))).collect();
        uncovered(&limited, ("", "pods"), &pod, &used, &quotas)
    }

    #[test]
    fn a_quota_covers_what_it_bounds_and_the_scopes_that_it_selects() {
        let nothing = found(&[]);
        assert_eq!(nothing.amounts, ["cpu", "requests.cpu"]);
        assert_eq!(nothing.scopes, ["{PriorityClass In [high higher]}"]);
        let part = found(&["{status: {hard: {requests.cpu: 4}}}"]);
        assert_eq!((part.amounts, part.scopes.len()), (vec!["cpu".to_owned()], 1));
        let uncounted = found(&["{spec: {hard: {cpu: 4, requests.cpu: 4}}}"]);
        assert_eq!(uncounted, nothing);
        let scoped = "{status: {hard: {cpu: 1, requests.cpu: 1}}, spec: {scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [high]}]}}}";
        assert_eq!(found(&[scoped]), Uncovered::default());
        let other = "{status: {hard: {cpu: 1, requests.cpu: 1}}, spec: {scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [low]}]}}}";
        assert_eq!(found(&[other]), nothing);
    }
}
