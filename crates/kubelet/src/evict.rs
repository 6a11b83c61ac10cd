//! Evicting pods when the node runs short of memory, disk or process ids: what uses more than it
//! asked for first, and what matters least.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use api::quantity::{Format, Quantity};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::{
    config::Threshold,
    disk,
    events::Severity,
    kubelet::Shared,
    node::{
        machine::{file_system, meminfo_bytes},
        status::Pressure,
    },
    pod::{
        admission::is_critical,
        conditions::DISRUPTION_TARGET,
        view::Snapshot,
        worker::{Eviction, Message},
    },
    resources::{self, EPHEMERAL_STORAGE, MEMORY},
    rpc,
    spec::PodExt,
};

const PERIOD: Duration = Duration::from_secs(10);

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Short {
    Memory,
    /// Bytes of the file system of volumes and logs.
    Storage,
    Inodes,
    /// Bytes or inodes of the file system of images.
    Images,
    Pids,
}

impl Short {
    fn resource(self) -> &'static str {
        match self {
            Short::Memory => MEMORY,
            Short::Storage | Short::Images => EPHEMERAL_STORAGE,
            Short::Inodes => "inodes",
            Short::Pids => "pids",
        }
    }
}

/// A reading below its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signal {
    short: Short,
    threshold: u64,
    available: u64,
}

/// What the node has left.
#[derive(Clone, Copy, Debug, Default)]
struct Readings {
    memory: (u64, u64),
    storage: (u64, u64),
    inodes: (u64, u64),
    images: (u64, u64),
    image_inodes: (u64, u64),
    pids: (u64, u64),
}

/// Reads now and then, evicts one pod at a time.
pub(crate) async fn run(shared: Arc<Shared>) {
    let images = image_dir(&shared).await;
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last: [Option<Timestamp>; 3] = [None; 3];
    loop {
        ticks.tick().await;
        let readings = read(&shared, &images);
        let signals = signals(&readings, &shared.cfg.eviction);
        let now = Timestamp::now();
        let has = |kinds: &[Short]| signals.iter().any(|signal| kinds.contains(&signal.short));
        let found = [has(&[Short::Memory]), has(&[Short::Storage, Short::Inodes, Short::Images]), has(&[Short::Pids])];
        // A condition stays a while, so that it doesn't flap.
        let mut is = [false; 3];
        for index in 0..3 {
            if found[index] {
                last[index] = Some(now);
            }
            let period = shared.cfg.eviction.transition_period;
            is[index] = last[index].is_some_and(|at| now.duration_since(at).unsigned_abs() < period);
        }
        shared.node.set_pressure(Pressure { memory: is[0], disk: is[1], pids: is[2] });
        if let Some(signal) = signals.first() {
            relieve(&shared, *signal, &images).await;
        }
        enforce_storage_limits(&shared).await;
    }
}

/// Where the runtime keeps its images.
async fn image_dir(shared: &Shared) -> PathBuf {
    match shared.cri.image().image_fs_info(cri::v1::ImageFsInfoRequest {}).await {
        Ok(answer) => answer
            .into_inner()
            .image_filesystems
            .first()
            .and_then(|fs| fs.fs_id.as_ref())
            .map_or_else(|| shared.cfg.root_dir.clone(), |id| PathBuf::from(&id.mountpoint)),
        Err(status) => {
            tracing::debug!(status = rpc::text(&status), "the runtime doesn't tell where its images are");
            shared.cfg.root_dir.clone()
        }
    }
}

fn read(shared: &Shared, images: &std::path::Path) -> Readings {
    let mut readings = Readings::default();
    if let Ok(text) = fs::read_to_string("/proc/meminfo") {
        readings.memory = (meminfo_bytes(&text, "MemAvailable:"), meminfo_bytes(&text, "MemTotal:"));
    }
    if let Some(fs) = file_system(&shared.cfg.root_dir) {
        readings.storage = (fs.available, fs.usable);
        readings.inodes = (fs.inodes_free, fs.inodes);
    }
    if let Some(fs) = file_system(images) {
        readings.images = (fs.available, fs.usable);
        readings.image_inodes = (fs.inodes_free, fs.inodes);
    }
    readings.pids = pids();
    readings
}

/// Process ids left and in all.
fn pids() -> (u64, u64) {
    let number = |path: &str| -> u64 {
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
    };
    let most = number("/proc/sys/kernel/pid_max").min(number("/proc/sys/kernel/threads-max"));
    let loads = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let used: u64 =
        loads.split_whitespace().nth(3).and_then(|field| field.split('/').nth(1)?.parse().ok()).unwrap_or_default();
    (most.saturating_sub(used), most)
}

/// What is below its threshold, memory first.
fn signals(readings: &Readings, settings: &crate::config::Eviction) -> Vec<Signal> {
    let rows: [(Short, (u64, u64), Option<Threshold>); 6] = [
        (Short::Memory, readings.memory, settings.memory_available),
        (Short::Storage, readings.storage, settings.nodefs_available),
        (Short::Inodes, readings.inodes, settings.nodefs_inodes_free),
        (Short::Images, readings.images, settings.imagefs_available),
        (Short::Images, readings.image_inodes, settings.imagefs_inodes_free),
        (Short::Pids, readings.pids, settings.pid_available),
    ];
    rows.into_iter()
        .filter_map(|(short, (available, capacity), threshold)| {
            // File systems without inodes of their own tell none.
            let threshold = threshold.filter(|_| capacity > 0)?.of(capacity);
            (available < threshold).then_some(Signal { short, threshold, available })
        })
        .collect()
}

/// What is still short after something was reclaimed.
fn still_short(signal: Signal, readings: &Readings, settings: &crate::config::Eviction) -> Option<Signal> {
    signals(readings, settings).into_iter().find(|now| now.short == signal.short)
}

async fn relieve(shared: &Arc<Shared>, mut signal: Signal, images: &std::path::Path) {
    tracing::warn!(?signal, "the node runs short");
    let name = shared.cfg.node_name.clone();
    let reclaim = format!("Attempting to reclaim {}", signal.short.resource());
    shared.events.node(&name, Severity::Warning, "EvictionThresholdMet", reclaim);
    if matches!(signal.short, Short::Images | Short::Storage | Short::Inodes) {
        // No pod has to go for what this frees.
        crate::image::gc::free_all(shared).await;
        match still_short(signal, &read(shared, images), &shared.cfg.eviction) {
            Some(now) => signal = now,
            None => return,
        }
    }
    let mut candidates: Vec<(Snapshot, u64)> = Vec::new();
    for snapshot in shared.pods.all() {
        if !snapshot.finished && !is_critical(&snapshot.pod) {
            let used = usage(shared, &snapshot, signal.short).await;
            candidates.push((snapshot, used));
        }
    }
    candidates.sort_by_key(|(snapshot, used)| rank(snapshot, *used, signal.short));
    let Some((victim, used)) = candidates.first() else {
        tracing::warn!("no pod can be evicted");
        return;
    };
    evict(shared, victim, message(victim, *used, signal));
}

/// Evicts pods that use more local storage than they are allowed: of an emptyDir, by a container,
/// or all together. Only pods with such limits cost anything.
async fn enforce_storage_limits(shared: &Arc<Shared>) {
    for snapshot in shared.pods.all() {
        if snapshot.finished || !has_storage_limits(&snapshot.pod) {
            continue;
        }
        if let Some(message) = excess(shared, &snapshot).await {
            evict(shared, &snapshot, message);
        }
    }
}

fn storage_limit(container: &Container) -> Option<u64> {
    let limit = resources::get(resources::limits(container.resources.as_ref()), EPHEMERAL_STORAGE);
    u64::try_from(limit.value()).ok().filter(|limit| *limit > 0)
}

/// Directories on disk with a limit: volume, limit in bytes and as written.
fn limited_dirs(pod: &Pod) -> impl Iterator<Item = (&str, u64, &str)> {
    pod.spec().volumes.iter().flatten().filter_map(|volume| {
        let source = volume.empty_dir.as_ref()?;
        let limit = source.size_limit.as_ref()?;
        let on_disk = source.medium.as_deref().unwrap_or_default().is_empty();
        let bytes = u64::try_from(resources::parse(limit).value()).ok()?;
        (on_disk && bytes > 0).then_some((volume.name.as_str(), bytes, limit.0.as_str()))
    })
}

fn has_storage_limits(pod: &Pod) -> bool {
    limited_dirs(pod).next().is_some() || pod.containers().iter().any(|c| storage_limit(c).is_some())
}

/// What a pod uses too much of, in upstream's words.
async fn excess(shared: &Shared, snapshot: &Snapshot) -> Option<String> {
    let pod = &snapshot.pod;
    for (name, limit, text) in limited_dirs(pod) {
        let dir = shared.cfg.volume_dir(pod.uid(), "kubernetes.io~empty-dir", name);
        if disk::usage(vec![dir]).await > limit {
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {text:?}. "));
        }
    }
    let limits: Vec<Option<u64>> = pod.containers().iter().map(storage_limit).collect();
    if limits.iter().all(Option::is_none) {
        return None;
    }
    let logs = shared.cfg.logs_dir(pod.namespace(), pod.name(), pod.uid());
    let mut total = disk::usage(vec![shared.cfg.pod_dir(pod.uid()).join("volumes/kubernetes.io~empty-dir")]).await;
    for (container, limit) in pod.containers().iter().zip(&limits) {
        let of_logs = disk::usage(vec![logs.join(&container.name)]).await;
        let used = of_logs + writable_layer(shared, snapshot, &container.name).await;
        total += used;
        if limit.is_some_and(|limit| used > limit) {
            let text = resources::get(resources::limits(container.resources.as_ref()), EPHEMERAL_STORAGE);
            return Some(format!(
                "Container {} exceeded its local ephemeral storage limit {:?}. ",
                container.name,
                text.to_string()
            ));
        }
    }
    let sum = resources::pod_limits(pod).get(EPHEMERAL_STORAGE).copied()?;
    let all_limited = limits.iter().all(Option::is_some);
    (all_limited && u64::try_from(sum.value()).is_ok_and(|sum| total > sum))
        .then(|| format!("Pod ephemeral local storage usage exceeds the total limit of containers {sum}. "))
}

async fn writable_layer(shared: &Shared, snapshot: &Snapshot, name: &str) -> u64 {
    let Some(container) = snapshot.observed.container(name).filter(|c| c.is_running()) else {
        return 0;
    };
    let request = cri::v1::ContainerStatsRequest { container_id: container.id.clone() };
    let answer = shared.cri.runtime().container_stats(request).await.ok();
    let layer = answer.and_then(|answer| answer.into_inner().stats?.writable_layer);
    layer.and_then(|layer| layer.used_bytes).map_or(0, |bytes| bytes.value)
}

fn evict(shared: &Shared, victim: &Snapshot, message: String) {
    let pod = &victim.pod;
    tracing::warn!(pod = pod.display(), message, "evicting a pod");
    shared.events.pod(pod, Severity::Warning, "Evicted", message.clone());
    let eviction = Eviction {
        reason: "Evicted".to_owned(),
        message: message.clone(),
        grace: Some(1),
        condition: Some(PodCondition {
            type_: DISRUPTION_TARGET.to_owned(),
            status: "True".to_owned(),
            reason: Some("TerminationByKubelet".to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(crate::pod::status::seconds(Timestamp::now()))),
            observed_generation: pod.metadata.generation,
            ..PodCondition::default()
        }),
    };
    shared.pods.tell(pod.uid(), Message::Evict(eviction));
}

async fn usage(shared: &Shared, snapshot: &Snapshot, short: Short) -> u64 {
    let pod = &snapshot.pod;
    match short {
        Short::Memory => {
            let path = shared.cgroups.pod(resources::qos(pod), pod.uid());
            shared.cgroups.usage(&path).map_or(0, |usage| usage.working_set)
        }
        Short::Storage | Short::Images | Short::Inodes => {
            let logs = shared.cfg.logs_dir(pod.namespace(), pod.name(), pod.uid());
            let volumes = shared.cfg.pod_dir(pod.uid()).join("volumes/kubernetes.io~empty-dir");
            disk::usage(vec![logs, volumes]).await
        }
        Short::Pids => 0,
    }
}

fn request(snapshot: &Snapshot, short: Short) -> u64 {
    let name = if short == Short::Memory { MEMORY } else { EPHEMERAL_STORAGE };
    let requests = resources::pod_requests(&snapshot.pod);
    let value = requests.get(name).map_or(0, Quantity::value);
    u64::try_from(value).unwrap_or_default()
}

/// Pods above their requests go first, then those of low priority, then those furthest above.
fn rank(snapshot: &Snapshot, used: u64, short: Short) -> (bool, i32, i64) {
    let above = i64::try_from(used).unwrap_or(i64::MAX) - i64::try_from(request(snapshot, short)).unwrap_or_default();
    (above <= 0, snapshot.pod.spec().priority.unwrap_or_default(), -above)
}

fn message(victim: &Snapshot, used: u64, signal: Signal) -> String {
    let bytes =
        |bytes: u64| Quantity::from_units(i64::try_from(bytes).unwrap_or(i64::MAX), Format::BinarySi).to_string();
    let mut text = format!(
        "The node was low on resource: {}. Threshold quantity: {}, available: {}. ",
        signal.short.resource(),
        bytes(signal.threshold),
        bytes(signal.available / 1024 * 1024),
    );
    let asked = request(victim, signal.short);
    if used > asked && signal.short != Short::Pids {
        for container in victim.pod.containers() {
            let request = resources::get(resources::requests(container.resources.as_ref()), signal.short.resource());
            text.push_str(&format!(
                "Container {} was using {}, request is {request}, has larger consumption of {}. ",
                container.name,
                bytes(used / 1024 * 1024),
                signal.short.resource(),
            ));
            if victim.pod.containers().len() > 1 {
                // Only the pod's whole use is known.
                break;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_below_their_thresholds_are_signals() {
        let settings = crate::config::Eviction::default();
        let fine = Readings {
            memory: (200 << 20, 1 << 30),
            storage: (20, 100),
            inodes: (20, 100),
            images: (20, 100),
            image_inodes: (0, 0),
            pids: (1, 100),
        };
        assert!(signals(&fine, &settings).is_empty());
        let low = Readings { memory: (99 << 20, 1 << 30), images: (14, 100), ..fine };
        let found = signals(&low, &settings);
        assert_eq!(found[0], Signal { short: Short::Memory, threshold: 100 << 20, available: 99 << 20 });
        assert_eq!(found[1], Signal { short: Short::Images, threshold: 15, available: 14 });
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn no_pod_goes_for_what_images_gave_back() {
        let settings = crate::config::Eviction::default();
        let fine = Readings {
            memory: (200 << 20, 1 << 30),
            storage: (20, 100),
            inodes: (20, 100),
            images: (20, 100),
            image_inodes: (20, 100),
            pids: (90, 100),
        };
        let short = Readings { storage: (5, 100), inodes: (1, 100), ..fine };
        for signal in signals(&short, &settings) {
            assert_eq!(still_short(signal, &fine, &settings), None);
            assert_eq!(still_short(signal, &short, &settings), Some(signal));
        }
    }
}
