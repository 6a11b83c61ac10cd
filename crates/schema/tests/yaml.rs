//! YAML gives the trees and the complaints that JSON gives, and expands only so far.

use schema::{DecodeError, json, types, yaml};

fn value(text: &str) -> String {
    let mut out = Vec::new();
    json::encode_value(&yaml::parse(text.as_bytes()).unwrap(), &mut out);
    String::from_utf8(out).unwrap()
}

fn error(text: &str) -> String {
    yaml::parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_manifest_is_decoded_as_its_json_is() {
    let ty = types::of_kind("apps", "v1", "Deployment").unwrap();
    let manifest = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: nginx-deployment
  labels: {app: nginx}
spec:
  replicas: 3
  selector:
    matchLabels:
      app: nginx
  template:
    metadata:
      labels:
        app: nginx
    spec:
      containers:
      - name: nginx
        image: nginx:1.7.9
        ports:
        - containerPort: 80
        resources: {limits: {cpu: 1, memory: 4Gi}, requests: {cpu: 0.5}}
        command: [\"sh\", '-c', \"until ls /db/dir; do sleep 5; done\"]
      volumes:
      - name: v
        configMap: {defaultMode: 0644}
";
    let from_json = json::decode(
        ty,
        br#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"nginx-deployment","labels":{"app":"nginx"}},
        "spec":{"replicas":3,"selector":{"matchLabels":{"app":"nginx"}},"template":{"metadata":{"labels":{"app":"nginx"}},
        "spec":{"containers":[{"name":"nginx","image":"nginx:1.7.9","ports":[{"containerPort":80}],
        "resources":{"limits":{"cpu":1,"memory":"4Gi"},"requests":{"cpu":0.5}},
        "command":["sh","-c","until ls /db/dir; do sleep 5; done"]}],"volumes":[{"name":"v","configMap":{"defaultMode":420}}]}}}}"#,
    );
    assert_eq!(yaml::decode(ty, manifest.as_bytes()), from_json);
}

#[test]
fn strict_problems_are_those_of_upstreams_library_and_of_json() {
    let ty = types::of_kind("", "v1", "Pod").unwrap();
    let problems = |text: &[u8]| -> Vec<String> {
        yaml::decode(ty, text).unwrap().problems.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        problems(b"spec:\n  nodeName: a\n  nodeName: b\n  zzz: 1\n  containers:\n  - imagee: x\n"),
        [
            "yaml: unmarshal errors:\n  line 3: key \"nodeName\" already set in map",
            r#"unknown field "spec.containers[0].imagee""#,
            r#"unknown field "spec.zzz""#
        ]
    );
    // The line is that of the value; what is repeated inside of it comes before it, also where nothing is known of the field.
    assert_eq!(
        problems(b"metadata: {}\nmetadata:\n\n  labels: {a: b,\n    a: c}\nx: {1: a, '1': b, 1: c}\n"),
        [
            "yaml: unmarshal errors:\n  line 5: key \"a\" already set in map\n  line 4: key \"metadata\" already set in map\n  line 6: key 1 already set in map",
            r#"unknown field "x""#
        ]
    );
    let twice = yaml::decode(ty, b"spec:\n  nodeName: a\n  nodeName: b\n").unwrap();
    assert_eq!(twice.object.str_at(&["spec", "nodeName"]), "b");
    assert_eq!(
        yaml::decode(ty, b"spec: {nodeName: yes}").unwrap_err().to_string(),
        "json: cannot unmarshal bool into Go struct field PodSpec.spec.nodeName of type string"
    );
}

#[test]
fn plain_scalars_mean_what_they_mean_upstream() {
    assert_eq!(
        value(
            "[yes, Off, ~, null, 0644, 0x1F, 0b11, 1_000, -1, +2, 1.5, 3.0, .5, 1e3, 1.7.9, 2024-01-02, 'yes', \"1\", !!str 5, 1:30, .inf, x]"
        ),
        r#"[true,false,null,null,420,31,3,1000,-1,2,1.5,3,0.5,1000,"1.7.9","2024-01-02","yes","1","5","1:30",".inf","x"]"#
    );
    assert_eq!(value("1: a\ntrue: b\n"), r#"{"1":"a","true":"b"}"#);
    assert_eq!(value("a: |\n  x\n  y\nb: >-\n  x\n  y\nc:\n"), r#"{"a":"x\ny\n","b":"x y","c":null}"#);
    assert_eq!(value(""), "null");
}

#[test]
fn streams_have_several_documents() {
    let all = yaml::parse_all(b"---\na: 1\n---\n# nothing\n---\nb: 2\n").unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(yaml::parse(b"a: 1\n---\nb: 2\n").unwrap(), all[0]);
}

#[test]
fn aliases_and_merge_keys_are_followed() {
    assert_eq!(value("a: &x {k: [1, 2]}\nb: *x\nc: [*x]\n"), r#"{"a":{"k":[1,2]},"b":{"k":[1,2]},"c":[{"k":[1,2]}]}"#);
    assert_eq!(
        value("base: &b {x: 1, z: 2}\none:\n  z: 3\n  <<: *b\ntwo:\n  <<: [{x: 9}, *b]\n"),
        r#"{"base":{"x":1,"z":2},"one":{"x":1,"z":3},"two":{"x":9,"z":2}}"#
    );
    assert!(error("a: &x [*x]").contains("line 1"), "{}", error("a: &x [*x]"));
    assert!(error("<<: 1").contains("map merge requires map or sequence of maps as the value"));
}

#[test]
fn bombs_are_refused() {
    let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for n in 1..10 {
        let refs = vec![format!("*a{}", n - 1); 9].join(", ");
        laughs.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
    }
    assert!(error(&laughs).contains("excessive aliasing"));
    let anchors: String =
        (0..900).map(|n| format!("&a{n} [")).collect::<String>() + &"x, ".repeat(10_000) + &"]".repeat(900);
    assert!(error(&anchors).contains("excessive aliasing"));
    // A text that is copied counts by its length.
    let long = "x".repeat(200_000);
    let copies = format!("a: &a {long}\nb: [{}]", "*a, ".repeat(1_000));
    assert!(error(&copies).contains("excessive aliasing"));
    let around = (0..100).map(|n| format!("&a{n} [")).collect::<String>() + &long + &"]".repeat(100);
    assert!(error(&around).contains("excessive aliasing"));
    // Merging costs what is merged.
    let keys: String = (0..100_000).map(|n| format!("k{n}, ")).collect();
    assert!(yaml::parse(format!("<<: {{{keys}}}").as_bytes()).is_ok());
    let merges = "<<: {".repeat(1100) + &"}".repeat(1100);
    assert!(yaml::parse(merges.as_bytes()).is_err());
    let deep = "[".repeat(100_000);
    assert!(yaml::parse(deep.as_bytes()).is_err());
    let nested = format!("{}{}", "[".repeat(900), "]".repeat(900));
    assert!(yaml::parse(nested.as_bytes()).is_ok());
    let block: String = (0..900).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    assert!(yaml::parse(block.as_bytes()).is_ok());
}

#[test]
fn unknown_fields_come_in_one_order_whatever_they_are_called() {
    let ty = types::of_kind("", "v1", "Pod").expect("a kind");
    let names: Vec<String> = (1..40).flat_map(|n| [format!("{n}"), format!("{n}a"), format!("'{n}]'")]).collect();
    let text: String = names.iter().map(|name| format!("{name}: 1\n")).collect();
    let decoded = yaml::decode(ty, text.as_bytes()).expect("YAML");
    assert_eq!(decoded.problems.len(), 100);
    assert!(decoded.problems[0].to_string().contains("\"1\""), "{}", decoded.problems[0]);
}

#[test]
fn what_is_not_yaml_is_refused_in_upstreams_words() {
    // As libyaml, of which upstream's library is a translation, tells them.
    let mut wrong = Vec::new();
    for (text, why) in [
        ("a: [1", "line 1: did not find expected ',' or ']'"),
        ("a: {b: 1", "line 1: did not find expected ',' or '}'"),
        ("a:\n  b: [1\n  c: 2\n", "line 1: did not find expected ',' or ']'"),
        ("a: b: c", "mapping values are not allowed in this context"),
        ("x: 1\na: b: c", "line 2: mapping values are not allowed in this context"),
        ("a:\n\tb: 1", "line 2: found character that cannot start any token"),
        ("a: @b", "found character that cannot start any token"),
        ("a: *nothing", "unknown anchor 'nothing' referenced"),
        ("a: 1\nb\nc: 2\n", "line 2: could not find expected ':'"),
        ("a: 1\n b: 2\n", "line 2: mapping values are not allowed in this context"),
        ("- a\nb: 1\n", "line 1: did not find expected '-' indicator"),
        ("a: 1\n- b\n", "line 1: did not find expected key"),
        ("x: 1\na: 'x' y\n", "line 1: did not find expected key"),
        ("x: 1\na: \"\\q\"\n", "line 2: found unknown escape character"),
        ("x: 1\na: 'x", "line 2: found unexpected end of stream"),
        ("a:\n  - b\n  c: 1\n", "line 1: did not find expected '-' indicator"),
        ("a:\n - b\n - c\nd: [1, 2\ne: 3\n", "line 3: did not find expected ',' or ']'"),
        ("a: ]", "did not find expected node content"),
        ("a: 1\n}\n", "line 1: did not find expected key"),
        ("a:\n  b: 1\n c: 2\n", "line 2: did not find expected key"),
        ("spec:\n  containers:\n  - name: a\n    image: x\n   ports: []\n", "line 1: did not find expected key"),
        ("a: `x`", "found character that cannot start any token"),
        ("a: \"b\" c: d\n", "did not find expected key"),
        ("{a: 1", "line 1: did not find expected ',' or '}'"),
        ("a: !x!y b\n", "found undefined tag handle"),
        ("a: >0\n b\n", "found an indentation indicator equal to 0"),
        ("a: 1 2: 3\n", "mapping values are not allowed in this context"),
        ("key: value\nother\n", "line 2: could not find expected ':'"),
        ("x\ny: 1\n", "line 2: mapping values are not allowed in this context"),
        ("a: [1, 2}\n", "did not find expected ',' or ']'"),
        ("x: 1\na: {b: [1}\n", "line 1: did not find expected ',' or ']'"),
        ("a: &\n", "did not find expected alphabetic or numeric character"),
        ("a: \"\\xZZ\"\n", "did not find expected hexdecimal number"),
        ("a: |\n\tb\n", "line 2: found a tab character where an indentation space is expected"),
        ("x: y\n\tz: 1\n", "line 2: found a tab character that violates indentation"),
        ("? [1]\n: 2", "line 1: invalid map key"),
    ] {
        let told = error(text);
        if told != format!("error converting YAML to JSON: yaml: {why}") {
            wrong.push(format!("{text:?}: {told}, not {why}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(matches!(yaml::parse(b"a: 'x"), Err(DecodeError::Syntax { .. })));
}
