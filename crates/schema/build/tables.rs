//! Reads `tables/types.txt` (its head says how).

use crate::rows::flag;
use std::collections::BTreeMap;
use std::path::Path;

pub(crate) struct Types {
    /// By full name.
    pub(crate) rows: BTreeMap<String, TypeRow>,
}

pub(crate) struct TypeRow {
    pub(crate) line: usize,
    pub(crate) atomic: bool,
    pub(crate) fields: Vec<FieldRow>,
    pub(crate) embedded: Vec<Embedded>,
    pub(crate) used: bool,
}

#[derive(Clone)]
pub(crate) struct FieldRow {
    pub(crate) line: usize,
    pub(crate) name: String,
    pub(crate) number: u16,
    pub(crate) flags: u16,
    pub(crate) topology: Topology,
    /// As JSON.
    pub(crate) default: Option<String>,
    /// The type, where k8s-openapi has none.
    pub(crate) ty: Option<String>,
}

#[derive(Clone)]
pub(crate) struct Embedded {
    /// Full name.
    pub(crate) ty: String,
    pub(crate) number: u16,
    pub(crate) pointer: bool,
}

#[derive(Clone, Default, PartialEq)]
pub(crate) struct Topology {
    pub(crate) list: Option<&'static str>,
    pub(crate) keys: Vec<String>,
    pub(crate) atomic_map: bool,
    pub(crate) granular_map: bool,
    pub(crate) merge: bool,
    pub(crate) merge_key: String,
    pub(crate) retain_keys: bool,
    pub(crate) replace: bool,
}

/// `core.v1.Pod` to `io.k8s.api.core.v1.Pod`.
pub(crate) fn full_name(short: &str) -> String {
    match short.split('.').next().unwrap_or_default() {
        "meta" => format!("io.k8s.apimachinery.pkg.apis.{short}"),
        "version" => format!("io.k8s.apimachinery.pkg.{short}"),
        "apiextensions" => format!("io.k8s.apiextensions-apiserver.pkg.apis.{short}"),
        "apiregistration" => format!("io.k8s.kube-aggregator.pkg.apis.{short}"),
        _ => format!("io.k8s.api.{short}"),
    }
}

impl Types {
    pub(crate) fn read(path: &Path) -> Types {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut rows: BTreeMap<String, TypeRow> = BTreeMap::new();
        let mut current = String::new();
        for (at, line) in text.lines().enumerate() {
            let place = format!("{}:{}", path.display(), at + 1);
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let mut words = line.split_whitespace();
            let first = words.next().expect("the line isn't blank");
            if !line.starts_with(' ') {
                current = full_name(first);
                let atomic = match words.next() {
                    None => false,
                    Some("atomic") => true,
                    Some(other) => panic!("{place}: {other}?"),
                };
                let row = TypeRow { line: at + 1, atomic, fields: Vec::new(), embedded: Vec::new(), used: false };
                assert!(rows.insert(current.clone(), row).is_none(), "{place}: {first} is there twice");
                continue;
            }
            let number = words.next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{place}: a number?"));
            let row = rows.get_mut(&current).unwrap_or_else(|| panic!("{place}: a field before any type"));
            if let Some(ty) = first.strip_prefix('+') {
                let ty = match ty {
                    "ListMeta" | "ObjectMeta" => full_name(&format!("meta.v1.{ty}")),
                    _ => format!("{}.{ty}", current.rsplit_once('.').expect("full names have dots").0),
                };
                row.embedded.push(Embedded { ty, number, pointer: words.next() == Some("*") });
            } else {
                row.fields.push(field(first, number, words, at + 1, &place));
            }
        }
        Types { rows }
    }
}

fn field<'a>(name: &str, number: u16, words: impl Iterator<Item = &'a str>, line: usize, place: &str) -> FieldRow {
    let mut row = FieldRow {
        line,
        name: name.to_owned(),
        number,
        flags: 0,
        topology: Topology::default(),
        default: None,
        ty: None,
    };
    for word in words {
        let topology = &mut row.topology;
        match word.split_once('=') {
            None => match word {
                "atomic" => {
                    topology.list = Some("Atomic");
                    topology.atomic_map = true;
                }
                "set" => topology.list = Some("Set"),
                "granular" => topology.granular_map = true,
                "merge" => topology.merge = true,
                "retain" => topology.retain_keys = true,
                "replace" => topology.replace = true,
                "wrapped" => row.flags |= flag::WRAPPED,
                _ if word.starts_with(':') => row.ty = Some(word[1..].to_owned()),
                _ => {
                    for c in word.chars() {
                        row.flags |= match c {
                            '*' => flag::POINTER,
                            '?' => flag::OMIT_EMPTY,
                            '!' => flag::OMIT_ZERO,
                            _ => panic!("{place}: {word}?"),
                        };
                    }
                }
            },
            Some(("map", keys)) => {
                topology.list = Some("Map");
                topology.keys = keys.split(',').map(str::to_owned).collect();
            }
            Some(("merge", key)) => {
                topology.merge = true;
                topology.merge_key = key.to_owned();
            }
            Some(("default", value)) => row.default = Some(value.to_owned()),
            Some(_) => panic!("{place}: {word}?"),
        }
    }
    row
}
