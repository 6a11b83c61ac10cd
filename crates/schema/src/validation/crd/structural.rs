//! Structural schemas: the shape of an object is said outside of any `allOf`, `anyOf`, `oneOf` and `not`, so that it can be
//! pruned and defaulted.

use super::schema::only_type;
use super::single;
use crate::validation::fields::Errors;
use crate::view::List;
use crate::view::apiextensions_v1::JSONSchemaProps;
use api::{FieldError, Path};

/// Where a schema is.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What keeps a schema from being structural; in upstream's order.
pub(super) fn check(path: &Path<'_>, schema: JSONSchemaProps<'_>) -> Errors {
    let mut errors = Errors::new();
    invariants(&mut errors, path, schema, Level::Root);
    complete(&mut errors, schema, Some(schema), path, path);
    errors.sort_by_cached_key(ToString::to_string);
    errors
}

fn is(value: Option<bool>) -> bool {
    value == Some(true)
}

fn invariants(errors: &mut Errors, path: &Path<'_>, schema: JSONSchemaProps<'_>, level: Level) {
    let kind = schema.type_().unwrap_or("");
    let items = single(schema.items());
    if kind == "array" && schema.items().is_none() {
        errors.push(FieldError::required(&path.child("items"), "must be specified"));
    }
    if let Some(items) = items {
        invariants(errors, &path.child("items"), items, Level::Item);
    }
    let properties = path.child("properties");
    for (name, property) in schema.properties().iter() {
        invariants(errors, &properties.key(name), property, Level::Field);
    }
    let additional = path.child("additionalProperties");
    if let Some(value) = schema.additional_properties() {
        if level == Level::Root {
            errors.push(FieldError::forbidden(&additional, "must not be used at the root"));
        }
        if let Some(of) = single(Some(value)) {
            invariants(errors, &additional, of, Level::Field);
        }
    }
    let embedded = is(schema.x_kubernetes_embedded_resource());
    let keeps = is(schema.x_kubernetes_preserve_unknown_fields());
    let either = is(schema.x_kubernetes_int_or_string());
    for (field, given) in
        [("x-kubernetes-preserve-unknown-fields", keeps), ("x-kubernetes-embedded-resource", embedded)]
    {
        if either && given {
            let why = "must be false if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(&path.child(field), true, why));
        }
    }
    // Numbers and strings may be told apart below one `anyOf`.
    let either_here = either_number_or_string(schema.any_of());
    let either_below = schema.all_of().first().is_some_and(|first| either_number_or_string(first.any_of()));
    values(errors, path, schema, either_here, either_below);
    let type_path = path.child("type");
    if embedded && kind != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        if kind.is_empty() {
            errors.push(FieldError::required(&type_path, why));
        } else {
            errors.push(FieldError::invalid(&type_path, kind, why));
        }
    } else if kind.is_empty() && !either && !keeps {
        let place = match level {
            Level::Root => "at the root",
            Level::Item => "for specified array items",
            Level::Field => "for specified object fields",
        };
        errors.push(FieldError::required(&type_path, format!("must not be empty {place}")));
    }
    if embedded && schema.additional_properties().is_some() {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(&additional, why));
    }
    if level == Level::Root && !matches!(kind, "" | "object") {
        errors.push(FieldError::invalid(&type_path, kind, "must be object at the root"));
    }
    let whole = level == Level::Root || embedded;
    for name in ["kind", "apiVersion"] {
        let of = schema.properties().get(name).map(|property| property.type_().unwrap_or(""));
        if let Some(of) = of.filter(|of| whole && *of != "string") {
            errors.push(FieldError::invalid(&properties.key(name).child("type"), of, "must be string"));
        }
    }
    if let Some(metadata) = schema.properties().get("metadata") {
        let path = properties.key("metadata");
        let of = metadata.type_().unwrap_or("");
        if whole && of != "object" {
            errors.push(FieldError::invalid(&path.child("type"), of, "must be object"));
        }
        if level == Level::Root && says_more_than_names(metadata) {
            let why =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(FieldError::forbidden(&path, why));
        }
    }
    if embedded && !keeps && schema.properties().is_empty() {
        let why =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(&properties, why));
    }
}

/// Whether the schema of metadata restricts more than names.
fn says_more_than_names(metadata: JSONSchemaProps<'_>) -> bool {
    metadata.0.iter().any(|(key, value)| match key {
        "type" | "default" => false,
        "properties" => {
            value.as_map().is_some_and(|map| map.iter().any(|(name, _)| !matches!(name, "name" | "generateName")))
        }
        _ => true,
    })
}

/// `anyOf: [{type: integer}, {type: string}]`
fn either_number_or_string(list: List<'_, JSONSchemaProps<'_>>) -> bool {
    let (number, text) = (list.get(0), list.get(1));
    list.len() == 2
        && number.is_some_and(|schema| only_type(schema.0, "integer"))
        && text.is_some_and(|schema| only_type(schema.0, "string"))
}

/// What is below the junctors of a schema.
fn values(errors: &mut Errors, path: &Path<'_>, schema: JSONSchemaProps<'_>, skip_any: bool, skip_first: bool) {
    if !skip_any {
        for (i, one) in schema.any_of().iter().enumerate() {
            nested(errors, &path.child("anyOf").index(i), one, false);
        }
    }
    for (i, one) in schema.all_of().iter().enumerate() {
        nested(errors, &path.child("allOf").index(i), one, skip_first && i == 0);
    }
    for (i, one) in schema.one_of().iter().enumerate() {
        nested(errors, &path.child("oneOf").index(i), one, false);
    }
    if let Some(one) = schema.not_() {
        nested(errors, &path.child("not"), one, false);
    }
}

/// A schema below a junctor: it may restrict values, and say nothing of their shape.
fn nested(errors: &mut Errors, path: &Path<'_>, schema: JSONSchemaProps<'_>, skip_any: bool) {
    values(errors, path, schema, skip_any, false);
    if let Some(items) = single(schema.items()) {
        nested(errors, &path.child("items"), items, false);
    }
    for (name, property) in schema.properties().iter() {
        nested(errors, &path.child("properties").key(name), property, false);
    }
    let text = |value: Option<&str>| !value.unwrap_or("").is_empty();
    let found = [
        ("type", text(schema.type_()), "empty"),
        ("additionalProperties", schema.additional_properties().is_some(), "undefined"),
        ("default", schema.default().is_some(), "undefined"),
        ("title", text(schema.title()), "empty"),
        ("description", text(schema.description()), "empty"),
        ("nullable", is(schema.nullable()), "false"),
        ("externalDocs", schema.external_docs().is_some(), "undefined"),
        ("x-kubernetes-preserve-unknown-fields", is(schema.x_kubernetes_preserve_unknown_fields()), "false"),
        ("x-kubernetes-embedded-resource", is(schema.x_kubernetes_embedded_resource()), "false"),
        ("x-kubernetes-int-or-string", is(schema.x_kubernetes_int_or_string()), "false"),
        ("x-kubernetes-list-map-keys", !schema.x_kubernetes_list_map_keys().is_empty(), "empty"),
        ("x-kubernetes-list-type", schema.x_kubernetes_list_type().is_some(), "undefined"),
        ("x-kubernetes-map-type", schema.x_kubernetes_map_type().is_some(), "undefined"),
        ("x-kubernetes-validations", !schema.x_kubernetes_validations().is_empty(), "empty"),
    ];
    for (field, _, wanted) in found.into_iter().filter(|(_, found, _)| *found) {
        errors.push(FieldError::forbidden(&path.child(field), format!("must be {wanted} to be structural")));
    }
    if schema.properties().contains_key("metadata") {
        let properties = path.child("properties");
        errors.push(FieldError::forbidden(&properties.key("metadata"), "must not be specified in a nested context"));
    }
}

/// What is said of below the root's junctors must be said of outside.
fn complete(
    errors: &mut Errors,
    inner: JSONSchemaProps<'_>,
    outer: Option<JSONSchemaProps<'_>>,
    outer_path: &Path<'_>,
    path: &Path<'_>,
) {
    let mut each = |path: &Path<'_>, inner: JSONSchemaProps<'_>| {
        nested_complete(errors, inner, outer, outer_path, path);
    };
    if let Some(one) = inner.not_() {
        each(&path.child("not"), one);
    }
    for (field, list) in [("allOf", inner.all_of()), ("anyOf", inner.any_of()), ("oneOf", inner.one_of())] {
        for (i, one) in list.iter().enumerate() {
            each(&path.child(field).index(i), one);
        }
    }
}

fn nested_complete(
    errors: &mut Errors,
    inner: JSONSchemaProps<'_>,
    outer: Option<JSONSchemaProps<'_>>,
    outer_path: &Path<'_>,
    path: &Path<'_>,
) {
    let Some(outer) = outer else {
        errors.push(FieldError::required(outer_path, format!("because it is defined in {path}")));
        return;
    };
    complete(errors, inner, Some(outer), outer_path, path);
    if let Some(items) = single(inner.items()) {
        let (outer_path, path) = (outer_path.child("items"), path.child("items"));
        nested_complete(errors, items, single(outer.items()), &outer_path, &path);
    }
    for (name, property) in inner.properties().iter() {
        let (outer_path, path) = (outer_path.child("properties"), path.child("properties"));
        let (outer_path, path) = (outer_path.key(name), path.key(name));
        nested_complete(errors, property, outer.properties().get(name), &outer_path, &path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Map, Value};

    fn errors(text: &str) -> Vec<String> {
        let Ok(Value::Map(map)) = crate::json::parse(text.as_bytes()) else { panic!("{text}") };
        let map: Map = map;
        check(&Path::root("s"), JSONSchemaProps(&map)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn shape_is_said_outside() {
        assert_eq!(
            errors(r#"{"type":"object","properties":{"a":{"type":"string"}},"anyOf":[{"required":["a"]}]}"#),
            [""; 0]
        );
        assert_eq!(
            errors(r#"{"type":"object","anyOf":[{"properties":{"a":{"minLength":1}}}]}"#),
            ["s.properties[a]: Required value: because it is defined in s.anyOf[0].properties[a]"]
        );
        assert_eq!(
            errors(
                r#"{"type":"object","properties":{"a":{"x-kubernetes-int-or-string":true,"anyOf":[{"type":"integer"},{"type":"string"}]},"b":{}}}"#
            ),
            ["s.properties[b].type: Required value: must not be empty for specified object fields"]
        );
        assert_eq!(
            errors(
                r#"{"type":"object","properties":{"a":{"type":"string","anyOf":[{"type":"integer"}]},"l":{"type":"array"}}}"#
            ),
            [
                "s.properties[a].anyOf[0].type: Forbidden: must be empty to be structural",
                "s.properties[l].items: Required value: must be specified",
            ]
        );
        assert_eq!(
            errors(
                r#"{"type":"object","properties":{"metadata":{"type":"object","properties":{"labels":{"type":"object"}}}}}"#
            ),
            [
                "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
            ]
        );
    }
}
