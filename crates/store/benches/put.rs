//! Durable puts of 1 KiB through the trait: rate, latency and CPU with 1, 64 and 256 writers; reading back; starting.
//!
//! `cargo bench -p pilothouse-store --bench put [-- SECONDS [DIRECTORY]]`. The directory's disk is what is measured: a
//! memory file system would flatter. CPU is of the whole process, the writers' tasks included.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use store::embedded::Options;
use store::{Embedded, Error, KeyRange, Op, Range, Store, Txn, Watch};

const VALUE: usize = 1024;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let seconds = arguments.next().and_then(|word| word.parse().ok()).unwrap_or(3.0);
    let parent = arguments.next().map_or_else(|| PathBuf::from("."), PathBuf::from);
    let directory = tempfile::tempdir_in(&parent).map_err(|source| Error::Io {
        doing: "create a directory in",
        path: parent.clone(),
        source,
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| Error::Io { doing: "start a runtime for", path: parent, source })?;
    println!("durable puts of {VALUE} bytes, {seconds} s each, through the Store trait");
    println!("{:>8} {:>12} {:>10} {:>10} {:>12}", "writers", "puts/s", "p50 µs", "p99 µs", "CPU µs/put");
    for writers in [1, 64, 256] {
        let path = directory.path().join(writers.to_string());
        runtime.block_on(puts(&path, writers, Duration::from_secs_f64(seconds)))?;
    }
    runtime.block_on(watched(&directory.path().join("watched"), Duration::from_secs_f64(seconds)))?;
    runtime.block_on(start(&directory.path().join("start")))
}

fn cpu() -> Duration {
    let micros = getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0, |usage| usage.user_time().num_microseconds() + usage.system_time().num_microseconds());
    Duration::from_micros(micros as u64)
}

/// Puts for a time from many writers; the number of puts and all latencies in microseconds, sorted.
async fn drive(store: &Arc<Embedded>, writers: usize, time: Duration) -> Result<Vec<u32>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, stop) = (Arc::clone(store), Arc::clone(&stop));
            tokio::spawn(async move {
                let value = Bytes::from(vec![b'x'; VALUE]);
                let mut latencies = Vec::new();
                let mut number = writer;
                while !stop.load(Ordering::Relaxed) {
                    let key = Bytes::from(format!("/registry/pods/default/pod-{:06}", number % 10_000));
                    number += writers;
                    let begun = Instant::now();
                    store.txn(Txn::of(vec![Op::Put { key, value: value.clone(), lease: 0 }])).await?;
                    latencies.push(begun.elapsed().as_micros() as u32);
                }
                Ok::<_, Error>(latencies)
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.map_err(|_| Error::Closed)??);
    }
    latencies.sort_unstable();
    Ok(latencies)
}

async fn puts(path: &Path, writers: usize, time: Duration) -> Result<(), Error> {
    let store = Embedded::open(path, Options::default())?;
    let (begun, used) = (Instant::now(), cpu());
    let latencies = drive(&store, writers, time).await?;
    let (elapsed, used) = (begun.elapsed(), cpu() - used);
    let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).copied().unwrap_or(0);
    println!(
        "{writers:>8} {:>12.0} {:>10} {:>10} {:>12.2}",
        latencies.len() as f64 / elapsed.as_secs_f64(),
        at(0.5),
        at(0.99),
        used.as_secs_f64() * 1e6 / latencies.len() as f64,
    );
    Ok(())
}

/// The same with 64 writers and ten watchers of everything.
async fn watched(path: &Path, time: Duration) -> Result<(), Error> {
    let store = Embedded::open(path, Options::default())?;
    let mut watchers = Vec::new();
    for _ in 0..10 {
        let mut stream = store.watch(Watch::of(KeyRange::all(), 0)).await?;
        watchers.push(tokio::spawn(async move {
            let mut events = 0;
            while let Some(Ok(batch)) = stream.next().await {
                events += batch.events.len();
            }
            events
        }));
    }
    let (begun, used) = (Instant::now(), cpu());
    let puts = drive(&store, 64, time).await?.len();
    let (elapsed, used) = (begun.elapsed(), cpu() - used);
    store.close();
    let mut events = 0;
    for watcher in watchers {
        events += watcher.await.unwrap_or(0);
    }
    println!(
        "64 writers, 10 watchers of all: {:.0} puts/s, {:.0} events/s, {:.2} µs CPU a put",
        puts as f64 / elapsed.as_secs_f64(),
        events as f64 / elapsed.as_secs_f64(),
        used.as_secs_f64() * 1e6 / puts as f64,
    );
    Ok(())
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("unknown").trim().to_owned()
}

/// A start with many objects, and a list of all of them.
async fn start(path: &Path) -> Result<(), Error> {
    const OBJECTS: usize = 150_000;
    let store = Embedded::open(path, Options::default())?;
    let value = Bytes::from(vec![b'x'; VALUE]);
    for chunk in 0..OBJECTS / 100 {
        let put = |number: usize| Op::Put {
            key: Bytes::from(format!("/registry/pods/namespace-{:03}/pod-{number:06}", number % 500)),
            value: value.clone(),
            lease: 0,
        };
        store.txn(Txn::of((0..100).map(|number| put(chunk * 100 + number)).collect())).await?;
    }
    store.maintain().await?;
    store.close();
    drop(store);
    let begun = Instant::now();
    let store = Embedded::open(path, Options::default())?;
    let opened = begun.elapsed();
    let resident = resident();
    let begun = Instant::now();
    let mut range = Range::of(KeyRange::all()).limit(5000);
    let mut read = 0;
    loop {
        let result = store.range(range.clone()).await?;
        read += result.kvs.len();
        let Some(last) = result.kvs.last().filter(|_| result.more) else { break };
        range.keys.start = [&last.key[..], &[0]].concat().into();
        range.revision = result.revision;
    }
    println!(
        "{OBJECTS} objects: open {:.0} ms (process resident {resident}), read all {read} in {:.0} ms",
        opened.as_secs_f64() * 1e3,
        begun.elapsed().as_secs_f64() * 1e3,
    );
    Ok(())
}
