//! What questions are answered with.

mod cluster;

use cluster::{apply, ask, delete, namespace, query, records, service, slice, zone};
use dns::answer::{Answer, answer};
use dns::records::Records;
use hickory_proto::rr::DNSClass;
use serde_json::{Value, json};

fn objects() -> Vec<Value> {
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let endpoint_ports =
        json!([{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "admin", "port": 9000, "protocol": "TCP"}]);
    let mut ready_not = json!({"addresses": ["10.244.0.9"], "hostname": "db-9", "conditions": {"ready": false}});
    ready_not["conditions"]["serving"] = json!(true);
    vec![
        namespace("default"),
        namespace("kube-system"),
        service("default", "web", json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ports": ports})),
        service(
            "default",
            "both",
            json!({"clusterIP": "10.96.0.6", "clusterIPs": ["10.96.0.6", "fd00:96::6"], "ports": [{"port": 80}]}),
        ),
        service("default", "db", json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]})),
        service("default", "empty", json!({"clusterIP": "None"})),
        service("default", "outside", json!({"type": "ExternalName", "externalName": "www.example.org"})),
        service("default", "pending", json!({"type": "ClusterIP"})),
        service(
            "kube-system",
            "kube-dns",
            json!({"clusterIP": "10.96.0.10", "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}),
        ),
        slice(
            "db-1",
            "db",
            json!([{"addresses": ["10.244.0.7"], "hostname": "db-0"}, {"addresses": ["10.244.1.7"]}, ready_not]),
            endpoint_ports.clone(),
        ),
        slice(
            "web-1",
            "web",
            json!([{"addresses": ["10.244.0.4"]}, {"addresses": ["10.244.0.3"], "hostname": "first"}]),
            endpoint_ports,
        ),
    ]
}

fn cluster() -> Records {
    records(&objects())
}

/// Asks each question and compares the answer.
fn check(records: &Records, questions: &[(&str, &str, &str)]) {
    for (name, kind, expected) in questions {
        assert_eq!(ask(records, name, kind), *expected, "{name} {kind}");
    }
}

#[test]
fn services_have_their_cluster_ips() {
    check(
        &cluster(),
        &[
            ("web.default.svc.cluster.local.", "A", "web.default.svc.cluster.local. 30 A 10.96.0.5"),
            ("web.default.svc.cluster.local.", "AAAA", "no such record"),
            ("web.default.svc.cluster.local.", "MX", "no such record"),
            ("both.default.svc.cluster.local.", "A", "both.default.svc.cluster.local. 30 A 10.96.0.6"),
            ("both.default.svc.cluster.local.", "AAAA", "both.default.svc.cluster.local. 30 AAAA fd00:96::6"),
            ("other.default.svc.cluster.local.", "A", "no such name"),
            ("web.other.svc.cluster.local.", "A", "no such name"),
            ("pending.default.svc.cluster.local.", "A", "no such name"),
        ],
    );
}

#[test]
fn upper_and_lower_case_are_the_same_and_come_back_as_asked() {
    check(&cluster(), &[("WeB.Default.SVC.cluster.LOCAL.", "A", "WeB.Default.SVC.cluster.LOCAL. 30 A 10.96.0.5")]);
}

#[test]
fn ports_of_services_are_srv_records() {
    let web = "web.default.svc.cluster.local.";
    check(
        &cluster(),
        &[
            (
                "_http._tcp.web.default.svc.cluster.local.",
                "SRV",
                "_http._tcp.web.default.svc.cluster.local. 30 SRV 0 100 80 web.default.svc.cluster.local.\n\
             + web.default.svc.cluster.local. 30 A 10.96.0.5",
            ),
            (
                "_dns._udp.web.default.svc.cluster.local.",
                "SRV",
                "_dns._udp.web.default.svc.cluster.local. 30 SRV 0 100 53 web.default.svc.cluster.local.\n\
             + web.default.svc.cluster.local. 30 A 10.96.0.5",
            ),
            (
                web,
                "SRV",
                "web.default.svc.cluster.local. 30 SRV 0 50 53 web.default.svc.cluster.local.\n\
             web.default.svc.cluster.local. 30 SRV 0 50 80 web.default.svc.cluster.local.\n\
             + web.default.svc.cluster.local. 30 A 10.96.0.5",
            ),
            (
                "_http._tcp.web.default.svc.cluster.local.",
                "A",
                "_http._tcp.web.default.svc.cluster.local. 30 A 10.96.0.5",
            ),
            ("_http._udp.web.default.svc.cluster.local.", "SRV", "no such name"),
            ("_other._tcp.web.default.svc.cluster.local.", "SRV", "no such name"),
            ("_x._http._tcp.web.default.svc.cluster.local.", "SRV", "no such name"),
        ],
    );
}

#[test]
fn headless_services_have_the_addresses_of_ready_endpoints() {
    check(
        &cluster(),
        &[
            (
                "db.default.svc.cluster.local.",
                "A",
                "db.default.svc.cluster.local. 30 A 10.244.0.7\ndb.default.svc.cluster.local. 30 A 10.244.1.7",
            ),
            ("db-0.db.default.svc.cluster.local.", "A", "db-0.db.default.svc.cluster.local. 30 A 10.244.0.7"),
            (
                "10-244-1-7.db.default.svc.cluster.local.",
                "A",
                "10-244-1-7.db.default.svc.cluster.local. 30 A 10.244.1.7",
            ),
            ("10-244-0-7.db.default.svc.cluster.local.", "A", "no such name"),
            ("db-9.db.default.svc.cluster.local.", "A", "no such name"),
            (
                "_http._tcp.db.default.svc.cluster.local.",
                "SRV",
                "_http._tcp.db.default.svc.cluster.local. 30 SRV 0 50 8080 10-244-1-7.db.default.svc.cluster.local.\n\
             _http._tcp.db.default.svc.cluster.local. 30 SRV 0 50 8080 db-0.db.default.svc.cluster.local.\n\
             + 10-244-1-7.db.default.svc.cluster.local. 30 A 10.244.1.7\n\
             + db-0.db.default.svc.cluster.local. 30 A 10.244.0.7",
            ),
            ("empty.default.svc.cluster.local.", "A", "no such name"),
            // Endpoints of other services have names too.
            ("first.web.default.svc.cluster.local.", "A", "first.web.default.svc.cluster.local. 30 A 10.244.0.3"),
        ],
    );
}

#[test]
fn endpoints_without_ports_have_addresses_but_no_srv_records() {
    let mut all = objects();
    all.push(slice("empty-1", "empty", json!([{"addresses": ["10.244.0.8"], "hostname": "e"}]), Value::Null));
    check(
        &records(&all),
        &[
            ("empty.default.svc.cluster.local.", "A", "empty.default.svc.cluster.local. 30 A 10.244.0.8"),
            ("e.empty.default.svc.cluster.local.", "A", "e.empty.default.svc.cluster.local. 30 A 10.244.0.8"),
            ("empty.default.svc.cluster.local.", "SRV", "no such record"),
        ],
    );
}

#[test]
fn external_names_are_aliases() {
    let expected = "outside.default.svc.cluster.local. 30 CNAME www.example.org. -> www.example.org.";
    check(
        &cluster(),
        &[
            ("outside.default.svc.cluster.local.", "A", expected),
            ("outside.default.svc.cluster.local.", "CNAME", expected),
        ],
    );
}

#[test]
fn pods_have_names_of_their_addresses() {
    check(
        &cluster(),
        &[
            ("10-244-0-7.default.pod.cluster.local.", "A", "10-244-0-7.default.pod.cluster.local. 30 A 10.244.0.7"),
            ("10-244-0-7.default.pod.cluster.local.", "AAAA", "no such record"),
            ("fd00--7.default.pod.cluster.local.", "AAAA", "fd00--7.default.pod.cluster.local. 30 AAAA fd00::7"),
            ("10-244-0-7.other.pod.cluster.local.", "A", "no such name"),
            ("10-244-0-777.default.pod.cluster.local.", "A", "no such name"),
            ("web.default.pod.cluster.local.", "A", "no such name"),
        ],
    );
}

#[test]
fn addresses_have_names() {
    check(
        &cluster(),
        &[
            ("5.0.96.10.in-addr.arpa.", "PTR", "5.0.96.10.in-addr.arpa. 30 PTR web.default.svc.cluster.local."),
            ("7.0.244.10.in-addr.arpa.", "PTR", "7.0.244.10.in-addr.arpa. 30 PTR db-0.db.default.svc.cluster.local."),
            (
                "7.1.244.10.in-addr.arpa.",
                "PTR",
                "7.1.244.10.in-addr.arpa. 30 PTR 10-244-1-7.db.default.svc.cluster.local.",
            ),
            ("3.0.244.10.in-addr.arpa.", "PTR", "3.0.244.10.in-addr.arpa. 30 PTR first.web.default.svc.cluster.local."),
            (
                "6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa.",
                "PTR",
                "6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa. 30 PTR both.default.svc.cluster.local.",
            ),
            ("5.0.96.10.in-addr.arpa.", "A", "no such record"),
            // Endpoints of other services have none, and what is not the cluster's is asked elsewhere.
            ("4.0.244.10.in-addr.arpa.", "PTR", "elsewhere"),
            ("1.2.0.192.in-addr.arpa.", "PTR", "elsewhere"),
            ("96.10.in-addr.arpa.", "PTR", "elsewhere"),
            ("x.0.96.10.in-addr.arpa.", "PTR", "elsewhere"),
            ("arpa.", "PTR", "elsewhere"),
        ],
    );
}

#[test]
fn the_zone_tells_of_itself() {
    check(
        &cluster(),
        &[
            (
                "cluster.local.",
                "SOA",
                "cluster.local. 30 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5",
            ),
            ("cluster.local.", "NS", "cluster.local. 30 NS ns.dns.cluster.local."),
            ("cluster.local.", "A", "no such record"),
            ("ns.dns.cluster.local.", "A", "ns.dns.cluster.local. 30 A 10.96.0.10"),
            ("dns-version.cluster.local.", "TXT", "dns-version.cluster.local. 30 TXT 1.1.0"),
            ("dns-version.cluster.local.", "A", "no such record"),
            ("svc.cluster.local.", "A", "no such record"),
            ("default.svc.cluster.local.", "A", "no such record"),
            ("other.svc.cluster.local.", "A", "no such name"),
            ("nothing.cluster.local.", "A", "no such name"),
        ],
    );
}

#[test]
fn search_paths_end_soon_and_other_names_are_asked_elsewhere() {
    check(
        &cluster(),
        &[
            ("www.example.org.default.svc.cluster.local.", "A", "no such name"),
            ("www.example.org.svc.cluster.local.", "A", "no such name"),
            ("www.example.org.cluster.local.", "A", "no such name"),
            ("www.example.org.", "A", "elsewhere"),
            ("notcluster.local.", "A", "elsewhere"),
            ("local.", "A", "elsewhere"),
            (".", "NS", "elsewhere"),
        ],
    );
}

#[test]
fn transfers_and_other_classes_are_refused() {
    let records = cluster();
    check(&records, &[("cluster.local.", "AXFR", "refused")]);
    let mut version = query("version.bind.", "TXT");
    version.set_query_class(DNSClass::CH);
    assert_eq!(answer(&zone(), &records, &version, 0), Answer::Refused);
}

#[test]
fn another_address_comes_first_each_time() {
    let records = cluster();
    let first = |turn| match answer(&zone(), &records, &query("db.default.svc.cluster.local.", "A"), turn) {
        Answer::Own(own) => own.answers[0].data.to_string(),
        other => panic!("{other:?}"),
    };
    assert_ne!(first(0), first(1));
    assert_eq!(first(0), first(2));
}

#[test]
fn changes_are_seen_at_once() {
    let mut records = cluster();
    let web = |ip: &str| service("default", "web", json!({"clusterIP": ip, "ports": [{"port": 80}]}));
    apply(&mut records, &web("10.96.0.77"));
    check(
        &records,
        &[
            ("web.default.svc.cluster.local.", "A", "web.default.svc.cluster.local. 30 A 10.96.0.77"),
            ("5.0.96.10.in-addr.arpa.", "PTR", "elsewhere"),
            ("77.0.96.10.in-addr.arpa.", "PTR", "77.0.96.10.in-addr.arpa. 30 PTR web.default.svc.cluster.local."),
        ],
    );
    delete(&mut records, &web(""));
    let db = slice(
        "db-1",
        "db",
        json!([{"addresses": ["10.244.0.8"], "hostname": "db-1"}]),
        json!([{"name": "http", "port": 8080}]),
    );
    apply(&mut records, &db);
    check(
        &records,
        &[
            ("web.default.svc.cluster.local.", "A", "no such name"),
            ("77.0.96.10.in-addr.arpa.", "PTR", "elsewhere"),
            ("db.default.svc.cluster.local.", "A", "db.default.svc.cluster.local. 30 A 10.244.0.8"),
            ("7.0.244.10.in-addr.arpa.", "PTR", "elsewhere"),
            ("8.0.244.10.in-addr.arpa.", "PTR", "8.0.244.10.in-addr.arpa. 30 PTR db-1.db.default.svc.cluster.local."),
        ],
    );
    delete(&mut records, &db);
    check(
        &records,
        &[("db.default.svc.cluster.local.", "A", "no such name"), ("8.0.244.10.in-addr.arpa.", "PTR", "elsewhere")],
    );
}
