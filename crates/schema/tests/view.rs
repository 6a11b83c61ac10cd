//! Views read what is there, and read what is absent as nothing.

use schema::view::{IntOrString, View, core_v1, rbac_v1};
use schema::{Map, json, types};

fn decode(group: &str, kind: &str, text: &str) -> Map {
    json::decode(types::of_kind(group, "v1", kind).unwrap(), text.as_bytes()).unwrap().object
}

#[test]
fn a_pod_reads_as_its_type() {
    let map = decode(
        "",
        "Pod",
        r#"{"metadata":{"name":"a","labels":{"x":"1"}},"spec":{"hostNetwork":true,"nodeName":"n","containers":[
            {"name":"c","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"2"}},"args":["-v","x"],
            "livenessProbe":{"httpGet":{"port":8080}},"readinessProbe":{"httpGet":{"port":"http"}}}]},
            "status":{"podIPs":[{"ip":"10.0.0.1"}]}}"#,
    );
    let pod = core_v1::Pod::of(&map);
    let meta = pod.metadata().unwrap();
    assert_eq!((meta.name(), meta.namespace()), (Some("a"), None));
    assert_eq!(meta.labels().get("x"), Some("1"));
    assert_eq!(meta.annotations().len(), 0);
    let spec = pod.spec().unwrap();
    assert_eq!((spec.host_network(), spec.host_pid(), spec.node_name()), (Some(true), None, Some("n")));
    assert!(spec.volumes().is_empty());
    let container = spec.containers().first().unwrap();
    assert_eq!(container.ports().iter().filter_map(|p| p.container_port()).collect::<Vec<_>>(), [80]);
    assert_eq!(container.args().into_iter().collect::<Vec<_>>(), ["-v", "x"]);
    assert_eq!(container.resources().unwrap().limits().iter().collect::<Vec<_>>(), [("cpu", "2")]);
    assert_eq!(container.liveness_probe().unwrap().http_get().unwrap().port(), Some(IntOrString::Int(8080)));
    assert_eq!(container.readiness_probe().unwrap().http_get().unwrap().port(), Some(IntOrString::Str("http")));
    assert_eq!(pod.status().unwrap().pod_ips().first().unwrap().ip(), Some("10.0.0.1"));
}

#[test]
fn names_that_rust_keeps_and_odd_capitals_have_a_place() {
    let map =
        decode("rbac.authorization.k8s.io", "ClusterRole", r#"{"rules":[{"nonResourceURLs":["/x"],"verbs":["get"]}]}"#);
    let rule = rbac_v1::ClusterRole(&map).rules().first().unwrap();
    assert_eq!(rule.non_resource_urls().first(), Some("/x"));
    let map = decode("", "Secret", r#"{"type":"Opaque","data":{"a":"aGk="}}"#);
    assert_eq!(core_v1::Secret(&map).type_(), Some("Opaque"));
    assert_eq!(core_v1::Secret(&map).data().get("a"), Some("aGk="));
}
