//! The rules of single kinds, table by table: what is given, and every message it gets.

mod admission;
mod bounds;
mod certificates;
mod definitions;
mod devices;
mod flow;
mod groups;
mod jobs;
mod networks;
mod others;
mod pod_rules;
mod pod_warnings;
mod pods;
mod quotas;
#[path = "../support/rules.rs"]
mod rules;
mod scaling;
mod storage;
mod volumes;
mod workloads;

/// An object with a name and these further fields.
fn named(name: &str, rest: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}},{rest}}}"#)
}

/// Objects of a kind, and all that is wrong with each.
fn check_created(group: &str, kind: &str, cases: &[(&str, &[&str])]) {
    for (object, expected) in cases {
        assert_eq!(rules::created(group, "v1", kind, object), *expected, "{object}");
    }
}

/// Changes of an object, each a replacement in its text, and all that is wrong with each.
fn check_updated(group: &str, kind: &str, subresource: &str, old: &str, cases: &[(&str, &str, &[&str])]) {
    for (from, to, expected) in cases {
        assert!(old.contains(from), "{from}");
        let new = old.replace(from, to);
        let found = rules::updated(group, "v1", kind, subresource, &new, old);
        assert_eq!(found, *expected, "{from} → {to}");
    }
}
