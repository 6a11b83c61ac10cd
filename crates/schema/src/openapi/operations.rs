//! The operations of every path, with their query parameters.

use super::definitions::Definitions;
use super::{Version, map};
use crate::resource::{Resource, Subresource, Verbs};
use crate::tree::{Map, Value};

const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

const JSON_YAML_PROTOBUF: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const WATCH_TYPES: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// Name, type, what it does.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. An invalid or unrecognized dryRun directive will result in an error response and no further processing of the request. Valid values are: - All: all dry run stages will be processed",
);
const FIELD_MANAGER: Parameter = (
    "fieldManager",
    "string",
    "The name associated with the actor or entity that is making these changes, at most 128 printable characters.",
);
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What the server does with unknown and duplicate fields of the request. Valid values are: - Ignore: they are dropped silently. - Warn: a warning is sent for each. - Strict: the request fails with all of them listed.",
);
const FORCE: Parameter = (
    "force",
    "boolean",
    "Force an apply request: fields that other managers own are taken over. Only for apply patches.",
);
const PRETTY: Parameter = ("pretty", "string", "If 'true', then the output is pretty printed.");

const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean", "Requests watch events of type BOOKMARK."),
    ("continue", "string", "The token of the next page of a limited list."),
    ("fieldSelector", "string", "Restricts the returned objects by their fields. Defaults to everything."),
    ("labelSelector", "string", "Restricts the returned objects by their labels. Defaults to everything."),
    ("limit", "integer", "The most objects to return in one page."),
    ("resourceVersion", "string", "Sets a constraint on what resource versions a request may be served from."),
    ("resourceVersionMatch", "string", "How resourceVersion is applied to a list."),
    ("sendInitialEvents", "boolean", "Begin the watch with events that bring what is there, followed by a bookmark."),
    ("timeoutSeconds", "integer", "Limits the duration of the call, regardless of any activity or inactivity."),
    ("watch", "boolean", "Watch for changes to the described resources."),
];

const DELETE: &[Parameter] = &[
    ("gracePeriodSeconds", "integer", "Seconds before the object should be deleted; zero deletes immediately."),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", "Delete an object that can't be read any more."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    (
        "propagationPolicy",
        "string",
        "Whether and how garbage collection is performed: Orphan, Background or Foreground.",
    ),
];

/// What is told of one path's resource.
struct Target<'r> {
    group: &'r str,
    version: &'r str,
    kind: &'r str,
    /// `CoreV1NamespacedPod`: the tail of operation ids.
    id: String,
    tag: String,
}

/// The paths of rows.
pub(super) fn paths<'d>(rows: &[&'d Resource], version: Version, definitions: &mut Definitions<'d>) -> Map {
    let mut paths = Map::new();
    for row in rows {
        let base = if row.group.is_empty() {
            format!("/api/{}", row.version)
        } else {
            format!("/apis/{}/{}", row.group, row.version)
        };
        let scoped = if row.namespaced {
            format!("{base}/namespaces/{{namespace}}/{}", row.plural)
        } else {
            format!("{base}/{}", row.plural)
        };
        let target = target(row);
        let collection = collection(row, &target, version, definitions);
        if !collection.is_empty() {
            paths.insert(scoped.clone(), with_parameters(collection, row.namespaced, false, version));
        }
        if row.namespaced && row.verbs.contains(Verbs::LIST) {
            let mut all = Map::new();
            let list = definitions.list_reference(row);
            all.insert(
                "get",
                operation(
                    "list",
                    &format!("list{}ForAllNamespaces", unscoped(row)),
                    &target,
                    LIST,
                    None,
                    list,
                    version,
                ),
            );
            paths.insert(format!("{base}/{}", row.plural), with_parameters(all, false, false, version));
        }
        let item = item(row, &target, version, definitions);
        if !item.is_empty() {
            paths.insert(format!("{scoped}/{{name}}"), with_parameters(item, row.namespaced, true, version));
        }
        for sub in row.subresources.iter() {
            let operations = subresource(row, sub, &target, version, definitions);
            paths.insert(
                format!("{scoped}/{{name}}/{}", sub.name),
                with_parameters(operations, row.namespaced, true, version),
            );
        }
    }
    paths
}

/// `AppsV1`, `CoreV1`, `RbacAuthorizationV1`.
fn group_id(row: &Resource) -> String {
    let group = row.group.strip_suffix(".k8s.io").unwrap_or(&row.group);
    let group = if group.is_empty() { "core" } else { group };
    group.split('.').chain([row.version.as_ref()]).map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn unscoped(row: &Resource) -> String {
    format!("{}{}", group_id(row), row.kind)
}

fn target(row: &Resource) -> Target<'_> {
    let scope = if row.namespaced { "Namespaced" } else { "" };
    let group = row.group.strip_suffix(".k8s.io").unwrap_or(&row.group);
    let group = if group.is_empty() { "core".to_owned() } else { group.replace('.', "") };
    Target {
        group: &row.group,
        version: &row.version,
        kind: &row.kind,
        id: format!("{}{scope}{}", group_id(row), row.kind),
        tag: format!("{group}_{}", row.version),
    }
}

fn collection<'d>(row: &'d Resource, target: &Target<'_>, version: Version, definitions: &mut Definitions<'d>) -> Map {
    let mut operations = Map::new();
    let object = definitions.kind_reference(row.schema.root(), &row.group, &row.version, &row.kind);
    if row.verbs.contains(Verbs::LIST) {
        let list = definitions.list_reference(row);
        operations.insert("get", operation("list", &format!("list{}", target.id), target, LIST, None, list, version));
    }
    if row.verbs.contains(Verbs::CREATE) {
        let query = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
        let body = object.clone().map(|o| (o, &["*/*"][..]));
        operations
            .insert("post", operation("post", &format!("create{}", target.id), target, &query, body, object, version));
    }
    if row.verbs.contains(Verbs::DELETE_COLLECTION) {
        let query: Vec<Parameter> = LIST
            .iter()
            .filter(|p| !matches!(p.0, "watch" | "allowWatchBookmarks"))
            .chain(DELETE)
            .chain(&[DRY_RUN])
            .copied()
            .collect();
        let body = definitions.named(DELETE_OPTIONS).map(|o| (o, &["*/*"][..]));
        let status = definitions.named(STATUS);
        let id = target.id.replacen(&group_id(row), &format!("{}Collection", group_id(row)), 1);
        operations.insert(
            "delete",
            operation("deletecollection", &format!("delete{id}"), target, &query, body, status, version),
        );
    }
    operations
}

fn item<'d>(row: &'d Resource, target: &Target<'_>, version: Version, definitions: &mut Definitions<'d>) -> Map {
    let object = definitions.kind_reference(row.schema.root(), &row.group, &row.version, &row.kind);
    let mut operations = reads_and_writes(row.verbs, "", target, object.clone(), version, definitions);
    if row.verbs.contains(Verbs::DELETE) {
        let query: Vec<Parameter> = DELETE.iter().chain(&[DRY_RUN]).copied().collect();
        let body = definitions.named(DELETE_OPTIONS).map(|o| (o, &["*/*"][..]));
        let status = definitions.named(STATUS);
        operations.insert(
            "delete",
            operation("delete", &format!("delete{}", target.id), target, &query, body, status, version),
        );
    }
    operations
}

fn reads_and_writes(
    verbs: Verbs,
    suffix: &str,
    target: &Target<'_>,
    object: Option<Map>,
    version: Version,
    definitions: &mut Definitions<'_>,
) -> Map {
    let mut operations = Map::new();
    let id = |verb: &str| format!("{verb}{}{suffix}", target.id);
    if verbs.contains(Verbs::GET) {
        operations.insert("get", operation("get", &id("read"), target, &[], None, object.clone(), version));
    }
    if verbs.contains(Verbs::UPDATE) {
        let query = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
        let body = object.clone().map(|o| (o, &["*/*"][..]));
        operations.insert("put", operation("put", &id("replace"), target, &query, body, object.clone(), version));
    }
    if verbs.contains(Verbs::PATCH) {
        let query = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
        let types = [
            "application/apply-patch+yaml",
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
        ];
        let body = Some((definitions.scalar(PATCH), &types[..]));
        operations.insert("patch", operation("patch", &id("patch"), target, &query, body, object, version));
    }
    operations
}

fn subresource<'d>(
    row: &'d Resource,
    sub: &'d Subresource,
    target: &Target<'_>,
    version: Version,
    definitions: &mut Definitions<'d>,
) -> Map {
    let suffix: String = sub.name.split('/').map(capital).collect();
    let ty = if sub.kind == row.kind && sub.group == row.group {
        Some(row.schema.root())
    } else {
        crate::types::of_kind(&sub.group, &sub.version, &sub.kind)
    };
    let object = ty.and_then(|ty| definitions.kind_reference(ty, &sub.group, &sub.version, &sub.kind));
    let of_sub = Target {
        group: &sub.group,
        version: &sub.version,
        kind: &sub.kind,
        id: target.id.clone(),
        tag: target.tag.clone(),
    };
    let mut operations = reads_and_writes(sub.verbs, &suffix, &of_sub, object.clone(), version, definitions);
    if sub.verbs.contains(Verbs::CREATE) {
        let query = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
        let body = object.clone().map(|o| (o, &["*/*"][..]));
        let id = format!("create{}{suffix}", target.id);
        operations.insert("post", operation("post", &id, &of_sub, &query, body, object, version));
    }
    operations
}

fn parameter((name, ty, description): &Parameter, version: Version) -> Value {
    let mut parameter = map([("description", (*description).into()), ("in", "query".into()), ("name", (*name).into())]);
    let unique = Value::Bool(true);
    match version {
        Version::V2 => {
            parameter.insert("type", *ty);
            parameter.insert("uniqueItems", unique);
        }
        Version::V3 => {
            parameter.insert("schema", map([("type", (*ty).into()), ("uniqueItems", unique)]));
        }
    }
    Value::Map(parameter)
}

fn path_parameter(name: &'static str, version: Version) -> Value {
    let description = if name == "name" {
        "name of the object"
    } else {
        "object name and auth scope, such as for teams and projects"
    };
    let mut parameter = map([
        ("description", description.into()),
        ("in", "path".into()),
        ("name", name.into()),
        ("required", true.into()),
    ]);
    let unique = Value::Bool(true);
    match version {
        Version::V2 => {
            parameter.insert("type", "string");
            parameter.insert("uniqueItems", unique);
        }
        Version::V3 => {
            parameter.insert("schema", map([("type", "string".into()), ("uniqueItems", unique)]));
        }
    }
    Value::Map(parameter)
}

fn with_parameters(mut operations: Map, namespaced: bool, named: bool, version: Version) -> Map {
    let mut parameters = Vec::new();
    if named {
        parameters.push(path_parameter("name", version));
    }
    if namespaced {
        parameters.push(path_parameter("namespace", version));
    }
    parameters.push(parameter(&PRETTY, version));
    operations.insert("parameters", parameters);
    operations
}

fn operation(
    action: &'static str,
    id: &str,
    target: &Target<'_>,
    query: &[Parameter],
    body: Option<(Map, &[&'static str])>,
    answer: Option<Map>,
    version: Version,
) -> Map {
    let gvk = map([("group", target.group.into()), ("kind", target.kind.into()), ("version", target.version.into())]);
    let mut operation = map([
        ("description", format!("{action} {}", target.kind).into()),
        ("operationId", id.into()),
        ("tags", vec![Value::from(target.tag.as_str())].into()),
        ("x-kubernetes-action", action.into()),
        ("x-kubernetes-group-version-kind", gvk.into()),
    ]);
    let mut parameters: Vec<Value> = query.iter().map(|p| parameter(p, version)).collect();
    let codes: &[(&'static str, &'static str)] = match action {
        "post" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
        "put" | "patch" => &[("200", "OK"), ("201", "Created")],
        "delete" => &[("200", "OK"), ("202", "Accepted")],
        _ => &[("200", "OK")],
    };
    let mut responses = Map::new();
    let mut types: Vec<&str> = JSON_YAML_PROTOBUF.to_vec();
    if action == "list" {
        types.extend(WATCH_TYPES);
    }
    for (code, text) in codes {
        let mut response = map([("description", (*text).into())]);
        if let Some(answer) = &answer {
            match version {
                Version::V2 => {
                    response.insert("schema", answer.clone());
                }
                Version::V3 => {
                    response.insert("content", content(answer, &types));
                }
            }
        }
        responses.insert(*code, response);
    }
    responses.insert("401", map([("description", "Unauthorized".into())]));
    operation.insert("responses", responses);
    let strings = |types: &[&str]| types.iter().map(|t| Value::from(*t)).collect::<Vec<_>>();
    if version == Version::V2 {
        operation.insert("produces", strings(&types));
        operation.insert("schemes", strings(&["https"]));
        operation.insert("consumes", strings(body.as_ref().map_or(&["*/*"][..], |(_, types)| *types)));
    }
    if let Some((schema, types)) = body {
        let required = action != "delete" && action != "deletecollection";
        match version {
            Version::V2 => {
                let mut parameter = map([("in", "body".into()), ("name", "body".into()), ("schema", schema.into())]);
                if required {
                    parameter.insert("required", true);
                }
                parameters.insert(0, Value::Map(parameter));
            }
            Version::V3 => {
                let mut request = map([("content", content(&schema, types).into())]);
                if required {
                    request.insert("required", true);
                }
                operation.insert("requestBody", request);
            }
        }
    }
    if !parameters.is_empty() {
        operation.insert("parameters", parameters);
    }
    operation
}

fn content(schema: &Map, types: &[&str]) -> Map {
    let mut content = Map::new();
    for ty in types {
        content.insert((*ty).to_owned(), map([("schema", schema.clone().into())]));
    }
    content
}
