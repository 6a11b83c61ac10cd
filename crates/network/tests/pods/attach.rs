//! Pods reach each other, the node and the world.

use network::nft::Nft;
use network::rtnl::{Changes, Rtnl};
use network::{Error, sysctl};

use super::machine::*;

#[test]
fn pods_reach_each_other_under_their_own_addresses() {
    on_a_machine(|machine| {
        let network = machine.network();
        let (one, two) = (start_pod(&network, "one", &[]), start_pod(&network, "two", &[]));
        assert_eq!((one.ip.to_string(), two.ip.to_string()), ("10.77.3.2".into(), "10.77.3.3".into()));
        let server = serve(&two.namespace, "0.0.0.0:0", "two");
        assert_eq!(ask(&one.namespace, at(two.ip, server.port())).unwrap(), format!("two {}", one.ip));
        // And over its own loopback.
        assert_eq!(ask(&two.namespace, at("127.0.0.1", server.port())).unwrap(), "two 127.0.0.1");
    });
}

#[test]
fn pods_and_their_node_reach_each_other() {
    on_a_machine(|machine| {
        let network = machine.network();
        let pod = start_pod(&network, "one", &[]);
        let on_pod = serve(&pod.namespace, "0.0.0.0:0", "pod");
        let on_node = serve(&node(), "0.0.0.0:0", "node");
        let gateway = network.gateway().unwrap();
        assert_eq!(gateway.to_string(), "10.77.3.1");
        assert_eq!(ask(&node(), at(pod.ip, on_pod.port())).unwrap(), format!("pod {gateway}"));
        assert_eq!(ask(&pod.namespace, at(NODE, on_node.port())).unwrap(), format!("node {}", pod.ip));
        assert_eq!(ask(&pod.namespace, at(gateway, on_node.port())).unwrap(), format!("node {}", pod.ip));
    });
}

#[test]
fn the_node_has_its_address_before_there_are_pods() {
    on_a_machine(|machine| {
        let network = machine.network();
        let server = serve(&node(), "10.77.3.1:0", "node");
        assert_eq!(ask(&node(), server).unwrap(), "node 10.77.3.1");
        let pod = start_pod(&network, "one", &[]);
        assert_eq!(ask(&pod.namespace, server).unwrap(), format!("node {}", pod.ip));
    });
}

#[test]
fn the_world_outside_sees_the_node() {
    on_a_machine(|machine| {
        let network = machine.network();
        let pod = start_pod(&network, "one", &[]);
        let server = serve(&machine.outside, "0.0.0.0:0", "outside");
        assert_eq!(ask(&pod.namespace, at(OUTSIDE, server.port())).unwrap(), format!("outside {NODE}"));
    });
}

#[test]
fn a_pod_has_what_it_was_promised() {
    on_a_machine(|machine| {
        let network = machine.network();
        let pod = start_pod(&network, "one", &[]);
        let (links, addresses) = pod
            .namespace
            .run(|| {
                let mut rtnl = Rtnl::open().unwrap();
                (rtnl.links().unwrap(), rtnl.addresses().unwrap())
            })
            .unwrap();
        let eth0 = links.iter().find(|link| link.name == "eth0").unwrap();
        assert!(eth0.up && links.iter().all(|link| link.up || !link.loopback));
        assert_eq!((eth0.mtu, eth0.mac), (1400, Some([0x0a, 0x58, 10, 77, 3, 2])));
        let of_eth0: Vec<_> =
            addresses.iter().filter(|a| a.link == eth0.index).map(|a| (a.address, a.prefix)).collect();
        assert_eq!(of_eth0, [(pod.ip, 32)], "no address of the kernel's own making");
        let host = Rtnl::open().unwrap().link(&pod.attachment.host_interface).unwrap().unwrap();
        assert_eq!(host.alias, format!("pilothouse:{CLUSTER}:one"));
        assert_eq!(network.attachment("one"), Some(pod.attachment));
    });
}

#[test]
fn pods_are_kept_from_the_loopback_of_the_node() {
    on_a_machine(|machine| {
        let network = machine.network();
        let pod = start_pod(&network, "one", &[]);
        let server = serve(&node(), "127.0.0.1:0", "secret");
        // Without its own loopback, the pod sends such packets to the node, and takes the answers.
        pod.namespace
            .run(|| {
                sysctl::write("ipv4/conf/eth0/route_localnet", "1").unwrap();
                let mut rtnl = Rtnl::open().unwrap();
                let index = rtnl.index("lo").unwrap();
                let mut without = Changes::new();
                without.delete_address(index, "127.0.0.1".parse().unwrap());
                rtnl.apply(&without).unwrap();
            })
            .unwrap();
        ask_in_vain(&pod.namespace, server);
        // The rules are what keeps it away, not the way the test is made.
        let mut flush = network::nft::Transaction::new();
        let table = network::nft::Table::new(network::nft::Family::Ip, format!("{CLUSTER}-pods"));
        flush.flush_chain(&table, "loopback");
        Nft::open().unwrap().commit(flush).unwrap();
        assert_eq!(ask(&pod.namespace, server).unwrap(), format!("secret {}", pod.ip));
    });
}

#[test]
fn a_pod_cannot_send_from_the_address_of_another() {
    on_a_machine(|machine| {
        let network = machine.network();
        let (liar, victim) = (start_pod(&network, "liar", &[]), start_pod(&network, "victim", &[]));
        let server = std::net::UdpSocket::bind((NODE, 0)).unwrap();
        server.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        let send = |from: std::net::IpAddr| {
            liar.namespace
                .run(|| {
                    let mut rtnl = Rtnl::open().unwrap();
                    let eth0 = rtnl.index("eth0").unwrap();
                    let mut changes = Changes::new();
                    changes.add_address(eth0, from, network::rtnl::RouteScope::Universe, None);
                    rtnl.apply(&changes).unwrap();
                    let socket = std::net::UdpSocket::bind((from, 0)).unwrap();
                    socket.send_to(b"hello", server.local_addr().unwrap()).unwrap();
                })
                .unwrap();
            server.recv_from(&mut [0; 16]).map(|(_, from)| from.ip())
        };
        assert_eq!(send(liar.ip).unwrap(), liar.ip);
        assert!(send(victim.ip).is_err());
    });
}

#[test]
fn many_pods_at_once_get_addresses_of_their_own() {
    on_a_machine(|machine| {
        let network = machine.network();
        let node = node();
        let mut ips: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|n| {
                    let (network, node) = (&network, &node);
                    scope
                        .spawn(move || node.run(|| start_pod(network, &format!("pod{n}"), &[]).ip.to_string()).unwrap())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        ips.sort();
        ips.dedup();
        assert_eq!(ips.len(), 16);
    });
}

#[test]
fn without_a_pod_cidr_nothing_is_attached() {
    on_a_machine(|machine| {
        let network = machine.open();
        let namespace = network::netns::Namespace::anonymous().unwrap();
        let error = network.attach(&namespace, &identity("one"), &[]).unwrap_err();
        assert!(matches!(error, Error::NoPodCidr), "{error}");
        assert!(network.set_pod_cidr("10.77.3.0/31").is_err());
        assert!(network.set_pod_cidr("nonsense").is_err());
        assert_eq!(sysctl::read("ipv4/ip_forward").unwrap(), "0");
    });
}

#[test]
fn a_failed_attachment_leaves_nothing() {
    on_a_machine(|machine| {
        let network = machine.network();
        let namespace = network::netns::Namespace::anonymous().unwrap();
        let links = || Rtnl::open().unwrap().links().unwrap().len();
        let before = links();
        // The name of the interface inside is taken, so the pair cannot be made.
        network.attach(&namespace, &identity("first"), &[]).unwrap();
        let error = network.attach(&namespace, &identity("second"), &[tcp(None, 8080, 80)]).unwrap_err();
        assert!(error.is_exists() && error.to_string().contains("veth pair"), "{error}");
        assert_eq!(links(), before + 1);
        assert_eq!(network.attachment("second"), None);
        start_pod(&network, "third", &[tcp(None, 8080, 80)]);
    });
}
