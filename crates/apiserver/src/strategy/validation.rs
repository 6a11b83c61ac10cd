//! The rules of the built-in kinds, which live beside their schemas.

use api::FieldError;
use schema::{Map, Resource};

/// The group and kind whose objects are stored for a row, which is what the rules are written for.
fn stored(row: &Resource) -> (&str, &str) {
    row.storage.as_ref().map_or((&row.group, &row.kind), |storage| (&storage.group, &storage.kind))
}

/// What is wrong with a new object of a row, beside its metadata.
pub fn create(row: &Resource, object: &Map) -> Vec<FieldError> {
    let (group, kind) = stored(row);
    schema::validation::create(group, kind, object)
}

/// What is wrong with an update, beside its metadata.
pub fn update(row: &Resource, subresource: &str, object: &Map, old: &Map) -> Vec<FieldError> {
    // A binding judges for itself; what it changes, nothing else may.
    if subresource == "binding" {
        return Vec::new();
    }
    let (group, kind) = stored(row);
    schema::validation::update(group, kind, subresource, object, old)
}

/// What the client should know.
pub fn warnings(row: &Resource, object: &Map, old: Option<&Map>) -> Vec<String> {
    let (group, kind) = stored(row);
    schema::validation::warnings(group, kind, object, old)
}
