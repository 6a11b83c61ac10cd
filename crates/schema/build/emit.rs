//! Writes the type graph as rows, and packs the documentation.

use crate::model::{Model, Ty};
use crate::resources::{Resource, package};
use crate::rows::code;
use crate::tables::Topology;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Write as _;

/// One text for all names; a name that is in it already is not added again.
#[derive(Default)]
struct Names {
    text: String,
    known: BTreeMap<String, u32>,
}

impl Names {
    fn add(&mut self, name: &str) -> u32 {
        if let Some(at) = self.known.get(name) {
            return *at;
        }
        let offset = self.text.find(name).unwrap_or_else(|| {
            self.text.push_str(name);
            self.text.len() - name.len()
        });
        assert!(name.len() < 256 && offset < 1 << 24, "{name} can't be named");
        let at = (offset as u32) << 8 | name.len() as u32;
        self.known.insert(name.to_owned(), at);
        at
    }
}

struct TypeRows<'m> {
    model: &'m Model,
    rows: Vec<(u8, u32)>,
    known: BTreeMap<Ty, u32>,
}

impl TypeRows<'_> {
    fn add(&mut self, ty: &Ty) -> u32 {
        let (row, of) = match ty {
            Ty::Scalar(code) => return u32::from(*code),
            Ty::Struct(name) => return u32::from(code::SCALARS) + self.model.number(name) as u32,
            Ty::List(of) => (code::LIST, of),
            Ty::Map(of) => (code::MAP, of),
            Ty::OrBool(of) => (code::OR_BOOL, of),
            Ty::OrList(of) => (code::OR_LIST, of),
            Ty::OrStrings(of) => (code::OR_STRINGS, of),
        };
        if let Some(number) = self.known.get(ty) {
            return *number;
        }
        let of = self.add(of);
        self.rows.push((row, of));
        let number = self.rows.len() as u32 - 1;
        self.known.insert(ty.clone(), number);
        number
    }
}

pub(crate) fn types(model: &Model, resources: &[Resource]) -> String {
    let mut names = Names::default();
    let mut types = TypeRows { model, rows: Vec::new(), known: BTreeMap::new() };
    types.rows.extend((0..code::SCALARS).map(|code| (code, 0)));
    types.rows.extend((0..model.structs.len()).map(|number| (code::STRUCT, number as u32)));
    let mut topologies = vec![Topology::default()];
    let mut defaults: Vec<String> = Vec::new();
    let (mut structs, mut fields, mut groups) = (String::new(), String::new(), String::new());
    let (mut field_count, mut group_count) = (0, 0);
    // Field names first: they are short, and found again inside the longer ones.
    for s in &model.structs {
        names.add(&s.name);
    }
    for s in &model.structs {
        let name = names.add(&s.name);
        writeln!(
            structs,
            "s({name}, {field_count}, {}, {group_count}, {}, {}),",
            s.fields.len(),
            s.groups.len(),
            s.flags
        )
        .expect("writing to a string");
        for field in &s.fields {
            let topology = topologies.iter().position(|t| *t == field.topology).unwrap_or_else(|| {
                topologies.push(field.topology.clone());
                topologies.len() - 1
            });
            let default = match &field.default {
                None => 0,
                Some(value) => {
                    1 + defaults.iter().position(|d| d == value).unwrap_or_else(|| {
                        defaults.push(value.clone());
                        defaults.len() - 1
                    })
                }
            };
            writeln!(
                fields,
                "f({}, {}, {}, {}, {topology}, {default}, {}),",
                names.add(&field.name),
                types.add(&field.ty),
                field.flags,
                field.number,
                field.group
            )
            .expect("writing to a string");
            field_count += 1;
        }
        for group in &s.groups {
            writeln!(groups, "g({}, {}, {}),", group.number, group.parent, group.pointer).expect("writing to a string");
            group_count += 1;
        }
    }
    let rows: String = types.rows.iter().map(|(code, of)| format!("t({code}, {of}),\n")).collect();
    let topology_rows: String = topologies.iter().map(topology).collect();
    let default_rows: String = defaults.iter().map(|value| default_row(value)).collect();
    let (kind_count, kinds) = kinds(model, resources);
    format!(
        "static TEXT: &str = {:?};\n\
         const FIRST_STRUCT: u32 = {};\n\
         static TYPES: [TypeRow; {}] = [\n{rows}];\n\
         static STRUCTS: [StructRow; {}] = [\n{structs}];\n\
         static FIELDS: [FieldRow; {field_count}] = [\n{fields}];\n\
         static GROUPS: [InlineGroup; {group_count}] = [\n{groups}];\n\
         static TOPOLOGIES: [Topology; {}] = [\n{topology_rows}];\n\
         static DEFAULTS: [Value; {}] = [\n{default_rows}];\n\
         static KINDS: [(&str, &str, &str, u32); {kind_count}] = [\n{kinds}];\n",
        names.text,
        code::SCALARS,
        types.rows.len(),
        model.structs.len(),
        topologies.len(),
        defaults.len(),
    )
}

fn topology(t: &Topology) -> String {
    format!(
        "Topology {{ list: ListType::{}, keys: Cow::Borrowed(&{:?}), atomic_map: {}, granular_map: {}, merge: {}, \
         merge_key: Cow::Borrowed({:?}), retain_keys: {}, replace: {} }},\n",
        t.list.unwrap_or("Unset"),
        t.keys,
        t.atomic_map,
        t.granular_map,
        t.merge,
        t.merge_key,
        t.retain_keys,
        t.replace
    )
}

fn default_row(json: &str) -> String {
    match serde_json::from_str(json) {
        Ok(serde_json::Value::String(text)) => format!("Value::Str(CompactString::const_new({text:?})),\n"),
        Ok(serde_json::Value::Number(n)) => format!("Value::Int({n}),\n"),
        Ok(serde_json::Value::Bool(b)) => format!("Value::Bool({b}),\n"),
        other => panic!("tables/types.txt: default={json}: {other:?}"),
    }
}

/// Every type that has a kind, by group, version and kind.
fn kinds(model: &Model, resources: &[Resource]) -> (usize, String) {
    let mut groups: Vec<(&str, &str)> = resources.iter().map(|r| (r.group.as_str(), r.version.as_str())).collect();
    groups.sort();
    groups.dedup();
    let mut rows = Vec::new();
    for (group, version) in groups {
        let prefix = format!("{}.{version}.", package(group));
        for (number, s) in model.structs.iter().enumerate() {
            let Some(kind) = s.name.strip_prefix(&prefix) else { continue };
            let has = |name: &str| s.fields.iter().any(|field| field.name == name && field.number == 0);
            if has("kind") && has("apiVersion") {
                rows.push((group, version, kind, number));
            }
        }
    }
    rows.sort();
    let text = rows.iter().map(|(g, v, k, n)| format!("({g:?}, {v:?}, {k:?}, {n}),\n")).collect();
    (rows.len(), text)
}

/// The documentation of every struct, then of every field, separated by zeros, compressed.
pub(crate) fn docs(model: &Model) -> Vec<u8> {
    let structs = model.structs.iter().map(|s| s.doc.as_str());
    let fields = model.structs.iter().flat_map(|s| s.fields.iter().map(|field| field.doc.as_str()));
    let all: Vec<&str> = structs.chain(fields).collect();
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(all.join("\0").as_bytes()).expect("writing to memory");
    packed.finish().expect("writing to memory")
}
