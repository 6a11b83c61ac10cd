//! The first objects, made in a real store and read from real caches.

use super::*;
use crate::registry::Registry;
use crate::test_support::{map, opened};
use schema::Value;

fn settings() -> Settings {
    Settings {
        advertised: Some(Advertised {
            address: "192.0.2.1".parse().expect("an address"),
            port: 6443,
            cluster_ip: "10.96.0.1".parse().expect("an address"),
            shared: false,
        }),
        service_ranges: vec!["10.96.0.0/16".into()],
        dns: Some("10.96.0.10".parse().expect("an address")),
        client_ca: "PEM".into(),
        front_proxy: None,
        host: None,
    }
}

/// Whom `kubernetes` leads to when there is one server.
fn alone(settings: &Settings) -> Vec<SocketAddr> {
    settings.advertised.iter().map(|at| SocketAddr::new(at.address, at.port)).collect()
}

fn read(registry: &Registry, group: &str, plural: &str, key: &str) -> Map {
    let row = schema::resource::get(group, "v1", plural).expect("a row");
    let cacher = registry.caches().get(&row.storage.as_ref().expect("storage").prefix).expect("a cacher");
    cacher.decode(&cacher.get(key).expect("readable").unwrap_or_else(|| panic!("{plural} {key}"))).expect("an object")
}

#[tokio::test]
async fn everything_is_made_once() {
    let opened = opened().await;
    let (store, registry) = (&opened.store, &opened.registry);
    let caches = registry.caches();
    let written = ensure(&**store, caches, &settings(), &Gates::default(), &alone(&settings())).await.expect("made");
    assert_eq!(written, 4 + 2 + (8 + 13) + 134 + 1 + 1 + 1 + 4 + 2);
    let before = store.status().await.expect("a status").revision;
    assert!(before <= 4, "a few transactions, not {before}");
    assert_eq!(ensure(&**store, caches, &settings(), &Gates::default(), &alone(&settings())).await.expect("kept"), 0);
    assert_eq!(store.status().await.expect("a status").revision, before);

    let service = read(registry, "", "services", "default/kubernetes");
    assert_eq!(service.str_at(&["spec", "clusterIP"]), "10.96.0.1");
    assert_eq!(
        read(registry, "networking.k8s.io", "ipaddresses", "10.96.0.1").str_at(&["spec", "parentRef", "name"]),
        "kubernetes"
    );
    let slice = read(registry, "discovery.k8s.io", "endpointslices", "default/kubernetes");
    assert_eq!(slice.at(&["endpoints"]).and_then(Value::as_list).map(<[Value]>::len), Some(1));
    let dns = read(registry, "", "services", "kube-system/kube-dns");
    assert_eq!(dns.str_at(&["metadata", "labels", "kubernetes.io/cluster-service"]), "true");
    let admin = read(registry, "rbac.authorization.k8s.io", "clusterroles", "admin");
    assert!(admin.at(&["rules"]).and_then(Value::as_list).is_some_and(|r| r.len() > 20));
    assert!(admin.at(&["metadata", "managedFields"]).is_some());
    // As of a namespace that a client made: its finalizer is nobody's.
    let namespace = read(registry, "", "namespaces", "default");
    let owned = r#""fieldsV1":{"f:metadata":{"f:labels":{".":{},"f:kubernetes.io/metadata.name":{}}}}"#;
    let namespace = schema::json::to_string(&namespace);
    assert!(namespace.contains(owned) && namespace.contains(r#""finalizers":["kubernetes"]"#), "{namespace}");
}

#[tokio::test]
async fn what_differs_is_mended_and_what_is_anothers_stays() {
    let opened = opened().await;
    let (store, registry) = (&opened.store, &opened.registry);
    let caches = registry.caches();
    ensure(&**store, caches, &settings(), &Gates::default(), &alone(&settings())).await.expect("made");
    let mut moved = settings();
    if let Some(at) = &mut moved.advertised {
        at.address = "192.0.2.2".parse().expect("an address");
    }
    moved.client_ca = "OTHER".into();
    assert_eq!(
        ensure(&**store, caches, &moved, &Gates::default(), &alone(&moved)).await.expect("mended"),
        3,
        "both forms of the endpoint, and the CA"
    );
    let endpoints = read(registry, "", "endpoints", "default/kubernetes");
    let subset = endpoints.at(&["subsets"]).and_then(Value::as_list).and_then(|s| s[0].as_map()).expect("a subset");
    let address = subset.get("addresses").and_then(Value::as_list).and_then(|a| a[0].as_map()).expect("an address");
    assert_eq!(address.str_at(&["ip"]), "192.0.2.2");
}

#[test]
fn the_slice_of_dns_belongs_to_its_service() {
    let slice = dns_endpoint_slice(&["192.0.2.9".parse().expect("an address")], 53, Some("n1"));
    assert_eq!(slice.str_at(&["metadata", "labels", "kubernetes.io/service-name"]), "kube-dns");
    assert_eq!(slice.str_at(&["metadata", "name"]), "kube-dns-n1");
    assert_eq!(slice.str_at(&["addressType"]), "IPv4");
}

#[tokio::test]
async fn marked_levels_follow_the_server_and_others_stay() {
    let opened = opened().await;
    let (store, registry) = (&opened.store, &opened.registry);
    let caches = registry.caches();
    ensure(&**store, caches, &settings(), &Gates::default(), &alone(&settings())).await.expect("made");
    let (group, plural) = ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations");
    let row = schema::resource::get(group, "v1", plural).expect("a row");
    let change = async |name: &str, marked: &str| {
        let mut level = read(registry, group, plural, name);
        level.set_at(&["spec", "limited", "nominalConcurrencyShares"], 7);
        level.set_at(&["metadata", "annotations", "apf.kubernetes.io/autoupdate-spec"], marked);
        let key = format!("{}{name}", row.storage.as_ref().expect("storage").prefix);
        let value = Encoded::new(&level).stored(&row.api_version(), &row.kind);
        let put = Txn::of(vec![Op::Put { key: key.into(), value, lease: 0 }]);
        caches.reached(store.txn(put).await.expect("put").revision.cast_unsigned()).await.expect("seen");
    };
    change("system", "true").await;
    change("workload-low", "false").await;
    // What is mandatory can't be taken from the server.
    change("catch-all", "false").await;
    assert_eq!(ensure(&**store, caches, &settings(), &Gates::default(), &alone(&settings())).await.expect("mended"), 2);
    assert_eq!(ensure(&**store, caches, &settings(), &Gates::default(), &alone(&settings())).await.expect("kept"), 0);
    let shares = |name: &str| {
        let level = read(registry, group, plural, name);
        level.at(&["spec", "limited", "nominalConcurrencyShares"]).and_then(Value::as_i64)
    };
    assert_eq!((shares("system"), shares("workload-low"), shares("catch-all")), (Some(30), Some(7), Some(5)));
    let mark = read(registry, group, plural, "catch-all");
    assert_eq!(mark.str_at(&["metadata", "annotations", "apf.kubernetes.io/autoupdate-spec"]), "true");
}

#[tokio::test]
async fn what_another_version_made_for_flow_control_goes() {
    let opened = opened().await;
    let (store, registry) = (&opened.store, &opened.registry);
    let caches = registry.caches();
    let row = schema::resource::get("flowcontrol.apiserver.k8s.io", "v1", "flowschemas").expect("a row");
    let prefix = &row.storage.as_ref().expect("storage").prefix;
    for (name, marked) in [("of-another-version", "true"), ("mine", "false")] {
        let object = map(&format!(
            "{{metadata: {{name: {name}, annotations: {{apf.kubernetes.io/autoupdate-spec: '{marked}'}}}}, spec: {{matchingPrecedence: 7, priorityLevelConfiguration: {{name: system}}}}}}"
        ));
        let value = Encoded::new(&object).stored(&row.api_version(), &row.kind);
        let put = Txn::of(vec![Op::Put { key: format!("{prefix}{name}").into(), value, lease: 0 }]);
        caches.reached(store.txn(put).await.expect("put").revision.cast_unsigned()).await.expect("seen");
    }
    ensure(&**store, caches, &settings(), &Gates::default(), &alone(&settings())).await.expect("made");
    let cacher = caches.get(prefix).expect("a cacher");
    assert!(cacher.get("of-another-version").expect("readable").is_none());
    assert!(cacher.get("mine").expect("readable").is_some());
    assert_eq!(ensure(&**store, caches, &settings(), &Gates::default(), &alone(&settings())).await.expect("kept"), 0);
}

#[test]
fn a_mark_is_a_bool_of_gos_and_its_lack_means_what_nobody_changed() {
    // What is stored, and what becomes of it: the mark, and whether the spec is the server's.
    for (mark, generation, mandatory, marked, follows) in [
        ("true", 3, false, "true", true),
        ("T", 3, false, "T", true),
        ("1", 3, true, "1", true),
        ("0", 1, false, "0", false),
        ("0", 1, true, "true", true),
        ("", 1, false, "true", true),
        ("perhaps", 1, false, "true", true),
        ("perhaps", 2, false, "false", false),
        ("", 2, false, "false", false),
    ] {
        let keep = Keep::Marked { annotation: "a", mandatory };
        let one = Wanted::new("", "v1", "configmaps", map("{metadata: {name: a}, spec: {x: '1'}}"), keep);
        let mut existing = map("{metadata: {name: a}, spec: {x: '2'}}");
        existing.set_at(&["metadata", "generation"], generation);
        if !mark.is_empty() {
            existing.set_at(&["metadata", "annotations", "a"], mark);
        }
        let became = match step(&one, Some(&existing)) {
            Step::Nothing => existing,
            Step::Put(object) => object,
            Step::Replace(_) => panic!("replaced"),
        };
        let told = (became.str_at(&["metadata", "annotations", "a"]), became.str_at(&["spec", "x"]) == "1");
        assert_eq!(told, (marked, follows), "{mark} {generation} {mandatory}");
        assert_eq!(step(&one, Some(&became)), Step::Nothing, "{mark} {generation} {mandatory}");
    }
}

#[test]
fn a_step_compares_only_what_is_kept() {
    let object = map("{metadata: {name: a}, data: {x: '1'}}");
    let one = Wanted::new("", "v1", "configmaps", object.clone(), Keep::Same(&[&["data"]]));
    let mut existing = object.clone();
    existing.set_at(&["metadata", "labels", "mine"], "yes");
    assert_eq!(step(&one, Some(&existing)), Step::Nothing);
    existing.set_at(&["data", "x"], "2");
    let Step::Put(mended) = step(&one, Some(&existing)) else { panic!("a write") };
    assert_eq!(mended.str_at(&["metadata", "labels", "mine"]), "yes");
    assert_eq!(mended.str_at(&["data", "x"]), "1");
}
