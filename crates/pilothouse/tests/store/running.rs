//! A running server's store, asked by its files' name; and a store that is damaged.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::server::{BINARY, Server, refused, said, until};

fn store(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.current_dir(directory).args(["store", "--data-dir", "data"]).args(arguments);
    command.output().expect("pilothouse runs")
}

#[test]
fn a_store_is_saved_while_it_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start_plain(directory.path(), &[]);
    said(&server.kubectl(&["create", "configmap", "kept"]));
    said(&store(directory.path(), &["snapshot", "save", "snap.db"]));
    said(&store(directory.path(), &["verify"]));
    assert!(refused(&store(directory.path(), &["verify", "--drop-damaged"])).contains("stopped"));
    let socket = fs::metadata(directory.path().join("data/store.sock")).expect("the socket");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&socket.permissions()) & 0o777, 0o600);
    server.stop();
    assert!(said(&store(directory.path(), &["snapshot", "status", "snap.db"])).contains("revision"));
}

/// Damage to what an object was keeps nobody from serving; damage to what it is is told, with what helps.
#[test]
fn a_damaged_store_says_so_and_what_helps() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let server = Server::start_plain(path, &[]);
    let mark = |text: &str| text.repeat(50);
    let map = |name: &str, text: &str| {
        format!("---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{k: {text}}}}}\n")
    };
    for text in ["superseded", "standing"] {
        said(&server.feed(&["apply", "--server-side", "-f", "-"], &map("m", &mark(text))));
    }
    // A start reads the log from the last checkpoint on, and refuses damage there; this is far behind it.
    let large: String = (0..45).map(|n| map(&format!("large-{n}"), &"x".repeat(900_000))).collect();
    said(&server.feed(&["create", "-f", "-"], &large));
    server.stop();
    let damage = |text: &str| {
        let logs = fs::read_dir(path.join("data/store")).expect("listed").map(|entry| entry.expect("an entry").path());
        let found = logs.filter_map(|log| {
            let bytes = fs::read(&log).ok()?;
            let at = bytes.windows(mark(text).len()).position(|bytes| bytes == mark(text).as_bytes())?;
            Some((log, bytes, at))
        });
        let (log, mut bytes, at) = found.last().expect("it is there");
        bytes[at] ^= 1;
        fs::write(log, bytes).expect("written");
    };
    damage("superseded");
    let server = Server::start_plain(path, &[]);
    assert!(said(&server.kubectl(&["get", "configmap", "m", "-o", "yaml"])).contains("standing"));
    server.stop();
    damage("standing");
    let mut command = Command::new(BINARY);
    command.current_dir(path).args(["apiserver", "--secure-port=0", "--bind-address=127.0.0.1", "--data-dir=data"]);
    let log = fs::File::create(path.join("log")).expect("a log");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
    let ended = until("it ends", || child.try_wait().expect("waited for"));
    let told = fs::read_to_string(path.join("log")).expect("the log");
    assert!(!ended.success() && told.contains("seg at offset") && told.contains("--drop-damaged"), "{told}");
    let dropped = said(&store(path, &["verify", "--drop-damaged"]));
    assert!(dropped.contains("/registry/configmaps/default/m"), "{dropped}");
    let server = Server::start_plain(path, &[]);
    assert!(refused(&server.kubectl(&["get", "configmap", "m"])).contains("NotFound"));
    server.stop();
}

/// Nothing else fails because a log can't be written: it may be on the disk that is full, or its reader gone.
#[test]
fn a_log_that_cannot_be_written_disturbs_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    let (reader, gone) = std::io::pipe().expect("a pipe");
    drop(reader);
    for (name, log) in [("full", Stdio::from(full)), ("gone", Stdio::from(gone))] {
        let server = Server::start_telling(directory.path(), &["-v=8"], log);
        said(&server.kubectl(&["create", "configmap", name]));
        said(&server.kubectl(&["get", "--raw", "/readyz"]));
        server.stop();
    }
}

/// Whoever asks a server to end that waits for its store need not wait with it.
#[test]
fn a_start_that_waits_for_its_store_can_be_stopped() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    // It takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let etcd = format!("--etcd-servers=http://{}", silent.local_addr().expect("its address"));
    let mut command = Command::new(BINARY);
    command.current_dir(path).args([
        "apiserver",
        "--secure-port=0",
        "--bind-address=127.0.0.1",
        "--data-dir=data",
        &etcd,
    ]);
    let log = fs::File::create(path.join("log")).expect("a log");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
    // It has begun to ask, and so listens to signals.
    let connection = silent.accept().expect("it asks its store");
    let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("an id"));
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).expect("told to end");
    until("it ends", || child.try_wait().expect("waited for"));
    let told = fs::read_to_string(path.join("log")).expect("the log");
    assert!(told.contains("stopped before it was ready"), "{told}");
    drop(connection);
}
