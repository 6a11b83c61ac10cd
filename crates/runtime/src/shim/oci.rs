//! The OCI configuration that libcontainer reads.
//!
//! It has what libcontainer does well: namespaces, file systems, devices, masked paths. Limits are already on
//! the group, privileges and the system call filter come last ([`super::process`]).

use std::{collections::HashMap, os::fd::AsRawFd, path::PathBuf};

use libcontainer::oci_spec::{
    OciSpecError,
    runtime::{
        Hook, HookBuilder, HooksBuilder, LinuxBuilder, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType,
        LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, ProcessBuilder, RootBuilder,
        Spec, SpecBuilder, UserBuilder,
    },
};

use super::{
    hook,
    mounts::{Staged, StagedMount},
    protocol::{ContainerPlan, DevicePlan, Share},
    sandbox::Namespaces,
};

/// Turns a plan into a configuration.
pub(crate) fn build(plan: &ContainerPlan, namespaces: &Namespaces, staged: &Staged) -> Result<Spec, OciSpecError> {
    let mut user = UserBuilder::default().uid(plan.process.uid).gid(plan.process.gid);
    if !plan.process.groups.is_empty() {
        user = user.additional_gids(plan.process.groups.clone());
    }
    let process = ProcessBuilder::default()
        .terminal(plan.process.terminal)
        .user(user.build()?)
        .args(plan.process.args.clone())
        .env(plan.process.env.clone())
        // The real one is entered at the end, where it can be made.
        .cwd("/");
    let mut process = process.build()?;
    process.set_capabilities(None);
    process.set_no_new_privileges(None);
    process.set_rlimits(None);
    process.set_apparmor_profile(None);
    process.set_selinux_label(None);

    let mut linux = LinuxBuilder::default()
        .namespaces(namespace_list(plan, namespaces)?)
        .cgroups_path(&plan.cgroup)
        .masked_paths(plan.masked_paths.clone())
        .readonly_paths(plan.readonly_paths.clone())
        .rootfs_propagation(if staged.shared { "shared" } else { "slave" });
    if !plan.devices.is_empty() {
        let devices: Result<Vec<_>, _> = plan.devices.iter().map(device).collect();
        linux = linux.devices(devices?);
    }
    let mut linux = linux.build()?;
    linux.set_resources(None);
    linux.set_seccomp(None);

    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .root(RootBuilder::default().path(&plan.rootfs).readonly(plan.readonly_rootfs).build()?)
        .process(process)
        .linux(linux)
        .mounts(staged.mounts.iter().map(mount).collect::<Result<Vec<_>, _>>()?)
        .annotations(plan.annotations.iter().cloned().collect::<HashMap<_, _>>());
    if !staged.deferred.is_empty() {
        let hooks = HooksBuilder::default().create_container(vec![deferred_mounts(plan, staged)?]).build()?;
        spec = spec.hooks(hooks);
    }
    let mut spec = spec.build()?;
    // The builder's default; the sandbox has set its own already.
    spec.set_hostname(None);
    Ok(spec)
}

fn namespace_list(plan: &ContainerPlan, namespaces: &Namespaces) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType as Type;
    let mut list = vec![(Type::Mount, None)];
    if plan.cgroup_namespace {
        list.push((Type::Cgroup, None));
    }
    let held = |fd: &std::os::fd::OwnedFd| Some(PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())));
    match plan.pid {
        Share::Container => list.push((Type::Pid, None)),
        Share::Pod => {
            if let Some(fd) = &namespaces.pid {
                list.push((Type::Pid, held(fd)));
            }
        }
        Share::Target(pid) => {
            list.push((Type::Pid, Some(PathBuf::from(format!("/proc/{pid}/ns/pid")))));
        }
        Share::Node => {}
    }
    if plan.ipc == Share::Pod
        && let Some(fd) = &namespaces.ipc
    {
        list.push((Type::Ipc, held(fd)));
    }
    if let Some(fd) = &namespaces.uts {
        list.push((Type::Uts, held(fd)));
    }
    if plan.network == Share::Pod
        && let Some(path) = &namespaces.network
    {
        list.push((Type::Network, Some(path.clone())));
    }
    list.into_iter()
        .map(|(typ, path)| {
            let builder = LinuxNamespaceBuilder::default().typ(typ);
            match path {
                Some(path) => builder.path(path).build(),
                None => builder.build(),
            }
        })
        .collect()
}

fn mount(mount: &StagedMount) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(&mount.destination)
        .typ(&mount.typ)
        .source(&mount.source)
        .options(mount.options.clone())
        .build()
}

fn device(device: &DevicePlan) -> Result<LinuxDevice, OciSpecError> {
    LinuxDeviceBuilder::default()
        .path(&device.path)
        .typ(if device.block { LinuxDeviceType::B } else { LinuxDeviceType::C })
        .major(device.major)
        .minor(device.minor)
        .file_mode(device.mode)
        .uid(device.uid)
        .gid(device.gid)
        .build()
}

fn deferred_mounts(plan: &ContainerPlan, staged: &Staged) -> Result<Hook, OciSpecError> {
    let mut args = vec![hook::NAME.to_owned(), plan.rootfs.display().to_string()];
    for (source, destination) in &staged.deferred {
        args.push(source.display().to_string());
        args.push(destination.display().to_string());
    }
    HookBuilder::default().path("/proc/self/exe").args(args).env(Vec::<String>::new()).build()
}
