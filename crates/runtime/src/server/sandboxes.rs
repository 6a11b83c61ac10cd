//! Operations on pod sandboxes.

use std::{fs, os::unix::fs::DirBuilderExt, path::PathBuf, sync::Arc};

use cri::v1::{
    ContainerEventType, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxFilter, PodSandboxState,
};
use network::{
    netns,
    pod::{PodIdentity, PortMapping, Protocol},
};

use super::{
    Runtime, blocking,
    error::{Result, RuntimeError},
    names::{new_id, sandbox_name},
    pod_files, record,
    record::SandboxRecord,
    shim_client::ShimClient,
    state::{Sandbox, selects},
};
use crate::{
    shim::{
        now_nanos,
        protocol::{Request, Response, SandboxPlan},
    },
    spec,
};

/// How the pod's processes are separated from the machine's.
struct Separation {
    network: bool,
    ipc: bool,
    shared_pid: bool,
}

impl Separation {
    fn of(config: &PodSandboxConfig) -> Result<Self> {
        let options = namespace_options(config);
        spec::check_userns(Some(&options))?;
        let is = |mode: i32, expected: NamespaceMode| mode == expected as i32;
        Ok(Self {
            network: !is(options.network, NamespaceMode::Node),
            ipc: !is(options.ipc, NamespaceMode::Node),
            shared_pid: is(options.pid, NamespaceMode::Pod),
        })
    }
}

fn namespace_options(config: &PodSandboxConfig) -> NamespaceOption {
    config
        .linux
        .as_ref()
        .and_then(|l| l.security_context.as_ref())
        .and_then(|c| c.namespace_options.clone())
        .unwrap_or_default()
}

/// Whether the pod has an IPC namespace, and with it shared memory, of its own.
pub(crate) fn own_ipc(config: &PodSandboxConfig) -> bool {
    namespace_options(config).ipc != NamespaceMode::Node as i32
}

/// Name under which a host's default runtime may also be asked for.
const HANDLERS: [&str; 2] = ["", "pilothouse"];

impl Runtime {
    /// Makes a sandbox with its namespaces, network and shim; its id. Nothing is left of one that fails.
    pub(crate) async fn run_sandbox(self: Arc<Self>, config: PodSandboxConfig, handler: String) -> Result<String> {
        let Some(metadata) = &config.metadata else {
            return Err(RuntimeError::InvalidArgument("sandbox config must include metadata".into()));
        };
        if !HANDLERS.contains(&handler.as_str()) {
            return Err(RuntimeError::InvalidArgument(format!("no runtime for {handler:?} is configured")));
        }
        let separation = Separation::of(&config)?;
        let id = new_id();
        let name = sandbox_name(metadata);
        let reservation =
            self.names.reserve(&name, &id).map_err(|source| RuntimeError::Reserved { kind: "sandbox", source })?;
        let record = match self.make_sandbox(&id, &config, &separation, handler).await {
            Ok(record) => record,
            Err(error) => {
                if let Err(cleanup) = self.remove_sandbox_remains(&id).await {
                    tracing::warn!(sandbox = id, error = %cleanup.chain(), "could not undo a failed sandbox");
                }
                return Err(error);
            }
        };
        reservation.keep();
        let sandbox = Arc::new(Sandbox::new(config, record));
        self.sandboxes.insert(&id, sandbox.clone());
        // Nothing waits for it: the shim has no containers yet.
        drop(self.follow_shim(sandbox));
        self.tell(&id, &id, ContainerEventType::ContainerCreatedEvent);
        self.tell(&id, &id, ContainerEventType::ContainerStartedEvent);
        Ok(id)
    }

    async fn make_sandbox(
        self: &Arc<Self>,
        id: &str,
        config: &PodSandboxConfig,
        separation: &Separation,
        handler: String,
    ) -> Result<SandboxRecord> {
        let sysctls = config.linux.as_ref().map(|l| &l.sysctls);
        let sysctls = match sysctls {
            Some(asked) => spec::plan_sysctls(asked, separation.network, separation.ipc)?,
            None => Vec::new(),
        };
        let (dir, config_copy) = (self.layout.sandbox(id), config.clone());
        let (own_ipc, own_network) = (separation.ipc, separation.network);
        let hostname = self.sandbox_hostname(config, own_network);
        {
            let (dir, hostname) = (dir.clone(), hostname.clone());
            blocking(move || -> std::io::Result<()> {
                fs::DirBuilder::new().mode(0o711).create(&dir)?;
                record::write_config(&dir, &config_copy)?;
                pod_files::write(&dir, &hostname, config_copy.dns_config.as_ref())?;
                if own_ipc {
                    pod_files::mount_shm(&dir)?;
                }
                Ok(())
            })
            .await
            .map_err(RuntimeError::io(format!("make the files of sandbox {id}")))?;
        }
        // The shim needs no network, so both are made at once.
        let network = self.attach_network(id, config, separation.network);
        let (network, shim) = tokio::join!(network, self.spawn_shim(id));
        let (netns, attachment) = network?;
        let shim = shim?;

        let parent = config.linux.as_ref().map_or("", |l| &l.cgroup_parent);
        let cgroup = self.layout.cgroup(parent, id);
        if separation.shared_pid {
            self.cgroups.create(&cgroup)?;
        }
        let plan = SandboxPlan {
            hostname: separation.network.then_some(hostname),
            ipc: separation.ipc,
            pid: separation.shared_pid,
            network: netns.clone(),
            sysctls,
            pause_cgroup: self.cgroups.dirs(&cgroup)?,
        };
        let pause = match shim.call(&Request::CreateSandbox(plan)).await {
            Ok(Response::Sandbox { pause }) => pause,
            Ok(_) => None,
            Err(source) => {
                return Err(RuntimeError::Shim { doing: format!("make the namespaces of sandbox {id}"), source });
            }
        };
        let record = SandboxRecord {
            id: id.to_owned(),
            created_at: now_nanos(),
            ready: true,
            runtime_handler: handler,
            netns,
            ips: attachment.as_ref().map(|a| a.ips.clone()).unwrap_or_default(),
            host_interface: attachment.map(|a| a.host_interface),
            executable: self.executable.hash.clone(),
            pause,
        };
        record::write_state(&dir, &record).map_err(RuntimeError::io(format!("save sandbox {id}")))?;
        Ok(record)
    }

    fn sandbox_hostname(&self, config: &PodSandboxConfig, own_network: bool) -> String {
        if own_network && !config.hostname.is_empty() { config.hostname.clone() } else { node_hostname() }
    }

    async fn attach_network(
        self: &Arc<Self>,
        id: &str,
        config: &PodSandboxConfig,
        own: bool,
    ) -> Result<(Option<PathBuf>, Option<network::pod::Attachment>)> {
        if !own {
            return Ok((None, None));
        }
        let metadata = config.metadata.clone().unwrap_or_default();
        let pod = PodIdentity {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            sandbox: id.to_owned(),
        };
        let ports = port_mappings(config)?;
        let path = self.layout.netns(id);
        let runtime = Arc::clone(self);
        blocking(move || {
            let netns = netns::Namespace::create(&path).map_err(RuntimeError::network("make a network namespace"))?;
            let attachment = runtime
                .network
                .attach(&netns, &pod, &ports)
                .map_err(RuntimeError::network("set up the pod's network"))?;
            Ok((Some(path), Some(attachment)))
        })
        .await
    }

    /// Ends everything in a sandbox and takes it off the network. One that is stopped, or gone, is fine.
    pub(crate) async fn stop_sandbox(self: Arc<Self>, id: String) -> Result<()> {
        let Some(sandbox) = self.sandboxes.find(&id)? else {
            return Ok(());
        };
        let _exclusive = sandbox.operation.write().await;
        self.stop_sandbox_locked(&sandbox).await
    }

    pub(crate) async fn stop_sandbox_locked(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        for container in self.containers_of(&sandbox.id) {
            let _exclusive = container.operation.lock().await;
            self.stop_container_locked(&container, std::time::Duration::ZERO).await?;
        }
        let was_ready = sandbox.record().ready;
        self.release_sandbox(&sandbox.id, sandbox.cgroup_parent()).await?;
        let record = sandbox.update(|r| r.ready = false);
        if was_ready {
            record::write_state(&self.layout.sandbox(&sandbox.id), &record)
                .map_err(RuntimeError::io(format!("save sandbox {}", sandbox.id)))?;
            self.tell(&sandbox.id, &sandbox.id, ContainerEventType::ContainerStoppedEvent);
        }
        Ok(())
    }

    /// Ends a sandbox's shim, network and mounts; each need not exist.
    async fn release_sandbox(self: &Arc<Self>, id: &str, cgroup_parent: &str) -> Result<()> {
        self.end_shim(id).await?;
        let cgroup = self.layout.cgroup(cgroup_parent, id);
        let (runtime, id) = (Arc::clone(self), id.to_owned());
        blocking(move || {
            let dirs = runtime.cgroups.dirs(&cgroup)?;
            crate::cgroup::kill_all(&dirs)
                .and_then(|()| super::recovery::remove_cgroup(&dirs))
                .map_err(RuntimeError::io(format!("remove the cgroup of sandbox {id}")))?;
            runtime.network.detach(&id).map_err(RuntimeError::network("take the pod off the network"))?;
            netns::delete(&runtime.layout.netns(&id)).map_err(RuntimeError::network("delete the network namespace"))?;
            pod_files::unmount_shm(&runtime.layout.sandbox(&id))
                .map_err(RuntimeError::io(format!("unmount the shared memory of sandbox {id}")))
        })
        .await
    }

    /// Removes whatever there is of a sandbox that isn't, or is no longer, in the table.
    pub(crate) async fn remove_sandbox_remains(self: &Arc<Self>, id: &str) -> Result<()> {
        let dir = self.layout.sandbox(id);
        let config: PodSandboxConfig = record::read_config(&dir).unwrap_or_default();
        let parent = config.linux.map(|l| l.cgroup_parent).unwrap_or_default();
        self.release_sandbox(id, &parent).await?;
        let id = id.to_owned();
        blocking(move || super::recovery::remove_dir(&dir))
            .await
            .map_err(RuntimeError::io(format!("remove the directory of sandbox {id}")))
    }

    /// Removes a sandbox with its containers. One that is gone is fine.
    pub(crate) async fn remove_sandbox(self: Arc<Self>, id: String) -> Result<()> {
        let Some(sandbox) = self.sandboxes.find(&id)? else {
            return Ok(());
        };
        let _exclusive = sandbox.operation.write().await;
        self.stop_sandbox_locked(&sandbox).await?;
        for container in self.containers_of(&sandbox.id) {
            let _exclusive = container.operation.lock().await;
            self.remove_container_locked(&container).await?;
        }
        let dir = self.layout.sandbox(&sandbox.id);
        record::forget_state(&dir).map_err(RuntimeError::io(format!("forget sandbox {}", sandbox.id)))?;
        self.remove_sandbox_remains(&sandbox.id).await?;
        self.sandboxes.remove(&sandbox.id);
        if let Some(metadata) = &sandbox.config.metadata {
            self.names.release(&sandbox_name(metadata));
        }
        self.tell(&sandbox.id, &sandbox.id, ContainerEventType::ContainerDeletedEvent);
        Ok(())
    }

    /// The sandboxes that a filter lets through.
    pub(crate) fn list_sandboxes(&self, filter: Option<PodSandboxFilter>) -> Result<Vec<Arc<Sandbox>>> {
        let filter = filter.unwrap_or_default();
        let candidates = if filter.id.is_empty() {
            self.sandboxes.all()
        } else {
            self.sandboxes.find(&filter.id)?.into_iter().collect()
        };
        let state = filter.state.map(|s| s.state);
        Ok(candidates
            .into_iter()
            .filter(|s| {
                let ready = s.record().ready;
                let right_state = state.is_none_or(|state| (state == PodSandboxState::SandboxReady as i32) == ready);
                right_state && selects(&filter.label_selector, &s.config.labels)
            })
            .collect())
    }

    /// The shim of a sandbox that is ready.
    pub(crate) fn ready_shim(&self, sandbox: &Sandbox) -> Result<ShimClient> {
        if !sandbox.record().ready {
            return Err(RuntimeError::FailedPrecondition(format!("sandbox container {:?} is not running", sandbox.id)));
        }
        Ok(self.shim(&sandbox.id))
    }
}

/// The machine's name.
pub(crate) fn node_hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).unwrap_or_else(|| "localhost".into())
}

fn port_mappings(config: &PodSandboxConfig) -> Result<Vec<PortMapping>> {
    let mut ports = Vec::new();
    for port in config.port_mappings.iter().filter(|p| p.host_port > 0) {
        let bad = |what: &str| RuntimeError::InvalidArgument(format!("port mapping: {what}"));
        let number = |n: i32| u16::try_from(n).map_err(|_| bad(&format!("{n} is not a port number")));
        let host_ip = match port.host_ip.as_str() {
            "" => None,
            ip => Some(ip.parse().map_err(|_| bad(&format!("{ip:?} is not an IP address")))?),
        };
        ports.push(PortMapping {
            host_ip,
            host_port: number(port.host_port)?,
            container_port: number(port.container_port)?,
            protocol: match cri::v1::Protocol::try_from(port.protocol) {
                Ok(cri::v1::Protocol::Tcp) => Protocol::Tcp,
                Ok(cri::v1::Protocol::Udp) => Protocol::Udp,
                Ok(cri::v1::Protocol::Sctp) => Protocol::Sctp,
                Err(_) => return Err(bad("unknown protocol")),
            },
        });
    }
    Ok(ports)
}
