//! Lists: pages, selectors, versions.

use crate::client::{Client, Server};
use serde_json::{Value, json};

async fn fill(client: &Client, count: usize) {
    for i in 0..count {
        let labels = json!({"parity": if i % 2 == 0 { "even" } else { "odd" }});
        let map = json!({"metadata": {"name": format!("c{i:03}"), "labels": labels}, "data": {"i": i.to_string()}});
        client.post("/api/v1/namespaces/default/configmaps", &map).await.ok();
    }
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn pages_are_of_one_state() {
    let server = Server::start().await;
    let client = server.client();
    fill(&client, 25).await;
    let path = "/api/v1/namespaces/default/configmaps";
    let first = client.get(&format!("{path}?limit=10")).await.ok();
    assert_eq!(names(&first).len(), 10);
    assert_eq!(first["metadata"]["remainingItemCount"], 15);
    // What happens between the pages is not seen.
    client.delete(&format!("{path}/c020")).await.ok();
    client.post(path, &json!({"metadata": {"name": "c0105"}})).await.ok();
    let next = first["metadata"]["continue"].as_str().expect("a token");
    let second = client.get(&format!("{path}?limit=10&continue={next}")).await.ok();
    let next = second["metadata"]["continue"].as_str().expect("a token");
    let third = client.get(&format!("{path}?limit=10&continue={next}")).await.ok();
    assert!(third["metadata"].get("continue").is_none());
    let mut all = names(&first);
    all.extend(names(&second));
    all.extend(names(&third));
    assert_eq!(all, (0..25).map(|i| format!("c{i:03}")).collect::<Vec<_>>());
    assert_eq!(first["metadata"]["resourceVersion"], third["metadata"]["resourceVersion"]);

    let version = first["metadata"]["resourceVersion"].as_str().expect("a version");
    let exact = client.get(&format!("{path}?resourceVersion={version}&resourceVersionMatch=Exact")).await.ok();
    assert_eq!(names(&exact), all);
    let now = client.get(path).await.ok();
    assert_eq!(names(&now).len(), 25);
    assert!(names(&now).contains(&"c0105".to_owned()));
    assert_eq!(client.get(&format!("{path}?continue=nonsense")).await.code, 400);
    let both = client.get(&format!("{path}?continue={next}&resourceVersion=7")).await.refused(400);
    assert_eq!(both["message"], "specifying resource version is not allowed when using continue");
}

#[tokio::test]
async fn what_remains_is_that_of_the_list_that_is_asked_for() {
    let server = Server::start().await;
    let client = server.client();
    client.post("/api/v1/namespaces", &json!({"metadata": {"name": "a"}})).await.ok();
    for i in 0..3 {
        client.post("/api/v1/namespaces/a/configmaps", &json!({"metadata": {"name": format!("a{i}")}})).await.ok();
    }
    fill(&client, 10).await;
    let (all, one) = ("/api/v1/configmaps", "/api/v1/namespaces/default/configmaps");
    // Where the first page is taken, and where it goes on; how much remains after each.
    for (first, then, remain) in [
        (format!("{one}?limit=2"), format!("{one}?limit=3"), (Some(8), Some(5))),
        (format!("{one}?limit=2&labelSelector=parity%3Deven"), format!("{one}?limit=3"), (None, Some(4))),
        (format!("{one}?limit=2&fieldSelector=metadata.name!%3Dc000"), format!("{one}?limit=3"), (None, Some(4))),
        (format!("{one}?limit=2"), format!("{one}?limit=2&labelSelector=parity%3Deven"), (Some(8), None)),
        (format!("{all}?limit=4"), format!("{one}?limit=3"), (Some(9), Some(6))),
        (format!("{one}?limit=2"), format!("{all}?limit=3"), (Some(8), Some(5))),
    ] {
        let page = client.get(&first).await.ok();
        let token = page["metadata"]["continue"].as_str().expect("a token");
        let next = client.get(&format!("{then}&continue={token}")).await.ok();
        let told = |page: &Value| page["metadata"]["remainingItemCount"].as_i64();
        assert_eq!((told(&page), told(&next)), remain, "{first} {then}");
    }
}

#[tokio::test]
async fn selectors_select() {
    let server = Server::start().await;
    let client = server.client();
    fill(&client, 6).await;
    let path = "/api/v1/configmaps";
    let list = |query: &'static str| {
        let client = client.clone();
        async move { names(&client.get(&format!("{path}?{query}")).await.ok()) }
    };
    assert_eq!(list("labelSelector=parity%3Deven").await, ["c000", "c002", "c004"]);
    assert_eq!(list("labelSelector=parity+notin+(even)").await, ["c001", "c003", "c005"]);
    assert_eq!(list("labelSelector=!parity").await, [""; 0]);
    assert_eq!(list("fieldSelector=metadata.name%3Dc003").await, ["c003"]);
    assert_eq!(
        list("fieldSelector=metadata.name!%3Dc003,metadata.namespace%3Ddefault&labelSelector=parity%3Dodd").await,
        ["c001", "c005"]
    );
    assert_eq!(list("fieldSelector=metadata.namespace%3Dother").await, [""; 0]);
    let refused = client.get(&format!("{path}?fieldSelector=data.x%3D1")).await.refused(400);
    assert!(
        refused["message"].as_str().is_some_and(|m| m.contains("data.x") && m.contains("not a known field selector"))
    );
    let pods = client.get("/api/v1/pods?fieldSelector=spec.foo%3D1").await.refused(400);
    assert_eq!(pods["message"], "field label not supported: spec.foo");
    assert_eq!(client.get(&format!("{path}?labelSelector=a+b")).await.code, 400);
}

#[tokio::test]
async fn versions_are_waited_for_or_refused() {
    let server = Server::start().await;
    let client = server.client();
    fill(&client, 1).await;
    let path = "/api/v1/configmaps";
    let future = client.get(&format!("{path}?resourceVersion=999999")).await.refused(504);
    assert_eq!(future["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    let unversioned = client.get(&format!("{path}?resourceVersionMatch=Exact")).await.refused(422);
    assert!(
        unversioned["message"]
            .as_str()
            .is_some_and(|m| m.contains("resourceVersionMatch is forbidden unless resourceVersion is provided"))
    );
    assert_eq!(client.get(&format!("{path}?resourceVersion=0")).await.code, 200);
    assert_eq!(client.get(&format!("{path}?resourceVersion=x")).await.code, 400);
}

#[tokio::test]
async fn metadata_and_tables_are_shown() {
    let server = Server::start().await;
    let client = server.client();
    fill(&client, 2).await;
    let path = "/api/v1/configmaps";
    let accept = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let list = client.raw(http::Method::GET, path, &accept, "").await.ok();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
    assert!(list["items"][0].get("data").is_none());
    // An answer of another shape than the one that is wanted is refused, whatever else would be taken.
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    for (kind, path, is) in [
        ("PartialObjectMetadata", path, "a list (*core.ConfigMapList)"),
        ("PartialObjectMetadata", role, "a list (*rbac.ClusterRoleList)"),
        ("PartialObjectMetadata", "/apis/events.k8s.io/v1/events", "a list (*core.EventList)"),
        ("PartialObjectMetadataList", "/api/v1/namespaces/default/configmaps/c000", "not a list (*core.ConfigMap)"),
    ] {
        let accept = format!("application/json;as={kind};v=v1;g=meta.k8s.io,application/json");
        let accept = [("accept", accept.as_str())];
        let refused = client.raw(http::Method::GET, path, &accept, "").await.refused(406);
        assert_eq!(refused["message"], format!("you requested {kind}, but the requested object is {is}"));
        assert_eq!(refused["reason"], "NotAcceptable");
        let none = client.raw(http::Method::GET, "/api/v1/namespaces/none", &accept, "").await;
        assert_eq!(none.code, 404, "{}", none.text());
    }
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = client.raw(http::Method::GET, &format!("{path}?includeObject=Object"), &accept, "").await.ok();
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    let told = table["columnDefinitions"][1]["description"].as_str().unwrap();
    assert!(told.starts_with("Data contains the configuration data."), "{told}");
    assert_eq!(table["rows"][1]["cells"][0], "c001");
    assert_eq!(table["rows"][1]["object"]["data"]["i"], "1");
    assert_eq!(client.raw(http::Method::GET, path, &[("accept", "text/html")], "").await.code, 406);
}

#[tokio::test]
async fn each_kind_is_selected_by_the_fields_that_upstream_knows() {
    let server = Server::start_as("ClusterTrustBundle=true", "certificates.k8s.io/v1beta1=true").await;
    let client = server.client();
    let refused = async |path: &str, field: &str, why: &str| {
        let refused = client.get(&format!("{path}?fieldSelector={field}%3Dx")).await.refused(400);
        assert_eq!(refused["message"], why, "{path}");
        let refused = client.get(&format!("{path}?watch=1&fieldSelector={field}!%3Dx")).await.refused(400);
        assert_eq!(refused["message"], why, "{path}");
    };
    let plain = |field: &str| format!("field label not supported: {field}");
    for (path, field) in [
        ("/api/v1/nodes", "metadata.namespace"),
        ("/api/v1/namespaces", "metadata.namespace"),
        ("/api/v1/namespaces", "name"),
        ("/apis/certificates.k8s.io/v1/certificatesigningrequests", "metadata.namespace"),
        ("/apis/certificates.k8s.io/v1beta1/clustertrustbundles", "metadata.namespace"),
        ("/api/v1/pods", "spec.x"),
        ("/api/v1/events", "regarding.name"),
        ("/apis/events.k8s.io/v1/events", "involvedObject.name"),
    ] {
        refused(path, field, &plain(field)).await;
    }
    refused("/apis/batch/v1/jobs", "spec.x", "field label \"spec.x\" not supported for Job").await;
    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    for field in ["metadata.namespace", "spec.pool.name"] {
        let why = format!("field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {field}");
        refused(slices, field, &why).await;
    }
    let unknown = "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
    for path in ["/api/v1/configmaps", "/apis/apps/v1/statefulsets", "/api/v1/persistentvolumes"] {
        refused(path, "spec.x", unknown).await;
    }
    // Whoever leaves that to the default is selected by a namespace, also where there are none.
    for path in ["/api/v1/persistentvolumes", "/apis/storage.k8s.io/v1/storageclasses", "/apis/batch/v1/jobs"] {
        let found = client.get(&format!("{path}?fieldSelector=metadata.namespace%3Dx")).await.ok();
        assert_eq!(names(&found), [""; 0]);
    }
}

#[tokio::test]
async fn an_answer_is_indented_for_who_accepts_it_so() {
    let server = Server::start().await;
    let client = server.client();
    let get = async |query: &str, accept: &str| {
        let headers = [("accept", accept)];
        client.raw(http::Method::GET, &format!("/api/v1/nodes{query}"), &headers, "").await.text()
    };
    let pretty = get("", "application/json;pretty=1").await;
    assert!(pretty.starts_with("{\n  \"kind\": \"NodeList\","), "{pretty}");
    assert_eq!(get("?pretty=false", "application/json;pretty=1").await, pretty);
    assert!(get("", "application/json;pretty=0").await.starts_with("{\"kind\":"));
}
