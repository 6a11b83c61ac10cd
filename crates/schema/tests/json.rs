//! Decoding and encoding JSON: what upstream's round trip gives, what strict validation says, what is refused.

use schema::{DecodeError, Decoded, json, normal, types};

fn pod(text: &str) -> Result<Decoded, DecodeError> {
    json::decode(types::of_kind("", "v1", "Pod").unwrap(), text.as_bytes())
}

fn round_trip(group: &str, version: &str, kind: &str, text: &str) -> String {
    let decoded = json::decode(types::of_kind(group, version, kind).unwrap(), text.as_bytes()).unwrap();
    assert_eq!(decoded.problems, []);
    json::to_string(&decoded.object)
}

fn problems(text: &str) -> Vec<String> {
    pod(text).unwrap().problems.iter().map(ToString::to_string).collect()
}

fn error(text: &str) -> String {
    pod(text).unwrap_err().to_string()
}

#[test]
fn what_go_writes_though_it_was_not_given_is_there() {
    assert_eq!(
        round_trip("", "v1", "Pod", r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#),
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":null},"status":{}}"#
    );
    assert_eq!(
        round_trip("", "v1", "Pod", r#"{"spec":{"containers":[{"name":"c"}]}}"#),
        r#"{"metadata":{},"spec":{"containers":[{"name":"c","resources":{}}]},"status":{}}"#
    );
    assert_eq!(
        round_trip("apps", "v1", "Deployment", r#"{"spec":{"selector":{}}}"#),
        r#"{"metadata":{},"spec":{"selector":{},"strategy":{},"template":{"metadata":{},"spec":{"containers":null}}},"status":{}}"#
    );
    assert_eq!(round_trip("rbac.authorization.k8s.io", "v1", "Role", "{}"), r#"{"metadata":{},"rules":null}"#);
    assert_eq!(
        round_trip("", "v1", "Service", r#"{"spec":{"ports":[{"port":80}]}}"#),
        r#"{"metadata":{},"spec":{"ports":[{"port":80,"targetPort":0}]},"status":{"loadBalancer":{}}}"#
    );
}

#[test]
fn what_go_drops_is_gone() {
    let text = r#"{"metadata":{"name":"","labels":{},"creationTimestamp":null,"generation":0,"deletionGracePeriodSeconds":0},
        "spec":{"containers":[],"volumes":[],"hostNetwork":false,"terminationGracePeriodSeconds":0,"nodeSelector":null,
        "securityContext":{},"affinity":null}}"#;
    assert_eq!(
        round_trip("", "v1", "Pod", text),
        r#"{"metadata":{"deletionGracePeriodSeconds":0},"spec":{"containers":null,"securityContext":{},"terminationGracePeriodSeconds":0},"status":{}}"#
    );
}

#[test]
fn scalars_are_canonical() {
    let text = r#"{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":0.5,"memory":"1024Mi","x":"1000m","y":1}},
        "livenessProbe":{"httpGet":{"port":"http"}},"readinessProbe":{"httpGet":{"port":8080}}}]},
        "metadata":{"creationTimestamp":"2024-01-02T03:04:05.6+02:00"}}"#;
    assert_eq!(
        round_trip("", "v1", "Pod", text),
        r#"{"metadata":{"creationTimestamp":"2024-01-02T01:04:05Z"},"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":"http"}},"name":"c","readinessProbe":{"httpGet":{"port":8080}},"resources":{"limits":{"cpu":"500m","memory":"1Gi","x":"1","y":"1"}}}]},"status":{}}"#
    );
    assert_eq!(
        round_trip("", "v1", "Secret", r#"{"data":{"a":"aGk=","b":"","c":null}}"#),
        r#"{"data":{"a":"aGk=","b":"","c":null},"metadata":{}}"#
    );
    assert_eq!(
        round_trip("coordination.k8s.io", "v1", "Lease", r#"{"spec":{"renewTime":"2024-01-01T00:00:00.123456Z"}}"#),
        r#"{"metadata":{},"spec":{"renewTime":"2024-01-01T00:00:00.123456Z"}}"#
    );
}

#[test]
fn strict_problems_name_the_path_and_are_kept_out() {
    assert_eq!(
        problems(
            r#"{"metadata":{"name":"a","nam":{"x":[1,{}]},"labels":{"a":"1","b":"2","a":"3"}},"spec":{"containers":[{"name":"a"},{"imagee":"b","name":"x","name":"y"}]},"Kind":"x"}"#
        ),
        [
            r#"unknown field "metadata.nam""#,
            r#"duplicate field "metadata.labels.a""#,
            r#"unknown field "spec.containers[1].imagee""#,
            r#"duplicate field "spec.containers[1].name""#,
            r#"unknown field "Kind""#,
        ]
    );
    let object = pod(r#"{"metadata":{"labels":{"a":"1","a":"3"}},"spec":{"x":1,"nodeName":"a","nodeName":"b","hostIPC":true,"hostIPC":true,"hostIPC":false}}"#).unwrap().object;
    assert_eq!(object.str_at(&["metadata", "labels", "a"]), "3");
    assert_eq!(object.str_at(&["spec", "nodeName"]), "b");
    assert_eq!(object.at(&["spec", "x"]), None);
    assert_eq!(object.at(&["spec", "hostIPC"]), None);
}

#[test]
fn wrong_types_are_named_as_go_names_them() {
    assert_eq!(
        error(r#"{"spec":{"containers":[{"env":[{"name":"a","value":1}]}]}}"#),
        "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string"
    );
    assert_eq!(
        error(r#"{"spec":{"containers":{}}}"#),
        "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"
    );
    assert_eq!(
        error(r#"{"spec":{"priority":3000000000}}"#),
        "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32"
    );
    assert_eq!(
        error(r#"{"spec":{"priority":1.0}}"#),
        "json: cannot unmarshal number 1.0 into Go struct field PodSpec.spec.priority of type int32"
    );
    // What reads itself says what it reads itself from.
    let port = |value: &str| {
        error(&format!(r#"{{"spec":{{"containers":[{{"livenessProbe":{{"tcpSocket":{{"port":{value}}}}}}}]}}}}"#))
    };
    let field = "Go struct field TCPSocketAction.spec.containers.livenessProbe.tcpSocket.port of type int32";
    for (value, got) in [("1.5", "number 1.5"), ("true", "bool"), ("{}", "object"), ("[]", "array")] {
        assert_eq!(port(value), format!("json: cannot unmarshal {got} into {field}"));
    }
    assert_eq!(error("[]"), "json: cannot unmarshal array into Go value of type v1.Pod");
    let DecodeError::Type { path, message } =
        pod(r#"{"spec":{"containers":[{},{"resources":{"limits":{"cpu":"lots"}}}]}}"#).unwrap_err()
    else {
        panic!("not a type error");
    };
    assert_eq!(path, "spec.containers[1].resources.limits.cpu");
    assert!(message.starts_with("quantities must match"), "{message}");
}

#[test]
fn what_is_not_json_is_refused_in_words_of_go() {
    for (text, message) in [
        ("", "unexpected end of JSON input"),
        ("{", "unexpected end of JSON input"),
        ("{]", "invalid character ']' looking for beginning of object key string"),
        (r#"{"a" 1}"#, "invalid character '1' after object key"),
        (r#"{"a":1 2}"#, "invalid character '2' after object key:value pair"),
        (r#"{"a":[1 2]}"#, "invalid character '2' after array element"),
        ("{} x", "invalid character 'x' after top-level value"),
        (r#"{"a":01}"#, "invalid character '1' after object key:value pair"),
        (r#"{"a":trux}"#, "invalid character 'x' in literal true (expecting 'e')"),
        ("{\"a\":\"\n\"}", "invalid character '\\n' in string literal"),
        (r#"{"a":"\x"}"#, "invalid character 'x' in string escape code"),
        (r#"{"a":,}"#, "invalid character ',' looking for beginning of value"),
    ] {
        assert_eq!(json::parse(text.as_bytes()).unwrap_err().to_string(), message, "{text}");
    }
}

#[test]
fn depth_is_limited_in_known_and_unknown_places() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = |n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
        assert!(json::parse(deep(1000).as_bytes()).is_ok());
        assert_eq!(json::parse(deep(1001).as_bytes()), Err(DecodeError::TooDeep));
        let unknown = format!(r#"{{"x":{}}}"#, deep(100_000));
        assert_eq!(pod(&unknown), Err(DecodeError::TooDeep));
    }
}

#[test]
fn what_can_be_decoded_can_be_walked() {
    let nested = format!(
        r#"{{"spec":{{"versions":[{{"schema":{{"openAPIV3Schema":{}{{}}{}}}}}]}}}}"#,
        r#"{"not":"#.repeat(990),
        "}".repeat(990)
    );
    let ty = types::of_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let object = json::decode(ty, nested.as_bytes()).unwrap().object;
    let again = object.clone();
    assert_eq!(json::to_string(&again), json::to_string(&object));
    assert!(again == object);
    assert_eq!(normal::typed(ty, again.into()).unwrap().object, object);
}

#[test]
fn many_keys_in_the_worst_order_take_no_quadratic_time() {
    let keys: Vec<String> = (0..200_000).rev().map(|n| format!(r#""k{n:06}":"""#)).collect();
    let text = format!(r#"{{"metadata":{{"labels":{{{}}}}}}}"#, keys.join(","));
    let decoded = pod(&text).unwrap();
    assert_eq!(decoded.object.at(&["metadata", "labels"]).unwrap().as_map().unwrap().len(), 200_000);
    let again = format!(r#"{{"spec":{{{}}}}}"#, vec![r#""nodeName":"a""#; 200_000].join(","));
    assert_eq!(pod(&again).unwrap().object.str_at(&["spec", "nodeName"]), "a");
}

#[test]
fn any_json_keeps_everything() {
    let text = r#"{"a":null,"b":[1,-2,1.5,"x\n\"é\u0001",true,false,[],{}],"big":1e30}"#;
    let value = json::parse(text.as_bytes()).unwrap();
    let mut out = Vec::new();
    json::encode_value(&value, &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), text.replace("1e30", "1e+30"));
    let escapes = json::parse(br#""\u00e9\ud83d\ude00\ud800x\/""#).unwrap();
    assert_eq!(escapes.as_str(), Some("é😀\u{fffd}x/"));
}

#[test]
fn patched_trees_are_checked_against_their_type() {
    let ty = types::of_kind("", "v1", "Pod").unwrap();
    let value = json::parse(
        br#"{"spec":{"nodeName":"","foo":1,"containers":[{"name":"a","resources":{"limits":{"cpu":"0.1"}}}]}}"#,
    )
    .unwrap();
    let decoded = normal::typed(ty, value).unwrap();
    assert_eq!(decoded.problems[0].to_string(), r#"unknown field "spec.foo""#);
    assert_eq!(
        json::to_string(&decoded.object),
        r#"{"metadata":{},"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"100m"}}}]},"status":{}}"#
    );
    let wrong = json::parse(br#"{"spec":{"nodeName":{}}}"#).unwrap();
    assert_eq!(
        normal::typed(ty, wrong).unwrap_err().to_string(),
        "json: cannot unmarshal object into Go struct field PodSpec.spec.nodeName of type string"
    );
}

#[test]
fn a_definitions_schema_is_read() {
    let text = r#"{"spec":{"group":"g","names":{"kind":"K","plural":"ks"},"scope":"Namespaced","versions":[{"name":"v1","schema":{"openAPIV3Schema":{"type":"object","additionalProperties":false,"default":{"a":null},"enum":[null,1,"x"],"items":{"type":"string"},"properties":{"a":{"items":[{"type":"string"}],"additionalProperties":{"type":"string"},"maximum":5,"x-kubernetes-int-or-string":true}},"dependencies":{"a":["b"]}}},"served":true,"storage":true}]}}"#;
    let again = round_trip("apiextensions.k8s.io", "v1", "CustomResourceDefinition", text);
    assert_eq!(round_trip("apiextensions.k8s.io", "v1", "CustomResourceDefinition", &again), again);
    for part in [
        r#""additionalProperties":false"#,
        r#""default":{"a":null}"#,
        r#""enum":[null,1,"x"]"#,
        r#""maximum":5"#,
        r#""dependencies":{"a":["b"]}"#,
        r#""items":[{"type":"string"}]"#,
    ] {
        assert!(again.contains(part), "{part} in {again}");
    }
}
