//! The suite through our own etcd engine on the face, and an unmodified etcdctl.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{Address, Listener};
use crate::embedded::Options;
use crate::etcd::tests::reach::certificates;
use crate::suite::{Fixture, PATIENCE, key, put, put_leased, text};
use crate::{Embedded, Etcd, KeyRange, Range, Store, etcd, snapshot};

/// As seen from the socket's directory: versions before 3.5 send the path as the authority, which HTTP/2 allows no slash.
const ENDPOINT: &str = "unix://etcd.sock";

/// The embedded engine, its face, and the etcd engine that looks at it.
struct Mirrored {
    directory: tempfile::TempDir,
    store: Arc<Embedded>,
    seen: Arc<Etcd>,
    serving: Option<(oneshot::Sender<()>, tokio::task::JoinHandle<()>)>,
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("etcd.sock")
}

async fn open(directory: &Path) -> (Arc<Embedded>, Arc<Etcd>, (oneshot::Sender<()>, tokio::task::JoinHandle<()>)) {
    let options = Options { retention: None, ..Options::default() };
    let store = Embedded::open(directory.join("store"), options).expect("the store opens");
    let listener = Listener::bind(&Address::Unix(socket(directory)), None).await.expect("listening");
    let (stop, stopped) = oneshot::channel();
    let served = super::serve(store.clone(), listener, async move { drop(stopped.await) });
    let task = tokio::spawn(async move { served.await.expect("served") });
    let url = format!("unix://{}", socket(directory).display());
    let mut options = etcd::Options::parse(&url, None, None, None).expect("options");
    options.compaction_interval = None;
    (store, Etcd::connect(options).await.expect("the face answers"), (stop, task))
}

impl Mirrored {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, seen, serving) = open(directory.path()).await;
        Self { directory, store, seen, serving: Some(serving) }
    }

    fn etcdctl(&self, arguments: &[&str]) -> Output {
        etcdctl(self.directory.path(), &["--endpoints", ENDPOINT], arguments)
    }

    /// What etcdctl prints when it succeeds.
    fn says(&self, arguments: &[&str]) -> String {
        said(&self.etcdctl(arguments))
    }
}

fn etcdctl(directory: &Path, flags: &[&str], arguments: &[&str]) -> Output {
    let mut command = Command::new("/usr/bin/etcdctl");
    command
        .current_dir(directory)
        .env("ETCDCTL_API", "3")
        .args(flags)
        .args(arguments)
        .output()
        .expect("etcdctl (Debian's etcd-client) runs")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[async_trait]
impl Fixture for Mirrored {
    fn store(&self) -> Arc<dyn Store> {
        self.seen.clone()
    }

    async fn reopen(&mut self) {
        let (stop, task) = self.serving.take().expect("it is served");
        drop(stop);
        // Watches go on until their store is closed.
        self.store.close();
        tokio::time::timeout(PATIENCE, task).await.expect("the face ends").expect("ended");
        let (store, seen, serving) = open(self.directory.path()).await;
        (self.store, self.seen, self.serving) = (store, seen, Some(serving));
    }
}

mod mirrored {
    use super::*;

    async fn make() -> Mirrored {
        Mirrored::start().await
    }

    crate::suite!(super::make);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_reads_and_writes() {
    let face = Mirrored::start().await;
    assert_eq!(face.says(&["put", "/a", "1"]), "OK\n");
    assert_eq!(face.says(&["put", "--prev-kv", "/a", "2"]), "OK\n/a\n1\n");
    assert_eq!(face.says(&["put", "--ignore-lease", "/a", "3"]), "OK\n");
    assert!(!face.etcdctl(&["put", "--ignore-value", "/absent"]).status.success());
    face.says(&["put", "/b", "0"]);
    face.says(&["put", "/c", "9"]);
    assert_eq!(face.says(&["get", "--prefix", "/"]), "/a\n3\n/b\n0\n/c\n9\n");
    assert_eq!(face.says(&["get", "--prefix", "/", "--sort-by=VALUE", "--limit=2", "--keys-only"]), "/b\n\n/a\n\n");
    assert_eq!(face.says(&["get", "--prefix", "/", "--order=DESCEND", "--print-value-only"]), "9\n0\n3\n");
    assert_eq!(face.says(&["get", "/a", "--rev=2"]), "/a\n1\n");
    assert_eq!(face.says(&["del", "--prev-kv", "/b"]), "1\n/b\n0\n");
    assert!(face.says(&["compact", "5"]).contains("compacted revision 5"));
    let refused = face.etcdctl(&["get", "/a", "--rev=2"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("required revision has been compacted"));
    let refused = face.etcdctl(&["user", "list"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("users and roles are not served"), "{refused:?}");
    assert_eq!(text(&crate::suite::get(&*face.store, "/c").await.expect("it is there").value), "9");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_evaluates_transactions() {
    use std::io::Write;
    let face = Mirrored::start().await;
    face.says(&["put", "/a", "1"]);
    let mut child = Command::new("/usr/bin/etcdctl")
        .current_dir(face.directory.path())
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", ENDPOINT, "txn"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("etcdctl runs");
    let text = "value(\"/a\") = \"1\"\n\nput /b \"2\"\nget /b\n\nput /c \"3\"\n\n";
    child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("written");
    assert_eq!(said(&child.wait_with_output().expect("ended")), "SUCCESS\n\nOK\n\n/b\n2\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_watches_with_filters_and_previous_values() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let face = Mirrored::start().await;
    put(&*face.store, "/w/a", "1").await;
    put(&*face.store, "/w/a", "2").await;
    crate::suite::delete(&*face.store, "/w/a").await;
    let mut child = tokio::process::Command::new("/usr/bin/etcdctl")
        .current_dir(face.directory.path())
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", ENDPOINT, "watch", "--prefix", "/w/", "--rev=2", "--prev-kv"])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("etcdctl runs");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut expect = async |wanted: &[&str]| {
        for wanted in wanted {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("told").expect("read");
            assert_eq!(line.as_deref(), Some(*wanted));
        }
    };
    expect(&["PUT", "/w/a", "1", "PUT", "/w/a", "1", "/w/a", "2", "DELETE", "/w/a", "2", "/w/a", ""]).await;
    put(&*face.store, "/w/b", "live").await;
    expect(&["PUT", "/w/b", "live"]).await;
}

/// What etcd refuses is refused here, in its words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limits_are_those_of_etcd() {
    use crate::proto::{self, kv_client::KvClient, maintenance_client::MaintenanceClient, watch_client::WatchClient};
    use crate::proto::{request_op::Request, watch_request::RequestUnion};
    let face = Mirrored::start().await;
    let socket = format!("unix://{}", socket(face.directory.path()).display());
    let options = etcd::Options::parse(&socket, None, None, None).expect("options");
    let channel = etcd::members::Members::new(&options).all()[0].channel();
    let mut kv = KvClient::new(channel.clone());
    let put = |size: usize| proto::PutRequest { key: key("/a"), value: vec![0; size].into(), ..Default::default() };
    kv.put(put((3 << 19) - 100)).await.expect("etcd takes it");
    let refused = kv.put(put(3 << 19)).await.expect_err("etcd does not").message().to_owned();
    assert_eq!(refused, "etcdserver: request is too large");
    let txn = |requests: Vec<Request>| proto::TxnRequest {
        success: requests.into_iter().map(|request| proto::RequestOp { request: Some(request) }).collect(),
        ..Default::default()
    };
    let puts = |count: usize| {
        let one = |number| proto::PutRequest { key: format!("/{number}").into(), ..Default::default() };
        (0..count).map(|number| Request::RequestPut(one(number))).collect::<Vec<_>>()
    };
    kv.txn(txn(puts(128))).await.expect("etcd takes them");
    let nested = || {
        let mut ops = puts(100);
        ops.push(Request::RequestTxn(txn(puts(28))));
        txn(ops)
    };
    for many in [txn(puts(129)), nested()] {
        let refused = kv.txn(many).await.expect_err("etcd does not").message().to_owned();
        assert_eq!(refused, "etcdserver: too many operations in txn request");
    }
    let refused = kv.txn(txn(vec![Request::RequestPut(put(3 << 19))])).await.expect_err("etcd does not");
    assert_eq!(refused.message(), "etcdserver: request is too large");

    let create = |key: &str, end: &str| proto::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(proto::WatchCreateRequest {
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
            ..Default::default()
        })),
    };
    let ranges = [create("w/5", "w/1"), create("w/5", "w/5"), create("w/5", "w/6"), create("w/5", "\0")];
    let asked = futures::StreamExt::chain(tokio_stream::iter(ranges), tokio_stream::pending());
    let mut answers = WatchClient::new(channel.clone()).watch(asked).await.expect("a stream").into_inner();
    for (id, reason) in [(-1, "mvcc: watcher range is empty"), (-1, "mvcc: watcher range is empty"), (0, ""), (1, "")] {
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await.expect("an answer").expect("no error");
        let answer = answer.expect("the stream goes on");
        let told = (answer.created, answer.canceled, answer.watch_id, &*answer.cancel_reason);
        assert_eq!(told, (true, id < 0, id, reason));
    }

    let changes: [&[&str]; 4] = [
        &["member", "remove", "1"],
        &["member", "promote", "1"],
        &["member", "update", "1", "--peer-urls=http://h:1"],
        &["member", "add", "n", "--peer-urls=http://h:1"],
    ];
    for change in changes {
        let refused = face.etcdctl(change);
        assert!(String::from_utf8_lossy(&refused.stderr).contains("the store has one member"), "{refused:?}");
    }
    let moved = MaintenanceClient::new(channel).move_leader(proto::MoveLeaderRequest { target_id: 1 }).await;
    assert_eq!(moved.expect_err("nobody to move to").message(), "etcdserver: bad leader transferee");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_handles_leases() {
    let face = Mirrored::start().await;
    let granted = face.says(&["lease", "grant", "500"]);
    let id = granted.split_whitespace().nth(1).expect("a number").to_owned();
    face.says(&["put", &format!("--lease={id}"), "/leased", "x"]);
    let told = face.says(&["lease", "timetolive", "--keys", &id]);
    assert!(told.contains("granted with TTL(500s)") && told.contains("/leased"), "{told}");
    assert!(face.says(&["lease", "list"]).contains(&id));
    assert!(face.says(&["lease", "keep-alive", "--once", &id]).contains("TTL(500)"));
    face.says(&["lease", "revoke", &id]);
    assert_eq!(face.says(&["get", "/leased"]), "");
    assert!(face.says(&["lease", "timetolive", &id]).contains("already expired"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_saves_and_takes_snapshots() {
    let face = Mirrored::start().await;
    let lease = face.store.lease_grant(std::time::Duration::from_secs(5000)).await.expect("granted");
    for number in 0..500 {
        put(&*face.store, &format!("/registry/n/{number}"), "x".repeat(number * 10)).await;
    }
    put_leased(&*face.store, "/registry/leased", lease).await;
    let last = crate::suite::delete(&*face.store, "/registry/n/7").await;
    let file = face.directory.path().join("snap.db");
    let path = file.display().to_string();
    face.says(&["snapshot", "save", &path]);
    // etcd's own reader agrees with ours, and both with the store.
    let theirs = said(&etcdctl(face.directory.path(), &[], &["snapshot", "status", &path, "--write-out=json"]));
    let ours = snapshot::status(&file).expect("a status");
    assert!(ours.verified);
    assert_eq!((ours.revision, ours.keys), (last, 500));
    let expected =
        format!("\"hash\":{},\"revision\":{},\"totalKey\":{},\"totalSize\":", ours.hash, last, ours.total_keys);
    assert!(theirs.contains(&expected), "{theirs} {expected}");
    let data = face.directory.path().join("data").display().to_string();
    said(&etcdctl(face.directory.path(), &[], &["snapshot", "restore", &path, "--data-dir", &data]));
    // A real etcd runs on it.
    let etcd = Started::on(face.directory.path(), &data);
    let restored = Etcd::connect(etcd.options()).await.expect("etcd answers");
    let all = Range::of(KeyRange::prefix(key("/registry/")));
    let (theirs, ours) = (restored.range(all.clone()).await.expect("read"), face.store.range(all).await.expect("read"));
    assert_eq!((theirs.kvs, theirs.revision), (ours.kvs, ours.revision), "keys, values, revisions, versions, leases");
    assert_eq!(restored.lease_keep_alive(lease).await.expect("renewed").as_secs(), 5000);
    // Both go on in the same way, and have the same checksums, also behind a compaction.
    let both: [&dyn Store; 2] = [&*restored, &*face.store];
    for round in ["first", "second", "third"] {
        for store in both {
            put(store, "/registry/n/3", round).await;
            put(store, "/registry/once", round).await;
            crate::suite::delete(store, "/registry/once").await;
            if round == "second" {
                store.compact(last + 4).await.expect("compacted");
            }
        }
        let revision = face.store.revision();
        let ours = snapshot::hash(&face.store.export().await.expect("exported"), revision).expect("a checksum");
        let theirs = restored.hashes().await.expect("checksums");
        let theirs: Vec<u32> = theirs.into_iter().map(|(_, hash)| hash.expect("a checksum")).collect();
        assert_eq!(theirs, [ours], "{round}, at {revision}");
    }
}

/// The embedded engine with its face on a port.
struct Secured {
    directory: tempfile::TempDir,
    store: Arc<Embedded>,
    url: String,
    _stop: oneshot::Sender<()>,
}

impl Secured {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        certificates(path);
        let store = Embedded::open(path.join("store"), Options::default()).expect("the store opens");
        let address: Address = "https://127.0.0.1:0".parse().expect("an address");
        assert!(Listener::bind(&address, None).await.is_err(), "never without certificates");
        let tls = super::Tls {
            cert_file: path.join("server.crt"),
            key_file: path.join("server.key"),
            client_ca_file: path.join("ca.crt"),
        };
        let listener = Listener::bind(&address, Some(&tls)).await.expect("listening");
        let url = listener.url();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = super::serve(store.clone(), listener, async move { drop(stopped.await) });
        tokio::spawn(async move { served.await.expect("served") });
        Self { directory, store, url, _stop: stop }
    }

    fn etcdctl(&self, arguments: &[&str]) -> Output {
        let flags = ["--endpoints", &self.url, "--cacert=ca.crt", "--cert=client.crt", "--key=client.key"];
        etcdctl(self.directory.path(), &flags, arguments)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_demands_client_certificates() {
    let face = Secured::start().await;
    assert_eq!(said(&face.etcdctl(&["put", "/a", "1"])), "OK\n");
    assert_eq!(text(&crate::suite::get(&*face.store, "/a").await.expect("it is there").value), "1");
    let flags = ["--endpoints", &face.url, "--cacert=ca.crt", "--command-timeout=2s"];
    let bare = etcdctl(face.directory.path(), &flags, &["get", "/a"]);
    assert!(!bare.status.success(), "{bare:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_looks_after_the_member() {
    let face = Secured::start().await;
    put(&*face.store, "/a", "1").await;
    let health = face.etcdctl(&["endpoint", "health"]);
    let told = format!("{}{}", String::from_utf8_lossy(&health.stdout), String::from_utf8_lossy(&health.stderr));
    assert!(told.contains("is healthy"), "{told}");
    let says = |arguments: &[&str]| said(&face.etcdctl(arguments));
    let status = says(&["endpoint", "status", "--cluster"]);
    assert!(status.contains(&face.url) && status.contains("3.5.21") && status.contains("true"), "{status}");
    assert!(says(&["member", "list"]).contains("pilothouse"));
    assert_eq!(says(&["alarm", "list"]), "");
    assert!(says(&["defrag"]).contains("Finished defragmenting"));
    let before = says(&["endpoint", "hashkv"]);
    assert_eq!(before, says(&["endpoint", "hashkv"]));
    put(&*face.store, "/a", "2").await;
    assert_ne!(before, says(&["endpoint", "hashkv"]));
}

/// A real etcd on a data directory.
pub(crate) struct Started(std::process::Child, PathBuf);

impl Started {
    pub(crate) fn on(directory: &Path, data: &str) -> Self {
        let child = Command::new("/usr/bin/etcd")
            .current_dir(directory)
            .args(["--data-dir", data, "--log-level", "error"])
            .args(["--listen-client-urls", "unix://c:1", "--advertise-client-urls", "unix://c:1"])
            .args(["--listen-peer-urls", "unix://p:1"])
            .stdout(std::process::Stdio::null())
            .stderr(std::fs::File::create(directory.join("log")).expect("a log"))
            .spawn()
            .expect("etcd (Debian's etcd-server) starts");
        Self(child, directory.join("c:1"))
    }

    pub(crate) fn options(&self) -> etcd::Options {
        let url = format!("unix://{}", self.1.display());
        etcd::Options { compaction_interval: None, ..etcd::Options::parse(&url, None, None, None).expect("options") }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
