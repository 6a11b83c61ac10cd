//! What pods there are, and how the kubelet is set.

use std::sync::Arc;

use http::Response;
use k8s_openapi::{
    List,
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::json;

use super::{Body, json};
use crate::{kubelet::Shared, pod::view::Snapshot, spec::PodExt};

/// The pods as the kubelet sees them.
pub(super) fn list(shared: &Arc<Shared>) -> Response<Body> {
    let of = |snapshot: Snapshot| {
        let mut pod = (*snapshot.pod).clone();
        pod.status = Some((*snapshot.status).clone());
        pod
    };
    let mut items: Vec<Pod> = shared.pods.all().into_iter().map(of).collect();
    items.sort_by(|a, b| (a.namespace(), a.name()).cmp(&(b.namespace(), b.name())));
    json(&List { items, ..List::default() })
}

/// The pods that the runtime runs, as far as it knows them.
pub(super) fn running(shared: &Arc<Shared>) -> Response<Body> {
    let items: Vec<Pod> = shared
        .pods
        .all()
        .into_iter()
        .filter(|snapshot| snapshot.observed.is_alive())
        .map(|snapshot| Pod {
            metadata: ObjectMeta {
                name: Some(snapshot.pod.name().to_owned()),
                namespace: Some(snapshot.pod.namespace().to_owned()),
                uid: Some(snapshot.pod.uid().to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                containers: snapshot
                    .observed
                    .running()
                    .map(|container| Container {
                        name: container.name.clone(),
                        image: Some(container.image.clone()),
                        ..Container::default()
                    })
                    .collect(),
                ..PodSpec::default()
            }),
            ..Pod::default()
        })
        .collect();
    json(&List { items, ..List::default() })
}

/// The settings, in the form of upstream's configuration file.
pub(super) fn configz(shared: &Arc<Shared>) -> Response<Body> {
    let cfg = &shared.cfg;
    let dns: Vec<String> = cfg.cluster_dns.iter().map(ToString::to_string).collect();
    json(&json!({"kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": cfg.bind_address.to_string(),
        "port": cfg.port,
        "staticPodPath": cfg.static_pod_path,
        "authentication": {
            "x509": {},
            "webhook": {"enabled": true, "cacheTTL": "2m0s"},
            "anonymous": {"enabled": false},
        },
        "authorization": {"mode": "Webhook", "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"}},
        "clusterDomain": cfg.cluster_domain,
        "clusterDNS": dns,
        "nodeStatusUpdateFrequency": "10s",
        "nodeStatusReportFrequency": "5m0s",
        "nodeLeaseDurationSeconds": 40,
        "imageMinimumGCAge": crate::duration::go(cfg.image_gc.min_age),
        "imageGCHighThresholdPercent": cfg.image_gc.high_percent,
        "imageGCLowThresholdPercent": cfg.image_gc.low_percent,
        "cgroupRoot": cfg.cgroup_root,
        "cgroupsPerQOS": true,
        "cgroupDriver": "cgroupfs",
        "maxPods": cfg.max_pods,
        "podPidsLimit": cfg.pod_pids_limit.unwrap_or(-1),
        "containerLogMaxSize": api::quantity::Quantity::from_units(
            i64::try_from(cfg.container_logs.max_size).unwrap_or(i64::MAX),
            api::quantity::Format::BinarySi,
        ).to_string(),
        "containerLogMaxFiles": cfg.container_logs.max_files,
        "seccompDefault": cfg.seccomp_default,
        "serializeImagePulls": false,
        "maxParallelImagePulls": cfg.max_parallel_image_pulls,
        "containerRuntimeEndpoint": format!("unix://{}", shared.cri.socket().display()),
        "podLogsDir": cfg.pod_log_dir,
        "allowedUnsafeSysctls": cfg.allowed_unsafe_sysctls,
    }}))
}
