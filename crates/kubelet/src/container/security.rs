//! Security contexts: the pod's and the container's wishes as the runtime is told them.

use std::path::Path;

use cri::v1;
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};

use crate::spec::PodExt;

/// Paths of `/proc` that a container doesn't see.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// Paths that are masked in addition since they leak what other guests do.
const MASKED_SYS: [&str; 1] = ["/sys/devices/virtual/powercap"];
/// Paths of `/proc` that a container cannot write to.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn pod_context(pod: &Pod) -> PodSecurityContext {
    pod.spec().security_context.clone().unwrap_or_default()
}

/// What a container asks for, with the pod's answers where it doesn't say.
pub(crate) fn effective(pod: &Pod, container: &Container) -> SecurityContext {
    let of_pod = pod_context(pod);
    let own = container.security_context.clone().unwrap_or_default();
    SecurityContext {
        run_as_user: own.run_as_user.or(of_pod.run_as_user),
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        run_as_non_root: own.run_as_non_root.or(of_pod.run_as_non_root),
        se_linux_options: own.se_linux_options.or(of_pod.se_linux_options),
        seccomp_profile: own.seccomp_profile.or(of_pod.seccomp_profile),
        app_armor_profile: own.app_armor_profile.or(of_pod.app_armor_profile),
        ..own
    }
}

/// The user an image runs as. An image that names none runs as root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageUser {
    uid: Option<i64>,
    name: String,
}

impl ImageUser {
    /// As the runtime tells it: a number, else a name, else nothing, which is root.
    pub(crate) fn told(uid: Option<i64>, name: &str) -> Self {
        match uid {
            Some(_) => ImageUser { uid, name: String::new() },
            None if name.is_empty() => ImageUser { uid: Some(0), name: String::new() },
            None => ImageUser { uid: None, name: name.to_owned() },
        }
    }
}

/// Refuses a container that must not be root and would be.
///
/// # Errors
/// Upstream's texts, which the waiting state of the container shows.
pub(crate) fn verify_non_root(pod: &Pod, container: &Container, image: &ImageUser) -> Result<(), String> {
    let context = effective(pod, container);
    if context.run_as_non_root != Some(true) {
        return Ok(());
    }
    let names = || format!("(pod: {:?}, container: {})", pod.display(), container.name);
    match context.run_as_user {
        Some(0) => return Err(format!("container's runAsUser breaks non-root policy {}", names())),
        Some(_) => return Ok(()),
        None => {}
    }
    match image.uid {
        Some(0) => Err(format!("container has runAsNonRoot and image will run as root {}", names())),
        Some(_) => Ok(()),
        None => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {}",
            image.name,
            names()
        )),
    }
}

/// The seccomp profile: the container's, the pod's, or the default of the node.
fn seccomp(profile: Option<&SeccompProfile>, privileged: bool, default: bool, root: &Path) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let of = |kind: ProfileType, localhost: String| v1::SecurityProfile {
        profile_type: kind as i32,
        localhost_ref: localhost,
    };
    match profile.map(|profile| profile.type_.as_str()) {
        _ if privileged => of(ProfileType::Unconfined, String::new()),
        Some("Localhost") => {
            let name = profile.and_then(|profile| profile.localhost_profile.as_deref()).unwrap_or_default();
            of(ProfileType::Localhost, root.join("seccomp").join(name).display().to_string())
        }
        Some("RuntimeDefault") => of(ProfileType::RuntimeDefault, String::new()),
        None if default => of(ProfileType::RuntimeDefault, String::new()),
        _ => of(ProfileType::Unconfined, String::new()),
    }
}

/// The AppArmor profile, where one is asked for: what it means is the runtime's business.
fn apparmor(profile: Option<&AppArmorProfile>) -> Option<v1::SecurityProfile> {
    use v1::security_profile::ProfileType;
    let profile = profile?;
    let kind = match profile.type_.as_str() {
        "Localhost" => ProfileType::Localhost,
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        _ => ProfileType::Unconfined,
    };
    let name = profile.localhost_profile.clone().filter(|_| kind == ProfileType::Localhost);
    Some(v1::SecurityProfile { profile_type: kind as i32, localhost_ref: name.unwrap_or_default() })
}

fn selinux(options: Option<&SELinuxOptions>) -> Option<v1::SeLinuxOption> {
    options.map(|options| v1::SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    })
}

fn capabilities(wanted: Option<&Capabilities>) -> Option<v1::Capability> {
    wanted.map(|wanted| v1::Capability {
        add_capabilities: wanted.add.clone().unwrap_or_default(),
        drop_capabilities: wanted.drop.clone().unwrap_or_default(),
        add_ambient_capabilities: Vec::new(),
    })
}

/// The namespaces that a pod's containers share with each other or with the node.
pub(crate) fn namespaces(pod: &Pod) -> v1::NamespaceOption {
    let spec = pod.spec();
    let of_node = |node: Option<bool>| match node {
        Some(true) => v1::NamespaceMode::Node,
        _ => v1::NamespaceMode::Pod,
    };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => v1::NamespaceMode::Node,
        (_, Some(true)) => v1::NamespaceMode::Pod,
        _ => v1::NamespaceMode::Container,
    };
    v1::NamespaceOption {
        network: of_node(spec.host_network) as i32,
        pid: pid as i32,
        ipc: of_node(spec.host_ipc) as i32,
        target_id: String::new(),
        userns_options: None,
    }
}

fn groups_policy(context: &PodSecurityContext) -> i32 {
    match context.supplemental_groups_policy.as_deref() {
        Some("Strict") => v1::SupplementalGroupsPolicy::Strict as i32,
        _ => v1::SupplementalGroupsPolicy::Merge as i32,
    }
}

/// The groups a pod's processes have beside their own: those asked for, and that of its volumes.
fn supplemental_groups(context: &PodSecurityContext) -> Vec<i64> {
    let mut groups: Vec<i64> = context.fs_group.into_iter().collect();
    groups.extend(context.supplemental_groups.iter().flatten());
    groups
}

fn int64(value: Option<i64>) -> Option<v1::Int64Value> {
    value.map(|value| v1::Int64Value { value })
}

/// The settings of the node that security contexts depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults<'a> {
    /// Confine containers that don't say how.
    pub(crate) seccomp: bool,
    /// The kubelet's directory, below which local profiles are.
    pub(crate) root: &'a Path,
}

/// The security context of a container.
pub(crate) fn of_container(
    pod: &Pod,
    container: &Container,
    image: &ImageUser,
    target: Option<&str>,
    defaults: Defaults<'_>,
) -> v1::LinuxContainerSecurityContext {
    let context = effective(pod, container);
    let of_pod = pod_context(pod);
    let privileged = context.privileged == Some(true);
    let mut namespace_options = namespaces(pod);
    if let Some(target) = target {
        namespace_options.pid = v1::NamespaceMode::Target as i32;
        target.clone_into(&mut namespace_options.target_id);
    }
    let unmasked = privileged || context.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    let (run_as_user, run_as_username) = match (context.run_as_user, image) {
        (Some(user), _) => (Some(user), String::new()),
        (None, ImageUser { uid: Some(uid), .. }) => (Some(*uid), String::new()),
        (None, ImageUser { name, .. }) => (None, name.clone()),
    };
    v1::LinuxContainerSecurityContext {
        capabilities: capabilities(context.capabilities.as_ref()),
        privileged,
        namespace_options: Some(namespace_options),
        selinux_options: selinux(context.se_linux_options.as_ref()),
        run_as_user: int64(run_as_user),
        run_as_username,
        run_as_group: int64(context.run_as_group),
        readonly_rootfs: context.read_only_root_filesystem == Some(true),
        supplemental_groups: supplemental_groups(&of_pod),
        supplemental_groups_policy: groups_policy(&of_pod),
        no_new_privs: context.allow_privilege_escalation == Some(false),
        masked_paths: if unmasked { Vec::new() } else { paths(&[&MASKED[..], &MASKED_SYS[..]].concat()) },
        readonly_paths: if unmasked { Vec::new() } else { paths(&READ_ONLY) },
        seccomp: Some(seccomp(context.seccomp_profile.as_ref(), privileged, defaults.seccomp, defaults.root)),
        apparmor: apparmor(context.app_armor_profile.as_ref()),
        ..v1::LinuxContainerSecurityContext::default()
    }
}

/// The security context of a sandbox.
pub(crate) fn of_sandbox(pod: &Pod, defaults: Defaults<'_>) -> v1::LinuxSandboxSecurityContext {
    let of_pod = pod_context(pod);
    let privileged = pod
        .containers()
        .iter()
        .chain(pod.init_containers())
        .any(|c| c.security_context.as_ref().is_some_and(|own| own.privileged == Some(true)));
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: selinux(of_pod.se_linux_options.as_ref()),
        run_as_user: int64(of_pod.run_as_user),
        run_as_group: int64(of_pod.run_as_group),
        supplemental_groups: supplemental_groups(&of_pod),
        supplemental_groups_policy: groups_policy(&of_pod),
        privileged,
        // The pause process needs no more than any container.
        seccomp: Some(seccomp(of_pod.seccomp_profile.as_ref(), false, true, defaults.root)),
        ..v1::LinuxSandboxSecurityContext::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec})).unwrap()
    }

    fn context(spec: Value, image: &ImageUser) -> v1::LinuxContainerSecurityContext {
        let pod = pod(spec);
        let defaults = Defaults { seccomp: true, root: Path::new("/var/lib/kubelet") };
        of_container(&pod, &pod.containers()[0].clone(), image, None, defaults)
    }

    #[test]
    fn the_containers_word_counts_before_the_pods() {
        let c = context(
            json!({
                "securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 7, "supplementalGroups": [8, 9],
                    "supplementalGroupsPolicy": "Strict"},
                "containers": [{"name": "c", "securityContext": {"runAsUser": 5, "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}}],
            }),
            &ImageUser::told(Some(99), ""),
        );
        assert_eq!(c.run_as_user, int64(Some(5)));
        assert_eq!(c.run_as_group, int64(Some(2)));
        assert_eq!(c.supplemental_groups, [7, 8, 9]);
        assert_eq!(c.supplemental_groups_policy, v1::SupplementalGroupsPolicy::Strict as i32);
        assert!(c.no_new_privs && c.readonly_rootfs);
        let capabilities = c.capabilities.unwrap();
        assert_eq!(capabilities.add_capabilities, ["NET_ADMIN"]);
        assert_eq!(capabilities.drop_capabilities, ["ALL"]);
        assert!(c.masked_paths.contains(&"/proc/kcore".to_owned()));
        assert_eq!(c.seccomp.unwrap().profile_type, 0, "RuntimeDefault");
    }

    #[test]
    fn confinement_is_lifted_only_on_demand() {
        let image = ImageUser::told(None, "");
        let profile = |c: v1::LinuxContainerSecurityContext| c.seccomp.unwrap();
        let privileged =
            context(json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}]}), &image);
        assert!(privileged.privileged && privileged.masked_paths.is_empty());
        assert_eq!(profile(privileged).profile_type, 1);
        let unmasked =
            context(json!({"containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}]}), &image);
        assert!(unmasked.masked_paths.is_empty());
        assert_eq!(profile(unmasked).profile_type, 0);
        let local = context(
            json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}},
                "containers": [{"name": "c"}]}),
            &image,
        );
        assert_eq!(profile(local).localhost_ref, "/var/lib/kubelet/seccomp/a/b.json");
        let user = context(json!({"containers": [{"name": "c"}]}), &ImageUser::told(None, "www"));
        assert_eq!((user.run_as_user, user.run_as_username.as_str()), (None, "www"));
        let nobody = context(json!({"containers": [{"name": "c"}]}), &ImageUser::told(None, ""));
        assert_eq!(nobody.run_as_user, int64(Some(0)));
    }

    /// A profile that got lost on the way would leave the container unconfined without a word.
    #[test]
    fn the_runtime_is_told_of_apparmor_profiles() {
        let of = |own: Value| {
            let of_pod = json!({"type": "Localhost", "localhostProfile": "k8s-deny-write"});
            let spec = json!({"securityContext": {"appArmorProfile": of_pod},
                "containers": [{"name": "c", "securityContext": own}]});
            context(spec, &ImageUser::told(None, ""))
                .apparmor
                .map(|profile| (profile.profile_type, profile.localhost_ref))
        };
        assert_eq!(of(json!({})), Some((2, "k8s-deny-write".into())));
        assert_eq!(of(json!({"appArmorProfile": {"type": "Unconfined"}})), Some((1, String::new())));
        assert_eq!(of(json!({"appArmorProfile": {"type": "RuntimeDefault"}})), Some((0, String::new())));
        assert_eq!(context(json!({"containers": [{"name": "c"}]}), &ImageUser::told(None, "")).apparmor, None);
    }

    #[test]
    fn namespaces_are_shared_as_asked() {
        let of = |spec: Value| {
            let n = namespaces(&pod(spec));
            (n.network, n.pid, n.ipc)
        };
        let (p, c, n) = (0, 1, 2);
        assert_eq!(of(json!({"containers": []})), (p, c, p));
        assert_eq!(of(json!({"containers": [], "shareProcessNamespace": true})), (p, p, p));
        assert_eq!(of(json!({"containers": [], "hostNetwork": true, "hostPID": true, "hostIPC": true})), (n, n, n));
    }

    #[test]
    fn root_is_refused_where_it_was_ruled_out() {
        let of = |security: Value, uid: Option<i64>, name: &str| {
            let pod = pod(json!({"containers": [{"name": "c", "securityContext": security}]}));
            let image = ImageUser::told(uid, name);
            verify_non_root(&pod, &pod.containers()[0].clone(), &image).err().unwrap_or_default()
        };
        let names = "(pod: \"p_ns(u)\", container: c)";
        let must = || json!({"runAsNonRoot": true});
        assert_eq!(of(json!({}), Some(0), ""), "");
        assert_eq!(of(must(), Some(5), ""), "");
        assert_eq!(of(must(), Some(0), ""), format!("container has runAsNonRoot and image will run as root {names}"));
        // An image without a user runs as root.
        assert_eq!(of(must(), None, ""), format!("container has runAsNonRoot and image will run as root {names}"));
        assert_eq!(of(json!({"runAsNonRoot": true, "runAsUser": 5}), None, ""), "");
        assert_eq!(
            of(must(), None, "www"),
            format!(
                "container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root {names}"
            )
        );
        assert_eq!(
            of(json!({"runAsNonRoot": true, "runAsUser": 0}), Some(5), ""),
            format!("container's runAsUser breaks non-root policy {names}")
        );
        assert_eq!(of(json!({"runAsNonRoot": true, "runAsUser": 5}), Some(0), ""), "");
    }
}
