//! How long the table takes with many services: to write, to take over, to change, and for a first packet.
//! Needs root. `cargo bench -p pilothouse-proxy`, or with a number of services: `-- 30000`.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../tests/cluster/mod.rs"]
mod cluster;
#[path = "../tests/machine/mod.rs"]
mod machine;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use cluster::{endpoint, service, slice};
use machine::*;
use serde_json::{Value, json};

const CHANGES: usize = 200;
const CONNECTIONS: usize = 2000;

fn main() {
    let count = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(30_000);
    on_a_machine(|machine| run(machine, count));
}

fn run(machine: &Machine, count: usize) {
    let pod = machine.web_pod("web");
    let client = machine.pod("client");
    let objects: Vec<Value> =
        (0..count).flat_map(|n| objects(n, &[format!("10.9.{}.{}", n / 250 % 250, n % 250)])).collect();
    let mut proxy = machine.proxy();
    report("write all", time(|| proxy.apply(&objects)));
    drop(proxy);
    let mut proxy = machine.proxy();
    report("take over all", time(|| proxy.apply(&objects)));
    proxy.apply(&self::objects(7, &[pod.ip.to_string()]));

    let mut change = |what: &str, ips: &dyn Fn(usize) -> Vec<String>| {
        let one = |n: usize| {
            let change = self::objects(count / 2, &ips(n));
            time(|| proxy.apply(&change[1..]))
        };
        report_many(what, (0..CHANGES).map(one).collect());
    };
    change("replace an endpoint", &|n| vec![format!("10.9.9.{}", n % 200)]);
    change("add or remove one", &|n| vec![pod.ip.to_string(), "10.9.9.9".to_owned()][..1 + n % 2].to_vec());

    let connect = |address: String| -> Vec<Duration> {
        let address: std::net::SocketAddr = address.parse().unwrap();
        let one = || time(|| drop(TcpStream::connect(address).unwrap()));
        client.namespace.run(|| (0..CONNECTIONS).map(|_| one()).collect()).unwrap()
    };
    report_many("connect to a pod", connect(format!("{}:8080", pod.ip)));
    report_many("connect to a service", connect(format!("{}:80", cluster_ip(7))));
}

fn cluster_ip(n: usize) -> String {
    format!("10.{}.{}.{}", 96 + n / 62_500, n / 250 % 250, n % 250)
}

fn objects(n: usize, ips: &[String]) -> Vec<Value> {
    let name = format!("service-{n}");
    let endpoints: Value = ips.iter().map(|ip| endpoint(ip, "elsewhere")).collect();
    let spec = json!({"clusterIP": cluster_ip(n), "ports": [{"port": 80}]});
    vec![service(&name, spec), slice(&name, &name, endpoints, json!([{"port": 8080}]))]
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn report(what: &str, took: Duration) {
    println!("{what:24} {took:>10.1?}");
}

fn report_many(what: &str, mut took: Vec<Duration>) {
    took.sort();
    println!("{what:24} p50 {:>10.1?}  p99 {:>10.1?}", took[took.len() / 2], took[took.len() * 99 / 100]);
}
