//! The operations of every path, named, described and answered as upstream publishes them.

use super::definitions::Definitions;
use super::parameters::{
    DELETE, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE, LIST, LOG, PRETTY, Parameter, in_path, of_connection,
};
use super::{Version, map};
use crate::resource::{Resource, Subresource, Verbs};
use crate::tree::{Map, Value};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

const JSON: &str = "application/json";
const FORMATS: [&str; 3] = [JSON, "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const ANY: [&str; 1] = ["*/*"];

type Codes = &'static [(&'static str, &'static str)];
const OK: Codes = &[("200", "OK")];
const CREATED: Codes = &[("200", "OK"), ("201", "Created")];
const CREATED_OR_ACCEPTED: Codes = &[("200", "OK"), ("201", "Created"), ("202", "Accepted")];
const ACCEPTED: Codes = &[("200", "OK"), ("202", "Accepted")];

/// One method of a path.
struct Operation {
    /// As a key of the path: `get`.
    method: &'static str,
    id: String,
    description: String,
    tag: String,
    /// `x-kubernetes-action`; empty: none, and no kind.
    action: &'static str,
    /// Group, version, kind.
    kind: [String; 3],
    consumes: Vec<&'static str>,
    produces: Vec<&'static str>,
    query: Vec<&'static Parameter>,
    /// Its schema, and whether there must be one.
    body: Option<(Map, bool)>,
    codes: Codes,
    answer: Option<Map>,
}

impl Operation {
    fn parameters(&self, version: Version) -> Vec<Map> {
        let mut parameters: Vec<Map> = self.query.iter().map(|p| p.in_query(version)).collect();
        if let (Some((schema, required)), Version::V2) = (&self.body, version) {
            let mut body = map([("in", "body".into()), ("name", "body".into()), ("schema", schema.clone().into())]);
            if *required {
                body.insert("required", true);
            }
            parameters.push(body);
        }
        parameters
    }

    fn write(self, parameters: Vec<Map>, version: Version) -> Map {
        let mut operation = map([
            ("description", self.description.into()),
            ("operationId", self.id.into()),
            ("tags", vec![Value::from(self.tag)].into()),
        ]);
        if !self.action.is_empty() {
            operation.insert("x-kubernetes-action", self.action);
            let [group, of_group, kind] = self.kind;
            let kind = map([("group", group.into()), ("kind", kind.into()), ("version", of_group.into())]);
            operation.insert("x-kubernetes-group-version-kind", kind);
        }
        let mut responses = Map::new();
        for (code, text) in self.codes {
            let mut response = map([("description", (*text).into())]);
            if let Some(answer) = &self.answer {
                let (key, shown) = match version {
                    Version::V2 => ("schema", answer.clone()),
                    Version::V3 => ("content", content(answer, &self.produces)),
                };
                response.insert(key, shown);
            }
            responses.insert(*code, response);
        }
        responses.insert("401", map([("description", "Unauthorized".into())]));
        operation.insert("responses", responses);
        match version {
            Version::V2 => {
                let strings = |types: &[&str]| types.iter().map(|t| Value::from(*t)).collect::<Vec<_>>();
                operation.insert("consumes", strings(&self.consumes));
                operation.insert("produces", strings(&self.produces));
                operation.insert("schemes", strings(&["https"]));
            }
            Version::V3 => {
                if let Some((schema, required)) = self.body {
                    let mut request = map([("content", content(&schema, &self.consumes).into())]);
                    if required {
                        request.insert("required", true);
                    }
                    operation.insert("requestBody", request);
                }
            }
        }
        if !parameters.is_empty() {
            operation.insert("parameters", parameters.into_iter().map(Value::Map).collect::<Vec<_>>());
        }
        operation
    }
}

fn content(schema: &Map, types: &[&str]) -> Map {
    let mut content = Map::new();
    for ty in types {
        content.insert((*ty).to_owned(), map([("schema", schema.clone().into())]));
    }
    content
}

fn text() -> Map {
    map([("type", "string".into())])
}

/// A path: what parameters all its operations have is said once.
fn path_item(operations: Vec<Operation>, in_path: Vec<Map>, version: Version) -> Map {
    let by_name = |list: &mut Vec<Map>| list.sort_by(|a, b| a.str_at(&["name"]).cmp(b.str_at(&["name"])));
    let mut each: Vec<Vec<Map>> = operations.iter().map(|o| o.parameters(version)).collect();
    let is_body = |parameter: &Map| parameter.str_at(&["in"]) == "body";
    let mut shared: Vec<Map> = each.first().cloned().unwrap_or_default();
    shared.retain(|parameter| !is_body(parameter) && each.iter().all(|list| list.contains(parameter)));
    each.iter_mut().for_each(|list| list.retain(|parameter| !shared.contains(parameter)));
    shared.extend(in_path);
    by_name(&mut shared);
    let mut item = Map::new();
    for (operation, mut parameters) in operations.into_iter().zip(each) {
        by_name(&mut parameters);
        item.insert(operation.method, operation.write(parameters, version));
    }
    if !shared.is_empty() {
        item.insert("parameters", shared.into_iter().map(Value::Map).collect::<Vec<_>>());
    }
    item
}

/// A word of an operation's id: `flowcontrol.apiserver` to `FlowcontrolApiserver`, or `flowcontrolApiserver`.
fn id_word(text: &str, capital_first: bool) -> String {
    let mut capital = capital_first;
    let mut word = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_alphanumeric() {
            capital = true;
        } else if capital {
            word.extend(c.to_uppercase());
            capital = false;
        } else {
            word.push(c);
        }
    }
    word
}

fn short_group(group: &str) -> &str {
    if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) }
}

/// `/api/v1`, `/apis/apps/v1`.
fn base(row: &Resource) -> String {
    if row.group.is_empty() { format!("/api/{}", row.version) } else { format!("/apis/{}/{}", row.group, row.version) }
}

/// ` a Pod`, ` an APIService`, ` Endpoints`.
fn with_article(kind: &str) -> String {
    if kind.ends_with('s') && !kind.ends_with("ss") {
        return format!(" {kind}");
    }
    let article = if kind.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
    format!(" {article} {kind}")
}

/// The paths that are no resource's: those of discovery, and the documents of the server.
pub(super) struct PlainPaths<'p> {
    pub(super) rows: &'p [&'p Resource],
    /// The documents that the server answers beside the API: `/openid/v1/jwks`.
    pub(super) documents: &'p [&'p str],
    /// The document of v3 they are for; `None`: all of them.
    pub(super) of: Option<&'p str>,
}

/// What is got at such a path.
struct Plain<'p> {
    path: String,
    id: String,
    description: &'static str,
    tag: String,
    /// The definition's name; empty: a string.
    answer: &'p str,
    formats: &'static [&'static str],
}

impl PlainPaths<'_> {
    pub(super) fn write(&self, version: Version, definitions: &mut Definitions<'_>) -> Map {
        let mut paths = Map::new();
        let mut add = |plain: Plain<'_>| {
            let wanted = self.of.is_none_or(|of| plain.path.trim_matches('/') == of);
            if !wanted || paths.contains_key(&plain.path) {
                return;
            }
            let answer =
                if plain.answer.is_empty() { text() } else { definitions.named(plain.answer).unwrap_or_default() };
            let operation = Operation {
                method: "get",
                id: plain.id,
                description: plain.description.to_owned(),
                tag: plain.tag,
                action: "",
                kind: Default::default(),
                consumes: plain.formats.to_vec(),
                produces: plain.formats.to_vec(),
                query: Vec::new(),
                body: None,
                codes: OK,
                answer: Some(answer),
            };
            paths.insert(plain.path, path_item(vec![operation], Vec::new(), version));
        };
        for row in self.rows {
            let group = short_group(&row.group);
            let (word, version_word) = (id_word(group, true), id_word(&row.version, true));
            let versions = "get available API versions";
            let root = if row.group.is_empty() {
                ("/api/", "getCoreAPIVersions", "core", format!("{META}.APIVersions"))
            } else {
                ("/apis/", "getAPIVersions", "apis", format!("{META}.APIGroupList"))
            };
            add(Plain {
                path: root.0.to_owned(),
                id: root.1.to_owned(),
                description: versions,
                tag: root.2.to_owned(),
                answer: &root.3,
                formats: &FORMATS,
            });
            if !row.group.is_empty() {
                add(Plain {
                    path: format!("/apis/{}/", row.group),
                    id: format!("get{word}APIGroup"),
                    description: "get information of a group",
                    tag: id_word(group, false),
                    answer: &format!("{META}.APIGroup"),
                    formats: &FORMATS,
                });
            }
            add(Plain {
                path: format!("{}/", base(row)),
                id: format!("get{word}{version_word}APIResources"),
                description: "get available resources",
                tag: tag(row),
                answer: &format!("{META}.APIResourceList"),
                formats: &FORMATS,
            });
        }
        add(Plain {
            path: "/version/".to_owned(),
            id: "getCodeVersion".to_owned(),
            description: "get the version information for this server",
            tag: "version".to_owned(),
            answer: "io.k8s.apimachinery.pkg.version.Info",
            formats: &[JSON],
        });
        for (path, id, description, tag, formats) in DOCUMENTS {
            if self.documents.contains(path) {
                let (path, id, tag) = ((*path).to_owned(), (*id).to_owned(), (*tag).to_owned());
                add(Plain { path, id, description, tag, answer: "", formats });
            }
        }
        paths
    }
}

/// Path, operation, what it is, tag, formats.
type Document = (&'static str, &'static str, &'static str, &'static str, &'static [&'static str]);
const DOCUMENTS: &[Document] = &[
    (
        "/.well-known/openid-configuration",
        "getServiceAccountIssuerOpenIDConfiguration",
        "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
        "WellKnown",
        &[JSON],
    ),
    (
        "/openid/v1/jwks",
        "getServiceAccountIssuerOpenIDKeyset",
        "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
        "openid",
        &["application/jwk-set+json"],
    ),
];

/// `core_v1`, `flowcontrolApiserver_v1`.
fn tag(row: &Resource) -> String {
    format!("{}_{}", id_word(short_group(&row.group), false), id_word(&row.version, false))
}

/// The paths of rows.
pub(super) fn paths<'d>(rows: &[&'d Resource], version: Version, definitions: &mut Definitions<'d>) -> Map {
    let mut paths = Map::new();
    for row in rows {
        Row { row, version, definitions }.write(&mut paths);
    }
    paths
}

/// A row whose paths are written.
struct Row<'p, 'd> {
    row: &'d Resource,
    version: Version,
    definitions: &'p mut Definitions<'d>,
}

impl<'d> Row<'_, 'd> {
    fn write(&mut self, paths: &mut Map) {
        let row = self.row;
        let base = base(row);
        let scope = if row.namespaced { "/namespaces/{namespace}" } else { "" };
        let scoped = format!("{base}{scope}/{}", row.plural);
        let collection = self.collection();
        self.add(paths, scoped.clone(), collection, "", false);
        if row.namespaced && row.verbs.contains(Verbs::LIST) {
            let everywhere = vec![self.list("ForAllNamespaces", "")];
            paths.insert(format!("{base}/{}", row.plural), path_item(everywhere, Vec::new(), self.version));
        }
        let item = self.item();
        self.add(paths, format!("{scoped}/{{name}}"), item, &row.kind, false);
        for sub in row.subresources.iter() {
            let path = format!("{scoped}/{{name}}/{}", sub.name);
            if !sub.kind.ends_with("Options") {
                let operations = self.subresource(sub);
                self.add(paths, path, operations, &sub.kind, false);
                continue;
            }
            let operations = self.connections(sub, "");
            self.add(paths, path.clone(), operations, &sub.kind, false);
            if sub.kind.ends_with("ProxyOptions") {
                let operations = self.connections(sub, "WithPath");
                self.add(paths, format!("{path}/{{path}}"), operations, &sub.kind, true);
            }
        }
        if row.verbs.contains(Verbs::WATCH) {
            let watched = format!("{base}/watch{scope}/{}", row.plural);
            let list = vec![self.watch(true, self.scope(), "")];
            self.add(paths, watched.clone(), list, "", false);
            if row.namespaced {
                let everywhere = vec![self.watch(true, "", "ForAllNamespaces")];
                paths.insert(format!("{base}/watch/{}", row.plural), path_item(everywhere, Vec::new(), self.version));
            }
            if row.verbs.contains(Verbs::GET) {
                let one = vec![self.watch(false, self.scope(), "")];
                self.add(paths, format!("{watched}/{{name}}"), one, &row.kind, false);
            }
        }
    }

    /// Adds a path in the scope of the row. `named`: the kind whose name is in it; `rest`: it goes on with a path.
    fn add(&self, paths: &mut Map, path: String, operations: Vec<Operation>, named: &str, rest: bool) {
        if operations.is_empty() {
            return;
        }
        let mut parameters = Vec::new();
        if !named.is_empty() {
            parameters.push(in_path("name", &format!("name of the {named}"), self.version));
        }
        if self.row.namespaced {
            let what = "object name and auth scope, such as for teams and projects";
            parameters.push(in_path("namespace", what, self.version));
        }
        if rest {
            parameters.push(in_path("path", "path to the resource", self.version));
        }
        paths.insert(path, path_item(operations, parameters, self.version));
    }

    fn scope(&self) -> &'static str {
        if self.row.namespaced { "Namespaced" } else { "" }
    }

    /// `CoreV1`, `RbacAuthorizationV1`.
    fn group_id(&self) -> String {
        format!("{}{}", id_word(short_group(&self.row.group), true), id_word(&self.row.version, true))
    }

    fn object(&mut self) -> Option<Map> {
        let row = self.row;
        self.definitions.kind_reference(row.schema.root(), &row.group, &row.version, &row.kind)
    }

    fn meta(&mut self, name: &str) -> Option<Map> {
        self.definitions.named(&format!("{META}.{name}"))
    }

    /// An operation of the row's kind that answers 200 in all formats; whoever asks for it says the rest.
    fn operation(&self, method: &'static str, action: &'static str, id: String, description: String) -> Operation {
        let row = self.row;
        Operation {
            method,
            id,
            description,
            tag: tag(row),
            action,
            kind: [row.group.to_string(), row.version.to_string(), row.kind.to_string()],
            consumes: ANY.to_vec(),
            produces: FORMATS.to_vec(),
            query: vec![&PRETTY],
            body: None,
            codes: OK,
            answer: None,
        }
    }

    fn list(&mut self, suffix: &str, scope: &str) -> Operation {
        let row = self.row;
        let watched = if row.verbs.contains(Verbs::WATCH) { " or watch" } else { "" };
        let id = format!("list{}{scope}{}{suffix}", self.group_id(), row.kind);
        let description = format!("list{watched} objects of kind {}", row.kind);
        let mut operation = self.operation("get", "list", id, description);
        operation.query.extend(&LIST);
        operation.produces.extend(STREAMS);
        operation.answer = self.definitions.list_reference(row);
        operation
    }

    fn watch(&mut self, list: bool, scope: &str, suffix: &str) -> Operation {
        let kind = &self.row.kind;
        let (action, what, of, end) = if list {
            ("watchlist", "individual changes to a list of", "List", "")
        } else {
            (
                "watch",
                "changes to an object of kind",
                "",
                ", filtered to a single item with the 'fieldSelector' parameter",
            )
        };
        let id = format!("watch{}{scope}{kind}{of}{suffix}", self.group_id());
        let description =
            format!("watch {what} {kind}. deprecated: use the 'watch' parameter with a list operation instead{end}.");
        let mut operation = self.operation("get", action, id, description);
        operation.query.extend(&LIST);
        operation.produces.extend(STREAMS);
        operation.answer = self.meta("WatchEvent");
        operation
    }

    fn collection(&mut self) -> Vec<Operation> {
        let row = self.row;
        let (verbs, kind, scope, group) = (row.verbs, &row.kind, self.scope(), self.group_id());
        let mut operations = Vec::new();
        if verbs.contains(Verbs::LIST) {
            operations.push(self.list("", scope));
        }
        if verbs.contains(Verbs::CREATE) {
            let id = format!("create{group}{scope}{kind}");
            let object = self.object();
            let mut operation = self.operation("post", "post", id, format!("create{}", with_article(kind)));
            created(&mut operation, object);
            operations.push(operation);
        }
        if verbs.contains(Verbs::DELETE_COLLECTION) {
            let id = format!("delete{group}Collection{scope}{kind}");
            let mut operation =
                self.operation("delete", "deletecollection", id, format!("delete collection of {kind}"));
            let not_of_watches = LIST.iter().filter(|p| !matches!(p.name, "watch" | "allowWatchBookmarks"));
            operation.query.extend(not_of_watches.chain(&DELETE).chain([&DRY_RUN]));
            operation.body = self.meta("DeleteOptions").map(|schema| (schema, false));
            operation.answer = self.meta("Status");
            operations.push(operation);
        }
        operations
    }

    fn item(&mut self) -> Vec<Operation> {
        let row = self.row;
        let object = self.object();
        let mut operations = self.reads_and_writes(row.verbs, "", "", object.clone());
        if row.verbs.contains(Verbs::DELETE) {
            let id = format!("delete{}{}{}", self.group_id(), self.scope(), row.kind);
            let mut operation = self.operation("delete", "delete", id, format!("delete{}", with_article(&row.kind)));
            operation.query.extend(DELETE.iter().chain([&DRY_RUN]));
            operation.body = self.meta("DeleteOptions").map(|schema| (schema, false));
            operation.answer = if row.flags.returns_deleted { object } else { self.meta("Status") };
            operation.codes = ACCEPTED;
            operations.push(operation);
        }
        operations
    }

    /// `suffix` of the id, `of` before the kind: `Status`, `status of `.
    fn reads_and_writes(&mut self, verbs: Verbs, suffix: &str, of: &str, object: Option<Map>) -> Vec<Operation> {
        let row = self.row;
        let (group, scope, kind) = (self.group_id(), self.scope(), &row.kind);
        let id = |verb: &str| format!("{verb}{group}{scope}{kind}{suffix}");
        let mut operations = Vec::new();
        if verbs.contains(Verbs::GET) {
            let mut operation = self.operation("get", "get", id("read"), format!("read {of}the specified {kind}"));
            operation.answer.clone_from(&object);
            operations.push(operation);
        }
        if verbs.contains(Verbs::UPDATE) {
            let mut operation =
                self.operation("put", "put", id("replace"), format!("replace {of}the specified {kind}"));
            created(&mut operation, object.clone());
            operation.codes = CREATED;
            operations.push(operation);
        }
        if verbs.contains(Verbs::PATCH) {
            let what = format!("partially update {of}the specified {kind}");
            let mut operation = self.operation("patch", "patch", id("patch"), what);
            created(&mut operation, object);
            operation.codes = CREATED;
            operation.query.push(&FORCE);
            operation.consumes = PATCHES.to_vec();
            operation.body = Some((self.definitions.scalar(PATCH), true));
            operations.push(operation);
        }
        operations
    }

    fn subresource(&mut self, sub: &'d Subresource) -> Vec<Operation> {
        let row = self.row;
        let suffix: String = sub.name.split('/').map(|word| id_word(word, true)).collect();
        let ty = if sub.kind == row.kind && sub.group == row.group {
            Some(row.schema.root())
        } else {
            crate::types::of_kind(&sub.group, &sub.version, &sub.kind)
        };
        let object = ty.and_then(|ty| self.definitions.kind_reference(ty, &sub.group, &sub.version, &sub.kind));
        let of = format!("{} of ", sub.name);
        let mut operations = self.reads_and_writes(sub.verbs, &suffix, &of, object.clone());
        if sub.verbs.contains(Verbs::CREATE) {
            let id = format!("create{}{}{}{suffix}", self.group_id(), self.scope(), row.kind);
            let what = format!("create {} of{}", sub.name, with_article(&row.kind));
            let mut operation = self.operation("post", "post", id, what);
            created(&mut operation, object);
            operations.push(operation);
        }
        for operation in &mut operations {
            operation.kind = [sub.group.to_string(), sub.version.to_string(), sub.kind.to_string()];
            // The only one that is no object of the API.
            if sub.name == "log" {
                operation.query.extend(&LOG);
                operation.produces.insert(0, "text/plain");
                operation.answer = Some(text());
            }
        }
        operations
    }

    /// The operations of a subresource that connects, by the methods it connects with.
    fn connections(&self, sub: &Subresource, suffix: &str) -> Vec<Operation> {
        let methods: &[&'static str] = if sub.kind.ends_with("ProxyOptions") {
            &["delete", "get", "head", "options", "patch", "post", "put"]
        } else {
            &["get", "post"]
        };
        let connect = |method: &&'static str| {
            let (group, scope, kind) = (self.group_id(), self.scope(), &self.row.kind);
            let name = id_word(&sub.name, true);
            let id = format!("connect{group}{}{scope}{kind}{name}{suffix}", id_word(method, true));
            let what = format!("connect {} requests to {} of {kind}", method.to_uppercase(), sub.name);
            let mut operation = self.operation(method, "connect", id, what);
            operation.kind = [sub.group.to_string(), sub.version.to_string(), sub.kind.to_string()];
            operation.produces = ANY.to_vec();
            operation.query = of_connection(&sub.kind);
            operation.answer = Some(text());
            operation
        };
        methods.iter().map(connect).collect()
    }
}

/// Makes an operation take an object and answer with it.
fn created(operation: &mut Operation, object: Option<Map>) {
    operation.query.extend([&DRY_RUN, &FIELD_MANAGER, &FIELD_VALIDATION]);
    operation.body = object.clone().map(|schema| (schema, true));
    operation.answer = object;
    operation.codes = CREATED_OR_ACCEPTED;
}
