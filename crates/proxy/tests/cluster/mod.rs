//! API objects for tests, as a server would send them.

#![allow(dead_code, reason = "not every test needs everything")]

use proxy::objects;
use proxy::state::{ServiceName, State};
use serde_json::{Value, json};

/// The node on which the proxy of the tests runs.
pub(crate) const NODE: &str = "here";

pub(crate) fn service(name: &str, spec: Value) -> Value {
    json!({"kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

pub(crate) fn slice(name: &str, service: &str, endpoints: Value, ports: Value) -> Value {
    json!({
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
    })
}

pub(crate) fn endpoint(ip: &str, node: &str) -> Value {
    json!({"addresses": [ip], "nodeName": node})
}

pub(crate) fn observe(objects: &[Value]) -> State {
    let mut state = State::new(NODE);
    for object in objects {
        apply(&mut state, object);
    }
    state
}

pub(crate) fn apply(state: &mut State, object: &Value) {
    match object["kind"].as_str().unwrap() {
        "Service" => state.apply_service(&parse::<objects::Service>(object)),
        "EndpointSlice" => state.apply_slice(&parse::<objects::EndpointSlice>(object)),
        "Node" => state.apply_node(&parse::<objects::Node>(object)),
        kind => panic!("what is a {kind}?"),
    }
}

fn parse<T: serde::de::DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object.clone()).unwrap()
}

pub(crate) fn name(name: &str) -> ServiceName {
    ServiceName { namespace: "default".into(), name: name.into() }
}
