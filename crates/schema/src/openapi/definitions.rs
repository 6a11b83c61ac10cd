//! The definitions of types, collected as they are referred to.

use super::enums::{self, Enum};
use super::{Version, map, meta};
use crate::json;
use crate::resource::Resource;
use crate::tree::{Map, Value};
use crate::types::{Docs, Field, Kind, ListType, Struct, TypeRef};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Definitions of one document.
pub(super) struct Definitions<'d> {
    version: Version,
    docs: &'d Docs,
    /// Whether enumerations are told.
    enums: bool,
    /// Structs by name, those still to be looked through last.
    structs: BTreeMap<&'static str, Struct<'d>>,
    queue: Vec<Struct<'d>>,
    scalars: BTreeSet<&'static str>,
    lists: BTreeMap<String, Map>,
    /// Struct → the kinds it is.
    kinds: BTreeMap<&'static str, Vec<Map>>,
}

impl<'d> Definitions<'d> {
    pub(super) fn new(version: Version, docs: &'d Docs, enums: bool) -> Self {
        Definitions {
            version,
            docs,
            enums,
            structs: BTreeMap::new(),
            queue: Vec::new(),
            scalars: BTreeSet::new(),
            lists: BTreeMap::new(),
            kinds: BTreeMap::new(),
        }
    }

    /// A reference to a struct, which is then defined.
    pub(super) fn struct_reference(&mut self, s: Struct<'d>) -> Map {
        if self.structs.insert(s.name(), s).is_none() {
            self.queue.push(s);
        }
        self.version.reference(s.name())
    }

    /// A reference to the type of a kind, noted as that kind.
    pub(super) fn kind_reference(&mut self, ty: TypeRef<'d>, group: &str, version: &str, kind: &str) -> Option<Map> {
        let s = ty.as_struct()?;
        let gvk = map([("group", group.into()), ("kind", kind.into()), ("version", version.into())]);
        let kinds = self.kinds.entry(s.name()).or_default();
        if !kinds.contains(&gvk) {
            kinds.push(gvk);
        }
        Some(self.struct_reference(s))
    }

    /// A reference to the list of a row's kind.
    pub(super) fn list_reference(&mut self, row: &'d Resource) -> Option<Map> {
        let item = self.kind_reference(row.schema.root(), &row.group, &row.version, &row.kind)?;
        let name = row.schema.root().as_struct()?.name();
        let list = format!("{}List", name);
        let meta = self.named(&format!("{META}.ListMeta"));
        let text = |description: &str| {
            let mut m = map([("type", "string".into())]);
            m.insert("description", description.to_owned());
            Value::Map(m)
        };
        let items = map([
            ("description", format!("items is the list of {} objects.", row.kind).into()),
            ("items", item.into()),
            ("type", "array".into()),
        ]);
        let properties = map([
            ("apiVersion", text("The versioned schema of this representation of an object.")),
            ("items", items.into()),
            ("kind", text("The REST resource this object represents.")),
            ("metadata", meta.unwrap_or_default().into()),
        ]);
        let gvk = map([
            ("group", row.group.as_ref().into()),
            ("kind", row.list_kind.as_ref().into()),
            ("version", row.version.as_ref().into()),
        ]);
        let definition = map([
            ("description", format!("{} is a list of {} objects.", row.list_kind, row.kind).into()),
            ("properties", properties.into()),
            ("required", vec![Value::from("items")].into()),
            ("type", "object".into()),
            ("x-kubernetes-group-version-kind", vec![Value::Map(gvk)].into()),
        ]);
        let reference = self.version.reference(&list);
        self.lists.insert(list, definition);
        Some(reference)
    }

    /// A reference to a type by its definition's name.
    pub(super) fn named(&mut self, name: &str) -> Option<Map> {
        let s = crate::types::find(name)?.as_struct()?;
        Some(self.struct_reference(s))
    }

    /// A reference to one of the types that are no structs.
    pub(super) fn scalar(&mut self, name: &'static str) -> Map {
        self.scalars.insert(name);
        self.version.reference(name)
    }

    /// Writes all that was referred to, and what that refers to.
    pub(super) fn write(mut self, out: &mut Vec<u8>) {
        let mut written: BTreeMap<String, Map> = std::mem::take(&mut self.lists);
        while let Some(s) = self.queue.pop() {
            let definition = self.structure(s);
            written.insert(s.name().to_owned(), definition);
        }
        for name in std::mem::take(&mut self.scalars) {
            written.insert(name.to_owned(), scalar_definition(name, self.version));
        }
        for (i, (name, definition)) in written.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            json::encode_value(&Value::from(name.as_str()), out);
            out.push(b':');
            json::encode(definition, out);
        }
    }

    fn structure(&mut self, s: Struct<'d>) -> Map {
        let mut definition = Map::new();
        let description = self.docs.of_struct(s);
        if !description.is_empty() {
            definition.insert("description", description);
        }
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in s.fields() {
            properties.insert(field.name(), self.field(field, enums::of_field(s, field.name()).filter(|_| self.enums)));
            if field.required() {
                required.push(Value::from(field.name()));
            }
        }
        if !properties.is_empty() {
            definition.insert("properties", properties);
        }
        if !required.is_empty() {
            definition.insert("required", required);
        }
        definition.insert("type", "object");
        if s.atomic() {
            definition.insert("x-kubernetes-map-type", "atomic");
        }
        if s.open() {
            definition.insert("x-kubernetes-preserve-unknown-fields", true);
        }
        if let Some(kinds) = self.kinds.get(s.name()).cloned().or_else(|| meta::kinds(s.name())) {
            definition.insert("x-kubernetes-group-version-kind", kinds.into_iter().map(Value::Map).collect::<Vec<_>>());
        }
        definition
    }

    fn field(&mut self, field: Field<'d>, values: Option<&Enum>) -> Map {
        let mut schema = self.of_type(field.ty());
        let mut description = Cow::Borrowed(self.docs.of_field(field));
        if let Some(values) = values {
            let list: Vec<Value> = values.values.iter().map(|(value, _)| Value::from(*value)).collect();
            let held = match field.ty().kind() {
                Kind::List(_) => schema.get_mut("items").and_then(Value::as_map_mut),
                Kind::Map(_) => schema.get_mut("additionalProperties").and_then(Value::as_map_mut),
                _ => {
                    description.to_mut().push_str(&values.description());
                    Some(&mut schema)
                }
            };
            if let Some(held) = held {
                held.insert("enum", list);
            }
        }
        // In v3 a reference may have no neighbours: it is wrapped.
        if self.version == Version::V3 && schema.contains_key("$ref") {
            schema = map([("allOf", vec![Value::Map(schema)].into())]);
        }
        if !description.is_empty() {
            schema.insert("description", description.as_ref());
        }
        if let Some(default) = field.default() {
            schema.insert("default", default.clone());
        } else if self.version == Version::V3 && matches!(field.ty().kind(), Kind::Struct(_)) && !field.pointer() {
            schema.insert("default", Map::new());
        }
        if field.nullable() {
            schema.insert("nullable", true);
        }
        let topology = field.topology();
        let list_type = match topology.list {
            ListType::Unset => "",
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        if !list_type.is_empty() {
            schema.insert("x-kubernetes-list-type", list_type);
        }
        if !topology.keys.is_empty() {
            schema.insert(
                "x-kubernetes-list-map-keys",
                topology.keys.iter().map(|k| Value::from(*k)).collect::<Vec<_>>(),
            );
        }
        if topology.atomic_map {
            schema.insert("x-kubernetes-map-type", "atomic");
        } else if topology.granular_map {
            schema.insert("x-kubernetes-map-type", "granular");
        }
        let strategies: Vec<&str> =
            [(topology.retain_keys, "retainKeys"), (topology.merge, "merge"), (topology.replace, "replace")]
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, name)| *name)
                .collect();
        // In the order that upstream writes them.
        let strategies =
            if topology.merge && topology.retain_keys { "merge,retainKeys".to_owned() } else { strategies.join(",") };
        if !strategies.is_empty() {
            schema.insert("x-kubernetes-patch-strategy", strategies);
        }
        if !topology.merge_key.is_empty() {
            schema.insert("x-kubernetes-patch-merge-key", topology.merge_key.as_ref());
        }
        schema
    }

    fn of_type(&mut self, ty: TypeRef<'d>) -> Map {
        let typed = |ty: &'static str, format: &'static str| {
            let mut schema = map([("type", ty.into())]);
            if !format.is_empty() {
                schema.insert("format", format);
            }
            schema
        };
        match ty.kind() {
            Kind::String => typed("string", ""),
            Kind::Bool => typed("boolean", ""),
            Kind::Int32 => typed("integer", "int32"),
            Kind::Int64 => typed("integer", "int64"),
            Kind::Float => typed("number", "double"),
            Kind::Bytes => typed("string", "byte"),
            Kind::Quantity => self.scalar("io.k8s.apimachinery.pkg.api.resource.Quantity"),
            Kind::IntOrString => self.scalar("io.k8s.apimachinery.pkg.util.intstr.IntOrString"),
            Kind::Time => self.scalar("io.k8s.apimachinery.pkg.apis.meta.v1.Time"),
            Kind::MicroTime => self.scalar("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"),
            Kind::Duration => self.scalar("io.k8s.apimachinery.pkg.apis.meta.v1.Duration"),
            Kind::Raw => self.scalar("io.k8s.apimachinery.pkg.runtime.RawExtension"),
            Kind::Json => self.scalar("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"),
            Kind::Fields => self.scalar("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"),
            Kind::List(of) => {
                let items = self.of_type(of);
                map([("items", items.into()), ("type", "array".into())])
            }
            Kind::Map(of) => {
                let values = self.of_type(of);
                map([("additionalProperties", values.into()), ("type", "object".into())])
            }
            Kind::Struct(s) => self.struct_reference(s),
            // Either of two: definitions without a type, as upstream publishes them.
            Kind::OrBool(of) => {
                self.alternative("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", of)
            }
            Kind::OrList(of) => {
                self.alternative("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", of)
            }
            Kind::OrStrings(of) => self.alternative(
                "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
                of,
            ),
        }
    }

    fn alternative(&mut self, name: &'static str, of: TypeRef<'d>) -> Map {
        if let Kind::Struct(s) = of.kind() {
            // The alternatives refer to it all the same.
            self.struct_reference(s);
        }
        self.scalar(name)
    }
}

fn scalar_definition(name: &str, version: Version) -> Map {
    let one_of = |types: [&'static str; 2]| {
        let list: Vec<Value> = types.into_iter().map(|t| Value::Map(map([("type", t.into())]))).collect();
        map([("oneOf", list.into())])
    };
    let short = name.rsplit('.').next().unwrap_or(name);
    let mut definition = match (short, version) {
        ("Quantity", Version::V3) => one_of(["string", "number"]),
        ("IntOrString", Version::V3) => {
            let mut schema = one_of(["integer", "string"]);
            schema.insert("format", "int-or-string");
            schema
        }
        ("IntOrString", Version::V2) => map([("format", "int-or-string".into()), ("type", "string".into())]),
        ("Time" | "MicroTime", _) => map([("format", "date-time".into()), ("type", "string".into())]),
        ("Quantity" | "Duration", _) => map([("type", "string".into())]),
        ("RawExtension" | "FieldsV1" | "Patch", _) => map([("type", "object".into())]),
        _ => Map::new(),
    };
    let description = meta::description(name);
    if !description.is_empty() {
        definition.insert("description", description);
    }
    definition
}
