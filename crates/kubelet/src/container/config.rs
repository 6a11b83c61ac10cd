//! The configuration of a container.

use std::collections::BTreeMap;

use cri::v1;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{
    expand::expand,
    security::{self, ImageUser},
};
use crate::{
    config::Config,
    pod::observed::label,
    resources::{self, CPU, HUGE_PAGES, MEMORY},
    spec::{PodExt, container_hash, grace_period},
};

/// What a configuration is made from, beside the pod.
pub(crate) struct Input<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) restart_count: i32,
    /// What the image resolved to, and who it runs as.
    pub(crate) image_ref: &'a str,
    pub(crate) image_user: &'a ImageUser,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) mounts: Vec<v1::Mount>,
    /// The container whose processes an ephemeral one sees.
    pub(crate) target: Option<&'a str>,
    pub(crate) machine: &'a Machine,
}

/// What of the machine shows in a container's limits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) memory: u64,
    /// The sizes of huge pages that can be limited, as `2Mi`.
    pub(crate) huge_pages: Vec<(String, u64)>,
    pub(crate) cgroup_v2: bool,
}

/// Makes the configuration.
pub(crate) fn config(input: Input<'_>, cfg: &Config) -> v1::ContainerConfig {
    let Input { pod, container, restart_count, .. } = input;
    let lookup: BTreeMap<&str, &str> = input.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        let value = |name: &str| lookup.get(name).map(|value| (*value).to_owned());
        words.iter().flatten().map(|word| expand(word, value)).collect()
    };
    let (command, args) = (expanded(&container.command), expanded(&container.args));
    let defaults = security::Defaults { seccomp: cfg.seccomp_default, root: &cfg.root_dir };
    let signal = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: container.name.clone(),
            attempt: u32::try_from(restart_count).unwrap_or_default(),
        }),
        image: Some(v1::ImageSpec {
            image: input.image_ref.to_owned(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..v1::ImageSpec::default()
        }),
        command,
        args,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts: input.mounts,
        labels: labels(pod, container),
        annotations: annotations(pod, container, restart_count),
        log_path: log_path(&container.name, restart_count),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(limits(pod, container, input.machine)),
            security_context: Some(security::of_container(pod, container, input.image_user, input.target, defaults)),
        }),
        stop_signal: signal.and_then(v1::Signal::from_str_name).unwrap_or_default() as i32,
        envs: input.env.into_iter().map(|(key, value)| v1::KeyValue { key, value }).collect(),
        ..v1::ContainerConfig::default()
    }
}

/// A container's log, below the pod's directory of logs.
pub(crate) fn log_path(container: &str, restart_count: i32) -> String {
    format!("{container}/{restart_count}.log")
}

fn labels(pod: &Pod, container: &Container) -> BTreeMap<String, String> {
    BTreeMap::from(
        [
            (label::POD_NAME, pod.name()),
            (label::POD_NAMESPACE, pod.namespace()),
            (label::POD_UID, pod.uid()),
            (label::CONTAINER_NAME, &container.name),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    )
}

/// What a later kubelet must know of the container, even when the pod is gone from the API.
fn annotations(pod: &Pod, container: &Container, restart_count: i32) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from(
        [
            (label::HASH, format!("{:x}", container_hash(container))),
            (label::RESTART_COUNT, restart_count.to_string()),
            (label::TERMINATION_MESSAGE_PATH, container.termination_message_path.clone().unwrap_or_default()),
            (label::TERMINATION_MESSAGE_POLICY, container.termination_message_policy.clone().unwrap_or_default()),
            (label::TERMINATION_GRACE, grace_period(pod).to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    if let Some(grace) = pod.metadata.deletion_grace_period_seconds {
        all.insert(label::DELETION_GRACE.to_owned(), grace.to_string());
    }
    let pre_stop = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    let json = |key: &str, value: serde_json::Result<String>| value.ok().map(|value| (key.to_owned(), value));
    all.extend(pre_stop.and_then(|hook| json(label::PRE_STOP, serde_json::to_string(hook))));
    let ports = container.ports.as_ref().filter(|ports| !ports.is_empty());
    all.extend(ports.and_then(|ports| json(label::PORTS, serde_json::to_string(ports))));
    all
}

/// The limits of a container as the kernel takes them.
pub(crate) fn limits(pod: &Pod, container: &Container, machine: &Machine) -> v1::LinuxContainerResources {
    let own = container.resources.as_ref();
    let (requests, limits) = (resources::requests(own), resources::limits(own));
    let cpu_limit = resources::get(limits, CPU).milli_value();
    let cpu_request = resources::get(requests, CPU).milli_value();
    let asked = if cpu_request == 0 { cpu_limit } else { cpu_request };
    let memory = resources::get(limits, MEMORY).value();
    let hugepage_limits = machine
        .huge_pages
        .iter()
        .map(|(size, bytes)| v1::HugepageLimit {
            page_size: page_size(*bytes),
            limit: resources::get(limits, &format!("{HUGE_PAGES}{size}")).value().max(0).unsigned_abs(),
        })
        .collect();
    v1::LinuxContainerResources {
        cpu_period: resources::QUOTA_PERIOD,
        cpu_quota: resources::cpu_quota(cpu_limit),
        cpu_shares: i64::try_from(resources::cpu_shares(asked)).unwrap_or(i64::MAX),
        memory_limit_in_bytes: memory,
        // Containers don't swap.
        memory_swap_limit_in_bytes: memory,
        oom_score_adj: resources::oom_score_adj(pod, container, machine.memory),
        hugepage_limits,
        unified: if machine.cgroup_v2 {
            // A container that lost one process to the OOM killer is not left half alive.
            BTreeMap::from([("memory.oom.group".to_owned(), "1".to_owned())])
        } else {
            BTreeMap::new()
        },
        ..v1::LinuxContainerResources::default()
    }
}

/// A page size as cgroup files spell it: `2MB`, `1GB`.
pub(crate) fn page_size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{}GB", b >> 30),
        b if b >= 1 << 20 => format!("{}MB", b >> 20),
        b => format!("{}KB", b >> 10),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_is_told_what_it_is() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"terminationGracePeriodSeconds": 7, "containers": [{
                "name": "c", "image": "nginx", "command": ["sh", "-c", "echo $(A) $$(A) $(B)"], "args": ["$(A)"],
                "workingDir": "/w", "tty": true, "stdin": true,
                "terminationMessagePath": "/dev/termination-log",
                "lifecycle": {"stopSignal": "SIGUSR1", "preStop": {"sleep": {"seconds": 3}}},
                "resources": {"requests": {"cpu": "500m", "memory": "500Mi"}, "limits": {"cpu": "1", "memory": "4Gi"}}}]},
        }))
        .unwrap();
        let machine = Machine { memory: 16 << 30, huge_pages: vec![("2Mi".into(), 2 << 20)], cgroup_v2: true };
        let config = config(
            Input {
                pod: &pod,
                container: &pod.containers()[0],
                restart_count: 3,
                image_ref: "sha256:1",
                image_user: &ImageUser::told(None, ""),
                env: vec![("A".into(), "1".into())],
                mounts: Vec::new(),
                target: None,
                machine: &machine,
            },
            &Config::new("n", "127.0.0.1".parse().unwrap(), "/x"),
        );
        assert_eq!(config.command, ["sh", "-c", "echo 1 $(A) $(B)"]);
        assert_eq!(config.args, ["1"]);
        assert_eq!(config.log_path, "c/3.log");
        assert_eq!(config.metadata.unwrap().attempt, 3);
        assert_eq!(config.stop_signal, v1::Signal::Sigusr1 as i32);
        assert_eq!(config.labels["io.kubernetes.container.name"], "c");
        let hash = format!("{:x}", container_hash(&pod.containers()[0]));
        assert_eq!(config.annotations["io.kubernetes.container.hash"], hash);
        assert_eq!(config.annotations["io.kubernetes.container.preStopHandler"], "{\"sleep\":{\"seconds\":3}}");
        assert_eq!(config.annotations["io.kubernetes.pod.terminationGracePeriod"], "7");
        let limits = config.linux.unwrap().resources.unwrap();
        assert_eq!((limits.cpu_shares, limits.cpu_quota, limits.cpu_period), (512, 100_000, 100_000));
        assert_eq!(limits.memory_limit_in_bytes, 4 << 30);
        assert_eq!(limits.oom_score_adj, 970);
        assert_eq!(limits.unified["memory.oom.group"], "1");
        assert_eq!(limits.hugepage_limits[0].page_size, "2MB");
    }
}
