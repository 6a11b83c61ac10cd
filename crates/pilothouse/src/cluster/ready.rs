//! When the cluster is ready: the API says so, this process renewed the node's Lease, the node is Ready, DNS answers.

use super::Settings;
use super::control_plane::ControlPlane;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use apiserver::user::UserInfo;
use futures::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, WatchEvent, WatchParams};
use kube::core::ApiResource;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::watch;

/// A cluster that isn't ready after this won't be.
const PATIENCE: Duration = Duration::from_secs(120);
const DNS_TRY: Duration = Duration::from_millis(100);

/// Waits for everything, ticking it off.
///
/// # Errors
/// What is still missing when patience ends.
pub async fn wait(
    settings: &Settings,
    plane: &ControlPlane,
    dns: watch::Receiver<Option<Vec<SocketAddr>>>,
    started: Timestamp,
    progress: &Progress,
) -> Result<()> {
    let client = plane.client(UserInfo::apiserver(), "pilothouse");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let api = async {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        let text = client.request_text(request).await.context("/readyz")?;
        if text != "ok" {
            bail!("/readyz says {text:?}");
        }
        progress.done("/readyz", "ok");
        Ok(())
    };
    let node = &settings.node_name;
    let lease = async {
        let leases: Api<DynamicObject> = Api::namespaced_with(
            client.clone(),
            "kube-node-lease",
            &resource("coordination.k8s.io", "Lease", "leases"),
        );
        until(&leases, node, |lease| {
            let renewed = lease.data.pointer("/spec/renewTime").and_then(Value::as_str);
            renewed.and_then(|t| t.parse::<Timestamp>().ok()).is_some_and(|t| t >= started)
        })
        .await?;
        progress.done("node's lease", "renewed by this process");
        Ok(())
    };
    let ready = async {
        let nodes: Api<DynamicObject> = Api::all_with(client.clone(), &resource("", "Node", "nodes"));
        until(&nodes, node, |node| {
            let conditions = node.data.pointer("/status/conditions").and_then(Value::as_array);
            conditions.into_iter().flatten().any(|c| {
                // As judged by this process's kubelet, not left by the one before.
                let heard = c["lastHeartbeatTime"].as_str().and_then(|t| t.parse::<Timestamp>().ok());
                c["type"] == "Ready"
                    && c["status"] == "True"
                    && heard.is_some_and(|t| t.as_second() >= started.as_second())
            })
        })
        .await?;
        progress.done("node is Ready", node);
        Ok(())
    };
    let names = async {
        let server = answers(settings, dns).await?;
        progress.done("DNS answers", &server.to_string());
        Ok(())
    };
    let of_node = async {
        if settings.node.is_none() {
            return Ok(());
        }
        let (a, b) = tokio::join!(lease, ready);
        a.and(b)
    };
    let all = async {
        let (a, b, c) = tokio::join!(api, of_node, names);
        a.and(b).and(c)
    };
    match tokio::time::timeout_at(deadline, all).await {
        Ok(outcome) => outcome,
        Err(_) => bail!(
            "the cluster was not ready after {} s: see above which checks are missing, and run it again with RUST_LOG=info to see why",
            PATIENCE.as_secs()
        ),
    }
}

fn resource(group: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: "v1".to_owned(),
        api_version: if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// Waits until an object is there and as it should be.
async fn until(api: &Api<DynamicObject>, name: &str, holds: impl Fn(&DynamicObject) -> bool) -> Result<()> {
    loop {
        let params = WatchParams::default().fields(&format!("metadata.name={name}"));
        // From version 0: what is there comes first.
        let events = api.watch(&params, "0").await?;
        let mut events = std::pin::pin!(skip_broken(events));
        while let Some(event) = events.next().await {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) if holds(&object) => return Ok(()),
                _ => {}
            }
        }
    }
}

fn skip_broken(
    events: impl Stream<Item = kube::Result<WatchEvent<DynamicObject>>>,
) -> impl Stream<Item = WatchEvent<DynamicObject>> {
    events.inspect_err(|e| tracing::debug!("a watch failed: {e}")).filter_map(|e| async { e.ok() })
}

/// Asks for the API's own name, through the Service as a pod would if this machine is a node, until it is answered.
async fn answers(settings: &Settings, mut dns: watch::Receiver<Option<Vec<SocketAddr>>>) -> Result<SocketAddr> {
    let listening = dns.wait_for(Option::is_some).await.context("cluster DNS never listened")?.clone();
    let query = query(&format!("kubernetes.default.svc.{}", settings.args.cluster_domain));
    let wanted = settings.args.service_cidr.nth(1).octets();
    let service = SocketAddr::new(settings.dns_ip, 53);
    let server = match settings.node {
        Some(_) => service,
        None => listening.and_then(|l| l.first().copied()).unwrap_or(service),
    };
    loop {
        let ask = async {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).await?;
            socket.connect(server).await?;
            socket.send(&query).await?;
            let mut answer = [0; 512];
            let len = socket.recv(&mut answer).await?;
            Ok::<bool, std::io::Error>(answer[..len].windows(4).any(|w| w == wanted))
        };
        match tokio::time::timeout(DNS_TRY, ask).await {
            Ok(Ok(true)) => return Ok(server),
            Ok(Ok(false)) => tracing::debug!("DNS doesn't know the API's name yet"),
            Ok(Err(e)) => tracing::debug!("DNS isn't reached yet: {e}"),
            Err(_) => continue,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A question for the A record of a name (RFC 1035).
fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0x70, 0x68, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|l| !l.is_empty()) {
        message.push(u8::try_from(label.len()).unwrap_or(63));
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}
