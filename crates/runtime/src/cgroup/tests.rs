//! Tests on directories that look like groups, and of the device filter on a real one.

use std::{fs, path::Path};

use super::*;

fn v2_root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cgroup.controllers"), "cpu memory pids misc").unwrap();
    fs::write(dir.path().join("cgroup.subtree_control"), "pids").unwrap();
    dir
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn version_2_delegates_and_limits() {
    let root = v2_root();
    let cgroups = Cgroups::from_mounts(vec![Mount::V2 { root: root.path().into() }]).unwrap();
    cgroups.create("/pod").unwrap();
    // A plain file keeps the last write only; the kernel adds them up.
    assert_eq!(text(root.path().join("cgroup.subtree_control")), "+memory");
    let group = root.path().join("pod");
    for (file, content) in [("cpu.max", "max 100000"), ("memory.max", "max"), ("memory.swap.max", "max")] {
        fs::write(group.join(file), content).unwrap();
    }
    let resources = Resources {
        cpu_shares: Some(1024),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        memory_limit: Some(100),
        memory_swap_limit: Some(150),
        unified: [("memory.high".to_owned(), "90".to_owned())].into(),
        ..Default::default()
    };
    cgroups.apply("/pod", &resources).unwrap();
    for (file, content) in [
        ("cpu.weight", "100"),
        ("cpu.max", "50000 100000"),
        ("memory.max", "100"),
        ("memory.swap.max", "50"),
        ("memory.high", "90"),
    ] {
        assert_eq!(text(group.join(file)), content, "{file}");
    }
    let unlimited = Resources { cpu_quota: Some(-1), memory_limit: Some(-1), ..Default::default() };
    cgroups.apply("/pod", &unlimited).unwrap();
    assert_eq!((text(group.join("cpu.max")), text(group.join("memory.max"))), ("max".into(), "max".into()));
    let escape = Resources { unified: [("../x".to_owned(), "1".to_owned())].into(), ..Default::default() };
    assert!(cgroups.apply("/pod", &escape).is_err());
}

#[test]
fn version_2_figures() {
    let root = v2_root();
    let group = root.path().join("c");
    fs::create_dir(&group).unwrap();
    for (file, content) in [
        ("cpu.stat", "usage_usec 1500\nuser_usec 1\n"),
        ("memory.current", "1000\n"),
        ("memory.max", "max\n"),
        ("memory.stat", "anon 300\ninactive_file 400\npgfault 7\n"),
        ("pids.current", "3\n"),
        ("memory.events", "low 0\noom 2\noom_kill 1\n"),
    ] {
        fs::write(group.join(file), content).unwrap();
    }
    let cgroups = Cgroups::from_mounts(vec![Mount::V2 { root: root.path().into() }]).unwrap();
    let stats = cgroups.stats("/c").unwrap();
    assert_eq!(stats.cpu, Some(CpuStats { usage_nanos: 1_500_000 }));
    let memory = stats.memory.unwrap();
    assert_eq!((memory.usage, memory.working_set, memory.rss), (1000, 600, 300));
    assert_eq!((memory.limit, memory.page_faults, stats.processes), (None, 7, Some(3)));
    assert_eq!(oom_kills(&[group]), 1);
}

#[test]
fn version_1_grows_and_shrinks_memory_in_the_right_order() {
    let root = tempfile::tempdir().unwrap();
    let cgroups =
        Cgroups::from_mounts(vec![Mount::V1 { root: root.path().into(), controllers: vec!["memory".into()] }]).unwrap();
    cgroups.create("/c").unwrap();
    let file = |name: &str| root.path().join("c").join(name);
    fs::write(file("memory.memsw.limit_in_bytes"), "100").unwrap();
    for (limit, swap) in [(200, 300), (50, 60), (-1, -1)] {
        let resources = Resources { memory_limit: Some(limit), memory_swap_limit: Some(swap), ..Default::default() };
        cgroups.apply("/c", &resources).unwrap();
        assert_eq!(text(file("memory.limit_in_bytes")), limit.to_string());
        assert_eq!(text(file("memory.memsw.limit_in_bytes")), swap.to_string());
    }
    let missing = Resources { cpu_shares: Some(2), ..Default::default() };
    assert!(matches!(cgroups.apply("/c", &missing), Err(CgroupError::NoController("cpu"))));
}

/// The filter works in any version 2 hierarchy, also in the one that a version 1 machine has beside.
#[test]
fn the_device_filter_holds() {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let unified = mounts::parse(&table).into_iter().find_map(|m| match m {
        Mount::V2 { root } => Some(root),
        Mount::V1 { .. } => None,
    });
    let Some(root) = unified else { return };
    let group = root.join(format!("device-filter-{}", std::process::id()));
    fs::create_dir(&group).unwrap();
    let rules = [DeviceRule { write: false, mknod: false, ..DeviceRule::full(DeviceKind::Char, 1, 3) }];
    let attached = device_filter::attach(&group, &rules);
    let run = |script: &str| {
        let script = format!("echo $$ > {}/cgroup.procs && {script}", group.display());
        let status = std::process::Command::new("/bin/busybox")
            .args(["sh", "-c", &script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap();
        status.status.success()
    };
    let outcome = (run("exec 3</dev/null"), run("exec 3>/dev/null"), run("exec 3</dev/zero"));
    fs::remove_dir(&group).unwrap();
    attached.unwrap();
    assert_eq!(outcome, (true, false, false));
}

#[test]
fn paths_stay_inside_the_hierarchy() {
    assert_eq!(relative("/a/b").unwrap(), Path::new("a/b"));
    for bad in ["", "/", "a/b", "/a/../b", "/..", "/a/.."] {
        assert!(relative(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_hybrid_machine_is_version_1() {
    let cgroups = Cgroups::from_mounts(vec![
        Mount::V1 { root: "/c/cpu".into(), controllers: vec!["cpu".into()] },
        Mount::V1 { root: "/c/systemd".into(), controllers: vec![] },
        Mount::V2 { root: "/c/unified".into() },
    ])
    .unwrap();
    assert_eq!(cgroups.version(), Version::V1);
    assert_eq!(cgroups.dirs("/x").unwrap(), [PathBuf::from("/c/cpu/x")]);
    assert!(matches!(Cgroups::from_mounts(vec![]), Err(CgroupError::NotMounted)));
}
