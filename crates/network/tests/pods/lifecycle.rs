//! Detaching, restarts, and leaving the machine as it was.

use std::collections::BTreeSet;

use network::nft::{Chain, ChainKind, Family, Hook, Nft, Table, Transaction, priority};
use network::pod::{PodNetwork, PodNetworkConfig};
use network::rtnl::Rtnl;
use network::sysctl;

use super::machine::*;

/// All that the pod network could leave on a machine.
fn traces() -> (Vec<String>, Vec<String>, Vec<String>, String) {
    let mut rtnl = Rtnl::open().unwrap();
    let links = rtnl.links().unwrap().into_iter().map(|link| link.name).collect();
    let addresses = rtnl.addresses().unwrap().into_iter().filter(|a| a.address.is_ipv4());
    let addresses = addresses.map(|a| format!("{} {}", a.link, a.address));
    // Of IPv4: the kernel adds its own IPv6 addresses and routes when it likes.
    let routes = rtnl.routes().unwrap().into_iter().filter(|r| !r.destination.is_ipv6());
    let routes = routes.map(|r| format!("{} {:?}", r.destination, r.link));
    let addresses = addresses.chain(routes).collect();
    let tables = Nft::open().unwrap().tables().unwrap().into_iter().map(|(table, _)| table.name).collect();
    (links, addresses, tables, sysctl::read("ipv4/ip_forward").unwrap())
}

#[test]
fn detach_leaves_nothing_of_the_pod() {
    on_a_machine(|machine| {
        let network = machine.network();
        let before = traces();
        let pod = start_pod(&network, "one", &[tcp(None, 8080, 80), tcp(Some(NODE), 8081, 80)]);
        assert_ne!(traces(), before);
        network.detach("one").unwrap();
        network.detach("one").unwrap();
        network.detach("never-seen").unwrap();
        assert_eq!(traces(), before);
        assert_eq!(network.attachment("one"), None);
        let table = Table::new(Family::Ip, format!("{CLUSTER}-pods"));
        let mut nft = Nft::open().unwrap();
        for set in ["host-ports", "host-ports-at", "hairpin"] {
            assert_eq!(nft.elements(&table, set).unwrap(), [], "{set}");
        }
        // The address is free, but rests.
        let next = network.attach(&pod.namespace, &identity("two"), &[]).unwrap();
        assert_ne!(next.ips[0], pod.ip);
    });
}

#[test]
fn detach_works_when_the_namespace_is_gone() {
    on_a_machine(|machine| {
        let network = machine.network();
        let pod = start_pod(&network, "one", &[tcp(None, 8080, 80)]);
        drop(pod.namespace);
        network.detach("one").unwrap();
        start_pod(&network, "two", &[tcp(None, 8080, 80)]);
    });
}

#[test]
fn a_restart_knows_its_sandboxes_and_drops_the_dead() {
    on_a_machine(|machine| {
        let network = machine.network();
        let web = start_pod(&network, "web", &[tcp(None, 8080, 80)]);
        let dead = start_pod(&network, "dead", &[tcp(None, 8081, 80)]);
        serve(&web.namespace, "0.0.0.0:80", "web");
        serve(&dead.namespace, "0.0.0.0:80", "dead");
        drop(network);

        let network = machine.open();
        assert_eq!(network.gateway().unwrap().to_string(), "10.77.3.1");
        assert_eq!(ask(&machine.outside, at(NODE, 8080)).unwrap(), format!("web {OUTSIDE}"));
        network.reconcile(&BTreeSet::from(["web".to_owned()])).unwrap();
        assert_eq!(network.attachment("web"), Some(web.attachment.clone()));
        assert_eq!(network.attachment("dead"), None);
        assert_eq!(ask(&machine.outside, at(NODE, 8080)).unwrap(), format!("web {OUTSIDE}"));
        assert!(ask(&machine.outside, at(NODE, 8081)).is_err());
        assert!(Rtnl::open().unwrap().link(&dead.attachment.host_interface).unwrap().is_none());
        // Addresses go on where the last run stopped.
        assert_eq!(start_pod(&network, "new", &[]).ip.to_string(), "10.77.3.4");
    });
}

#[test]
fn rules_that_somebody_deleted_are_written_anew() {
    on_a_machine(|machine| {
        let network = machine.network();
        let web = start_pod(&network, "web", &[tcp(None, 8080, 80)]);
        serve(&web.namespace, "0.0.0.0:80", "web");
        assert!(!network.repair().unwrap());
        let table = Table::new(Family::Ip, format!("{CLUSTER}-pods"));
        let mut deleted = Transaction::new();
        deleted.delete_table(&table);
        let mut flushed = Transaction::new();
        for chain in Nft::open().unwrap().chains(&table).unwrap() {
            flushed.flush_chain(&table, &chain);
        }
        for harm in [deleted, flushed] {
            Nft::open().unwrap().commit(harm).unwrap();
            assert!(ask(&machine.outside, at(NODE, 8080)).is_err());
            assert!(network.repair().unwrap());
            assert_eq!(ask(&machine.outside, at(NODE, 8080)).unwrap(), format!("web {OUTSIDE}"));
        }
    });
}

#[test]
fn an_interface_without_a_record_is_deleted() {
    on_a_machine(|machine| {
        let network = machine.network();
        let pod = start_pod(&network, "one", &[]);
        std::fs::remove_file(machine.state.join("sandboxes/one")).unwrap();
        let network = machine.open();
        network.reconcile(&BTreeSet::from(["one".to_owned()])).unwrap();
        assert!(Rtnl::open().unwrap().link(&pod.attachment.host_interface).unwrap().is_none());
    });
}

#[test]
fn reset_leaves_the_machine_as_it_was() {
    on_a_machine(|machine| {
        let before = traces();
        let network = machine.network();
        start_pod(&network, "one", &[tcp(None, 8080, 80)]);
        let kept = start_pod(&network, "two", &[]);
        assert_eq!(sysctl::read("ipv4/ip_forward").unwrap(), "1");
        drop(network);
        // Even when all state is lost.
        std::fs::remove_dir_all(&machine.state).unwrap();
        PodNetwork::remove(&machine.config()).unwrap();
        assert_eq!(traces(), before);
        assert!(!machine.state.exists());
        drop(kept);
        PodNetwork::remove(&machine.config()).unwrap();
    });
}

#[test]
fn the_last_cluster_gives_forwarding_back() {
    on_a_machine(|machine| {
        let of_other = PodNetworkConfig {
            cluster: "other".into(),
            state_dir: machine.state.with_file_name("other"),
            cluster_cidrs: vec![],
            service_cidrs: vec![],
            mtu: None,
        };
        let other = PodNetwork::new(of_other.clone()).unwrap();
        let before = traces();
        let first = machine.network();
        other.set_pod_cidr("10.88.0.0/24").unwrap();
        let pod = start_pod(&other, "one", &[]);
        drop(first);
        PodNetwork::remove(&machine.config()).unwrap();
        assert_eq!(sysctl::read("ipv4/ip_forward").unwrap(), "1");
        let server = serve(&machine.outside, "0.0.0.0:0", "outside");
        assert_eq!(ask(&pod.namespace, at(OUTSIDE, server.port())).unwrap(), format!("outside {NODE}"));
        drop(other);
        PodNetwork::remove(&of_other).unwrap();
        assert_eq!(traces(), before);
    });
}

#[test]
fn a_firewall_that_drops_forwarded_packets_is_told_of() {
    on_a_machine(|machine| {
        let network = machine.network();
        assert_eq!(network.warnings().unwrap(), Vec::<String>::new());
        let table = Table::new(Family::Ip, "filter");
        let mut t = Transaction::new();
        t.add_table(&table, None);
        t.add_chain(&table, &Chain::base("FORWARD", ChainKind::Filter, Hook::Forward, priority::FILTER).dropping());
        Nft::open().unwrap().commit(t).unwrap();
        sysctl::write("ipv4/ip_forward", "0").unwrap();
        let warnings = network.warnings().unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("10.77.0.0/16"));
    });
}

#[test]
fn namespaces_have_names_that_outlive_their_maker() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pod");
    network::netns::Namespace::create(&path).unwrap();
    assert!(network::netns::Namespace::create(&path).is_err());
    let namespace = network::netns::Namespace::open(&path).unwrap();
    let links = namespace.run(|| Rtnl::open().unwrap().links().unwrap()).unwrap();
    assert!(links.iter().any(|link| link.loopback && !link.up));
    network::netns::delete(&path).unwrap();
    assert!(!path.exists());
    network::netns::delete(&path).unwrap();
    network::netns::release(directory.path()).unwrap();
}
