//! The whole over a real registry with the first objects: who is of which schema, and who is served when there is too much.

use super::*;
use crate::bootstrap;
use crate::test_support::{Opened, opened};
use crate::user::UserInfo;
use api::features::Gates;

async fn started(settings: Settings) -> (Opened, Limit) {
    let opened = opened().await;
    let first = bootstrap::Settings {
        advertised: None,
        service_ranges: Vec::new(),
        dns: None,
        client_ca: String::new(),
        front_proxy: None,
        host: None,
    };
    let (store, caches) = (&*opened.store, opened.registry.caches());
    bootstrap::ensure(store, caches, &first, &Gates::default(), &[]).await.expect("made");
    let limit = Limit::new(settings, &opened.registry);
    (opened, limit)
}

fn info(method: &str, target: &str) -> (Arc<RequestInfo>, String) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    (Arc::new(RequestInfo::parse(method, path, query).expect("a path")), query.to_owned())
}

fn user(name: &str, groups: &[&str]) -> Context {
    let mut groups = groups.to_vec();
    groups.push("system:authenticated");
    Context::new(Arc::new(UserInfo::new(name, groups)), "test", Timestamp::now())
}

async fn admit(limit: &Limit, cx: &Context, method: &str, target: &str, timeout: Duration) -> Result<Place, Refused> {
    let (info, query) = info(method, target);
    limit.admit(cx, &info, &query, timeout).await
}

const POD: (&str, &str) = ("POST", "/api/v1/namespaces/a/pods");

#[tokio::test]
async fn requests_are_of_the_schemas_that_upstream_has_them_in() {
    let (_opened, limit) = started(Settings::default()).await;
    let Limit::Fair(fair) = &limit else { panic!("priority levels") };
    let node = user("system:node:n", &["system:nodes"]);
    let manager = user("system:kube-controller-manager", &[]);
    let account = user("system:serviceaccount:kube-system:x", &["system:serviceaccounts"]);
    let other = user("system:serviceaccount:a:x", &["system:serviceaccounts"]);
    let (root, jane) = (user("root", &["system:masters"]), user("jane", &[]));
    let nobody = Context::new(Arc::new(UserInfo::new("nobody", ["no-group"])), "test", Timestamp::now());
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/l";
    let node_lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n";
    for (cx, method, target, schema, level) in [
        (&root, "GET", "/api/v1/pods", "exempt", "exempt"),
        (&jane, "GET", "/readyz/etcd", "probes", "exempt"),
        (&manager, "PUT", lease, "system-leader-election", "leader-election"),
        (&manager, "PUT", "/api/v1/namespaces/a/endpoints/e", "endpoint-controller", "workload-high"),
        (&manager, "GET", "/api/v1/pods", "kube-controller-manager", "workload-high"),
        (&account, "GET", "/api/v1/pods", "kube-system-service-accounts", "workload-high"),
        (&other, "GET", "/api/v1/pods", "service-accounts", "workload-low"),
        (&node, "PUT", node_lease, "system-node-high", "node-high"),
        (&node, "PATCH", "/api/v1/nodes/n/status", "system-node-high", "node-high"),
        (&node, "GET", "/api/v1/pods", "system-nodes", "system"),
        (&jane, "GET", "/api/v1/pods", "global-default", "global-default"),
        (&jane, "GET", "/version", "global-default", "global-default"),
        (&nobody, "GET", "/version", "catch-all", "catch-all"),
    ] {
        let found = fair.classify(&info(method, target).0, cx);
        let told = (&*found.name, found.level.level.name.as_str());
        assert_eq!(told, (schema, level), "{} {method} {target}", cx.user.name);
    }
}

#[tokio::test]
async fn a_flood_of_one_user_keeps_out_neither_others_nor_nodes() {
    let (_opened, limit) = started(Settings { reading: 20, writing: 10, fair: true }).await;
    // Requests last as long as they are taken to.
    tokio::time::pause();
    let (flood, jane) = (user("flood", &[]), user("jane", &[]));
    let short = Duration::from_millis(40);
    let long = Duration::from_secs(600);
    // The flood takes all seats of its level, and much of its queues.
    let mut held = Vec::new();
    while let Ok(place) = admit(&limit, &flood, POD.0, POD.1, short).await {
        held.push(place);
        assert!(held.len() < 30, "nobody has all seats");
    }
    let mut waiting: Vec<_> = (0..300).map(|_| Box::pin(admit(&limit, &flood, POD.0, POD.1, long))).collect();
    for one in &mut waiting {
        assert!(futures::poll!(one.as_mut()).is_pending());
    }
    // Nodes have seats of their own.
    let node = user("system:node:n", &["system:nodes"]);
    assert!(admit(&limit, &node, "PATCH", "/api/v1/nodes/n/status", short).await.is_ok());
    // Who asks for little waits for few others.
    let mut own = Box::pin(admit(&limit, &jane, POD.0, POD.1, long));
    assert!(futures::poll!(own.as_mut()).is_pending());
    let mut freed = 0;
    let place = loop {
        if let std::task::Poll::Ready(place) = futures::poll!(own.as_mut()) {
            break place;
        }
        freed += 1;
        assert!(freed <= 10, "it waits behind the flood");
        tokio::time::advance(Duration::from_millis(3)).await;
        drop(held.pop());
        for at in (0..waiting.len()).rev() {
            if let std::task::Poll::Ready(place) = futures::poll!(waiting[at].as_mut()) {
                held.insert(0, place.ok().expect("a seat"));
                drop(waiting.swap_remove(at));
            }
        }
    };
    assert!(place.is_ok());
    drop((place, held, waiting));
    let dump = limit.dump("dump_priority_levels", "").expect("a dump");
    let row = dump.lines().find(|line| line.starts_with("global-default,")).expect("a row");
    assert_eq!(row.split(',').map(str::trim).collect::<Vec<_>>()[1..6], ["0", "true", "false", "0", "0"], "{dump}");
}

#[tokio::test]
async fn who_is_refused_is_told_when_to_come_again_and_by_whom() {
    let (_opened, limit) = started(Settings { reading: 20, writing: 10, fair: true }).await;
    let nobody = Context::new(Arc::new(UserInfo::new("nobody", ["no-group"])), "test", Timestamp::now());
    let mut held = Vec::new();
    let refused = loop {
        match admit(&limit, &nobody, "GET", "/version", Duration::from_secs(60)).await {
            Ok(place) => held.push(place),
            Err(refused) => break refused,
        }
        assert!(held.len() < 30, "a level without queues has its seats, and nobody waits");
    };
    let count = held.len();
    assert_eq!(refused.retry_after(), "1");
    let mut headers = HeaderMap::new();
    refused.marks.add(&mut headers);
    assert!(!headers[LEVEL_UID].is_empty() && headers[LEVEL_UID] != headers[SCHEMA_UID]);
    let mut text = String::new();
    limit.render(&mut text).expect("a String takes every write");
    let labels = "flow_schema=\"catch-all\",priority_level=\"catch-all\"";
    for line in [
        format!("apiserver_flowcontrol_rejected_requests_total{{{labels},reason=\"concurrency-limit\"}} 1"),
        format!("apiserver_flowcontrol_current_executing_requests{{{labels}}} {count}"),
        format!("apiserver_flowcontrol_dispatched_requests_total{{{labels}}} {count}"),
        format!("apiserver_flowcontrol_work_estimated_seats_count{{{labels}}} {}", count + 1),
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"exempt\"} 0".to_owned(),
        format!("apiserver_current_inflight_requests{{request_kind=\"readOnly\"}} {count}"),
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
}

#[tokio::test]
async fn reads_and_writes_are_told_as_parts_of_what_there_may_be() {
    let line = |limit: &Limit, phase: &str, bound: &str| {
        let mut text = String::new();
        limit.render(&mut text).expect("a String takes every write");
        let name = "apiserver_flowcontrol_read_vs_write_current_requests_bucket";
        let start = format!("{name}{{phase=\"{phase}\",request_kind=\"readOnly\",le=\"{bound}\"}} ");
        let found = text.lines().find_map(|line| line.strip_prefix(&*start)).map(str::parse::<u64>);
        found.map(|number| number.expect("a number"))
    };
    let (_opened, fair) = started(Settings { reading: 3, writing: 1, fair: true }).await;
    let pools = Limit::Pools(MaxInFlight::new(4, 1));
    let (jane, minute) = (user("jane", &["system:masters"]), Duration::from_secs(60));
    for (limit, waiting) in [(&fair, Some(())), (&pools, None)] {
        assert_eq!(line(limit, "waiting", "+Inf").map(|_| ()), waiting);
        let place = admit(limit, &jane, "GET", "/api/v1/pods", minute).await.ok().expect("a place");
        // Levels share a few seats more than there are, each at least one.
        let of = |limit: &Limit| {
            line(limit, "executing", "0.3").expect("told") - line(limit, "executing", "0").expect("told")
        };
        let deadline = std::time::Instant::now() + minute;
        while of(limit) == 0 {
            assert!(std::time::Instant::now() < deadline, "one of four is no part of them");
        }
        drop(place);
    }
    let watch = admit(&pools, &jane, "GET", "/api/v1/pods?watch=1", minute).await.ok().expect("a place");
    assert!(watch.seat.is_none(), "without levels, watches take no place");
}

#[tokio::test]
async fn a_watch_has_a_seat_until_it_has_begun_and_streams_have_none() {
    let (_opened, limit) = started(Settings::default()).await;
    let jane = user("jane", &[]);
    let minute = Duration::from_secs(60);
    let executing = || {
        let dump = limit.dump("dump_requests", "includeRequestDetails=1").expect("a dump");
        dump.lines().filter(|line| line.contains("jane")).count()
    };
    let mut place = admit(&limit, &jane, "GET", "/api/v1/pods?watch=1", minute).await.ok().expect("a seat");
    assert_eq!(executing(), 1);
    place.begun();
    assert_eq!(executing(), 0);
    let stream = admit(&limit, &jane, "POST", "/api/v1/namespaces/a/pods/b/exec", minute).await.ok().expect("a place");
    assert_eq!(executing(), 0);
    let mut headers = HeaderMap::new();
    stream.marks().add(&mut headers);
    assert!(headers.is_empty());
}

#[tokio::test]
async fn a_seat_that_outlasts_its_handler_goes_back_though_the_client_reads_nothing() {
    let (_opened, limit) = started(Settings::default()).await;
    tokio::time::pause();
    let jane = user("jane", &[]);
    let executing = || limit.dump("dump_requests", "includeRequestDetails=1").expect("a dump").matches("jane,").count();
    for target in ["/api/v1/pods?watch=1&sendInitialEvents=true", "/api/v1/pods"] {
        let minute = Duration::from_secs(60);
        let mut place = admit(&limit, &jane, "GET", target, minute).await.ok().expect("a seat");
        place.outlasts();
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_ne!(executing(), 0, "{target}");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(executing(), 0, "{target}");
        drop(place);
        assert_eq!(executing(), 0);
    }
}

#[tokio::test]
async fn nobody_waits_longer_than_a_quarter_of_its_time() {
    let (_opened, limit) = started(Settings { reading: 20, writing: 10, fair: true }).await;
    tokio::time::pause();
    let jane = user("jane", &[]);
    let mut held = Vec::new();
    loop {
        let began = tokio::time::Instant::now();
        match admit(&limit, &jane, POD.0, POD.1, Duration::from_secs(4)).await {
            Ok(place) => held.push(place),
            Err(_) => {
                assert!((1.0..1.1).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_watch_costs_as_much_as_a_list_where_it_asks_for_all_objects() {
    use crate::options::Options;
    use crate::test_support::map;
    let (opened, limit) = started(Settings::default()).await;
    let Limit::Fair(fair) = &limit else { panic!("priority levels") };
    let (cx, served) = (Context::internal(), opened.registry.served("", "v1", "configmaps").expect("served"));
    for name in ["a", "b", "c"] {
        let object = map(&format!("{{metadata: {{name: {name}}}, data: {{x: {}}}}}", "x".repeat(120_000)));
        opened.registry.create(&cx, &served, "default", object, &Options::default()).await.expect("made");
    }
    let seats = |query: &str| {
        let (info, query) = info("GET", &format!("/api/v1/configmaps?{query}"));
        fair.estimator.estimate(&info, &query, None, |_| ()).most()
    };
    let all = seats("limit=500");
    assert!(all > 1, "{all}");
    assert_eq!(seats("watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"), all);
    for query in ["watch=1", "watch=1&resourceVersion=0", "watch=1&sendInitialEvents=false"] {
        assert_eq!(seats(query), 1, "{query}");
    }
}

#[tokio::test]
async fn levels_follow_their_objects() {
    use crate::options::Options;
    use crate::test_support::map;
    let (opened, limit) = started(Settings::default()).await;
    let Limit::Fair(fair) = &limit else { panic!("priority levels") };
    let (registry, cx, jane) = (&opened.registry, Context::internal(), user("jane", &[]));
    let make = async |plural: &str, text: &str| {
        let served = registry.served(GROUP, "v1", plural).expect("served");
        registry.create(&cx, &served, "", map(text), &Options::default()).await.expect("made");
    };
    let of = |target: &str| fair.classify(&info("GET", target).0, &jane).name.to_string();
    make(
        SCHEMAS,
        "{metadata: {name: mine}, spec: {matchingPrecedence: 50, priorityLevelConfiguration: {name: mine}, rules: [{subjects: [{kind: User, user: {name: jane}}], resourceRules: [{verbs: ['*'], apiGroups: ['*'], resources: [secrets], namespaces: ['*'], clusterScope: true}]}]}}",
    )
    .await;
    // Its level is not there yet.
    assert_eq!(of("/api/v1/secrets"), "global-default");
    make(
        LEVELS,
        "{metadata: {name: mine}, spec: {type: Limited, limited: {nominalConcurrencyShares: 5, limitResponse: {type: Reject}}}}",
    )
    .await;
    assert_eq!((of("/api/v1/secrets"), of("/api/v1/pods")), ("mine".to_owned(), "global-default".to_owned()));
}
