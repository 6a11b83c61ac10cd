//! Scenarios 2 and 3: containers that share a network and a volume, init containers, limits.

use crate::support::leftovers::groups_of;
use crate::support::{Cluster, Fallible, has, manifest};
use std::fs;

const LIMITED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  containers:
  - name: main
    image: nginx
    resources:
      limits: {cpu: "1", memory: "4Gi"}
      requests: {cpu: "0.5", memory: "500Mi"}
"#;

const GREEDY: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: busybox
    command: ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]
    resources: {limits: {memory: "32Mi"}}
"#;

#[test]
fn containers_of_a_pod_share_wait_and_keep_to_their_limits() -> Fallible {
    let cluster = Cluster::running()?;
    let directory = cluster.dir.path().join("db");
    let waits = fs::read_to_string(manifest("waits-for-directory.yaml"))?;
    cluster.ok(&format!("apply -f {}", manifest("two-containers.yaml")))?;
    cluster.apply(&waits.replace("DIRECTORY", &directory.display().to_string()))?;
    cluster.apply(LIMITED)?;
    cluster.apply(GREEDY)?;

    // Two containers: one volume, one network.
    cluster.ok("wait --for=condition=Ready pod/two-containers --timeout=60s")?;
    let page = cluster.ok("exec two-containers -c busybox-container -- wget -qO- http://localhost")?;
    assert_eq!(page, "Hello from the second container");
    let page = cluster.ok("exec two-containers -c nginx-container -- cat /usr/share/nginx/html/index.html")?;
    assert_eq!(page, "Hello from the second container");

    // An init container waits for a directory.
    cluster.until("logs waits -c wait-for-db", |t| t.contains("/db/dir: No such file or directory"))?;
    has(&cluster.ok("get pod waits")?, &["Init:0/1"]);
    has(&cluster.refused("logs waits -c main")?, &["is waiting to start: PodInitializing"]);
    fs::create_dir(directory.join("dir"))?;
    cluster.ok("wait --for=condition=Ready pod/waits --timeout=60s")?;
    let init = cluster.ok("get pod waits -o jsonpath='{.status.initContainerStatuses[0].state.terminated.reason}'")?;
    assert_eq!(init, "Completed");

    limits_are_in_the_cgroup(&cluster)?;

    // Over the limit: killed, and told.
    let state = "get pod greedy -o jsonpath='{.status.phase} {.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}'";
    cluster.until(state, |t| t == "Failed OOMKilled 137")?;
    has(&cluster.ok("get pod greedy")?, &["OOMKilled"]);
    has(&cluster.ok("describe pod greedy")?, &["Reason:       OOMKilled", "Exit Code:    137"]);
    Ok(())
}

fn limits_are_in_the_cgroup(cluster: &Cluster) -> Fallible {
    cluster.ok("wait --for=condition=Ready pod/limited --timeout=60s")?;
    assert_eq!(cluster.ok("get pod limited -o jsonpath='{.status.qosClass}'")?, "Burstable");
    let id = cluster.ok("get pod limited -o jsonpath='{.status.containerStatuses[0].containerID}'")?;
    let id = id.rsplit('/').next().unwrap_or_default();
    let groups = groups_of(&cluster.name)?;
    let value = |file: &str| {
        let of_container = groups.iter().filter(|g| g.file_name().is_some_and(|n| n.to_string_lossy().contains(id)));
        of_container.map(|g| g.join(file)).find(|f| f.exists()).map(|f| fs::read_to_string(f).unwrap_or_default())
    };
    // Version 1 and version 2 say the same in other words.
    let memory = value("memory.limit_in_bytes").or_else(|| value("memory.max")).ok_or("no limit of memory")?;
    assert_eq!(memory.trim(), "4294967296");
    match value("cpu.cfs_quota_us") {
        Some(quota) => {
            assert_eq!(quota.trim(), "100000");
            assert_eq!(value("cpu.shares").as_deref().map(str::trim), Some("512"));
        }
        None => assert_eq!(value("cpu.max").as_deref().map(str::trim), Some("100000 100000")),
    }
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", cluster.container_process("limited")?))?;
    let score: i32 = score.trim().parse()?;
    assert!((2..1000).contains(&score), "a burstable pod is killed before ours and after best effort: {score}");
    Ok(())
}
