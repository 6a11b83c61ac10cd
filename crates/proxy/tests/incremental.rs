//! Whatever happens in whatever order: changing the table step by step gives what writing it anew gives.

mod cluster;

use std::collections::BTreeMap;

use cluster::{apply, endpoint, name, service, slice};
use network::nft::{Element, ElementData, Family};
use proptest::prelude::*;
use proxy::layout::SetName;
use proxy::plan::{plan, plan_service};
use proxy::ruleset::{Delta, RuleSet};
use proxy::state::State;
use serde_json::{Value, json};

/// The elements of a table, as the kernel would keep them.
#[derive(Default, Debug, PartialEq)]
struct Image(BTreeMap<(SetName, Vec<u8>), ElementData>);

impl Image {
    /// What the kernel does: deleting what is not there and adding what is there otherwise are errors.
    fn apply(&mut self, delta: &Delta) {
        for (set, element) in delta.deleted() {
            assert!(self.0.remove(&(set, element.key)).is_some(), "deleted from {set:?} what was not there");
        }
        for (set, Element { key, data, .. }) in delta.added() {
            let old = self.0.insert((set, key), data.clone());
            assert!(old.is_none() || old == Some(data), "added to {set:?} what was there otherwise");
        }
    }

    fn keys(&self, set: SetName) -> impl Iterator<Item = &Vec<u8>> {
        self.0.keys().filter(move |(other, _)| *other == set).map(|(_, key)| key)
    }
}

#[derive(Clone, Debug)]
enum Event {
    Apply(Value),
    DeleteService(&'static str),
    DeleteSlice(String),
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn event() -> impl Strategy<Value = Event> {
    let service_name = || prop::sample::select(&NAMES[..]);
    let policy = || prop::sample::select(vec!["Cluster", "Local"]);
    let port = (prop::sample::select(vec!["x", "y"]), prop::sample::select(vec!["TCP", "UDP"]), 80u16..82, 0u16..2);
    let ports = prop::collection::vec(port, 0..3);
    let services = (service_name(), ports, policy(), policy(), any::<bool>(), 0u8..4).prop_map(
        |(name, ports, internal, external, sticky, extras)| {
            let ports: Vec<Value> = ports
                .into_iter()
                .map(|(name, protocol, port, node)| json!({"name": name, "protocol": protocol, "port": port, "nodePort": node * 30_000}))
                .collect();
            // Services may claim the same external address.
            let external_ips = if extras & 1 > 0 { json!(["198.51.100.1"]) } else { json!([]) };
            let ranges = if extras & 2 > 0 { json!(["192.0.2.0/24"]) } else { json!([]) };
            let mut object = service(name, json!({
                "clusterIP": format!("10.96.0.{}", name.as_bytes()[0]), "ports": ports, "externalIPs": external_ips,
                "internalTrafficPolicy": internal, "externalTrafficPolicy": external,
                "sessionAffinity": if sticky { "ClientIP" } else { "None" }, "loadBalancerSourceRanges": ranges,
            }));
            object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.2"}]}});
            Event::Apply(object)
        },
    );
    let endpoints = prop::collection::vec((2u8..6, any::<bool>(), any::<bool>()), 0..5);
    let slices = (service_name(), 0u8..2, endpoints, prop::sample::select(vec!["x", "y"])).prop_map(
        |(name, number, endpoints, port)| {
            let endpoints: Vec<Value> = endpoints
                .into_iter()
                .map(|(ip, here, ready)| {
                    let mut endpoint = endpoint(&format!("10.1.0.{ip}"), if here { "here" } else { "there" });
                    endpoint["conditions"] = json!({"ready": ready, "serving": true, "terminating": !ready});
                    endpoint
                })
                .collect();
            let ports =
                json!([{"name": port, "port": 80, "protocol": "TCP"}, {"name": port, "port": 53, "protocol": "UDP"}]);
            Event::Apply(slice(&format!("{name}-{number}"), name, json!(endpoints), ports))
        },
    );
    let slice_name = (service_name(), 0u8..2).prop_map(|(name, number)| format!("{name}-{number}"));
    prop_oneof![
        4 => services,
        6 => slices,
        1 => service_name().prop_map(Event::DeleteService),
        1 => slice_name.prop_map(Event::DeleteSlice),
    ]
}

fn happen(state: &mut State, event: &Event) {
    match event {
        Event::Apply(object) => apply(state, object),
        Event::DeleteService(service) => state.delete_service(&name(service)),
        Event::DeleteSlice(slice) => state.delete_slice(&name(slice)),
    }
}

fn update(rules: &mut RuleSet, state: &mut State) -> Delta {
    let mut delta = Delta::default();
    for service in state.take_dirty() {
        rules.update(&service, plan_service(state, &service, false), &mut delta);
    }
    delta
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn step_by_step_is_the_same_as_at_once(events in prop::collection::vec((event(), any::<bool>()), 1..25)) {
        let mut state = State::new(cluster::NODE);
        let mut rules = RuleSet::new(Family::Ip);
        let mut kernel = Image::default();
        for (event, flush) in &events {
            happen(&mut state, event);
            // Several events can share a transaction.
            if *flush {
                kernel.apply(&update(&mut rules, &mut state));
            }
        }
        kernel.apply(&update(&mut rules, &mut state));

        // The rule set knows what the kernel has.
        let mut whole = Image::default();
        whole.apply(&rules.full());
        prop_assert_eq!(kernel, whole);

        // And it is what a fresh start would decide, but for the numbers of endpoints.
        let sorted: BTreeMap<_, _> = plan(&state, false);
        let normalized = rules.normalized();
        prop_assert_eq!(normalized.keys().collect::<Vec<_>>(), sorted.keys().collect::<Vec<_>>());
        for (name, mut expected) in sorted {
            expected.cluster.sort();
            expected.local.sort();
            prop_assert_eq!(&normalized[&name], &expected);
        }
    }

    #[test]
    fn the_numbers_of_endpoints_have_no_gaps(events in prop::collection::vec(event(), 1..25)) {
        let mut state = State::new(cluster::NODE);
        let mut rules = RuleSet::new(Family::Ip);
        for event in &events {
            happen(&mut state, event);
            update(&mut rules, &mut state);
        }
        let mut image = Image::default();
        image.apply(&rules.full());
        let mut numbers: BTreeMap<Vec<u8>, Vec<u32>> = BTreeMap::new();
        for set in [SetName::Endpoints, SetName::LocalEndpoints, SetName::NodePortEndpoints, SetName::NodePortLocalEndpoints] {
            for key in image.keys(set) {
                let (entry, number) = key.split_at(key.len() - 4);
                let number = u32::from_ne_bytes(number.try_into().unwrap());
                numbers.entry([&[set as u8], entry].concat()).or_default().push(number);
            }
        }
        for mut numbers in numbers.into_values() {
            numbers.sort();
            prop_assert!(numbers.iter().copied().eq(0..numbers.len() as u32), "{numbers:?}");
        }
    }
}

#[test]
fn a_change_of_one_endpoint_touches_only_its_elements() {
    let mut state = State::new(cluster::NODE);
    let mut rules = RuleSet::new(Family::Ip);
    let endpoints = |range: std::ops::Range<u16>| -> Value {
        range.map(|n| endpoint(&format!("10.1.{}.{}", n / 250, n % 250), "there")).collect()
    };
    for n in 0..200u8 {
        apply(
            &mut state,
            &service(&format!("s{n}"), json!({"clusterIP": format!("10.96.1.{n}"), "ports": [{"port": 80}]})),
        );
    }
    apply(&mut state, &slice("s7-1", "s7", endpoints(0..100), json!([{"port": 80}])));
    let first = update(&mut rules, &mut state);
    assert_eq!(first.added().count(), 500);

    // One more: its element, and the class of the service with the number of endpoints.
    apply(&mut state, &slice("s7-1", "s7", endpoints(0..101), json!([{"port": 80}])));
    let more = update(&mut rules, &mut state);
    assert_eq!((more.deleted().count(), more.added().count()), (1, 2));
    // Another in place of one: one element.
    apply(&mut state, &slice("s7-1", "s7", endpoints(1..102), json!([{"port": 80}])));
    let swapped = update(&mut rules, &mut state);
    assert_eq!((swapped.deleted().count(), swapped.added().count()), (1, 1));
    // One less: the last one moves to its place.
    apply(&mut state, &slice("s7-1", "s7", endpoints(2..102), json!([{"port": 80}])));
    let less = update(&mut rules, &mut state);
    assert_eq!((less.deleted().count(), less.added().count()), (3, 2));
}

#[test]
fn of_two_services_with_one_address_the_other_takes_over() {
    let mut state = State::new(cluster::NODE);
    let mut rules = RuleSet::new(Family::Ip);
    let mut kernel = Image::default();
    for (number, service_name) in ["a", "b"].into_iter().enumerate() {
        let ip = format!("10.96.0.{number}");
        apply(
            &mut state,
            &service(service_name, json!({"clusterIP": ip, "externalIPs": ["198.51.100.1"], "ports": [{"port": 80}]})),
        );
        apply(
            &mut state,
            &slice(service_name, service_name, json!([endpoint("10.1.0.2", "here")]), json!([{"port": 80}])),
        );
    }
    kernel.apply(&update(&mut rules, &mut state));
    assert_eq!(kernel.keys(SetName::Services).count(), 3);
    assert_eq!(kernel.keys(SetName::Hairpin).count(), 1);
    for gone in ["a", "b"] {
        state.delete_service(&name(gone));
        kernel.apply(&update(&mut rules, &mut state));
        let left = if gone == "a" { (2, 1) } else { (0, 0) };
        assert_eq!((kernel.keys(SetName::Services).count(), kernel.keys(SetName::Hairpin).count()), left);
    }
    assert_eq!(kernel, Image::default());
}

/// Whatever the names and the order of events, and also when everything is written anew.
#[test]
fn an_external_ip_takes_nothing_that_is_anothers() {
    let dated = |name: &str, second: u8, spec: Value| {
        let mut object = service(name, spec);
        object["metadata"]["creationTimestamp"] = json!(format!("2026-01-01T00:00:{second:02}Z"));
        object
    };
    let mut victim = dated("victim", 5, json!({"clusterIP": "10.96.0.1", "ports": [{"port": 443}]}));
    victim["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}});
    let external = json!(["10.96.0.1", "198.51.100.7", "198.51.100.1"]);
    let evil = |ip: &str| json!({"clusterIP": ip, "externalIPs": external, "ports": [{"port": 443}]});
    let objects = [dated("evil", 1, evil("10.96.0.3")), victim, dated("a-later-one", 2, evil("10.96.0.2"))];
    let key = |ip: [u8; 4], number: u32| {
        let entry = Element::fields(&[&ip, &[6], &443u16.to_be_bytes()]);
        [&entry[..], &number.to_ne_bytes()].concat()
    };
    for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1]] {
        let (mut state, mut rules, mut kernel) =
            (State::new(cluster::NODE), RuleSet::new(Family::Ip), Image::default());
        for index in order {
            let name = objects[index]["metadata"]["name"].as_str().unwrap();
            let pod = json!([endpoint(&format!("10.1.0.{index}"), "here")]);
            apply(&mut state, &objects[index]);
            apply(&mut state, &slice(name, name, pod, json!([{"port": 80}])));
            kernel.apply(&update(&mut rules, &mut state));
        }
        let mut whole = Image::default();
        whole.apply(&rules.full());
        for image in [&kernel, &whole] {
            for (ip, owner) in [([10, 96, 0, 1], 1u8), ([198, 51, 100, 7], 1), ([198, 51, 100, 1], 0)] {
                let place = (SetName::Endpoints, key(ip, 0));
                let endpoint = Element::fields(&[&[10, 1, 0, owner], &80u16.to_be_bytes()]);
                assert_eq!(image.0.get(&place), Some(&ElementData::Value(endpoint)), "{ip:?} in order {order:?}");
            }
        }
    }
}
