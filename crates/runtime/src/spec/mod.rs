//! From what the CRI asks to what the shim does: pure, apart from looking at devices and at the image's users.
//!
//! What is asked is what is applied; what can't be applied is refused by name, never left out silently.

mod devices;
mod mounts;
mod process;
mod resources;
mod sysctls;
mod user;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use cri::v1::{
    Capability, ContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, NamespaceMode,
    NamespaceOption, PodSandboxConfig, SecurityProfile, SupplementalGroupsPolicy, security_profile::ProfileType,
};

pub(crate) use resources::{convert as convert_resources, merge as merge_resources};
pub(crate) use sysctls::plan as plan_sysctls;
pub(crate) use user::{Databases, User};

use crate::{
    capabilities,
    cgroup::{DeviceRule, Resources, Version},
    seccomp::{self, Profile, ProfileError},
    shim::{
        process::{Capabilities, ProcessSpec},
        protocol::{ContainerPlan, Share},
    },
};

/// What an image says about its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ImageConfig {
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) working_dir: String,
    pub(crate) user: String,
    pub(crate) stop_signal: String,
}

/// Why a request can't be fulfilled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("no command specified")]
    NoCommand,
    #[error(transparent)]
    User(#[from] user::UserError),
    #[error("cannot read the image's users")]
    Users(#[source] std::io::Error),
    #[error("mount {0:?}: {1}")]
    Mount(String, &'static str),
    #[error("device {0:?}: {1}")]
    Device(String, std::io::Error),
    #[error("unknown capability {0:?}")]
    Capability(String),
    #[error("seccomp profile {0:?}: {1}")]
    Seccomp(String, ProfileError),
    #[error("seccomp profile {0:?} cannot be read: {1}")]
    SeccompFile(String, std::io::Error),
    #[error("AppArmor profile {0:?} is asked for, but this runtime applies no AppArmor profiles")]
    AppArmor(String),
    #[error("sysctl {0:?}: {1}")]
    Sysctl(String, &'static str),
    #[error("{0}")]
    Unimplemented(String),
    #[error("{0}")]
    Invalid(String),
}

/// Everything around a request that the plan depends on.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) id: &'a str,
    /// The container's directory.
    pub(crate) dir: &'a Path,
    pub(crate) rootfs: &'a Path,
    pub(crate) image: &'a ImageConfig,
    pub(crate) users: &'a Databases,
    /// The machine's name, for pods that use it.
    pub(crate) node_hostname: &'a str,
    pub(crate) pod_files: &'a [(PathBuf, PathBuf)],
    /// Where images that are volumes are mounted, by the number of the mount.
    pub(crate) image_volumes: &'a BTreeMap<usize, PathBuf>,
    pub(crate) cgroup: String,
    pub(crate) cgroup_version: Version,
    pub(crate) cgroup_dirs: Vec<PathBuf>,
    pub(crate) named_cgroup_dirs: Vec<(String, PathBuf)>,
    /// First process of the container whose process ids are shared.
    pub(crate) target_pid: Option<i32>,
    pub(crate) log_path: Option<PathBuf>,
}

/// What a request comes to.
#[derive(Debug)]
pub(crate) struct ContainerSpec {
    pub(crate) plan: ContainerPlan,
    pub(crate) user: User,
    pub(crate) resources: Resources,
    pub(crate) device_rules: Vec<DeviceRule>,
    pub(crate) seccomp: Option<Profile>,
}

/// File of the compiled filter in a container's directory.
pub(crate) const SECCOMP_FILE: &str = "seccomp.bpf";

/// Plans a container.
pub(crate) fn plan(
    config: &ContainerConfig,
    pod: &PodSandboxConfig,
    around: &Surroundings<'_>,
) -> Result<ContainerSpec, SpecError> {
    let linux = config.linux.clone().unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    let resources = linux.resources.unwrap_or_default();
    let privileged = context.privileged;
    refuse_unsupported(config, &context)?;
    if privileged && !pod_context(pod).privileged {
        return Err(SpecError::Invalid("no privileged container allowed in sandbox".into()));
    }

    let user = user::resolve(&user_request(&context, around.image), around.users)?;
    let capabilities = capability_sets(&context)?;
    let profile = seccomp_profile(&context, capabilities.bounding)?;
    let devices = devices::plan(&config.devices, privileged)?;
    let hostname = hostname(pod, around.node_hostname);
    let process = ProcessSpec {
        args: process::args(&config.command, &config.args, around.image)?,
        env: process::env(hostname, config.tty, &user.home, around.image, &config.envs),
        cwd: process::cwd(&config.working_dir, around.image),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
        capabilities,
        no_new_privileges: context.no_new_privs,
        seccomp: profile.as_ref().map(|_| around.dir.join(SECCOMP_FILE)),
        seccomp_log: profile.as_ref().is_some_and(|p| p.log),
        oom_score_adj: i32::try_from(resources.oom_score_adj).ok(),
        terminal: config.tty,
    };
    let mounts = mounts::plan(
        &config.mounts,
        &mounts::MountContext {
            privileged,
            readonly_rootfs: context.readonly_rootfs,
            pod_files: around.pod_files,
            image_volumes: around.image_volumes,
            cgroup_version: around.cgroup_version,
            cgroup_dirs: around.named_cgroup_dirs.clone(),
        },
    )?;
    let paths = |paths: &[String]| if privileged { Vec::new() } else { paths.to_vec() };
    let namespaces = context.namespace_options.clone().unwrap_or_default();
    let plan = ContainerPlan {
        id: around.id.to_owned(),
        dir: around.dir.to_owned(),
        rootfs: around.rootfs.to_owned(),
        readonly_rootfs: context.readonly_rootfs,
        process,
        mounts,
        devices: devices.nodes,
        masked_paths: paths(&context.masked_paths),
        readonly_paths: paths(&context.readonly_paths),
        annotations: Vec::new(),
        pid: pid_share(&namespaces, around.target_pid)?,
        ipc: pod_share(namespaces.ipc, "ipc")?,
        network: pod_share(namespaces.network, "network")?,
        cgroup_namespace: around.cgroup_version == Version::V2 && !privileged,
        cgroup: around.cgroup.clone(),
        cgroup_dirs: around.cgroup_dirs.clone(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        log_path: around.log_path.clone(),
    };
    Ok(ContainerSpec {
        plan,
        user,
        resources: container_limits(&resources),
        device_rules: devices.rules,
        seccomp: profile,
    })
}

fn container_limits(resources: &LinuxContainerResources) -> Resources {
    resources::convert(resources)
}

fn pod_context(pod: &PodSandboxConfig) -> cri::v1::LinuxSandboxSecurityContext {
    pod.linux.as_ref().and_then(|l| l.security_context.clone()).unwrap_or_default()
}

/// The name that processes of a pod see.
fn hostname<'a>(pod: &'a PodSandboxConfig, node: &'a str) -> &'a str {
    let own_network = pod_context(pod).namespace_options.is_none_or(|n| n.network != NamespaceMode::Node as i32);
    if own_network && !pod.hostname.is_empty() { &pod.hostname } else { node }
}

fn refuse_unsupported(config: &ContainerConfig, context: &LinuxContainerSecurityContext) -> Result<(), SpecError> {
    if let Some(device) = config.cdi_devices.first() {
        return Err(SpecError::Unimplemented(format!(
            "CDI device {:?}: CDI is not supported by this runtime",
            device.name
        )));
    }
    check_userns(context.namespace_options.as_ref())?;
    if !context.privileged {
        check_apparmor(context.apparmor.as_ref())?;
    }
    Ok(())
}

/// User namespaces can't be made; asking for one is refused.
pub(crate) fn check_userns(namespaces: Option<&NamespaceOption>) -> Result<(), SpecError> {
    let asked = namespaces.and_then(|n| n.userns_options.as_ref()).is_some_and(|u| u.mode == NamespaceMode::Pod as i32);
    if asked {
        return Err(SpecError::Unimplemented("user namespaces are not supported by this runtime".into()));
    }
    Ok(())
}

fn check_apparmor(profile: Option<&SecurityProfile>) -> Result<(), SpecError> {
    let Some(profile) = profile else {
        return Ok(());
    };
    // The default profile applies where there is AppArmor, which this runtime doesn't use.
    if profile.profile_type == ProfileType::Localhost as i32 {
        return Err(SpecError::AppArmor(profile.localhost_ref.clone()));
    }
    Ok(())
}

fn user_request(context: &LinuxContainerSecurityContext, image: &ImageConfig) -> user::UserRequest {
    user::UserRequest {
        uid: context.run_as_user.as_ref().map(|v| v.value),
        gid: context.run_as_group.as_ref().map(|v| v.value),
        username: context.run_as_username.clone(),
        image_user: image.user.clone(),
        supplemental_groups: context.supplemental_groups.clone(),
        merge_image_groups: context.supplemental_groups_policy == SupplementalGroupsPolicy::Merge as i32,
    }
}

fn capability_sets(context: &LinuxContainerSecurityContext) -> Result<Capabilities, SpecError> {
    let all = capabilities::all_available();
    if context.privileged {
        return Ok(Capabilities { bounding: all, permitted: all, ambient: 0 });
    }
    let Capability { add_capabilities, drop_capabilities, add_ambient_capabilities } =
        context.capabilities.clone().unwrap_or_default();
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let mut set = capabilities::default_mask();
    if add_capabilities.iter().any(is_all) {
        set = all;
    }
    if drop_capabilities.iter().any(is_all) {
        set = 0;
    }
    let bit = |name: &String| {
        capabilities::number(name).map(|n| 1u64 << n).ok_or_else(|| SpecError::Capability(name.clone()))
    };
    let mut ambient = 0;
    for name in add_ambient_capabilities.iter().filter(|n| !is_all(n)) {
        ambient |= bit(name)?;
    }
    set |= ambient;
    for name in add_capabilities.iter().filter(|n| !is_all(n)) {
        set |= bit(name)?;
    }
    for name in drop_capabilities.iter().filter(|n| !is_all(n)) {
        // What doesn't exist is dropped already.
        set &= !bit(name).unwrap_or(0);
    }
    // What this process hasn't got it can't give.
    set &= all;
    Ok(Capabilities { bounding: set, permitted: set, ambient: ambient & set })
}

fn seccomp_profile(context: &LinuxContainerSecurityContext, bounding: u64) -> Result<Option<Profile>, SpecError> {
    if context.privileged {
        return Ok(None);
    }
    let Some(profile) = &context.seccomp else {
        return Ok(None);
    };
    match ProfileType::try_from(profile.profile_type) {
        Ok(ProfileType::RuntimeDefault) => Ok(Some(seccomp::default_profile(bounding))),
        Ok(ProfileType::Unconfined) => Ok(None),
        Ok(ProfileType::Localhost) => {
            let path = profile.localhost_ref.clone();
            let file = path.strip_prefix("localhost/").unwrap_or(&path);
            let json = std::fs::read(file).map_err(|e| SpecError::SeccompFile(path.clone(), e))?;
            let profile = seccomp::parse(&json).map_err(|e| SpecError::Seccomp(path, e))?;
            Ok(Some(profile))
        }
        Err(_) => Err(SpecError::Invalid("unknown seccomp profile type".into())),
    }
}

fn pid_share(namespaces: &NamespaceOption, target: Option<i32>) -> Result<Share, SpecError> {
    match NamespaceMode::try_from(namespaces.pid) {
        Ok(NamespaceMode::Pod) => Ok(Share::Pod),
        Ok(NamespaceMode::Container) => Ok(Share::Container),
        Ok(NamespaceMode::Node) => Ok(Share::Node),
        Ok(NamespaceMode::Target) => target
            .map(Share::Target)
            .ok_or_else(|| SpecError::Invalid(format!("target container {:?} is not running", namespaces.target_id))),
        Err(_) => Err(SpecError::Invalid("unknown pid namespace mode".into())),
    }
}

fn pod_share(mode: i32, which: &str) -> Result<Share, SpecError> {
    match NamespaceMode::try_from(mode) {
        Ok(NamespaceMode::Pod) => Ok(Share::Pod),
        Ok(NamespaceMode::Node) => Ok(Share::Node),
        _ => Err(SpecError::Invalid(format!("{which} namespace mode must be POD or NODE"))),
    }
}

#[cfg(test)]
mod tests;
