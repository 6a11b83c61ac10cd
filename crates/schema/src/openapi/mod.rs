//! OpenAPI documents: v3 for each group and version, v2 for everything. Made when asked for, one definition at a time.
//!
//! Content follows what upstream publishes: definitions with documentation, list and map topology, merge keys, defaults
//! and group-version-kinds; operations with their query parameters, which clients look at to know what a server can do.

mod definitions;
mod enums;
mod gnostic;
mod operations;

use crate::json;
use crate::resource::Resource;
use crate::tree::{Map, Value};
use crate::types::Docs;
use definitions::Definitions;

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V2,
    V3,
}

impl Version {
    fn reference(self, name: &str) -> Map {
        let prefix = match self {
            Version::V2 => "#/definitions/",
            Version::V3 => "#/components/schemas/",
        };
        map([("$ref", format!("{prefix}{name}").into())])
    }
}

fn map<const N: usize>(entries: [(&'static str, Value); N]) -> Map {
    let mut map = Map::new();
    for (key, value) in entries {
        map.insert(key, value);
    }
    map
}

fn info(version: &str) -> Map {
    map([("title", "Kubernetes".into()), ("version", version.into())])
}

/// The index of v3: path of a group and version → where its document is. `salt` distinguishes binaries (their documents
/// are a function of it), so that a client may keep a document for ever under its address.
pub fn v3_index<'r>(rows: impl Iterator<Item = &'r Resource>, salt: &str) -> Vec<u8> {
    let mut paths = Map::new();
    for row in rows {
        let path = group_path(row);
        if !paths.contains_key(&path) {
            let url = format!("/openapi/v3/{path}?hash={}", hash(&path, salt));
            paths.insert(path, map([("serverRelativeURL", url.into())]));
        }
    }
    let mut out = Vec::new();
    json::encode(&map([("paths", paths.into())]), &mut out);
    out
}

/// `api/v1`, `apis/apps/v1`.
fn group_path(row: &Resource) -> String {
    if row.group.is_empty() { format!("api/{}", row.version) } else { format!("apis/{}/{}", row.group, row.version) }
}

/// A stable name for the content of a document (`api/v1`, `v2`) in one binary, which the address of a v3 document carries.
pub fn hash(path: &str, salt: &str) -> String {
    // FNV-1a, twice with different starts: 128 bits that need not resist anyone.
    let fnv = |start: u64| {
        path.bytes().chain(salt.bytes()).fold(start, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
    };
    format!("{:016X}{:016X}", fnv(0xcbf2_9ce4_8422_2325), fnv(0x9e37_79b9_7f4a_7c15))
}

/// The v3 document of the rows of one group and version.
pub fn v3(rows: &[&Resource], version: &str) -> Vec<u8> {
    let docs = Docs::unpack();
    let mut definitions = Definitions::new(Version::V3, &docs);
    let mut out = Vec::with_capacity(1 << 18);
    out.extend_from_slice(b"{\"components\":{\"schemas\":{");
    // Operations first, as they say which definitions are needed.
    let paths = operations::paths(rows, Version::V3, &mut definitions);
    definitions.write(&mut out);
    out.extend_from_slice(b"},\"securitySchemes\":");
    json::encode(&security(), &mut out);
    out.extend_from_slice(b"},\"info\":");
    json::encode(&info(version), &mut out);
    out.extend_from_slice(b",\"openapi\":\"3.0.0\",\"paths\":");
    json::encode(&paths, &mut out);
    out.push(b'}');
    out
}

/// The v2 document of all rows.
pub fn v2(rows: &[&Resource], version: &str) -> Vec<u8> {
    let docs = Docs::unpack();
    let mut definitions = Definitions::new(Version::V2, &docs);
    let mut out = Vec::with_capacity(1 << 21);
    let paths = operations::paths(rows, Version::V2, &mut definitions);
    out.extend_from_slice(b"{\"definitions\":{");
    definitions.write(&mut out);
    out.extend_from_slice(b"},\"info\":");
    json::encode(&info(version), &mut out);
    out.extend_from_slice(b",\"paths\":");
    json::encode(&paths, &mut out);
    out.extend_from_slice(b",\"security\":[{\"BearerToken\":[]}],\"securityDefinitions\":");
    json::encode(&security(), &mut out);
    out.extend_from_slice(b",\"swagger\":\"2.0\"}");
    out
}

/// The v2 document of all rows as protobuf (gnostic's `openapi.v2.Document`).
pub fn v2_protobuf(rows: &[&Resource], version: &str) -> Vec<u8> {
    match json::parse(&v2(rows, version)) {
        Ok(Value::Map(document)) => gnostic::encode(&document),
        // What was just written is an object.
        _ => Vec::new(),
    }
}

fn security() -> Map {
    let token = map([
        ("description", "Bearer Token authentication".into()),
        ("in", "header".into()),
        ("name", "authorization".into()),
        ("type", "apiKey".into()),
    ]);
    map([("BearerToken", token.into())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(group: &str, version: &str) -> Vec<&'static Resource> {
        crate::resource::all().iter().filter(|r| r.group == group && r.version == version).collect()
    }

    fn parsed(document: &[u8]) -> Map {
        match json::parse(document) {
            Ok(Value::Map(map)) => map,
            other => panic!("{other:?}"),
        }
    }

    /// Every reference leads to a definition.
    fn check_references(document: &Map, definitions: &Map, prefix: &str) {
        fn walk(value: &Value, definitions: &Map, prefix: &str) {
            match value {
                Value::Map(map) => {
                    if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                        let name = target.strip_prefix(prefix).unwrap_or_else(|| panic!("{target}"));
                        assert!(definitions.contains_key(name), "{target} leads nowhere");
                    }
                    map.iter().for_each(|(_, v)| walk(v, definitions, prefix));
                }
                Value::List(list) => list.iter().for_each(|v| walk(v, definitions, prefix)),
                _ => {}
            }
        }
        walk(&Value::Map(document.clone()), definitions, prefix);
    }

    #[test]
    fn v3_of_every_group_is_whole() {
        for (group, versions) in crate::resource::groups() {
            for version in versions {
                let document = parsed(&v3(&rows(group, version), "v1.36.0"));
                let definitions =
                    document.at(&["components", "schemas"]).and_then(Value::as_map).cloned().unwrap_or_default();
                check_references(&document, &definitions, "#/components/schemas/");
            }
        }
    }

    #[test]
    fn v3_says_what_kubectl_looks_for() {
        let document = parsed(&v3(&rows("apps", "v1"), "v1.36.0"));
        let path = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";
        let patch = document.at(&["paths", path, "patch"]).and_then(Value::as_map).cloned().unwrap_or_default();
        assert_eq!(patch.str_at(&["x-kubernetes-group-version-kind", "kind"]), "Deployment");
        let parameters = patch.get("parameters").and_then(Value::as_list).unwrap_or(&[]).to_vec();
        let names: Vec<&str> = parameters.iter().filter_map(Value::as_map).map(|p| p.str_at(&["name"])).collect();
        for name in ["dryRun", "fieldManager", "fieldValidation", "force"] {
            assert!(names.contains(&name), "{names:?}");
        }
        let spec = document.at(&["components", "schemas", "io.k8s.api.core.v1.PodSpec", "properties", "containers"]);
        let spec = spec.and_then(Value::as_map).cloned().unwrap_or_default();
        assert_eq!(spec.str_at(&["x-kubernetes-list-type"]), "map");
        assert_eq!(spec.str_at(&["x-kubernetes-patch-merge-key"]), "name");
        assert!(spec.str_at(&["description"]).contains("containers"));
        let deployment =
            document.at(&["components", "schemas", "io.k8s.api.apps.v1.Deployment", "x-kubernetes-group-version-kind"]);
        assert_eq!(deployment.and_then(Value::as_list).map(<[Value]>::len), Some(1));
    }

    #[test]
    fn enumerations_are_told_in_both_versions() {
        let all: Vec<&Resource> = crate::resource::all().iter().collect();
        for (document, root) in [
            (parsed(&v2(&all, "v1.36.0")), &["definitions"][..]),
            (parsed(&v3(&rows("", "v1"), "v1.36.0")), &["components", "schemas"]),
        ] {
            let property = |of: &str, name: &str| {
                let path: Vec<&str> = root.iter().copied().chain([of, "properties", name]).collect();
                document.at(&path).and_then(Value::as_map).cloned().unwrap_or_default()
            };
            let values = |map: &Map, path: &[&str]| {
                let list = map.at(path).and_then(Value::as_list).unwrap_or(&[]);
                list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
            };
            let policy = property("io.k8s.api.core.v1.PodSpec", "restartPolicy");
            assert_eq!(values(&policy, &["enum"]), "Always,Never,OnFailure");
            let end = "#restart-policy\n\nPossible enum values:\n - `\"Always\"`\n - `\"Never\"`\n - `\"OnFailure\"`";
            assert!(policy.str_at(&["description"]).ends_with(end), "{}", policy.str_at(&["description"]));
            let protocol = property("io.k8s.api.core.v1.ContainerPort", "protocol");
            assert!(protocol.str_at(&["description"]).contains("\n - `\"SCTP\"` is the SCTP protocol.\n"));
            let modes = property("io.k8s.api.core.v1.PersistentVolumeSpec", "accessModes");
            assert!(values(&modes, &["items", "enum"]).starts_with("ReadOnlyMany,"));
            assert!(!modes.str_at(&["description"]).contains("enum"));
        }
    }

    #[test]
    fn v2_is_whole() {
        let all: Vec<&Resource> = crate::resource::all().iter().collect();
        let document = parsed(&v2(&all, "v1.36.0"));
        let definitions = document.get("definitions").and_then(Value::as_map).cloned().unwrap_or_default();
        assert!(definitions.len() > 500, "{}", definitions.len());
        check_references(&document, &definitions, "#/definitions/");
    }

    #[test]
    fn the_index_names_each_document_once() {
        let index = parsed(&v3_index(crate::resource::all().iter(), "x"));
        let url = index.str_at(&["paths", "apis/apps/v1", "serverRelativeURL"]);
        assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
        assert_ne!(hash("a", "x"), hash("a", "y"));
    }
}
