//! A state moved from a real etcd into an embedded store, and looked after.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

struct Etcd(Child);

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn etcd(directory: &Path) -> Etcd {
    let child = Command::new("/usr/bin/etcd")
        .current_dir(directory)
        .args(["--data-dir", "member", "--log-level", "error"])
        .args(["--listen-client-urls", "unix://c:1", "--advertise-client-urls", "unix://c:1"])
        .args(["--listen-peer-urls", "unix://p:1", "--initial-advertise-peer-urls", "unix://p:1"])
        .args(["--initial-cluster", "default=unix://p:1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Etcd(child.expect("etcd starts"))
}

fn etcdctl(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("/usr/bin/etcdctl");
    command.current_dir(directory).env("ETCDCTL_API", "3").arg("--endpoints=unix://c:1").args(arguments);
    command.output().expect("etcdctl runs")
}

fn store(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilothouse"));
    command.current_dir(directory).arg("store").args(["--data-dir", "data"]).args(arguments);
    command.output().expect("pilothouse runs")
}

/// What a command says of one thing.
fn said(output: &Output, name: &str) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.trim().to_owned()
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_state_moves_from_etcd_into_an_embedded_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let running = etcd(path);
    let begun = Instant::now();
    while !etcdctl(path, &["put", "/registry/pods/default/a", "1"]).status.success() {
        assert!(begun.elapsed() < PATIENCE, "etcd answers");
    }
    etcdctl(path, &["put", "/registry/pods/default/b", "1"]);
    etcdctl(path, &["del", "/registry/pods/default/b"]);
    let url = format!("unix://{}", path.join("c:1").display());
    let there = |arguments: &[&str]| store(path, &[&["--store", &url][..], arguments].concat());
    assert_eq!(said(&there(&["status"]), "keys"), "1");
    let before: i64 = said(&there(&["status"]), "revision").parse().expect("a number");
    assert!(there(&["verify"]).status.success());
    assert_eq!(said(&there(&["snapshot", "save", "snap.db"]), "revision"), before.to_string());
    assert!(refused(&there(&["snapshot", "save", "snap.db"])).contains("there already"), "no file is replaced");
    assert_eq!(said(&there(&["compact"]), "compacted"), before.to_string());
    drop(running);

    assert!(refused(&store(path, &["status"])).contains("has no store"));
    assert_eq!(said(&store(path, &["snapshot", "status", "snap.db"]), "keys"), "1");
    let restored = store(path, &["snapshot", "restore", "snap.db", "--bump-revision", "5000"]);
    assert_eq!(said(&restored, "revision"), (before + 5000).to_string());
    assert_eq!(said(&store(path, &["status"]), "revision"), (before + 5000).to_string());
    assert_eq!(said(&store(path, &["verify"]), "keys"), "1");
    assert_eq!(said(&store(path, &["compact"]), "compacted"), (before + 5000).to_string());
    assert_eq!(said(&store(path, &["snapshot", "save", "again.db"]), "keys"), "1");
    assert!(refused(&store(path, &["snapshot", "restore", "snap.db"])).contains("not empty"), "no store is replaced");
    std::fs::write(path.join("snap.db"), "no snapshot").expect("written");
    assert!(refused(&store(path, &["snapshot", "status", "snap.db"])).contains("snap.db"));
}
