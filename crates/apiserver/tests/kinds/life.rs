//! What is done to every kind: created, read, written in each format, patched four ways, applied by two managers, watched,
//! listed in pages, tried without effect, deleted under conditions.

use crate::client::{Answer, Client, Events};
use crate::cluster;
use crate::grow::{Known, grow, lacks, leaves};
use crate::table::{GATED, GATES, ROWS, Row, VERSIONS};
use apiserver::surface::Surface;
use http::Method;
use schema::Resource;
use schema::resource::{self, Verbs};
use serde_json::{Value, json};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn tree(text: &str) -> Value {
    let parsed = schema::yaml::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut json = Vec::new();
    schema::json::encode_value(&parsed, &mut json);
    serde_json::from_slice(&json).unwrap()
}

/// Merges as a merge patch does; of lists the later one counts.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A kind, served.
struct Subject {
    row: &'static Row,
    resource: &'static Resource,
    client: Client,
    what: String,
    collection: String,
}

impl Subject {
    fn of(row: &'static Row, client: Client) -> Self {
        let (group, version) = row.api_version.rsplit_once('/').unwrap_or(("", row.api_version));
        let resource = resource::of_kind(group, version, row.kind).expect("a kind of the catalogue");
        let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let namespace = if resource.namespaced { "/namespaces/default" } else { "" };
        Subject {
            row,
            resource,
            client,
            what: format!("{} {}", row.api_version, row.kind),
            collection: format!("{root}{namespace}/{}", resource.plural),
        }
    }

    fn name(&self, number: usize) -> String {
        self.row.name.replace("$N", &number.to_string())
    }

    fn path(&self, number: usize) -> String {
        format!("{}/{}", self.collection, self.name(number))
    }

    fn object(&self, number: usize, more: &str) -> Value {
        let n = number.to_string();
        let mut object = tree(&self.row.minimal.replace("$N", &n));
        merge(&mut object, tree(&more.replace("$N", &n)));
        let mut head = json!({"apiVersion": self.row.api_version, "kind": self.row.kind,
            "metadata": {"name": self.name(number), "labels": {"test": "kinds"}}});
        merge(&mut head, object);
        head
    }

    async fn create(&self, object: &Value) -> Value {
        let answer = self.client.post(&format!("{}?fieldValidation=Strict", self.collection), object).await;
        assert_eq!(answer.code, 201, "{}: {}", self.what, answer.text());
        answer.json()
    }

    async fn read(&self, number: usize) -> Value {
        self.sound(self.client.get(&self.path(number)).await)
    }

    fn sound(&self, answer: Answer) -> Value {
        assert!(answer.code.is_success(), "{}: {} {}", self.what, answer.code, answer.text());
        answer.json()
    }

    async fn watch(&self) -> Events {
        let list = self.sound(self.client.get(&format!("{}?limit=1", self.collection)).await);
        let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        self.client
            .watch(&format!(
                "{}?watch=true&resourceVersion={version}&labelSelector=test%3Dkinds&allowWatchBookmarks=true",
                self.collection
            ))
            .await
    }
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().expect("a resourceVersion")
}

/// The object as it is, put back in each format, is no change.
async fn formats(subject: &Subject, number: usize) {
    let (client, what, path) = (&subject.client, &subject.what, subject.path(number));
    let before = subject.read(number).await;
    for (format, strict) in [(JSON, "Strict"), (YAML, "Strict"), (PROTOBUF, "Ignore")] {
        let read = client.raw(Method::GET, &path, &[("accept", format)], "").await;
        assert_eq!(read.headers["content-type"], format, "{what}");
        if format == YAML {
            assert_eq!(tree(&read.text()), before, "{what}: YAML says what JSON says");
        }
        let target = format!("{path}?fieldManager=formats&fieldValidation={strict}");
        let put = client.raw(Method::PUT, &target, &[("content-type", format)], read.bytes).await;
        assert_eq!(put.code, 200, "{what} in {format}: {}", put.text());
        assert_eq!(put.json(), before, "{what}: put back in {format} it is the same");
        assert!(!crate::grow::warned(&put.headers) || format == PROTOBUF, "{what}: {:?}", put.headers);
    }
    for shape in ["PartialObjectMetadata", "Table"] {
        let accept = format!("application/json;as={shape};v=v1;g=meta.k8s.io");
        let shown = client.raw(Method::GET, &path, &[("accept", accept.as_str())], "").await.ok();
        assert_eq!(shown["kind"], shape, "{what}");
        let metadata = if shape == "Table" { &shown["rows"][0]["object"]["metadata"] } else { &shown["metadata"] };
        assert_eq!(metadata, &before["metadata"], "{what}");
    }
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = client.raw(Method::GET, &subject.collection, &[("accept", table)], "").await.ok();
    let columns = table["columnDefinitions"].as_array().map(Vec::len);
    for row in table["rows"].as_array().unwrap() {
        assert_eq!(row["cells"].as_array().map(Vec::len), columns, "{what}");
    }
}

async fn patches(subject: &Subject, number: usize) {
    let (client, what, path) = (&subject.client, &subject.what, subject.path(number));
    let mut last = subject.read(number).await;
    for (n, (kind, body)) in [
        (MERGE, r#"{"metadata":{"annotations":{"p0":"v"}}}"#),
        (JSON_PATCH, r#"[{"op":"test","path":"/metadata/annotations/p0","value":"v"},{"op":"add","path":"/metadata/annotations/p1","value":"v"}]"#),
        (STRATEGIC, r#"{"metadata":{"annotations":{"p2":"v"},"$deleteFromPrimitiveList/finalizers":["none"]}}"#),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("{path}?fieldValidation=Strict&fieldManager=patcher");
        let tried = client.patch(&format!("{target}&dryRun=All"), kind, body).await;
        assert_eq!(subject.sound(tried)["metadata"]["annotations"][format!("p{n}")], "v", "{what}");
        assert_eq!(&subject.read(number).await, &last, "{what}: a dry run changes nothing");
        let patched = subject.sound(client.patch(&target, kind, body).await);
        assert_eq!(patched["metadata"]["annotations"][format!("p{n}")], "v", "{what}");
        assert_ne!(version(&patched), version(&last), "{what}");
        let managers = patched["metadata"]["managedFields"].as_array().unwrap();
        let own = managers.iter().find(|m| m["manager"] == "patcher" && m["operation"] == "Update");
        let own = own.unwrap_or_else(|| panic!("{what}: {managers:?}"));
        assert!(own["fieldsV1"]["f:metadata"]["f:annotations"].get(format!("f:p{n}")).is_some(), "{what}: {own}");
        assert_eq!(own["apiVersion"], subject.row.api_version, "{what}");
        let strict = client.patch(&target, kind, &body.replace("annotations", "annotationz")).await;
        assert_eq!(strict.code, 422, "{what} {kind}: {}", strict.text());
        // Metadata is not what the generation counts, but for tools that talk to deployments through annotations.
        if subject.row.kind != "Deployment" {
            assert_eq!(patched["metadata"]["generation"], last["metadata"]["generation"], "{what}");
        }
        last = patched;
    }
}

/// Two managers: a conflict, a field shared, a field taken, and given up.
async fn applies(subject: &Subject, number: usize) {
    let (client, what, path) = (&subject.client, &subject.what, subject.path(number));
    let config = |labels: Value| {
        json!({"apiVersion": subject.row.api_version, "kind": subject.row.kind,
            "metadata": {"name": subject.name(number), "labels": labels}})
        .to_string()
    };
    let apply = async |manager: &str, force: bool, labels: Value| {
        let target = format!("{path}?fieldManager={manager}&force={force}");
        client.patch(&target, APPLY, &config(labels)).await
    };
    let owners = |object: &Value| -> Vec<String> {
        let managers = object["metadata"]["managedFields"].as_array().unwrap();
        let owning = managers.iter().filter(|m| m["fieldsV1"]["f:metadata"]["f:labels"].get("f:l").is_some());
        owning.map(|m| m["manager"].as_str().unwrap().to_owned()).collect()
    };
    let one = subject.sound(apply("one", false, json!({"l": "1"})).await);
    assert_eq!(owners(&one), ["one"], "{what}");
    let conflict = apply("two", false, json!({"l": "2"})).await.refused(409);
    assert_eq!(
        conflict["message"], "Apply failed with 1 conflict: conflict with \"one\": .metadata.labels.l",
        "{what}"
    );
    assert_eq!(conflict["details"]["causes"][0]["field"], ".metadata.labels.l", "{what}");
    let shared = subject.sound(apply("two", false, json!({"l": "1"})).await);
    assert_eq!(owners(&shared), ["one", "two"], "{what}");
    let again = subject.sound(apply("two", false, json!({"l": "1"})).await);
    assert_eq!(again, shared, "{what}: to apply the same again changes nothing");
    let forced = subject.sound(apply("two", true, json!({"l": "2"})).await);
    assert_eq!((owners(&forced), &forced["metadata"]["labels"]["l"]), (vec!["two".to_owned()], &json!("2")), "{what}");
    let given = subject.sound(apply("two", false, json!({})).await);
    assert!(given["metadata"]["labels"].get("l").is_none(), "{what}: what nobody owns goes");
    assert_eq!(given["metadata"]["labels"]["test"], "kinds", "{what}: what another owns stays");
}

/// All of an object applied is that object, and applied again is no change.
async fn applied_whole(subject: &Subject, full: &Value, number: usize) {
    let (client, what) = (&subject.client, &subject.what);
    let target = format!("{}?fieldManager=whole&force=true", subject.path(number));
    let mut config = full.clone();
    config["metadata"]["name"] = json!(subject.name(number));
    let before = subject.read(number).await;
    let applied = subject.sound(client.patch(&target, APPLY, &config.to_string()).await);
    assert_eq!(lacks(&applied, &config), None, "{what}");
    assert_eq!(applied["metadata"]["uid"], before["metadata"]["uid"], "{what}");
    let again = subject.sound(client.patch(&target, APPLY, &config.to_string()).await);
    assert_eq!(again, applied, "{what}: to apply the same again changes nothing");
}

/// A list without the kinds of claims in StatefulSets, which protobuf has no place for.
fn without_inner_kinds(mut list: Value) -> Value {
    for item in list["items"].as_array_mut().unwrap() {
        let claims = item.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
        for claim in claims.into_iter().flatten().filter_map(Value::as_object_mut) {
            claim.remove("apiVersion");
            claim.remove("kind");
        }
    }
    list
}

async fn lists(subject: &Subject, objects: &[Value]) {
    let (client, what, collection) = (&subject.client, &subject.what, &subject.collection);
    let query = "labelSelector=test%3Dkinds";
    let whole = subject.sound(client.get(&format!("{collection}?{query}")).await);
    assert_eq!(whole["kind"], json!(subject.resource.list_kind), "{what}");
    let items = whole["items"].as_array().unwrap().clone();
    assert_eq!(items.len(), objects.len(), "{what}");
    assert!(items.iter().all(|item| item.get("kind").is_none() && item.get("apiVersion").is_none()), "{what}");
    let mut paged = Vec::new();
    let mut next = String::new();
    loop {
        let page = subject.sound(client.get(&format!("{collection}?{query}&limit=1&continue={next}")).await);
        assert!(page["metadata"].get("remainingItemCount").is_none(), "{what}: unknown with a selector");
        paged.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["metadata"]["continue"].as_str() {
            Some(token) => token.clone_into(&mut next),
            None => break,
        }
    }
    assert_eq!(paged, items, "{what}");
    let one = format!("{collection}?fieldSelector=metadata.name%3D{}", subject.name(1));
    assert_eq!(subject.sound(client.get(&one).await)["items"].as_array().unwrap().len(), 1, "{what}");
    let refused = client.get(&format!("{collection}?fieldSelector=no.such%3Dx")).await;
    assert_eq!(refused.code, 400, "{what}: {}", refused.text());
    let protobuf = client.raw(Method::GET, &format!("{collection}?{query}"), &[("accept", PROTOBUF)], "").await;
    let ty = schema::types::of_kind(&subject.resource.group, &subject.resource.version, &subject.resource.list_kind);
    let decoded = schema::protobuf::decode(ty.unwrap(), &protobuf.bytes).unwrap().object;
    let decoded: Value = serde_json::from_str(&schema::json::to_string(&decoded)).unwrap();
    assert_eq!(
        without_inner_kinds(decoded)["items"],
        without_inner_kinds(whole)["items"],
        "{what}: protobuf says what JSON says"
    );
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let metadata = client.raw(Method::GET, &format!("{collection}?{query}"), &[("accept", metadata)], "").await.ok();
    for (shown, item) in metadata["items"].as_array().unwrap().iter().zip(&items) {
        assert_eq!(shown["metadata"], item["metadata"], "{what}");
    }
}

/// Through `status` only the status and some of the metadata are written; of the object itself, all but the status.
async fn status(subject: &Subject, number: usize) {
    if subject.resource.subresource("status").is_none() {
        return;
    }
    let (client, what, path) = (&subject.client, &subject.what, format!("{}/status", subject.path(number)));
    let before = subject.read(number).await;
    assert_eq!(subject.sound(client.get(&path).await), before, "{what}");
    let put = subject.sound(client.put(&path, &before).await);
    assert_eq!(put, before, "{what}: put back as it is, nothing changes");
}

async fn deletes(subject: &Subject, count: usize) {
    let (client, what) = (&subject.client, &subject.what);
    let path = subject.path(1);
    let before = subject.read(1).await;
    for (bad, word) in [(json!({"uid": "other"}), "UID"), (json!({"resourceVersion": "1"}), "ResourceVersion")] {
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": bad}).to_string();
        let refused = client.raw(Method::DELETE, &path, &[("content-type", JSON)], body).await.refused(409);
        let told = format!(
            "the {word} in the precondition ({}) does not match",
            bad.as_object().unwrap().values().next().unwrap().as_str().unwrap()
        );
        assert!(refused["message"].as_str().unwrap().contains(&told), "{what}: {refused}");
    }
    let tried = client.delete(&format!("{path}?dryRun=All")).await;
    assert!(tried.code.is_success(), "{what}: {}", tried.text());
    assert_eq!(subject.read(1).await, before, "{what}: a dry run changes nothing");
    let uid = before["metadata"]["uid"].as_str().unwrap();
    let yaml =
        format!("kind: DeleteOptions\napiVersion: v1\npropagationPolicy: Background\npreconditions: {{uid: {uid}}}\n");
    let deleted = client.raw(Method::DELETE, &path, &[("content-type", YAML)], yaml).await;
    assert!(deleted.code.is_success(), "{what}: {}", deleted.text());
    gone(subject, 1).await;
    let ty = schema::types::find("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions").unwrap();
    let options = schema::json::decode(ty, br#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0}"#);
    let mut bytes = Vec::new();
    schema::protobuf::encode(ty, &options.unwrap().object, &mut bytes).unwrap();
    let deleted = client.raw(Method::DELETE, &subject.path(2), &[("content-type", PROTOBUF)], bytes).await;
    assert!(deleted.code.is_success(), "{what}: {}", deleted.text());
    gone(subject, 2).await;
    if subject.resource.verbs.contains(Verbs::DELETE_COLLECTION) {
        let many = format!("{}?labelSelector=test%3Dkinds", subject.collection);
        let tried = subject.sound(client.delete(&format!("{many}&dryRun=All")).await);
        assert_eq!(tried["kind"], json!(subject.resource.list_kind), "{what}");
        assert_eq!(tried["items"].as_array().unwrap().len(), count - 2, "{what}");
        let deleted = subject.sound(client.delete(&format!("{many}&propagationPolicy=Background")).await);
        assert_eq!(deleted["items"].as_array().unwrap().len(), count - 2, "{what}");
    } else {
        for number in 3..=count {
            subject.sound(client.delete(&subject.path(number)).await);
        }
    }
    for number in 3..=count {
        gone(subject, number).await;
    }
}

/// What was deleted is gone; what is held is being deleted, and goes when it is let go.
async fn gone(subject: &Subject, number: usize) {
    let (client, what, path) = (&subject.client, &subject.what, subject.path(number));
    let left = client.get(&path).await;
    if left.code == 404 {
        return;
    }
    let mut left = left.json();
    assert!(left["metadata"]["deletionTimestamp"].is_string(), "{what}: {left}");
    if subject.row.kind == "Namespace" {
        left["spec"]["finalizers"] = json!([]);
        subject.sound(client.put(&format!("{path}/finalize"), &left).await);
    } else if left["metadata"].get("finalizers").is_some() {
        subject.sound(client.patch(&path, MERGE, r#"{"metadata":{"finalizers":null}}"#).await);
    } else {
        assert_ne!(left["metadata"]["deletionGracePeriodSeconds"], 0, "{what}: {left}");
        subject.sound(client.delete(&format!("{path}?gracePeriodSeconds=0")).await);
    }
    assert_eq!(client.get(&path).await.refused(404)["reason"], "NotFound", "{what}");
}

/// Everything that a watch told, followed to the end: each object's states in order, and at last nothing left.
async fn watched(subject: &Subject, mut events: Events, count: usize) {
    let what = &subject.what;
    let mut there: std::collections::BTreeMap<String, Value> = std::collections::BTreeMap::new();
    let (mut last, mut made) = (0, 0);
    while made < count || !there.is_empty() {
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), events.next()).await;
        let event = waited.unwrap_or_else(|_| panic!("{what}: no event; {there:?}")).expect("the stream goes on");
        let object = &event["object"];
        let revision: u64 = version(object).parse().unwrap();
        if event["type"] == "BOOKMARK" {
            continue;
        }
        assert!(revision > last, "{what}: {event} after {last}");
        last = revision;
        assert_eq!(object["kind"], subject.row.kind, "{what}");
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        match event["type"].as_str().unwrap() {
            "ADDED" => {
                made += 1;
                assert!(there.insert(name, object.clone()).is_none(), "{what}: {event}");
            }
            "MODIFIED" => assert!(there.insert(name, object.clone()).is_some(), "{what}: {event}"),
            "DELETED" => assert!(there.remove(&name).is_some(), "{what}: {event}"),
            other => panic!("{what}: {other}: {event}"),
        }
    }
}

/// The whole life of a kind's objects. What is learned of pods is kept in `known`; the size of the full object is returned.
async fn live(row: &'static Row, client: Client, mut known: Known) -> (usize, Known) {
    let subject = &Subject::of(row, client);
    let what = &subject.what;
    let events = subject.watch().await;
    let mut objects = Vec::new();
    for number in 1..=2 {
        let object = subject.object(number, "{}");
        let tried = subject.client.post(&format!("{}?dryRun=All", subject.collection), &object).await;
        assert_eq!(tried.code, 201, "{what}: {}", tried.text());
        assert_eq!(subject.client.get(&subject.path(number)).await.code, 404, "{what}: a dry run makes nothing");
        let created = subject.create(&object).await;
        assert_eq!(lacks(&created, &object), None, "{what}: {created}");
        let read = subject.read(number).await;
        assert_eq!(created, read, "{what}: what a create answers is what a get finds");
        assert_eq!(created["metadata"]["managedFields"].as_array().map(Vec::len), Some(1), "{what}");
        let twice = subject.client.post(&subject.collection, &object).await.refused(409);
        assert_eq!(twice["reason"], "AlreadyExists", "{what}");
        objects.push(read);
    }
    let stale = subject.read(1).await;
    let seed = subject.object(3, subject.row.full);
    let ty = subject.resource.schema.root();
    let full = grow(&subject.client, &subject.collection, ty, seed, &known).await;
    if (subject.row.api_version, subject.row.kind) == ("v1", "Pod") {
        let mut spec = full["spec"].clone();
        // What a template may not have, or what decides how the pod's own kind is checked.
        for key in ["nodeName", "restartPolicy", "ephemeralContainers"] {
            spec.as_object_mut().unwrap().remove(key);
        }
        known.pod_spec = Some(spec);
    }
    let created = subject.create(&full).await;
    assert_eq!(lacks(&created, &full), None, "{what}");
    objects.push(created);
    for number in [1, 3] {
        formats(subject, number).await;
        patches(subject, number).await;
        applies(subject, number).await;
        status(subject, number).await;
        formats(subject, number).await;
    }
    applied_whole(subject, &full, 3).await;
    // Two fields agree that no write is lost: an update of an old version is refused.
    let refused = subject.client.put(&subject.path(1), &stale).await.refused(409);
    assert_eq!(refused["reason"], "Conflict", "{what}");
    // An apply makes what is not there.
    let (target, config) = (format!("{}?fieldManager=maker", subject.path(4)), subject.object(4, "{}").to_string());
    let made = subject.client.patch(&target, APPLY, &config).await;
    assert_eq!(made.code, 201, "{what}: {}", made.text());
    objects.push(made.json());
    lists(subject, &objects).await;
    deletes(subject, objects.len()).await;
    watched(subject, events, objects.len()).await;
    let metadata = json!({"metadata": full["metadata"]});
    (leaves(&full) - leaves(&metadata) - 2, known)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_does_what_any_kind_does() {
    none_is_missing(ROWS, resource::all().iter().filter(|resource| resource.storage.is_some()));
    live_all(ROWS, Surface::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_behind_a_gate_does_it_too() {
    // Stored as themselves: other versions of them are views.
    let own = |resource: &&Resource| {
        let storage = resource.storage.as_ref().map(|storage| (storage.group.as_ref(), storage.version.as_ref()));
        !resource.gate.is_empty() && storage == Some((resource.group.as_ref(), resource.version.as_ref()))
    };
    none_is_missing(GATED, resource::optional().iter().filter(own));
    let asked: api::features::Asked = GATES.parse().unwrap();
    let surface = Surface { gates: asked.gates().unwrap().0, runtime: VERSIONS.parse().unwrap(), ..Surface::default() };
    live_all(GATED, surface).await;
}

fn none_is_missing<'a>(rows: &[Row], of: impl Iterator<Item = &'a Resource>) {
    let missing = of.filter(|resource| {
        !rows.iter().any(|row| row.api_version == resource.api_version() && row.kind == resource.kind)
    });
    let missing: Vec<String> = missing.map(|r| format!("{} {}", r.api_version(), r.kind)).collect();
    assert!(missing.is_empty(), "kinds without a row in table.rs: {missing:?}");
}

async fn live_all(rows: &'static [Row], surface: Surface) {
    // Nobody else writes the objects: with priority levels the server tells in each FlowSchema whether its level is there.
    let limit = apiserver::flowcontrol::Settings { fair: false, ..apiserver::flowcontrol::Settings::default() };
    let cluster = cluster::start_with(cluster::Options { surface, limit, ..cluster::Options::default() }).await;
    let client = Client::of(cluster.server.local_service(apiserver::user::UserInfo::new("tester", ["system:masters"])));
    cluster.service_account("default", "default").await;
    let mut known = Known { pod_spec: None };
    let mut failed = Vec::new();
    // Pods first: others have their spec in templates.
    let mut rows: Vec<&'static Row> = rows.iter().collect();
    rows.sort_by_key(|row| row.kind != "Pod");
    for row in rows {
        let what = format!("{} {}", row.api_version, row.kind);
        // Each for itself, so that one run tells of all that fail.
        match tokio::spawn(live(row, client.clone(), known.clone())).await {
            Ok((grown, learned)) => {
                println!("{what}: {grown}");
                known = learned;
                if grown < row.least {
                    failed.push(format!("{what}: only {grown} scalars in the full object"));
                }
            }
            Err(_) => failed.push(what),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
