//! The strategic merge patch that turns the status the API has into the one it should have.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// The patch of a pod's `status` subresource, or `None` when nothing differs.
///
/// The uid makes the patch fail for another pod of the same name.
pub(crate) fn patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (old, new) = (object(old), object(new));
    let mut changed = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        let value = match key.as_str() {
            "conditions" => match conditions(old.get(key), value) {
                Some(value) => value,
                None => continue,
            },
            // Merged by address by the server; what we send is all there is.
            "podIPs" | "hostIPs" if old.contains_key(key) => {
                let mut list = vec![json!({"$patch": "replace"})];
                list.extend(value.as_array().into_iter().flatten().cloned());
                Value::Array(list)
            }
            _ => value.clone(),
        };
        changed.insert(key.clone(), value);
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        changed.insert(key.clone(), Value::Null);
    }
    if changed.is_empty() {
        return None;
    }
    Some(json!({"metadata": {"uid": uid}, "status": changed}))
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// The conditions that differ, merged by their type; those that are gone are deleted.
fn conditions(old: Option<&Value>, new: &Value) -> Option<Value> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let (old, new) = (list(old), list(Some(new)));
    let kind = |value: &Value| value.get("type").and_then(Value::as_str).map(ToOwned::to_owned);
    let mut changed: Vec<Value> = Vec::new();
    for condition in &new {
        let before = old.iter().find(|before| kind(before) == kind(condition));
        if before == Some(condition) {
            continue;
        }
        let mut condition = condition.clone();
        if let (Some(Value::Object(before)), Value::Object(now)) = (before, &mut condition) {
            // Merging keeps what isn't named.
            for key in before.keys() {
                if !now.contains_key(key) {
                    now.insert(key.clone(), Value::Null);
                }
            }
        }
        changed.push(condition);
    }
    for before in &old {
        if let Some(gone) = kind(before)
            && !new.iter().any(|condition| kind(condition).as_ref() == Some(&gone))
        {
            changed.push(json!({"$patch": "delete", "type": gone}));
        }
    }
    (!changed.is_empty()).then_some(Value::Array(changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_differs_is_sent() {
        let old = status(json!({
            "phase": "Pending",
            "message": "wait",
            "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
                {"type": "Mine", "status": "True"},
                {"type": "Old", "status": "True"},
            ],
        }));
        assert_eq!(patch("u", &old, &old), None);
        let new = status(json!({
            "phase": "Running",
            "podIPs": [{"ip": "10.0.0.2"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Mine", "status": "True"}],
        }));
        assert_eq!(
            patch("u", &old, &new),
            Some(json!({"metadata": {"uid": "u"}, "status": {
                "phase": "Running",
                "message": null,
                "podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.2"}],
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": null},
                    {"$patch": "delete", "type": "Old"},
                ],
            }}))
        );
    }
}
