//! Static pods: manifests in a directory of the node, run without the API, and shown in it as
//! mirror pods.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use client::backoff::Backoff;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, Toleration},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams, Preconditions},
};
use nix::sys::inotify::AddWatchFlags;
use tokio::sync::mpsc;

use crate::{
    config::Config,
    inotify::Watcher,
    kubelet::Shared,
    spec::{HASH_ANNOTATION, MIRROR_ANNOTATION, PodExt, SEEN_ANNOTATION, SOURCE_ANNOTATION},
};

/// The manifests that are there now.
pub(crate) type Manifests = Vec<Arc<Pod>>;

/// What follows from a change.
pub(crate) enum Effect {
    /// Run this pod, or go on running it.
    Run(Arc<Pod>),
    /// Stop the pod of this uid.
    Stop(String),
    /// The pod of this uid has this mirror in the API.
    Mirror(String, Option<Arc<Pod>>),
}

/// Reads the directory of manifests now and whenever it changes.
pub(crate) fn watch(shared: &Arc<Shared>) -> mpsc::UnboundedReceiver<Manifests> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let Some(dir) = shared.cfg.static_pod_path.clone() else {
        // Open as long as the kubelet runs, and silent.
        let stop = shared.stop.clone();
        tokio::spawn(async move {
            stop.cancelled().await;
            drop(sender);
        });
        return receiver;
    };
    let shared = shared.clone();
    tokio::spawn(async move {
        loop {
            if let Err(error) = follow(&dir, &shared.cfg, &sender).await {
                tracing::warn!(dir = %dir.display(), %error, "the directory of static pods cannot be read; trying again");
            }
            if sender.is_closed() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(20)) => {}
                () = shared.stop.cancelled() => return,
            }
        }
    });
    receiver
}

async fn follow(dir: &Path, cfg: &Config, sender: &mpsc::UnboundedSender<Manifests>) -> io::Result<()> {
    let watcher = Watcher::new()?;
    let flags = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF;
    watcher.add(dir, flags)?;
    loop {
        if sender.send(read_dir(dir, cfg)?).is_err() {
            return Ok(());
        }
        if watcher.changed().await?.contains(AddWatchFlags::IN_DELETE_SELF) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it was removed"));
        }
    }
}

fn read_dir(dir: &Path, cfg: &Config) -> io::Result<Manifests> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut pods = Vec::new();
    for path in paths {
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if hidden || !path.is_file() {
            continue;
        }
        match fs::read_to_string(&path).map_err(|error| error.to_string()).and_then(|text| parse(&text)) {
            Ok(pod) => pods.push(Arc::new(complete(pod, &path, cfg))),
            Err(error) => tracing::error!(path = %path.display(), error, "a static pod's manifest cannot be read"),
        }
    }
    Ok(pods)
}

fn parse(text: &str) -> Result<Pod, String> {
    let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    match value.get("kind").and_then(serde_json::Value::as_str) {
        // By way of its text, as all other Pods: they are read by the same code.
        Some("Pod") => serde_json::from_str(&value.to_string()).map_err(|error| error.to_string()),
        kind => Err(format!("kind is {kind:?}, must be Pod")),
    }
}

/// Gives a manifest what the API server would have: name, uid and defaults.
fn complete(mut pod: Pod, path: &Path, cfg: &Config) -> Pod {
    let meta = &mut pod.metadata;
    meta.name = Some(format!("{}-{}", meta.name.as_deref().unwrap_or_default(), cfg.node_name));
    meta.namespace.get_or_insert_with(|| "default".to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(cfg.node_name.clone());
    spec.enable_service_links.get_or_insert(true);
    spec.restart_policy.get_or_insert_with(|| "Always".to_owned());
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".to_owned());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.security_context.get_or_insert_default();
    let inits = spec.init_containers.iter_mut().flatten();
    for container in spec.containers.iter_mut().chain(inits) {
        container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".to_owned());
        container.termination_message_policy.get_or_insert_with(|| "File".to_owned());
        let image = container.image.as_deref().unwrap_or_default();
        let latest = image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or_default().contains([':', '@']);
        let policy = if latest { "Always" } else { "IfNotPresent" };
        container.image_pull_policy.get_or_insert_with(|| policy.to_owned());
    }
    // A static pod stays whatever taints the node gets.
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    });
    let digest = ring::digest::digest(
        &ring::digest::SHA256,
        format!("{}\0{}\0{}", cfg.node_name, path.display(), serde_json::to_string(&pod).unwrap_or_default())
            .as_bytes(),
    );
    let hash: String = digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let meta = &mut pod.metadata;
    meta.uid.get_or_insert_with(|| hash.clone());
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(HASH_ANNOTATION.to_owned(), hash);
    annotations.insert(SOURCE_ANNOTATION.to_owned(), "file".to_owned());
    annotations.insert(SEEN_ANNOTATION.to_owned(), Timestamp::now().to_string());
    pod
}

type FullName = (String, String);

fn full_name(pod: &Pod) -> FullName {
    (pod.namespace().to_owned(), pod.name().to_owned())
}

/// The static pods that run and their mirrors.
pub(crate) struct Statics {
    shared: Arc<Shared>,
    running: HashMap<FullName, Arc<Pod>>,
    mirrors: BTreeMap<FullName, Arc<Pod>>,
    /// Mirrors are made once the API told which there are.
    listed: bool,
}

impl Statics {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, running: HashMap::new(), mirrors: BTreeMap::new(), listed: false }
    }

    /// The uids of the static pods.
    pub(crate) fn uids(&self) -> HashSet<String> {
        self.running.values().map(|pod| pod.uid().to_owned()).collect()
    }

    /// The manifests changed.
    pub(crate) fn changed(&mut self, manifests: Manifests) -> Vec<Effect> {
        let mut effects = Vec::new();
        let wanted: HashMap<FullName, Arc<Pod>> = manifests.into_iter().map(|pod| (full_name(&pod), pod)).collect();
        let same = |a: &Pod, b: &Pod| a.annotation(HASH_ANNOTATION) == b.annotation(HASH_ANNOTATION);
        self.running.retain(|name, pod| {
            let keep = wanted.get(name).is_some_and(|new| same(new, pod));
            if !keep {
                effects.push(Effect::Stop(pod.uid().to_owned()));
            }
            keep
        });
        for (name, pod) in wanted {
            if let std::collections::hash_map::Entry::Vacant(free) = self.running.entry(name) {
                free.insert(pod.clone());
                effects.push(Effect::Run(pod));
            }
        }
        effects.extend(self.reconcile());
        effects
    }

    /// The API has this mirror pod.
    pub(crate) fn mirror(&mut self, mirror: Arc<Pod>) -> Vec<Effect> {
        self.mirrors.insert(full_name(&mirror), mirror);
        self.reconcile()
    }

    pub(crate) fn mirror_gone(&mut self, mirror: &Pod) -> Vec<Effect> {
        let name = full_name(mirror);
        if self.mirrors.get(&name).is_some_and(|known| known.uid() == mirror.uid()) {
            self.mirrors.remove(&name);
        }
        self.reconcile()
    }

    /// The API was listed: mirrors that it didn't name are gone.
    pub(crate) fn listed(&mut self, uids: &HashSet<String>) -> Vec<Effect> {
        self.listed = true;
        self.mirrors.retain(|_, mirror| uids.contains(mirror.uid()));
        self.reconcile()
    }

    /// Makes and deletes mirrors so that each static pod has its own.
    fn reconcile(&mut self) -> Vec<Effect> {
        if !self.listed {
            return Vec::new();
        }
        let mut effects = Vec::new();
        for (name, pod) in &self.running {
            let mirror = self.mirrors.get(name).filter(|mirror| {
                mirror.annotation(MIRROR_ANNOTATION) == pod.annotation(HASH_ANNOTATION) && !mirror.is_deleted()
            });
            effects.push(Effect::Mirror(pod.uid().to_owned(), mirror.cloned()));
            if mirror.is_none() && !self.mirrors.contains_key(name) {
                tokio::spawn(create_mirror(self.shared.clone(), pod.clone()));
            }
        }
        for (name, mirror) in &self.mirrors {
            let current = self.running.get(name).is_some_and(|pod| {
                mirror.annotation(MIRROR_ANNOTATION) == pod.annotation(HASH_ANNOTATION) && !mirror.is_deleted()
            });
            if !current {
                tokio::spawn(delete_mirror(self.shared.clone(), mirror.clone()));
            }
        }
        effects
    }
}

async fn create_mirror(shared: Arc<Shared>, pod: Arc<Pod>) {
    shared.node.registered().await;
    let mut mirror = (*pod).clone();
    let hash = pod.annotation(HASH_ANNOTATION).unwrap_or_default().to_owned();
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR_ANNOTATION.to_owned(), hash);
    mirror.metadata.uid = None;
    mirror.status = None;
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: shared.cfg.node_name.clone(),
        uid: shared.node.view().uid.clone(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), pod.namespace());
    let mut backoff = Backoff::default();
    loop {
        match api.create(&PostParams::default(), &mirror).await {
            Ok(_) => return,
            // There is one; the watch tells of it.
            Err(kube::Error::Api(status)) if status.code == 409 => return,
            Err(error) => {
                tracing::warn!(pod = pod.display(), %error, "a mirror pod could not be created; trying again")
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.pause().min(Duration::from_secs(10))) => {}
            () = shared.stop.cancelled() => return,
        }
        if !shared.pods.contains(pod.uid()) {
            return;
        }
    }
}

async fn delete_mirror(shared: Arc<Shared>, mirror: Arc<Pod>) {
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), mirror.namespace());
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(mirror.uid().to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(mirror.name(), &parameters).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
        Err(error) => tracing::warn!(pod = mirror.display(), %error, "a mirror pod could not be deleted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_read_as_pods_of_this_node() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "a.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - {name: c, image: nginx}\n",
        );
        write(
            "b.json",
            "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"x\",\"namespace\":\"kube-system\"},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"a:1\"}]}}",
        );
        write("bad.yaml", "kind: Service\n");
        write(".hidden", "nonsense");
        let cfg = Config::new("n1", "127.0.0.1".parse().unwrap(), "/x");
        let pods = read_dir(dir.path(), &cfg).unwrap();
        assert_eq!(pods.len(), 2);
        assert_eq!((pods[0].name(), pods[0].namespace()), ("web-n1", "default"));
        assert_eq!((pods[1].name(), pods[1].namespace()), ("x-n1", "kube-system"));
        assert!(pods[0].is_static() && pods[0].uid().len() == 32);
        assert_eq!(pods[0].spec().node_name.as_deref(), Some("n1"));
        assert_eq!(pods[0].containers()[0].image_pull_policy.as_deref(), Some("Always"));
        assert_eq!(pods[1].containers()[0].image_pull_policy.as_deref(), Some("IfNotPresent"));
        let again = read_dir(dir.path(), &cfg).unwrap();
        assert_eq!(again[0].uid(), pods[0].uid(), "the same manifest is the same pod");
        write(
            "a.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - {name: c, image: nginx:2}\n",
        );
        assert_ne!(read_dir(dir.path(), &cfg).unwrap()[0].uid(), pods[0].uid());
    }
}
