//! The server may end at any moment: containers go on, nothing is lost, nothing half-made stays.

mod support;

use std::{fs, path::Path};

use cri::v1::*;
use support::{Server, eventually, shell};

async fn containers(server: &Server) -> Vec<Container> {
    let request = ListContainersRequest::default();
    let response = server.client.runtime().list_containers(request).await;
    response.unwrap().into_inner().containers
}

#[tokio::test]
async fn containers_outlive_the_server() {
    let mut server = Server::start().await;
    let pod = server.run_pod(server.pod("survivor")).await;
    let runs = pod.run(shell("runs", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done")).await;
    let ends = pod.run(shell("ends", "until test -e /tmp/go; do sleep 0.01; done; echo last words; exit 5")).await;
    let created = pod.create(shell("created", "echo later")).await.unwrap();
    runs.prints("2\n").await;
    let (pid, ip) = (runs.pid().await, pod.status().await.network.unwrap().ip);
    let root = format!("/proc/{}/root", ends.pid().await);
    server.kill();
    // One ends while nobody looks.
    fs::write(Path::new(&root).join("tmp/go"), "").unwrap();
    ends.prints("last words").await;
    let before = runs.output().lines().count();
    eventually("output without a server", async || (runs.output().lines().count() > before + 2).then_some(())).await;
    server.launch().await;

    assert_eq!(runs.pid().await, pid, "it was restarted");
    let status = ends.status().await;
    assert_eq!(status.state(), ContainerState::ContainerExited);
    assert_eq!((status.exit_code, status.reason.as_str()), (5, "Error"));
    assert!(status.finished_at >= status.started_at);
    assert_eq!(pod.status().await.network.unwrap().ip, ip);
    assert_eq!(pod.status().await.state(), PodSandboxState::SandboxReady);
    let (out, _, _) = runs.exec(&["echo", "still here"]).await.unwrap();
    assert_eq!(out, "still here\n");
    created.start().await.unwrap();
    created.prints("later").await;
    runs.stop(0).await;
    assert_eq!(runs.status().await.exit_code, 137);
    // The counting has no gap.
    let numbers: Vec<u32> = runs.output().lines().map(|l| l.parse().unwrap()).collect();
    assert!(numbers.iter().zip(1..).all(|(n, i)| *n == i), "{numbers:?}");
    // Names are still taken.
    assert!(pod.create(shell("runs", "true")).await.is_err());
    let again = server.run_pod(server.pod("other")).await;
    again.script("new", "true").await;
}

/// Whatever the moment, the next start finds either the whole thing or nothing.
#[tokio::test]
async fn no_moment_to_be_killed_at_leaves_halves() {
    let mut server = Server::start().await;
    for round in 0..12u64 {
        let client = server.client.clone();
        let config = server.pod(&format!("round{round}"));
        let work = tokio::spawn(async move {
            let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
            let pod = client.runtime().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
            let request = CreateContainerRequest {
                pod_sandbox_id: pod.clone(),
                config: Some(shell("c", "sleep 1000")),
                sandbox_config: Some(config),
            };
            let container_id = client.runtime().create_container(request).await?.into_inner().container_id;
            client.runtime().start_container(StartContainerRequest { container_id: container_id.clone() }).await?;
            client
                .runtime()
                .stop_container(StopContainerRequest { container_id: container_id.clone(), timeout: 0 })
                .await?;
            client.runtime().remove_container(RemoveContainerRequest { container_id }).await?;
            client.runtime().stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await?;
            client.runtime().remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod }).await?;
            Ok::<_, tonic::Status>(())
        });
        tokio::time::sleep(std::time::Duration::from_millis(13 * round)).await;
        server.kill();
        let _ = work.await;
        server.launch().await;
        let request = ListPodSandboxRequest::default();
        let pods = server.client.runtime().list_pod_sandbox(request).await.unwrap().into_inner().items;
        assert!(pods.len() <= 1, "{pods:?}");
        for container in containers(&server).await {
            assert_eq!(container.pod_sandbox_id, pods[0].id);
        }
        // What counts is whole: it can be used, and taken apart.
        for pod in &pods {
            if pod.state() == PodSandboxState::SandboxReady && containers(&server).await.is_empty() {
                let request = CreateContainerRequest {
                    pod_sandbox_id: pod.id.clone(),
                    config: Some(shell("again", "true")),
                    sandbox_config: None,
                };
                server.client.runtime().create_container(request).await.unwrap();
            }
            let request = RemovePodSandboxRequest { pod_sandbox_id: pod.id.clone() };
            server.client.runtime().remove_pod_sandbox(request).await.unwrap();
        }
        let left = |dir: &str| fs::read_dir(server.path(dir)).unwrap().count();
        assert_eq!((left("runtime/sandboxes"), left("runtime/containers")), (0, 0), "round {round}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = server.dir.path().display().to_string();
        let mounts: Vec<_> = mounts.lines().filter(|l| l.contains(&dir)).collect();
        assert!(mounts.is_empty(), "round {round}: {mounts:#?}");
        assert!(namespaces(&server.cluster).is_empty(), "round {round}");
    }
}

fn namespaces(cluster: &str) -> Vec<String> {
    fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.starts_with(cluster))
        .collect()
}

#[tokio::test]
async fn a_pod_whose_shim_dies_is_over() {
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("orphan")).await;
    let container = pod.run(shell("c", "sleep 1000")).await;
    let pid = container.pid().await;
    let shim = fs::read_to_string(server.path("runtime/sandboxes").join(&pod.id).join("shim.pid")).unwrap();
    let shim: i32 = shim.split(' ').next().unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    let status = container.ended().await;
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
    eventually("the end of its processes", async || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())).await;
    eventually("the end of the pod", async || {
        (pod.status().await.state() == PodSandboxState::SandboxNotready).then_some(())
    })
    .await;
    container.remove().await;
    pod.stop().await;
    pod.remove().await;
}

/// The first process of a shared namespace takes all others along, and nothing can be started there again.
#[tokio::test]
async fn a_pod_whose_pause_process_dies_is_over() {
    let server = Server::start().await;
    let shared = || Some(NamespaceOption { pid: NamespaceMode::Pod.into(), ..Default::default() });
    let mut config = server.pod("pause");
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = shared();
    let pod = server.run_pod(config).await;
    let mut container = shell("c", "sleep 1000");
    support::context(&mut container).namespace_options = shared();
    let container = pod.run(container).await;
    let state = fs::read(server.path("runtime/sandboxes").join(&pod.id).join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let pause = nix::unistd::Pid::from_raw(state["pause"].as_i64().unwrap() as i32);
    nix::sys::signal::kill(pause, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(container.ended().await.exit_code, 137);
    eventually("the end of the pod", async || {
        (pod.status().await.state() == PodSandboxState::SandboxNotready).then_some(())
    })
    .await;
    pod.remove().await;
}

/// As a reload of the machine's firewall does it.
#[tokio::test]
async fn rules_of_the_pod_network_that_somebody_deleted_come_back() {
    use network::nft::{Family, Nft, Table, Transaction};
    let server = Server::start().await;
    let table = Table::new(Family::Ip, format!("{}-pods", server.cluster));
    let intact = || Nft::open().unwrap().is_intact(&table).unwrap();
    assert!(intact());
    let mut t = Transaction::new();
    t.delete_table(&table);
    Nft::open().unwrap().commit(t).unwrap();
    eventually("the rules", async || intact().then_some(())).await;
}

/// What containers write, and setuid executables of images, are nobody's but theirs and root's.
#[tokio::test]
async fn nobody_but_root_gets_to_the_files_of_containers() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start().await;
    let pod = server.run_pod(server.pod("private")).await;
    let mut config = shell("user", "echo secret > /tmp/file; cat /tmp/file /bin/sh | head -c 7; sleep 1000");
    support::context(&mut config).run_as_user = Some(Int64Value { value: 1000 });
    let container = pod.run(config).await;
    // They see their own root all the same.
    container.prints("secret\n").await;
    let mut found = 0;
    for name in ["images", "runtime"] {
        let path = server.path(name);
        let mut at = vec![path.clone()];
        while let Some(path) = at.pop() {
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            if mode & 0o077 == 0 {
                found += 1;
                continue;
            }
            // What others may enter holds nothing of containers.
            for entry in fs::read_dir(&path).unwrap() {
                let path = entry.unwrap().path();
                assert!(path.file_name().is_none_or(|n| n != "fs" && n != "snapshots" && n != "layers"), "{path:?}");
                if path.is_dir() {
                    at.push(path);
                }
            }
        }
    }
    assert!(found >= 2, "{found}");
}

#[tokio::test]
async fn reset_leaves_nothing() {
    let mut server = Server::start().await;
    let mut config = server.pod("reset");
    config.linux.as_mut().unwrap().cgroup_parent = format!("/{}-pods/pod1", server.cluster);
    let pod = server.run_pod(config).await;
    let container = pod.run(shell("c", "sleep 1000")).await;
    let pid = container.pid().await;
    let netns = namespaces(&server.cluster);
    assert_eq!(netns.len(), 1);
    server.reset();
    // Killed it is; whoever takes in orphans here has to notice.
    eventually("the end of its process", async || {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        state.is_none_or(|s| s.contains(") Z ")).then_some(())
    })
    .await;
    assert!(namespaces(&server.cluster).is_empty());
    let dir = server.dir.path().display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&dir), "mounts are left");
    let left: Vec<_> = fs::read_dir(server.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n != "logs" && n != "server.log")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let processes = fs::read_dir("/proc").unwrap().filter_map(|e| {
        let cmdline = fs::read_to_string(e.ok()?.path().join("cmdline")).ok()?;
        (cmdline.contains("pilothouse-shim") && cmdline.contains(&server.cluster)).then_some(cmdline)
    });
    assert_eq!(processes.count(), 0);
    for group in [&server.cluster, &format!("{}-pods/pod1/{}", server.cluster, container.id)] {
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let path = hierarchy.unwrap().path().join(group);
            assert!(!path.exists(), "{}", path.display());
        }
    }
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
        // The parent is the kubelet's, which is this test here.
        let path = hierarchy.unwrap().path().join(format!("{}-pods", server.cluster));
        let _ = fs::remove_dir(path.join("pod1"));
        let _ = fs::remove_dir(path);
    }
    let links = fs::read_dir("/sys/class/net").unwrap().filter(|e| {
        let alias = e.as_ref().unwrap().path().join("ifalias");
        fs::read_to_string(alias).is_ok_and(|a| a.contains(&format!(":{}:", server.cluster)))
    });
    assert_eq!(links.count(), 0);
    // Again over nothing, and a new life after it.
    server.reset();
    server.launch().await;
    assert!(containers(&server).await.is_empty());
}

#[tokio::test]
async fn two_servers_do_not_share_a_directory() {
    let server = Server::start().await;
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cri-server"))
        .arg(server.dir.path())
        .arg(format!("socket={}", server.path("other.sock").display()))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("another container runtime serves"), "{message}");
    assert!(!server.path("other.sock").exists());
}

#[tokio::test]
async fn an_upgrade_leaves_running_pods_alone() {
    let mut server = Server::start().await;
    let pod = server.run_pod(server.pod("old")).await;
    let container = pod.run(shell("c", "sleep 1000")).await;
    let pid = container.pid().await;
    server.kill();
    // The next version: the same program, as far as it runs, in another file.
    let next = server.path("next-version");
    fs::copy(env!("CARGO_BIN_EXE_cri-server"), &next).unwrap();
    let mut file = fs::File::options().append(true).open(&next).unwrap();
    std::io::Write::write_all(&mut file, b"another version").unwrap();
    drop(file);
    server.executable = Some(next);
    server.launch().await;
    assert_eq!(container.pid().await, pid);
    let (out, _, _) = container.exec(&["echo", "old"]).await.unwrap();
    assert_eq!(out, "old\n");
    let copies = || fs::read_dir(server.path("bin")).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(copies(), 2);
    let new = server.run_pod(server.pod("new")).await;
    assert_eq!(new.script("c", "echo new").await.0, "new\n");
    pod.remove().await;
    server.kill();
    server.launch().await;
    let copies = || fs::read_dir(server.path("bin")).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(copies(), 1, "the old copy goes with its last shim");
}
