//! The rules of OpenAPI schemas that do not ask for structure.

use super::{path, single, structural};
use crate::tree::{Map, Value};
use crate::validation::fields::{Errors, json, json_list};
use crate::view::List;
use crate::view::apiextensions_v1::{JSONSchemaProps, ValidationRule};
use api::{FieldError, Path};
use std::collections::BTreeSet;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// What may be said at the root of a schema of which the status is judged alone, and how upstream calls it.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];
/// What upstream does not take, and how it says so.
const UNSUPPORTED: [&str; 6] = ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
const FORMATS: [&str; 28] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "quantity",
    "k8sshortname",
    "k8slongname",
    "",
];

/// What is demanded of schemas.
pub(super) struct Demands {
    valid_types: bool,
    atomic_sets: bool,
    map_keys: bool,
}

impl Demands {
    pub(super) const ALL: Demands = Demands { valid_types: true, atomic_sets: true, map_keys: true };

    /// No more than what the stored schemas fulfil.
    pub(super) fn of_update<'a>(roots: impl Iterator<Item = JSONSchemaProps<'a>>) -> Self {
        let mut demands = Demands::ALL;
        for root in roots {
            any(root, &mut |schema| {
                let kind = schema.type_().unwrap_or("");
                demands.valid_types &= kind.is_empty() || TYPES.contains(&kind);
                demands.atomic_sets &= set_items(schema).is_none();
                let mut errors = Errors::new();
                map_keys(&mut errors, &Path::root(""), schema);
                demands.map_keys &= errors.is_empty();
                false
            });
        }
        demands
    }
}

/// Where in a definition a schema is.
#[derive(Clone, Copy)]
struct Place<'a> {
    root: bool,
    /// Inside of what describes kind, version or metadata.
    meta: bool,
    /// Why there may be no defaults.
    no_defaults: Option<&'a str>,
}

/// The schemas right below one, with the field that they are in.
fn below<'a>(schema: JSONSchemaProps<'a>, each: &mut dyn FnMut(JSONSchemaProps<'a>)) {
    if let Some(Value::List(items)) = schema.items() {
        List::new(items).iter().for_each(&mut *each);
    }
    single(schema.items()).into_iter().for_each(&mut *each);
    for list in [schema.all_of(), schema.any_of(), schema.one_of()] {
        list.iter().for_each(&mut *each);
    }
    schema.not_().into_iter().for_each(&mut *each);
    schema.properties().iter().for_each(|(_, schema)| each(schema));
    single(schema.additional_properties()).into_iter().for_each(&mut *each);
    schema.pattern_properties().iter().for_each(|(_, schema)| each(schema));
    single(schema.additional_items()).into_iter().for_each(&mut *each);
    schema.definitions().iter().for_each(|(_, schema)| each(schema));
    schema.dependencies().iter().filter_map(|(_, value)| single(Some(value))).for_each(&mut *each);
}

/// Whether any of a schema and those below it is as asked.
fn any<'a>(schema: JSONSchemaProps<'a>, asked: &mut dyn FnMut(JSONSchemaProps<'a>) -> bool) -> bool {
    if asked(schema) {
        return true;
    }
    let mut found = false;
    below(schema, &mut |schema| found = found || any(schema, asked));
    found
}

pub(super) fn has_defaults(schema: JSONSchemaProps<'_>) -> bool {
    any(schema, &mut |schema| schema.default().is_some())
}

/// Formats that mean nothing for their type.
pub(super) fn unrecognized_formats(root: JSONSchemaProps<'_>) -> Vec<String> {
    let mut unknown = Vec::new();
    any(root, &mut |schema| {
        let format = schema.format().unwrap_or("");
        let known = match schema.type_().unwrap_or("") {
            "" | "string" => FORMATS.contains(&format.replace('-', "").as_str()),
            "integer" => matches!(format, "" | "int32" | "int64"),
            "number" => matches!(format, "" | "float" | "double"),
            _ => format.is_empty(),
        };
        if !known {
            unknown.push(format.to_owned());
        }
        false
    });
    unknown
}

/// A whole schema.
pub(super) fn root(errors: &mut Errors, path: &Path<'_>, schema: JSONSchemaProps<'_>, status: bool, demands: &Demands) {
    if status {
        status_root(errors, path, schema);
    }
    if schema.nullable() == Some(true) {
        errors.push(FieldError::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    errors.extend(structural::check(path, schema));
    props(errors, path, schema, Place { root: true, meta: false, no_defaults: None }, demands);
}

/// The status is judged by its own part of the schema, so nothing at the root may be about more than one part.
fn status_root(errors: &mut Errors, path: &Path<'_>, schema: JSONSchemaProps<'_>) {
    let kind = schema.type_().unwrap_or("");
    if !matches!(kind, "" | "object") {
        let why =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.push(FieldError::invalid(&path.child("type"), kind, why));
    } else if schema.0.iter().any(|(key, _)| AT_ROOT.iter().all(|(allowed, _)| *allowed != key)) {
        let allowed: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
        let why = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            allowed.join(" ")
        );
        errors.push(FieldError::invalid(path, super::super::fields::json_map(schema.0), why));
    }
}

fn props(errors: &mut Errors, path: &Path<'_>, schema: JSONSchemaProps<'_>, place: Place<'_>, demands: &Demands) {
    supported(errors, path, schema, place, demands);
    if schema.unique_items() == Some(true) {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(&path.child("uniqueItems"), why));
    }
    deeper(errors, path, schema, place, demands);
    if schema.x_kubernetes_preserve_unknown_fields() == Some(false) {
        let path = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(&path, false, "must be true or undefined"));
    }
    topology(errors, path, schema, demands);
    if demands.map_keys {
        map_keys(errors, path, schema);
    }
    for (i, rule) in schema.x_kubernetes_validations().iter().enumerate() {
        self::rule(errors, &path.child("x-kubernetes-validations").index(i), rule, schema);
    }
}

fn supported(errors: &mut Errors, path: &Path<'_>, schema: JSONSchemaProps<'_>, place: Place<'_>, demands: &Demands) {
    let kind = schema.type_().unwrap_or("");
    if demands.valid_types && !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("type"), kind, &TYPES));
    }
    if let Some(reason) = place.no_defaults.filter(|_| schema.default().is_some()) {
        errors.push(FieldError::forbidden(&path.child("default"), format!("must not be set {reason}")));
    }
    let given = |field: &str| match schema.0.get(field) {
        None | Some(Value::Null) => false,
        Some(Value::Str(text)) => !text.is_empty() || field == "$ref",
        Some(Value::Map(map)) => !map.is_empty() || matches!(field, "dependencies" | "additionalItems"),
        Some(_) => true,
    };
    for field in UNSUPPORTED.into_iter().filter(|field| given(field)) {
        errors.push(FieldError::forbidden(&path.child(field), format!("{field} is not supported")));
    }
    if kind == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        errors.push(FieldError::forbidden(&path.child("type"), why));
    }
    if schema.items().and_then(Value::as_list).is_some_and(|list| !list.is_empty()) {
        errors.push(FieldError::forbidden(&path.child("items"), "items must be a schema object and not an array"));
    }
    if place.meta && schema.x_kubernetes_embedded_resource() == Some(true) {
        let why = "must not be used inside of resource meta";
        errors.push(FieldError::forbidden(&path.child("x-kubernetes-embedded-resource"), why));
    }
}

/// The schemas below.
fn deeper(errors: &mut Errors, path: &Path<'_>, schema: JSONSchemaProps<'_>, place: Place<'_>, demands: &Demands) {
    let inside = Place { root: false, ..place };
    if let Some(value) = schema.additional_properties() {
        let path = path.child("additionalProperties");
        if !schema.properties().is_empty() && value.as_bool() != Some(true) {
            let why = "additionalProperties and properties are mutual exclusive";
            errors.push(FieldError::forbidden(&path, why));
        }
        if let Some(schema) = single(Some(value)) {
            // What is kept of a value depends on the value, so a default could not be cut to what is kept.
            let reason = "inside additionalProperties applying to object metadata";
            let no_defaults = if place.meta { Some(reason) } else { place.no_defaults };
            props(errors, &path, schema, Place { no_defaults, ..inside }, demands);
        }
    }
    let embedded = schema.x_kubernetes_embedded_resource() == Some(true);
    for (name, schema) in schema.properties().iter() {
        let path = path.child("properties");
        let path = path.key(name);
        let meta = (place.root || embedded) && matches!(name, "metadata" | "kind" | "apiVersion");
        let reason = format!("in top-level {name}");
        let no_defaults = if meta && place.root { Some(reason.as_str()) } else { place.no_defaults };
        props(errors, &path, schema, Place { meta: meta || place.meta, no_defaults, ..inside }, demands);
    }
    for (name, schema) in schema.pattern_properties().iter() {
        let path = path.child("patternProperties");
        props(errors, &path.key(name), schema, inside, demands);
    }
    if let Some(schema) = single(schema.additional_items()) {
        props(errors, &path.child("additionalItems"), schema, inside, demands);
    }
    if let Some(schema) = schema.not_() {
        props(errors, &path.child("not"), schema, inside, demands);
    }
    for (field, list) in [("allOf", schema.all_of()), ("oneOf", schema.one_of()), ("anyOf", schema.any_of())] {
        for (i, schema) in list.iter().enumerate() {
            props(errors, &path.child(field).index(i), schema, inside, demands);
        }
    }
    for (name, schema) in schema.definitions().iter() {
        props(errors, &path.child("definitions").key(name), schema, inside, demands);
    }
    let items = path.child("items");
    if let Some(schema) = single(schema.items()) {
        props(errors, &items, schema, inside, demands);
    }
    let several = schema.items().and_then(Value::as_list).unwrap_or_default();
    for (i, schema) in List::new(several).iter().enumerate() {
        props(errors, &items.index(i), schema, inside, demands);
    }
    for (name, schema) in schema.dependencies().iter().filter_map(|(name, of)| Some((name, single(Some(of))?))) {
        props(errors, &path.child("dependencies").key(name), schema, inside, demands);
    }
}

/// How lists and maps are merged.
fn topology(errors: &mut Errors, path: &Path<'_>, schema: JSONSchemaProps<'_>, demands: &Demands) {
    let kind = schema.type_().unwrap_or("");
    let needs = |errors: &mut Errors, wanted: &str, field: &str| {
        let why = format!("must be {wanted} if {field} is specified");
        let path = path.child("type");
        if kind.is_empty() {
            errors.push(FieldError::required(&path, why));
        } else {
            errors.push(FieldError::invalid(&path, kind, why));
        }
    };
    let (map_path, list_path) = (path.child("x-kubernetes-map-type"), path.child("x-kubernetes-list-type"));
    let (map, list) = (schema.x_kubernetes_map_type(), schema.x_kubernetes_list_type());
    if map.is_some() && kind != "object" {
        needs(errors, "object", "x-kubernetes-map-type");
    }
    if let Some(map) = map.filter(|map| !matches!(*map, "atomic" | "granular")) {
        errors.push(FieldError::not_supported(&map_path, map, &["atomic", "granular"]));
    }
    if list.is_some() && kind != "array" {
        needs(errors, "array", "x-kubernetes-list-type");
    } else if demands.atomic_sets
        && let Some((field, shown)) = set_items(schema)
    {
        let items = path.child("items");
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        errors.push(FieldError::invalid(&items.child(field), json(shown), why));
    }
    if let Some(list) = list.filter(|list| !matches!(*list, "atomic" | "set" | "map")) {
        errors.push(FieldError::not_supported(&list_path, list, &["atomic", "set", "map"]));
    }
    let keys = schema.x_kubernetes_list_map_keys();
    if !keys.is_empty() {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list {
            None => errors.push(FieldError::required(&list_path, why)),
            Some("map") => {}
            Some(list) => errors.push(FieldError::invalid(&list_path, list, why)),
        }
    }
    if list == Some("map") {
        map_list(errors, path, schema);
    }
}

/// What about the items of a set keeps them from being compared as a whole: the field, and what upstream shows of it.
fn set_items<'a>(schema: JSONSchemaProps<'a>) -> Option<(&'static str, Option<&'a Value>)> {
    let items = single(schema.items()).filter(|_| schema.x_kubernetes_list_type() == Some("set"))?;
    let shown = items.0.get("x-kubernetes-list-type");
    match items.type_()? {
        "array" if items.x_kubernetes_list_type().is_some_and(|list| list != "atomic") => {
            Some(("x-kubernetes-list-type", shown))
        }
        "object" if items.x_kubernetes_map_type() != Some("atomic") => Some(("x-kubernetes-map-type", shown)),
        _ => None,
    }
}

fn map_list(errors: &mut Errors, path: &Path<'_>, schema: JSONSchemaProps<'_>) {
    let keys_path = path.child("x-kubernetes-list-map-keys");
    let keys = schema.x_kubernetes_list_map_keys();
    if keys.is_empty() {
        errors.push(FieldError::required(&keys_path, "must not be empty if x-kubernetes-list-type is map"));
    }
    let items_path = path.child("items");
    let Some(items) = schema.items() else {
        errors.push(FieldError::required(&items_path, "must have a schema if x-kubernetes-list-type is map"));
        return;
    };
    let Some(items) = single(Some(items)) else {
        let why = "must only have a single schema if x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(&items_path, json(Some(items)), why));
        return;
    };
    let kind = items.type_().unwrap_or("");
    if kind != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(&items_path.child("type"), kind, why));
        return;
    }
    let mut seen = BTreeSet::new();
    for key in keys.iter() {
        match items.properties().get(key) {
            Some(property) if matches!(property.type_(), Some("array" | "object")) => {
                let path = items_path.child("properties");
                let path = path.key(key);
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.push(FieldError::invalid(&path.child("type"), kind, why));
            }
            Some(_) => {}
            None => {
                let why = "entries must all be names of item properties";
                errors.push(FieldError::invalid(&keys_path, json_list(keys), why));
            }
        }
        if !seen.insert(key) {
            errors.push(FieldError::invalid(&keys_path, json_list(keys), "must not contain duplicate entries"));
        }
    }
}

/// Every item of a set or a map has an identity.
fn map_keys(errors: &mut Errors, path: &Path<'_>, schema: JSONSchemaProps<'_>) {
    let (Some(items), Some(list @ ("set" | "map"))) = (single(schema.items()), schema.x_kubernetes_list_type()) else {
        return;
    };
    let path = path.child("items");
    if items.nullable() == Some(true) {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {list}");
        errors.push(FieldError::forbidden(&path.child("nullable"), why));
    }
    for key in schema.x_kubernetes_list_map_keys().iter().filter(|_| list == "map") {
        let Some(property) = items.properties().get(key) else { continue };
        let path = path.child("properties");
        let path = path.key(key);
        if !items.required().iter().any(|required| required == key) && property.default().is_none() {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(FieldError::required(&path.child("default"), why));
        }
        if property.nullable() == Some(true) {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(FieldError::forbidden(&path.child("nullable"), why));
        }
    }
}

/// What accompanies an expression.
fn rule(errors: &mut Errors, path: &Path<'_>, rule: ValidationRule<'_>, schema: JSONSchemaProps<'_>) {
    let breaks = |text: &str| text.contains(['\n', '\r']);
    let (expression, message) = (rule.rule().unwrap_or("").trim(), rule.message().unwrap_or(""));
    let message_path = path.child("message");
    if expression.is_empty() {
        errors.push(FieldError::required(&path.child("rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.push(FieldError::invalid(&message_path, message, "message must be non-empty if specified"));
    } else if breaks(message.trim()) {
        errors.push(FieldError::invalid(&message_path, message, "message must not contain line breaks"));
    } else if breaks(expression) && message.is_empty() {
        errors.push(FieldError::required(&message_path, "message must be specified if rule contains line breaks"));
    }
    let of_message = rule.message_expression().unwrap_or("");
    if !of_message.is_empty() && of_message.trim().is_empty() {
        let why = "messageExpression must be non-empty if specified";
        errors.push(FieldError::required(&path.child("messageExpression"), why));
    }
    crate::validation::fields::supported_of(errors, &path.child("reason"), rule.reason(), &REASONS);
    let field = rule.field_path().unwrap_or("");
    let field_path = path.child("fieldPath");
    let mut refuse = |why: &str| errors.push(FieldError::invalid(&field_path, field, why));
    if field.is_empty() {
        return;
    }
    if field.trim().is_empty() {
        refuse("fieldPath must be non-empty if specified");
    }
    if breaks(field) {
        refuse("fieldPath must not contain line breaks");
    }
    if !path::leads(field, schema) {
        refuse("fieldPath must be a valid path");
    }
}

/// The map of a schema that is nothing but a type.
pub(super) fn only_type(schema: &Map, kind: &str) -> bool {
    schema.len() == 1 && schema.get("type").and_then(Value::as_str) == Some(kind)
}
