//! Many watches at once: what an event costs, and how late it comes.

use crate::Fallible;
use crate::client::Connections;
use crate::load::{Load, node_of};
use crate::process::Server;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http_body_util::BodyExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long may pass without any event before those that are missing count as lost.
const SILENCE: Duration = Duration::from_secs(60);
/// Patches on their way at once.
const PATCHERS: usize = 8;
/// Of so many events one is timed.
const TIMED: usize = 16;

/// What the watchers look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// All of them at all pods.
    All,
    /// Each at the pods of a node of its own.
    OfNodes,
}

#[derive(Clone, Copy, Debug)]
pub struct Watched {
    events: usize,
    patches: usize,
    cpu: Duration,
    time: Duration,
    pub p99_ms: f64,
    /// Bytes resident once all watch, and at the end.
    pub resident_watching: f64,
    pub resident: f64,
}

impl Watched {
    pub fn micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.events as f64
    }

    pub fn micros_per_patch(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.patches as f64
    }

    pub fn rate(&self) -> f64 {
        self.events as f64 / self.time.as_secs_f64()
    }
}

#[derive(Debug, Default)]
struct Seen {
    events: AtomicUsize,
    late: Mutex<Vec<Duration>>,
}

/// Opens watches, patches pods, and waits until every watch has told all that it must.
pub async fn run(
    server: &Server,
    connections: &Connections,
    load: &Load,
    view: &View,
    watchers: usize,
    patches: usize,
) -> Fallible<Watched> {
    let begun = Instant::now();
    let seen = Arc::new(Seen::default());
    let open = futures::stream::iter(0..watchers).map(|n| {
        let selector = match view {
            View::All => String::new(),
            View::OfNodes => format!("&fieldSelector=spec.nodeName%3Dnode-{n}"),
        };
        async move {
            let path = format!("/api/v1/namespaces/default/pods?watch=true{selector}&resourceVersion=");
            let at = version(connections).await?;
            let request = connections.request("GET", &format!("{path}{at}"), None, Bytes::new())?;
            let response = connections.send(request).await?;
            match response.status().as_u16() {
                200 => Ok(response.into_body()),
                code => Err::<_, Box<dyn std::error::Error + Send + Sync>>(
                    format!("a watch is answered with {code}").into(),
                ),
            }
        }
    });
    let bodies: Vec<_> = open.buffer_unordered(32).try_collect().await?;
    let mut tasks = tokio::task::JoinSet::new();
    for mut body in bodies {
        let seen = seen.clone();
        tasks.spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                if let Some(data) = frame.data_ref() {
                    seen.take(data, begun);
                }
            }
        });
    }
    let resident_watching = server.resident()?;
    let (cpu, start) = (server.cpu()?, Instant::now());
    let wanted = match view {
        View::All => watchers * patches,
        // Each pod is on a node that one watches.
        View::OfNodes => patches,
    };
    let all = futures::stream::iter(0..patches).map(|n| async move {
        debug_assert!(*view == View::All || node_of(n) < watchers);
        load.mark(n % 1_000, &format!("{}.", begun.elapsed().as_nanos())).await
    });
    all.buffer_unordered(PATCHERS).try_collect::<()>().await?;
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let now = seen.events.load(Ordering::Relaxed);
        if now >= wanted {
            break;
        }
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > SILENCE {
            return Err(format!("of {wanted} events {now} came").into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (cpu, time, resident) = (server.cpu()? - cpu, start.elapsed(), server.resident()?);
    tasks.shutdown().await;
    let mut late = std::mem::take(&mut *seen.late.lock().unwrap_or_else(PoisonError::into_inner));
    late.sort_unstable();
    let p99 = late.get(late.len() * 99 / 100).copied().unwrap_or_default();
    Ok(Watched { events: wanted, patches, cpu, time, p99_ms: p99.as_secs_f64() * 1e3, resident_watching, resident })
}

impl Seen {
    /// Counts the events of a piece of a stream (each ends in a newline), and times some of them.
    fn take(&self, data: &Bytes, begun: Instant) {
        let now = begun.elapsed();
        let ends = data.iter().filter(|byte| **byte == b'\n').count();
        let before = self.events.fetch_add(ends, Ordering::Relaxed);
        if before / TIMED == (before + ends) / TIMED {
            return;
        }
        let mark = b"\"bench\":\"";
        let Some(at) = data.windows(mark.len()).position(|w| w == mark) else { return };
        let digits = data[at + mark.len()..].split(|byte| *byte == b'.').next().unwrap_or_default();
        if let Some(then) = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()) {
            let late = now.saturating_sub(Duration::from_nanos(then));
            self.late.lock().unwrap_or_else(PoisonError::into_inner).push(late);
        }
    }
}

/// The version that the server is at.
async fn version(connections: &Connections) -> Fallible<String> {
    let request = connections.request("GET", "/api/v1/namespaces/default/pods?limit=1", None, Bytes::new())?;
    let body = connections.send(request).await?.into_body().collect().await?.to_bytes();
    let list: serde_json::Value = serde_json::from_slice(&body)?;
    Ok(list["metadata"]["resourceVersion"].as_str().ok_or("a list without a version")?.to_owned())
}
