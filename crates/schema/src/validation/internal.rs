//! How upstream shows what it validates: the JSON of its internal version, and the difference of two of them.
//!
//! Upstream validates a version of its own that has no names for JSON, so refusals show the names of its Go structs, in their
//! order, and all fields, of which those that are not set are `null`, empty or 0.

use super::difference;
use crate::json;
use crate::normal;
use crate::tree::{Map, Value};
use crate::types::{self, Field, Kind, Struct, TypeRef};
use std::fmt::Write;

/// Fields of the pod that internally are those of its security context.
const OF_THE_HOST: [&str; 5] = ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"];

/// The fields of the internal structs in their order: a line for each. The JSON name is the same but for its case, or follows
/// (`Name=at.path`). Those that begin with a small letter have it in JSON internally too, and are left out when they are not set.
const STRUCTS: &str = include_str!("internal.txt");

/// What differs between two objects of an internal struct, as a unified diff.
pub(super) fn difference(name: &str, from: &Map, to: &Map) -> String {
    difference::unified(&shown(name, from), &shown(name, to))
}

/// The JSON of an internal struct, indented.
fn shown(name: &str, map: &Map) -> String {
    // The sources of a volume are fields of what holds them.
    let holder = if name == "PersistentVolumeSource" { "PersistentVolumeSpec" } else { name };
    let mut out = String::new();
    if let Some(s) = core(holder) {
        structure(&mut out, name, s, map, 0);
    }
    out
}

fn core(name: &str) -> Option<Struct<'static>> {
    types::find(&format!("io.k8s.api.core.v1.{name}")).and_then(TypeRef::as_struct)
}

/// A field of a struct, where it is.
struct Place<'a> {
    name: &'static str,
    field: Field<'a>,
    /// The names in JSON that lead to it.
    path: Vec<&'static str>,
}

/// What the table says of each struct.
fn table() -> impl Iterator<Item = (&'static str, &'static str)> {
    STRUCTS.lines().filter_map(|line| line.split_once(": "))
}

/// The fields of a struct in the order of the internal one.
fn places<'a>(name: &str, s: Struct<'a>) -> Vec<Place<'a>> {
    let Some((_, fields)) = table().find(|(known, _)| *known == name) else { return Vec::new() };
    fields.split(' ').filter_map(|word| place(word, s)).collect()
}

fn place<'a>(word: &'static str, s: Struct<'a>) -> Option<Place<'a>> {
    let (name, path) = word.split_once('=').unwrap_or((word, word));
    let mut holder = Some(s);
    let mut place = None;
    let mut names = Vec::new();
    for step in path.split('.') {
        let named = |field: &Field<'_>| field.name().eq_ignore_ascii_case(step);
        let of_the_host =
            || core("PodSpec")?.fields().find(|field| named(field) && OF_THE_HOST.contains(&field.name()));
        let field = holder?.fields().find(named).or_else(of_the_host)?;
        names.push(field.name());
        holder = field.ty().as_struct();
        place = Some(field);
    }
    Some(Place { name, field: place?, path: names })
}

fn structure(out: &mut String, name: &str, s: Struct<'_>, map: &Map, depth: usize) {
    let moved;
    let map = if name == "PodSpec" {
        moved = with_host(map);
        &moved
    } else {
        map
    };
    let mut members = Vec::new();
    for place in places(name, s) {
        let given = map.at(&place.path).filter(|value| !value.is_null());
        if given.is_none() && place.name.starts_with(|c: char| c.is_ascii_lowercase()) {
            continue;
        }
        members.push((place.name, place.field.ty(), place.field.pointer(), given));
    }
    enclosed(out, ('{', '}'), depth, members, |out, (name, ty, pointer, given), depth| {
        string(out, name);
        out.push_str(": ");
        value(out, ty, pointer, given, depth);
    });
}

/// A pod's spec with the fields of the host in its security context, which internally is always there.
fn with_host(spec: &Map) -> Map {
    let mut spec = spec.clone();
    let context = spec.get("securityContext").and_then(Value::as_map).cloned().unwrap_or_default();
    spec.insert("securityContext", context);
    for field in OF_THE_HOST {
        if let Some(value) = spec.remove(field) {
            spec.set_at(&["securityContext", field], value);
        }
    }
    spec
}

fn value(out: &mut String, ty: TypeRef<'_>, pointer: bool, given: Option<&Value>, depth: usize) {
    match (ty.kind(), given) {
        (Kind::Struct(s), Some(Value::Map(map))) => structure(out, s.short_name(), s, map, depth),
        (Kind::List(of), Some(Value::List(items))) => {
            enclosed(out, ('[', ']'), depth, items.iter(), |out, item, depth| value(out, of, false, Some(item), depth));
        }
        (Kind::Map(of), Some(Value::Map(map))) => {
            enclosed(out, ('{', '}'), depth, map.iter(), |out, (key, item), depth| {
                string(out, key);
                out.push_str(": ");
                value(out, of, false, Some(item), depth);
            });
        }
        (_, Some(given)) => encoded(out, given),
        (_, None) if pointer => out.push_str("null"),
        (Kind::Struct(s), None) => structure(out, s.short_name(), s, &Map::new(), depth),
        (_, None) => encoded(out, &normal::zero(ty)),
    }
}

/// Members between brackets, each on a line of its own.
fn enclosed<T>(
    out: &mut String,
    (open, close): (char, char),
    depth: usize,
    members: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut String, T, usize),
) {
    let mut any = false;
    out.push(open);
    for member in members {
        out.push_str(if any { ",\n" } else { "\n" });
        any = true;
        indent(out, depth + 1);
        write(out, member, depth + 1);
    }
    if any {
        out.push('\n');
        indent(out, depth);
    }
    out.push(close);
}

fn indent(out: &mut String, depth: usize) {
    // A String takes every write.
    write!(out, "{:1$}", "", 2 * depth).unwrap_or(());
}

fn string(out: &mut String, text: &str) {
    encoded(out, &text.into());
}

/// Go writes it so that it may stand in HTML.
fn encoded(out: &mut String, value: &Value) {
    let mut bytes = Vec::new();
    json::encode_value(value, &mut bytes);
    for c in String::from_utf8_lossy(&bytes).chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => write!(out, "\\u{:04x}", u32::from(c)).unwrap_or(()),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_field_of_what_is_shown_has_its_place() {
        let mut seen = BTreeSet::new();
        let mut next: Vec<(&str, Struct<'_>)> = ["PodSpec", "EphemeralContainer", "PersistentVolumeClaimSpec"]
            .into_iter()
            .map(|name| (name, core(name).expect("a type")))
            .collect();
        next.push(("PersistentVolumeSource", core("PersistentVolumeSpec").expect("a type")));
        while let Some((name, s)) = next.pop() {
            if !seen.insert(name) {
                continue;
            }
            let places = places(name, s);
            let (_, fields) =
                table().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name} is in the table"));
            assert_eq!(fields.split(' ').count(), places.len(), "each of {name} is a field: {fields}");
            for field in s.fields() {
                let placed = places.iter().any(|place| place.path[0] == field.name());
                let elsewhere = match name {
                    "PodSpec" => field.name() == "serviceAccount" || OF_THE_HOST.contains(&field.name()),
                    // The others are not of the source.
                    "PersistentVolumeSource" => {
                        !field.ty().as_struct().is_some_and(|s| s.short_name().ends_with("Source"))
                    }
                    _ => false,
                };
                assert!(placed || elsewhere, "{name} has a place for {}", field.name());
            }
            for place in places {
                let mut ty = place.field.ty();
                while let Some(of) = ty.element() {
                    ty = of;
                }
                next.extend(ty.as_struct().map(|s| (s.short_name(), s)));
            }
        }
        let unused: Vec<_> = table().map(|(name, _)| name).filter(|name| !seen.contains(name)).collect();
        assert_eq!(unused, Vec::<&str>::new());
    }
}
