//! The annotations by which a rollout's history is kept.

use crate::objects::{Deployment, ReplicaSet};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The longest revision history kept in an annotation, in bytes.
const HISTORY_MAX: usize = 2000;

fn annotation<'m>(annotations: Option<&'m BTreeMap<String, String>>, key: &str) -> Option<&'m str> {
    annotations.and_then(|a| a.get(key)).map(String::as_str)
}

/// The revision of a set; 0 when it has none.
pub fn of(set: &ReplicaSet) -> i64 {
    annotation(set.metadata.annotations.as_ref(), REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// The revision that the deployment says it is at.
pub fn of_deployment(deployment: &Deployment) -> Option<&str> {
    annotation(deployment.metadata.annotations.as_ref(), REVISION)
}

/// A number that the controller noted on a set.
pub fn number(set: &ReplicaSet, key: &str) -> Option<i32> {
    annotation(set.metadata.annotations.as_ref(), key)?.parse().ok()
}

/// Which annotations of the deployment its sets get too.
fn is_copied(key: &str) -> bool {
    !matches!(key, LAST_APPLIED | REVISION | REVISION_HISTORY | DESIRED_REPLICAS | MAX_REPLICAS | ROLLBACK_TO)
}

/// The deployment's own annotations, as its sets carry them.
pub fn copied(deployment: &Deployment) -> Map<String, Value> {
    let annotations = deployment.metadata.annotations.iter().flatten();
    annotations.filter(|(k, _)| is_copied(k)).map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect()
}

/// The annotations that a set of this revision lacks.
pub fn missing(deployment: &Deployment, set: &ReplicaSet, revision: i64) -> Map<String, Value> {
    let mut wanted = copied(deployment);
    let current = of(set);
    if current < revision {
        wanted.insert(REVISION.into(), revision.to_string().into());
        if let Some(old) = annotation(set.metadata.annotations.as_ref(), REVISION).filter(|o| !o.is_empty()) {
            let history = annotation(set.metadata.annotations.as_ref(), REVISION_HISTORY).unwrap_or("");
            wanted.insert(REVISION_HISTORY.into(), appended(history, old).into());
        }
    }
    let have = set.metadata.annotations.as_ref();
    wanted.retain(|k, v| annotation(have, k) != v.as_str());
    wanted
}

/// A history with one more revision, the oldest dropped when it grows too long.
fn appended(history: &str, revision: &str) -> String {
    let mut parts: Vec<&str> = history.split(',').filter(|p| !p.is_empty()).collect();
    parts.push(revision);
    while parts.iter().map(|p| p.len() + 1).sum::<usize>() > HISTORY_MAX && parts.len() > 1 {
        parts.remove(0);
    }
    parts.join(",")
}
