//! ControllerRevisions: what a controller's template once was; it does not change.

use crate::tree::Map;
use crate::validation::fields::{Errors, immutable, non_negative};
use crate::view::apps_v1::ControllerRevision;
use api::{FieldError, Path};

pub(in crate::validation) fn revision(object: &Map) -> Errors {
    let mut errors = Errors::new();
    if object.get("data").is_none_or(crate::tree::Value::is_null) {
        errors.push(FieldError::required(&Path::root("data"), "data is mandatory"));
    }
    non_negative(&mut errors, &Path::root("revision"), ControllerRevision(object).revision());
    errors
}

pub(in crate::validation) fn revision_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = revision(new);
    immutable(&mut errors, &Path::root("data"), new.get("data"), old.get("data"));
    errors
}
