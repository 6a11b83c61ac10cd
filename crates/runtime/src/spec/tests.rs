//! Tests of the plan as a whole.

use cri::v1::{Int64Value, LinuxContainerConfig, LinuxPodSandboxConfig, LinuxSandboxSecurityContext};

use super::*;

fn plan_with(context: LinuxContainerSecurityContext, pod_privileged: bool) -> Result<ContainerSpec, SpecError> {
    let config = ContainerConfig {
        command: vec!["sh".into()],
        linux: Some(LinuxContainerConfig { security_context: Some(context), resources: None }),
        ..Default::default()
    };
    let pod = PodSandboxConfig {
        hostname: "pod-1".into(),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext { privileged: pod_privileged, ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let around = Surroundings {
        id: "c1",
        dir: Path::new("/state/c1"),
        rootfs: Path::new("/state/c1/rootfs"),
        image: &ImageConfig::default(),
        users: &Databases::default(),
        node_hostname: "node",
        pod_files: &[],
        image_volumes: &BTreeMap::new(),
        cgroup: "/pod/c1".into(),
        cgroup_version: Version::V1,
        cgroup_dirs: vec![],
        named_cgroup_dirs: vec![],
        target_pid: None,
        log_path: None,
    };
    plan(&config, &pod, &around)
}

fn capabilities_of(add: &[&str], drop: &[&str]) -> u64 {
    let strings = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
    let context = LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: strings(add),
            drop_capabilities: strings(drop),
            add_ambient_capabilities: vec![],
        }),
        ..Default::default()
    };
    let sets = plan_with(context, false).unwrap().plan.process.capabilities;
    assert_eq!((sets.bounding, sets.ambient), (sets.permitted, 0));
    sets.bounding
}

#[test]
fn capabilities_are_added_and_dropped() {
    let all = capabilities::all_available();
    let default = capabilities::default_mask() & all;
    assert_eq!(capabilities_of(&[], &[]), default);
    assert_eq!(capabilities_of(&[], &["ALL"]), 0);
    assert_eq!(capabilities_of(&["NET_BIND_SERVICE"], &["all"]), capabilities::mask(["NET_BIND_SERVICE"]) & all);
    assert_eq!(capabilities_of(&["ALL"], &["CAP_CHOWN", "NO_SUCH"]), all & !capabilities::mask(["CHOWN"]));
    let unknown = LinuxContainerSecurityContext {
        capabilities: Some(Capability { add_capabilities: vec!["NO_SUCH".into()], ..Default::default() }),
        ..Default::default()
    };
    assert!(matches!(plan_with(unknown, false), Err(SpecError::Capability(_))));
}

#[test]
fn privileged_needs_a_privileged_pod() {
    let context = || LinuxContainerSecurityContext {
        privileged: true,
        masked_paths: vec!["/proc/kcore".into()],
        seccomp: Some(SecurityProfile::default()),
        ..Default::default()
    };
    assert!(plan_with(context(), false).is_err());
    let spec = plan_with(context(), true).unwrap();
    assert!(spec.seccomp.is_none());
    assert!(spec.plan.masked_paths.is_empty());
    assert_eq!(spec.plan.process.capabilities.bounding, capabilities::all_available());
}

#[test]
fn the_user_and_the_host_name_reach_the_process() {
    let context = LinuxContainerSecurityContext {
        run_as_user: Some(Int64Value { value: 1000 }),
        supplemental_groups: vec![7],
        ..Default::default()
    };
    let spec = plan_with(context, false).unwrap();
    let process = &spec.plan.process;
    assert_eq!((process.uid, process.gid, process.groups.as_slice()), (1000, 0, &[0, 7][..]));
    assert!(process.env.contains(&"HOSTNAME=pod-1".to_owned()));
    assert!(process.env.contains(&"HOME=/".to_owned()));
}

#[test]
fn what_is_not_supported_is_refused() {
    let userns = LinuxContainerSecurityContext {
        namespace_options: Some(NamespaceOption {
            userns_options: Some(cri::v1::UserNamespace::default()),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert!(matches!(plan_with(userns, false), Err(SpecError::Unimplemented(_))));
    let apparmor = LinuxContainerSecurityContext {
        apparmor: Some(SecurityProfile { profile_type: ProfileType::Localhost as i32, localhost_ref: "mine".into() }),
        ..Default::default()
    };
    assert!(matches!(plan_with(apparmor, false), Err(SpecError::AppArmor(_))));
    let target = LinuxContainerSecurityContext {
        namespace_options: Some(NamespaceOption {
            pid: NamespaceMode::Target as i32,
            target_id: "gone".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert!(plan_with(target, false).is_err());
}
