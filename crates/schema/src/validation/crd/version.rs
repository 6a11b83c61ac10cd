//! What a version of a definition has of its own: warning, schema, subresources, columns, selectable fields.

use super::super::fields::{Errors, required};
use super::{Demands, path, schema};
use crate::view::List;
use crate::view::apiextensions_v1::{
    CustomResourceColumnDefinition, CustomResourceDefinitionVersion, CustomResourceSubresources,
    CustomResourceValidation, JSONSchemaProps, SelectableField,
};
use api::field::printable;
use api::{FieldError, Path};
use std::collections::BTreeSet;

const MAX_SELECTABLE: usize = 8;
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

pub(super) fn deprecation(errors: &mut Errors, path: &Path<'_>, version: CustomResourceDefinitionVersion<'_>) {
    let Some(text) = version.deprecation_warning() else { return };
    let mut refuse = |why: String| errors.push(FieldError::invalid(path, text, why));
    if version.deprecated() != Some(true) {
        refuse("can only be set for deprecated versions".to_owned());
        return;
    }
    if text.len() > 256 {
        refuse("must be <= 256 characters long".to_owned());
    }
    if text.is_empty() {
        refuse("must not be an empty string".to_owned());
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| !printable(*c)) {
        refuse(format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"));
    }
}

pub(super) fn validation(
    errors: &mut Errors,
    path: &Path<'_>,
    validation: Option<CustomResourceValidation<'_>>,
    status: bool,
    demands: &Demands,
) {
    let Some(root) = validation.and_then(CustomResourceValidation::open_apiv3_schema) else { return };
    let path = path.child("openAPIV3Schema");
    schema::root(errors, &path, root, status, &demands.of_schemas);
}

pub(super) fn subresources(errors: &mut Errors, path: &Path<'_>, subresources: Option<CustomResourceSubresources<'_>>) {
    let Some(scale) = subresources.and_then(|subresources| subresources.scale()) else { return };
    for (field, given, root, below) in [
        ("scale.specReplicasPath", scale.spec_replicas_path(), ".spec.", "under .spec"),
        ("scale.statusReplicasPath", scale.status_replicas_path(), ".status.", "under .status"),
    ] {
        let path = path.child(field);
        let given = given.unwrap_or("");
        if required(errors, &path, Some(given)) && dotted(errors, &path, given) && !given.starts_with(root) {
            errors.push(FieldError::invalid(&path, given, format!("should be a json path {below}")));
        }
    }
    let given = scale.label_selector_path().unwrap_or("");
    let path = path.child("scale.labelSelectorPath");
    if !given.is_empty()
        && dotted(errors, &path, given)
        && !given.starts_with(".spec.")
        && !given.starts_with(".status.")
    {
        errors.push(FieldError::invalid(&path, given, "should be a json path under either .spec or .status"));
    }
}

/// Whether a path begins as a simple one does.
fn dotted(errors: &mut Errors, path: &Path<'_>, text: &str) -> bool {
    let good = text.starts_with('.');
    if !good {
        errors.push(FieldError::invalid(path, text, "must be a simple json path starting with ."));
    }
    good
}

pub(super) fn columns(errors: &mut Errors, path: &Path<'_>, list: List<'_, CustomResourceColumnDefinition<'_>>) {
    for (i, column) in list.iter().enumerate() {
        let path = path.index(i);
        required(errors, &path.child("name"), column.name());
        let why = |known: &[&str]| format!("must be one of {}", known.join(","));
        match column.type_().unwrap_or("") {
            "" => errors.push(FieldError::required(&path.child("type"), why(&COLUMN_TYPES))),
            kind if !COLUMN_TYPES.contains(&kind) => {
                errors.push(FieldError::invalid(&path.child("type"), kind, why(&COLUMN_TYPES)));
            }
            _ => {}
        }
        let format = column.format().unwrap_or("");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            errors.push(FieldError::invalid(&path.child("format"), format, why(&COLUMN_FORMATS)));
        }
        let json_path = column.json_path().unwrap_or("");
        if required(errors, &path.child("JSONPath"), Some(json_path)) {
            dotted(errors, &path.child("JSONPath"), json_path);
        }
    }
}

pub(super) fn selectable(
    errors: &mut Errors,
    path: &Path<'_>,
    list: List<'_, SelectableField<'_>>,
    schema: JSONSchemaProps<'_>,
) {
    let mut seen = BTreeSet::new();
    for (i, field) in list.iter().enumerate() {
        let path = path.index(i);
        let path = path.child("jsonPath");
        let text = field.json_path().unwrap_or("");
        if !required(errors, &path, Some(text)) {
            continue;
        }
        let found = match path::find(text, schema, false) {
            Ok(found) => found,
            Err(why) => {
                errors.push(FieldError::invalid(&path, text, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if found.names.first().map(String::as_str) == Some("metadata") {
            errors.push(FieldError::invalid(&path, text, "must not point to fields in metadata"));
        }
        if !found.schema.is_some_and(|s| matches!(s.type_(), Some("string" | "boolean" | "integer"))) {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(FieldError::invalid(&path, text, why));
        }
        if !seen.insert(found.names) {
            errors.push(FieldError::duplicate(&path, text));
        }
    }
    if seen.len() > MAX_SELECTABLE {
        errors.push(FieldError::too_many(path, seen.len(), MAX_SELECTABLE));
    }
}
