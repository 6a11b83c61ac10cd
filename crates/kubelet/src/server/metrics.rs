//! Metrics in the text format of Prometheus.

use std::{fmt::Write as _, sync::Arc};

use http::{HeaderValue, Response, header};

use super::{Body, full, stats};
use crate::{kubelet::Shared, node::machine::meminfo_bytes, pod::observed::label, resources, spec::PodExt};

/// Metrics that grow with each call.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        if !labels.is_empty() {
            let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let all: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
            let _ = write!(self.0, "{{{}}}", all.join(","));
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn answer(self) -> Response<Body> {
        let mut response = Response::new(full(self.0));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
        response
    }
}

#[allow(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]
fn float(value: u64) -> f64 {
    value as f64
}

fn seconds(nanos: u64) -> f64 {
    float(nanos) / 1e9
}

/// The kubelet's own.
pub(super) fn own(shared: &Arc<Shared>) -> Response<Body> {
    let all = shared.pods.all();
    let mut out = Text::default();
    out.head("kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.");
    out.sample("kubelet_node_name", &[("node", &shared.cfg.node_name)], 1.0);
    out.head("kubelet_desired_pods", "gauge", "[ALPHA] The number of pods the kubelet is being instructed to run.");
    for (is_static, name) in [(false, ""), (true, "true")] {
        let count = all.iter().filter(|snapshot| snapshot.pod.is_static() == is_static).count();
        out.sample("kubelet_desired_pods", &[("static", name)], float(count as u64));
    }
    out.head("kubelet_running_pods", "gauge", "[BETA] Number of pods that have a running pod sandbox");
    let running = all.iter().filter(|s| s.observed.sandboxes.iter().any(|sandbox| sandbox.ready)).count();
    out.sample("kubelet_running_pods", &[], float(running as u64));
    out.head("kubelet_running_containers", "gauge", "[BETA] Number of containers currently running");
    for (state, name) in [
        (crate::pod::observed::State::Created, "created"),
        (crate::pod::observed::State::Exited, "exited"),
        (crate::pod::observed::State::Running, "running"),
        (crate::pod::observed::State::Unknown, "unknown"),
    ] {
        let count = all.iter().flat_map(|s| &s.observed.containers).filter(|c| c.state == state).count();
        out.sample("kubelet_running_containers", &[("container_state", name)], float(count as u64));
    }
    out.0.push_str(&shared.cfg.gates.metric());
    process(&mut out);
    out.answer()
}

/// What every process tells of itself.
fn process(out: &mut Text) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields are counted from behind the name, which may hold anything.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let field = |index: usize| -> u64 { fields.get(index).and_then(|field| field.parse().ok()).unwrap_or_default() };
    out.head("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.");
    out.sample("process_cpu_seconds_total", &[], float(field(11) + field(12)) / 100.0);
    out.head("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
    out.sample("process_resident_memory_bytes", &[], float(field(21) * 4096));
    let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    out.head("process_open_fds", "gauge", "Number of open file descriptors.");
    out.sample("process_open_fds", &[], float(descriptors as u64));
}

/// What the node, its pods and containers use.
pub(super) async fn resource(shared: &Arc<Shared>) -> Response<Body> {
    let of_runtime = stats::of_pods(shared).await;
    let mut out = Text::default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let used = meminfo_bytes(&meminfo, "MemTotal:").saturating_sub(meminfo_bytes(&meminfo, "MemAvailable:"));
    let containers: Vec<(Vec<(&str, String)>, &cri::v1::ContainerStats)> = of_runtime
        .iter()
        .filter_map(|pod| Some((pod.attributes.as_ref()?.metadata.as_ref()?, pod.linux.as_ref()?)))
        .flat_map(|(pod, linux)| {
            linux.containers.iter().filter_map(move |stats| {
                let name = stats.attributes.as_ref()?.labels.get(label::CONTAINER_NAME)?;
                let labels =
                    vec![("container", name.clone()), ("namespace", pod.namespace.clone()), ("pod", pod.name.clone())];
                Some((labels, stats))
            })
        })
        .collect();
    out.head(
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
    );
    for (labels, stats) in &containers {
        if let Some(value) = stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds) {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
            out.sample("container_cpu_usage_seconds_total", &labels, seconds(value.value));
        }
    }
    out.head("container_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the container in bytes");
    for (labels, stats) in &containers {
        if let Some(value) = stats.memory.as_ref().and_then(|memory| memory.working_set_bytes) {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
            out.sample("container_memory_working_set_bytes", &labels, float(value.value));
        }
    }
    out.head(
        "node_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
    );
    out.sample("node_cpu_usage_seconds_total", &[], seconds(stats::node_cpu_nanos()));
    out.head("node_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the node in bytes");
    out.sample("node_memory_working_set_bytes", &[], float(used));
    let pods: Vec<_> = shared
        .pods
        .all()
        .into_iter()
        .filter(|snapshot| !snapshot.finished)
        .filter_map(|snapshot| {
            let path = shared.cgroups.pod(resources::qos(&snapshot.pod), snapshot.pod.uid());
            Some((snapshot.clone(), shared.cgroups.usage(&path)?))
        })
        .collect();
    out.head(
        "pod_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
    );
    for (snapshot, usage) in &pods {
        let labels = [("namespace", snapshot.pod.namespace()), ("pod", snapshot.pod.name())];
        out.sample("pod_cpu_usage_seconds_total", &labels, seconds(usage.cpu_nanos));
    }
    out.head("pod_memory_working_set_bytes", "gauge", "[STABLE] Current working set of the pod in bytes");
    for (snapshot, usage) in &pods {
        let labels = [("namespace", snapshot.pod.namespace()), ("pod", snapshot.pod.name())];
        out.sample("pod_memory_working_set_bytes", &labels, float(usage.working_set));
    }
    out.head(
        "resource_scrape_error",
        "gauge",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
    );
    out.sample("resource_scrape_error", &[], 0.0);
    out.answer()
}

/// The base of what cAdvisor tells: the machine, and pods by their cgroups.
pub(super) async fn cadvisor(shared: &Arc<Shared>) -> Response<Body> {
    let mut out = Text::default();
    let machine = &shared.machine;
    out.head("machine_cpu_cores", "gauge", "Number of logical CPU cores.");
    out.sample("machine_cpu_cores", &[], float(machine.cpus));
    out.head("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.");
    out.sample("machine_memory_bytes", &[], float(machine.memory));
    let pods: Vec<_> = shared
        .pods
        .all()
        .into_iter()
        .filter(|snapshot| !snapshot.finished)
        .filter_map(|snapshot| {
            let path = shared.cgroups.pod(resources::qos(&snapshot.pod), snapshot.pod.uid());
            let usage = shared.cgroups.usage(&path)?;
            Some((snapshot, path, usage))
        })
        .collect();
    type Of = fn(&crate::cgroup::stats::Usage) -> f64;
    let rows: [(&str, &str, &str, Of); 4] = [
        ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", |u| {
            seconds(u.cpu_nanos)
        }),
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |u| float(u.memory),
        ),
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |u| float(u.working_set)),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |u| float(u.rss)),
    ];
    for (name, kind, help, of) in rows {
        out.head(name, kind, help);
        for (snapshot, path, usage) in &pods {
            let labels = [
                ("container", ""),
                ("id", path.as_str()),
                ("image", ""),
                ("name", ""),
                ("namespace", snapshot.pod.namespace()),
                ("pod", snapshot.pod.name()),
            ];
            out.sample(name, &labels, of(usage));
        }
    }
    out.answer()
}
