//! What an event says, as upstream's audit.k8s.io/v1 has it.

use super::policy::{Level, Stage};
use crate::context::Reference;
use crate::request::RequestInfo;
use crate::user::UserInfo;
use jiff::Timestamp;
use schema::{Map, Value};

/// Of an event that had to be cut.
pub(super) const TRUNCATED: &str = "audit.k8s.io/truncated";

/// What is known of every request.
pub(super) fn new_event(level: Level, info: &RequestInfo, user: &UserInfo, received: Timestamp) -> Map {
    let mut event = Map::new();
    event.insert("kind", "Event");
    event.insert("apiVersion", "audit.k8s.io/v1");
    event.insert("level", level.as_str());
    event.insert("verb", info.verb.as_str());
    event.insert("user", user_map(user));
    if info.is_resource {
        event.insert("objectRef", object_ref(info));
    }
    event.insert("requestReceivedTimestamp", micro(received));
    event
}

/// Adds what a stage tells.
pub(super) fn complete(
    event: &mut Map,
    stage: Stage,
    at: Timestamp,
    code: Option<u16>,
    annotations: Vec<(String, String)>,
) {
    event.insert("stage", stage.as_str());
    let received = (stage == Stage::RequestReceived).then(|| event.get("requestReceivedTimestamp").cloned()).flatten();
    event.insert("stageTimestamp", received.unwrap_or_else(|| micro(at).into()));
    if let Some(code) = code {
        // What the answer says of itself is there already, if it is a `Status`.
        event.set_at(&["responseStatus", "metadata"], Map::new());
        event.set_at(&["responseStatus", "code"], i64::from(code));
    }
    if !annotations.is_empty() {
        let map: Map = annotations.into_iter().map(|(k, v)| (k.into(), Value::from(v))).collect();
        event.insert("annotations", map);
    }
}

/// What remains of an event that has to fit [`Place::END`](super::sink::Place::END): its shape, and the beginnings of its texts.
pub(super) fn shorten(event: &mut Map) {
    const TEXT: usize = 128;
    const ITEMS: usize = 4;
    fn cut(value: &mut Value) {
        match value {
            Value::Map(map) => {
                map.remove("extra");
                map.iter_mut().for_each(|(_, value)| cut(value));
            }
            Value::List(list) => {
                list.truncate(ITEMS);
                list.iter_mut().for_each(cut);
            }
            other => {
                if let Some(text) = other.as_str().filter(|text| text.len() > TEXT) {
                    *other = [&text[..text.floor_char_boundary(TEXT)], "...TRUNCATED"].concat().into();
                }
            }
        }
    }
    event.remove("annotations");
    event.iter_mut().for_each(|(_, value)| cut(value));
}

/// Takes the objects out of an event, and says so.
pub(super) fn without_objects(event: &mut Map) {
    event.remove("requestObject");
    event.remove("responseObject");
    event.set_at(&["annotations", TRUNCATED], "true");
}

fn micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn object_ref(info: &RequestInfo) -> Map {
    let mut map = Map::new();
    for (key, value) in [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", &info.subresource),
    ] {
        if !value.is_empty() {
            map.insert(key, value.as_str());
        }
    }
    map
}

/// Completes the reference of an event with what the object of the request says of itself.
pub(super) fn refer(event: &mut Map, reference: &Reference) {
    for (key, value) in [
        ("namespace", &reference.namespace),
        ("name", &reference.name),
        ("uid", &reference.uid),
        ("resourceVersion", &reference.resource_version),
    ] {
        if !value.is_empty() && event.str_at(&["objectRef", key]).is_empty() {
            event.set_at(&["objectRef", key], value.as_str());
        }
    }
}

pub(super) fn user_map(user: &UserInfo) -> Map {
    let list = |items: &[String]| Value::List(items.iter().map(|s| Value::from(s.as_str())).collect());
    let mut map = Map::new();
    if !user.name.is_empty() {
        map.insert("username", user.name.as_str());
    }
    if !user.uid.is_empty() {
        map.insert("uid", user.uid.as_str());
    }
    if !user.groups.is_empty() {
        map.insert("groups", list(&user.groups));
    }
    if !user.extra.is_empty() {
        map.insert("extra", user.extra.iter().map(|(k, v)| (k.clone().into(), list(v))).collect::<Map>());
    }
    map
}
