//! The rules of the built-in kinds, which live beside their schemas. They are those of the kind that is served, for the
//! object in the shape that is stored: events of the newer group are held to more than those of the older one.

use api::FieldError;
use schema::validation::Features;
use schema::{Map, Resource};

/// What is wrong with a new object of a row, beside its metadata.
pub fn create(row: &Resource, object: &Map) -> Vec<FieldError> {
    schema::validation::create(&row.group, &row.kind, object)
}

/// The same where features are on.
pub fn create_with(row: &Resource, object: &Map, features: Features) -> Vec<FieldError> {
    schema::validation::create_with(&row.group, &row.kind, object, features)
}

/// What is wrong with an update, beside its metadata.
pub fn update(row: &Resource, subresource: &str, object: &Map, old: &Map) -> Vec<FieldError> {
    update_with(row, subresource, object, old, Features::default())
}

/// The same where features are on.
pub fn update_with(row: &Resource, sub: &str, object: &Map, old: &Map, features: Features) -> Vec<FieldError> {
    // A binding judges for itself; what it changes, nothing else may.
    if sub == "binding" {
        return Vec::new();
    }
    schema::validation::update_with(&row.group, &row.kind, sub, object, old, features)
}

/// What the client should know.
pub fn warnings(row: &Resource, object: &Map, old: Option<&Map>) -> Vec<String> {
    schema::validation::warnings(&row.group, &row.kind, object, old)
}
