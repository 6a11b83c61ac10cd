//! Real questions over real sockets.

mod cluster;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use client::testing::Api;
use cluster::{namespace, service, slice, zone};
use dns::forward::Forwarder;
use dns::message::Transport;
use dns::server::{Listeners, Resolver};
use dns::{Clients, Config, Upstreams};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 9));

fn objects() -> Vec<Value> {
    let endpoints: Value = (1..=200).map(|n| json!({"addresses": [format!("10.244.0.{n}")]})).collect();
    vec![
        namespace("default"),
        service("default", "web", json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]})),
        service("default", "big", json!({"clusterIP": "None"})),
        slice("big-1", "big", endpoints, json!([{"port": 80}])),
        service("default", "outside", json!({"type": "ExternalName", "externalName": "www.example.org"})),
        service("default", "inside", json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local"})),
        service("default", "loop", json!({"type": "ExternalName", "externalName": "loop.default.svc.cluster.local"})),
    ]
}

/// A server with these records that asks `upstreams`.
async fn start(upstreams: Vec<SocketAddr>) -> SocketAddr {
    let resolver =
        Arc::new(Resolver::new(zone(), Forwarder::new(Upstreams::Servers(upstreams), vec![]), Clients::Anyone));
    resolver.update(|records| objects().iter().for_each(|object| cluster::apply(records, object)));
    resolver.set_complete();
    let listeners = Listeners::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listeners.address().unwrap();
    tokio::spawn(listeners.serve(resolver));
    address
}

fn question(name: &str, kind: &str) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(cluster::query(name, kind));
    message
}

async fn ask_bytes(server: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let length = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.unwrap().unwrap();
    buffer.truncate(length);
    buffer
}

async fn ask(server: SocketAddr, message: &Message) -> Message {
    let answer = Message::from_vec(&ask_bytes(server, &message.to_vec().unwrap()).await).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    answer
}

async fn ask_tcp(stream: &mut TcpStream, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

/// A resolver somewhere else: answers `A` questions with an address that counts how often it was asked.
struct Elsewhere {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

async fn elsewhere(respond: fn(Message, Transport) -> Option<Message>) -> Elsewhere {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            if let Some(answer) = respond(Message::from_vec(&buffer[..length]).unwrap(), Transport::Udp) {
                udp.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut question = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut question).await.unwrap();
            let answer = respond(Message::from_vec(&question).unwrap(), Transport::Tcp).unwrap().to_vec().unwrap();
            stream.write_u16(answer.len() as u16).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    Elsewhere { address, asked }
}

fn one_address(question: Message, _: Transport) -> Option<Message> {
    let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    let query = question.queries[0].clone();
    if query.query_type() == RecordType::A {
        answer.add_answer(Record::from_rdata(query.name().clone(), 60, RData::A(A::new(192, 0, 2, 80))));
    }
    answer.add_query(query);
    Some(answer)
}

fn silence(_: Message, _: Transport) -> Option<Message> {
    None
}

fn only_over_tcp(question: Message, transport: Transport) -> Option<Message> {
    let mut answer = one_address(question, transport)?;
    if transport == Transport::Udp {
        answer.answers.clear();
        answer.metadata.truncation = true;
    }
    Some(answer)
}

#[tokio::test]
async fn cluster_names_are_answered_over_udp_and_tcp() {
    let server = start(vec![]).await;
    let message = question("web.default.svc.cluster.local.", "A");
    let answer = ask(server, &message).await;
    assert_eq!(addresses(&answer), ["10.96.0.5"]);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available && answer.metadata.recursion_desired);
    assert_eq!(answer.queries, message.queries);
    let mut stream = TcpStream::connect(server).await.unwrap();
    // Several questions on one connection.
    assert_eq!(addresses(&ask_tcp(&mut stream, &message).await), ["10.96.0.5"]);
    let absent = ask_tcp(&mut stream, &question("x.default.svc.cluster.local.", "A")).await;
    assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(absent.authorities.len(), 1);
}

#[tokio::test]
async fn long_answers_are_cut_short_over_udp_only() {
    let server = start(vec![]).await;
    let mut message = question("big.default.svc.cluster.local.", "A");
    let plain = ask_bytes(server, &message.to_vec().unwrap()).await;
    assert!(plain.len() <= 512 && plain.len() > 450, "{}", plain.len());
    let plain = Message::from_vec(&plain).unwrap();
    assert!(plain.metadata.truncation && plain.answers.len() > 20);
    assert_eq!(plain.edns, None);

    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_version(0);
    message.set_edns(edns);
    let large = ask_bytes(server, &message.to_vec().unwrap()).await;
    assert!(large.len() <= 1232 && large.len() > 1150, "{}", large.len());
    let large = Message::from_vec(&large).unwrap();
    assert!(large.metadata.truncation && large.answers.len() > 60);
    assert_eq!(large.edns.unwrap().max_payload(), 1232);

    let mut stream = TcpStream::connect(server).await.unwrap();
    let whole = ask_tcp(&mut stream, &message).await;
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (200, false));
}

#[tokio::test]
async fn what_is_no_question_is_refused_or_ignored() {
    let server = start(vec![]).await;
    let code = |bytes: &[u8]| ResponseCode::from(0, bytes[3] & 0x0f);
    let good = question("web.default.svc.cluster.local.", "A").to_vec().unwrap();
    let mut update = good.clone();
    update[2] |= 5 << 3;
    assert_eq!(code(&ask_bytes(server, &update).await), ResponseCode::NotImp);
    let cut = &good[..good.len() - 2];
    assert_eq!(code(&ask_bytes(server, cut).await), ResponseCode::FormErr);
    let mut none = good[..12].to_vec();
    none[5] = 0;
    assert_eq!(code(&ask_bytes(server, &none).await), ResponseCode::FormErr);

    let mut future = question("web.default.svc.cluster.local.", "A");
    let mut edns = Edns::new();
    edns.set_version(1).set_max_payload(1232);
    future.set_edns(edns);
    const BAD_VERSION: u16 = 16;
    assert_eq!(u16::from(ask(server, &future).await.metadata.response_code), BAD_VERSION);

    // An answer is not answered, but the next question is.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    let mut answer = good.clone();
    answer[2] |= 0x80;
    socket.send(&answer).await.unwrap();
    socket.send(&[1, 2, 3]).await.unwrap();
    socket.send(&good).await.unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).await.unwrap();
    assert_eq!(Message::from_vec(&buffer[..length]).unwrap().answers.len(), 1);
}

#[tokio::test]
async fn other_names_are_asked_elsewhere_once() {
    let upstream = elsewhere(one_address).await;
    let server = start(vec![upstream.address]).await;
    let first = ask(server, &question("www.example.org.", "A")).await;
    assert_eq!((addresses(&first), first.answers[0].ttl), (vec!["192.0.2.80".to_owned()], 60));
    assert!(!first.metadata.authoritative);
    let again = ask(server, &question("WWW.Example.org.", "A")).await;
    assert_eq!(addresses(&again), ["192.0.2.80"]);
    assert_eq!(again.queries[0].name().to_string(), "WWW.Example.org.");
    assert_eq!(upstream.asked.load(Ordering::SeqCst), 1);
    ask(server, &question("www.example.com.", "A")).await;
    assert_eq!(upstream.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn external_names_come_with_their_addresses() {
    let upstream = elsewhere(one_address).await;
    let server = start(vec![upstream.address]).await;
    let outside = ask(server, &question("outside.default.svc.cluster.local.", "A")).await;
    assert_eq!(addresses(&outside), ["www.example.org.", "192.0.2.80"]);
    let inside = ask(server, &question("inside.default.svc.cluster.local.", "A")).await;
    assert_eq!(addresses(&inside), ["web.default.svc.cluster.local.", "10.96.0.5"]);
    let alias = ask(server, &question("outside.default.svc.cluster.local.", "TXT")).await;
    assert_eq!(addresses(&alias), ["www.example.org."]);
    let endless = ask(server, &question("loop.default.svc.cluster.local.", "A")).await;
    assert_eq!(endless.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn truncated_answers_are_asked_for_over_tcp() {
    let upstream = elsewhere(only_over_tcp).await;
    let server = start(vec![upstream.address]).await;
    // The client is told and comes back itself.
    let cut = ask(server, &question("www.example.org.", "A")).await;
    assert!(cut.metadata.truncation);
    let mut stream = TcpStream::connect(server).await.unwrap();
    assert_eq!(addresses(&ask_tcp(&mut stream, &question("www.example.org.", "A")).await), ["192.0.2.80"]);
    // For an external name it is done at once.
    let outside = ask(server, &question("outside.default.svc.cluster.local.", "A")).await;
    assert_eq!(addresses(&outside), ["www.example.org.", "192.0.2.80"]);
}

#[tokio::test]
async fn a_silent_resolver_is_passed_over() {
    let (silent, good) = (elsewhere(silence).await, elsewhere(one_address).await);
    let server = start(vec![silent.address, good.address]).await;
    assert_eq!(addresses(&ask(server, &question("www.example.org.", "A")).await), ["192.0.2.80"]);
    assert_eq!(silent.asked.load(Ordering::SeqCst), 1);
    // The next question goes to the one that answered.
    ask(server, &question("www.example.com.", "A")).await;
    assert_eq!(silent.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn without_resolvers_other_names_fail() {
    let server = start(vec![]).await;
    let answer = ask(server, &question("www.example.org.", "A")).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let alias = ask(server, &question("outside.default.svc.cluster.local.", "A")).await;
    assert_eq!(alias.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn the_resolvers_of_a_file_are_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let forwarder = |own| Forwarder::new(Upstreams::File(path.clone()), own);
    let resolver = |forwarder| {
        let resolver = Resolver::new(zone(), forwarder, Clients::Anyone);
        resolver.set_complete();
        resolver
    };
    let ask = async |resolver: &Resolver| {
        let message = question("www.example.org.", "A").to_vec().unwrap();
        let answer = resolver.resolve(&message, CLIENT, Transport::Udp).await.unwrap();
        Message::from_vec(&answer).unwrap().metadata.response_code
    };
    assert_eq!(ask(&resolver(forwarder(vec![]))).await, ResponseCode::ServFail);
    // Itself is never asked.
    std::fs::write(&path, "nameserver 127.0.0.1\n").unwrap();
    assert_eq!(ask(&resolver(forwarder(vec!["127.0.0.1:53".parse().unwrap()]))).await, ResponseCode::ServFail);
}

#[tokio::test]
async fn names_follow_the_api() {
    let api = Api::new(&objects());
    let (ready, mut is_ready) = watch::channel(None);
    let shutdown = CancellationToken::new();
    let config = Config {
        upstreams: Upstreams::Servers(vec![]),
        ready: Some(ready),
        ..Config::new(vec!["127.0.0.1:0".parse().unwrap()], "cluster.local")
    };
    let running = tokio::spawn(dns::run(config, api.client(), shutdown.clone()));
    let server = is_ready.wait_for(Option::is_some).await.unwrap().as_ref().unwrap()[0];
    let web = question("web.default.svc.cluster.local.", "A");
    assert_eq!(addresses(&ask(server, &web).await), ["10.96.0.5"]);

    let spec = json!({"clusterIP": "10.96.0.8", "ports": [{"port": 80}]});
    api.apply(service("default", "new", spec));
    let new = question("new.default.svc.cluster.local.", "A");
    while ask(server, &new).await.metadata.response_code != ResponseCode::NoError {}
    assert_eq!(addresses(&ask(server, &new).await), ["10.96.0.8"]);
    api.delete(service("default", "web", json!({})));
    while ask(server, &web).await.metadata.response_code == ResponseCode::NoError {}

    shutdown.cancel();
    running.await.unwrap().unwrap();
    // The port is free again.
    UdpSocket::bind(server).await.unwrap();
}

#[tokio::test]
async fn before_the_first_lists_nothing_is_said_not_to_exist() {
    let resolver = Resolver::new(zone(), Forwarder::new(Upstreams::Servers(vec![]), vec![]), Clients::Anyone);
    let message = question("web.default.svc.cluster.local.", "A").to_vec().unwrap();
    let answer = resolver.resolve(&message, CLIENT, Transport::Udp).await.unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn strangers_are_refused() {
    let clients = Clients::Within(vec![("192.0.2.0".parse().unwrap(), 24)]);
    let resolver = Resolver::new(zone(), Forwarder::new(Upstreams::Servers(vec![]), vec![]), clients);
    resolver.set_complete();
    for name in ["web.default.svc.cluster.local.", "www.example.org."] {
        let message = question(name, "A").to_vec().unwrap();
        let answer = resolver.resolve(&message, CLIENT, Transport::Udp).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::Refused);
    }
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = dns::run(Config::new(vec![address], "cluster.local"), Api::new(&[]).client(), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(error.to_string().starts_with(&format!("cluster DNS cannot listen on {address}: ")), "{error}");
    let error = dns::run(Config::new(vec![], "not..a.domain"), Api::new(&[]).client(), CancellationToken::new()).await;
    assert_eq!(error.unwrap_err().to_string(), "the cluster domain \"not..a.domain\" is not a domain name");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_messages_do_no_harm(
        noise in prop::collection::vec(any::<u8>(), 0..64),
        at in 0usize..60,
        with: u8,
        transport in prop::sample::select(vec![Transport::Udp, Transport::Tcp]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let resolver = Resolver::new(zone(), Forwarder::new(Upstreams::Servers(vec![]), vec![]), Clients::Anyone);
        resolver.update(|records| objects().iter().for_each(|object| cluster::apply(records, object)));
        resolver.set_complete();
        let mut damaged = question("big.default.svc.cluster.local.", "SRV");
        damaged.set_edns(Edns::new());
        let mut damaged = damaged.to_vec().unwrap();
        let length = damaged.len();
        damaged[at % length] = with;
        for message in [noise, damaged] {
            let answer = runtime.block_on(resolver.resolve(&message, CLIENT, transport));
            if let Some(answer) = answer {
                prop_assert!(answer[..2] == message[..2] && answer[2] & 0x80 != 0);
                prop_assert!(transport == Transport::Tcp || answer.len() <= 1232);
            }
        }
    }

    #[test]
    fn any_name_has_an_answer(labels in prop::collection::vec("[a-z0-9_-]{1,20}", 0..7), kind in prop::sample::select(vec!["A", "AAAA", "SRV", "PTR", "TXT", "ANY"])) {
        let records = cluster::records(&objects());
        for domain in ["", "svc.cluster.local", "pod.cluster.local", "in-addr.arpa", "ip6.arpa"] {
            let name = Name::from_ascii(format!("{}.{domain}.", labels.join(".")).trim_start_matches('.').replace("..", "."));
            let Ok(name) = name else { continue };
            cluster::ask(&records, &name.to_string(), kind);
        }
    }
}
