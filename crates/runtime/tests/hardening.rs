//! Ways out of a container that others have had to close: each is tried, and must not lead out.

mod support;

use std::{fs, os::unix::fs::symlink, path::Path};

use cri::v1::*;
use support::{Server, context, eventually, shell};

fn default_seccomp() -> Option<SecurityProfile> {
    Some(SecurityProfile {
        profile_type: security_profile::ProfileType::RuntimeDefault.into(),
        localhost_ref: String::new(),
    })
}

/// CVE-2019-5736: what runs a container is not to be overwritten through `/proc/self/exe`.
#[tokio::test]
async fn the_shims_executable_cannot_be_overwritten() {
    let server = Server::start().await;
    let mut config = server.pod("exe");
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    // The strongest attacker: all privileges, and the process ids of the machine.
    security.privileged = true;
    security.namespace_options = Some(NamespaceOption { pid: NamespaceMode::Node.into(), ..Default::default() });
    let pod = server.run_pod(config).await;
    let mut attack = shell(
        "attack",
        "shim=$(grep -l pilothouse-shim /proc/[0-9]*/cmdline | grep -o '[0-9]*' | while read p; do \
           grep -q \"$WHICH\" /proc/$p/cmdline && echo $p; done | head -n 1); \
         echo found ${shim:+one}; \
         (echo evil > /proc/$shim/exe) 2>&1 | grep -o 'Read-only file system\\|Text file busy'; \
         dd if=/dev/zero of=/proc/$shim/exe bs=1 count=1 conv=notrunc 2>&1 | grep -o 'Read-only file system\\|Text file busy'",
    );
    context(&mut attack).privileged = true;
    context(&mut attack).namespace_options =
        Some(NamespaceOption { pid: NamespaceMode::Node.into(), ..Default::default() });
    attack.envs = vec![KeyValue { key: "WHICH".into(), value: pod.id.clone() }];
    let (output, _) = pod.finished(attack).await;
    let mut lines: Vec<_> = output.lines().filter(|l| !l.starts_with("grep:")).collect();
    assert_eq!(lines.len(), 3, "{output}");
    lines.retain(|l| !["Read-only file system", "Text file busy"].contains(l));
    assert_eq!(lines, ["found one"], "{output}");
}

/// CVE-2024-21626: no descriptor of the machine may be open in a container, and none may be its directory.
#[tokio::test]
async fn no_descriptor_leaks_into_a_container() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("fds")).await;
    let list = "for f in /proc/self/fd/*; do echo $(basename $f); done 2>/dev/null; ls -l /proc/self/fd | grep -c -v 'pipe:\\|/dev/null\\|/proc/\\|total'";
    let container = pod.run(shell("c", &format!("{list}; echo done; sleep 1000"))).await;
    container.prints("done").await;
    // 0 to 2, and the shell's own while it lists them.
    let numbers: Vec<u32> = container.output().lines().filter_map(|l| l.parse().ok()).collect();
    assert!(numbers.contains(&2) && numbers.iter().all(|n| *n <= 10), "{numbers:?}");
    let pid = container.pid().await;
    let open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.parse::<u32>().unwrap() > 2)
        .map(|name| fs::read_link(format!("/proc/{pid}/fd/{name}")).unwrap())
        .collect();
    assert!(open.is_empty(), "{open:?}");
    let (out, _, _) = container.exec(&["ls", "-l", "/proc/self/fd"]).await.unwrap();
    let links: Vec<_> = out.lines().filter_map(|l| l.split_once(" -> ")).map(|(_, to)| to).collect();
    // The fourth was the directory that was read.
    assert_eq!((links.len(), out.lines().filter(|l| l.contains(':')).count()), (3, 4), "{out}");
    for (number, dir) in ["/proc/self/fd/7", "/proc/self/fd/8/../..", "/proc/self/fd/3"].iter().enumerate() {
        let mut attack = shell(&format!("cwd{number}"), "cat /etc/shadow; ls; true");
        attack.working_dir = (*dir).into();
        let container = pod.create(attack).await.unwrap();
        let Err(error) = container.start().await else {
            container.ended().await;
            let output = container.output();
            assert!(!output.contains("root:"), "{dir}: {output}");
            continue;
        };
        assert!(error.message().contains("cwd") || error.message().contains("mkdir"), "{}", error.message());
    }
}

/// CVE-2021-30465 and its kin: links in the image or in a volume must not lead mounts to the machine.
#[tokio::test]
async fn links_do_not_lead_mounts_out() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("links")).await;
    let outside = server.path("outside");
    fs::create_dir(&outside).unwrap();
    let volume = server.path("volume");
    fs::create_dir(&volume).unwrap();
    symlink(&outside, volume.join("escape")).unwrap();
    symlink("../../../../../../../../", volume.join("up")).unwrap();
    let evil = server.path("evil");
    fs::create_dir(&evil).unwrap();
    fs::write(evil.join("payload"), "x").unwrap();
    let mut config = shell("c", "cat /v/escape/payload /v/up/in-root/payload");
    let bind = |host: &Path, container: &str| Mount {
        host_path: host.display().to_string(),
        container_path: container.into(),
        ..Default::default()
    };
    config.mounts = vec![bind(&volume, "/v"), bind(&evil, "/v/escape"), bind(&evil, "/v/up/in-root")];
    let container = pod.create(config).await.unwrap();
    // Resolved inside of the container, or refused: either is safe.
    if container.start().await.is_ok() {
        container.ended().await;
    }
    assert!(fs::read_dir(&outside).unwrap().next().is_none(), "something was mounted or made outside");
    assert!(!Path::new("/in-root").exists());
}

/// CVE-2025-31133, 52565, 52881: `/dev/null`, `/dev/console`, `/dev/pts` and `/proc` are what they seem.
#[tokio::test]
async fn masks_and_devices_are_not_redirected() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("masks")).await;
    let volume = server.path("dev");
    fs::create_dir(&volume).unwrap();
    // A volume over /dev that another container has prepared.
    symlink("/proc/sysrq-trigger", volume.join("null")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", volume.join("console")).unwrap();
    symlink("/etc", volume.join("pts")).unwrap();
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for (name, tty) in [("plain", false), ("tty", true)] {
        let mut config =
            shell(name, "echo evil > /dev/console; echo evil > /dev/null; cat /proc/kcore | head -c 1 | wc -c");
        config.tty = tty;
        context(&mut config).masked_paths = vec!["/proc/kcore".into(), "/proc/keys".into()];
        context(&mut config).readonly_paths = vec!["/proc/sys".into(), "/proc/sysrq-trigger".into()];
        config.mounts = vec![Mount {
            host_path: volume.display().to_string(),
            container_path: "/dev".into(),
            ..Default::default()
        }];
        let container = pod.create(config).await.unwrap();
        if container.start().await.is_ok() {
            container.ended().await;
        }
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
    // A mount below /proc is refused, however it is written.
    for (name, path) in [("proc1", "/proc/sys"), ("proc2", "/x/../proc/self"), ("proc3", "/proc")] {
        let mut config = shell(name, "true");
        config.mounts =
            vec![Mount { host_path: volume.display().to_string(), container_path: path.into(), ..Default::default() }];
        let started = pod.create(config).await.unwrap().start().await;
        assert!(started.is_err(), "{path} was mounted over");
    }
}

#[tokio::test]
async fn masked_and_read_only_paths_are_that() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("paths")).await;
    let mut config = shell(
        "c",
        "wc -c < /proc/kcore; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v : | wc -w; echo 1 > /proc/sys/net/ipv4/ip_forward || echo ro; \
         echo x > /sys/kernel/mm/x || echo sys; mkdir /sys/fs/cgroup/memory/x 2>/dev/null || mkdir /sys/fs/cgroup/x || echo cgroup",
    );
    context(&mut config).masked_paths = ["/proc/kcore", "/proc/acpi", "/sys/firmware"].map(String::from).into();
    context(&mut config).readonly_paths = vec!["/proc/sys".into()];
    let (output, _) = pod.finished(config).await;
    let lines: Vec<_> = output.lines().filter(|l| !l.contains("can't") && !l.contains("sh:")).collect();
    assert_eq!(lines.first(), Some(&"0"), "{output}");
    assert!(lines.contains(&"ro") && lines.contains(&"sys"), "{output}");
    assert!(output.contains("cgroup"), "{output}");
}

/// CVE-2022-24769: nothing is inheritable, nothing ambient, and what was dropped is gone.
#[tokio::test]
async fn capabilities_are_those_asked_for() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("caps")).await;
    let read = "grep Cap /proc/self/status | while read n v; do echo $n $v; done";
    let sets = |text: &str| -> Vec<u64> {
        text.lines().map(|l| u64::from_str_radix(l.split(' ').nth(1).unwrap(), 16).unwrap()).collect()
    };
    let default = sets(&pod.script("default", read).await.0);
    let [inheritable, permitted, effective, bounding, ambient] = default[..] else { panic!("{default:?}") };
    assert_eq!((inheritable, ambient), (0, 0));
    assert_eq!(permitted, 0xa804_25fb);
    assert_eq!((effective, bounding), (permitted, permitted));
    let mut none = shell("none", read);
    context(&mut none).capabilities = Some(Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
    assert_eq!(sets(&pod.finished(none).await.0), [0; 5]);
    let mut user = shell("user", &format!("{read}; sleep 1000"));
    context(&mut user).run_as_user = Some(Int64Value { value: 1000 });
    let user = pod.run(user).await;
    user.prints("CapAmb").await;
    let text = user.output();
    assert_eq!(sets(&text), [0, 0, 0, 0xa804_25fb, 0]);
    // An executed command has no more than the container.
    let (out, _, _) = user.exec(&["sh", "-c", read]).await.unwrap();
    assert_eq!(sets(&out), sets(&text));
}

#[tokio::test]
async fn the_default_filter_refuses_what_it_shall() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("seccomp")).await;
    let script =
        "grep Seccomp: /proc/self/status; unshare -U true && echo unshared; mount -t tmpfs none /tmp && echo mounted";
    let unconfined = pod.script("unconfined", script).await.0;
    assert!(unconfined.contains("Seccomp:\t0"), "{unconfined}");
    assert!(unconfined.contains("unshared"), "the test shows nothing where this is not allowed anyway");
    for no_new_privs in [false, true] {
        let mut config = shell(if no_new_privs { "nnp" } else { "plain" }, &format!("{script}; sleep 1000"));
        context(&mut config).seccomp = default_seccomp();
        context(&mut config).no_new_privs = no_new_privs;
        let container = pod.run(config).await;
        container.prints("mount: ").await;
        let output = container.output();
        assert!(output.contains("Seccomp:\t2"), "{output}");
        assert!(!output.contains("unshared") && !output.contains("mounted"), "{output}");
        // Executed commands are filtered too.
        let (out, err, code) = container.exec(&["unshare", "-U", "true"]).await.unwrap();
        assert!(code != 0 && err.contains("Operation not permitted"), "{out} {err}");
        let (out, _, _) = container.exec(&["grep", "NoNewPrivs", "/proc/self/status"]).await.unwrap();
        assert_eq!(out, format!("NoNewPrivs:\t{}\n", u8::from(no_new_privs)));
    }
}

#[tokio::test]
async fn a_filter_of_the_node_is_applied() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("localhost")).await;
    let profile = server.path("profile.json");
    fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":5}]}"#,
    )
    .unwrap();
    let localhost = |path: &Path| {
        Some(SecurityProfile {
            profile_type: security_profile::ProfileType::Localhost.into(),
            localhost_ref: path.display().to_string(),
        })
    };
    let mut config = shell("c", "mkdir /x; touch /y && echo touched");
    context(&mut config).seccomp = localhost(&profile);
    let (output, _) = pod.finished(config).await;
    assert!(output.contains("Input/output error") && output.contains("touched"), "{output}");
    let mut missing = shell("missing", "true");
    context(&mut missing).seccomp = localhost(&server.path("none.json"));
    let error = pod.create(missing).await.err().unwrap();
    assert!(error.message().contains("none.json"), "{}", error.message());
}

#[tokio::test]
async fn ids_that_wrap_around_are_refused() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("ids")).await;
    for (name, id) in [("wraps", 1i64 << 32), ("negative", -1), ("huge", i64::MAX), ("last", u32::MAX.into())] {
        let mut config = shell(name, "id -u");
        context(&mut config).run_as_user = Some(Int64Value { value: id });
        let error = pod.create(config).await.err().unwrap();
        assert!(error.message().contains("out of range"), "{id}: {}", error.message());
    }
}

#[tokio::test]
async fn a_read_only_root_is_that() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("readonly")).await;
    let mut config = shell(
        "c",
        "echo x > /new || echo root; echo x > /etc/hosts || echo hosts; echo x > /dev/shm/y && echo shm; pwd",
    );
    context(&mut config).readonly_rootfs = true;
    config.working_dir = "/not/there/yet".into();
    let (output, _) = pod.finished(config).await;
    let lines: Vec<_> = output.lines().filter(|l| !l.contains("can't")).collect();
    assert_eq!(lines, ["root", "hosts", "shm", "/not/there/yet"]);
}

#[tokio::test]
async fn limits_hold() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("limits")).await;
    let mut config = shell("c", "echo up; sleep 1000");
    config.linux.as_mut().unwrap().resources = Some(LinuxContainerResources {
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        memory_limit_in_bytes: 64 << 20,
        oom_score_adj: 555,
        ..Default::default()
    });
    let container = pod.run(config).await;
    container.prints("up").await;
    let (out, _, _) = container
        .exec(&["sh", "-c", "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us 2>/dev/null || cat memory.max cpu.weight cpu.max; cat /proc/1/oom_score_adj"])
        .await
        .unwrap();
    assert!(out == "67108864\n512\n50000\n555\n" || out.starts_with("67108864\n"), "{out}");
    let update = UpdateContainerResourcesRequest {
        container_id: container.id.clone(),
        linux: Some(LinuxContainerResources { memory_limit_in_bytes: 128 << 20, ..Default::default() }),
        ..Default::default()
    };
    server.client.runtime().update_container_resources(update).await.unwrap();
    let (out, _, _) = container
        .exec(&["sh", "-c", "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes 2>/dev/null || cat memory.max"])
        .await
        .unwrap();
    assert_eq!(out, "134217728\n");
    let resources = container.status().await.resources.unwrap().linux.unwrap();
    assert_eq!((resources.memory_limit_in_bytes, resources.cpu_shares), (128 << 20, 512));
    let stats = ContainerStatsRequest { container_id: container.id.clone() };
    let stats = server.client.runtime().container_stats(stats).await.unwrap().into_inner().stats.unwrap();
    let memory = stats.memory.unwrap();
    assert!(memory.working_set_bytes.unwrap().value > 0);
    assert!(memory.available_bytes.unwrap().value < 128 << 20);
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);

    let mut hungry = shell("hungry", "tail /dev/zero");
    hungry.linux.as_mut().unwrap().resources =
        Some(LinuxContainerResources { memory_limit_in_bytes: 32 << 20, ..Default::default() });
    let status = pod.run(hungry).await.ended().await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
}

/// A device that isn't given can be made, but not opened.
#[tokio::test]
async fn devices_of_the_machine_are_out_of_reach() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("devices")).await;
    let script = "mknod /disk b 254 0 && echo made; cat /disk 2>&1 | head -c 100; head -c 1 /dev/zero | wc -c; mknod /mem c 1 1; cat /mem 2>&1 | head -c 100";
    let (output, _) = pod.script("c", script).await;
    assert!(output.starts_with("made\n"), "{output}");
    assert_eq!(output.matches("Operation not permitted").count(), 2, "{output}");
    let mut given =
        shell("given", "head -c 3 /dev/nothing | wc -c; (echo x > /dev/nothing) 2>&1; ls -l /dev/nothing | cut -c1-10");
    given.devices =
        vec![Device { host_path: "/dev/kmsg".into(), container_path: "/dev/nothing".into(), permissions: "r".into() }];
    if Path::new("/dev/kmsg").exists() {
        let container = pod.run(given).await;
        container.prints("Operation not permitted").await;
        container.stop(0).await;
    }
}

/// The CRI's socket and the runtime's files are for root alone.
#[tokio::test]
async fn nobody_else_reaches_the_runtime() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("files")).await;
    let container = pod.run(shell("c", "sleep 1000")).await;
    let mode = |path: std::path::PathBuf| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(server.path("cri.sock")), 0o600);
    assert_eq!(mode(server.path("runtime")) & 0o066, 0);
    assert_eq!(mode(server.path("bin")), 0o700);
    let plan = server.path("runtime/containers").join(&container.id).join("plan.json");
    assert!(plan.exists());
    eventually("an unprivileged reader's refusal", async || {
        let status = std::process::Command::new("/bin/busybox")
            .args(["ls"])
            .arg(server.path("runtime/containers"))
            .env_clear()
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .uid_of_nobody()
            .status()
            .unwrap();
        (!status.success()).then_some(())
    })
    .await;
}

trait AsNobody {
    fn uid_of_nobody(&mut self) -> &mut Self;
}

impl AsNobody for std::process::Command {
    fn uid_of_nobody(&mut self) -> &mut Self {
        use std::os::unix::process::CommandExt;
        self.uid(65534).gid(65534)
    }
}
