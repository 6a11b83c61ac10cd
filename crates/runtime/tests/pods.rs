//! What containers of a pod share, and what they see of the machine.

mod support;

use std::{fs, path::Path};

use cri::v1::*;
use support::{Server, context, eventually, shell};

fn bind(host: impl AsRef<Path>, container: &str) -> Mount {
    Mount { host_path: host.as_ref().display().to_string(), container_path: container.into(), ..Default::default() }
}

fn pod_context(pod: &mut PodSandboxConfig) -> &mut LinuxSandboxSecurityContext {
    pod.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

#[tokio::test]
async fn a_pod_has_one_network_host_name_and_memory() {
    let server = Server::start().await;
    let mut config = server.pod("shared");
    config.dns_config = Some(DnsConfig {
        servers: vec!["10.96.0.10".into()],
        searches: vec!["default.svc.cluster.local".into()],
        options: vec!["ndots:5".into()],
    });
    config.linux.as_mut().unwrap().sysctls = [
        ("net.ipv4.ip_unprivileged_port_start".to_owned(), "80".to_owned()),
        ("kernel.shmmax".to_owned(), "12345678".to_owned()),
    ]
    .into();
    let pod = server.run_pod(config).await;
    let ip = pod.status().await.network.unwrap().ip;
    assert!(ip.starts_with("10."), "{ip}");
    let web = pod
        .run(shell("web", "echo content > /dev/shm/file; echo up; while :; do echo -e 'HTTP/1.0 200 OK\\r\\n\\r\\nhi' | nc -l -p 8080 >/dev/null; done"))
        .await;
    web.prints("up").await;
    let script = "hostname; cat /dev/shm/file; cat /etc/resolv.conf; cat /etc/hostname; \
                  cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax; \
                  until wget -q -O - http://127.0.0.1:8080/; do sleep 0.05; done; ip -o addr show eth0 | grep -c inet; ls /proc | grep -c '^[0-9]*$'";
    let (output, _) = pod.script("client", script).await;
    let expected = "shared\ncontent\nsearch default.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\nshared\n80\n12345678\nhi\n";
    assert!(output.starts_with(expected), "{output}");
    assert!(output.contains(expected), "{output}");
    // The machine reaches the pod by its address.
    let reached = eventually("an answer of the pod", async || {
        let mut stream = tokio::net::TcpStream::connect((ip.as_str(), 8080)).await.ok()?;
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        text.contains("hi").then_some(text)
    })
    .await;
    assert!(reached.contains("200 OK"));
    pod.stop().await;
    assert_eq!(pod.status().await.state(), PodSandboxState::SandboxNotready);
    pod.stop().await;
}

#[tokio::test]
async fn process_ids_are_shared_as_asked() {
    let server = Server::start().await;
    let mut config = server.pod("pids");
    pod_context(&mut config).namespace_options =
        Some(NamespaceOption { pid: NamespaceMode::Pod.into(), ..Default::default() });
    let pod = server.run_pod(config).await;
    let in_mode = |name: &str, script: &str, mode: NamespaceMode, target: &str| {
        let mut config = shell(name, script);
        context(&mut config).namespace_options =
            Some(NamespaceOption { pid: mode.into(), target_id: target.into(), ..Default::default() });
        config
    };
    let first = pod.run(in_mode("first", "sleep 4321", NamespaceMode::Pod, "")).await;
    // The pause process is the first one and can't be looked into.
    let script = "ps -o pid,args; ls /proc/1/root; ls -l /proc/1/fd; readlink /proc/1/exe; true";
    let (output, _) = pod.finished(in_mode("second", script, NamespaceMode::Pod, "")).await;
    assert!(output.contains("sleep 4321"), "{output}");
    assert!(output.lines().any(|l| l.trim() == "1 /pause"), "nothing of the machine is seen: {output}");
    assert!(output.contains("/proc/1/root: Permission denied"), "{output}");
    let (output, _) =
        pod.finished(in_mode("own", "echo $$; ls -d /proc/[0-9]* | wc -l", NamespaceMode::Container, "")).await;
    assert!(output.starts_with("1\n"), "{output}");
    let target = pod.run(in_mode("target", "sleep 5432", NamespaceMode::Container, "")).await;
    let (output, _) = pod.finished(in_mode("debug", "ps -o args", NamespaceMode::Target, &target.id)).await;
    assert!(output.contains("sleep 5432") && !output.contains("sleep 4321"), "{output}");
    let node =
        pod.run(in_mode("node", "readlink /proc/self; sleep 1000 & sleep 1001 & wait", NamespaceMode::Node, "")).await;
    eventually("the number of the process", async || (!node.output().is_empty()).then_some(())).await;
    let pid = node.pid().await;
    assert!(node.output().trim().parse::<i32>().unwrap() >= pid, "seen as the machine sees it");
    // All of its processes end with it, though no namespace ends them.
    let children = format!("/proc/{pid}/task/{pid}/children");
    let children = eventually("its children", async || {
        let text = fs::read_to_string(&children).ok()?;
        (text.split_whitespace().count() == 2).then_some(text)
    })
    .await;
    node.stop(0).await;
    eventually("their end", async || {
        children.split_whitespace().all(|child| !Path::new("/proc").join(child).exists()).then_some(())
    })
    .await;
    assert_eq!(first.status().await.state(), ContainerState::ContainerRunning);
}

#[tokio::test]
async fn host_pods_see_the_machine() {
    let server = Server::start().await;
    let mut config = server.pod("host");
    let modes = NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Node.into(),
        ipc: NamespaceMode::Node.into(),
        ..Default::default()
    };
    pod_context(&mut config).namespace_options = Some(modes.clone());
    let pod = server.run_pod(config).await;
    assert_eq!(pod.status().await.network.unwrap().ip, "");
    let mut container = shell("c", "hostname; for n in net uts ipc pid; do readlink /proc/self/ns/$n; done");
    context(&mut container).namespace_options = Some(modes);
    let (output, _) = pod.finished(container).await;
    let mut expected = nix::unistd::gethostname().unwrap().into_string().unwrap() + "\n";
    for namespace in ["net", "uts", "ipc", "pid"] {
        let link = fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        expected += &format!("{}\n", link.display());
    }
    assert_eq!(output, expected);
}

#[tokio::test]
async fn mounts_are_applied_as_asked() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("mounts")).await;
    let volume = server.path("volume");
    fs::create_dir_all(volume.join("sub")).unwrap();
    fs::write(volume.join("file"), "from the host\n").unwrap();
    let mounted = Mounted::tmpfs(&volume.join("sub"));
    let mut config = shell(
        "c",
        "cat /data/file; echo x > /data/new; cat /file; echo x > /ro/no || echo ro; echo x > /ro/sub/yes && echo below; \
         echo x > /rro/sub/no || echo rro; cat /var/run/link/file; ls /etc/resolv.conf; ls -d /made",
    );
    config.mounts = vec![
        bind(&volume, "/data"),
        bind(volume.join("file"), "/file"),
        Mount { readonly: true, ..bind(&volume, "/ro") },
        Mount { readonly: true, recursive_read_only: true, ..bind(&volume, "/rro") },
        // Through a link of the image, which stays inside of it.
        bind(&volume, "/var/run/link"),
        bind(server.path("made-by-runtime"), "/made"),
    ];
    let (output, code) = pod.finished(config).await;
    assert_eq!(code, 0, "{output}");
    let lines: Vec<_> = output.lines().filter(|l| !l.contains("Read-only")).collect();
    assert_eq!(
        lines,
        ["from the host", "from the host", "ro", "below", "rro", "from the host", "/etc/resolv.conf", "/made"]
    );
    assert_eq!(fs::read_to_string(volume.join("new")).unwrap(), "x\n");
    assert!(server.path("made-by-runtime").is_dir());
    drop(mounted);
}

/// A mount of a test.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn tmpfs(path: &Path) -> Self {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), flags, None::<&str>).unwrap();
        Self(path.to_owned())
    }

    fn shared(self) -> Self {
        let none = None::<&str>;
        nix::mount::mount(none, &self.0, none, nix::mount::MsFlags::MS_SHARED, none).unwrap();
        self
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn mounts_propagate_as_asked_and_not_otherwise() {
    let server = Server::start().await;
    let mut config = server.pod("propagation");
    pod_context(&mut config).privileged = true;
    let pod = server.run_pod(config).await;
    let volume = server.path("volume");
    fs::create_dir(&volume).unwrap();
    let shared = Mounted::tmpfs(&volume).shared();
    for name in ["private", "slave", "both", "inner-private", "inner-slave", "inner-both"] {
        fs::create_dir(volume.join(name)).unwrap();
    }
    let run = async |name: &str, propagation: MountPropagation| {
        let mut config = shell(name, &format!("mount -t tmpfs none /v/inner-{name} && echo mounted; sleep 1000"));
        context(&mut config).privileged = true;
        config.mounts = vec![Mount { propagation: propagation.into(), ..bind(&volume, "/v") }];
        let container = pod.run(config).await;
        container.prints("mounted").await;
        container
    };
    let private = run("private", MountPropagation::PropagationPrivate).await;
    let slave = run("slave", MountPropagation::PropagationHostToContainer).await;
    let both = run("both", MountPropagation::PropagationBidirectional).await;
    let _late: Vec<_> = ["private", "slave", "both"]
        .map(|name| {
            let mounted = Mounted::tmpfs(&volume.join(name));
            fs::write(volume.join(name).join("late"), "").unwrap();
            mounted
        })
        .into();
    let sees = async |container: &support::Ctr, name: &str| {
        let file = format!("/v/{name}/late");
        container.exec(&["ls", &file]).await.unwrap().2 == 0
    };
    assert!(!sees(&private, "private").await);
    assert!(sees(&slave, "slave").await);
    assert!(sees(&both, "both").await);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let on_host = |name: &str| table.contains(&volume.join(format!("inner-{name}")).display().to_string());
    assert!(!on_host("private") && !on_host("slave") && on_host("both"));
    let _inner = Mounted(volume.join("inner-both"));

    // What isn't shared can't go both ways.
    let mut refused = shell("refused", "true");
    context(&mut refused).privileged = true;
    let unshared = server.path("unshared");
    fs::create_dir(&unshared).unwrap();
    let _unshared = Mounted::tmpfs(&unshared);
    refused.mounts =
        vec![Mount { propagation: MountPropagation::PropagationBidirectional.into(), ..bind(&unshared, "/v") }];
    let error = pod.create(refused).await.unwrap().start().await.unwrap_err();
    assert!(error.message().contains("but it is not a shared mount"), "{}", error.message());
    drop(shared);
}

#[tokio::test]
async fn the_machines_devices_can_be_mounted_without_harm() {
    let server = Server::start().await;
    let before = fs::symlink_metadata("/dev/ptmx").unwrap().file_type();
    let mut config = server.pod("dev");
    pod_context(&mut config).privileged = true;
    let pod = server.run_pod(config).await;
    let log = server.path("termination-log");
    fs::write(&log, "").unwrap();
    let mut config = shell(
        "c",
        "test -e /dev/kmsg && echo kmsg; echo words > /dev/termination-log; echo x > /dev/null && echo null",
    );
    context(&mut config).privileged = true;
    config.mounts = vec![bind("/dev", "/dev"), bind(&log, "/dev/termination-log")];
    let (output, _) = pod.finished(config).await;
    assert!(output.contains("null"), "{output}");
    assert_eq!(output.contains("kmsg"), Path::new("/dev/kmsg").exists());
    assert_eq!(fs::read_to_string(&log).unwrap(), "words\n");
    assert_eq!(fs::symlink_metadata("/dev/ptmx").unwrap().file_type(), before);
    assert!(!Path::new("/dev/core").is_symlink() || fs::read_link("/dev/core").is_ok());
}

#[tokio::test]
async fn an_image_can_be_a_volume() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("volume")).await;
    let mut config = shell("c", "cat /image/passwd | head -n 1; echo x > /image/new || echo read-only");
    config.mounts = vec![Mount {
        image: Some(ImageSpec { image: "busybox".into(), ..Default::default() }),
        image_sub_path: "etc".into(),
        container_path: "/image".into(),
        readonly: true,
        ..Default::default()
    }];
    let container = pod.run(config).await;
    container.ended().await;
    let output = container.output();
    assert!(output.contains("root:x:0:0:root:/root:/bin/sh\n"), "{output}");
    assert!(output.contains("\nread-only\n"), "{output}");
    container.remove().await;
    let left = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!left.contains(&container.id), "a volume's mount is left");
}

#[tokio::test]
async fn host_ports_lead_to_the_pod() {
    let server = Server::start().await;
    let mut config = server.pod("ports");
    let port = 20_000 + (std::process::id() % 10_000) as i32;
    config.port_mappings = vec![PortMapping {
        protocol: Protocol::Tcp.into(),
        container_port: 8080,
        host_port: port,
        host_ip: String::new(),
    }];
    let pod = server.run_pod(config).await;
    let web = pod.run(shell("web", "echo up; while :; do echo answer | nc -l -p 8080; done")).await;
    web.prints("up").await;
    eventually("an answer at the machine's port", async || {
        use tokio::io::AsyncReadExt;
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port as u16)).await.ok()?;
        let mut text = [0; 6];
        stream.read_exact(&mut text).await.ok()?;
        (&text == b"answer").then_some(())
    })
    .await;
}

/// A container may be started before the server has heard from the pod's new shim what that runs, which is nothing: it is
/// not lost then.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn containers_started_at_once_are_not_lost() {
    let server = Server::start().await;
    for round in 0..4 {
        let pods = (0..12).map(|n| {
            let name = format!("pod{round}-{n}");
            let server = &server;
            async move {
                let pod = server.run_pod(server.pod(&name)).await;
                let container = pod.run(shell("main", "sleep 1000")).await;
                (pod, container)
            }
        });
        let pods = futures::future::join_all(pods).await;
        // Whatever the server had still to do for them is done when another pod is.
        let last = server.run_pod(server.pod(&format!("last{round}"))).await;
        last.script("main", "true").await;
        for (_, container) in &pods {
            let status = container.status().await;
            assert_eq!(status.state(), ContainerState::ContainerRunning, "{status:?}");
        }
        futures::future::join_all(pods.iter().map(|(pod, _)| pod.remove())).await;
        last.remove().await;
    }
}
