//! What Services are given, case by case.

use super::range::{AddressRange, PortRange};
use super::service::{Claims, Pools, Taken, plan, release};
use super::spec::Spec;
use api::Status;
use schema::{Map, Value};
use std::collections::BTreeSet;
use std::net::IpAddr;

#[derive(Default)]
struct Held {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

impl Taken for Held {
    fn address(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }
    fn port(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }
}

fn pools(cidrs: &[&str]) -> Pools {
    let addresses: Vec<AddressRange> = cidrs.iter().map(|c| AddressRange::parse(c).expect("a range")).collect();
    Pools { families: addresses.iter().map(AddressRange::family).collect(), addresses, ports: PortRange::default() }
}

/// A value written as `{a: b, c: [d, 1]}`, without quotes.
fn tree(text: &str) -> Map {
    let value = crate::test_support::tree(text);
    value.as_map().cloned().expect("a map")
}

fn service(spec: &str) -> Map {
    tree(&format!("{{metadata: {{name: s, namespace: d}}, spec: {spec}}}"))
}

fn run(held: &Held, cidrs: &[&str], after: &mut Map, before: Option<&Map>) -> Result<Claims, Status> {
    plan(&pools(cidrs), held, &mut || 0, after, before)
}

fn create(spec: &str) -> (Map, Claims) {
    let mut s = service(spec);
    let claims = run(&Held::default(), &["10.96.0.0/16"], &mut s, None).expect("a plan");
    (s, claims)
}

fn strings(list: Option<&Value>) -> Vec<&str> {
    list.and_then(Value::as_list).unwrap_or_default().iter().filter_map(Value::as_str).collect()
}

#[test]
fn a_cluster_ip_service_gets_an_address_and_families() {
    let (s, claims) = create("{type: ClusterIP, ports: [{port: 80}]}");
    assert_eq!(s.str_at(&["spec", "clusterIP"]), "10.96.1.1");
    assert_eq!(strings(s.at(&["spec", "clusterIPs"])), ["10.96.1.1"]);
    assert_eq!(strings(s.at(&["spec", "ipFamilies"])), ["IPv4"]);
    assert_eq!(s.str_at(&["spec", "ipFamilyPolicy"]), "SingleStack");
    assert_eq!(claims.claim_addresses, ["10.96.1.1".parse::<IpAddr>().expect("an address")]);
    assert!(claims.claim_ports.is_empty());
}

#[test]
fn headless_and_external_names_get_none() {
    let (s, claims) = create("{type: ClusterIP, clusterIP: None, selector: {a: b}}");
    assert_eq!(strings(s.at(&["spec", "clusterIPs"])), ["None"]);
    assert_eq!(strings(s.at(&["spec", "ipFamilies"])), ["IPv4"]);
    assert!(claims.is_empty());
    let (s, _) = create("{type: ClusterIP, clusterIP: None}");
    assert_eq!(s.str_at(&["spec", "ipFamilyPolicy"]), "RequireDualStack");
    assert_eq!(strings(s.at(&["spec", "ipFamilies"])), ["IPv4", "IPv6"]);
    let (s, claims) = create("{type: ExternalName, externalName: x.y}");
    assert!(claims.is_empty());
    assert!(s.at(&["spec", "ipFamilies"]).is_none());
}

#[test]
fn an_address_that_is_taken_or_foreign_is_refused_by_field() {
    let taken = Held { addresses: ["10.96.0.10".parse().expect("an address")].into(), ..Held::default() };
    let mut s = service("{type: ClusterIP, clusterIP: 10.96.0.10}");
    let refused = run(&taken, &["10.96.0.0/16"], &mut s, None).expect_err("taken");
    assert_eq!(
        refused.message,
        "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided IP is already allocated"
    );
    let mut s = service("{type: ClusterIP, clusterIP: 1.2.3.4}");
    let refused = run(&taken, &["10.96.0.0/16"], &mut s, None).expect_err("foreign");
    assert!(
        refused
            .message
            .ends_with("failed to allocate IP 1.2.3.4: the provided network does not match the current range"),
        "{refused}"
    );
    let mut s = service("{type: ClusterIP, clusterIP: 'fd00::1'}");
    let refused = run(&taken, &["10.96.0.0/16"], &mut s, None).expect_err("another family");
    assert!(refused.message.contains("IPv6 is not configured on this cluster"), "{refused}");
}

#[test]
fn node_ports_are_shared_by_protocols_of_one_port() {
    let (s, claims) =
        create("{type: NodePort, ports: [{name: t, port: 53, protocol: TCP}, {name: u, port: 53, protocol: UDP}]}");
    let ports: Vec<Option<i64>> = s
        .at(&["spec", "ports"])
        .and_then(Value::as_list)
        .expect("ports")
        .iter()
        .map(|p| p.as_map().and_then(|p| p.get("nodePort")).and_then(Value::as_i64))
        .collect();
    assert_eq!(ports, [Some(30086), Some(30086)]);
    assert_eq!(claims.claim_ports, [30086]);
}

#[test]
fn a_node_port_that_is_taken_or_out_of_range_is_refused_by_index() {
    let held = Held { ports: [30008].into(), ..Held::default() };
    let mut s = service("{type: NodePort, ports: [{port: 80, nodePort: 30008}]}");
    let refused = run(&held, &["10.96.0.0/16"], &mut s, None).expect_err("taken");
    assert_eq!(
        refused.message,
        "Service \"s\" is invalid: spec.ports[0].nodePort: Invalid value: 30008: provided port is already allocated"
    );
    let mut s = service("{type: NodePort, ports: [{port: 80, nodePort: 80}]}");
    let refused = run(&held, &["10.96.0.0/16"], &mut s, None).expect_err("out of range");
    assert_eq!(
        refused.message,
        "Service \"s\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
    );
}

#[test]
fn an_update_that_says_nothing_keeps_what_was_given() {
    let (before, _) = create("{type: NodePort, ports: [{name: a, port: 80}]}");
    let mut after = service("{type: NodePort, ports: [{name: a, port: 8080}]}");
    let claims = run(&Held::default(), &["10.96.0.0/16"], &mut after, Some(&before)).expect("a plan");
    assert!(claims.is_empty(), "{claims:?}");
    assert_eq!(after.at(&["spec", "clusterIPs"]), before.at(&["spec", "clusterIPs"]));
    let port = after.at(&["spec", "ports"]).and_then(Value::as_list).and_then(|l| l[0].as_map()).expect("a port");
    assert_eq!(port.get("nodePort"), Some(&Value::Int(30086)));
}

#[test]
fn changing_the_type_gives_back_what_is_no_longer_needed() {
    let (before, _) = create("{type: NodePort, ports: [{name: a, port: 80}]}");
    let mut after = before.clone();
    after.set_at(&["spec", "type"], "ClusterIP");
    let claims = run(&Held::default(), &["10.96.0.0/16"], &mut after, Some(&before)).expect("a plan");
    assert_eq!(claims, Claims { release_ports: vec![30086], ..Claims::default() });
    assert!(release(&after).release_ports.is_empty());
    let mut external = before.clone();
    external.set_at(&["spec", "type"], "ExternalName");
    let claims = run(&Held::default(), &["10.96.0.0/16"], &mut external, Some(&before)).expect("a plan");
    assert_eq!(claims.release_addresses.len(), 1);
    assert_eq!(claims.release_ports, [30086]);
    assert_eq!(external.str_at(&["spec", "clusterIP"]), "");
    assert!(external.at(&["spec", "ipFamilies"]).is_none());
}

#[test]
fn node_ports_go_with_their_type_though_fewer_or_in_another_order() {
    let ports = "ports: [{name: a, port: 80, nodePort: 30001}, {name: b, port: 81, nodePort: 30002}]";
    let (before, _) = create(&format!("{{type: NodePort, {ports}}}"));
    let became = |ports: &str| {
        let mut after = before.clone();
        after.set_at(&["spec", "type"], "ClusterIP");
        let wanted = service(&format!("{{ports: {ports}}}"));
        after.set_at(&["spec", "ports"], wanted.at(&["spec", "ports"]).cloned().expect("ports"));
        let claims = run(&Held::default(), &["10.96.0.0/16"], &mut after, Some(&before)).expect("a plan");
        assert_eq!(claims.release_ports, [30001, 30002]);
        Spec(&after).node_ports()
    };
    assert!(became("[{name: b, port: 81, nodePort: 30002}]").is_empty());
    assert!(became("[{name: b, port: 81, nodePort: 30002}, {name: a, port: 80, nodePort: 30001}]").is_empty());
    // One that is new stays, for validation to refuse.
    assert_eq!(became("[{name: a, port: 80, nodePort: 30003}]"), [30003]);
}

#[test]
fn a_load_balancer_that_wants_no_node_ports_keeps_those_it_has_until_they_are_left_out() {
    let (before, _) = create("{type: LoadBalancer, ports: [{port: 80}]}");
    let mut after = before.clone();
    after.set_at(&["spec", "allocateLoadBalancerNodePorts"], false);
    let claims = run(&Held::default(), &["10.96.0.0/16"], &mut after, Some(&before)).expect("a plan");
    assert!(claims.is_empty(), "{claims:?}");
    assert_eq!(Spec(&after).node_ports(), [30086]);
    let mut without = service("{type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{port: 80}]}");
    let claims = run(&Held::default(), &["10.96.0.0/16"], &mut without, Some(&after)).expect("a plan");
    assert_eq!(claims.release_ports, [30086]);
    assert!(Spec(&without).node_ports().is_empty());
    let mut again = service("{type: LoadBalancer, allocateLoadBalancerNodePorts: true, ports: [{port: 80}]}");
    run(&Held::default(), &["10.96.0.0/16"], &mut again, Some(&after)).expect("a plan");
    assert_eq!(Spec(&again).node_ports(), [30086]);
}

#[test]
fn an_external_name_may_name_a_port_and_has_none() {
    let external = "{type: ExternalName, externalName: x.y, ports: [{port: 80, nodePort: 30080}]}";
    let (before, claims) = create(external);
    assert!(claims.is_empty() && release(&before).is_empty(), "it is another's, maybe");
    let held = Held { ports: [30080].into(), ..Held::default() };
    let mut after = service("{type: NodePort, ports: [{port: 80, nodePort: 30080}]}");
    let refused = run(&held, &["10.96.0.0/16"], &mut after, Some(&before)).expect_err("taken");
    assert!(refused.message.contains("provided port is already allocated"), "{}", refused.message);
    let claims = run(&Held::default(), &["10.96.0.0/16"], &mut after, Some(&before)).expect("a plan");
    assert_eq!(claims.claim_ports, [30080]);
}

#[test]
fn a_local_load_balancer_has_a_health_check_port_until_it_changes() {
    let (before, claims) = create("{type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}]}");
    assert_eq!(claims.claim_ports, [30086, 30087]);
    assert_eq!(before.at(&["spec", "healthCheckNodePort"]), Some(&Value::Int(30087)));
    assert_eq!(release(&before).release_ports, [30086, 30087]);
    let mut after = before.clone();
    after.set_at(&["spec", "externalTrafficPolicy"], "Cluster");
    let claims = run(&Held::default(), &["10.96.0.0/16"], &mut after, Some(&before)).expect("a plan");
    assert_eq!(claims.release_ports, [30087]);
    assert!(after.at(&["spec", "healthCheckNodePort"]).is_none());
}

#[test]
fn two_families_where_asked_and_configured() {
    let both = ["10.96.0.0/16", "fd00::/108"];
    let mut s = service("{type: ClusterIP, ipFamilyPolicy: PreferDualStack}");
    let claims = run(&Held::default(), &both, &mut s, None).expect("a plan");
    assert_eq!(strings(s.at(&["spec", "ipFamilies"])), ["IPv4", "IPv6"]);
    assert_eq!(claims.claim_addresses.len(), 2);
    let before = s.clone();
    s.set_at(&["spec", "ipFamilyPolicy"], "SingleStack");
    let claims = run(&Held::default(), &both, &mut s, Some(&before)).expect("a plan");
    assert_eq!(claims.release_addresses.len(), 1);
    assert_eq!(strings(s.at(&["spec", "clusterIPs"])).len(), 1);
    let mut s = service("{type: ClusterIP, ipFamilyPolicy: RequireDualStack}");
    let refused = run(&Held::default(), &["10.96.0.0/16"], &mut s, None).expect_err("one family");
    assert!(refused.message.contains("this cluster is not configured for dual-stack services"), "{refused}");
}

#[test]
fn what_validation_must_refuse_is_left_without_a_claim() {
    for spec in ["{type: ClusterIP, clusterIP: nonsense}", "{clusterIPs: [10.96.0.1]}", "{ipFamilies: [IPv5]}"] {
        let (_, claims) = create(spec);
        assert!(claims.is_empty(), "{spec}");
    }
}

#[test]
fn addresses_are_given_from_ranges_that_stay() {
    let own = pools(&["10.96.0.0/16"]).addresses;
    let cidr = |range: &str, rest: &str| std::sync::Arc::new(tree(&format!("{{spec: {{cidrs: [{range}]}}, {rest}}}")));
    let of = |cidrs: &[std::sync::Arc<Map>]| {
        let ranges = super::claims::ranges(&own, cidrs);
        ranges.iter().map(|range| range.as_str().to_owned()).collect::<Vec<_>>()
    };
    let ready = "status: {conditions: [{type: Ready, status: 'True'}]}";
    let unready = "status: {conditions: [{type: Ready, status: 'False'}]}";
    let going = "metadata: {deletionTimestamp: x}";
    assert_eq!(of(&[]), ["10.96.0.0/16"], "the server's own is had before it is noted");
    assert_eq!(of(&[cidr("10.1.0.0/16", ready), cidr("10.96.0.0/16", "status: {}")]), ["10.96.0.0/16", "10.1.0.0/16"]);
    assert_eq!(of(&[cidr("10.1.0.0/16", unready), cidr("10.2.0.0/16", going)]), ["10.96.0.0/16"]);
    assert_eq!(of(&[cidr("10.96.0.0/16", going)]), [""; 0]);
    assert_eq!(of(&[cidr("10.96.0.0/16", going), cidr("10.96.0.0/16", ready)]), ["10.96.0.0/16"]);
}
