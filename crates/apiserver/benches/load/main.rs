//! What the API server costs: `pilothouse apiserver` alone with its embedded store, as a process of its own, under the load of
//! clients over TLS and HTTP/2. Costs are the server process' CPU per operation, which does not depend on who else is busy.
//!
//! `cargo bench -p pilothouse-apiserver --bench load -- --binary FILE [--pods N] [--train | --growth DIRECTORY]`. `--growth` measures how
//! costs grow from 1,000 to 150,000 objects and from 10 to 10,000 watchers instead, and draws that into the directory.

mod client;
mod load;
mod plot;
mod process;
mod variety;
mod watchers;

use client::Connections;
use load::Load;
use process::Server;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;
use watchers::View;

type Fallible<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const CONNECTIONS: usize = 30;
/// Rounds of everything else in a training, and starts on what is there.
const VARIETY: usize = 100;
const STARTS: usize = 5;
const MIB: f64 = 1024.0 * 1024.0;

/// One line of the table.
struct Row {
    what: String,
    ours: f64,
    unit: &'static str,
    must: &'static str,
    peer: &'static str,
}

struct Table(Vec<Row>);

impl Table {
    fn add(&mut self, what: impl Into<String>, ours: f64, unit: &'static str, must: &'static str, peer: &'static str) {
        let row = Row { what: what.into(), ours, unit, must, peer };
        println!("{:<58}{:>12.1} {:<4}{:>9}  {}", row.what, row.ours, row.unit, row.must, row.peer);
        self.0.push(row);
    }
}

struct Arguments {
    pods: usize,
    /// The binary counts what runs: it is to do what a server does, and end as asked. The figures say nothing then.
    train: bool,
    /// Where the plots of how costs grow are to be drawn.
    growth: Option<PathBuf>,
    binary: PathBuf,
}

impl Arguments {
    fn read() -> Fallible<Self> {
        let (mut pods, mut train, mut growth, mut binary) = (10_000, false, None, None);
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--pods" => pods = value()?.parse()?,
                "--train" => train = true,
                "--growth" => growth = Some(value()?.into()),
                "--binary" => binary = Some(value()?.into()),
                // What cargo adds.
                "--bench" => {}
                other => return Err(format!("{other} is not understood: see the head of benches/load/main.rs").into()),
            }
        }
        let binary = binary.ok_or("--binary is missing: the pilothouse that is measured")?;
        Ok(Arguments { pods, train, growth, binary })
    }
}

fn main() -> Fallible {
    let arguments = Arguments::read()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match &arguments.growth {
            Some(plots) => growth(&arguments.binary, plots).await,
            None => table(&arguments).await,
        }
    })
}

async fn start(binary: &Path, data: &Path) -> Fallible<(Server, Connections)> {
    let server = Server::start(binary, data).await?;
    let connections = server.connections(CONNECTIONS).await?;
    Ok((server, connections))
}

/// The figures at one size.
async fn table(arguments: &Arguments) -> Fallible {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("d");
    let pods = arguments.pods;
    println!("{:<58}{:>12} {:<4}{:>9}  beside it (upstream v1.36.2 on such a machine)", "what", "ours", "", "must");
    let mut table = Table(Vec::new());
    let (mut server, connections) = start(&arguments.binary, &data).await?;
    table.add("start, empty, to ready", server.ready_ms, "ms", "", "2,600-2,900");
    table.add("resident, idle", server.resident()? / MIB, "MiB", "", "312");

    let load = Load::new(connections.clone());
    let cost = load.create(&server, pods).await?;
    table.add(format!("create pod ({pods}), server CPU each"), cost.micros(), "µs", "250", "2,160-2,400");
    table.add("create pod, rate with 64 clients", cost.rate(), "/s", "", "770-850");
    table.add(format!("resident with {pods} pods"), server.resident()? / MIB, "MiB", "150", "733 (10,000)");
    let cost = load.get(&server, 20_000, pods).await?;
    table.add("get pod, server CPU each", cost.micros(), "µs", "80", "800");
    let cost = load.patch_status(&server, 5_000, pods).await?;
    table.add("patch pod status, server CPU each", cost.micros(), "µs", "250", "3,090");
    let (cost, bytes) = load.list(&server, 10, "?").await?;
    let what = format!("list of {pods} pods ({:.0} MiB), consistent, server CPU", bytes / MIB);
    table.add(what, cost.micros() / 1e3, "ms", "60", "651 (34 MiB)");
    let (cost, _) = load.list(&server, 10, "?resourceVersion=0&").await?;
    table.add("the same at resourceVersion=0", cost.micros() / 1e3, "ms", "60", "614");
    let (cost, _) = load.list(&server, 200, "?limit=500").await?;
    table.add("list, a page of 500, server CPU", cost.micros() / 1e3, "ms", "4", "37");
    let (cost, _) = load.list(&server, 2_000, "?labelSelector=only%3Dthese").await?;
    table.add(format!("list with a label selector, 10 of {pods}, server CPU"), cost.micros() / 1e3, "ms", "1", "");
    let (cost, _) = load.list(&server, 2_000, "?fieldSelector=spec.nodeName%3Dnode-7").await?;
    table.add("list of the pods of a node, server CPU", cost.micros() / 1e3, "ms", "1", "");

    let before = server.resident()?;
    let watched = watchers::run(&server, &connections, &load, &View::All, 1_000, 1_000).await?;
    table.add("1,000 watchers, 1,000 patches: server CPU per event", watched.micros(), "µs", "5", "22");
    table.add("the same, from write to delivery, p99", watched.p99_ms, "ms", "500", "9,593");
    table.add("the same, delivered", watched.rate(), "/s", "", "58,500");
    table.add(
        "the same, resident more, watchers connected",
        (watched.resident_watching - before) / MIB,
        "MiB",
        "60",
        "",
    );
    table.add("the same, resident more, at its end", (watched.resident - before) / MIB, "MiB", "", "2.3 GiB in all");
    let watched = watchers::run(&server, &connections, &load, &View::OfNodes, 5_000, 5_000).await?;
    table.add("5,000 watchers of a node's pods each: CPU per patch", watched.micros_per_patch(), "µs", "", "");
    let deleted = (pods / 2).min(5_000);
    let cost = load.delete(&server, deleted).await?;
    table.add("delete pod, server CPU each", cost.micros(), "µs", "", "2,180");
    if arguments.train {
        variety::run(&connections, VARIETY).await?;
    }
    drop((load, connections));
    if arguments.train {
        // What is killed writes nothing down.
        for _ in 0..STARTS {
            server.end()?;
            server.start_again().await?;
        }
    } else {
        server.restart().await?;
        table.add(format!("start with {} pods to ready", pods - deleted), server.ready_ms, "ms", "", "");
    }
    server.end()
}

/// How costs grow with objects and with watchers.
async fn growth(binary: &Path, plots: &Path) -> Fallible {
    std::fs::create_dir_all(plots)?;
    let directory = tempfile::tempdir()?;
    let (mut server, mut connections) = start(binary, &directory.path().join("d")).await?;
    let names = ["create", "get", "patch status", "page of 500", "selector, 10 match", "start, ms", "resident, MiB"];
    let mut lines: Vec<plot::Line> = names.iter().map(|name| plot::Line::new(name)).collect();
    let mut there = 0;
    for size in [1_000, 10_000, 50_000, 150_000] {
        let load = Load::new(connections.clone());
        let made = load.create_from(&server, there, size - there).await?;
        there = size;
        let costs = [
            made.micros(),
            load.get(&server, 5_000, size).await?.micros(),
            load.patch_status(&server, 2_000, size).await?.micros(),
            load.list(&server, 50, "?limit=500").await?.0.micros(),
            load.list(&server, 500, "?labelSelector=only%3Dthese").await?.0.micros(),
        ];
        let resident = server.resident()? / MIB;
        drop((load, connections));
        server.restart().await?;
        connections = server.connections(CONNECTIONS).await?;
        let all = costs.into_iter().chain([server.ready_ms, resident]);
        for (line, value) in lines.iter_mut().zip(all) {
            line.points.push((size as f64, value));
            println!("{size:>7} pods: {:<22}{value:>12.1}", line.name);
        }
    }
    plot::draw(&plots.join("objects.svg"), "Costs by number of objects", "objects", "µs of CPU each", &lines)?;
    drop(connections);
    server.end()?;

    let (mut server, connections) = start(binary, &directory.path().join("w")).await?;
    let load = Load::new(connections.clone());
    load.create(&server, 1_000).await?;
    let mut cpu = plot::Line::new("CPU per event, µs");
    let mut late = plot::Line::new("p99 from write to delivery, ms");
    let mut memory = plot::Line::new("resident, MiB");
    for watching in [10, 100, 1_000, 10_000] {
        let watched =
            watchers::run(&server, &connections, &load, &View::All, watching, (1_000_000 / watching).clamp(100, 2_000))
                .await?;
        for (line, value) in
            [(&mut cpu, watched.micros()), (&mut late, watched.p99_ms), (&mut memory, watched.resident / MIB)]
        {
            line.points.push((watching as f64, value));
            println!("{watching:>7} watchers: {:<32}{value:>12.1}", line.name);
        }
        // What was held for them is given back before the next.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let lines = [cpu, late, memory];
    plot::draw(&plots.join("watchers.svg"), "Costs by number of watchers", "watchers", "see the names", &lines)?;
    println!("plots: {0}/objects.svg, {0}/watchers.svg", plots.display());
    server.end()
}
