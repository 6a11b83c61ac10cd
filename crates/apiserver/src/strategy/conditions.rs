//! Conditions of a status: who may not change them, and since when they are so.

use crate::context::Context;
use schema::{Map, Value};

const CONDITIONS: [&str; 2] = ["status", "conditions"];

pub(super) fn conditions(object: &Map) -> &[Value] {
    object.at(&CONDITIONS).and_then(Value::as_list).unwrap_or_default()
}

fn is_of(condition: &Value, kind: &str) -> bool {
    condition.as_map().is_some_and(|condition| condition.str_at(&["type"]) == kind)
}

/// Keeps of the old object the conditions of these types. Where their number changed, validation judges the change.
pub(super) fn keep(object: &mut Map, old: &Map, kinds: &[&str]) {
    for kind in kinds {
        let were: Vec<Value> = conditions(old).iter().filter(|condition| is_of(condition, kind)).cloned().collect();
        let now = object.at_mut(&CONDITIONS).and_then(Value::as_list_mut);
        let now: Vec<&mut Value> = now.into_iter().flatten().filter(|condition| is_of(condition, kind)).collect();
        if now.len() == were.len() {
            now.into_iter().zip(were).for_each(|(now, was)| *now = was);
        }
    }
}

/// When conditions were set (in the field `set`), and since when they are as they are, where they don't say so
/// themselves.
pub(super) fn date(cx: &Context, object: &mut Map, old: &Map, set: &'static str) {
    let now = cx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let list = object.at_mut(&CONDITIONS).and_then(Value::as_list_mut);
    for condition in list.into_iter().flatten().filter_map(Value::as_map_mut) {
        if condition.str_at(&[set]).is_empty() {
            condition.insert(set, now.as_str());
        }
        if !condition.str_at(&["lastTransitionTime"]).is_empty() {
            continue;
        }
        let same = |was: &&Map| ["type", "status"].iter().all(|key| was.str_at(&[key]) == condition.str_at(&[key]));
        let was = conditions(old).iter().filter_map(Value::as_map).filter(same);
        let since = was.map(|was| was.str_at(&["lastTransitionTime"])).find(|since| !since.is_empty());
        let since = since.unwrap_or(&now).to_owned();
        condition.insert("lastTransitionTime", since);
    }
}
