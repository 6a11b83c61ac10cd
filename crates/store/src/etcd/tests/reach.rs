//! Reaching etcd: TLS with client certificates, and what is told when that goes wrong.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::server::Cluster;
use crate::etcd::Options;
use crate::suite::{get, put};
use crate::{Error, Etcd};

/// Writes `ca.crt`, and `server` and `client` certificates with their keys.
pub(crate) fn certificates(directory: &Path) {
    let key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let write = |name: &str, text: String| std::fs::write(directory.join(name), text).expect("written");
    write("ca.crt", ca.self_signed(&key).expect("signed").pem());
    let issuer = Issuer::new(ca, key);
    for name in ["server", "client"] {
        let key = KeyPair::generate().expect("a key");
        let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        // etcd's gateway dials its own port with the server's certificate.
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        write(&format!("{name}.crt"), leaf.signed_by(&key, &issuer).expect("signed").pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

struct Secured(Child);

impl Drop for Secured {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(directory: &Path) -> (Secured, u16) {
    // etcd can't be asked which port it took.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let url = format!("https://127.0.0.1:{port}");
    let child = Command::new("/usr/bin/etcd")
        .current_dir(directory)
        .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
        .args(["--data-dir", "data", "--log-level", "error", "--heartbeat-interval", "10", "--election-timeout", "100"])
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", "unix://peer:1", "--initial-advertise-peer-urls", "unix://peer:1"])
        .args(["--initial-cluster", "default=unix://peer:1"])
        .args([
            "--client-cert-auth",
            "--trusted-ca-file",
            "ca.crt",
            "--cert-file",
            "server.crt",
            "--key-file",
            "server.key",
        ])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(directory.join("log")).expect("a log"))
        .spawn()
        .expect("etcd starts (Debian's package etcd-server)");
    (Secured(child), port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_are_shown_and_demanded() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    certificates(path);
    let (_etcd, port) = start(path);
    let url = format!("https://127.0.0.1:{port}");
    let (ca, certificate, key) = (path.join("ca.crt"), path.join("client.crt"), path.join("client.key"));
    let options = Options::parse(&url, Some(&ca), Some(&certificate), Some(&key)).expect("options");
    let store = Etcd::connect(options).await.expect("etcd answers");
    put(&*store, "/registry/a", "x").await;
    assert!(get(&*store, "/registry/a").await.is_some());
    let bare = Options::parse(&url, Some(&ca), None, None).expect("options");
    assert!(matches!(Etcd::connect(bare).await.err(), Some(Error::Unavailable(_))), "refused without a certificate");
    let wrong = Options::parse(&url, Some(&ca), Some(&certificate), Some(&ca)).expect("options");
    let told = Etcd::connect(wrong).await.err().expect("refused").to_string();
    assert!(told.contains("--etcd-keyfile") && told.contains("ca.crt"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_of_different_clusters_are_refused() {
    let (one, other) = (Cluster::start(1), Cluster::start(1));
    let mut options = one.options();
    options.endpoints.extend(other.options().endpoints);
    // The second answers only some time after the first.
    let begun = Etcd::connect(other.options()).await;
    assert!(begun.is_ok());
    let told = Etcd::connect(options).await.err();
    assert!(matches!(&told, Some(Error::Invalid { reason, .. }) if reason.contains("different clusters")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_told_with_the_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let servers = format!("unix://{}", directory.path().join("absent").display());
    let options = Options::parse(&servers, None, None, None).expect("options");
    let told = Etcd::connect(options).await.err().expect("refused").to_string();
    assert!(told.contains("absent"), "{told}");
}
