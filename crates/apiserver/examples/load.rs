//! Measures an API server by the CPU that its process takes for each operation.
//!
//! `load SERVE [PODS]` starts the example server SERVE on an empty directory, loads it with pods of about 3.4 KiB, and
//! prints a line for each kind of work: rate, p50, p99 and the server's CPU for each operation. The load's own CPU is not
//! counted.

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Sender = SendRequest<Full<Bytes>>;

const CLIENTS: usize = 64;
const CONNECTIONS: usize = 8;

/// A started server, which ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// User and system time so far.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
    }
}

#[derive(Clone)]
struct Target {
    address: String,
    tls: Arc<rustls::ClientConfig>,
}

impl Target {
    async fn connect(&self) -> Result<Sender, Failure> {
        let stream = tokio::net::TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = tokio_rustls::TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(64 << 20)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(async move {
            // It ends with the measurement.
            let _ = connection.await;
        });
        Ok(sender)
    }
}

async fn call(sender: &mut Sender, method: Method, path: &str, kind: &str, body: Bytes) -> Result<usize, Failure> {
    sender.ready().await?;
    let request = hyper::Request::builder()
        .method(method)
        .uri(format!("https://localhost{path}"))
        .header("authorization", "Bearer trial")
        .header("content-type", kind)
        .header("user-agent", "load")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let mut body = response.into_body();
    let mut size = 0;
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            size += data.len();
            if !status.is_success() {
                text.extend_from_slice(&data);
            }
        }
    }
    if status.is_success() {
        Ok(size)
    } else {
        Err(format!("{path}: {status}: {}", String::from_utf8_lossy(&text)).into())
    }
}

/// Runs `count` operations from `clients` at once and prints what they took.
async fn measure<F>(
    what: &str,
    server: &Server,
    senders: &[Sender],
    clients: usize,
    count: usize,
    make: F,
) -> Result<(), Failure>
where
    F: Fn(usize) -> (Method, String, &'static str, Bytes) + Send + Sync + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let make = Arc::new(make);
    let (began, cpu) = (Instant::now(), server.cpu());
    let tasks = (0..clients).map(|client| {
        let (next, make, mut sender) = (next.clone(), make.clone(), senders[client % senders.len()].clone());
        tokio::spawn(async move {
            let mut took = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return Ok::<_, Failure>(took);
                }
                let (method, path, kind, body) = make(i);
                let began = Instant::now();
                call(&mut sender, method, &path, kind, body).await?;
                took.push(began.elapsed());
            }
        })
    });
    let mut took = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        took.extend(task.await??);
    }
    let (elapsed, cpu) = (began.elapsed(), server.cpu().saturating_sub(cpu));
    took.sort();
    let at = |part: usize| took[(took.len() * part / 1000).min(took.len() - 1)];
    report(what, count, elapsed, at(500), at(990), cpu, server);
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the measurement's result")]
fn report(what: &str, count: usize, elapsed: Duration, p50: Duration, p99: Duration, cpu: Duration, server: &Server) {
    println!(
        "{what:<40} {count:>7} × {:>9.0}/s  p50 {:>9.2?} p99 {:>9.2?}  server CPU {:>9.1} µs each  {} MiB",
        count as f64 / elapsed.as_secs_f64(),
        p50,
        p99,
        cpu.as_secs_f64() * 1e6 / count as f64,
        server.resident()
    );
}

fn pod(i: usize) -> String {
    let env: Vec<String> =
        (0..24).map(|n| format!(r#"{{"name":"VARIABLE_{n}","value":"value number {n} of the pod {i}"}}"#)).collect();
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"pod-{i:06}","namespace":"ns-{}","labels":{{"app":"app-{}","tier":"backend","pod-template-hash":"5d59d67564"}},"annotations":{{"example.com/checksum":"0123456789abcdef0123456789abcdef"}}}},"spec":{{"nodeName":"node-{}","serviceAccountName":"default","containers":[{{"name":"main","image":"registry.example.com/team/application:1.2.3","ports":[{{"containerPort":8080,"name":"http"}}],"resources":{{"limits":{{"cpu":"1","memory":"1Gi"}},"requests":{{"cpu":"250m","memory":"256Mi"}}}},"env":[{}],"livenessProbe":{{"httpGet":{{"path":"/healthz","port":8080}}}},"volumeMounts":[{{"name":"config","mountPath":"/etc/config"}}]}}],"volumes":[{{"name":"config","configMap":{{"name":"config"}}}}],"tolerations":[{{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}]}}}}"#,
        i % 10,
        i % 100,
        i % 500,
        env.join(",")
    )
}

const JSON: &str = "application/json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn path_of(i: usize) -> String {
    format!("/api/v1/namespaces/ns-{}/pods/pod-{i:06}", i % 10)
}

async fn watchers(
    target: &Target,
    server: &Server,
    senders: &[Sender],
    watchers: usize,
    changes: usize,
) -> Result<(), Failure> {
    let seen = Arc::new(AtomicU64::new(0));
    let began_at = Arc::new(AtomicU64::new(0));
    let mut connections = Vec::new();
    for _ in 0..30.min(watchers) {
        connections.push(target.connect().await?);
    }
    let before = server.resident();
    for watcher in 0..watchers {
        let mut sender = connections[watcher % connections.len()].clone();
        let (seen, began_at) = (seen.clone(), began_at.clone());
        sender.ready().await?;
        let request = hyper::Request::builder()
            .uri("https://localhost/api/v1/pods?watch=true&resourceVersion=0&sendInitialEvents=false&resourceVersionMatch=NotOlderThan")
            .header("authorization", "Bearer trial")
            .body(Full::new(Bytes::new()))?;
        let response = sender.send_request(request).await?;
        tokio::spawn(async move {
            let mut body = response.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(data) = frame.into_data() {
                    let lines = memchr::memchr_iter(b'\n', &data).count() as u64;
                    seen.fetch_add(lines, Ordering::Relaxed);
                }
            }
            began_at.fetch_add(1, Ordering::Relaxed);
        });
    }
    let (began, cpu) = (Instant::now(), server.cpu());
    let next = Arc::new(AtomicUsize::new(0));
    let tasks = (0..8).map(|client| {
        let (next, mut sender) = (next.clone(), senders[client % senders.len()].clone());
        tokio::spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= changes {
                    return Ok::<_, Failure>(());
                }
                let body = format!(r#"{{"metadata":{{"labels":{{"change":"{i}-of-{watchers}"}}}}}}"#);
                call(&mut sender, Method::PATCH, &path_of(i), "application/merge-patch+json", body.into()).await?;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    let wanted = (watchers * changes) as u64;
    while seen.load(Ordering::Relaxed) < wanted {
        if began_at.load(Ordering::Relaxed) > 0 {
            return Err("a watch ended before it had seen all".into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (elapsed, cpu) = (began.elapsed(), server.cpu().saturating_sub(cpu));
    let what = format!("{watchers} watchers, {changes} patches (+{} MiB)", server.resident().saturating_sub(before));
    report(&what, wanted as usize, elapsed, Duration::ZERO, Duration::ZERO, cpu, server);
    Ok(())
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "the measurement's result")]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let binary = arguments.next().ok_or("usage: load SERVE [PODS]")?;
    let pods: usize = arguments.next().map_or(Ok(10_000), |pods| pods.parse())?;
    let directory = std::env::temp_dir().join(format!("pilothouse-load-{}", std::process::id()));
    let began = Instant::now();
    let server = Server(Command::new(&binary).arg(&directory).spawn()?);
    let result = run(&server, &directory, pods, began).await;
    drop(server);
    std::fs::remove_dir_all(&directory)?;
    result
}

async fn address(directory: &Path) -> Result<String, Failure> {
    loop {
        if let Ok(text) = std::fs::read_to_string(directory.join("kubeconfig"))
            && let Some((_, rest)) = text.split_once("https://")
            && let Some((address, _)) = rest.split_once('"')
        {
            return Ok(address.to_owned());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[allow(clippy::print_stdout, reason = "the measurement's result")]
async fn run(server: &Server, directory: &Path, pods: usize, began: Instant) -> Result<(), Failure> {
    let address = address(directory).await?;
    println!("ready in {:?}, {} MiB", began.elapsed(), server.resident());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join("ca.pem"))?)?;
    let mut tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let target = Target { address, tls: Arc::new(tls) };
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        senders.push(target.connect().await?);
    }
    measure("create pod", server, &senders, CLIENTS, pods, |i| {
        (Method::POST, format!("/api/v1/namespaces/ns-{}/pods", i % 10), JSON, pod(i).into())
    })
    .await?;
    let none = Bytes::new;
    measure("get pod", server, &senders, CLIENTS, pods * 2, move |i| (Method::GET, path_of(i % pods), JSON, none()))
        .await?;
    measure("list all, consistent", server, &senders, 2, 20, move |_| {
        (Method::GET, "/api/v1/pods".into(), JSON, none())
    })
    .await?;
    measure("list all, resourceVersion=0", server, &senders, 2, 20, move |_| {
        (Method::GET, "/api/v1/pods?resourceVersion=0".into(), JSON, none())
    })
    .await?;
    measure("list page of 500", server, &senders, 1, 200, move |_| {
        (Method::GET, "/api/v1/pods?limit=500".into(), JSON, none())
    })
    .await?;
    measure("list the pods of a node", server, &senders, 8, 5_000, move |i| {
        (Method::GET, format!("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-{}", i % 500), JSON, none())
    })
    .await?;
    measure("list by label (100 of all)", server, &senders, 8, 500, move |i| {
        (Method::GET, format!("/api/v1/pods?labelSelector=app%3Dapp-{}", i % 100), JSON, none())
    })
    .await?;
    measure("strategic patch of pod status", server, &senders, CLIENTS, pods, move |i| {
        let patch = format!(
            r#"{{"status":{{"phase":"Running","podIP":"10.0.{}.{}","conditions":[{{"type":"Ready","status":"True","lastTransitionTime":"2024-01-01T00:00:00Z"}}]}}}}"#,
            i / 250 % 250,
            i % 250
        );
        (Method::PATCH, format!("{}/status", path_of(i)), STRATEGIC, patch.into())
    })
    .await?;
    watchers(&target, server, &senders, 100, 1_000.min(pods)).await?;
    watchers(&target, server, &senders, 1_000, 1_000.min(pods)).await?;
    measure("delete pod", server, &senders, CLIENTS, pods, move |i| {
        (Method::DELETE, format!("{}?gracePeriodSeconds=0", path_of(i)), JSON, none())
    })
    .await
}
