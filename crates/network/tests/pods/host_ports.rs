//! Ports of the node that lead to pods.

use std::io::ErrorKind;
use std::net::UdpSocket;

use network::Error;
use network::pod::{PortMapping, Protocol};

use super::machine::*;

#[test]
fn a_host_port_answers_everyone() {
    on_a_machine(|machine| {
        let network = machine.network();
        let web = start_pod(&network, "web", &[tcp(None, 8080, 80)]);
        let other = start_pod(&network, "other", &[]);
        serve(&web.namespace, "0.0.0.0:80", "web");
        let gateway = network.gateway().unwrap();
        // From outside, with the client's own address.
        assert_eq!(ask(&machine.outside, at(NODE, 8080)).unwrap(), format!("web {OUTSIDE}"));
        // From the node itself, also over its loopback.
        assert_eq!(ask(&node(), at(NODE, 8080)).unwrap(), format!("web {NODE}"));
        assert_eq!(ask(&node(), at("127.0.0.1", 8080)).unwrap(), format!("web {gateway}"));
        // From another pod, and from the pod itself through the node.
        assert_eq!(ask(&other.namespace, at(NODE, 8080)).unwrap(), format!("web {}", other.ip));
        assert_eq!(ask(&web.namespace, at(NODE, 8080)).unwrap(), format!("web {gateway}"));
        // Other ports and other machines are left alone.
        assert_eq!(ask(&machine.outside, at(NODE, 80)), Err(ErrorKind::ConnectionRefused));
        serve(&machine.outside, &format!("{OUTSIDE}:8080"), "outside");
        assert_eq!(ask(&web.namespace, at(OUTSIDE, 8080)).unwrap(), format!("outside {NODE}"));

        network.detach("web").unwrap();
        assert_eq!(ask(&machine.outside, at(NODE, 8080)), Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn a_host_port_of_one_address_is_of_that_address_only() {
    on_a_machine(|machine| {
        let network = machine.network();
        let web = start_pod(&network, "web", &[tcp(Some("127.0.0.1"), 8080, 80)]);
        let net = start_pod(&network, "net", &[tcp(Some(NODE), 8080, 80)]);
        serve(&web.namespace, "0.0.0.0:80", "web");
        serve(&net.namespace, "0.0.0.0:80", "net");
        assert_eq!(ask(&node(), at("127.0.0.1", 8080)).unwrap(), "web 10.77.3.1");
        assert_eq!(ask(&machine.outside, at(NODE, 8080)).unwrap(), format!("net {OUTSIDE}"));
        assert_eq!(ask(&node(), at("10.77.3.1", 8080)), Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn udp_ports_are_mapped_too() {
    on_a_machine(|machine| {
        let network = machine.network();
        let mapping = PortMapping { host_ip: None, host_port: 5353, container_port: 53, protocol: Protocol::Udp };
        let pod = start_pod(&network, "dns", &[mapping]);
        let server = pod.namespace.run(|| UdpSocket::bind("0.0.0.0:53").unwrap()).unwrap();
        let client = machine.outside.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        let patience = Some(std::time::Duration::from_secs(5));
        server.set_read_timeout(patience).unwrap();
        client.set_read_timeout(patience).unwrap();
        client.send_to(b"question", (NODE, 5353)).unwrap();
        let (_, from) = server.recv_from(&mut [0; 64]).unwrap();
        assert_eq!(from.ip().to_string(), OUTSIDE);
        server.send_to(b"answer", from).unwrap();
        assert_eq!(client.recv_from(&mut [0; 64]).unwrap().1, at(NODE, 5353));
    });
}

#[test]
fn a_taken_host_port_is_refused_by_name() {
    on_a_machine(|machine| {
        let network = machine.network();
        start_pod(&network, "one", &[tcp(None, 8080, 80)]);
        let namespace = network::netns::Namespace::anonymous().unwrap();
        let error = network.attach(&namespace, &identity("two"), &[tcp(None, 8080, 81)]).unwrap_err();
        assert!(matches!(error, Error::PortTaken { .. }));
        assert_eq!(error.to_string(), "host port 8080/TCP is already used by sandbox one");
        assert_eq!(network.attachment("two"), None);
        network.detach("one").unwrap();
        network.attach(&namespace, &identity("two"), &[tcp(None, 8080, 81)]).unwrap();
    });
}
