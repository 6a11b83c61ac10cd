//! Durable puts of 1 KiB by 64 writers through one gRPC client, on the etcd face and on real etcd in one run: rate, latency
//! and the server's CPU for each put, which must be a third of etcd's.
//!
//! `cargo bench -p pilothouse-store --bench face [-- SECONDS [DIRECTORY]]`. Both serve on a unix socket and sync to the
//! directory's disk; they are measured in turn, twice, as the machine's speed changes. Needs Debian's `etcd-server`.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use store::embedded::Options;
use store::face::{Address, Listener};
use store::{Embedded, Etcd, Op, Store, Txn, etcd, face};

type Fallible<T> = Result<T, Box<dyn Error>>;

const VALUE: usize = 1024;
const WRITERS: usize = 64;
const MUST: f64 = 1.0 / 3.0;

fn main() -> Fallible<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let first = arguments.next();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if first.as_deref() == Some("serve") {
        let directory = PathBuf::from(arguments.next().ok_or("serve what?")?);
        return runtime.block_on(serve(&directory));
    }
    let time = Duration::from_secs_f64(first.and_then(|word| word.parse().ok()).unwrap_or(5.0));
    let parent = arguments.next().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let directory = tempfile::tempdir_in(&parent)?;
    println!("durable puts of {VALUE} bytes, {WRITERS} writers on one connection, {} s each", time.as_secs_f64());
    println!("{:>14} {:>10} {:>10} {:>10} {:>16}", "server", "puts/s", "p50 µs", "p99 µs", "server CPU µs");
    let mut used = [0.0; 2];
    for round in 0..2 {
        for (at, ours) in [true, false].into_iter().enumerate() {
            let place = directory.path().join(format!("{round}{at}"));
            std::fs::create_dir(&place)?;
            let place = place.canonicalize()?;
            let mut server = Server::start(&place, ours)?;
            used[at] += runtime.block_on(measure(&mut server, ours, time))? / 2.0;
        }
    }
    let ratio = used[0] / used[1];
    println!("server CPU, face to etcd: {:.2} to {:.2} µs: {ratio:.2} (must: {MUST:.2}, aim: 0.20)", used[0], used[1]);
    Ok(())
}

async fn serve(directory: &Path) -> Fallible<()> {
    let store = Embedded::open(directory.join("store"), Options::default())?;
    let listener = Listener::bind(&Address::Unix(directory.join("socket:1")), None).await?;
    face::serve(store, listener, std::future::pending()).await?;
    Ok(())
}

struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    fn start(place: &Path, ours: bool) -> Fallible<Self> {
        let mut command = if ours {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("serve").arg(place);
            command
        } else {
            let mut command = Command::new("/usr/bin/etcd");
            command.args(["--data-dir", "data", "--log-level", "error"]);
            command.args(["--listen-client-urls", "unix://socket:1", "--advertise-client-urls", "unix://socket:1"]);
            command.args(["--listen-peer-urls", "unix://peer:1", "--initial-advertise-peer-urls", "unix://peer:1"]);
            command.args(["--initial-cluster", "default=unix://peer:1"]);
            command
        };
        let child = command.current_dir(place).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self { child: child.map_err(|error| format!("a server: {error}"))?, socket: place.join("socket:1") })
    }

    /// Ticks of the processor that it has used, as microseconds.
    fn cpu(&self) -> Fallible<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, rest) = stat.rsplit_once(')').ok_or("no stat")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        // Linux tells all programs a hundredth of a second.
        Ok(ticks * 10_000.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn measure(server: &mut Server, ours: bool, time: Duration) -> Fallible<f64> {
    let url = format!("unix://{}", server.socket.display());
    let options = etcd::Options { compaction_interval: None, ..etcd::Options::parse(&url, None, None, None)? };
    let client = Etcd::connect(options).await?;
    drive(&client, time / 5).await?;
    let (begun, before) = (Instant::now(), server.cpu()?);
    let latencies = drive(&client, time).await?;
    let (elapsed, used) = (begun.elapsed(), server.cpu()? - before);
    let each = used / latencies.len() as f64;
    let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).copied().unwrap_or(0);
    println!(
        "{:>14} {:>10.0} {:>10} {:>10} {each:>16.2}",
        if ours { "face" } else { "etcd" },
        latencies.len() as f64 / elapsed.as_secs_f64(),
        at(0.5),
        at(0.99),
    );
    Ok(each)
}

/// Puts for a time from many writers; all latencies in microseconds, sorted.
async fn drive(client: &Arc<Etcd>, time: Duration) -> Fallible<Vec<u32>> {
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (client, stop) = (Arc::clone(client), Arc::clone(&stop));
            tokio::spawn(async move {
                let value = Bytes::from(vec![b'x'; VALUE]);
                let mut latencies = Vec::new();
                let mut number = writer;
                while !stop.load(Ordering::Relaxed) {
                    let key = Bytes::from(format!("/registry/pods/default/pod-{:06}", number % 10_000));
                    number += WRITERS;
                    let begun = Instant::now();
                    client.txn(Txn::of(vec![Op::Put { key, value: value.clone(), lease: 0 }])).await?;
                    latencies.push(begun.elapsed().as_micros() as u32);
                }
                Ok::<_, store::Error>(latencies)
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    latencies.sort_unstable();
    Ok(latencies)
}
