//! Refusals to the letter: of patches, of options, of what is too large.

use crate::client::Server;
use http::Method;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

#[tokio::test]
async fn queries_are_refused_in_upstreams_words() {
    let server = Server::start().await;
    let client = server.client();
    let many = "99999999999999999999";
    for (query, message) in [
        (format!("limit={many}"), format!("strconv.ParseInt: parsing \"{many}\": value out of range")),
        ("timeoutSeconds=x".to_owned(), "strconv.ParseInt: parsing \"x\": invalid syntax".to_owned()),
        (
            "resourceVersion=abc".to_owned(),
            "invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax"
                .to_owned(),
        ),
        (
            "continue=abc".to_owned(),
            "invalid continue token: continue key is not valid: invalid character 'i' looking for beginning of value"
                .to_owned(),
        ),
        ("labelSelector=a=b=c".to_owned(), "found '=', expected: ',' or 'end of string'".to_owned()),
        (
            "fieldSelector=metadata.name".to_owned(),
            "invalid selector: 'metadata.name'; can't understand 'metadata.name'".to_owned(),
        ),
    ] {
        let refused = client.get(&format!("{PODS}?{query}")).await.refused(400);
        assert_eq!(refused["message"], message, "{query}");
    }
    let no_options =
        client.raw(Method::DELETE, &format!("{PODS}/p"), &[("content-type", JSON)], "{").await.refused(500);
    assert_eq!(no_options["message"], "couldn't get version/kind; json parse error: unexpected end of JSON input");
}

#[tokio::test]
async fn every_answer_says_how_it_may_be_kept() {
    let server = Server::start().await;
    let client = server.client();
    for path in ["/healthz", "/livez", "/readyz", "/nope", "/apis", PODS] {
        assert_eq!(client.get(path).await.headers["cache-control"], "no-cache, private", "{path}");
    }
}

#[tokio::test]
async fn patches_are_refused_in_upstreams_words() {
    let server = Server::start().await;
    let client = server.client();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    client.post(PODS, &pod).await.ok();
    let generic = "the server rejected our request due to an error in our request";
    let not_a = |what: &str, wanted: &str| format!("json: cannot unmarshal {what} into Go value of type {wanted}");
    let map = "map[string]interface {}";
    for (kind, body, code, message) in [
        (JSON_PATCH, r#"[{"op":"test","path":"/metadata/name","value":"q"}]"#, 422, generic.to_owned()),
        (JSON_PATCH, r#"[{"op":"remove","path":"/spec/nope"}]"#, 422, generic.to_owned()),
        (JSON_PATCH, r#"{}"#, 400, format!("error decoding patch: {}", not_a("object", "[]handlers.jsonPatchOp"))),
        (JSON_PATCH, r#"[1]"#, 400, format!("error decoding patch: {}", not_a("number", "handlers.jsonPatchOp"))),
        (MERGE, r#"[]"#, 400, format!("error decoding patch: {}", not_a("array", map))),
        (MERGE, "null", 400, "Invalid JSON Patch".to_owned()),
        (STRATEGIC, r#"[]"#, 400, not_a("array", map)),
        (STRATEGIC, r#"{"spec":{"$retainKeys":"x"}}"#, 400, "invalid patch format of retainKeys".to_owned()),
        (
            STRATEGIC,
            r#"{"spec":{"$setElementOrder/containers":1}}"#,
            400,
            "invalid patch format of setElementOrder list".to_owned(),
        ),
        (
            STRATEGIC,
            r#"{"metadata":{"$deleteFromPrimitiveList/finalizers":1}}"#,
            400,
            "invalid patch format of primitive list".to_owned(),
        ),
        (
            STRATEGIC,
            r#"{"spec":{"containers":[{"image":"x"}]}}"#,
            500,
            "map: map[image:x] does not contain declared merge key: name".to_owned(),
        ),
        (STRATEGIC, r#"{"spec":{"$patch":"x"}}"#, 500, "unknown patch type: x in map: map[$patch:x]".to_owned()),
        (
            STRATEGIC,
            r#"{"spec":{"priority":"x"}}"#,
            422,
            "\"\" is invalid: patch: Invalid value: \"map[spec:map[priority:x]]\": ".to_owned(),
        ),
        (
            MERGE,
            r#"{"spec":{"priority":"x"}}"#,
            422,
            "\"\" is invalid: patch: Invalid value: \"{\\\"apiVersion\\\":\\\"v1\\\",\\\"kind\\\":\\\"Pod\\\","
                .to_owned(),
        ),
    ] {
        let refused = client.patch(&format!("{PODS}/p"), kind, body).await.refused(code);
        let said = refused["message"].as_str().unwrap().trim_start();
        assert!(said.starts_with(&message), "{kind} {body}: {said}");
        if code == 422 {
            assert_eq!(refused["reason"], "Invalid", "{body}");
            assert!(refused["details"].get("name").is_none(), "{refused}");
        }
    }
    for kind in [JSON_PATCH, STRATEGIC] {
        let before = client.get(&format!("{PODS}/p")).await.ok();
        assert_eq!(client.patch(&format!("{PODS}/p"), kind, "null").await.ok(), before, "{kind}");
    }
    // What a patch makes of the kind is told by what upstream's scheme knows of it; a strategic one can't change it.
    let other = |kind: &str, of: &str| {
        format!("no kind {kind:?} is registered for version {of:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\"")
    };
    for (body, why) in [
        (r#"{"kind":"Secret"}"#, "converting (v1.Secret) to (core.Pod): unknown conversion".to_owned()),
        (r#"{"kind":"pod"}"#, other("pod", "v1")),
        (r#"{"apiVersion":"v2"}"#, other("Pod", "v2")),
        (r#"{"apiVersion":"apps/v1"}"#, other("Pod", "apps/v1")),
        (r#"{"apiVersion":"apps/v1","kind":"DaemonSet","spec":null}"#, "converting (v1.DaemonSet) to (core.Pod): unknown conversion".to_owned()),
        (r#"{"apiVersion":"a/b/c"}"#, "unexpected GroupVersion string: a/b/c".to_owned()),
        (r#"{"kind":1}"#, "couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string".to_owned()),
    ] {
        let refused = client.patch(&format!("{PODS}/p"), MERGE, body).await.refused(422);
        let said = refused["message"].as_str().unwrap();
        assert!(said.starts_with(" \"\" is invalid: patch: Invalid value: \"{") && said.ends_with(&why), "{body}: {said}");
        let kept = client.patch(&format!("{PODS}/p?dryRun=All"), STRATEGIC, body).await;
        assert!(kept.code == 200 || body.contains(":1}") || body.contains("spec"), "{body}: {}", kept.text());
    }
    let replaced = r#"[{"op":"replace","path":"/kind","value":"Binding"}]"#;
    let refused = client.patch(&format!("{PODS}/p"), JSON_PATCH, replaced).await.refused(422);
    let said = refused["message"].as_str().unwrap();
    assert!(said.ends_with("converting (v1.Binding) to (core.Pod): unknown conversion"), "{said}");
    let without = r#"{"apiVersion":null,"spec":null,"status":null}"#;
    let refused = client.patch(&format!("{PODS}/p"), MERGE, without).await;
    assert_eq!(refused.headers["warning"], r#"299 - "unknown field \"metadata\"""#);
    assert_eq!(
        refused.refused(400)["message"],
        "the name of the object (p based on URL) was undeterminable: name must be provided"
    );
    let kindless = client.patch(&format!("{PODS}/p?dryRun=All"), MERGE, r#"{"kind":null}"#).await.ok();
    assert_eq!(kindless["kind"], "Pod");
    let strict = format!("{PODS}/p?fieldValidation=Strict");
    for (kind, body, problem) in [
        (MERGE, r#"{"spec":{"nope":1}}"#, "unknown field \"spec.nope\""),
        (STRATEGIC, r#"{"spec":{"nope":1}}"#, "unknown field \"spec.nope\""),
        (MERGE, r#"{"metadata":{"labels":{"a":"1","a":"2"}}}"#, "duplicate field \"metadata.labels.a\""),
        (STRATEGIC, r#"{"metadata":{"labels":{"a":"1","a":"2"}}}"#, "duplicate field \"metadata.labels.a\""),
        (JSON_PATCH, r#"[{"op":"add","path":"/spec/nope","value":1}]"#, "unknown field \"spec.nope\""),
        (
            JSON_PATCH,
            r#"[{"op":"test","path":"/metadata/name","value":"p","x":1}]"#,
            "json patch unknown field \"[0].x\"",
        ),
    ] {
        let refused = client.patch(&strict, kind, body).await.refused(422);
        let wanted = format!("strict decoding error: {problem}");
        assert!(refused["message"].as_str().unwrap().ends_with(&wanted), "{refused}");
        assert_eq!(refused["details"]["causes"][0]["field"], "patch");
        let warned = client.patch(&format!("{PODS}/p?dryRun=All"), kind, body).await;
        assert_eq!(warned.code, 200, "{}", warned.text());
        let warning = format!("299 - \"{}\"", problem.replace('"', "\\\""));
        assert_eq!(warned.headers["warning"], warning, "{kind}");
        let ignored = client.patch(&format!("{PODS}/p?dryRun=All&fieldValidation=Ignore"), kind, body).await;
        assert!(ignored.code == 200 && !ignored.headers.contains_key("warning"), "{}", ignored.text());
    }
    let twice = "kind: Pod\napiVersion: v1\nmetadata: {name: p, labels: {a: b, a: c}}\n";
    let target = format!("{strict}&fieldManager=m");
    let list = client.patch(&target, APPLY, "[]").await.refused(400);
    let why = "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}";
    assert_eq!(list["message"], why);
    let refused = client.patch(&target, APPLY, twice).await.refused(400);
    assert_eq!(
        refused["message"],
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 3: key \"a\" already set in map"
    );
    let warned = client.patch(&format!("{PODS}/p?dryRun=All&fieldManager=m"), APPLY, twice).await;
    assert_eq!(warned.headers["warning"], r#"299 - "line 3: key \"a\" already set in map""#, "{}", warned.text());
    let made = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: m}\ndata:\n  a: b\n  a: c\ndate: {}\n";
    let yaml = [("content-type", "application/yaml")];
    let refused = client.raw(Method::POST, &format!("{MAPS}?fieldValidation=Strict"), &yaml, made).await.refused(400);
    assert_eq!(
        refused["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal errors:\n  line 6: key \"a\" already set in map, unknown field \"date\""
    );
    let warned = client.raw(Method::POST, MAPS, &yaml, made).await;
    let warnings: Vec<_> = warned.headers.get_all("warning").iter().collect();
    assert_eq!(warnings, [r#"299 - "line 6: key \"a\" already set in map""#, r#"299 - "unknown field \"date\"""#]);
    for (said, shown) in [
        ("kind: Pod\napiVersion: v2\n", "/v2, Kind=Pod"),
        ("kind: Pod\napiVersion: a/b/c\n", "/, Kind="),
        ("kind: Secret\napiVersion: v1\n", "/v1, Kind=Secret"),
        ("apiVersion: v1\n", "/v1, Kind="),
        ("kind: Pod\n", "/, Kind=Pod"),
        ("metadata: {name: p}\n", "/, Kind="),
    ] {
        let refused = client.patch(&target, APPLY, said).await.refused(400);
        assert_eq!(refused["message"], format!("invalid object type: {shown}"));
    }
    let managed = "kind: Pod\napiVersion: v1\nmetadata: {name: p, managedFields: []}\n";
    let refused = client.patch(&target, APPLY, managed).await.refused(400);
    assert_eq!(refused["message"], "metadata.managedFields must be nil");
    let untouched = client.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(untouched["metadata"]["managedFields"].as_array().unwrap().len(), 1, "nothing was changed by any");
}

/// Whoever manages an object by what a client says is named as a `fieldManager` is.
#[tokio::test]
async fn managers_that_a_client_sends_are_judged() {
    let server = Server::start().await;
    let client = server.client();
    let entry = |change: Value| {
        // Of a field that the writer does not set, and so does not take over.
        let mut entry = json!({"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:other": {}}},
            "manager": "b", "operation": "Update", "time": "2026-01-01T00:00:00Z"});
        entry.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"metadata": {"name": "m", "managedFields": [entry]}, "data": {"a": "b"}})
    };
    let long = "m".repeat(200);
    let refused = [
        (json!({"manager": long}), "manager: Too long: may not be more than 128 bytes"),
        (json!({"manager": "a\u{7}"}), r#"manager: Invalid value: "a\a": invalid character U+0007 (at position 1)"#),
        (json!({"subresource": "s".repeat(300)}), "subresource: Too long: may not be more than 256 bytes"),
    ];
    for (change, why) in &refused {
        let refused = client.post(MAPS, &entry(change.clone())).await.refused(422);
        let message = format!("ConfigMap \"m\" is invalid: metadata.managedFields[0].{why}");
        assert_eq!(refused["message"], message);
    }
    let made = client.post(&format!("{MAPS}?fieldManager=maker"), &entry(json!({}))).await.ok();
    let path = format!("{MAPS}/m?fieldManager=maker");
    for (change, why) in refused {
        let refused = client.put(&path, &entry(change)).await.refused(422);
        assert!(
            refused["message"].as_str().unwrap().contains(&format!("metadata.managedFields[0].{why}")),
            "{refused}"
        );
    }
    // What can't be read is as if it had not been sent.
    for change in [
        json!({"apiVersion": ""}),
        json!({"fieldsType": "FieldsV2"}),
        json!({"fieldsType": ""}),
        json!({"operation": "Delete"}),
    ] {
        let kept = client.put(&path, &entry(change)).await.ok();
        assert_eq!(kept["metadata"]["managedFields"], made["metadata"]["managedFields"]);
    }
    let unnamed = json!({"metadata": {"name": "n", "managedFields": [{}]}, "data": {"a": "b"}});
    assert_eq!(client.post(MAPS, &unnamed).await.ok()["metadata"]["managedFields"].as_array().map(Vec::len), Some(1));
}

/// A configuration is judged by itself, before it is merged into anything.
#[tokio::test]
async fn configurations_are_of_their_types() {
    let server = Server::start().await;
    let client = server.client();
    let map = |inner: &str| format!("kind: ConfigMap\napiVersion: v1\nmetadata: {{name: a}}\n{inner}\n");
    let target = format!("{MAPS}/a?fieldManager=m&fieldValidation=Ignore");
    let refused = client.patch(&target, APPLY, &map("data: {a: 1}")).await.refused(500);
    assert_eq!(
        refused["message"],
        "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .data.a: expected string, got &value.valueUnstructured{Value:1}"
    );
    let twice = map("").replace("{name: a}", "{name: a, namespace: default, finalizers: [a.b/c, a.b/c], x: y}");
    let refused = client.patch(&target, APPLY, &twice).await.refused(500);
    assert_eq!(
        refused["message"],
        "failed to create typed patch object (default/a; /v1, Kind=ConfigMap): errors:\n  .metadata.finalizers: duplicate entries for key [=\"a.b/c\"]\n  .metadata.x: field not declared in schema"
    );
    assert_eq!(client.get(&format!("{MAPS}/a")).await.code, 404);
    // An object that already has duplicates can still be applied to.
    let container =
        json!({"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]});
    client.post(PODS, &json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}})).await.ok();
    let pod = |inner: &str| format!("kind: Pod\napiVersion: v1\nmetadata: {{name: p, {inner}}}\n");
    let target = format!("{PODS}/p?fieldManager=m");
    let applied = client.patch(&target, APPLY, &pod("labels: {a: b}")).await.ok();
    assert_eq!(applied["spec"]["containers"][0]["env"].as_array().unwrap().len(), 2);
    // What is one of several types is looked at when it becomes an object.
    let overhead = pod("labels: {a: b}") + "spec: {overhead: {cpu: x}}\n";
    let refused = client.patch(&target, APPLY, &overhead).await.refused(500);
    assert_eq!(
        refused["message"],
        "failed to convert new object (/p; /v1, Kind=Pod) to proper version: unable to convert unstructured object to /v1, Kind=Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    );
}

/// Upstream makes an object of the tree that a strategic patch made without text between.
#[tokio::test]
async fn strategic_patches_are_converted() {
    let server = Server::start().await;
    let client = server.client();
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    client.post(deployments, &json!({"metadata": {"name": "d"}, "spec": spec})).await.ok();
    let path = format!("{deployments}/d");
    for (patch, shown, why) in [
        (r#"{"spec":{"replicas":"3"}}"#, "map[spec:map[replicas:3]]", "unrecognized type: int32"),
        (r#"{"metadata":{"labels":{"a":1}}}"#, "map[metadata:map[labels:map[a:1]]]", "cannot convert int64 to string"),
    ] {
        let refused = client.patch(&path, STRATEGIC, patch).await.refused(422);
        assert_eq!(refused["message"], format!(" \"\" is invalid: patch: Invalid value: \"{shown}\": {why}"));
    }
    let whole = client.patch(&path, STRATEGIC, r#"{"spec":{"replicas":2.0}}"#).await.ok();
    assert_eq!(whole["spec"]["replicas"], json!(2));
}

#[tokio::test]
async fn annotations_and_labels_are_texts() {
    let server = Server::start().await;
    let client = server.client();
    let metadata = json!({"name": "p", "annotations": {"k": "v"}, "labels": {"k": "v"}});
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    let made = client.post(PODS, &json!({"metadata": metadata, "spec": spec})).await.ok();
    let path = format!("{PODS}/p");
    for field in ["annotations", "labels"] {
        for (key, value, got, wanted, unconvertible) in [
            ("/a", "1", "number", "string", "cannot convert int64 to string"),
            ("/a", "1.5", "number", "string", "unrecognized type: string"),
            ("/a", "true", "bool", "string", "unrecognized type: string"),
            ("/a", "{}", "object", "string", "unrecognized type: string"),
            ("/a", "[]", "array", "string", "unrecognized type: string"),
            ("", "1", "number", "map[string]string", "cannot restore map from int64"),
            ("", r#""x""#, "string", "map[string]string", "cannot restore map from string"),
            ("", "[]", "array", "map[string]string", "cannot restore map from slice"),
        ] {
            let merged = match key {
                "" => format!(r#"{{"metadata":{{"{field}":{value}}}}}"#),
                _ => format!(r#"{{"metadata":{{"{field}":{{"a":{value}}}}}}}"#),
            };
            let added = format!(r#"[{{"op":"add","path":"/metadata/{field}{key}","value":{value}}}]"#);
            let unreadable = format!(
                "json: cannot unmarshal {got} into Go struct field ObjectMeta.metadata.{field} of type {wanted}"
            );
            // Of a strategic patch the patch is shown, as Go shows it, else the object.
            let go = if value == "{}" { "map[]" } else { value.trim_matches('"') };
            let go = if key.is_empty() { go.to_owned() } else { format!("map[a:{go}]") };
            let patch_shown = format!("map[metadata:map[{field}:{go}]]\"");
            let object_shown = r#"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"annotations\":"#;
            for (kind, patch, shown, why) in [
                (MERGE, &merged, object_shown, &*unreadable),
                (JSON_PATCH, &added, object_shown, &unreadable),
                (STRATEGIC, &merged, &patch_shown, unconvertible),
            ] {
                let refused = client.patch(&path, kind, patch).await.refused(422);
                let said = refused["message"].as_str().unwrap();
                let begin = format!(r#" "" is invalid: patch: Invalid value: "{shown}"#);
                assert!(said.starts_with(&begin) && said.ends_with(&format!("\": {why}")), "{kind} {patch}: {said}");
                assert_eq!(refused["reason"], "Invalid");
                let message = said.split_once("patch: ").unwrap().1;
                let cause = json!({"reason": "FieldValueInvalid", "message": message, "field": "patch"});
                assert_eq!(refused["details"], json!({"causes": [cause]}));
            }
            let (mut whole, value): (_, Value) = (made.clone(), serde_json::from_str(value).unwrap());
            match key {
                "" => whole["metadata"][field] = value,
                _ => whole["metadata"][field]["a"] = value,
            }
            let refused = client.put(&path, &whole).await.refused(400);
            let message = format!("Pod in version \"v1\" cannot be handled as a Pod: {unreadable}");
            assert_eq!((&refused["message"], &refused["reason"]), (&json!(message), &json!("BadRequest")));
        }
    }
    assert_eq!(client.get(&path).await.ok(), made, "nothing of it was done");
    let nothing = r#"[{"op":"add","path":"/metadata/annotations/a","value":null}]"#;
    let patched = client.patch(&path, JSON_PATCH, nothing).await.ok();
    assert_eq!(patched["metadata"]["annotations"], json!({"k": "v", "a": ""}));
}

#[tokio::test]
async fn patches_are_limited() {
    let server = Server::start().await;
    let client = server.client();
    client.post(MAPS, &json!({"metadata": {"name": "a"}, "data": {"k": "x".repeat(900_000)}})).await.ok();
    let path = format!("{MAPS}/a");
    let many = vec![json!({"op": "test", "path": "/metadata/name", "value": "a"}); 10_001];
    let refused = client.patch(&path, JSON_PATCH, &Value::from(many).to_string()).await.refused(413);
    assert_eq!(
        refused["message"],
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
    assert_eq!(refused["reason"], "RequestEntityTooLarge");
    // Copies together may not grow the object by more than three MiB, however small the patch.
    let copies: Vec<Value> =
        (0..4).map(|n| json!({"op": "copy", "from": "/data/k", "path": format!("/data/k{n}")})).collect();
    client.patch(&path, JSON_PATCH, &Value::from(copies).to_string()).await.refused(422);
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let server = Server::start().await;
    let client = server.client();
    let annotated = |bytes: usize| json!({"metadata": {"name": "a"}, "binaryData": {"k": "A".repeat(bytes / 4 * 4)}});
    let body = client.post(MAPS, &annotated(3 << 20)).await.refused(413);
    assert_eq!(body["message"], "Request entity too large: limit is 3145728");
    assert_eq!(body["reason"], "RequestEntityTooLarge");
    // A kind whose own rules allow it, as far as etcd's limit.
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let revision = |bytes: usize| json!({"metadata": {"name": "r"}, "revision": 1, "data": {"k": "A".repeat(bytes)}});
    let object = client.post(revisions, &revision(1_600_000)).await.refused(500);
    assert_eq!(object["message"], "etcdserver: request is too large");
    assert!(object.get("reason").is_none(), "{object}");
    assert_eq!(client.get(&format!("{revisions}/r")).await.code, 404);
    client.post(revisions, &revision(1_500_000)).await.ok();
    let bomb = {
        let mut text = String::from("kind: ConfigMap\nmetadata: {name: b}\na0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..10 {
            let alias = format!("*a{}, ", n - 1).repeat(9);
            text.push_str(&format!("a{n}: &a{n} [{}]\n", alias.trim_end_matches(", ")));
        }
        text
    };
    let bomb = client.raw(Method::POST, MAPS, &[("content-type", "application/yaml")], bomb).await;
    assert_eq!(bomb.code, 400, "{}", bomb.text());
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep =
            format!("{{\"metadata\":{{\"name\":\"d\"}},\"data\":{}{}}}", open.repeat(100_000), close.repeat(100_000));
        assert_eq!(client.raw(Method::POST, MAPS, &[("content-type", JSON)], deep.clone()).await.code, 400);
        assert_eq!(client.raw(Method::POST, MAPS, &[("content-type", "application/yaml")], deep).await.code, 400);
    }
}

#[tokio::test]
async fn options_are_checked() {
    let server = Server::start().await;
    let client = server.client();
    let object = json!({"metadata": {"name": "a"}});
    for (query, message) in [
        (
            "dryRun=Some",
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"",
        ),
        (
            "fieldValidation=Loose",
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Loose\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
        ),
    ] {
        assert_eq!(client.post(&format!("{MAPS}?{query}"), &object).await.refused(422)["message"], message);
    }
    client.post(MAPS, &object).await.ok();
    let path = format!("{MAPS}/a");
    let force = client.patch(&format!("{path}?force=true"), MERGE, "{}").await.refused(422);
    assert!(force["message"].as_str().unwrap().contains("force: Forbidden: may not be specified for non-apply patch"));
    let unnamed = client.patch(&path, APPLY, "kind: ConfigMap\napiVersion: v1\n").await.refused(422);
    assert!(unnamed["message"].as_str().unwrap().contains("fieldManager: Required value: is required for apply patch"));
    let long = "m".repeat(129);
    assert_eq!(client.patch(&format!("{path}?fieldManager={long}"), MERGE, "{}").await.code, 422);
    for (sent, shown, code) in [
        ("a%07b", r"a\ab", "U+0007 (at position 1)"),
        ("%C3%A4%C2%A0b", r"ä\u00a0b", "U+00A0 (at position 2)"),
        ("a%E2%80%8Bb", r"a\u200bb", "U+200B (at position 1)"),
        ("a%EE%80%80", r"a\ue000", "U+E000 (at position 1)"),
        ("%F3%A0%80%81", r"\U000e0001", "U+E0001 (at position 0)"),
    ] {
        let refused = client.patch(&format!("{path}?fieldManager={sent}"), MERGE, "{}").await.refused(422);
        let why = format!("fieldManager: Invalid value: \"{shown}\": invalid character {code}");
        assert!(refused["message"].as_str().unwrap().ends_with(&why), "{refused}");
    }
    client.patch(&format!("{path}?fieldManager=a%20%C3%A4%E2%82%AC"), MERGE, "{}").await.ok();
    for (body, code) in [
        (json!({"propagationPolicy": "Sideways"}), 422),
        (json!({"propagationPolicy": "Orphan", "orphanDependents": true}), 422),
        (json!({"kind": "Pod"}), 500),
        (json!({"gracePeriodSeconds": "x"}), 500),
    ] {
        let refused = client.raw(Method::DELETE, &path, &[("content-type", JSON)], body.to_string()).await;
        assert_eq!(refused.code.as_u16(), code, "{body}: {}", refused.text());
    }
    let media = client.raw(Method::DELETE, &path, &[("content-type", "text/plain")], "x").await.refused(415);
    assert_eq!(media["reason"], "UnsupportedMediaType");
    assert_eq!(
        media["message"],
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    let patch = client.patch(&path, "text/plain", "x").await.refused(415);
    assert_eq!(
        patch["message"],
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
    );
    for accept in ["text/html", "application/cbor", "application/json;as=Nothing;v=v1;g=meta.k8s.io"] {
        let refused = client.raw(Method::GET, &path, &[("accept", accept)], "").await.refused(406);
        assert_eq!(refused["reason"], "NotAcceptable", "{accept}");
        assert_eq!(
            refused["message"],
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
    }
    let stream = client.raw(Method::GET, &format!("{MAPS}?watch=true"), &[("accept", "application/yaml")], "").await;
    assert_eq!(stream.code, 406, "{}", stream.text());
}

#[tokio::test]
async fn a_refusal_is_indented_where_it_is_wanted_so_or_nothing_can_be_given_as_is_wanted() {
    let server = Server::start().await;
    let client = server.client();
    let path = format!("{MAPS}/none");
    let indented =
        "{\n  \"kind\": \"Status\",\n  \"apiVersion\": \"v1\",\n  \"metadata\": {},\n  \"status\": \"Failure\",\n";
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let both = format!("{table},application/json");
    for (query, accept, code, wanted) in [
        ("", "text/html", 406, true),
        ("", table, 404, true),
        ("", &both, 404, false),
        ("", "*/*", 404, false),
        ("?pretty=true", "*/*", 404, true),
    ] {
        let refused = client.raw(Method::GET, &format!("{path}{query}"), &[("accept", accept)], "").await;
        let text = refused.text();
        assert_eq!((refused.code.as_u16(), text.starts_with(indented)), (code, wanted), "{accept}: {text}");
        assert!(text.ends_with(if wanted { "\n}" } else { "}\n" }), "{accept}: {text:?}");
        assert_eq!(refused.headers["content-type"], "application/json");
    }
}

#[tokio::test]
async fn an_update_is_told_its_errors_as_often_as_they_are_found() {
    let server = Server::start().await;
    let client = server.client();
    // Of any object: as of a new one, in how it changed, and by the kind's own rules; by some of them as of a new one again.
    for (path, object, often) in [
        (MAPS, json!({"metadata": {"name": "a"}}), 4),
        (
            "/apis/apps/v1/namespaces/default/controllerrevisions",
            json!({"metadata": {"name": "a"}, "data": {}, "revision": 1}),
            3,
        ),
    ] {
        let mut made = client.post(path, &object).await.ok();
        made["metadata"]["labels"] = json!({"a": "not this"});
        let refused = client.put(&format!("{path}/a"), &made).await.refused(422);
        assert_eq!(refused["details"]["causes"].as_array().map(Vec::len), Some(often), "{refused}");
        assert_eq!(refused["message"].as_str().map(|m| m.matches("not this").count()), Some(1), "{refused}");
    }
}
