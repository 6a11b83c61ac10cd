//! Scenario 5, kubectl's verbs that open streams to containers.

use crate::support::{Cluster, Fallible, has, wait};
use std::fs;

const TALKER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    stdin: true
    command: [sh, -c, "echo ready; while read line; do echo heard $line; done; echo over; sleep 3600"]
"#;

#[test]
fn containers_are_entered_read_and_reached() -> Fallible {
    let cluster = Cluster::running()?;
    cluster.apply(TALKER)?;
    cluster.ok("run web --image=nginx:1.7.9 --port=80")?;
    cluster.ok("wait --for=condition=Ready pod/talker pod/web --timeout=90s")?;
    executed(&cluster)?;
    attached(&cluster)?;
    copied(&cluster)?;
    forwarded(&cluster)?;
    proxied(&cluster)?;
    logged(&cluster)?;
    debugged(&cluster)?;
    run_at_once(&cluster)
}

fn executed(cluster: &Cluster) -> Fallible {
    assert_eq!(cluster.ok("exec web -- cat /proc/1/comm")?, "nginx");
    assert_eq!(cluster.fed("exec -i talker -- tr a-z A-Z", "from here\n")?, "FROM HERE");
    let failed = cluster.kubectl("exec talker -- sh -c 'echo seen >&2; exit 42'").output()?;
    assert_eq!(failed.status.code(), Some(42));
    has(&String::from_utf8_lossy(&failed.stderr), &["seen", "command terminated with exit code 42"]);
    has(&cluster.refused("exec talker -- absent")?, &["absent"]);
    has(&cluster.refused("exec talker -c absent -- true")?, &["container absent is not valid for pod talker"]);
    has(&cluster.refused("exec absent -- true")?, &["pods \"absent\" not found"]);
    // More than any buffer on the way, both ways and intact.
    let many = "0123456789abcdef".repeat(64 * 1024);
    let counted = cluster.fed("exec -i talker -- wc -c", &many)?;
    assert_eq!(counted, many.len().to_string());
    let sum = cluster.ok("exec talker -- sh -c 'head -c 3000000 /dev/zero | tr \\\\0 x'")?;
    assert!(sum.len() == 3_000_000 && sum.bytes().all(|b| b == b'x'), "{} bytes", sum.len());
    // On a terminal: there is one, its size is told, and it ends with the shell's code.
    let typed = "test -t 0 && echo is-a-$((40+2))-terminal\nexit\n";
    cluster.terminal("exec -it talker -- sh", typed, |shown| shown.contains("is-a-42-terminal")).map(drop)
}

fn attached(cluster: &Cluster) -> Fallible {
    let mut attach = cluster.follow("attach -i talker")?;
    // What is typed before it is attached is held by kubectl.
    attach.type_in("one\n")?;
    attach.until(|t| t.contains("heard one"))?;
    attach.type_in("two\n")?;
    attach.until(|t| t.contains("heard two"))?;
    drop(attach);
    let logs = cluster.ok("logs talker")?;
    assert_eq!(logs.lines().collect::<Vec<_>>(), ["ready", "heard one", "heard two"]);
    Ok(())
}

fn copied(cluster: &Cluster) -> Fallible {
    let local = cluster.dir.path().join("tree");
    fs::create_dir_all(local.join("inner"))?;
    fs::write(local.join("a.txt"), "some text\n")?;
    fs::write(local.join("inner/b.bin"), (0..=255).cycle().take(500_000).collect::<Vec<u8>>())?;
    cluster.ok("cp tree talker:/tmp/tree")?;
    assert_eq!(cluster.ok("exec talker -- cat /tmp/tree/a.txt")?, "some text");
    cluster.ok("cp talker:/tmp/tree back")?;
    assert_eq!(fs::read(cluster.dir.path().join("back/inner/b.bin"))?, fs::read(local.join("inner/b.bin"))?);
    Ok(())
}

fn forwarded(cluster: &Cluster) -> Fallible {
    cluster.ok("expose pod web --port=8080 --target-port=80")?;
    for target in ["pod/web :80", "service/web :8080"] {
        let forward = cluster.follow(&format!("port-forward {target}"))?;
        let said = forward.until(|t| t.contains("Forwarding from 127.0.0.1:"))?;
        let port = said.split("127.0.0.1:").nth(1).and_then(|t| t.split(' ').next()).ok_or("no port")?.to_owned();
        let address = format!("127.0.0.1:{port}");
        for _ in 0..3 {
            has(&cluster.machines.ask(&address, "/")?, &["Welcome to nginx!"]);
        }
        assert!(cluster.machines.ask_from_outside(&address, "/").is_err());
    }
    // A port that nobody listens on is told, and the forwarding itself fails no worse.
    let forward = cluster.follow("port-forward pod/web :81")?;
    let said = forward.until(|t| t.contains("Forwarding from 127.0.0.1:"))?;
    let port = said.split("127.0.0.1:").nth(1).and_then(|t| t.split(' ').next()).ok_or("no port")?.to_owned();
    assert!(cluster.machines.ask(&format!("127.0.0.1:{port}"), "/").is_err());
    forward.until(|t| t.contains("error forwarding port 81 to pod") || t.contains("connection refused")).map(drop)
}

fn proxied(cluster: &Cluster) -> Fallible {
    let proxy = cluster.follow("proxy --port=0")?;
    let said = proxy.until(|t| t.contains("Starting to serve on "))?;
    let address = said.split("serve on ").nth(1).ok_or("no address")?.trim().to_owned();
    has(&cluster.machines.ask(&address, "/version")?, &["v1.36"]);
    for path in ["/api/v1/namespaces/default/pods/web:80/proxy/", "/api/v1/namespaces/default/services/web:8080/proxy/"]
    {
        has(&cluster.machines.ask(&address, path)?, &["Welcome to nginx!"]);
    }
    has(&cluster.ok("get --raw /api/v1/nodes/node-1/proxy/healthz")?, &["ok"]);
    Ok(())
}

fn logged(cluster: &Cluster) -> Fallible {
    let follow = cluster.follow("logs -f talker --tail=1")?;
    follow.until(|t| t.contains("heard two"))?;
    let mut attach = cluster.follow("attach -i talker --quiet=true")?;
    attach.type_in("three\n")?;
    let text = follow.until(|t| t.contains("heard three"))?;
    assert!(!text.contains("heard one"), "{text}");
    let stamped = cluster.ok("logs talker --timestamps --tail=1")?;
    assert!(stamped.starts_with("20") && stamped.contains("Z "), "{stamped}");
    assert_eq!(cluster.ok("logs talker --limit-bytes=5")?, "ready");
    has(&cluster.ok("logs -l run=web --prefix --all-containers --tail=1 --since=1h")?, &[""]);
    has(
        &cluster.refused("logs talker --previous")?,
        &["previous terminated container \"main\" in pod \"talker\" not found"],
    );
    has(&cluster.refused("logs talker -c absent")?, &["container absent is not valid for pod talker"]);
    Ok(())
}

fn debugged(cluster: &Cluster) -> Fallible {
    // An ephemeral container sees the pod's network, and the target's processes.
    cluster.ok("debug web --image=busybox --target=web -c look --profile=general -- sh -c 'wget -qO- http://localhost | head -4; ps; sleep 3600'")?;
    let state = "get pod web -o jsonpath='{.status.ephemeralContainerStatuses[0].state.running.startedAt}'";
    cluster.until(state, |t| !t.is_empty())?;
    cluster.until("logs web -c look", |t| t.contains("Welcome to nginx!") && t.contains("nginx: master"))?;
    let said =
        cluster.ok("debug web --image=busybox --copy-to=copy --container=look --share-processes -- sleep 3600")?;
    assert_eq!(said, "");
    cluster.ok("wait --for=condition=Ready pod/copy --timeout=60s")?;
    cluster.ok(
        "debug node/node-1 --image=busybox --profile=general -- sh -c 'ls /host/etc/hostname && echo on-the-node'",
    )?;
    wait("a pod on the node's own root", || {
        let pods = cluster.ok("get pods -o name")?;
        let Some(pod) = pods.lines().find(|p| p.starts_with("pod/node-debugger-node-1-")) else { return Ok(false) };
        Ok(cluster.ok(&format!("logs {pod}")).is_ok_and(|t| t.contains("on-the-node")))
    })
}

fn run_at_once(cluster: &Cluster) -> Fallible {
    // What a container prints before it is attached to is not seen: this one waits for what it prints.
    let said = cluster.fed("run once --image=busybox --restart=Never --rm -i --quiet -- cat", "only once\n")?;
    has(&said, &["only once"]);
    has(&cluster.refused("get pod once")?, &["pods \"once\" not found"]);
    cluster.terminal(
        "run typed --image=busybox --restart=Never --rm -it -- sh",
        "echo it-is-$((1+1))\nexit\n",
        |shown| shown.contains("it-is-2") && shown.contains("pod \"typed\" deleted"),
    )?;
    let failed = cluster.kubectl("run fails --image=busybox --restart=Never --rm -i -- sh -c 'exit 7'").output()?;
    assert_eq!(failed.status.code(), Some(7), "{failed:?}");
    Ok(())
}
