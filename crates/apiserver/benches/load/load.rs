//! Requests by many clients at once, and what they cost the server.

use crate::Fallible;
use crate::client::Connections;
use crate::process::Server;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;
use std::time::{Duration, Instant};

/// Requests on their way at once.
const CLIENTS: usize = 64;
/// Pods are spread over so many nodes.
const NODES: usize = 5_000;
/// So many pods have the label that few have.
const FEW: usize = 10;
const PODS: &str = "/api/v1/namespaces/default/pods";

/// What some operations took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub operations: usize,
    pub cpu: Duration,
    pub time: Duration,
}

impl Cost {
    pub fn micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.operations as f64
    }

    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.time.as_secs_f64()
    }
}

#[derive(Clone, Debug)]
pub struct Load {
    connections: Connections,
}

impl Load {
    pub fn new(connections: Connections) -> Self {
        Load { connections }
    }

    pub async fn create(&self, server: &Server, count: usize) -> Fallible<Cost> {
        self.create_from(server, 0, count).await
    }

    /// Creates pods of these numbers; each is on a node, as one that was scheduled.
    pub async fn create_from(&self, server: &Server, first: usize, count: usize) -> Fallible<Cost> {
        self.many(server, count, |n| {
            let body = pod(first + n).to_string().into_bytes();
            self.connections.request("POST", PODS, Some("application/json"), body.into())
        })
        .await
    }

    pub async fn get(&self, server: &Server, count: usize, of: usize) -> Fallible<Cost> {
        self.many(server, count, |n| {
            let path = format!("{PODS}/{}", name(n * 7919 % of));
            self.connections.request("GET", &path, None, Bytes::new())
        })
        .await
    }

    pub async fn patch_status(&self, server: &Server, count: usize, of: usize) -> Fallible<Cost> {
        self.many(server, count, |n| self.status_patch(n * 7919 % of, n)).await
    }

    /// A kubelet's patch of a status; different each time.
    fn status_patch(&self, pod: usize, turn: usize) -> Fallible<http::Request<http_body_util::Full<Bytes>>> {
        let at = |seconds: usize| {
            format!("2026-01-01T{:02}:{:02}:{:02}Z", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
        };
        let condition = |type_: &str| json!({"type": type_, "status": "True", "lastTransitionTime": at(turn)});
        let patch = json!({"status": {"phase": "Running", "podIP": "10.244.3.4", "hostIP": "192.0.2.7", "startTime": at(turn),
            "conditions": [condition("Ready"), condition("ContainersReady"), condition("Initialized")],
            "containerStatuses": [{"name": "main", "ready": true, "started": true, "restartCount": turn, "imageID": "sha256:0123",
                "image": "registry.example.com/team/application:1.2.3", "containerID": format!("pilothouse://{turn:064x}"),
                "state": {"running": {"startedAt": at(turn)}}}]}});
        let kind = Some("application/strategic-merge-patch+json");
        self.connections.request(
            "PATCH",
            &format!("{PODS}/{}/status", name(pod)),
            kind,
            patch.to_string().into_bytes().into(),
        )
    }

    /// Writes something into a pod's annotation by which its event is known.
    pub async fn mark(&self, pod: usize, mark: &str) -> Fallible {
        let patch = json!({"metadata": {"annotations": {"bench": mark}}}).to_string().into_bytes();
        let kind = Some("application/merge-patch+json");
        let request = self.connections.request("PATCH", &format!("{PODS}/{}", name(pod)), kind, patch.into())?;
        self.connections.done(request).await.map(drop)
    }

    pub async fn delete(&self, server: &Server, count: usize) -> Fallible<Cost> {
        self.many(server, count, |n| {
            let path = format!("{PODS}/{}?gracePeriodSeconds=0", name(n));
            self.connections.request("DELETE", &path, None, Bytes::new())
        })
        .await
    }

    /// Lists one after the other; the cost, and the bytes of one.
    pub async fn list(&self, server: &Server, count: usize, query: &str) -> Fallible<(Cost, f64)> {
        let (cpu, begun, mut size) = (server.cpu()?, Instant::now(), 0);
        for _ in 0..count {
            size = self.connections.get(&format!("{PODS}{query}")).await?;
        }
        let cost = Cost { operations: count, cpu: server.cpu()? - cpu, time: begun.elapsed() };
        Ok((cost, size as f64))
    }

    async fn many(
        &self,
        server: &Server,
        count: usize,
        request: impl Fn(usize) -> Fallible<http::Request<http_body_util::Full<Bytes>>>,
    ) -> Fallible<Cost> {
        let (cpu, begun) = (server.cpu()?, Instant::now());
        let requests = futures::stream::iter(0..count).map(|n| {
            let made = request(n);
            async move { self.connections.done(made?).await.map(drop) }
        });
        requests.buffer_unordered(CLIENTS).try_collect::<()>().await?;
        Ok(Cost { operations: count, cpu: server.cpu()? - cpu, time: begun.elapsed() })
    }
}

fn name(n: usize) -> String {
    format!("application-7d4b9c6f5d-{n:07}")
}

/// The node that a pod is on.
pub fn node_of(n: usize) -> usize {
    n % NODES
}

/// A pod of about 3.4 KiB as it is stored, like those that upstream was measured with.
fn pod(n: usize) -> serde_json::Value {
    let variables: Vec<_> = (0..4)
        .map(|v| json!({"name": format!("VARIABLE_{v}"), "value": format!("value number {v} of the pod")}))
        .collect();
    let mut labels = json!({"app": "application", "pod-template-hash": "7d4b9c6f5d", "tier": "backend"});
    if n < FEW {
        labels["only"] = "these".into();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name(n), "labels": labels}, "spec": {
        "nodeName": format!("node-{}", node_of(n)),
        "containers": [{"name": "main", "image": "registry.example.com/team/application:1.2.3", "env": variables,
            "args": ["--listen=0.0.0.0:8080", "--log-format=json"],
            "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
            "ports": [{"containerPort": 8080, "name": "http"}],
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 5}}]}})
}
