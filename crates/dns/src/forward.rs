//! Questions about other names: asked of the resolvers of the node, as they came.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::cache::Cache;
use crate::message::{Request, Transport};
use crate::resolv_conf;

/// How long one resolver may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long all attempts for one question may take.
const LONGEST: Duration = Duration::from_secs(5);
/// How many questions can be under way at the same time.
const MOST_AT_ONCE: usize = 1000;
/// How long `resolv.conf` is taken to be as it was.
const CHECK_EVERY: Duration = Duration::from_secs(5);

const HEADER: usize = 12;

/// Who is asked about names that are not the cluster's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstreams {
    /// The name servers of this file, read again when it changes.
    File(PathBuf),
    /// These.
    Servers(Vec<SocketAddr>),
}

impl Default for Upstreams {
    fn default() -> Self {
        Upstreams::File("/etc/resolv.conf".into())
    }
}

/// Asks other resolvers and keeps their answers for a while.
pub struct Forwarder {
    upstreams: Upstreams,
    /// Addresses that this server itself answers at.
    own: Vec<SocketAddr>,
    servers: Mutex<Servers>,
    /// The server that answered last; it is asked first.
    preferred: AtomicUsize,
    cache: Mutex<Cache>,
    under_way: Semaphore,
    random: RandomState,
}

/// The servers that a file named when it was last looked at.
#[derive(Default)]
struct Servers {
    list: Vec<SocketAddr>,
    modified: Option<SystemTime>,
    checked: Option<Instant>,
}

/// No resolver answered.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// There is nobody to ask.
    #[error("no resolver is configured")]
    NoServer,
    /// Too many questions are under way.
    #[error("{MOST_AT_ONCE} questions are being asked already")]
    Busy,
    /// Nobody answered in time.
    #[error("no resolver answered")]
    NoAnswer,
}

impl Forwarder {
    /// A forwarder for a server that listens on `own`.
    pub fn new(upstreams: Upstreams, own: Vec<SocketAddr>) -> Self {
        Self {
            upstreams,
            own,
            servers: Mutex::default(),
            preferred: AtomicUsize::new(0),
            cache: Mutex::default(),
            under_way: Semaphore::new(MOST_AT_ONCE),
            random: RandomState::new(),
        }
    }

    /// Has a question answered. The answer has the question's id, and is cut short when it is too long for
    /// the client.
    pub async fn ask(&self, request: &Request, question: &[u8], transport: Transport) -> Result<Vec<u8>, ForwardError> {
        let key = key(request, question);
        let kept = lock(&self.cache).get(&key, Instant::now());
        let mut answer = match kept {
            Some(answer) => answer,
            None => {
                let _permit = self.under_way.try_acquire().map_err(|_| ForwardError::Busy)?;
                let answer = self.ask_servers(question, transport).await?;
                lock(&self.cache).put(key, &answer, Instant::now());
                answer
            }
        };
        if answer.len() > usize::from(request.limit) {
            return Ok(request.truncated());
        }
        answer[..2].copy_from_slice(&request.metadata.id.to_be_bytes());
        // Clients compare the question with theirs, some with its upper and lower case.
        let end = question_end(question).filter(|end| answer.len() >= *end && question_end(&answer) == Some(*end));
        if let Some(end) = end {
            answer[HEADER..end].copy_from_slice(&question[HEADER..end]);
        }
        Ok(answer)
    }

    async fn ask_servers(&self, question: &[u8], transport: Transport) -> Result<Vec<u8>, ForwardError> {
        let servers = self.servers();
        if servers.is_empty() {
            return Err(ForwardError::NoServer);
        }
        let first = self.preferred.load(Ordering::Relaxed);
        let attempts = async {
            // Twice round: a datagram can get lost.
            for attempt in first..first + servers.len() * 2 {
                let index = attempt % servers.len();
                match timeout(PATIENCE, self.ask_one(servers[index], question, transport)).await {
                    Ok(Ok(answer)) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Some(answer);
                    }
                    Ok(Err(error)) => tracing::debug!(server = %servers[index], %error, "a resolver failed"),
                    Err(_) => tracing::debug!(server = %servers[index], "a resolver did not answer"),
                }
            }
            None
        };
        timeout(LONGEST, attempts).await.ok().flatten().ok_or(ForwardError::NoAnswer)
    }

    /// Asks under an id and from a port that others cannot guess.
    async fn ask_one(&self, server: SocketAddr, question: &[u8], transport: Transport) -> std::io::Result<Vec<u8>> {
        let mut question = question.to_vec();
        let id = (self.random.hash_one(Instant::now()) as u16).to_be_bytes();
        question[..2].copy_from_slice(&id);
        match transport {
            Transport::Udp => ask_udp(server, &question).await,
            Transport::Tcp => ask_tcp(server, &question).await,
        }
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let path = match &self.upstreams {
            Upstreams::Servers(servers) => return servers.clone(),
            Upstreams::File(path) => path,
        };
        let mut servers = lock(&self.servers);
        if servers.checked.is_none_or(|checked| checked.elapsed() > CHECK_EVERY) {
            servers.checked = Some(Instant::now());
            let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
            if modified != servers.modified || modified.is_none() {
                let text = std::fs::read_to_string(path).unwrap_or_else(|error| {
                    tracing::warn!(?path, %error, "cannot read which resolvers to ask");
                    String::new()
                });
                servers.list = resolv_conf::parse(&text, &self.own);
                servers.modified = modified;
            }
        }
        servers.list.clone()
    }
}

async fn ask_udp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if is_answer(question, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if is_answer(question, &answer) { Ok(answer) } else { Err(std::io::Error::other("an answer to something else")) }
}

/// Whether it answers this question: the same id, and the same question if any (errors may leave it out).
fn is_answer(question: &[u8], answer: &[u8]) -> bool {
    let Some(header) = answer.get(..HEADER) else { return false };
    if header[2] & 0x80 == 0 || header[..2] != question[..2] {
        return false;
    }
    let same = question_end(question).is_some_and(|end| {
        answer.get(HEADER..end).is_some_and(|asked| asked.eq_ignore_ascii_case(&question[HEADER..end]))
    });
    same || (header[4..6] == [0, 0] && header[3] & 0x0f != 0)
}

/// Where the only question of a message ends.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => return Some(at + 5).filter(|end| *end <= message.len()),
            length if length < 64 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// What answers depend on: the question without regard to case, and what the client understands.
fn key(request: &Request, question: &[u8]) -> Vec<u8> {
    let end = question_end(question).unwrap_or(question.len());
    let mut key = question[HEADER.min(end)..end].to_ascii_lowercase();
    let edns = request.edns.map_or(0, |edns| 1 | (u8::from(edns.dnssec_ok) << 1));
    let flags = u8::from(request.metadata.checking_disabled) << 2 | u8::from(request.metadata.recursion_desired) << 3;
    key.push(edns | flags);
    key
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks leaves them half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
