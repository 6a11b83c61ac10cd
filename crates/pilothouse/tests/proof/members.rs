//! Two API servers on three members of etcd: they trust each other, and the leader is killed and paused, and a server killed.

use crate::Fallible;
use crate::arena::{isolated, rounds};
use crate::load::Load;
use crate::server::Server;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use nix::sys::signal::Signal;
use serde_json::json;
use store::testing::etcd::Cluster;

async fn who(client: Client) -> Fallible<String> {
    let review = Api::all(client).create(&PostParams::default(), &SelfSubjectReview::default()).await?;
    Ok(review.status.and_then(|s| s.user_info).and_then(|user| user.username).unwrap_or_default())
}

/// Certificates and tokens of one server are good for the other.
async fn trust(first: &Server, second: &Server) -> Fallible {
    let administrator = Client::try_from(second.config(first.data()).await?)?;
    assert_eq!(who(administrator).await?, "kubernetes-admin");
    let accounts: Api<ServiceAccount> = Api::default_namespaced(first.client().await?);
    let account = serde_json::from_value(json!({"metadata": {"name": "s"}}))?;
    accounts.create(&PostParams::default(), &account).await?;
    let request: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": []}}))?;
    let token = accounts.create_token_request("s", &PostParams::default(), &request).await?;
    let mut config = second.config(second.data()).await?;
    config.auth_info = kube::config::AuthInfo {
        token: token.status.and_then(|status| status.token).map(Into::into),
        ..kube::config::AuthInfo::default()
    };
    assert_eq!(who(Client::try_from(config)?).await?, "system:serviceaccount:default:s");
    Ok(())
}

#[test]
fn servers_of_one_etcd_share_their_authorities_or_are_refused() -> Fallible {
    isolated(async || {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir(path("etcd"))?;
        let etcd = Cluster::start(&path("etcd"), 1);
        let servers = format!("--etcd-servers=unix://{}", etcd.socket(0).display());
        let flags = [servers.as_str(), "--endpoint-reconciler-type=none"];
        let new = |name: &str, port, more: &[&str]| {
            Server::new(&path(name), &path(&format!("{name}.log")), port, &[&flags[..], more].concat())
        };
        // The first one makes the key that the others are given.
        let mut first = new("a", 6443, &[]);
        first.up().await?;
        let key = std::fs::read_to_string(path("a/pki/certificate.key"))?;
        let given = format!("--certificate-key={}", key.trim());
        let told = new("b", 6444, &[]).refused()?;
        assert!(told.contains("another server has put its CA into this etcd: give its certificate key"), "{told}");
        let told = new("b", 6444, &[&format!("--certificate-key={}", "ab".repeat(32))]).refused()?;
        assert!(told.contains("--certificate-key does not fit what etcd holds"), "{told}");
        let told = new("b", 6444, &["--certificate-key=abc"]).refused()?;
        assert!(told.contains("64 hexadecimal digits"), "{told}");
        let mut second = new("b", 6444, &[&given]);
        second.up().await?;
        trust(&first, &second).await?;
        // Once they are there, nobody needs to be told the key.
        second.end(Signal::SIGKILL)?;
        let mut second = new("b", 6444, &[]);
        second.up().await?;
        // One that has others, and one that does not use them.
        let mut elsewhere = Server::new(&path("c"), &path("c.log"), 6445, &[]);
        elsewhere.up().await?;
        elsewhere.end(Signal::SIGKILL)?;
        let told = new("c", 6445, &[&given]).refused()?;
        assert!(told.contains("holds others: start with an empty data directory"), "{told}");
        // Nothing of the keys can be read in etcd.
        for file in ["ca.key", "sa.key"] {
            let secret = std::fs::read_to_string(path("a/pki").join(file))?;
            let line = secret.lines().nth(1).ok_or("no key")?.to_owned();
            assert!(!leaks(&path("etcd"), line.as_bytes())?, "{file}");
        }
        Ok(())
    })
}

/// Whether a file below a directory has some bytes.
fn leaks(directory: &std::path::Path, bytes: &[u8]) -> Fallible<bool> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let found = if kind.is_dir() {
            leaks(&entry.path(), bytes)?
        } else {
            kind.is_file() && std::fs::read(entry.path())?.windows(bytes.len()).any(|window| window == bytes)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn losing_the_leader_of_etcd_or_a_server_loses_nothing() -> Fallible {
    isolated(async || {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir(path("etcd"))?;
        let mut etcd = Cluster::start(&path("etcd"), 3);
        let sockets: Vec<String> = (0..3).map(|n| format!("unix://{}", etcd.socket(n).display())).collect();
        let servers = format!("--etcd-servers={}", sockets.join(","));
        let secret = format!("--certificate-key={}", "5e".repeat(32));
        let flags = [servers.as_str(), secret.as_str(), "--endpoint-reconciler-type=none"];
        let mut first = Server::new(&path("a"), &path("a.log"), 6443, &flags);
        let mut second = Server::new(&path("b"), &path("b.log"), 6444, &flags);
        first.up().await?;
        second.up().await?;
        trust(&first, &second).await?;
        let mut load = Load::begin(&[&first, &second], 6, 4 << 10).await?;
        let rounds = rounds(3);
        for round in 0..rounds {
            load.acknowledged(100).await?;
            match round % 3 {
                0 => {
                    let leader = etcd.leader().await;
                    etcd.kill(leader);
                    load.acknowledged(100).await?;
                    etcd.run(leader);
                }
                1 => {
                    let leader = etcd.leader().await;
                    etcd.pause(leader);
                    load.acknowledged(100).await?;
                    etcd.resume(leader);
                }
                _ => {
                    load.set_up(false);
                    second.end(Signal::SIGKILL)?;
                    second.up().await?;
                    load.set_up(true);
                }
            }
        }
        load.acknowledged(100).await?;
        let summary = load.end(&first).await?;
        println!("etcd: {rounds} members or servers lost, {summary}");
        for server in [&mut first, &mut second] {
            server.end(Signal::SIGTERM)?;
        }
        Ok(())
    })
}
