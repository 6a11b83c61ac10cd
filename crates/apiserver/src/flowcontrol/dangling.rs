//! The condition `Dangling` of flow schemas: whether the level that one names is there.

use super::config::Config;
use crate::context::Context;
use crate::options::Options;
use crate::registry::{Place, Registry, mutation};
use api::field::go_quote;
use api::{GroupResource, Status};
use jiff::Timestamp;
use schema::{Map, Value};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Who owns the condition in `managedFields`.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Servers that disagree write no more often: so many times in a minute for each schema.
const MOST: usize = 6;
const MINUTE: Duration = Duration::from_secs(60);
/// After how long what was written too often is looked at again.
const AGAIN: Duration = Duration::from_secs(30);

/// The condition as it should be: status, reason, message.
fn wanted(level: &str, found: bool) -> (&'static str, &'static str, String) {
    let text = format!("This FlowSchema references the PriorityLevelConfiguration object named {}", go_quote(level));
    if found {
        ("False", "Found", format!("{text} and it exists"))
    } else {
        ("True", "NotFound", format!("{text} but there is no such object"))
    }
}

fn conditions(object: &Map) -> &[Value] {
    object.at(&["status", "conditions"]).and_then(Value::as_list).unwrap_or_default()
}

/// Sets the condition; `false`: it is so already.
fn set(object: &mut Map, found: bool, now: Timestamp) -> bool {
    let (status, reason, message) = wanted(object.str_at(&["spec", "priorityLevelConfiguration", "name"]), found);
    let is = |condition: &Map, key: &str, value: &str| condition.str_at(&[key]) == value;
    let mut all = conditions(object).to_vec();
    let place = all.iter().position(|one| one.as_map().is_some_and(|one| is(one, "type", "Dangling")));
    if let Some(one) = place.and_then(|at| all[at].as_map())
        && is(one, "status", status)
        && is(one, "reason", reason)
        && is(one, "message", &message)
    {
        return false;
    }
    let mut condition = Map::new();
    condition.insert("type", "Dangling");
    condition.insert("status", status);
    condition.insert("lastTransitionTime", now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    condition.insert("reason", reason);
    condition.insert("message", message);
    match place {
        Some(at) => all[at] = Value::Map(condition),
        None => all.push(Value::Map(condition)),
    }
    object.set_at(&["status", "conditions"], all);
    true
}

/// Keeps the condition of every schema true, each time that it is told of a change, for as long as the registry is there.
pub(super) async fn keep(registry: std::sync::Weak<Registry>, config: Arc<Config>, changed: Arc<Notify>) {
    let mut writes: HashMap<String, VecDeque<Instant>> = HashMap::new();
    let mut again = false;
    loop {
        tokio::select! {
            () = changed.notified() => {}
            () = tokio::time::sleep(AGAIN), if again => {}
        }
        let Some(registry) = registry.upgrade() else { return };
        again = pass(&registry, &config, &mut writes).await;
    }
}

/// Looks at all schemas; tells whether it must do so again though nothing changes.
async fn pass(registry: &Registry, config: &Config, writes: &mut HashMap<String, VecDeque<Instant>>) -> bool {
    let group = super::GROUP;
    let row = schema::resource::get(group, "v1", "flowschemas");
    let cacher = row.and_then(|row| row.storage.as_ref()).and_then(|storage| registry.caches().get(&storage.prefix));
    let (Some(cacher), Some(served)) = (cacher, registry.served(group, "v1", "flowschemas")) else { return false };
    let mut again = false;
    let all: Vec<Map> = {
        let (state, _) = cacher.now();
        state.range(&crate::cache::Scope::All, None).filter_map(|entry| cacher.decode(entry).ok()).collect()
    };
    for mut object in all {
        let name = object.str_at(&["metadata", "name"]).to_owned();
        let found = config.has_level(object.str_at(&["spec", "priorityLevelConfiguration", "name"]));
        let now = Timestamp::now();
        if !set(&mut object, found, now) {
            continue;
        }
        let past = writes.entry(name.clone()).or_default();
        past.retain(|at| at.elapsed() < MINUTE);
        if past.len() >= MOST {
            again = true;
            continue;
        }
        past.push_back(Instant::now());
        // It is decided anew for the object as it is when it is written.
        let change = mutation::Change(|object: &mut Map| {
            set(object, config.has_level(object.str_at(&["spec", "priorityLevelConfiguration", "name"])), now);
            Ok::<(), Status>(())
        });
        let place = Place { namespace: "", name: &name, subresource: "status" };
        let options = Options { field_manager: MANAGER.to_owned(), ..Options::default() };
        match registry.update(&Context::internal(), &served, place, &change, &options).await {
            Ok(_) => {}
            Err(status) if status.code == 404 => {}
            Err(status) => {
                let resource = GroupResource::new(group, "flowschemas");
                tracing::warn!(%resource, name, why = status.message, "a condition could not be written: it is tried again");
                again = true;
            }
        }
    }
    writes.retain(|_, past| past.back().is_some_and(|at| at.elapsed() < MINUTE));
    again
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    #[test]
    fn the_condition_is_set_once_and_others_stay() {
        let mut object = map(
            "{spec: {priorityLevelConfiguration: {name: a}}, status: {conditions: [{type: Mine, status: 'True'}, {type: Dangling, status: 'False'}]}}",
        );
        let now = Timestamp::UNIX_EPOCH;
        assert!(set(&mut object, false, now));
        assert!(!set(&mut object, false, now));
        let dangling = conditions(&object)[1].as_map().expect("a condition");
        assert_eq!(dangling.str_at(&["status"]), "True");
        assert_eq!(
            dangling.str_at(&["message"]),
            "This FlowSchema references the PriorityLevelConfiguration object named \"a\" but there is no such object"
        );
        assert!(set(&mut object, true, now));
        assert_eq!(conditions(&object).len(), 2);
        assert_eq!(conditions(&object)[1].as_map().expect("a condition").str_at(&["reason"]), "Found");
    }
}
