//! Listening for questions, over UDP and TCP.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::BinEncodable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::answer::{Answer, Zone, answer};
use crate::forward::Forwarder;
use crate::message::{Request, Transport, Unanswerable};
use crate::records::Records;

/// The largest question over UDP.
const LARGEST_QUESTION: usize = 4096;
/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(10);
/// How many connections there can be.
const MOST_CONNECTIONS: usize = 1024;
/// How many aliases lead to one another at most.
const LONGEST_CHAIN: usize = 8;

/// Who may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Clients {
    /// Everyone who reaches the sockets.
    #[default]
    Anyone,
    /// Those in these networks, each an address and the length of its prefix, and this machine over
    /// loopback. Others are refused, so that nobody can use the server against third parties.
    Within(Vec<(IpAddr, u8)>),
}

impl Clients {
    /// Whether a client may ask.
    pub fn include(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        match self {
            Clients::Anyone => true,
            Clients::Within(networks) => {
                client.is_loopback() || networks.iter().any(|(network, prefix)| contains(*network, *prefix, client))
            }
        }
    }
}

fn contains(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    let differs = |difference: u128, length: u8| difference.checked_shr(u32::from(length.saturating_sub(prefix)));
    let difference = match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => differs(u128::from(u32::from(a) ^ u32::from(b)), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => differs(u128::from(a) ^ u128::from(b), 128),
        _ => return false,
    };
    // Shifting out all 128 bits leaves nothing that could differ.
    difference.unwrap_or(0) == 0
}

/// What answers: shared by all sockets.
pub struct Resolver {
    zone: Zone,
    clients: Clients,
    records: RwLock<Records>,
    forwarder: Forwarder,
    /// Whether the records are complete. Before that, the absence of a name means nothing.
    complete: AtomicBool,
    turn: AtomicUsize,
}

/// What is done about a question at once.
enum Handled {
    Reply(Vec<u8>),
    /// Others have to be asked.
    Later(Box<Request>),
    Nothing,
}

impl Resolver {
    /// A resolver that knows nothing of the cluster yet.
    pub fn new(zone: Zone, forwarder: Forwarder, clients: Clients) -> Self {
        Self {
            zone,
            clients,
            records: RwLock::default(),
            forwarder,
            complete: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
        }
    }

    /// Changes the records.
    pub fn update(&self, change: impl FnOnce(&mut Records)) {
        // A change that panicked has at worst lost a record, which its next event brings back.
        change(&mut self.records.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Says that the records are complete.
    pub fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// Answers a message; nothing when it is none that wants an answer.
    pub async fn resolve(&self, message: &[u8], client: IpAddr, transport: Transport) -> Option<Vec<u8>> {
        match self.handle(message, client, transport) {
            Handled::Reply(reply) => Some(reply),
            Handled::Later(request) => Some(self.ask_elsewhere(&request, message, transport).await),
            Handled::Nothing => None,
        }
    }

    fn handle(&self, message: &[u8], client: IpAddr, transport: Transport) -> Handled {
        let request = match Request::parse(message, transport) {
            Ok(request) => request,
            Err(Unanswerable::Silence) => return Handled::Nothing,
            Err(Unanswerable::Reply(reply)) => return Handled::Reply(reply),
        };
        if !self.clients.include(client) {
            return Handled::Reply(request.fail(ResponseCode::Refused));
        }
        match self.answer(&request.query) {
            Answer::Own(_) if !self.complete.load(Ordering::Acquire) => {
                Handled::Reply(request.fail(ResponseCode::ServFail))
            }
            Answer::Own(own) => Handled::Reply(request.reply(own)),
            Answer::Refused => Handled::Reply(request.fail(ResponseCode::Refused)),
            Answer::Alias { .. } | Answer::Elsewhere => Handled::Later(Box::new(request)),
        }
    }

    fn answer(&self, query: &Query) -> Answer {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        answer(&self.zone, &self.records.read().unwrap_or_else(PoisonError::into_inner), query, turn)
    }

    async fn ask_elsewhere(&self, request: &Request, message: &[u8], transport: Transport) -> Vec<u8> {
        match self.answer(&request.query) {
            Answer::Alias { alias, target } => self.follow(request, *alias, target).await,
            _ => match self.forwarder.ask(request, message, transport).await {
                Ok(reply) => reply,
                Err(error) => {
                    tracing::debug!(name = %request.query.name(), %error, "cannot forward a question");
                    request.fail(ResponseCode::ServFail)
                }
            },
        }
    }

    /// Answers with an alias and what it stands for: the resolvers in programs do not look further.
    async fn follow(&self, request: &Request, alias: Record, mut target: Name) -> Vec<u8> {
        let mut answers = vec![alias];
        if !matches!(request.query.query_type(), RecordType::A | RecordType::AAAA) {
            return request.reply_with(ResponseCode::NoError, answers, Vec::new());
        }
        for _ in 0..LONGEST_CHAIN {
            let query = Query::query(target.clone(), request.query.query_type());
            match self.answer(&query) {
                Answer::Own(own) => {
                    answers.extend(own.answers);
                    return request.reply_with(own.code, answers, own.authorities);
                }
                Answer::Alias { alias, target: next } => {
                    answers.push(*alias);
                    target = next;
                }
                Answer::Elsewhere => {
                    let Some(found) = self.look_up(request, query).await else { break };
                    answers.extend(found.answers.into_iter().filter(is_address_or_alias));
                    return request.reply_with(found.metadata.response_code, answers, found.authorities);
                }
                Answer::Refused => break,
            }
        }
        request.fail(ResponseCode::ServFail)
    }

    /// Asks others a question of our own.
    async fn look_up(&self, request: &Request, query: Query) -> Option<Message> {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        let bytes = message.to_bytes().ok()?;
        let own = Request { metadata: message.metadata, query, limit: u16::MAX, edns: None };
        let mut answer = self.forwarder.ask(&own, &bytes, Transport::Udp).await;
        let is_truncated = |answer: &[u8]| answer.get(2).is_some_and(|flags| flags & 0x02 != 0);
        if answer.as_ref().is_ok_and(|answer| is_truncated(answer)) {
            answer = self.forwarder.ask(&own, &bytes, Transport::Tcp).await;
        }
        match answer {
            Ok(answer) => Message::from_vec(&answer).ok(),
            Err(error) => {
                tracing::debug!(name = %request.query.name(), %error, "cannot resolve an external name");
                None
            }
        }
    }
}

fn is_address_or_alias(record: &Record) -> bool {
    matches!(record.data, RData::A(_) | RData::AAAA(_) | RData::CNAME(_))
}

/// The sockets of one address.
pub struct Listeners {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Listeners {
    /// Listens on an address, for UDP and TCP alike. With port 0 both get the same free port.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let mut attempts = 0;
        loop {
            let tcp = TcpListener::bind(address).await?;
            attempts += 1;
            match UdpSocket::bind(tcp.local_addr()?).await {
                Ok(udp) => return Ok(Self { udp, tcp }),
                // Another program has the same port for UDP.
                Err(error) if address.port() == 0 && attempts < 16 => {
                    tracing::debug!(%error, "trying another port");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The address, with the port that was found.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Answers questions for ever. Dropping the future ends it, with all connections.
    pub async fn serve(self, resolver: Arc<Resolver>) {
        tokio::join!(serve_udp(Arc::new(self.udp), resolver.clone()), serve_tcp(self.tcp, resolver));
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, resolver: Arc<Resolver>) {
    let mut buffer = vec![0; LARGEST_QUESTION];
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An earlier answer found nobody; that is no concern of the next question.
            Err(error) => {
                tracing::debug!(%error, "receiving a question");
                continue;
            }
        };
        while tasks.try_join_next().is_some() {}
        match resolver.handle(&buffer[..length], client.ip(), Transport::Udp) {
            Handled::Reply(reply) => send(&socket, &reply, client).await,
            Handled::Later(request) => {
                let (socket, resolver, message) = (socket.clone(), resolver.clone(), buffer[..length].to_vec());
                tasks.spawn(async move {
                    let reply = resolver.ask_elsewhere(&request, &message, Transport::Udp).await;
                    send(&socket, &reply, client).await;
                });
            }
            Handled::Nothing => {}
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%client, %error, "sending an answer");
    }
}

async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>) {
    let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let permit = connections.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, client)) => {
                let resolver = resolver.clone();
                tasks.spawn(async move {
                    let _permit = permit;
                    if let Err(error) = serve_connection(stream, client.ip(), &resolver).await {
                        tracing::debug!(%client, %error, "a connection broke off");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: accepting at once again would only spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while tasks.try_join_next().is_some() {}
    }
}

/// Answers questions until the client closes the connection or falls silent.
async fn serve_connection(mut stream: TcpStream, client: IpAddr, resolver: &Resolver) -> std::io::Result<()> {
    loop {
        let question = async {
            let mut question = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut question).await?;
            std::io::Result::Ok(question)
        };
        let question = match timeout(IDLE, question).await {
            Ok(Ok(question)) => question,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let Some(reply) = resolver.resolve(&question, client, Transport::Tcp).await else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(std::io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &reply].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_apart_by_network() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let clients = Clients::Within(vec![(ip("10.244.0.0"), 16), (ip("192.0.2.7"), 32), (ip("fd00:1::"), 64)]);
        for inside in ["10.244.255.1", "192.0.2.7", "fd00:1::9", "127.0.0.1", "::1", "::ffff:10.244.0.9"] {
            assert!(clients.include(ip(inside)), "{inside}");
        }
        for outside in ["10.245.0.1", "192.0.2.8", "fd00:1:0:1::", "198.51.100.1"] {
            assert!(!clients.include(ip(outside)), "{outside}");
        }
        assert!(Clients::Anyone.include(ip("198.51.100.1")));
        assert!(Clients::Within(vec![(ip("::"), 0), (ip("0.0.0.0"), 0)]).include(ip("198.51.100.1")));
    }
}
