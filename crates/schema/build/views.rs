//! Writes the typed read accessors of every type, a module for each group and version.

use crate::model::{Field, Model, Ty};
use crate::resources::{Resource, package};
use crate::rows::{code, flag};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

pub(crate) fn emit(model: &Model, resources: &[Resource]) -> String {
    let mut modules: BTreeMap<String, String> = BTreeMap::new();
    // Versions that are ruled as others are converted before any rule sees an object of theirs.
    let aliases = model.structs.iter().filter(|s| s.flags & flag::ALIAS != 0).map(|s| place(&s.name).0);
    let mut unseen: BTreeSet<String> = aliases.collect();
    for resource in resources.iter().filter(|resource| !resource.is_virtual) {
        let (group, version) = &resource.stored;
        unseen.remove(&place(&format!("{}.{version}.{}", package(group), resource.kind)).0);
    }
    for s in &model.structs {
        let (module, name) = place(&s.name);
        if unseen.contains(&module) {
            continue;
        }
        let out = modules.entry(module).or_default();
        let mut methods = String::new();
        for field in &s.fields {
            method(field, &mut methods);
        }
        write!(
            out,
            "/// `{}`\n#[derive(Clone, Copy)]\npub struct {name}<'a>(pub &'a Map);\n\
             impl<'a> View<'a> for {name}<'a> {{ fn of(map: &'a Map) -> Self {{ {name}(map) }} }}\n\
             impl<'a> FromValue<'a> for {name}<'a> {{ fn from_value(value: &'a Value) -> Option<Self> {{ value.as_map().map({name}) }} }}\n\
             impl<'a> {name}<'a> {{\n{methods}}}\n",
            s.name
        )
        .expect("writing to a string");
    }
    let mut out = String::new();
    for (module, content) in modules {
        write!(
            out,
            "/// Views of the types of `{module}`.\n\
             #[allow(unused_imports, unused_qualifications, reason = \"written alike for every module\")]\n\
             pub mod {module} {{\nuse super::*;\nuse crate::tree::{{Map, Value}};\n{content}}}\n"
        )
        .expect("writing to a string");
    }
    out
}

/// Module and name of a type: `core_v1`, `Pod`.
fn place(full: &str) -> (String, String) {
    let mut parts = full.rsplit('.');
    let name = parts.next().unwrap_or_default().to_owned();
    let version = parts.next().unwrap_or_default();
    let group = parts.next().unwrap_or_default();
    let module = if version.starts_with('v') && version[1..].starts_with(|c: char| c.is_ascii_digit()) {
        format!("{}_{version}", group.replace('-', "_"))
    } else {
        version.to_owned()
    };
    (module, name)
}

fn method(field: &Field, out: &mut String) {
    let name = snake(&field.name);
    let key = &field.name;
    let (ty, get) = match &field.ty {
        Ty::List(of) => (format!("List<'a, {}>", view(of)), "list"),
        Ty::Map(of) => (format!("Entries<'a, {}>", view(of)), "entries"),
        other => (format!("Option<{}>", view(other)), "get"),
    };
    writeln!(out, "#[inline]\npub fn {name}(self) -> {ty} {{ {get}(self.0, {key:?}) }}").expect("writing to a string");
}

fn view(ty: &Ty) -> String {
    match ty {
        Ty::Scalar(code::BOOL) => "bool".into(),
        Ty::Scalar(code::INT32 | code::INT64) => "i64".into(),
        Ty::Scalar(code::FLOAT) => "f64".into(),
        Ty::Scalar(code::INT_OR_STRING) => "IntOrString<'a>".into(),
        Ty::Scalar(code::RAW | code::JSON) | Ty::OrBool(_) | Ty::OrList(_) | Ty::OrStrings(_) => "&'a Value".into(),
        Ty::Scalar(code::FIELDS) => "&'a Value".into(),
        Ty::Scalar(_) => "&'a str".into(),
        Ty::List(of) => format!("List<'a, {}>", view(of)),
        Ty::Map(of) => format!("Entries<'a, {}>", view(of)),
        Ty::Struct(name) => {
            let (module, name) = place(name);
            format!("super::{module}::{name}<'a>")
        }
    }
}

/// `hostIPs` to `host_ips`.
fn snake(name: &str) -> String {
    match name {
        "$ref" => return "ref_path".into(),
        "$schema" => return "schema".into(),
        _ => {}
    }
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (at, &c) in chars.iter().enumerate() {
        if c == '-' {
            out.push('_');
            continue;
        }
        let after = |n: usize| chars.get(at + n).copied().unwrap_or('A');
        let plural = after(1) == 's' && after(2).is_uppercase();
        let starts =
            c.is_uppercase() && at > 0 && (!chars[at - 1].is_uppercase() || after(1).is_lowercase() && !plural);
        if starts {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    match out.as_str() {
        "not" | "type" | "ref" | "continue" | "enum" | "for" | "static" | "self" | "match" | "in" | "as" => out + "_",
        _ => out,
    }
}
