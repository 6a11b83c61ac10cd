//! How many questions a second one core answers, over real UDP sockets and without them.
//! `cargo bench -p pilothouse-dns`, or with a number of questions: `-- 500000`.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../tests/cluster/mod.rs"]
mod cluster;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cluster::{namespace, query, service, zone};
use dns::forward::Forwarder;
use dns::message::Transport;
use dns::server::{Listeners, Resolver};
use dns::{Clients, Upstreams};
use hickory_proto::op::Message;
use serde_json::json;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SERVICES: usize = 10_000;
/// How many questions are under way at a time.
const WINDOW: usize = 64;

fn main() {
    let count = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(300_000);
    let questions: Vec<Vec<u8>> =
        (0..1000).map(|n| question(&format!("web-{}.default.svc.cluster.local.", n * 7))).collect();
    let absent: Vec<Vec<u8>> =
        (0..1000).map(|n| question(&format!("www-{n}.example.org.default.svc.cluster.local."))).collect();
    without_sockets("answer a name", &questions, count);
    without_sockets("answer that there is none", &absent, count);
    over_udp(&questions, count);
}

fn resolver() -> Resolver {
    let resolver = Resolver::new(zone(), Forwarder::new(Upstreams::Servers(vec![]), vec![]), Clients::Anyone);
    resolver.update(|records| {
        cluster::apply(records, &namespace("default"));
        for n in 0..SERVICES {
            let spec = json!({"clusterIP": format!("10.96.{}.{}", n / 250, n % 250), "ports": [{"port": 80}]});
            cluster::apply(records, &service("default", &format!("web-{n}"), spec));
        }
    });
    resolver.set_complete();
    resolver
}

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(query(name, "A"));
    message.to_vec().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn without_sockets(what: &str, questions: &[Vec<u8>], count: usize) {
    let resolver = resolver();
    let took = runtime().block_on(async {
        let start = Instant::now();
        for question in questions.iter().cycle().take(count) {
            assert!(resolver.resolve(question, CLIENT, Transport::Udp).await.is_some());
        }
        start.elapsed()
    });
    println!("{what:28} {:>8.2} µs", took.as_secs_f64() * 1e6 / count as f64);
}

/// The server has a thread of its own, and so has the client; the server's processor time is what counts.
fn over_udp(questions: &[Vec<u8>], count: usize) {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listeners = Listeners::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
            let thread = std::fs::read_link("/proc/thread-self").unwrap();
            tell.send((listeners.address().unwrap(), thread)).unwrap();
            listeners.serve(Arc::new(resolver())).await;
        });
    });
    let (server, thread) = told.recv().unwrap();
    let cpu = || {
        let text = std::fs::read_to_string(std::path::Path::new("/proc").join(&thread).join("schedstat")).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    };
    ask(server, questions, 1000);
    let (start, cpu_start) = (Instant::now(), cpu());
    ask(server, questions, count);
    let (took, used) = (start.elapsed(), cpu() - cpu_start);
    let per_second = |time: Duration| count as f64 / time.as_secs_f64();
    println!("over UDP                     {:>8.0} questions/s", per_second(took));
    println!("                             {:>8.0} questions/s of the server's processor time", per_second(used));
}

fn ask(server: SocketAddr, questions: &[Vec<u8>], count: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut questions = questions.iter().cycle();
    let mut buffer = [0; 512];
    for sent in 0..count + WINDOW {
        if sent >= WINDOW {
            socket.recv(&mut buffer).unwrap();
        }
        if sent < count {
            socket.send(questions.next().unwrap()).unwrap();
        }
    }
}
