//! The type graph as it is drawn: structure from `k8s-openapi`, the rest from the tables.

use crate::resources::{Resource, package};
use crate::rows::{code, flag};
use crate::tables::{FieldRow, Topology, Types, full_name};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) struct Model {
    /// Sorted by name.
    pub(crate) structs: Vec<Struct>,
}

#[derive(Clone)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) flags: u16,
    pub(crate) fields: Vec<Field>,
    pub(crate) groups: Vec<Group>,
}

#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) number: u16,
    pub(crate) parent: u8,
    pub(crate) pointer: bool,
}

#[derive(Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) ty: Ty,
    pub(crate) flags: u16,
    pub(crate) number: u16,
    pub(crate) group: u8,
    pub(crate) topology: Topology,
    pub(crate) default: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ty {
    Scalar(u8),
    List(Box<Ty>),
    Map(Box<Ty>),
    Struct(String),
    OrBool(Box<Ty>),
    OrList(Box<Ty>),
    OrStrings(Box<Ty>),
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

impl Model {
    pub(crate) fn build(definitions: &Map<String, Value>, mut tables: Types, resources: &[Resource]) -> Model {
        let mut structs = BTreeMap::new();
        for (name, definition) in definitions {
            if matches!(named(name), Ty::Struct(_)) {
                structs.insert(name.clone(), structure(name, definition, &mut tables));
            }
        }
        for resource in resources.iter().filter(|r| r.verbs.contains("list")) {
            let mut list = list_of(&resource.type_name, &resource.kind);
            if resource.alias_of.is_some() {
                list.flags |= flag::ALIAS;
            }
            structs.insert(list.name.clone(), list);
        }
        let missing: Vec<String> = tables.rows.iter().filter(|(_, row)| !row.used).map(|(n, _)| n.clone()).collect();
        for name in missing {
            let row = &tables.rows[&name];
            assert!(
                !row.fields.is_empty() && row.fields.iter().all(|f| f.ty.is_some()),
                "tables/types.txt:{}: there is no type {name}",
                row.line
            );
            let made = by_hand(&name, &row.fields);
            structs.insert(name, made);
        }
        for resource in resources {
            if let Some(of) = &resource.alias_of {
                let package = package(&resource.group);
                let (from, to) = (format!("{package}.{of}."), format!("{package}.{}.", resource.version));
                rename(&resource.kind, &from, &to, &mut structs);
            }
        }
        for resource in resources {
            if let Some(like) = &resource.like {
                let package = package(&resource.group);
                let (own, others) = (format!("{package}.{}.", resource.version), format!("{package}.{like}."));
                mark(&own, &others, &mut structs);
            }
        }
        let mut structs: Vec<Struct> = structs.into_values().collect();
        mark_quantities(&mut structs);
        for s in &structs {
            for field in &s.fields {
                field.ty.each_struct(&mut |name| {
                    assert!(
                        structs.binary_search_by(|s| s.name.as_str().cmp(name)).is_ok(),
                        "{}.{}: there is no type {name}",
                        s.name,
                        field.name
                    );
                });
            }
        }
        Model { structs }
    }

    pub(crate) fn number(&self, name: &str) -> usize {
        self.structs
            .binary_search_by(|s| s.name.as_str().cmp(name))
            .unwrap_or_else(|_| panic!("there is no type {name}"))
    }
}

/// Marks the fields that are quantities, or have some in them.
fn mark_quantities(structs: &mut [Struct]) {
    let mut with: BTreeSet<String> = BTreeSet::new();
    loop {
        let known = with.len();
        for s in structs.iter_mut() {
            for field in &mut s.fields {
                let mut found = field.ty.innermost() == &Ty::Scalar(code::QUANTITY);
                field.ty.each_struct(&mut |name| found |= with.contains(name));
                if found {
                    field.flags |= flag::QUANTITIES;
                    with.insert(s.name.clone());
                }
            }
        }
        if with.len() == known {
            return;
        }
    }
}

/// Marks the types of one version whose fields are those of another as ruled as these.
fn mark(own: &str, others: &str, structs: &mut BTreeMap<String, Struct>) {
    let fields = |s: &Struct| s.fields.iter().map(|field| field.name.clone()).collect::<Vec<_>>();
    let names: Vec<String> = structs.keys().filter(|name| name.starts_with(own)).cloned().collect();
    for name in names {
        let other = structs.get(&name.replacen(own, others, 1)).map(fields);
        if let Some(s) = structs.get_mut(&name).filter(|s| other.is_some_and(|other| other == fields(s))) {
            s.flags |= flag::ALIAS;
        }
    }
}

/// Adds a type of one version under the name of another, with all that it reaches within its own version.
fn rename(name: &str, from: &str, to: &str, structs: &mut BTreeMap<String, Struct>) {
    let renamed = format!("{to}{name}");
    if structs.contains_key(&renamed) {
        return;
    }
    let Some(mut made) = structs.get(&format!("{from}{name}")).cloned() else {
        panic!("there is no type {from}{name}")
    };
    let mut reached = Vec::new();
    for field in &mut made.fields {
        field.ty.each_struct_mut(&mut |name| {
            if let Some(rest) = name.strip_prefix(from) {
                reached.push(rest.to_owned());
                *name = format!("{to}{rest}");
            }
        });
    }
    made.name.clone_from(&renamed);
    made.flags |= flag::ALIAS;
    structs.insert(renamed, made);
    reached.iter().for_each(|name| rename(name, from, to, structs));
}

impl Ty {
    fn each_struct_mut(&mut self, see: &mut impl FnMut(&mut String)) {
        match self {
            Ty::Scalar(_) => {}
            Ty::Struct(name) => see(name),
            Ty::List(of) | Ty::Map(of) | Ty::OrBool(of) | Ty::OrList(of) | Ty::OrStrings(of) => of.each_struct_mut(see),
        }
    }

    fn innermost(&self) -> &Ty {
        match self {
            Ty::Scalar(_) | Ty::Struct(_) => self,
            Ty::List(of) | Ty::Map(of) | Ty::OrBool(of) | Ty::OrList(of) | Ty::OrStrings(of) => of.innermost(),
        }
    }

    fn each_struct(&self, see: &mut impl FnMut(&str)) {
        match self {
            Ty::Scalar(_) => {}
            Ty::Struct(name) => see(name),
            Ty::List(of) | Ty::Map(of) | Ty::OrBool(of) | Ty::OrList(of) | Ty::OrStrings(of) => of.each_struct(see),
        }
    }
}

/// The type that a definition's name stands for.
fn named(name: &str) -> Ty {
    let props = || Box::new(Ty::Struct(full_name("apiextensions.v1.JSONSchemaProps")));
    match name.strip_prefix("io.k8s.").unwrap_or(name) {
        "apimachinery.pkg.api.resource.Quantity" => Ty::Scalar(code::QUANTITY),
        "apimachinery.pkg.util.intstr.IntOrString" => Ty::Scalar(code::INT_OR_STRING),
        "apimachinery.pkg.apis.meta.v1.Time" => Ty::Scalar(code::TIME),
        "apimachinery.pkg.apis.meta.v1.MicroTime" => Ty::Scalar(code::MICRO_TIME),
        "apimachinery.pkg.apis.meta.v1.Duration" => Ty::Scalar(code::DURATION),
        "apimachinery.pkg.apis.meta.v1.FieldsV1" => Ty::Scalar(code::FIELDS),
        "apimachinery.pkg.runtime.RawExtension" => Ty::Scalar(code::RAW),
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON" => Ty::Scalar(code::JSON),
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool" => Ty::OrBool(props()),
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray" => Ty::OrList(props()),
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => Ty::OrStrings(props()),
        _ => Ty::Struct(name.to_owned()),
    }
}

/// The type that a JSON schema describes.
fn described(schema: &Value, place: &str) -> Ty {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        return named(reference.rsplit('/').next().unwrap_or(reference));
    }
    if let Some(one) = schema.get("allOf").and_then(|all| all.get(0)) {
        return described(one, place);
    }
    let text = |key| schema.get(key).and_then(Value::as_str).unwrap_or("");
    match (text("type"), text("format")) {
        ("string", "") => Ty::Scalar(code::STRING),
        ("string", "byte") => Ty::Scalar(code::BYTES),
        ("boolean", "") => Ty::Scalar(code::BOOL),
        ("integer", "int32") => Ty::Scalar(code::INT32),
        ("integer", "int64") => Ty::Scalar(code::INT64),
        ("number", "double") => Ty::Scalar(code::FLOAT),
        ("array", "") => Ty::List(Box::new(described(&schema["items"], place))),
        ("object", "") if schema.get("additionalProperties").is_some() => {
            Ty::Map(Box::new(described(&schema["additionalProperties"], place)))
        }
        _ => panic!("{place}: what is {schema}?"),
    }
}

/// The type of a hand-written field.
fn written(text: &str) -> Ty {
    match text {
        "string" => Ty::Scalar(code::STRING),
        "raw" => Ty::Scalar(code::RAW),
        _ => match text.strip_prefix("[]") {
            Some(of) => Ty::List(Box::new(written(of))),
            None => named(&full_name(text)),
        },
    }
}

fn structure(name: &str, definition: &Value, tables: &mut Types) -> Struct {
    let doc = |schema: &Value| schema.get("description").and_then(Value::as_str).unwrap_or("").to_owned();
    let mut rows = Vec::new();
    let mut groups = Vec::new();
    flatten(name, 0, tables, &mut rows, &mut groups);
    let atomic = tables.rows[name].atomic;
    let required: Vec<&str> = definition
        .get("required")
        .and_then(Value::as_array)
        .map(|all| all.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let empty = Map::new();
    let properties = definition.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let mut fields = Vec::new();
    for (field, schema) in properties {
        let place = format!("{name}.{field}");
        let (group, row) = match rows.iter().position(|(_, row)| row.name == *field) {
            Some(at) => rows.swap_remove(at),
            // metav1.TypeMeta is inlined and has no protobuf form.
            None if field == "apiVersion" || field == "kind" => (0, type_meta(field)),
            None => panic!("tables/types.txt: {place} has no row"),
        };
        let mut made = from_row(&row, group, described(schema, &place));
        made.doc = doc(schema);
        // k8s-openapi requires what is no Option in Rust; upstream never requires metadata.
        if field != "metadata" && required.contains(&field.as_str()) {
            made.flags |= flag::REQUIRED;
        }
        fields.push(made);
    }
    if let Some((_, row)) = rows.first() {
        panic!("tables/types.txt:{}: {name} has no field {}", row.line, row.name);
    }
    finish(Struct {
        name: name.to_owned(),
        doc: doc(definition),
        flags: if atomic { flag::ATOMIC } else { 0 },
        fields,
        groups,
    })
}

/// Collects the rows of a type and, as groups, of the types embedded in it.
fn flatten(name: &str, group: u8, tables: &mut Types, rows: &mut Vec<(u8, FieldRow)>, groups: &mut Vec<Group>) {
    let Some(row) = tables.rows.get_mut(name) else { panic!("tables/types.txt: {name} has no row") };
    row.used = true;
    rows.extend(row.fields.iter().map(|field| (group, field.clone())));
    for embedded in row.embedded.clone() {
        groups.push(Group { number: embedded.number, parent: group, pointer: embedded.pointer });
        let number = u8::try_from(groups.len()).expect("few structs are embedded");
        flatten(&embedded.ty, number, tables, rows, groups);
    }
}

fn type_meta(name: &str) -> FieldRow {
    FieldRow {
        line: 0,
        name: name.to_owned(),
        number: 0,
        flags: flag::OMIT_EMPTY,
        topology: Topology::default(),
        default: None,
        ty: None,
    }
}

fn from_row(row: &FieldRow, group: u8, ty: Ty) -> Field {
    let mut topology = row.topology.clone();
    // The tables write both as `atomic`: which one is meant follows from the type.
    if matches!(ty, Ty::List(_)) {
        topology.atomic_map = false;
    } else if topology.list == Some("Atomic") {
        topology.list = None;
    }
    Field {
        name: row.name.clone(),
        doc: String::new(),
        ty,
        flags: row.flags,
        number: row.number,
        group,
        topology,
        default: row.default.clone(),
    }
}

fn by_hand(name: &str, rows: &[FieldRow]) -> Struct {
    let ty = |row: &FieldRow| written(row.ty.as_deref().unwrap_or_default());
    finish(Struct {
        name: name.to_owned(),
        doc: String::new(),
        flags: 0,
        fields: rows.iter().map(|row| from_row(row, 0, ty(row))).collect(),
        groups: Vec::new(),
    })
}

fn list_of(item: &str, kind: &str) -> Struct {
    let field = |name: &str, doc: &str, ty, flags, number| Field {
        name: name.to_owned(),
        doc: doc.to_owned(),
        ty,
        flags,
        number,
        group: 0,
        topology: Topology::default(),
        default: None,
    };
    let string = Ty::Scalar(code::STRING);
    finish(Struct {
        name: format!("{item}List"),
        doc: format!("{kind}List is a list of {kind} objects."),
        flags: 0,
        fields: vec![
            field(
                "apiVersion",
                "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
                string.clone(),
                flag::OMIT_EMPTY,
                0,
            ),
            field(
                "items",
                &format!("items is the list of {kind} objects."),
                Ty::List(Box::new(Ty::Struct(item.to_owned()))),
                flag::REQUIRED,
                2,
            ),
            field(
                "kind",
                "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
                string,
                flag::OMIT_EMPTY,
                0,
            ),
            field(
                "metadata",
                "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
                named(&format!("{META}ListMeta")),
                flag::OMIT_EMPTY,
                1,
            ),
        ],
        groups: Vec::new(),
    })
}

/// Sorts the fields, and notes whether some are present even when nothing was given.
fn finish(mut made: Struct) -> Struct {
    made.fields.sort_by(|a, b| a.name.cmp(&b.name));
    let always = made.fields.iter().any(|field| {
        let struct_like = !matches!(
            field.ty,
            Ty::List(_)
                | Ty::Map(_)
                | Ty::Scalar(code::STRING | code::BOOL | code::INT32 | code::INT64 | code::FLOAT | code::BYTES)
        );
        let omit = if struct_like && field.flags & flag::POINTER == 0 { flag::OMIT_ZERO } else { flag::OMIT_EMPTY };
        field.flags & omit == 0
    });
    if always {
        made.flags |= flag::ALWAYS;
    }
    made
}
