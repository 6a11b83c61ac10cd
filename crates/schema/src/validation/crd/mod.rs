//! apiextensions.k8s.io: definitions of kinds. Expressions, patterns and the values of defaults are checked where they are
//! compiled and applied.
//!
//! Upstream judges definitions in an older shape: what all versions have in common is held once, beside the versions.
//! The paths of its messages are of that shape, so [`Shape`] keeps what is common.

mod approval;
mod path;
mod schema;
mod structural;
mod version;

use super::fields::{Errors, immutable, json_list, required, required_of, same};
use super::webhook::{Service, client, review_versions, speaks};
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::apiextensions_v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionSpec,
    CustomResourceDefinitionStatus, CustomResourceDefinitionVersion, CustomResourceValidation, JSONSchemaProps,
};
use api::field::{Raw, go_quote};
use api::{FieldError, Path, names as words};
use approval::approval;
use std::collections::BTreeSet;
use version::{columns, deprecation, selectable, subresources, validation};

const METADATA: Path<'static> = Path::root("metadata");
const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");

/// What is demanded; an update demands no more than what the stored definition fulfils.
struct Demands {
    recognized_reviews: bool,
    names_stay: bool,
    schemas: bool,
    good_bundle: bool,
    of_schemas: schema::Demands,
}

impl Demands {
    fn of_update(old: &Map) -> Self {
        let was = spec_of(old);
        let established = is_established(old);
        let webhook = was.conversion().and_then(|conversion| conversion.webhook());
        let versions = webhook.map_or(List::new(&[]), |webhook| webhook.conversion_review_versions());
        let bundle = webhook.and_then(|webhook| webhook.client_config()).and_then(|config| config.ca_bundle());
        Demands {
            recognized_reviews: versions.is_empty() || versions.iter().any(speaks),
            names_stay: established,
            schemas: was.versions().iter().all(|version| root_schema(version).is_some()),
            good_bundle: established && bundle.is_none_or(is_bundle),
            of_schemas: schema::Demands::of_update(was.versions().iter().filter_map(root_schema)),
        }
    }
}

/// What all versions have in common.
struct Shape {
    schema: bool,
    subresources: bool,
    columns: bool,
    selectable: bool,
}

impl Shape {
    fn of(versions: List<'_, CustomResourceDefinitionVersion<'_>>) -> Self {
        let first = versions.first().map(|version| version.0);
        let common = |field: &str| {
            versions.iter().all(|version| same(version.0.get(field), first.and_then(|first| first.get(field))))
        };
        Shape {
            schema: common("schema"),
            subresources: common("subresources"),
            columns: common("additionalPrinterColumns"),
            selectable: common("selectableFields"),
        }
    }
}

fn spec_of(object: &Map) -> CustomResourceDefinitionSpec<'_> {
    static EMPTY: Map = Map::new();
    CustomResourceDefinition(object).spec().unwrap_or(CustomResourceDefinitionSpec(&EMPTY))
}

fn root_schema(version: CustomResourceDefinitionVersion<'_>) -> Option<JSONSchemaProps<'_>> {
    version.schema().and_then(CustomResourceValidation::open_apiv3_schema)
}

fn is_established(object: &Map) -> bool {
    let conditions = CustomResourceDefinition(object).status().map_or(List::new(&[]), |status| status.conditions());
    conditions.iter().any(|condition| condition.type_() == Some("Established") && condition.status() == Some("True"))
}

pub(super) fn create(object: &Map) -> Errors {
    let demands = Demands {
        recognized_reviews: true,
        names_stay: false,
        schemas: true,
        good_bundle: false,
        of_schemas: schema::Demands::ALL,
    };
    let mut errors = name(object);
    errors.extend(whole(object, None, &demands));
    errors
}

pub(super) fn update(subresource: &str, new: &Map, old: &Map) -> Errors {
    if subresource == "status" {
        let mut errors = Errors::new();
        status(&mut errors, new);
        return errors;
    }
    whole(new, Some(old), &Demands::of_update(old))
}

/// Formats that nothing checks; of an update those that are new.
pub(super) fn warnings(new: &Map, old: Option<&Map>) -> Vec<String> {
    let of = |object: &Map| -> Vec<String> {
        let versions = spec_of(object).versions();
        let common = Shape::of(versions).schema;
        let roots = versions.iter().take(if common { 1 } else { usize::MAX }).filter_map(root_schema);
        roots.flat_map(schema::unrecognized_formats).collect()
    };
    let known = old.map(of).unwrap_or_default();
    let unknown = of(new).into_iter().filter(|format| !known.contains(format));
    unknown.map(|format| format!("unrecognized format {}", go_quote(&format))).collect()
}

fn name(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let spec = spec_of(object);
    let name = object.str_at(&["metadata", "name"]);
    let plural = spec.names().and_then(|names| names.plural()).unwrap_or("");
    if !name.is_empty() && name != format!("{plural}.{}", spec.group().unwrap_or("")) {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid(&METADATA.child("name"), name, why));
    }
    errors
}

fn whole(object: &Map, old: Option<&Map>, demands: &Demands) -> Errors {
    let mut errors = Errors::new();
    let spec = spec_of(object);
    definition(&mut errors, spec, demands);
    if let Some(old) = old {
        let stays = |errors: &mut Errors, path: &Path<'_>, at: &[&str]| {
            immutable(errors, path, object.at(at), old.at(at));
        };
        let names = SPEC.child("names");
        if demands.names_stay {
            stays(&mut errors, &SPEC.child("scope"), &["spec", "scope"]);
            stays(&mut errors, &names.child("kind"), &["spec", "names", "kind"]);
        }
        stays(&mut errors, &SPEC.child("group"), &["spec", "group"]);
        stays(&mut errors, &names.child("plural"), &["spec", "names", "plural"]);
    }
    status(&mut errors, object);
    stored_versions(&mut errors, object);
    approval(&mut errors, object, old);
    let keeps = |object: &Map| spec_of(object).preserve_unknown_fields() == Some(true);
    if keeps(object) && !old.is_some_and(keeps) {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid(&SPEC.child("preserveUnknownFields"), true, why));
    }
    errors
}

fn definition(errors: &mut Errors, spec: CustomResourceDefinitionSpec<'_>, demands: &Demands) {
    let group = spec.group().unwrap_or("");
    let path = SPEC.child("group");
    if required(errors, &path, Some(group)) {
        let bad = words::dns1123_subdomain(group);
        if !bad.is_empty() {
            errors.push(FieldError::invalid(&path, group, bad.join(",")));
        } else if !group.contains('.') {
            errors.push(FieldError::invalid(&path, group, "should be a domain with at least one dot"));
        }
    }
    required_of(errors, &SPEC.child("scope"), spec.scope(), &["Cluster", "Namespaced"]);
    let versions = spec.versions();
    let shape = Shape::of(versions);
    let keeps = spec.preserve_unknown_fields() == Some(true);
    let list = SPEC.child("versions");
    for (i, version) in versions.iter().enumerate().filter(|(_, version)| root_schema(*version).is_none()) {
        let path = list.index(i);
        let path = path.child("schema");
        let path = path.child("openAPIV3Schema");
        if demands.schemas {
            errors.push(FieldError::required(&path, "schemas are required"));
        } else if !keeps && version.served() == Some(true) {
            errors.push(FieldError::required(&path, "because otherwise all fields are pruned"));
        }
    }
    if keeps && versions.iter().filter_map(root_schema).any(schema::has_defaults) {
        let why = "must be false in order to use defaults in the schema";
        errors.push(FieldError::invalid(&SPEC.child("preserveUnknownFields"), true, why));
    }
    let mut seen = BTreeSet::new();
    let mut repeated = false;
    for (i, version) in versions.iter().enumerate() {
        let path = list.index(i);
        let name = version.name().unwrap_or("");
        repeated |= !seen.insert(name);
        let bad = words::dns1035_label(name);
        if !bad.is_empty() {
            errors.push(FieldError::invalid(&path.child("name"), name, bad.join(",")));
        }
        of_version(errors, &path, version, &shape, demands);
    }
    if repeated {
        errors.push(FieldError::invalid(&list, shown(versions, &shape), "must contain unique version names"));
    }
    if versions.iter().filter(|version| version.storage() == Some(true)).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(&list, shown(versions, &shape), why));
    }
    let path = SPEC.child("names");
    let names = spec.names();
    for (field, given) in [
        ("plural", names.and_then(|names| names.plural())),
        ("singular", names.and_then(|names| names.singular())),
        ("kind", names.and_then(|names| names.kind())),
        ("listKind", names.and_then(|names| names.list_kind())),
    ] {
        required(errors, &path.child(field), given);
    }
    self::names(errors, &path, names);
    if let Some(common) = versions.first() {
        of_all(errors, versions, common, &shape, demands);
    }
    conversion(errors, spec.conversion(), keeps, demands);
}

/// What one version has of its own.
fn of_version(
    errors: &mut Errors,
    path: &Path<'_>,
    version: CustomResourceDefinitionVersion<'_>,
    shape: &Shape,
    demands: &Demands,
) {
    deprecation(errors, &path.child("deprecationWarning"), version);
    if !shape.schema {
        let status = version.subresources().is_some_and(|subresources| subresources.status().is_some());
        validation(errors, &path.child("schema"), version.schema(), status, demands);
    }
    if !shape.subresources {
        subresources(errors, &path.child("subresources"), version.subresources());
    }
    if !shape.columns {
        columns(errors, &path.child("additionalPrinterColumns"), version.additional_printer_columns());
    }
    if !shape.selectable && !version.selectable_fields().is_empty() {
        let path = path.child("selectableFields");
        match root_schema(version).filter(|_| !shape.schema) {
            None => {
                let why = "selectableFields may only be set when version.schema.openAPIV3Schema is not included";
                errors.push(FieldError::invalid(&path, "", why));
            }
            Some(schema) => selectable(errors, &path, version.selectable_fields(), schema),
        }
    }
}

/// What all versions have in common, seen at the first one.
fn of_all(
    errors: &mut Errors,
    versions: List<'_, CustomResourceDefinitionVersion<'_>>,
    common: CustomResourceDefinitionVersion<'_>,
    shape: &Shape,
    demands: &Demands,
) {
    if shape.schema {
        let any_status = versions.iter().filter_map(|version| version.subresources()).any(|s| s.status().is_some());
        validation(errors, &SPEC.child("validation"), common.schema(), any_status, demands);
    }
    if shape.subresources {
        subresources(errors, &SPEC.child("subresources"), common.subresources());
    }
    if shape.columns {
        columns(errors, &SPEC.child("additionalPrinterColumns"), common.additional_printer_columns());
    }
    if shape.selectable && !common.selectable_fields().is_empty() {
        let path = SPEC.child("selectableFields");
        match root_schema(common).filter(|_| shape.schema) {
            None => {
                let why = "selectableFields may only be set when validations.schema is included";
                errors.push(FieldError::invalid(&path, "", why));
            }
            Some(schema) => selectable(errors, &path, common.selectable_fields(), schema),
        }
    }
}

/// The versions as upstream shows them, without what they have in common.
fn shown(versions: List<'_, CustomResourceDefinitionVersion<'_>>, shape: &Shape) -> Raw {
    let part = |version: &Map, field: &str, common: bool| {
        let value = version.get(field).filter(|_| !common);
        super::fields::json(value).0
    };
    let one = |version: CustomResourceDefinitionVersion<'_>| {
        format!(
            "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":{},\"Subresources\":{},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
            go_quote(version.name().unwrap_or("")),
            version.served().unwrap_or(false),
            version.storage().unwrap_or(false),
            version.deprecated().unwrap_or(false),
            part(version.0, "deprecationWarning", false),
            part(version.0, "schema", shape.schema),
            part(version.0, "subresources", shape.subresources),
            part(version.0, "additionalPrinterColumns", shape.columns),
            part(version.0, "selectableFields", shape.selectable),
        )
    };
    let parts: Vec<String> = versions.iter().map(one).collect();
    Raw(if parts.is_empty() { "null".to_owned() } else { format!("[{}]", parts.join(",")) })
}

fn names(errors: &mut Errors, path: &Path<'_>, names: Option<CustomResourceDefinitionNames<'_>>) {
    let Some(names) = names else { return };
    let mut label = |path: &Path<'_>, name: &str, mixed: bool| {
        let lower = name.to_lowercase();
        let bad = words::dns1035_label(if mixed { &lower } else { name });
        if !bad.is_empty() {
            let prefix = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
            errors.push(FieldError::invalid(path, name, format!("{prefix}{}", bad.join(","))));
        }
    };
    for (field, given, mixed) in [
        ("plural", names.plural(), false),
        ("singular", names.singular(), false),
        ("kind", names.kind(), true),
        ("listKind", names.list_kind(), true),
    ] {
        if let Some(given) = given.filter(|given| !given.is_empty()) {
            label(&path.child(field), given, mixed);
        }
    }
    for (i, name) in names.short_names().iter().enumerate() {
        label(&path.child("shortNames").index(i), name, false);
    }
    let kind = names.kind().unwrap_or("");
    if !kind.is_empty() && names.list_kind() == Some(kind) {
        let why = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(&path.child("listKind"), kind, why));
    }
    for (i, category) in names.categories().iter().enumerate() {
        let bad = words::dns1035_label(category);
        if !bad.is_empty() {
            errors.push(FieldError::invalid(&path.child("categories").index(i), category, bad.join(",")));
        }
    }
}

fn conversion(errors: &mut Errors, conversion: Option<CustomResourceConversion<'_>>, keeps: bool, demands: &Demands) {
    const ONLY: &str = "should not be set when strategy is not set to Webhook";
    let Some(conversion) = conversion else { return };
    let path = SPEC.child("conversion");
    let strategy = conversion.strategy().unwrap_or("");
    if keeps && strategy != "None" {
        let why = "must be None if spec.preserveUnknownFields is true";
        errors.push(FieldError::invalid(&path.child("strategy"), strategy, why));
    }
    required_of(errors, &path.child("strategy"), Some(strategy), &["None", "Webhook"]);
    let webhook = conversion.webhook();
    let config = webhook.and_then(|webhook| webhook.client_config());
    let versions = webhook.map_or(List::new(&[]), |webhook| webhook.conversion_review_versions());
    let (config_path, versions_path) = (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    if strategy != "Webhook" {
        if config.is_some() {
            errors.push(FieldError::forbidden(&config_path, ONLY));
        }
        if !versions.is_empty() {
            errors.push(FieldError::forbidden(&versions_path, ONLY));
        }
        return;
    }
    match config {
        None => errors.push(FieldError::required(&config_path, "required when strategy is set to Webhook")),
        Some(config) => {
            let service = config.service().map(|service| Service {
                name: service.name().unwrap_or(""),
                namespace: service.namespace().unwrap_or(""),
                path: service.path(),
                port: service.port().unwrap_or(0),
            });
            client(errors, &config_path, config.url(), service);
            if let Some(bundle) = config.ca_bundle().filter(|b| demands.good_bundle && !b.is_empty() && !is_bundle(b)) {
                let why = "unable to load root certificates: unable to parse bytes as PEM block";
                errors.push(FieldError::invalid(&config_path.child("caBundle"), bundle, why));
            }
        }
    }
    review_versions(errors, &versions_path, versions, demands.recognized_reviews, "");
}

/// Whether base64 text stands for PEM with a certificate in it. Whether that can be read is for who calls the webhook.
fn is_bundle(text: &str) -> bool {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    memchr::memmem::find(&bytes, b"-----BEGIN CERTIFICATE-----").is_some()
}

fn status(errors: &mut Errors, object: &Map) {
    let names = CustomResourceDefinition(object).status().and_then(|status| status.accepted_names());
    self::names(errors, &STATUS.child("acceptedNames"), names);
}

fn stored_versions(errors: &mut Errors, object: &Map) {
    static EMPTY: Map = Map::new();
    let status = CustomResourceDefinition(object).status().unwrap_or(CustomResourceDefinitionStatus(&EMPTY));
    let path = STATUS.child("storedVersions");
    let stored = status.stored_versions();
    if stored.is_empty() {
        errors.push(FieldError::invalid(&path, json_list(stored), "must have at least one stored version"));
        return;
    }
    let versions = spec_of(object).versions();
    for version in versions.iter().filter(|version| version.storage() == Some(true)) {
        let name = version.name().unwrap_or("");
        if !stored.iter().any(|one| one == name) {
            let why = format!("must have the storage version {name}");
            errors.push(FieldError::invalid(&path, json_list(stored), why));
        }
    }
    for (i, name) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version.name() == Some(name)) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(FieldError::invalid(&path.index(i), name, why));
        }
    }
}

/// The value of a field that may be a list of schemas, or one.
fn single(value: Option<&Value>) -> Option<JSONSchemaProps<'_>> {
    value.and_then(Value::as_map).map(JSONSchemaProps)
}
