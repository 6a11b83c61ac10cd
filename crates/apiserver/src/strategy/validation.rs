//! The rules of the built-in kinds, which live beside their schemas. They are those of the kind that is served, for the
//! object in the shape that is stored: events of the newer group are held to more than those of the older one.

use super::Kind;
use api::FieldError;
use schema::Map;

/// What is wrong with a new object of a kind, beside its metadata.
pub fn create(kind: Kind<'_>, object: &Map) -> Vec<FieldError> {
    schema::validation::create(&kind.row.group, &kind.row.kind, object, kind.features)
}

/// What is wrong with an update, beside its metadata.
pub fn update(kind: Kind<'_>, subresource: &str, object: &Map, old: &Map) -> Vec<FieldError> {
    // A binding judges for itself; what it changes, nothing else may.
    if subresource == "binding" {
        return Vec::new();
    }
    schema::validation::update(&kind.row.group, &kind.row.kind, subresource, object, old, kind.features)
}

/// What the client should know of an object that is written through a subresource; `old` is none for a new one.
pub fn warnings(kind: Kind<'_>, subresource: &str, object: &Map, old: Option<&Map>) -> Vec<String> {
    schema::validation::warnings(&kind.row.group, &kind.row.kind, subresource, object, old, kind.features)
}
