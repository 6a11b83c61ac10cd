//! Through the registry, over a real store, and with a plugin behind a real socket.

use super::kms::{Pace, v2};
use super::{Encryption, Sealed};
use crate::cache::{End, Filter, Scope};
use crate::context::Context;
use crate::options::{ListOptions, Options};
use crate::registry::mutation::Replace;
use crate::registry::{Became, Place, Registry, Written};
use crate::test_support::map;
use api::Status;
use bytes::Bytes;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use store::{Embedded, KeyRange, Range, Store};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use v2::key_management_service_server::{KeyManagementService, KeyManagementServiceServer};

const PATIENCE: Duration = Duration::from_secs(120);
const KEY: &str = "/registry/secrets/default/s";
const FIRST: &str = "aescbc: {keys: [{name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}";
const SECOND: &str = "aesgcm: {keys: [{name: key2, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}";
const THIRD: &str = "secretbox: {keys: [{name: key3, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}";

/// A directory with a store and a configuration.
struct Home {
    directory: tempfile::TempDir,
    engine: Arc<Embedded>,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let engine = Embedded::open(directory.path().join("store"), store::embedded::Options::default());
        Home { engine: engine.expect("a store"), directory }
    }

    fn configure(&self, providers: &[&str]) {
        let providers: Vec<String> = providers.iter().map(|provider| format!("{{{provider}}}")).collect();
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers: [{}]\n",
            providers.join(", ")
        );
        let (path, new) = (self.file(), self.directory.path().join("new"));
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, path).expect("renamed");
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("encryption.yaml")
    }

    /// A server over the store, as it starts.
    async fn start(&self, reload: bool) -> Arc<Registry> {
        let soon = Duration::from_millis(200);
        let pace = Pace { healthy: soon, unhealthy: soon, look: soon, look_again: soon };
        let encryption = Encryption::open_paced(self.file(), reload, "/registry", pace).await.expect("configured");
        let sealed = Sealed::new(self.engine.clone(), encryption);
        let registry = Registry::open_as(sealed.clone(), Some(sealed), crate::surface::Surface::default()).await;
        registry.expect("a registry")
    }

    async fn with(&self, providers: &[&str]) -> Arc<Registry> {
        self.configure(providers);
        self.start(false).await
    }

    /// What the engine has.
    async fn stored(&self) -> Bytes {
        let read = self.engine.range(Range::of(KeyRange::key(KEY))).await.expect("read");
        read.kvs.into_iter().next().map(|kv| kv.value).expect("the key")
    }
}

fn context() -> Context {
    Context::internal()
}

fn options() -> Options {
    Options { field_manager: "test".to_owned(), ..Options::default() }
}

fn secret(name: &str) -> schema::Map {
    map(&format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: default}}, data: {{a: c2VjcmV0}}}}"
    ))
}

async fn create(registry: &Arc<Registry>, name: &str) -> Result<Written, Status> {
    let served = registry.preferred("", "secrets").expect("served");
    let mut object = secret(name);
    crate::registry::complete::complete(served.resource.schema.root(), &mut object, None);
    registry.create(&context(), &served, "default", object, &options()).await
}

async fn get(registry: &Registry) -> Result<schema::Map, Status> {
    let served = registry.preferred("", "secrets").expect("served");
    let entry = registry.get(&served, "default", "s", None).await?;
    Ok(served.cacher.as_ref().expect("stored").decode(&entry).expect("an object"))
}

async fn list(registry: &Registry) -> Result<usize, Status> {
    let served = registry.preferred("", "secrets").expect("served");
    let filter = Filter::of(Scope::All);
    registry.list(&served, &filter, &ListOptions::default()).await.map(|listed| listed.entries.len())
}

/// `kubectl get -o json | kubectl replace -f -`; tells the resourceVersion.
async fn rewrite(registry: &Arc<Registry>) -> Result<String, Status> {
    let served = registry.preferred("", "secrets").expect("served");
    let object = get(registry).await?;
    let place = Place { namespace: "default", name: "s", subresource: "" };
    let written = registry.update(&context(), &served, place, &Replace(object), &options()).await?;
    Ok(written.object.str_at(&["metadata", "resourceVersion"]).to_owned())
}

fn starts(stored: &[u8], prefix: &str) {
    assert!(stored.starts_with(prefix.as_bytes()), "{prefix}: {:?}", String::from_utf8_lossy(stored));
    let plain = String::from_utf8_lossy(stored).contains("c2VjcmV0");
    assert_eq!(plain, prefix.starts_with('{'), "{prefix}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_by_writing_again() {
    let home = Home::new();
    let plain = home.with(&["identity: {}"]).await;
    create(&plain, "s").await.expect("created");
    starts(&home.stored().await, "{");
    let rotation: [(&[&str], &str); 5] = [
        (&[FIRST, "identity: {}"], "k8s:enc:aescbc:v1:key1:"),
        (&[SECOND, FIRST], "k8s:enc:aesgcm:v1:key2:"),
        (&[THIRD, SECOND], "k8s:enc:secretbox:v1:key3:"),
        (
            &[
                "aescbc: {keys: [{name: key4, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3}, {name: key1, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}",
                THIRD,
            ],
            "k8s:enc:aescbc:v1:key4:",
        ),
        (&["identity: {}", "aescbc: {keys: [{name: key4, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3}]}"], "{"),
    ];
    let mut last = String::new();
    for (providers, prefix) in rotation {
        let registry = home.with(providers).await;
        // What was written with the key before is read, and written with the new one though nothing changed.
        let version = rewrite(&registry).await.expect("written");
        assert_ne!(version, last);
        starts(&home.stored().await, prefix);
        // Then it is as it should be: no write without a change.
        assert_eq!(rewrite(&registry).await.expect("written"), version);
        last = version;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_replaced_under_its_name_is_rotated_too() {
    let (old, new) = ("MDEyMzQ1Njc4OWFiY2RlZg==", "ZmVkY2JhOTg3NjU0MzIxMA==");
    let keys = |secrets: &[&str]| {
        let keys: Vec<String> = secrets.iter().map(|secret| format!("{{name: key1, secret: {secret}}}")).collect();
        format!("aesgcm: {{keys: [{}]}}", keys.join(", "))
    };
    let (one, other) = (keys(&[old]), keys(&[new]));
    // In two providers, and in one.
    for rotating in [vec![other.clone(), one.clone()], vec![keys(&[new, old])]] {
        let home = Home::new();
        create(&home.with(&[&one]).await, "s").await.expect("created");
        let rotating: Vec<&str> = rotating.iter().map(String::as_str).collect();
        let registry = home.with(&rotating).await;
        let before = get(&registry).await.expect("readable").str_at(&["metadata", "resourceVersion"]).to_owned();
        let version = rewrite(&registry).await.expect("written");
        assert_ne!(version, before, "what the old key wrote is written again");
        assert_eq!(rewrite(&registry).await.expect("written"), version, "once");
        // The old key can be given up.
        get(&*home.with(&[&other]).await).await.expect("readable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_an_error_never_absent() {
    let home = Home::new();
    create(&home.with(&[FIRST]).await, "s").await.expect("created");
    let told = |status: Status| (status.code, status.message);
    let wrong = "aescbc: {keys: [{name: key1, secret: ZmVkY2JhOTg3NjU0MzIxMA==}]}";
    for (providers, why) in [
        (&[SECOND][..], "no matching prefix found"),
        (&["identity: {}"], "no matching prefix found"),
        (
            &["aescbc: {keys: [{name: other, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}"],
            "no matching key was found for the provided AES transformer",
        ),
        (&[wrong], "invalid P"),
    ] {
        let registry = home.with(providers).await;
        let (code, message) = told(get(&registry).await.expect_err("unreadable"));
        assert_eq!(code, 500);
        // A wrong key mostly shows in the padding; once in 256 it may show later.
        let padding = ["invalid PKCS7", "invalid padding", "is no object"].iter().any(|text| message.contains(text));
        assert!(
            message.starts_with(&format!("Internal error occurred: {why}")) || why == "invalid P" && padding,
            "{message}"
        );
        let (code, message) = told(list(&registry).await.expect_err("unreadable"));
        assert_eq!(code, 500);
        assert!(
            message.starts_with("Internal error occurred: unable to transform key \"/registry/secrets/default/s\": "),
            "{message}"
        );
        assert_eq!(create(&registry, "s").await.expect_err("there").code, 409, "it is there all the same");
        let served = registry.preferred("", "secrets").expect("served");
        let deleted = registry.delete(&context(), &served, "default", "s", &options()).await;
        assert_eq!(deleted.expect_err("unreadable").code, 500);
        let watched = registry.watch(&served, Filter::of(Scope::All), &ListOptions::default()).await;
        assert_eq!(watched.map(|_| ()).expect_err("unreadable").code, 500);
        create(&registry, "another").await.expect("others go on");
        let options = options();
        registry.delete(&context(), &served, "default", "another", &options).await.expect("deleted");
    }
    // Without any configuration, too.
    let registry = Registry::open(home.engine.clone()).await.expect("a registry");
    let (_, message) = told(get(&registry).await.expect_err("unreadable"));
    assert_eq!(message, "Internal error occurred: identity transformer tried to read encrypted data");
    // With the right key all is well again.
    assert_eq!(list(&*home.with(&[SECOND, FIRST]).await).await.expect("readable"), 1);
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(text);
        Ok(text.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// On one thread, whose log is looked at.
#[tokio::test]
async fn a_start_needs_no_key_that_was_given_up() {
    // The value of the old key is what the replay begins with, or comes in it.
    for compacted in [true, false] {
        let home = Home::new();
        let first = home.with(&[FIRST]).await;
        let maps = first.preferred("", "configmaps").expect("served");
        let early = first.list(&maps, &Filter::everything(), &ListOptions::default()).await.expect("listed").revision;
        create(&first, "s").await.expect("created");
        if compacted {
            home.engine.compact(home.engine.status().await.expect("a status").revision).await.expect("compacted");
        }
        rewrite(&home.with(&[SECOND, FIRST]).await).await.expect("written");
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(move || writer.clone()).finish();
        let logging = tracing::subscriber::set_default(subscriber);
        let registry = home.with(&[SECOND]).await;
        assert_eq!(list(&registry).await.expect("readable"), 1);
        drop(logging);
        let told = String::from_utf8(log.0.lock().expect("no panic").clone()).expect("text");
        assert_eq!(told, "", "compacted: {compacted}");
        if !compacted {
            // The past of others is replayed all the same.
            let maps = registry.preferred("", "configmaps").expect("served");
            let options = ListOptions { version: Some(early), ..ListOptions::default() };
            registry.watch(&maps, Filter::everything(), &options).await.expect("a watch");
        }
    }
}

/// Two servers of one store, of which one has the new configuration already.
#[tokio::test(flavor = "multi_thread")]
async fn who_watches_a_server_without_the_key_is_not_told_that_objects_are_gone() {
    let home = Home::new();
    let behind = home.with(&["identity: {}"]).await;
    create(&behind, "s").await.expect("created");
    let served = behind.preferred("", "secrets").expect("served");
    let watched = behind.watch(&served, Filter::of(Scope::All), &ListOptions::default()).await;
    let (mut watcher, initial) = watched.expect("a watch");
    assert_eq!(initial.map(|(state, _)| state.len()), Some(1));
    rewrite(&home.with(&[FIRST, "identity: {}"]).await).await.expect("written");
    let told = tokio::time::timeout(PATIENCE, watcher.next()).await.expect("told in time");
    assert_eq!(told.err(), Some(End::Expired));
    assert_eq!(list(&behind).await.expect_err("unreadable").code, 500);
}

/// Encrypts by XOR with its key, which is enough to see who decrypted what.
struct Fake {
    key: Mutex<String>,
    well: AtomicBool,
    decrypted: AtomicU32,
    /// Whether it answers that it has no key.
    refuses: AtomicBool,
    /// Whether it keeps who wants to decrypt waiting.
    hangs: tokio::sync::watch::Sender<bool>,
    /// It does not even say how it is.
    mute: tokio::sync::watch::Sender<bool>,
}

fn crossed(data: &[u8], key: &str) -> Bytes {
    data.iter().zip(key.bytes().cycle()).map(|(one, other)| one ^ other).collect::<Vec<u8>>().into()
}

struct Plugin(Arc<Fake>);

#[tonic::async_trait]
impl KeyManagementService for Plugin {
    async fn status(
        &self,
        _: tonic::Request<v2::StatusRequest>,
    ) -> Result<tonic::Response<v2::StatusResponse>, tonic::Status> {
        self.0.mute.subscribe().wait_for(|mute| !mute).await.expect("the sender lives");
        let healthz = if self.0.well.load(Ordering::SeqCst) { "ok" } else { "no key" };
        let key_id = self.0.key.lock().expect("no panic").clone();
        Ok(tonic::Response::new(v2::StatusResponse { version: "v2".to_owned(), healthz: healthz.to_owned(), key_id }))
    }
    async fn encrypt(
        &self,
        request: tonic::Request<v2::EncryptRequest>,
    ) -> Result<tonic::Response<v2::EncryptResponse>, tonic::Status> {
        let key_id = self.0.key.lock().expect("no panic").clone();
        let ciphertext = crossed(&request.into_inner().plaintext, &key_id);
        let annotations = [("version.example.com".to_owned(), Bytes::from_static(b"1"))].into();
        Ok(tonic::Response::new(v2::EncryptResponse { ciphertext, key_id, annotations }))
    }
    async fn decrypt(
        &self,
        request: tonic::Request<v2::DecryptRequest>,
    ) -> Result<tonic::Response<v2::DecryptResponse>, tonic::Status> {
        let request = request.into_inner();
        self.0.decrypted.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.annotations.get("version.example.com").map(|value| &value[..]), Some(&b"1"[..]));
        self.0.hangs.subscribe().wait_for(|hangs| !hangs).await.expect("the sender lives");
        if self.0.refuses.load(Ordering::SeqCst) {
            return Err(tonic::Status::not_found("no such key"));
        }
        let plaintext = crossed(&request.ciphertext, &request.key_id);
        Ok(tonic::Response::new(v2::DecryptResponse { plaintext }))
    }
}

fn fake() -> Arc<Fake> {
    Arc::new(Fake {
        key: Mutex::new("k1".to_owned()),
        well: AtomicBool::new(true),
        decrypted: AtomicU32::new(0),
        refuses: AtomicBool::new(false),
        hangs: tokio::sync::watch::Sender::new(false),
        mute: tokio::sync::watch::Sender::new(false),
    })
}

fn serve(plugin: &Arc<Fake>, socket: &Path) -> tokio::task::JoinHandle<()> {
    let listener = UnixListener::bind(socket).expect("a socket");
    let server =
        tonic::transport::Server::builder().add_service(KeyManagementServiceServer::new(Plugin(plugin.clone())));
    tokio::spawn(async move { server.serve_with_incoming(UnixListenerStream::new(listener)).await.expect("served") })
}

/// Waits until something holds.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugins_key_is_followed_and_its_absence_borne() {
    let home = Home::new();
    let (plugin, socket) = (fake(), home.directory.path().join("kms.sock"));
    let kms = format!("kms: {{apiVersion: v2, name: p, endpoint: \"unix://{}\", timeout: 10s}}", socket.display());
    let serving = serve(&plugin, &socket);
    let registry = home.with(&[&kms]).await;
    create(&registry, "s").await.expect("created");
    let stored = home.stored().await;
    starts(&stored, "k8s:enc:kms:v2:p:");
    use prost::Message;
    let envelope = v2::EncryptedObject::decode(&stored["k8s:enc:kms:v2:p:".len()..]).expect("an envelope");
    assert_eq!((envelope.key_id.as_str(), envelope.encrypted_dek_source_type), ("k1", 1));
    assert_eq!(plugin.decrypted.load(Ordering::SeqCst), 0, "its own values cost no call");

    // A start reads with one call, however many values there are.
    create(&registry, "another").await.expect("created");
    let again = home.start(false).await;
    assert_eq!(list(&again).await.expect("readable"), 2);
    assert_eq!(plugin.decrypted.load(Ordering::SeqCst), 1);
    let checks = again.encryption().expect("encrypted").checks();
    let [check] = &checks[..] else { panic!("a check for each plugin") };
    assert_eq!((check.name, (check.look)().await), ("kms-provider-0", Ok(())));
    assert_eq!(check.of, crate::server::Of::HealthAndReadiness);
    drop(registry);

    // Another key: values of the old one are read, and written again with the new one.
    let version = get(&again).await.expect("readable").str_at(&["metadata", "resourceVersion"]).to_owned();
    assert_eq!(rewrite(&again).await.expect("written"), version, "not stale yet");
    *plugin.key.lock().expect("no panic") = "k2".to_owned();
    until("the new key is seen", || async {
        (check.look)().await.is_ok() && rewrite(&again).await.expect("written") != version
    })
    .await;
    let stored = home.stored().await;
    let envelope = v2::EncryptedObject::decode(&stored["k8s:enc:kms:v2:p:".len()..]).expect("an envelope");
    assert_eq!(envelope.key_id, "k2");

    plugin.well.store(false, Ordering::SeqCst);
    let told = Mutex::new(String::new());
    until("the check tells", || async {
        let outcome = (check.look)().await;
        *told.lock().expect("no panic") = outcome.clone().err().unwrap_or_default();
        outcome.is_err()
    })
    .await;
    assert_eq!(
        *told.lock().expect("no panic"),
        "kmsv2 Provider p is not healthy, error: got unexpected healthz status: no key"
    );

    // Away: what it gave is used for a while; a start reads nothing until it is back.
    serving.abort();
    assert!(serving.await.is_err(), "it was ended");
    std::fs::remove_file(&socket).expect("removed");
    create(&again, "third").await.expect("its seed is still good");
    drop(again);
    let started = home.start(false).await;
    let refused = list(&started).await.expect_err("unreadable");
    assert!(
        refused.message.contains("failed to decrypt DEK, error: rpc error: code = Unavailable"),
        "{}",
        refused.message
    );
    let refused = create(&started, "fourth").await.expect_err("no seed");
    assert_eq!(refused.message, "Internal error occurred: got unexpected nil transformer");
    plugin.well.store(true, Ordering::SeqCst);
    let serving = serve(&plugin, &socket);
    until("all is read again", || async { list(&started).await.is_ok_and(|listed| listed == 3) }).await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_is_taken_over_while_the_server_runs() {
    let home = Home::new();
    home.configure(&[FIRST]);
    let registry = home.start(true).await;
    create(&registry, "s").await.expect("created");
    starts(&home.stored().await, "k8s:enc:aescbc:v1:key1:");
    // What is wrong changes nothing.
    std::fs::write(home.file(), "kind: Nonsense").expect("written");
    assert_eq!(rewrite(&registry).await.expect("written"), rewrite(&registry).await.expect("written"));
    home.configure(&[SECOND, FIRST]);
    let version = rewrite(&registry).await.expect("written");
    until("the new key writes", || async { rewrite(&registry).await.expect("written") != version }).await;
    starts(&home.stored().await, "k8s:enc:aesgcm:v1:key2:");
    // A key that comes later makes readable what was not.
    let late = Home { engine: home.engine.clone(), directory: tempfile::tempdir().expect("a directory") };
    late.configure(&[THIRD]);
    let reader = late.start(true).await;
    assert_eq!(get(&reader).await.expect_err("no key").code, 500);
    late.configure(&[THIRD, SECOND]);
    until("it is readable", || async { get(&reader).await.is_ok() }).await;
    assert_eq!(list(&reader).await.expect("readable"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_keeps_nothing_else_waiting() {
    let home = Home::new();
    let (plugin, socket) = (fake(), home.directory.path().join("kms.sock"));
    // Longer than the test waits for anything.
    let kms = format!("kms: {{apiVersion: v2, name: p, endpoint: \"unix://{}\", timeout: 1h}}", socket.display());
    let serving = serve(&plugin, &socket);
    let (writer, reader) = (home.with(&[&kms]).await, home.with(&[&kms]).await);
    plugin.hangs.send_replace(true);
    // The writer has its own key; the reader has to ask for it.
    create(&writer, "s").await.expect("created");
    let served = writer.preferred("", "configmaps").expect("served");
    for name in ["one", "two"] {
        let object =
            map(&format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, namespace: default}}}}"));
        writer.create(&context(), &served, "default", object, &options()).await.expect("created");
        let found = async || reader.get(&served, "default", name, None).await.is_ok();
        until("others are read", found).await;
        assert_eq!(list(&reader).await.expect_err("unreadable").code, 500);
        // Another value of a plugin that is known to hang is not waited for at all.
        create(&writer, name).await.expect("created");
    }
    assert_eq!(plugin.decrypted.load(Ordering::SeqCst), 1, "one asks, for all");
    plugin.hangs.send_replace(false);
    until("all is read", || async { list(&reader).await.is_ok_and(|listed| listed == 3) }).await;
    assert_eq!(plugin.decrypted.load(Ordering::SeqCst), 1);
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_that_do_not_answer_delay_no_start() {
    let home = Home::new();
    let (plugin, socket) = (fake(), home.directory.path().join("kms.sock"));
    // Longer than the test waits for anything.
    let kms = ["p", "q"].map(|name| {
        format!("kms: {{apiVersion: v2, name: {name}, endpoint: \"unix://{}\", timeout: 1h}}", socket.display())
    });
    let serving = serve(&plugin, &socket);
    let writer = home.with(&[&kms[0], &kms[1]]).await;
    create(&writer, "s").await.expect("created");
    drop(writer);
    plugin.mute.send_replace(true);
    plugin.hangs.send_replace(true);
    let started = tokio::time::timeout(PATIENCE, home.start(false)).await.expect("it starts");
    assert_eq!(list(&started).await.expect_err("unreadable").code, 500);
    let checks = started.encryption().expect("encrypted").checks();
    for (check, (at, name)) in checks.iter().zip([(0, "p"), (1, "q")]) {
        assert_eq!(check.name, format!("kms-provider-{at}"));
        assert_eq!(
            (check.look)().await.expect_err("it does not answer"),
            format!(
                "failed to perform status section of the healthz check for KMS Provider {name}, error: rpc error: code = DeadlineExceeded desc = context deadline exceeded"
            )
        );
    }
    plugin.mute.send_replace(false);
    plugin.hangs.send_replace(false);
    until("all is well", || async {
        futures::future::join_all(checks.iter().map(|check| (check.look)())).await.iter().all(Result::is_ok)
    })
    .await;
    until("all is read", || async { list(&started).await.is_ok_and(|listed| listed == 1) }).await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_not_asked_for_each_value_of_a_key_that_it_has_not() {
    const VALUES: u32 = 200;
    let home = Home::new();
    let (plugin, socket) = (fake(), home.directory.path().join("kms.sock"));
    let kms = format!("kms: {{apiVersion: v2, name: p, endpoint: \"unix://{}\"}}", socket.display());
    let serving = serve(&plugin, &socket);
    let writer = home.with(&[&kms]).await;
    for number in 0..VALUES {
        create(&writer, &format!("s{number}")).await.expect("created");
    }
    plugin.refuses.store(true, Ordering::SeqCst);
    let reader = home.start(false).await;
    let refused = list(&reader).await.expect_err("unreadable");
    assert!(refused.message.ends_with("rpc error: code = NotFound desc = no such key"), "{}", refused.message);
    // Not once, when the start took long; but by far not for each value, which are read twice or thrice.
    assert!(plugin.decrypted.load(Ordering::SeqCst) < VALUES / 2);
    plugin.refuses.store(false, Ordering::SeqCst);
    until("all is read", || async { list(&reader).await.is_ok_and(|listed| listed == VALUES as usize) }).await;
    serving.abort();
}

#[tokio::test]
async fn the_past_is_decrypted_while_its_keys_are_there() {
    use store::History as _;
    let home = Home::new();
    let registry = home.with(&[FIRST]).await;
    create(&registry, "s").await.expect("created");
    let then = home.engine.revision().cast_unsigned();
    let registry = home.with(&[SECOND, FIRST]).await;
    rewrite(&registry).await.expect("rewritten");
    let served = registry.preferred("", "secrets").expect("served");
    let value =
        |entry: &crate::cache::Entry| served.decode(entry).expect("an object").str_at(&["data", "a"]).to_owned();
    let entry = registry.get_at(&served, "default", "s", then).await.expect("there was one");
    assert_eq!(value(&entry), "c2VjcmV0");
    // It is read from the store, and counted so.
    let lists = ["total", "fetched_objects_total", "evaluated_objects_total", "returned_objects_total"];
    let counted = || {
        lists.map(|of| told_of(&registry, &format!("apiserver_storage_list_{of}{{group=\"\",resource=\"secrets\"}}")))
    };
    assert_eq!(counted(), [None; 4]);
    registry.list_at(&served, &Filter::of(Scope::All), &ListOptions::default(), then).await.expect("listed");
    assert_eq!(counted(), [Some(1.0); 4]);
    let past = registry.versions(&served, ("default", "s"), (0, 0), 0).await.expect("told");
    let told = |past: crate::registry::Past| -> Vec<String> {
        let told = past.versions.into_iter().map(|version| match version.became {
            Became::Added(entry) | Became::Modified(entry) => value(&entry),
            Became::Removed => "removed".to_owned(),
            Became::Unreadable(why) => why,
        });
        told.collect()
    };
    assert_eq!(told(past), ["c2VjcmV0", "c2VjcmV0"]);
    let raw = home.engine.versions(Bytes::from_static(KEY.as_bytes()), 0, 0).await.expect("told").versions;
    let encrypted = |v: &store::Version| v.kv.as_ref().is_some_and(|kv| kv.value.starts_with(b"k8s:enc:"));
    assert!(raw.iter().all(encrypted), "the engine has them encrypted");
    // Without its key, what was there is an error, not absent.
    let registry = home.with(&[SECOND]).await;
    assert_eq!(get(&registry).await.expect("readable").str_at(&["data", "a"]), "c2VjcmV0");
    let lost = registry.get_at(&served, "default", "s", then).await.expect_err("its key is gone");
    assert_eq!(lost.code, 500);
    let past = registry.versions(&served, ("default", "s"), (0, 0), 0).await.expect("told");
    let [now, then] = &told(past)[..] else { panic!("two versions") };
    assert_eq!(now, "c2VjcmV0");
    assert!(then.starts_with("unable to transform key"), "{then}");
    assert!(lost.message.contains("unable to transform key \"/registry/secrets/default/s\""), "{}", lost.message);
}

/// What a server tells of its encryption: the number of a series, if it is told.
fn told_of(registry: &Registry, series: &str) -> Option<f64> {
    let mut text = String::new();
    registry.measures().render(&mut text).expect("a String takes every write");
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test]
async fn values_are_counted_by_who_transforms_them() {
    let home = Home::new();
    let operations = |status: &str, way: &str, prefix: &str| {
        format!(
            "apiserver_storage_transformation_operations_total{{status=\"{status}\",transformation_type=\"{way}\",transformer_prefix=\"{prefix}\"}}"
        )
    };
    let first = home.with(&[FIRST]).await;
    create(&first, "s").await.expect("created");
    for prefix in ["k8s:enc:aescbc:v1:", "key1:"] {
        assert_eq!(told_of(&first, &operations("OK", "to_storage", prefix)), Some(1.0), "{prefix}");
        let timed = "apiserver_storage_transformation_duration_seconds_count";
        let timed = format!("{timed}{{transformation_type=\"to_storage\",transformer_prefix=\"{prefix}\"}}");
        assert_eq!(told_of(&first, &timed), Some(1.0), "{prefix}");
    }
    // Neither the key nor the provider of the value is there.
    let second = home.with(&[SECOND]).await;
    let unknown = operations("unknown-non-grpc", "from_storage", "unknown");
    assert!(told_of(&second, &unknown).is_some_and(|count| count >= 1.0));
    assert_eq!(told_of(&second, &operations("OK", "from_storage", "key2:")), None);
    let without = Registry::open(home.engine.clone()).await.expect("a registry");
    assert_eq!(told_of(&without, &unknown), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugins_calls_and_keys_are_counted() {
    let home = Home::new();
    let (plugin, socket) = (fake(), home.directory.path().join("kms.sock"));
    let kms = format!("kms: {{apiVersion: v2, name: p, endpoint: \"unix://{}\", timeout: 10s}}", socket.display());
    let serving = serve(&plugin, &socket);
    let writer = home.with(&[&kms]).await;
    create(&writer, "s").await.expect("created");
    let calls = |method: &str, status: &str| {
        format!(
            "apiserver_envelope_encryption_kms_operations_latency_seconds_count{{grpc_status_code=\"{status}\",method_name=\"/v2.KeyManagementService/{method}\",provider_name=\"p\"}}"
        )
    };
    assert_eq!(told_of(&writer, &calls("Encrypt", "OK")), Some(1.0));
    assert_eq!(told_of(&writer, &calls("Decrypt", "OK")), None);
    assert_eq!(told_of(&writer, "apiserver_storage_data_key_generation_duration_seconds_count"), Some(1.0));
    let seeds = "apiserver_envelope_encryption_dek_source_cache_size{provider_name=\"p\"}";
    assert_eq!(told_of(&writer, seeds), Some(1.0));
    let used = |registry: &Registry, way: &str| {
        let mut text = String::new();
        registry.measures().render(&mut text).expect("a String takes every write");
        let ends = format!(
            "key_id_hash=\"{}\",provider_name=\"p\",transformation_type=\"{way}\"}} ",
            super::measures::hash("k1")
        );
        let total = text.lines().filter(|line| line.starts_with("apiserver_envelope_encryption_key_id_hash_total{"));
        total.filter_map(|line| line.split_once(&*ends)?.1.parse::<u64>().ok()).sum::<u64>()
    };
    assert_eq!(used(&writer, "to_storage"), 1);
    plugin.refuses.store(true, Ordering::SeqCst);
    let reader = home.start(false).await;
    list(&reader).await.expect_err("unreadable");
    assert!(told_of(&reader, &calls("Decrypt", "NotFound")).is_some_and(|count| count >= 1.0));
    assert_eq!(used(&reader, "from_storage"), 0);
    plugin.refuses.store(false, Ordering::SeqCst);
    until("all is read", || async { list(&reader).await.is_ok() }).await;
    assert!(used(&reader, "from_storage") >= 1);
    let misses = "apiserver_storage_envelope_transformation_cache_misses_total";
    assert!(told_of(&reader, misses).is_some_and(|count| count >= 2.0));
    serving.abort();
}
