//! What extends the API: definitions of kinds, and servers of groups.

use super::{Rules, Strategy, keep_other_side};
use crate::context::Context;
use schema::{Map, Resource, Value};

/// A definition remembers every version that objects have been stored in.
#[derive(Debug)]
pub struct Definitions(pub Rules);

fn note_storage_version(object: &mut Map) {
    let versions = object.at(&["spec", "versions"]).and_then(Value::as_list).unwrap_or_default();
    let is_storage = |version: &&Map| version.get("storage").and_then(Value::as_bool) == Some(true);
    let Some(version) = versions.iter().filter_map(Value::as_map).find(is_storage) else { return };
    let name = Value::from(version.str_at(&["name"]));
    let stored = object.at(&["status", "storedVersions"]).and_then(Value::as_list).unwrap_or_default();
    if !stored.contains(&name) {
        let mut stored = stored.to_vec();
        stored.push(name);
        object.set_at(&["status", "storedVersions"], stored);
    }
}

impl Strategy for Definitions {
    fn prepare_for_create(&self, _: &Context, _: &Resource, object: &mut Map) {
        note_storage_version(object);
    }

    fn prepare_for_update(&self, _: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        keep_other_side(row, subresource, object, old);
        if subresource.is_empty() {
            note_storage_version(object);
        }
    }

    fn rules(&self) -> Rules {
        self.0
    }
}

/// A group that this server serves itself is there as soon as it is said.
#[derive(Debug)]
pub struct ApiServices(pub Rules);

impl Strategy for ApiServices {
    fn prepare_for_create(&self, cx: &Context, _: &Resource, object: &mut Map) {
        if object.at(&["spec", "service"]).is_some_and(|service| !service.is_null()) {
            return;
        }
        let mut available = Map::new();
        available.insert("type", "Available");
        available.insert("status", "True");
        available.insert("lastTransitionTime", cx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        available.insert("reason", "Local");
        available.insert("message", "Local APIServices are always available");
        object.set_at(&["status", "conditions"], vec![Value::Map(available)]);
    }

    fn rules(&self) -> Rules {
        self.0
    }
}
