//! OpenAPI documents: v3 for each group and version, v2 for everything. Made when asked for, one definition at a time.
//!
//! Content follows what upstream publishes: definitions with documentation, list and map topology, merge keys, defaults
//! and group-version-kinds; operations with their query parameters, which clients look at to know what a server can do.

mod definitions;
pub(crate) mod enums;
mod gnostic;
mod meta;
mod operations;
mod parameters;

use crate::json;
use crate::resource::Resource;
use crate::tree::{Map, Value};
use crate::types::Docs;
use definitions::Definitions;
use operations::PlainPaths;

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

/// What is published: the documents of one server.
#[derive(Clone, Copy, Debug)]
pub struct Published<'p> {
    /// What is served; groups in the order of discovery, versions by priority.
    pub rows: &'p [&'p Resource],
    /// The paths beside the API that the server answers at: `/openid/v1/jwks`.
    pub documents: &'p [&'p str],
    /// The version of the server. Its documents are a function of it and of what is here, as long as it runs.
    pub version: &'p str,
    /// Whether enumerations are told (the feature `OpenAPIEnums`).
    pub enums: bool,
}

impl<'p> Published<'p> {
    /// The index of v3: path of a document → where it is, so that a client may keep a document for ever under its address.
    pub fn v3_index(&self) -> Vec<u8> {
        let mut paths = Map::new();
        let mut add = |path: &str| {
            if !paths.contains_key(path) {
                let url = format!("/openapi/v3/{path}?hash={}", self.hash(path));
                paths.insert(path.to_owned(), map([("serverRelativeURL", url.into())]));
            }
        };
        self.documents.iter().for_each(|document| add(document.trim_matches('/')));
        for row in self.rows {
            if row.group.is_empty() {
                add("api");
            } else {
                add("apis");
                add(&format!("apis/{}", row.group));
            }
            add(&group_path(row));
        }
        add("version");
        let mut out = Vec::new();
        json::encode(&map([("paths", paths.into())]), &mut out);
        out
    }

    /// A stable name for the content of a document (`api/v1`, `v2`) of this server, which the address of a v3 document
    /// carries.
    pub fn hash(&self, path: &str) -> String {
        // FNV-1a, twice with different starts: 128 bits that need not resist anyone.
        let text = || path.bytes().chain(self.version.bytes()).chain([u8::from(self.enums)]);
        let fnv = |start: u64| text().fold(start, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        format!("{:016X}{:016X}", fnv(0xcbf2_9ce4_8422_2325), fnv(0x9e37_79b9_7f4a_7c15))
    }

    /// The v3 document of one path of the index; `None`: there is none.
    pub fn v3(&self, path: &str) -> Option<Vec<u8>> {
        let docs = Docs::unpack();
        let mut definitions = Definitions::new(Version::V3, &docs, self.enums);
        // Operations first, as they say which definitions are needed.
        let mut paths = self.plain_paths(Some(path), Version::V3, &mut definitions);
        if paths.is_empty() {
            return None;
        }
        let of: Vec<&Resource> = self.rows.iter().copied().filter(|row| group_path(row) == path).collect();
        paths.extend(operations::paths(&of, Version::V3, &mut definitions));
        let mut out = Vec::with_capacity(1 << 18);
        out.extend_from_slice(b"{\"components\":{\"schemas\":{");
        definitions.write(&mut out);
        out.extend_from_slice(b"},\"securitySchemes\":");
        json::encode(&security(), &mut out);
        out.extend_from_slice(b"},\"info\":");
        json::encode(&info(self.version), &mut out);
        out.extend_from_slice(b",\"openapi\":\"3.0.0\",\"paths\":");
        json::encode(&paths, &mut out);
        out.push(b'}');
        Some(out)
    }

    /// The v3 document of one path as protobuf (gnostic's `openapi.v3.Document`).
    pub fn v3_protobuf(&self, path: &str) -> Option<Vec<u8>> {
        match json::parse(&self.v3(path)?) {
            Ok(Value::Map(document)) => Some(gnostic::v3::encode(&document)),
            // What was just written is an object.
            _ => None,
        }
    }

    /// The v2 document of all rows.
    pub fn v2(&self) -> Vec<u8> {
        let docs = Docs::unpack();
        let mut definitions = Definitions::new(Version::V2, &docs, self.enums);
        let mut out = Vec::with_capacity(1 << 21);
        let mut paths = self.plain_paths(None, Version::V2, &mut definitions);
        paths.extend(operations::paths(self.rows, Version::V2, &mut definitions));
        out.extend_from_slice(b"{\"definitions\":{");
        definitions.write(&mut out);
        out.extend_from_slice(b"},\"info\":");
        json::encode(&info(self.version), &mut out);
        out.extend_from_slice(b",\"paths\":");
        json::encode(&paths, &mut out);
        out.extend_from_slice(b",\"security\":[{\"BearerToken\":[]}],\"securityDefinitions\":");
        json::encode(&security(), &mut out);
        out.extend_from_slice(b",\"swagger\":\"2.0\"}");
        out
    }

    /// The v2 document of all rows as protobuf (gnostic's `openapi.v2.Document`).
    pub fn v2_protobuf(&self) -> Vec<u8> {
        match json::parse(&self.v2()) {
            Ok(Value::Map(document)) => gnostic::v2::encode(&document),
            // What was just written is an object.
            _ => Vec::new(),
        }
    }

    fn plain_paths(&self, of: Option<&str>, version: Version, definitions: &mut Definitions<'_>) -> Map {
        PlainPaths { rows: self.rows, documents: self.documents, of }.write(version, definitions)
    }
}

/// `api/v1`, `apis/apps/v1`.
fn group_path(row: &Resource) -> String {
    if row.group.is_empty() { format!("api/{}", row.version) } else { format!("apis/{}/{}", row.group, row.version) }
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

    fn of<'r>(rows: &'r [&'r Resource]) -> Published<'r> {
        Published { rows, documents: &["/openid/v1/jwks"], version: "v1.36.0", enums: true }
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
                let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
                let document = parsed(&of(&rows(group, version)).v3(&path).expect("it is served"));
                let definitions =
                    document.at(&["components", "schemas"]).and_then(Value::as_map).cloned().unwrap_or_default();
                check_references(&document, &definitions, "#/components/schemas/");
            }
        }
    }

    #[test]
    fn v3_says_what_kubectl_looks_for() {
        let document = parsed(&of(&rows("apps", "v1")).v3("apis/apps/v1").expect("it is served"));
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
    fn types_of_all_groups_say_their_kinds_and_what_they_are_for() {
        let all: Vec<&Resource> = crate::resource::all().iter().collect();
        for (document, root) in [
            (parsed(&of(&all).v2()), &["definitions"][..]),
            (parsed(&of(&all).v3("api/v1").expect("it is served")), &["components", "schemas"]),
        ] {
            let definition = |name: &str| {
                let path: Vec<&str> = root.iter().copied().chain([name]).collect();
                document.at(&path).and_then(Value::as_map).cloned().unwrap_or_else(|| panic!("{name}"))
            };
            let meta = |name: &str| definition(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"));
            for (name, count) in [("DeleteOptions", 60), ("WatchEvent", 60), ("Status", 1), ("APIResourceList", 1)] {
                let kinds =
                    meta(name).get("x-kubernetes-group-version-kind").and_then(Value::as_list).map(<[_]>::to_vec);
                let kinds = kinds.unwrap_or_else(|| panic!("{name} is a kind"));
                assert_eq!(kinds.len(), count, "{name}");
                let first = kinds[0].as_map().expect("an object");
                let said = ["group", "kind", "version"].map(|key| first.str_at(&[key]).to_owned());
                assert_eq!(said, ["", name, "v1"]);
            }
            assert!(meta("ObjectMeta").get("x-kubernetes-group-version-kind").is_none());
            for name in ["Time", "MicroTime", "FieldsV1", "Patch"] {
                assert!(meta(name).str_at(&["description"]).starts_with(name), "{name}");
            }
            for name in ["api.resource.Quantity", "util.intstr.IntOrString", "runtime.RawExtension"] {
                let definition = definition(&format!("io.k8s.apimachinery.pkg.{name}"));
                let short = name.rsplit('.').next().expect("a name");
                assert!(definition.str_at(&["description"]).starts_with(short), "{name}");
            }
        }
    }

    #[test]
    fn enumerations_are_told_in_both_versions() {
        let all: Vec<&Resource> = crate::resource::all().iter().collect();
        for (document, root) in [
            (parsed(&of(&all).v2()), &["definitions"][..]),
            (parsed(&of(&all).v3("api/v1").expect("it is served")), &["components", "schemas"]),
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
        let silent = Published { enums: false, ..of(&all) }.v2();
        assert!(!String::from_utf8_lossy(&silent).contains("Possible enum values"));
    }

    /// The operations of a v2 document: path, method and what is said of it.
    fn operations(document: &Map) -> Vec<(String, String, Map)> {
        let paths = document.get("paths").and_then(Value::as_map).cloned().unwrap_or_default();
        let mut operations = Vec::new();
        for (path, item) in paths.iter() {
            for (method, operation) in item.as_map().into_iter().flat_map(Map::iter) {
                if let (false, Some(operation)) = (method == "parameters", operation.as_map()) {
                    operations.push((path.to_owned(), method.to_owned(), operation.clone()));
                }
            }
        }
        operations
    }

    #[test]
    fn operations_are_those_of_upstream() {
        let all: Vec<&Resource> = crate::resource::all().iter().collect();
        let documents = ["/openid/v1/jwks", "/.well-known/openid-configuration"];
        let operations = operations(&parsed(&Published { documents: &documents, ..of(&all) }.v2()));
        let mut ids: Vec<&str> = operations.iter().map(|(.., o)| o.str_at(&["operationId"])).collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "each has an id of its own");
        // Counted in upstream's document of v1.36: what is of the GA versions, without the deprecated paths of watches.
        let watches = operations.iter().filter(|(path, ..)| path.contains("/watch/")).count();
        assert_eq!(operations.len() - watches, 662);
        // A watch of the list, of one object, and of the list in all namespaces.
        let watched = all.iter().filter(|row| row.verbs.contains(crate::resource::Verbs::WATCH));
        assert_eq!(watches, watched.map(|row| if row.namespaced { 3 } else { 2 }).sum::<usize>());
        for (path, method, id, what, answer) in [
            ("/api/", "get", "getCoreAPIVersions", "get available API versions", "APIVersions"),
            ("/apis/apps/", "get", "getAppsAPIGroup", "get information of a group", "APIGroup"),
            (
                "/apis/rbac.authorization.k8s.io/v1/",
                "get",
                "getRbacAuthorizationV1APIResources",
                "get available resources",
                "APIResourceList",
            ),
            ("/version/", "get", "getCodeVersion", "get the version information for this server", "Info"),
            (
                "/openid/v1/jwks",
                "get",
                "getServiceAccountIssuerOpenIDKeyset",
                "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
                "",
            ),
            (
                "/api/v1/namespaces/{namespace}/pods/{name}",
                "delete",
                "deleteCoreV1NamespacedPod",
                "delete a Pod",
                "Pod",
            ),
            (
                "/api/v1/namespaces/{namespace}/endpoints/{name}",
                "delete",
                "deleteCoreV1NamespacedEndpoints",
                "delete Endpoints",
                "Status",
            ),
            (
                "/api/v1/namespaces/{namespace}/pods",
                "delete",
                "deleteCoreV1CollectionNamespacedPod",
                "delete collection of Pod",
                "Status",
            ),
            (
                "/api/v1/namespaces/{namespace}/pods/{name}/eviction",
                "post",
                "createCoreV1NamespacedPodEviction",
                "create eviction of a Pod",
                "Eviction",
            ),
            (
                "/api/v1/namespaces/{namespace}/pods/{name}/exec",
                "post",
                "connectCoreV1PostNamespacedPodExec",
                "connect POST requests to exec of Pod",
                "",
            ),
            (
                "/api/v1/namespaces/{namespace}/pods/{name}/log",
                "get",
                "readCoreV1NamespacedPodLog",
                "read log of the specified Pod",
                "",
            ),
            (
                "/api/v1/nodes/{name}/proxy/{path}",
                "head",
                "connectCoreV1HeadNodeProxyWithPath",
                "connect HEAD requests to proxy of Node",
                "",
            ),
            (
                "/api/v1/componentstatuses",
                "get",
                "listCoreV1ComponentStatus",
                "list objects of kind ComponentStatus",
                "ComponentStatusList",
            ),
            (
                "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale",
                "patch",
                "patchAppsV1NamespacedDeploymentScale",
                "partially update scale of the specified Deployment",
                "Scale",
            ),
            (
                "/apis/apps/v1/watch/namespaces/{namespace}/deployments/{name}",
                "get",
                "watchAppsV1NamespacedDeployment",
                "watch changes to an object of kind Deployment. deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with the 'fieldSelector' parameter.",
                "WatchEvent",
            ),
            (
                "/apis/apps/v1/watch/deployments",
                "get",
                "watchAppsV1DeploymentListForAllNamespaces",
                "watch individual changes to a list of Deployment. deprecated: use the 'watch' parameter with a list operation instead.",
                "WatchEvent",
            ),
        ] {
            let found =
                operations.iter().find(|(p, m, _)| p == path && m == method).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((found.2.str_at(&["operationId"]), found.2.str_at(&["description"])), (id, what), "{path}");
            let schema =
                found.2.at(&["responses", "200", "schema"]).and_then(Value::as_map).cloned().unwrap_or_default();
            assert!(schema.str_at(&["$ref"]).ends_with(answer), "{path}: {schema:?}");
        }
    }

    #[test]
    fn v2_is_whole() {
        let all: Vec<&Resource> = crate::resource::all().iter().collect();
        let document = parsed(&of(&all).v2());
        let definitions = document.get("definitions").and_then(Value::as_map).cloned().unwrap_or_default();
        assert!(definitions.len() > 500, "{}", definitions.len());
        check_references(&document, &definitions, "#/definitions/");
    }

    #[test]
    fn the_index_names_each_document_once() {
        let all: Vec<&Resource> = crate::resource::all().iter().collect();
        let index = parsed(&of(&all).v3_index());
        let url = index.str_at(&["paths", "apis/apps/v1", "serverRelativeURL"]);
        assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
        assert_ne!(of(&all).hash("a"), Published { version: "v1.36.1", ..of(&all) }.hash("a"));
        let paths = index.get("paths").and_then(Value::as_map).cloned().unwrap_or_default();
        for (path, _) in paths.iter() {
            let document = parsed(&of(&all).v3(path).expect(path));
            let definitions = document.at(&["components", "schemas"]).and_then(Value::as_map).cloned();
            check_references(&document, &definitions.unwrap_or_default(), "#/components/schemas/");
        }
        let versions = paths.iter().filter(|(path, _)| path.ends_with(|c: char| c.is_ascii_digit())).count();
        let groups = crate::resource::groups();
        assert_eq!(versions, groups.iter().map(|(_, versions)| versions.len()).sum::<usize>());
        // A group each but the core group, and api, apis, version and the key set.
        assert_eq!(paths.len(), versions + groups.len() - 1 + 4);
    }
}
