//! Services answered by the kernel: real namespaces, tables and sockets. Needs root.

mod cluster;
mod machine;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::{endpoint, service, slice};
use machine::*;
use network::nft::{Family, Nft};
use proxy::kernel;
use serde_json::{Value, json};

fn web_slice(pods: &[&Pod]) -> Value {
    let endpoints: Value = pods.iter().map(|pod| endpoint(&pod.ip.to_string(), cluster::NODE)).collect();
    slice("web-1", "web", endpoints, json!([{"port": 8080}]))
}

fn web_service(extra: Value) -> Value {
    let mut spec = json!({"type": "NodePort", "clusterIP": "10.96.0.5", "ports": [{"port": 80, "nodePort": 30008}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    service("web", spec)
}

#[test]
fn a_service_answers_from_everywhere() {
    on_a_machine(|machine| {
        let (one, two) = (machine.web_pod("one"), machine.web_pod("two"));
        let client = machine.pod("client");
        let mut proxy = machine.proxy();
        proxy.apply(&[web_service(json!({})), web_slice(&[&one, &two])]);

        let names =
            |answers: &[(String, String)]| answers.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
        let both = BTreeSet::from(["one".to_owned(), "two".to_owned()]);
        // From a pod and from the node, at the cluster IP; both endpoints get their share.
        let answers = ask_many(&client.namespace, at("10.96.0.5", 80), 40);
        assert_eq!(names(&answers), both);
        assert!(answers.iter().all(|(_, from)| *from == client.ip.to_string()), "{answers:?}");
        assert_eq!(names(&ask_many(&node(), at("10.96.0.5", 80), 40)), both);
        // At the node port: from outside and from a pod, seen with the node's address.
        let answers = ask_many(&machine.outside, at(NODE, 30008), 40);
        assert_eq!(names(&answers), both);
        assert!(answers.iter().all(|(_, from)| from == "10.77.3.1"), "{answers:?}");
        assert_eq!(names(&ask_many(&client.namespace, at(NODE, 30008), 40)), both);
        assert_eq!(names(&ask_many(&node(), at(NODE, 30008), 40)), both);
        // But not at loopback.
        assert_eq!(ask(&node(), at("127.0.0.1", 30008)), Err(ErrorKind::ConnectionRefused));
        // An endpoint reaches itself through the service.
        let answers = ask_many(&one.namespace, at("10.96.0.5", 80), 40);
        assert_eq!(names(&answers), both);
        assert!(answers.iter().any(|(name, from)| name == "one" && from == "10.77.3.1"), "{answers:?}");
        assert!(answers.iter().any(|(name, from)| name == "two" && *from == one.ip.to_string()), "{answers:?}");
        // An endpoint that leaves gets nothing more.
        proxy.apply(&[web_slice(&[&two])]);
        assert_eq!(names(&ask_many(&client.namespace, at("10.96.0.5", 80), 20)), BTreeSet::from(["two".to_owned()]));
    });
}

#[test]
fn without_endpoints_the_sender_is_told() {
    on_a_machine(|machine| {
        let client = machine.pod("client");
        let mut proxy = machine.proxy();
        proxy.apply(&[web_service(json!({}))]);
        let refused = Err(ErrorKind::ConnectionRefused);
        assert_eq!(ask(&client.namespace, at("10.96.0.5", 80)), refused);
        assert_eq!(ask(&node(), at("10.96.0.5", 80)), refused);
        assert_eq!(ask(&machine.outside, at(NODE, 30008)), refused);
        // A port that no service has.
        assert_eq!(ask(&client.namespace, at("10.96.0.5", 81)), refused);
        // UDP senders are told as well.
        let socket = client.namespace.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        socket.connect("10.96.0.5:81").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send(b"?").unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // The first endpoint ends that.
        let one = machine.web_pod("one");
        proxy.apply(&[web_slice(&[&one])]);
        assert_eq!(ask(&client.namespace, at("10.96.0.5", 80)).unwrap().0, "one");
    });
}

#[test]
fn a_client_stays_with_its_endpoint_while_it_is_one() {
    on_a_machine(|machine| {
        let pods = ["one", "two", "three"].map(|name| machine.web_pod(name));
        let client = machine.pod("client");
        let all: Vec<&Pod> = pods.iter().collect();
        let mut proxy = machine.proxy();
        proxy.apply(&[web_service(json!({"sessionAffinity": "ClientIP"})), web_slice(&all)]);
        let only = |answers: Vec<(String, String)>| {
            let names: BTreeSet<String> = answers.into_iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), 1, "{names:?}");
            names.into_iter().next().unwrap()
        };
        let first = only(ask_many(&client.namespace, at("10.96.0.5", 80), 12));
        // At another address it chooses anew, and stays as well.
        let at_node = only(ask_many(&client.namespace, at(NODE, 30008), 6));
        // Also when the proxy starts anew.
        drop(proxy);
        let mut proxy = machine.proxy();
        proxy.apply(&[web_service(json!({"sessionAffinity": "ClientIP"})), web_slice(&all)]);
        assert_eq!(only(ask_many(&client.namespace, at("10.96.0.5", 80), 12)), first);
        assert_eq!(only(ask_many(&client.namespace, at(NODE, 30008), 6)), at_node);
        // When it is gone, with another one.
        let rest: Vec<&Pod> = pods.iter().filter(|pod| pod.name != first).collect();
        proxy.apply(&[web_slice(&rest)]);
        let second = only(ask_many(&client.namespace, at("10.96.0.5", 80), 12));
        assert_ne!(second, first);
        // When it comes back, still with the other.
        proxy.apply(&[web_slice(&all)]);
        assert_eq!(only(ask_many(&client.namespace, at("10.96.0.5", 80), 12)), second);
        // Other clients choose for themselves: sixteen alike would be a chance of one in 3^15.
        let others: BTreeSet<String> = (0..16)
            .map(|n| {
                let pod = machine.pod(&format!("other{n}"));
                ask(&pod.namespace, at("10.96.0.5", 80)).unwrap().0
            })
            .collect();
        assert!(others.len() > 1);
    });
}

#[test]
fn the_local_policy_keeps_the_source_and_the_node() {
    on_a_machine(|machine| {
        let (here, there) = (machine.web_pod("here"), machine.web_pod("there"));
        let client = machine.pod("client");
        let mut proxy = machine.proxy();
        let both = |proxy: &mut Proxy, local: &Pod, remote: &Pod| {
            let endpoints =
                json!([endpoint(&local.ip.to_string(), cluster::NODE), endpoint(&remote.ip.to_string(), "elsewhere")]);
            proxy.apply(&[slice("web-1", "web", endpoints, json!([{"port": 8080}]))]);
        };
        proxy.apply(&[web_service(json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}))]);
        both(&mut proxy, &here, &there);
        // From outside: only the endpoint of this node, which sees the client.
        let answers = ask_many(&machine.outside, at(NODE, 30008), 12);
        assert!(answers.iter().all(|(name, from)| name == "here" && from == OUTSIDE), "{answers:?}");
        // From a pod or the node at the node port: any endpoint.
        for namespace in [&client.namespace, &node()] {
            let names: BTreeSet<String> = ask_many(namespace, at(NODE, 30008), 40).into_iter().map(|a| a.0).collect();
            assert_eq!(names.len(), 2);
        }
        // At the cluster IP: only the endpoint of this node.
        let answers = ask_many(&client.namespace, at("10.96.0.5", 80), 12);
        assert!(answers.iter().all(|(name, _)| name == "here"), "{answers:?}");

        // Without one on this node, packets from outside vanish, but pods still reach the others.
        proxy.apply(&[slice(
            "web-1",
            "web",
            json!([endpoint(&there.ip.to_string(), "elsewhere")]),
            json!([{"port": 8080}]),
        )]);
        assert_eq!(ask_in_vain(&machine.outside, at(NODE, 30008)), ErrorKind::TimedOut);
        assert_eq!(ask(&client.namespace, at(NODE, 30008)).unwrap().0, "there");
        assert_eq!(ask_in_vain(&client.namespace, at("10.96.0.5", 80)), ErrorKind::TimedOut);
    });
}

#[test]
fn external_and_load_balancer_addresses_lead_in() {
    on_a_machine(|machine| {
        let one = machine.web_pod("one");
        let mut proxy = machine.proxy();
        let mut web = web_service(json!({
            "type": "LoadBalancer", "externalIPs": ["198.51.100.1"], "loadBalancerSourceRanges": [format!("{OUTSIDE}/32")]
        }));
        web["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}});
        proxy.apply(&[web.clone(), web_slice(&[&one])]);
        machine.route_outside("198.51.100.0/24");
        assert_eq!(ask(&machine.outside, at("198.51.100.1", 80)).unwrap().0, "one");
        assert_eq!(ask(&machine.outside, at("198.51.100.7", 80)).unwrap().0, "one");
        // For others only the load balancer's address is closed.
        web["spec"]["loadBalancerSourceRanges"] = json!(["203.0.113.0/24"]);
        proxy.apply(&[web.clone()]);
        assert_eq!(ask(&machine.outside, at("198.51.100.1", 80)).unwrap().0, "one");
        assert_eq!(ask_in_vain(&machine.outside, at("198.51.100.7", 80)), ErrorKind::TimedOut);
        web["spec"]["loadBalancerSourceRanges"] = json!([]);
        proxy.apply(&[web]);
        assert_eq!(ask(&machine.outside, at("198.51.100.7", 80)).unwrap().0, "one");
    });
}

#[test]
fn an_external_ip_that_is_the_nodes_takes_no_node_port() {
    on_a_machine(|machine| {
        let (one, two) = (machine.web_pod("one"), machine.web_pod("two"));
        let mut proxy = machine.proxy();
        let spec =
            json!({"clusterIP": "10.96.0.4", "externalIPs": [NODE], "ports": [{"port": 30008}, {"port": 30009}]});
        let endpoints = json!([endpoint(&two.ip.to_string(), cluster::NODE)]);
        let evil = slice("evil-1", "evil", endpoints, json!([{"port": 8080}]));
        proxy.apply(&[service("evil", spec), evil, web_service(json!({})), web_slice(&[&one])]);
        assert_eq!(ask(&machine.outside, at(NODE, 30008)).unwrap().0, "one");
        // Nor while the other has no endpoints.
        proxy.apply(&[web_slice(&[])]);
        assert_eq!(ask(&machine.outside, at(NODE, 30008)), Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn udp_clients_are_moved_from_endpoints_that_are_gone() {
    on_a_machine(|machine| {
        let [one, two, client] = ["one", "two", "client"].map(|name| machine.pod(name));
        let patience = Some(Duration::from_secs(5));
        let [on_one, on_two] = [&one, &two].map(|pod| {
            let socket = pod.namespace.run(|| UdpSocket::bind("0.0.0.0:10053").unwrap()).unwrap();
            socket.set_read_timeout(patience).unwrap();
            socket
        });
        let dns = service("dns", json!({"clusterIP": "10.96.0.10", "ports": [{"port": 53, "protocol": "UDP"}]}));
        let endpoints = |pod: &Pod| {
            let endpoints = json!([endpoint(&pod.ip.to_string(), cluster::NODE)]);
            slice("dns-1", "dns", endpoints, json!([{"port": 10053, "protocol": "UDP"}]))
        };
        let mut proxy = machine.proxy();
        proxy.apply(&[dns, endpoints(&one)]);
        // The same socket all the time, so it is one flow.
        let socket = client.namespace.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        socket.set_read_timeout(patience).unwrap();
        socket.send_to(b"1", "10.96.0.10:53").unwrap();
        on_one.recv_from(&mut [0; 8]).unwrap();
        proxy.apply(&[endpoints(&two)]);
        socket.send_to(b"2", "10.96.0.10:53").unwrap();
        let (_, from) = on_two.recv_from(&mut [0; 8]).unwrap();
        on_two.send_to(b"answer", from).unwrap();
        assert_eq!(socket.recv_from(&mut [0; 8]).unwrap().1, at("10.96.0.10", 53));
    });
}

#[test]
fn writing_everything_anew_drops_no_connection() {
    while_clients_ask(&[], |machine, objects| machine.proxy().apply(objects));
}

/// Base chains of a table that is replaced are not exchanged at one moment by the kernel: a new connection may be refused then,
/// and works when it is tried again.
#[test]
fn replacing_a_table_that_cannot_be_taken_over_drops_no_connection_for_long() {
    let refused = [ErrorKind::ConnectionRefused];
    while_clients_ask(&refused, |machine, objects| machine.proxy().apply_to_a_spoilt_table(objects));
}

/// Changes the rules many times while connections are made; `passing`: errors that may be seen once, but not twice in a row.
fn while_clients_ask(passing: &[ErrorKind], change: impl Fn(&Machine, &[Value]) + Sync) {
    on_a_machine(|machine| {
        let one = machine.web_pod("one");
        let client = machine.pod("client");
        let objects = [web_service(json!({})), web_slice(&[&one])];
        machine.proxy().apply(&objects);
        let (done, node) = (AtomicBool::new(false), node());
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let (mut asked, mut failed) = (0, false);
                while !done.load(Ordering::Relaxed) || asked < 50 {
                    failed = match ask(&client.namespace, at("10.96.0.5", 80)) {
                        Ok(_) => false,
                        Err(e) if !failed && passing.contains(&e) => true,
                        Err(e) => panic!("after {asked} answers: {e:?}"),
                    };
                    asked += 1;
                }
            });
            node.run(|| {
                for _ in 0..20 {
                    change(machine, &objects);
                }
            })
            .unwrap();
            done.store(true, Ordering::Relaxed);
            asking.join().unwrap();
        });
    });
}

#[test]
fn the_kernel_has_what_the_rule_set_says() {
    on_a_machine(|machine| {
        let mut proxy = machine.proxy();
        let many: Vec<Value> = (0..500u16)
            .flat_map(|n| {
                let (name, sticky) = (format!("s{n}"), n % 3 == 0);
                let endpoints: Value = (0..n % 7).map(|e| endpoint(&format!("10.9.{}.{}", n % 250, e), "elsewhere")).collect();
                let spec = json!({
                    "clusterIP": format!("10.96.{}.{}", n / 250, n % 250), "sessionAffinity": if sticky { "ClientIP" } else { "None" },
                    "ports": [{"port": 80, "nodePort": 31_000 + n}], "externalTrafficPolicy": if n % 2 == 0 { "Local" } else { "Cluster" },
                });
                [service(&name, spec), slice(&name, &name, endpoints, json!([{"port": 8080}]))]
            })
            .collect();
        proxy.apply(&many);
        proxy.check();
        // And after changes.
        for n in 0..20u16 {
            let name = format!("s{n}");
            proxy.apply(&[slice(&name, &name, json!([endpoint("10.9.9.9", "here")]), json!([{"port": 8080}]))]);
        }
        proxy.check();
        drop(proxy);
        // A start finds the same and more, and leaves only what it should.
        let mut proxy = machine.proxy();
        proxy.apply(&many[..40]);
        proxy.check();
    });
}

#[test]
fn ipv6_services_answer_too() {
    on_a_machine(|machine| {
        let server: IpAddr = "fd00:1::2".parse().unwrap();
        machine.own_addresses(&[server]);
        serve(&node(), "[fd00:1::2]:8080", "six");
        let mut proxy = machine.proxy_of(Family::Ip6);
        let mut slice = slice("web-6", "web", json!([endpoint("fd00:1::2", cluster::NODE)]), json!([{"port": 8080}]));
        slice["addressType"] = json!("IPv6");
        for sticky in ["None", "ClientIP"] {
            let spec = json!({
                "clusterIP": "fd00:96::5", "clusterIPs": ["fd00:96::5"], "sessionAffinity": sticky,
                "externalTrafficPolicy": "Local", "ports": [{"port": 80, "nodePort": 30008}],
            });
            proxy.apply(&[service("web", spec), slice.clone()]);
            for _ in 0..3 {
                assert_eq!(ask(&node(), at("fd00:96::5", 80)).unwrap().0, "six");
            }
            assert_eq!(ask(&node(), at("fd00:1::2", 30008)).unwrap().0, "six");
        }
        proxy.check();
    });
}

#[test]
fn nft_shows_the_tables_as_they_are() {
    on_a_machine(|machine| {
        for (family, endpoint_ip, cluster_ip) in
            [(Family::Ip, "10.1.0.2", "10.96.0.5"), (Family::Ip6, "fd00:1::2", "fd00:96::5")]
        {
            let mut proxy = machine.proxy_of(family);
            let mut slice =
                slice("web-1", "web", json!([endpoint(endpoint_ip, cluster::NODE)]), json!([{"port": 8080}]));
            slice["addressType"] = json!(if family == Family::Ip { "IPv4" } else { "IPv6" });
            for (sticky, policy) in
                [("None", "Cluster"), ("ClientIP", "Cluster"), ("None", "Local"), ("ClientIP", "Local")]
            {
                let mut web = service(
                    "web",
                    json!({
                        "clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "sessionAffinity": sticky,
                        "ports": [{"port": 80, "nodePort": 30008}, {"name": "none", "port": 81, "nodePort": 30009}],
                        "internalTrafficPolicy": policy, "externalTrafficPolicy": policy, "loadBalancerSourceRanges": ["192.0.2.0/24", "fd00::/16"],
                    }),
                );
                let balancer = if family == Family::Ip { "198.51.100.7" } else { "fd00:2::7" };
                web["status"] = json!({"loadBalancer": {"ingress": [{"ip": balancer}]}});
                proxy.apply(&[web, slice.clone()]);
            }
        }
        let shown = std::process::Command::new("nft").args(["list", "ruleset"]).output().expect("the package nftables");
        let complaints = String::from_utf8_lossy(&shown.stderr);
        assert!(shown.status.success() && complaints.is_empty(), "{complaints}");
        let text = String::from_utf8_lossy(&shown.stdout);
        for rule in [
            "ip daddr . meta l4proto . th dport vmap @services",
            "ip6 daddr . meta l4proto . th dport vmap @services",
            "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @endpoints",
            "meta l4proto . ct original proto-dst vmap @sticky-node-ports",
        ] {
            assert!(text.contains(rule), "{rule}\n{text}");
        }
    });
}

#[test]
fn reset_takes_only_the_own_tables() {
    on_a_machine(|machine| {
        let mut proxy = machine.proxy();
        proxy.apply(&[web_service(json!({}))]);
        let before = tables();
        assert!(before.contains(&format!("{CLUSTER}-services")));
        kernel::reset("another").unwrap();
        assert_eq!(tables(), before);
        kernel::reset(CLUSTER).unwrap();
        kernel::reset(CLUSTER).unwrap();
        assert_eq!(tables(), [format!("{CLUSTER}-pods")]);
    });
}

fn tables() -> Vec<String> {
    Nft::open().unwrap().tables().unwrap().into_iter().map(|(table, _)| table.name).collect()
}
