//! `APIGroupDiscoveryList`: everything in one document.

use super::{Group, strings};
use schema::resource::Subresource;
use schema::{Map, Resource, Value};

pub(super) fn list(groups: &[Group<'_>]) -> Map {
    let mut map = Map::new();
    map.insert("apiVersion", "apidiscovery.k8s.io/v2");
    map.insert("items", groups.iter().map(|g| Value::Map(group(g))).collect::<Vec<_>>());
    map.insert("kind", "APIGroupDiscoveryList");
    map.insert("metadata", Map::new());
    map
}

fn group(group: &Group<'_>) -> Map {
    let mut metadata = Map::new();
    if !group.name.is_empty() {
        metadata.insert("name", group.name);
    }
    let mut map = Map::new();
    map.insert("metadata", metadata);
    let version = |(version, rows): &(&str, Vec<&Resource>)| {
        let mut rows = rows.clone();
        rows.sort_by(|a, b| a.plural.cmp(&b.plural));
        let mut map = Map::new();
        map.insert("freshness", "Current");
        map.insert("resources", rows.into_iter().map(|r| Value::Map(resource(r))).collect::<Vec<_>>());
        map.insert("version", *version);
        Value::Map(map)
    };
    map.insert("versions", group.versions.iter().map(version).collect::<Vec<_>>());
    map
}

fn response_kind(group: &str, version: &str, kind: &str) -> Map {
    let mut map = Map::new();
    map.insert("group", group);
    map.insert("kind", kind);
    map.insert("version", version);
    map
}

fn resource(row: &Resource) -> Map {
    let mut map = Map::new();
    if !row.categories.is_empty() {
        map.insert("categories", strings(row.categories.iter().map(AsRef::as_ref)));
    }
    map.insert("resource", row.plural.as_ref());
    map.insert("responseKind", response_kind(&row.group, &row.version, &row.kind));
    map.insert("scope", if row.namespaced { "Namespaced" } else { "Cluster" });
    if !row.short_names.is_empty() {
        map.insert("shortNames", strings(row.short_names.iter().map(AsRef::as_ref)));
    }
    map.insert("singularResource", row.singular.as_ref());
    if !row.subresources.is_empty() {
        let mut subs: Vec<&Subresource> = row.subresources.iter().collect();
        subs.sort_by(|a, b| a.name.cmp(&b.name));
        map.insert("subresources", subs.into_iter().map(|s| Value::Map(subresource(s))).collect::<Vec<_>>());
    }
    map.insert("verbs", strings(row.verbs.names()));
    map
}

fn subresource(sub: &Subresource) -> Map {
    let mut map = Map::new();
    map.insert("responseKind", response_kind(&sub.group, &sub.version, &sub.kind));
    map.insert("subresource", sub.name.as_ref());
    map.insert("verbs", strings(sub.verbs.names()));
    map
}
