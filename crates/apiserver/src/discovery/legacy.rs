//! `APIVersions`, `APIGroupList`, `APIGroup`, `APIResourceList`.

use super::{Group, group_version, strings};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schema::resource::Storage;
use schema::{Map, Resource, Value};
use sha2::{Digest, Sha256};

pub(super) fn versions(server_address: &str) -> Map {
    let mut address = Map::new();
    address.insert("clientCIDR", "0.0.0.0/0");
    address.insert("serverAddress", server_address);
    let mut map = Map::new();
    map.insert("kind", "APIVersions");
    map.insert("serverAddressByClientCIDRs", vec![Value::Map(address)]);
    map.insert("versions", strings(["v1"]));
    map
}

pub(super) fn groups(groups: &[Group<'_>]) -> Map {
    let mut map = Map::new();
    map.insert("apiVersion", "v1");
    map.insert("groups", groups.iter().map(|g| Value::Map(group(g, false))).collect::<Vec<_>>());
    map.insert("kind", "APIGroupList");
    map
}

pub(super) fn group(group: &Group<'_>, alone: bool) -> Map {
    let version = |version: &str| {
        let mut map = Map::new();
        map.insert("groupVersion", group_version(group.name, version));
        map.insert("version", version);
        Value::Map(map)
    };
    let mut map = Map::new();
    if alone {
        map.insert("apiVersion", "v1");
        map.insert("kind", "APIGroup");
    }
    map.insert("name", group.name);
    if let Some((preferred, _)) = group.versions.first() {
        map.insert("preferredVersion", version(preferred));
    }
    map.insert("versions", group.versions.iter().map(|(v, _)| version(v)).collect::<Vec<_>>());
    map
}

pub(super) fn resources(group: &str, version: &str, rows: &[&Resource], hashes: bool) -> Map {
    let mut list = Vec::new();
    for row in rows {
        list.push(Value::Map(resource(row, hashes)));
        for sub in row.subresources.iter() {
            let mut map = Map::new();
            if (sub.group.as_ref(), sub.version.as_ref()) != (group, version) {
                if !sub.group.is_empty() {
                    map.insert("group", sub.group.as_ref());
                }
                map.insert("version", sub.version.as_ref());
            }
            map.insert("kind", sub.kind.as_ref());
            map.insert("name", format!("{}/{}", row.plural, sub.name));
            map.insert("namespaced", row.namespaced);
            map.insert("singularName", "");
            map.insert("verbs", strings(sub.verbs.names()));
            list.push(Value::Map(map));
        }
    }
    list.sort_by(|a, b| name(a).cmp(name(b)));
    let mut map = Map::new();
    map.insert("apiVersion", "v1");
    map.insert("groupVersion", group_version(group, version));
    map.insert("kind", "APIResourceList");
    map.insert("resources", list);
    map
}

fn name(resource: &Value) -> &str {
    resource.as_map().map_or("", |m| m.str_at(&["name"]))
}

/// Tells a change of the version that objects are stored in: the first bytes of a SHA-256.
fn storage_version_hash(stored: &Storage) -> String {
    let digest = Sha256::digest(format!("{}/{}/{}", stored.group, stored.version, stored.kind));
    STANDARD.encode(&digest[..8])
}

fn resource(row: &Resource, hashes: bool) -> Map {
    let mut map = Map::new();
    if !row.categories.is_empty() {
        map.insert("categories", strings(row.categories.iter().map(AsRef::as_ref)));
    }
    map.insert("kind", row.kind.as_ref());
    map.insert("name", row.plural.as_ref());
    map.insert("namespaced", row.namespaced);
    if !row.short_names.is_empty() {
        map.insert("shortNames", strings(row.short_names.iter().map(AsRef::as_ref)));
    }
    map.insert("singularName", row.singular.as_ref());
    if let Some(stored) = row.storage.as_ref().filter(|_| hashes) {
        map.insert("storageVersionHash", storage_version_hash(stored));
    }
    map.insert("verbs", strings(row.verbs.names()));
    map
}
