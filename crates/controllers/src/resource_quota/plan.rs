//! What is used of a quota, and what its status is to say.

use api::Quantity;
use api::quota::{Amounts, View, add, amounts, scope, usage};
use jiff::Timestamp;
use serde_json::{Map, Value};

/// The objects of one kind in the quota's namespace; null where only their number counts.
pub(super) struct Listed<'a> {
    pub(super) group: &'a str,
    pub(super) plural: &'a str,
    pub(super) objects: Vec<Value>,
}

/// What is used, at a moment, of each thing that the quota bounds.
pub(super) fn used(quota: &Value, hard: &Amounts, listed: &[Listed<'_>], now: Timestamp) -> Amounts {
    let mut total: Amounts = hard.keys().map(|name| (name.clone(), Quantity::ZERO)).collect();
    for Listed { group, plural, objects } in listed {
        for object in objects.iter().filter(|object| scope::holds(quota, group, plural, object)) {
            let mut more = usage::of(group, plural, object, now);
            more.retain(|name, _| hard.contains_key(name));
            add(&mut total, &more);
        }
    }
    total
}

/// The status that the quota is to have; `None`: it says so already.
pub(super) fn status(quota: &Value, hard: &Amounts, used: &Amounts) -> Option<Value> {
    let (known_hard, known_used) = (amounts(quota, &["status", "hard"]), amounts(quota, &["status", "used"]));
    if known_hard == *hard && known_used == *used {
        return None;
    }
    let list = |amounts: &Amounts| -> Map<String, Value> {
        amounts.iter().map(|(name, value)| (name.clone(), value.to_string().into())).collect()
    };
    Some(serde_json::json!({"hard": list(hard), "used": list(used)}))
}

/// Whether less is used of something than the status says.
pub(super) fn sinks(quota: &Value, used: &Amounts) -> bool {
    let known = quota.at(&["status", "used"]).map(|_| amounts(quota, &["status", "used"])).unwrap_or_default();
    used.iter().any(|(name, value)| known.get(name).is_some_and(|known| value < known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_there_is_counted_and_the_rest_is_dropped() {
        let quota = json!({"spec": {"hard": {"pods": "3", "requests.cpu": "2", "count/jobs.batch": "1"}},
            "status": {"hard": {"pods": "2", "secrets": "1"}, "used": {"pods": "2", "secrets": "1"}}});
        let hard = amounts(&quota, &["spec", "hard"]);
        let pod = |phase: &str| {
            json!({"status": {"phase": phase},
            "spec": {"containers": [{"resources": {"requests": {"cpu": "500m"}}}]}})
        };
        let listed = [
            Listed { group: "", plural: "pods", objects: vec![pod("Running"), pod("Succeeded")] },
            Listed { group: "batch", plural: "jobs", objects: vec![Value::Null] },
        ];
        let used = used(&quota, &hard, &listed, Timestamp::UNIX_EPOCH);
        assert_eq!(api::quota::shown(&used), "count/jobs.batch=1,pods=1,requests.cpu=500m");
        assert!(sinks(&quota, &used), "there were two pods");
        let status = status(&quota, &hard, &used).expect("a change");
        assert_eq!(status["used"], json!({"count/jobs.batch": "1", "pods": "1", "requests.cpu": "500m"}));
        let settled = json!({"status": {"hard": {"pods": "3", "requests.cpu": "2", "count/jobs.batch": "1"},
            "used": {"pods": "1", "requests.cpu": "0.5", "count/jobs.batch": "1"}}});
        assert_eq!(super::status(&settled, &hard, &used), None, "half a core is half a core");
    }
}
