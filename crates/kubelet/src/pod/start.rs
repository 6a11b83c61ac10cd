//! Starting one container: its image, its configuration, the container, its first hook.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use cri::v1;
use k8s_openapi::api::core::v1::{Container as Spec, Pod, Secret, VolumeMount};

use super::{
    hooks,
    observed::{self, Observed},
    reader,
};
use crate::{
    container::{
        config,
        env::{self, Objects as _},
        expand::expand_strict,
        fields::Context,
        hostname, security,
    },
    events::Severity,
    image,
    kubelet::Shared,
    objects::Snapshot,
    rpc,
    spec::{PodExt, Role},
    volume::{self, Volumes},
};

/// Why a container did not start, as its waiting state shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) retry_at: Option<jiff::Timestamp>,
}

fn failure(reason: &str, message: impl Into<String>) -> Failure {
    Failure { reason: reason.to_owned(), message: message.into(), retry_at: None }
}

/// What all containers of a pod are started with.
pub(crate) struct Starter<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    pub(crate) sandbox: &'a str,
    pub(crate) sandbox_config: &'a v1::PodSandboxConfig,
    pub(crate) pod_ips: &'a [String],
    pub(crate) volumes: &'a Volumes,
    pub(crate) objects: &'a Snapshot,
    pub(crate) cancel: &'a tokio_util::sync::CancellationToken,
}

impl Starter<'_> {
    fn tell(&self, role: Role, spec: &Spec, severity: Severity, reason: &'static str, message: impl Into<String>) {
        self.shared.events.container(self.pod, role, &spec.name, severity, reason, message);
    }

    /// Starts a container and returns what the runtime says of it.
    ///
    /// # Errors
    /// Reason and message of its waiting state; the events are sent.
    pub(crate) async fn start(
        &self,
        role: Role,
        spec: &Spec,
        target: Option<&str>,
    ) -> Result<Option<observed::Container>, Failure> {
        let failed = |why: &str| self.tell(role, spec, Severity::Warning, "Failed", format!("Error: {why}"));
        let began = std::time::Instant::now();
        let name = spec.image.as_deref().unwrap_or_default();
        let policy = spec.image_pull_policy.as_deref();
        let image = self.image(role, spec, name, policy).await?;
        let volumes = self.image_volumes(role, spec).await?;
        let config = self.config(spec, target, &image, &volumes).await.map_err(|why| {
            failed(&why);
            failure("CreateContainerConfigError", why)
        })?;
        let log = Path::new(&self.sandbox_config.log_directory).join(&config.log_path);
        let configured = began.elapsed();
        let create = v1::CreateContainerRequest {
            pod_sandbox_id: self.sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(self.sandbox_config.clone()),
        };
        let mut runtime = self.shared.cri.runtime();
        let id = match runtime.create_container(create).await {
            Ok(answer) => answer.into_inner().container_id,
            Err(status) => {
                failed(status.message());
                return Err(failure("CreateContainerError", status.message()));
            }
        };
        self.tell(role, spec, Severity::Normal, "Created", "Container created");
        let created = began.elapsed();
        let start = v1::StartContainerRequest { container_id: id.clone() };
        if let Err(status) = runtime.start_container(start).await {
            failed(status.message());
            return Err(failure("RunContainerError", status.message()));
        }
        self.tell(role, spec, Severity::Normal, "Started", "Container started");
        tracing::debug!(
            pod = self.pod.display(),
            container = spec.name,
            ?configured,
            ?created,
            started = ?began.elapsed(),
            "started a container"
        );
        self.link_log(spec, &id, &log);
        // The hook begins before we ask how the container is, for it may take long.
        if let Some(hook) = spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) {
            let ip = self.pod_ips.first().cloned().unwrap_or_default();
            let result = tokio::select! {
                result = hooks::run(self.shared, hook, spec, &id, &ip) => result,
                () = self.cancel.cancelled() => Ok(()),
            };
            if let Err(message) = result {
                self.tell(role, spec, Severity::Warning, "FailedPostStartHook", "PostStartHook failed");
                self.tell(role, spec, Severity::Normal, "Killing", "FailedPostStartHook");
                let stop = v1::StopContainerRequest {
                    container_id: id.clone(),
                    timeout: crate::spec::grace_period(self.pod).max(2),
                };
                if let Err(status) = runtime.stop_container(stop).await {
                    tracing::warn!(
                        pod = self.pod.display(),
                        container = id,
                        status = rpc::text(&status),
                        "a container whose postStart hook failed could not be stopped"
                    );
                }
                return Err(failure("PostStartHookError", message));
            }
        }
        match reader::container(&self.shared.cri, &id).await {
            Ok(status) => Ok(status.as_ref().and_then(observed::Container::from_cri)),
            Err(status) => {
                // Its event or the next look will tell.
                tracing::debug!(
                    container = id,
                    status = rpc::text(&status),
                    "a container that was started doesn't show"
                );
                Ok(None)
            }
        }
    }

    /// An image for a container, pulled if it must be.
    async fn image(&self, role: Role, spec: &Spec, name: &str, policy: Option<&str>) -> Result<image::Image, Failure> {
        let request = image::Request {
            pod: self.pod,
            role,
            container: spec,
            image: name,
            policy: policy.filter(|policy| !policy.is_empty()).unwrap_or("IfNotPresent"),
            secrets: &self.pull_secrets(),
            sandbox: self.sandbox_config,
            cancel: self.cancel,
        };
        match self.shared.images.ensure(&request).await {
            Ok(image) => {
                if image.pulled {
                    // The node tells of its images.
                    self.shared.node.recheck();
                }
                Ok(image)
            }
            Err(error) => {
                self.tell(role, spec, Severity::Warning, "Failed", format!("Error: {}", error.reason));
                Err(Failure { retry_at: error.retry_at, ..failure(error.reason, error.message) })
            }
        }
    }

    /// The images that the container has as volumes, by the volumes' names.
    async fn image_volumes(&self, role: Role, spec: &Spec) -> Result<BTreeMap<String, String>, Failure> {
        let mut images = BTreeMap::new();
        for volume in self.pod.spec().volumes.iter().flatten() {
            let Some(source) = &volume.image else { continue };
            if !spec.volume_mounts.iter().flatten().any(|mount| mount.name == volume.name) {
                continue;
            }
            let name = source.reference.as_deref().unwrap_or_default();
            let image = self.image(role, spec, name, source.pull_policy.as_deref()).await?;
            images.insert(volume.name.clone(), image.id);
        }
        Ok(images)
    }

    fn pull_secrets(&self) -> Vec<Arc<Secret>> {
        let names = self.pod.spec().image_pull_secrets.iter().flatten();
        let found = names.filter(|reference| !reference.name.is_empty()).filter_map(|reference| {
            match self.objects.secret(&reference.name) {
                Ok(secret) => Some(secret),
                Err(error) => {
                    tracing::info!(pod = self.pod.display(), %error, "a pull secret cannot be had; the pull may fail");
                    None
                }
            }
        });
        found.collect()
    }

    /// How often the container was started before.
    fn restart_count(&self, spec: &Spec) -> i32 {
        if let Some(container) = self.observed.container(&spec.name) {
            return container.restart_count + 1;
        }
        // The runtime may have lost what ran before, but its logs are there.
        let dir = Path::new(&self.sandbox_config.log_directory).join(&spec.name);
        let counts = fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.split('.').next()?.parse::<i32>().ok()
        });
        counts.max().map_or(0, |last| last + 1)
    }

    async fn config(
        &self,
        spec: &Spec,
        target: Option<&str>,
        image: &image::Image,
        image_volumes: &BTreeMap<String, String>,
    ) -> Result<v1::ContainerConfig, String> {
        let pod = self.pod;
        security::verify_non_root(pod, spec, &image.user)?;
        let target = target.map(|name| self.target(name)).transpose()?;
        self.shared.services.synced().await;
        let links = pod.spec().enable_service_links != Some(false);
        let services = self.shared.services.visible(pod.namespace(), links);
        let node = self.shared.node.view();
        let context =
            Context { pod, pod_ips: self.pod_ips, host_ips: &self.shared.cfg.node_ips, allocatable: &node.allocatable };
        let env = env::environment(spec, &context, self.objects, &services)?;
        let mounts = self.mounts(spec, &env, image_volumes)?;
        let input = config::Input {
            pod,
            container: spec,
            restart_count: self.restart_count(spec),
            image_ref: &image.id,
            image_user: &image.user,
            env,
            mounts,
            target: target.as_deref(),
            machine: &self.shared.limits,
        };
        Ok(config::config(input, &self.shared.cfg))
    }

    /// The id of the running container whose processes an ephemeral one wants to see.
    fn target(&self, name: &str) -> Result<String, String> {
        match self.observed.container(name) {
            Some(container) if container.is_running() => Ok(container.id.clone()),
            Some(_) => Err(format!("target container {name:?} is not running")),
            None => Err(format!("unable to find target container {name:?}")),
        }
    }

    fn mounts(
        &self,
        spec: &Spec,
        env: &[(String, String)],
        image_volumes: &BTreeMap<String, String>,
    ) -> Result<Vec<v1::Mount>, String> {
        const ETC_HOSTS: &str = "/etc/hosts";
        let (cfg, pod) = (&self.shared.cfg, self.pod);
        let mut mounts = Vec::new();
        let mut hosts = pod.is_host_network() || !self.pod_ips.is_empty();
        for (index, mount) in spec.volume_mounts.iter().flatten().enumerate() {
            hosts &= mount.mount_path != ETC_HOSTS;
            let mut made = self.mount(spec, index, mount, env)?;
            if let Some(id) = image_volumes.get(&mount.name) {
                made.readonly = true;
                made.image_sub_path = std::mem::take(&mut made.host_path);
                made.image = Some(v1::ImageSpec { image: id.clone(), ..v1::ImageSpec::default() });
            }
            mounts.push(made);
        }
        if hosts {
            let path = self.hosts_file().map_err(|error| format!("cannot write the pod's hosts file: {error}"))?;
            mounts.push(bind(&path, ETC_HOSTS));
        }
        if let Some(path) = spec.termination_message_path.as_deref().filter(|path| !path.is_empty()) {
            let file = termination_file(&cfg.container_dir(pod.uid(), &spec.name))
                .map_err(|error| format!("cannot make the file of the termination message: {error}"))?;
            mounts.push(bind(&file, path));
        }
        Ok(mounts)
    }

    fn mount(
        &self,
        spec: &Spec,
        index: usize,
        mount: &VolumeMount,
        env: &[(String, String)],
    ) -> Result<v1::Mount, String> {
        let (cfg, pod) = (&self.shared.cfg, self.pod);
        let ready = self
            .volumes
            .get(&mount.name)
            .ok_or_else(|| format!("cannot find volume {:?} to mount into container {:?}", mount.name, spec.name))?;
        let mut sub = mount.sub_path.clone().unwrap_or_default();
        if let Some(expression) = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) {
            let lookup = |name: &str| env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
            sub = expand_strict(expression, lookup)?;
        }
        let container_path =
            if mount.mount_path.starts_with('/') { mount.mount_path.clone() } else { format!("/{}", mount.mount_path) };
        let propagation = match mount.mount_propagation.as_deref() {
            None | Some("" | "None") => v1::MountPropagation::PropagationPrivate,
            Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
            Some(other) => return Err(format!("invalid MountPropagation mode: {other:?}")),
        };
        let read_only = mount.read_only == Some(true);
        let recursive = match mount.recursive_read_only.as_deref() {
            Some("Enabled" | "IfPossible") if !read_only => {
                return Err(format!(
                    "failed to resolve recursive read-only mode: volume {:?} requested recursive read-only mode, but it is not read-only",
                    mount.name
                ));
            }
            Some("Enabled" | "IfPossible") => true,
            _ => false,
        };
        // An image has no place on the node; what is asked for within it travels in its stead.
        let mut volumes = pod.spec().volumes.iter().flatten();
        let of_image = volumes.any(|volume| volume.name == mount.name && volume.image.is_some());
        let host_path = if of_image {
            PathBuf::from(&sub)
        } else if sub.is_empty() {
            ready.path.clone()
        } else {
            volume::sub_path(cfg, pod, &spec.name, index, mount, &ready.path, &sub)?
        };
        Ok(v1::Mount {
            container_path,
            host_path: host_path.display().to_string(),
            readonly: read_only || ready.read_only,
            recursive_read_only: recursive,
            propagation: propagation as i32,
            ..v1::Mount::default()
        })
    }

    fn hosts_file(&self) -> io::Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let (cfg, pod) = (&self.shared.cfg, self.pod);
        let (name, domain) = hostname::hostname_and_domain(pod, &cfg.cluster_domain).map_err(io::Error::other)?;
        let of_node =
            if pod.is_host_network() { Some(fs::read_to_string("/etc/hosts").unwrap_or_default()) } else { None };
        let text = hostname::hosts_file(pod, self.pod_ips, &name, &domain, of_node.as_deref());
        let path = cfg.etc_hosts(pod.uid());
        // The file is written, never replaced: running containers have it mounted.
        if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        }
        Ok(path)
    }

    /// Links the log to where log shippers look for it.
    fn link_log(&self, spec: &Spec, id: &str, log: &Path) {
        let link = self.shared.cfg.log_link(self.pod.namespace(), self.pod.name(), &spec.name, id);
        if let Err(error) = std::os::unix::fs::symlink(log, &link) {
            tracing::warn!(link = %link.display(), %error, "a log could not be linked");
        }
    }
}

fn bind(host: &Path, container: &str) -> v1::Mount {
    v1::Mount { container_path: container.to_owned(), host_path: host.display().to_string(), ..v1::Mount::default() }
}

/// A fresh file that anybody may write to, whoever the container runs as.
fn termination_file(dir: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(dir)?;
    let name = format!("{:08x}", uuid::Uuid::new_v4().as_fields().0);
    let path = dir.join(name);
    fs::File::create(&path)?.set_permissions(fs::Permissions::from_mode(0o666))?;
    Ok(path)
}
