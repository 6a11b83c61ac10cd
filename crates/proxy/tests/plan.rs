//! What the plan decides, from API objects to ways and endpoints.

mod cluster;

use cluster::{endpoint, observe, service, slice};
use proxy::plan::{Entry, PortRules, plan};
use proxy::state::State;
use serde_json::{Value, json};

/// A plan as text: a line per port and per way.
fn describe(state: &State, ipv6: bool) -> String {
    let mut text = String::new();
    for (name, rules) in plan(state, ipv6) {
        text += &format!("{name}: {}\n", endpoints(&rules));
        for way in &rules.ways {
            let entry = match way.entry {
                Entry::Address(ip, port) => format!("{ip} {port}"),
                Entry::NodePort(port) => format!("node {port}"),
            };
            text += &format!("  {entry}: {:?}", way.policy);
            if let Some(refusal) = way.refusal {
                text += &format!(" else {refusal:?}");
            }
            text += "\n";
        }
        if let Some(firewall) = &rules.firewall {
            let sources: Vec<String> = firewall.sources.iter().map(ToString::to_string).collect();
            text += &format!("  only from {}\n", sources.join(" "));
        }
    }
    text.replace("Some(", "").replace("): ", ": ").replace(") ", " ").replace(")\n", "\n")
}

fn endpoints(rules: &PortRules) -> String {
    let list =
        |endpoints: &[std::net::SocketAddr]| endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let affinity = rules.affinity.map(|seconds| format!(" sticky {seconds}")).unwrap_or_default();
    format!("[{}] here [{}]{affinity}", list(&rules.cluster), list(&rules.local))
}

fn plan_of(objects: &[Value]) -> String {
    describe(&observe(objects), false)
}

#[test]
fn a_cluster_ip_leads_to_ready_endpoints() {
    let text = plan_of(&[
        service("web", json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]})),
        slice(
            "web-1",
            "web",
            json!([endpoint("10.1.0.2", "here"), endpoint("10.1.1.2", "there")]),
            json!([{"port": 8080}]),
        ),
    ]);
    assert_eq!(
        text,
        "default/web:/TCP: [10.1.0.2:8080 10.1.1.2:8080] here [10.1.0.2:8080]\n  10.96.0.5 80: Internal\n"
    );
}

#[test]
fn ports_are_matched_by_name_and_protocol() {
    let ports = json!([
        {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        {"name": "metrics", "port": 9153}
    ]);
    let of_slice = json!([
        {"name": "dns", "port": 10053, "protocol": "UDP"}, {"name": "dns-tcp", "port": 10054, "protocol": "TCP"},
        {"name": "metrics", "port": 9153, "protocol": "UDP"}, {"name": "dns"}
    ]);
    let text = plan_of(&[
        service("dns", json!({"clusterIP": "10.96.0.10", "ports": ports})),
        slice("dns-1", "dns", json!([endpoint("10.1.0.2", "there")]), of_slice),
    ]);
    assert_eq!(
        text,
        "default/dns:dns/UDP: [10.1.0.2:10053] here []\n  10.96.0.10 53: Internal\n\
         default/dns:dns-tcp/TCP: [10.1.0.2:10054] here []\n  10.96.0.10 53: Internal\n\
         default/dns:metrics/TCP: [] here []\n  10.96.0.10 9153: None else Reject\n"
    );
}

#[test]
fn every_way_in_is_planned() {
    let spec = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.5", "externalIPs": ["198.51.100.1", "fd00::9", "10.96.0.5"],
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}], "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "loadBalancerSourceRanges": ["203.0.113.0/24", "fd00::/8", " 192.0.2.0/24 "],
    });
    let mut web = service("web", spec);
    web["status"] = json!({"loadBalancer": {"ingress": [
        {"ip": "198.51.100.7"}, {"ip": "198.51.100.8", "ipMode": "Proxy"}, {"hostname": "lb.example"}
    ]}});
    let slice = slice("web-1", "web", json!([endpoint("10.1.0.2", "here")]), json!([{"name": "http", "port": 8080}]));
    let node = json!({"kind": "Node", "metadata": {"name": "here"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.4"}]}});
    let expected = "default/web:http/TCP: [10.1.0.2:8080] here [10.1.0.2:8080] sticky 60\n\
        \x20 10.96.0.5 80: Internal\n\
        \x20 198.51.100.7 80: External\n\
        \x20 198.51.100.1 80: External\n\
        \x20 node 30080: External\n\
        \x20 only from 192.0.2.0/24 198.51.100.7/32 203.0.113.0/24\n";
    assert_eq!(plan_of(&[web.clone(), slice.clone(), node]), expected);
    // The node's own address is not among the sources: its load balancer address is not either.
    assert!(plan_of(&[web, slice]).ends_with("only from 192.0.2.0/24 203.0.113.0/24\n"));
}

#[test]
fn local_policies_use_the_endpoints_of_this_node() {
    let spec = |internal: &str, external: &str| {
        json!({"type": "NodePort", "clusterIP": "10.96.0.5", "ports": [{"port": 80, "nodePort": 30080}],
            "internalTrafficPolicy": internal, "externalTrafficPolicy": external})
    };
    let ports = json!([{"port": 80}]);
    let both =
        slice("web-1", "web", json!([endpoint("10.1.0.2", "here"), endpoint("10.1.1.2", "there")]), ports.clone());
    let away = slice("web-1", "web", json!([endpoint("10.1.1.2", "there")]), ports);
    let ways = |spec: Value, slice: Option<&Value>| {
        let objects: Vec<Value> = std::iter::once(service("web", spec)).chain(slice.cloned()).collect();
        plan_of(&objects).lines().skip(1).map(str::trim).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(ways(spec("Local", "Local"), Some(&both)), "10.96.0.5 80: InternalLocal, node 30080: ExternalLocal");
    assert_eq!(
        ways(spec("Local", "Local"), Some(&away)),
        "10.96.0.5 80: None else Drop, node 30080: ExternalLocal else Drop"
    );
    assert_eq!(
        ways(spec("Cluster", "Local"), Some(&away)),
        "10.96.0.5 80: Internal, node 30080: ExternalLocal else Drop"
    );
    assert_eq!(ways(spec("Local", "Cluster"), Some(&away)), "10.96.0.5 80: None else Drop, node 30080: External");
    assert_eq!(ways(spec("Local", "Local"), None), "10.96.0.5 80: None else Reject, node 30080: None else Reject");
}

#[test]
fn endpoints_that_end_serve_only_when_no_other_does() {
    let with = |ip: &str, node: &str, ready: bool, serving: bool, terminating: bool| {
        let mut endpoint = endpoint(ip, node);
        endpoint["conditions"] = json!({"ready": ready, "serving": serving, "terminating": terminating});
        endpoint
    };
    let plan = |endpoints: Value| {
        let text = plan_of(&[
            service(
                "web",
                json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}], "internalTrafficPolicy": "Cluster"}),
            ),
            slice("web-1", "web", endpoints, json!([{"port": 80}])),
        ]);
        text.lines().next().unwrap().split_once("TCP: ").unwrap().1.to_owned()
    };
    let ending_here = with("10.1.0.2", "here", false, true, true);
    let failing = with("10.1.0.3", "here", false, false, false);
    let ready_there = with("10.1.1.2", "there", true, true, false);
    assert_eq!(plan(json!([ending_here, failing])), "[10.1.0.2:80] here [10.1.0.2:80]");
    // Each policy decides for itself.
    assert_eq!(plan(json!([ending_here, failing, ready_there])), "[10.1.1.2:80] here [10.1.0.2:80]");
    assert_eq!(plan(json!([failing])), "[] here []");
    assert_eq!(plan(json!([with("10.1.0.4", "here", false, true, false)])), "[] here []");
}

#[test]
fn hints_are_followed_when_all_have_them() {
    let hinted = |ip: &str, hints: Value| {
        let mut endpoint = endpoint(ip, "there");
        endpoint["hints"] = hints;
        endpoint
    };
    let (a, b) = (json!({"forZones": [{"name": "a"}]}), json!({"forZones": [{"name": "b"}]}));
    let here = json!({"forZones": [{"name": "b"}], "forNodes": [{"name": "here"}]});
    let node = |zone: Option<&str>| {
        let labels = zone.map(|zone| json!({"topology.kubernetes.io/zone": zone})).unwrap_or(json!({}));
        json!({"kind": "Node", "metadata": {"name": "here", "labels": labels}})
    };
    let plan = |endpoints: Value, zone: Option<&str>| {
        let text = plan_of(&[
            service("web", json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]})),
            slice("web-1", "web", endpoints, json!([{"port": 80}])),
            node(zone),
        ]);
        text.lines().next().unwrap().split_once("TCP: ").unwrap().1.to_owned()
    };
    let both = json!([hinted("10.1.0.2", a.clone()), hinted("10.1.0.3", b.clone())]);
    assert_eq!(plan(both.clone(), Some("a")), "[10.1.0.2:80] here []");
    assert_eq!(plan(both.clone(), Some("c")), "[10.1.0.2:80 10.1.0.3:80] here []");
    assert_eq!(plan(both, None), "[10.1.0.2:80 10.1.0.3:80] here []");
    let partly = json!([hinted("10.1.0.2", a), endpoint("10.1.0.3", "there")]);
    assert_eq!(plan(partly, Some("a")), "[10.1.0.2:80 10.1.0.3:80] here []");
    let for_nodes = json!([hinted("10.1.0.2", here), hinted("10.1.0.3", json!({"forNodes": [{"name": "other"}]}))]);
    assert_eq!(plan(for_nodes, Some("a")), "[10.1.0.2:80] here []");
}

#[test]
fn what_is_not_the_proxys_is_left_out() {
    let slice = slice("web-1", "web", json!([endpoint("10.1.0.2", "here")]), json!([{"port": 80}]));
    for spec in [
        json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        json!({"clusterIP": "", "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "externalName": "example.org", "clusterIP": "10.96.0.5"}),
        json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80, "protocol": "DCCP"}]}),
    ] {
        assert_eq!(plan_of(&[service("web", spec), slice.clone()]), "");
    }
    let mut fqdn = slice;
    fqdn["addressType"] = json!("FQDN");
    let text = plan_of(&[service("web", json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]})), fqdn]);
    assert!(text.contains("else Reject"), "{text}");
}

#[test]
fn each_family_is_planned_by_itself() {
    let spec = json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00:96::5"], "ports": [{"port": 80, "nodePort": 30080}]});
    let mut six = slice("web-6", "web", json!([endpoint("fd00::2", "here")]), json!([{"port": 80}]));
    six["addressType"] = json!("IPv6");
    let state = observe(&[
        service("web", spec),
        slice("web-4", "web", json!([endpoint("10.1.0.2", "here")]), json!([{"port": 80}])),
        six,
    ]);
    assert_eq!(
        describe(&state, false),
        "default/web:/TCP: [10.1.0.2:80] here [10.1.0.2:80]\n  10.96.0.5 80: Internal\n  node 30080: External\n"
    );
    assert_eq!(
        describe(&state, true),
        "default/web:/TCP: [[fd00::2]:80] here [[fd00::2]:80]\n  fd00:96::5 80: Internal\n  node 30080: External\n"
    );
}

#[test]
fn slices_come_and_go_and_change_hands() {
    let mut state = observe(&[
        service("web", json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]})),
        service("api", json!({"clusterIP": "10.96.0.6", "ports": [{"port": 80}]})),
        slice("one", "web", json!([endpoint("10.1.0.2", "there")]), json!([{"port": 80}])),
        slice(
            "two",
            "web",
            json!([endpoint("10.1.0.2", "there"), endpoint("10.1.0.3", "there")]),
            json!([{"port": 80}]),
        ),
    ]);
    assert!(describe(&state, false).contains("default/web:/TCP: [10.1.0.2:80 10.1.0.3:80]"));
    state.take_dirty();
    cluster::apply(&mut state, &slice("two", "api", json!([endpoint("10.1.0.3", "there")]), json!([{"port": 80}])));
    let dirty: Vec<String> = state.take_dirty().iter().map(ToString::to_string).collect();
    assert_eq!(dirty, ["default/api", "default/web"]);
    let text = describe(&state, false);
    assert!(
        text.contains("default/web:/TCP: [10.1.0.2:80]") && text.contains("default/api:/TCP: [10.1.0.3:80]"),
        "{text}"
    );
    // The same again is no change.
    cluster::apply(&mut state, &slice("two", "api", json!([endpoint("10.1.0.3", "there")]), json!([{"port": 80}])));
    assert!(state.take_dirty().is_empty());
}
