//! The rules of the built-in kinds, which live beside their schemas.

use api::FieldError;
use schema::{Map, Resource};

/// What is wrong with a new object of a row, beside its metadata.
pub fn create(row: &Resource, object: &Map) -> Vec<FieldError> {
    let _ = (row, object);
    Vec::new()
}

/// What is wrong with an update, beside its metadata.
pub fn update(row: &Resource, subresource: &str, object: &Map, old: &Map) -> Vec<FieldError> {
    let _ = (row, subresource, object, old);
    Vec::new()
}

/// What the client should know.
pub fn warnings(row: &Resource, object: &Map, old: Option<&Map>) -> Vec<String> {
    let _ = (row, object, old);
    Vec::new()
}
