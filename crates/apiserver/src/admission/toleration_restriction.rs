//! PodTolerationRestriction: what pods of a namespace tolerate by default, and what they may tolerate at most.

use super::{Admission, Attributes, Operation, Sides, walk};
use crate::lookup::{Lookup, NAMESPACES};
use api::{Reason, Status};
use async_trait::async_trait;
use schema::{Map, Value};
use std::sync::Arc;

/// The plugin's configuration: for namespaces that say nothing.
#[derive(Clone, Debug, Default)]
pub struct Tolerations {
    pub default: Vec<Map>,
    /// Empty: anything may be tolerated.
    pub allowed: Vec<Map>,
}

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";

pub struct PodTolerationRestriction {
    pub objects: Arc<dyn Lookup>,
    pub configuration: Tolerations,
}

/// What the plugin says without a code of its own.
fn failed(why: impl Into<String>) -> Status {
    Status::new(500, Reason::Unknown, why)
}

/// Whether `wide` tolerates all that `narrow` does.
fn covers(wide: &Map, narrow: &Map) -> bool {
    if wide == narrow {
        return true;
    }
    let (key, operator, effect) = (wide.str_at(&["key"]), wide.str_at(&["operator"]), wide.str_at(&["effect"]));
    if key != narrow.str_at(&["key"]) && (!key.is_empty() || operator != "Exists") {
        return false;
    }
    if !effect.is_empty() && effect != narrow.str_at(&["effect"]) {
        return false;
    }
    let seconds = |of: &Map| of.get("tolerationSeconds").and_then(Value::as_i64);
    if effect == "NoExecute"
        && let Some(most) = seconds(wide)
        && seconds(narrow).is_none_or(|asked| asked > most)
    {
        return false;
    }
    match operator {
        "Exists" => true,
        "Equal" | "" => {
            matches!(narrow.str_at(&["operator"]), "Equal" | "") && narrow.str_at(&["value"]) == wide.str_at(&["value"])
        }
        _ => false,
    }
}

/// All of both, without those that another one covers.
fn merged(all: &[Map]) -> Vec<Map> {
    let mut kept: Vec<Map> = Vec::new();
    for (at, one) in all.iter().enumerate() {
        let before = kept.iter().any(|other| covers(other, one));
        // Of equal ones the first stays.
        if !before && !all[at + 1..].iter().any(|later| later != one && covers(later, one)) {
            kept.push(one.clone());
        }
    }
    kept
}

fn own(pod: &Map) -> Vec<Map> {
    walk::items(pod, &["spec", "tolerations"]).cloned().collect()
}

impl PodTolerationRestriction {
    /// What an annotation of the namespace lists; `None`: it says nothing.
    async fn of_namespace(&self, a: &Attributes<'_>, key: &str) -> Result<Option<Vec<Map>>, Status> {
        let namespace = self.objects.find(NAMESPACES, "", a.namespace).await?;
        let text = namespace.as_ref().and_then(|n| n.at(&["metadata", "annotations", key]).and_then(Value::as_str));
        match text {
            None => Ok(None),
            Some("") => Ok(Some(Vec::new())),
            Some(text) => match schema::json::parse(text.as_bytes()) {
                Ok(Value::List(list)) => Ok(Some(list.iter().filter_map(Value::as_map).cloned().collect())),
                Ok(_) => Err(failed(format!("{key}: a list of tolerations is expected"))),
                Err(error) => Err(failed(format!("{key}: {error}"))),
            },
        }
    }
}

#[async_trait]
impl Admission for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        "PodTolerationRestriction"
    }

    fn sides(&self) -> Sides {
        Sides::Both
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if !a.is("", "pods") {
            return Ok(());
        }
        let mut all = own(a.object);
        if a.operation == Operation::Create {
            let mut default = match self.of_namespace(a, DEFAULTS).await? {
                Some(default) => default,
                None => self.configuration.default.clone(),
            };
            if !default.is_empty() {
                default.extend(all);
                all = merged(&default);
            }
        }
        if schema::qos::of(a.object) != "BestEffort" {
            let mut pressure = Map::new();
            pressure.insert("key", MEMORY_PRESSURE);
            pressure.insert("operator", "Exists");
            pressure.insert("effect", "NoSchedule");
            all.push(pressure);
            all = merged(&all);
        }
        if !all.is_empty() {
            a.object.set_at(&["spec", "tolerations"], all.into_iter().map(Value::Map).collect::<Vec<_>>());
        }
        Ok(())
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let own = if a.is("", "pods") { own(a.object) } else { Vec::new() };
        if own.is_empty() {
            return Ok(());
        }
        let (allowed, whose) = match self.of_namespace(a, ALLOWED).await? {
            Some(allowed) => (allowed, "namespace"),
            None => (self.configuration.allowed.clone(), "cluster"),
        };
        if allowed.is_empty() || own.iter().all(|one| allowed.iter().any(|wide| covers(wide, one))) {
            return Ok(());
        }
        Err(failed(format!(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its {whose} whitelist"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    #[test]
    fn wider_tolerations_cover_narrower_ones() {
        let covered = |wide: &str, narrow: &str| covers(&map(wide), &map(narrow));
        assert!(covered("{operator: Exists}", "{key: a, operator: Equal, value: b, effect: NoSchedule}"));
        assert!(covered("{key: a, operator: Exists}", "{key: a, value: b, effect: NoExecute}"));
        assert!(!covered("{key: a, operator: Exists, effect: NoSchedule}", "{key: a, operator: Exists}"));
        assert!(!covered("{key: a, value: b}", "{key: a, value: c}"));
        let wide = "{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 10}";
        assert!(covered(wide, "{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 9}"));
        assert!(!covered(wide, "{key: a, operator: Exists, effect: NoExecute}"));
    }

    #[test]
    fn what_is_covered_is_not_kept() {
        let all =
            ["{key: a, operator: Exists}", "{key: a, value: b}", "{key: c}", "{key: c}", "{key: c, operator: Exists}"];
        let all: Vec<Map> = all.iter().map(|text| map(text)).collect();
        assert_eq!(merged(&all), [all[0].clone(), all[4].clone()]);
    }
}
