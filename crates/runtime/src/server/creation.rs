//! Making containers: everything on disk, nothing running yet.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use cri::v1::{ContainerConfig, ContainerEventType, CreateContainerRequest, NamespaceMode};

use super::{
    Runtime, blocking,
    containers::{PLAN, SavedPlan, is_image},
    error::{Result, RuntimeError},
    images::{ResolvedImage, volume_name},
    names::{container_name, new_id},
    pod_files,
    record::{self, ContainerRecord, Status},
    sandboxes::{node_hostname, own_ipc},
    signals,
    state::{Container, Sandbox},
};
use crate::{
    shim::now_nanos,
    spec::{self, Databases, SECCOMP_FILE, Surroundings},
};

impl Runtime {
    /// Makes a container in a ready sandbox; its id. Nothing is left of one that fails.
    pub(crate) async fn create_container(self: Arc<Self>, request: CreateContainerRequest) -> Result<String> {
        let sandbox = self.sandboxes.get(&request.pod_sandbox_id)?;
        let _existing = sandbox.operation.read().await;
        self.ready_shim(&sandbox)?;
        let config = request.config.unwrap_or_default();
        let Some(metadata) = &config.metadata else {
            return Err(RuntimeError::InvalidArgument("container config must include metadata".into()));
        };
        let id = new_id();
        let pod = sandbox.config.metadata.clone().unwrap_or_default();
        let reservation = self
            .names
            .reserve(&container_name(metadata, &pod), &id)
            .map_err(|source| RuntimeError::Reserved { kind: "container", source })?;
        let runtime = Arc::clone(&self);
        let (made_id, made_sandbox) = (id.clone(), sandbox.clone());
        let made = blocking(move || {
            let made = runtime.make_container(&made_id, &made_sandbox, &config);
            if made.is_err()
                && let Err(error) = runtime.remove_container_remains(&made_id)
            {
                let error = error.chain();
                tracing::warn!(container = made_id, error, "could not undo a failed container");
            }
            made.map(|record| Container::new(config, record))
        })
        .await?;
        reservation.keep();
        self.containers.insert(&id, Arc::new(made));
        self.tell(&id, &sandbox.id, ContainerEventType::ContainerCreatedEvent);
        Ok(id)
    }

    fn make_container(&self, id: &str, sandbox: &Sandbox, config: &ContainerConfig) -> Result<ContainerRecord> {
        let io = |doing: &str| RuntimeError::io(format!("{doing} of container {id}"));
        let name = config.image.as_ref().map_or("", |i| i.image.as_str());
        let image = &self.images.resolve(name)?;
        let dir = self.layout.container(id);
        fs::DirBuilder::new().mode(0o711).create(&dir).map_err(io("make the directory"))?;
        record::write_config(&dir, config).map_err(io("save the configuration"))?;
        let rootfs = self.images.prepare(id, image)?;
        let volumes = self.image_volumes(id, config)?;
        let users = Databases::read(&rootfs).map_err(spec::SpecError::Users)?;
        let cgroup = self.layout.cgroup(sandbox.cgroup_parent(), id);
        let log_path = log_path(sandbox, config);
        let sandbox_dir = self.layout.sandbox(&sandbox.id);
        let mut spec = spec::plan(
            config,
            &sandbox.config,
            &Surroundings {
                id,
                dir: &dir,
                rootfs: &rootfs,
                image: &image.config,
                users: &users,
                node_hostname: &node_hostname(),
                image_volumes: &volumes,
                pod_files: &pod_files::mounts(&sandbox_dir, own_ipc(&sandbox.config)),
                cgroup_version: self.cgroups.version(),
                cgroup_dirs: self.cgroups.dirs(&cgroup)?,
                named_cgroup_dirs: self.cgroups.named_dirs(&cgroup)?,
                cgroup: cgroup.clone(),
                target_pid: self.target_pid(config)?,
                log_path: log_path.clone(),
            },
        )?;
        if let Some(profile) = &spec.seccomp {
            let filter = self
                .filters
                .of(profile)
                .map_err(RuntimeError::other(format!("compile the seccomp filter of container {id}")))?;
            fs::write(dir.join(SECCOMP_FILE), filter).map_err(io("save the seccomp filter"))?;
        }
        make_missing_sources(config).map_err(io("make a mount's source"))?;
        if let Some(parent) = log_path.as_deref().and_then(Path::parent) {
            fs::create_dir_all(parent).map_err(io("make the log directory"))?;
        }
        spec.plan.annotations = config.annotations.clone().into_iter().collect();
        let saved = SavedPlan { plan: spec.plan, resources: spec.resources, device_rules: spec.device_rules };
        let json = serde_json::to_vec(&saved).map_err(RuntimeError::other("encode the plan"))?;
        fs::write(dir.join(PLAN), json).map_err(io("save the plan"))?;
        let record = ContainerRecord {
            id: id.to_owned(),
            sandbox: sandbox.id.clone(),
            created_at: now_nanos(),
            image_id: image.id(),
            image_ref: image.reference(),
            uid: spec.user.uid,
            gid: spec.user.gid,
            groups: spec.user.groups,
            stop_signal: stop_signal(config, image)?,
            cgroup,
            log_path,
            status: Status::default(),
        };
        record::write_state(&dir, &record).map_err(io("save the state"))?;
        Ok(record)
    }

    /// Mounts the images that a container has as volumes; where, by the number of the mount.
    fn image_volumes(&self, id: &str, config: &ContainerConfig) -> Result<BTreeMap<usize, PathBuf>> {
        let mut volumes = BTreeMap::new();
        for (number, mount) in config.mounts.iter().enumerate() {
            if let Some(image) = mount.image.as_ref().filter(|_| is_image(mount)) {
                let image = self.images.resolve(&image.image)?;
                let path = self.images.view(&volume_name(id, number), &image)?;
                volumes.insert(number, path);
            }
        }
        Ok(volumes)
    }

    /// The first process of the container whose process ids a debug container shares.
    fn target_pid(&self, config: &ContainerConfig) -> Result<Option<i32>> {
        let options =
            config.linux.as_ref().and_then(|l| l.security_context.as_ref()).and_then(|c| c.namespace_options.as_ref());
        match options {
            Some(options) if options.pid == NamespaceMode::Target as i32 => {
                Ok(self.containers.get(&options.target_id)?.pid())
            }
            _ => Ok(None),
        }
    }
}

fn log_path(sandbox: &Sandbox, config: &ContainerConfig) -> Option<PathBuf> {
    let directory = &sandbox.config.log_directory;
    if directory.is_empty() || config.log_path.is_empty() {
        return None;
    }
    Some(Path::new(directory).join(&config.log_path))
}

fn stop_signal(config: &ContainerConfig, image: &ResolvedImage) -> Result<i32> {
    if let Some(signal) = signals::from_cri(config.stop_signal) {
        return Ok(signal);
    }
    match image.config.stop_signal.as_str() {
        "" => Ok(libc::SIGTERM),
        text => signals::parse(text)
            .ok_or_else(|| RuntimeError::InvalidArgument(format!("failed to parse stop signal {text:?} of the image"))),
    }
}

/// Other runtimes make a directory where a mount's source is missing, and the kubelet relies on it.
fn make_missing_sources(config: &ContainerConfig) -> std::io::Result<()> {
    for mount in &config.mounts {
        let path = Path::new(&mount.host_path);
        if !is_image(mount) && !mount.host_path.is_empty() && fs::symlink_metadata(path).is_err() {
            fs::create_dir_all(path)?;
        }
    }
    Ok(())
}
