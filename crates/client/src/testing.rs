//! An API server for tests of those who watch: it lists what it is given and sends the changes to every watch.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// The API server. Objects are told apart by kind, namespace and name.
#[derive(Clone)]
pub struct Api {
    objects: Arc<Mutex<(u64, BTreeMap<String, Value>)>>,
    changes: broadcast::Sender<Value>,
}

impl Api {
    /// A server with these objects.
    pub fn new(objects: &[Value]) -> Self {
        let api = Self { objects: Arc::default(), changes: broadcast::channel(1000).0 };
        for object in objects {
            api.apply(object.clone());
        }
        api
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let response = api.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        Client::new(service, "default")
    }

    /// Creates or replaces an object.
    pub fn apply(&self, object: Value) {
        self.change("MODIFIED", object);
    }

    /// Removes an object.
    pub fn delete(&self, object: Value) {
        self.change("DELETED", object);
    }

    fn change(&self, event: &str, mut object: Value) {
        let mut state = self.objects.lock().unwrap();
        state.0 += 1;
        object["metadata"]["resourceVersion"] = json!(state.0.to_string());
        let key = format!("{}/{}/{}", object["kind"], object["metadata"]["namespace"], object["metadata"]["name"]);
        if event == "DELETED" {
            state.1.remove(&key);
        } else {
            state.1.insert(key, object.clone());
        }
        // Nobody may be watching yet.
        let _ = self.changes.send(json!({"type": event, "object": object}));
    }

    fn answer(&self, request: &Request<Body>) -> Response<UnsyncBoxBody<Bytes, std::io::Error>> {
        let kind = match request.uri().path().rsplit('/').next() {
            Some("services") => "Service",
            Some("endpointslices") => "EndpointSlice",
            Some("nodes") => "Node",
            Some("pods") => "Pod",
            Some("namespaces") => "Namespace",
            other => panic!("nobody should ask for {other:?}"),
        };
        let query = request.uri().query().unwrap_or_default();
        let state = self.objects.lock().unwrap();
        if !query.contains("watch=true") {
            let items: Vec<&Value> = state.1.values().filter(|object| object["kind"] == kind).collect();
            let list = json!({"kind": format!("{kind}List"), "metadata": {"resourceVersion": state.0.to_string()}, "items": items});
            return Response::new(Full::from(list.to_string()).map_err(|never| match never {}).boxed_unsync());
        }
        let since: u64 = query
            .split('&')
            .find_map(|parameter| parameter.strip_prefix("resourceVersion="))
            .and_then(|version| version.parse().ok())
            .unwrap();
        assert!(since <= state.0);
        let missed: Vec<Value> = state.1.values().filter(|object| version(object) > since).cloned().collect();
        let missed = missed.into_iter().map(|object| json!({"type": "MODIFIED", "object": object}));
        let changes = received(self.changes.subscribe());
        let events = futures::stream::iter(missed).chain(changes).filter_map(move |event| async move {
            // In the order in which all servers write them.
            let line = || format!("{{\"type\":{},\"object\":{}}}\n", event["type"], event["object"]);
            let frame = || Frame::data(Bytes::from(line()));
            (event["object"]["kind"] == kind).then(|| Ok::<_, std::io::Error>(frame()))
        });
        Response::new(StreamBody::new(events).boxed_unsync())
    }
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn received(receiver: broadcast::Receiver<Value>) -> impl futures::Stream<Item = Value> {
    futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.ok().map(|event| (event, receiver))
    })
}
