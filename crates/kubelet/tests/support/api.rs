//! An API server in a hundred lines: objects by path, lists, watches, patches, graceful deletion.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;
use tokio_stream::StreamExt as _;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Clone)]
struct Event {
    kind: &'static str,
    path: String,
    object: Value,
    version: u64,
}

struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    log: Vec<Event>,
    /// Method and path of each request but watches.
    requests: Vec<String>,
}

#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<Event>,
}

/// The path of the collection that an object's path is in.
fn collection(path: &str) -> &str {
    path.rsplit_once('/').unwrap().0
}

/// The same collection over all namespaces.
fn without_namespace(path: &str) -> String {
    match path.split_once("/namespaces/") {
        Some((root, rest)) => match rest.split_once('/') {
            Some((_, rest)) => format!("{root}/{rest}"),
            None => path.to_owned(),
        },
        None => path.to_owned(),
    }
}

fn merge(into: &mut Value, patch: &Value, strategic: bool) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    for (key, value) in patch {
        let map = into.as_object_mut().unwrap();
        match value {
            Value::Null => {
                map.remove(key);
            }
            Value::Array(list)
                if strategic && matches!(key.as_str(), "conditions" | "podIPs" | "hostIPs" | "addresses") =>
            {
                merge_list(map.entry(key.clone()).or_insert_with(|| json!([])), list);
            }
            _ => merge(map.entry(key.clone()).or_insert(Value::Null), value, strategic),
        }
    }
}

fn merge_list(into: &mut Value, patch: &[Value]) {
    let list = into.as_array_mut().unwrap();
    if patch.iter().any(|item| item["$patch"] == "replace") {
        *list = patch.iter().filter(|item| item["$patch"].is_null()).cloned().collect();
        return;
    }
    for item in patch {
        let at = list.iter().position(|have| have["type"] == item["type"]);
        match (item["$patch"] == "delete", at) {
            (true, Some(at)) => drop(list.remove(at)),
            (true, None) => {}
            (false, Some(at)) => merge(&mut list[at], item, true),
            (false, None) => list.push(item.clone()),
        }
    }
}

impl Api {
    pub fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                objects: BTreeMap::new(),
                version: 0,
                log: Vec::new(),
                requests: Vec::new(),
            })),
            changes: broadcast::channel(4096).0,
        }
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.handle(request).await) }
        });
        kube::Client::new(service, "default")
    }

    fn record(&self, state: &mut State, kind: &'static str, path: &str, object: &Value) {
        let event = Event { kind, path: path.to_owned(), object: object.clone(), version: state.version };
        state.log.push(event.clone());
        let _ = self.changes.send(event);
    }

    /// Creates or replaces an object.
    pub fn put(&self, path: &str, mut object: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version.to_string();
        let parts: Vec<&str> = path.split('/').collect();
        let meta = &mut object["metadata"];
        if !meta.is_object() {
            *meta = json!({});
        }
        meta["name"] = json!(parts.last());
        if let Some(at) = parts.iter().position(|part| *part == "namespaces").filter(|at| at + 3 < parts.len()) {
            meta["namespace"] = json!(parts[at + 1]);
        }
        if meta["uid"].is_null() {
            meta["uid"] = json!(uuid::Uuid::new_v4().to_string());
        }
        meta["resourceVersion"] = json!(version);
        if object["apiVersion"].is_null() {
            object["apiVersion"] = json!("v1");
        }
        let kind = if state.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        state.objects.insert(path.to_owned(), object.clone());
        self.record(&mut state, kind, path, &object);
        object
    }

    pub fn get(&self, path: &str) -> Value {
        self.state.lock().unwrap().objects.get(path).cloned().unwrap_or(Value::Null)
    }

    pub fn patch(&self, path: &str, patch: Value) {
        let mut object = self.get(path);
        merge(&mut object, &patch, true);
        self.put(path, object);
    }

    pub fn list(&self, collection_path: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        let all = state.objects.iter().filter(|(path, _)| {
            collection(path) == collection_path || without_namespace(collection(path)) == collection_path
        });
        all.map(|(_, object)| object.clone()).collect()
    }

    /// Removes an object at once.
    pub fn remove(&self, path: &str) {
        let mut state = self.state.lock().unwrap();
        if let Some(object) = state.objects.remove(path) {
            state.version += 1;
            self.record(&mut state, "DELETED", path, &object);
        }
    }

    /// Deletes a pod as a client does: with grace.
    pub fn delete_pod(&self, path: &str, grace: i64) {
        self.patch(
            path,
            json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}}),
        );
    }

    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Waits until the object (or null) is as wanted.
    pub async fn wait(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut changes = self.changes.subscribe();
        let waiting = async {
            loop {
                let object = self.get(path);
                if wanted(&object) {
                    return object;
                }
                tokio::select! {
                    _ = changes.recv() => {}
                    () = tokio::time::sleep(Duration::from_millis(50)) => {}
                }
            }
        };
        match tokio::time::timeout(super::PATIENCE, waiting).await {
            Ok(object) => object,
            Err(_) => panic!("timed out waiting for {path}; it is {:#}", self.get(path)),
        }
    }

    async fn handle(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let is_watch = query.contains("watch=true");
        if !is_watch {
            self.state.lock().unwrap().requests.push(format!("{} {path}", parts.method));
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let content = parts.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let is_collection = self.is_collection(&path);
        match parts.method {
            Method::GET if is_watch => self.watch(&path, &query),
            Method::GET if is_collection => self.answer_list(&path, &query),
            Method::GET => match self.get(&path) {
                Value::Null => not_found(&path),
                object => answer(StatusCode::OK, &object),
            },
            Method::POST => self.create(&path, body),
            Method::PUT => answer(StatusCode::OK, &self.put(&path, body)),
            Method::PATCH => {
                let object_path = path.strip_suffix("/status").unwrap_or(&path);
                let mut object = self.get(object_path);
                if object.is_null() {
                    return not_found(&path);
                }
                let uid = &body["metadata"]["uid"];
                if !uid.is_null() && *uid != object["metadata"]["uid"] {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                merge(&mut object, &body, content.contains("strategic"));
                answer(StatusCode::OK, &self.put(object_path, object))
            }
            Method::DELETE => {
                let object = self.get(&path);
                if object.is_null() {
                    return not_found(&path);
                }
                let uid = &body["preconditions"]["uid"];
                if !uid.is_null() && *uid != object["metadata"]["uid"] {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                self.remove(&path);
                answer(StatusCode::OK, &object)
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn is_collection(&self, path: &str) -> bool {
        let last = path.rsplit('/').next().unwrap();
        ["pods", "nodes", "services", "configmaps", "secrets", "events", "leases"].contains(&last)
    }

    fn create(&self, path: &str, body: Value) -> Answer {
        if path.ends_with("/token") {
            let mut answer_body = body;
            let expires = jiff::Timestamp::now() + Duration::from_secs(3600);
            answer_body["status"] =
                json!({"token": format!("token {expires}"), "expirationTimestamp": expires.to_string()});
            return answer(StatusCode::CREATED, &answer_body);
        }
        if path.ends_with("/tokenreviews") {
            let mut review = body;
            let good = review["spec"]["token"] == "good";
            review["status"] = json!({"authenticated": good, "user": {"username": "tester", "groups": []}});
            return answer(StatusCode::CREATED, &review);
        }
        if path.ends_with("/subjectaccessreviews") {
            let mut review = body;
            review["status"] = json!({"allowed": review["spec"]["user"] == "tester"});
            return answer(StatusCode::CREATED, &review);
        }
        let name = body["metadata"]["name"].as_str().unwrap();
        let object = format!("{path}/{name}");
        if !self.get(&object).is_null() {
            return failure(StatusCode::CONFLICT, "AlreadyExists");
        }
        answer(StatusCode::CREATED, &self.put(&object, body))
    }

    fn answer_list(&self, path: &str, query: &str) -> Answer {
        let items: Vec<Value> = self.list(path).into_iter().filter(|object| selected(object, query)).collect();
        let version = self.state.lock().unwrap().version.to_string();
        answer(
            StatusCode::OK,
            &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
        )
    }

    fn watch(&self, path: &str, query: &str) -> Answer {
        let from: u64 = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion="))
            .and_then(|version| version.parse().ok())
            .unwrap_or_default();
        let state = self.state.lock().unwrap();
        let receiver = self.changes.subscribe();
        let past: Vec<Event> = state.log.iter().filter(|event| event.version > from).cloned().collect();
        drop(state);
        let (path, query) = (path.to_owned(), query.to_owned());
        let live = tokio_stream::wrappers::BroadcastStream::new(receiver).filter_map(Result::ok);
        let frames = tokio_stream::iter(past).chain(live).filter_map(move |event| {
            let of = collection(&event.path);
            let wanted = (of == path || without_namespace(of) == path) && selected(&event.object, &query);
            // In the order in which all servers write them.
            let line = format!("{{\"type\":{},\"object\":{}}}\n", json!(event.kind), event.object);
            wanted.then(|| Ok(Frame::data(Bytes::from(line))))
        });
        Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

fn selected(object: &Value, query: &str) -> bool {
    let selector = query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector="));
    let Some(selector) = selector else { return true };
    let selector = selector.replace("%3D", "=");
    let (field, value) = selector.split_once('=').unwrap();
    let found = field.split('.').fold(object, |value, part| &value[part]);
    found == value
}

fn answer(status: StatusCode, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn failure(status: StatusCode, reason: &str) -> Answer {
    answer(
        status,
        &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": status.as_u16()}),
    )
}

fn not_found(_: &str) -> Answer {
    failure(StatusCode::NOT_FOUND, "NotFound")
}
