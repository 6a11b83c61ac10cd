//! Reviews: resources that answer what somebody may do, or who somebody is. They are not stored.

mod access;
mod identity;
mod rules;

pub use access::{AccessReview, Whose};
pub use identity::{SelfSubjectReview, TokenReview};
pub use rules::SelfSubjectRulesReview;

use crate::user::UserInfo;
use api::{FieldError, Status};
use schema::{Map, Value};
use std::collections::BTreeMap;

/// The strings of a list.
fn strings(map: &Map, path: &[&str]) -> Vec<String> {
    let list = map.at(path).and_then(Value::as_list).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn list_value<S: AsRef<str>>(list: &[S]) -> Value {
    Value::List(list.iter().map(|s| Value::from(s.as_ref())).collect())
}

/// The user that a review's spec describes.
fn user_of(spec: &Map) -> UserInfo {
    let extra = spec.get("extra").and_then(Value::as_map).into_iter().flat_map(Map::iter);
    let extra: BTreeMap<String, Vec<String>> =
        extra.map(|(key, _)| (key.to_lowercase(), strings(spec, &["extra", key]))).collect();
    UserInfo {
        name: spec.str_at(&["user"]).to_owned(),
        uid: spec.str_at(&["uid"]).to_owned(),
        groups: strings(spec, &["groups"]),
        extra,
    }
}

/// A user as `authentication.k8s.io` `UserInfo`.
fn user_map(user: &UserInfo) -> Map {
    let mut map = Map::new();
    let mut text = |key: &'static str, value: &str| {
        if !value.is_empty() {
            map.insert(key, value);
        }
    };
    text("username", &user.name);
    text("uid", &user.uid);
    if !user.groups.is_empty() {
        map.insert("groups", list_value(&user.groups));
    }
    if !user.extra.is_empty() {
        let extra: Map = user.extra.iter().map(|(k, v)| (k.clone().into(), list_value(v))).collect();
        map.insert("extra", extra);
    }
    map
}

const EMPTY: &str = "must be empty";

/// Whether a review has metadata beside what is allowed, and `why` that is wrong.
fn metadata_errors(object: &Map, allowed: &[&str], why: &'static str) -> Option<FieldError> {
    let metadata = object.get("metadata").and_then(Value::as_map)?;
    let meant = |key: &str, value: &Value| {
        let empty = match value {
            Value::Null => true,
            Value::Str(s) => s.is_empty(),
            Value::List(l) => l.is_empty(),
            Value::Map(m) => m.is_empty(),
            _ => false,
        };
        !empty && !allowed.contains(&key) && key != "managedFields"
    };
    metadata.iter().any(|(k, v)| meant(k, v)).then(|| {
        let shown = api::field::Raw(schema::json::to_string(metadata));
        FieldError::invalid(&"metadata", shown, why)
    })
}

fn no_namespace(namespace: &str) -> Result<(), Status> {
    if namespace.is_empty() {
        Ok(())
    } else {
        Err(Status::bad_request(format!("namespace is not allowed on this type: {namespace}")))
    }
}
