//! What a pod costs while it does nothing.

mod support;

use std::fs;

use cri::v1::*;
use support::{Server, context, eventually, shell};

/// The most that shim and pause process together may take of memory, in KiB.
const LIMIT: u64 = 2048;

/// A position-independent executable has its relocations, a megabyte or more, once in every process. The one
/// that is shipped isn't one, nor are those that `make test` builds.
fn is_relocated(executable: &str) -> bool {
    const ET_EXEC: u8 = 2;
    fs::read(executable).unwrap()[16] != ET_EXEC
}

fn proportional_set(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|l| l.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn shim_and_pause_are_small() {
    if is_relocated(env!("CARGO_BIN_EXE_cri-server")) {
        return;
    }
    let server = Server::start().await;
    let mut config = server.pod("small");
    let shared = || Some(NamespaceOption { pid: NamespaceMode::Pod.into(), ..Default::default() });
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = shared();
    let pod = server.run_pod(config).await;
    let mut container = shell("c", "echo up; sleep 1000");
    context(&mut container).namespace_options = shared();
    let container = pod.run(container).await;
    container.prints("up").await;
    container.exec(&["true"]).await.unwrap();
    let dir = server.path("runtime/sandboxes").join(&pod.id);
    let shim = fs::read_to_string(dir.join("shim.pid")).unwrap();
    let shim: i32 = shim.split(' ').next().unwrap().parse().unwrap();
    let state: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("state.json")).unwrap()).unwrap();
    let pause = state["pause"].as_i64().unwrap() as i32;
    let mut last = 0;
    eventually("giving memory back", async || {
        last = proportional_set(shim) + proportional_set(pause);
        (last <= LIMIT).then_some(())
    })
    .await;
    // So that whoever reads the tests' output sees how it develops.
    #[allow(clippy::print_stdout, reason = "a figure for people")]
    {
        println!("shim {} KiB, pause {} KiB", proportional_set(shim), proportional_set(pause));
    }
}

/// Half of the pods run this soon, also on a machine with other things to do.
const START: std::time::Duration = std::time::Duration::from_millis(300);

#[tokio::test]
async fn a_pod_starts_soon() {
    let server = Server::start().await;
    let mut times = Vec::new();
    for number in 0..11 {
        let config = server.pod(&format!("pod{number}"));
        let start = std::time::Instant::now();
        let pod = server.run_pod(config).await;
        pod.run(shell("c", "sleep 1000")).await;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    assert!(median < START, "{times:?}");
    #[allow(clippy::print_stdout, reason = "a figure for people")]
    {
        println!("sandbox, container created and started: {median:?} (median)");
    }
}
