//! Scenario 4: what breaks is mended, and a bad rollout harms nobody.

use crate::support::{Cluster, Fallible, has, manifest, squeezed, wait};
use nix::sys::signal::{Signal, kill};

const FAILING: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: failing}
spec:
  containers:
  - {name: main, image: busybox, command: [sh, -c, "echo attempt; exit 3"]}
"#;

#[test]
fn what_breaks_is_mended_and_a_bad_rollout_harms_nobody() -> Fallible {
    let cluster = Cluster::running()?;
    cluster.apply(FAILING)?;
    cluster.ok(&format!("apply -f {} -f {}", manifest("nginx-deployment.yaml"), manifest("services.yaml")))?;
    cluster.ok("rollout status deployment/nginx-deployment --timeout=90s")?;
    containers_restart(&cluster)?;
    pods_are_replaced(&cluster)?;
    a_bad_rollout_stops_and_is_undone(&cluster)?;
    failing_backs_off(&cluster)
}

fn containers_restart(cluster: &Cluster) -> Fallible {
    let pod = cluster.ok("get pods -l app=nginx -o jsonpath='{.items[0].metadata.name}'")?;
    let restarts = format!(
        "get pod {pod} -o jsonpath='{{.status.containerStatuses[0].restartCount}} {{.status.containerStatuses[0].ready}}'"
    );
    assert_eq!(cluster.ok(&restarts)?, "0 true");
    let before = cluster.ok(&format!("get pod {pod} -o jsonpath='{{.status.podIP}}'"))?;
    kill(cluster.container_process(&pod)?, Signal::SIGKILL)?;
    cluster.until(&restarts, |t| t == "1 true")?;
    let last = cluster.ok(&format!(
        "get pod {pod} -o jsonpath='{{.status.containerStatuses[0].lastState.terminated.exitCode}} {{.status.containerStatuses[0].lastState.terminated.reason}}'"
    ))?;
    assert_eq!(last, "137 Error");
    assert_eq!(cluster.ok(&format!("get pod {pod} -o jsonpath='{{.status.podIP}}'"))?, before);
    Ok(())
}

/// Restarted at once, then after ten seconds: in between it says so.
fn failing_backs_off(cluster: &Cluster) -> Fallible {
    let waiting = "get pod failing -o jsonpath='{.status.containerStatuses[0].state.waiting.reason} {.status.containerStatuses[0].state.waiting.message}'";
    let said = cluster.until(waiting, |t| t.starts_with("CrashLoopBackOff"))?;
    has(&said, &["back-off ", "restarting failed container=main pod=failing_default("]);
    let event =
        "get events --field-selector involvedObject.name=failing,reason=BackOff -o jsonpath='{.items[0].message}'";
    has(
        &cluster.until(event, |t| !t.is_empty())?,
        &["Back-off restarting failed container main in pod failing_default("],
    );
    assert_eq!(cluster.ok("logs failing --previous")?, "attempt");
    cluster.until("get pod failing -o jsonpath='{.status.containerStatuses[0].restartCount}'", |t| {
        t.parse::<u32>().is_ok_and(|n| n >= 2)
    })?;
    Ok(())
}

fn pods_are_replaced(cluster: &Cluster) -> Fallible {
    let pod = cluster.ok("get pods -l app=nginx -o jsonpath='{.items[1].metadata.name}'")?;
    assert_eq!(cluster.ok(&format!("delete pod {pod}"))?, format!("pod \"{pod}\" deleted"));
    cluster.until("get deployment nginx-deployment -o jsonpath='{.status.readyReplicas}'", |t| t == "3")?;
    has(&cluster.refused(&format!("get pod {pod}"))?, &[&format!("pods \"{pod}\" not found")]);
    Ok(())
}

fn a_bad_rollout_stops_and_is_undone(cluster: &Cluster) -> Fallible {
    let address = cluster.ok("get service my-service -o jsonpath='{.spec.clusterIP}'")? + ":80";
    cluster.ok("patch deployment nginx-deployment -p '{\"spec\":{\"progressDeadlineSeconds\":3}}'")?;
    let said = cluster.ok("set image deployment/nginx-deployment nginx=nginx:no-such-tag")?;
    assert_eq!(said, "deployment.apps/nginx-deployment image updated");
    let said = cluster.refused("rollout status deployment/nginx-deployment --timeout=60s")?;
    has(&said, &["deployment \"nginx-deployment\" exceeded its progress deadline"]);
    // 25 % of three may be missing, rounded down: none.
    let counts = "get deployment nginx-deployment -o jsonpath='{.status.availableReplicas} {.status.updatedReplicas} {.status.unavailableReplicas}'";
    assert_eq!(cluster.ok(counts)?, "3 1 1");
    has(&cluster.machines.ask(&address, "/")?, &["Welcome to nginx!"]);
    let waiting = "get pods -l app=nginx -o jsonpath='{.items[*].status.containerStatuses[0].state.waiting.reason}'";
    cluster.until(waiting, |t| t == "ErrImagePull" || t == "ImagePullBackOff")?;
    cluster.until("get events --field-selector reason=Failed -o jsonpath='{.items[*].message}'", |t| {
        t.contains("Failed to pull image \"nginx:no-such-tag\"") && t.contains("not found")
    })?;

    has(&cluster.ok("rollout history deployment/nginx-deployment")?, &["REVISION", "1", "2"]);
    has(&cluster.ok("rollout history deployment/nginx-deployment --revision=2")?, &["nginx:no-such-tag"]);
    assert_eq!(cluster.ok("rollout undo deployment/nginx-deployment")?, "deployment.apps/nginx-deployment rolled back");
    has(&cluster.ok("rollout status deployment/nginx-deployment --timeout=60s")?, &["successfully rolled out"]);
    cluster.until("get pods -l app=nginx -o jsonpath='{.items[*].spec.containers[0].image}'", |t| {
        t == "nginx:1.7.9 nginx:1.7.9 nginx:1.7.9"
    })?;
    let history = squeezed(&cluster.ok("rollout history deployment/nginx-deployment")?);
    assert!(history.contains(&"3 <none>".to_owned()) && !history.contains(&"1 <none>".to_owned()), "{history:?}");

    // A pod that ends goes on serving until everybody knows that it ends: for that, upstream says, there is a preStop hook.
    let hook = r#"{"spec":{"template":{"spec":{"containers":[{"name":"nginx","lifecycle":{"preStop":{"sleep":{"seconds":3}}}}]}}}}"#;
    cluster.ok(&format!("patch deployment nginx-deployment -p '{hook}'"))?;
    cluster.ok("rollout status deployment/nginx-deployment --timeout=60s")?;
    cluster.until("get pods -l app=nginx -o name", |t| t.lines().count() == 3)?;
    // A good rollout goes through while the Service answers all the time.
    cluster.ok("set image deployment/nginx-deployment nginx=nginx:1.9.1")?;
    let mut rollout = cluster.follow("rollout status deployment/nginx-deployment --timeout=60s")?;
    wait("the rollout is over", || {
        has(&cluster.machines.ask(&address, "/")?, &["Welcome to nginx!"]);
        Ok(cluster.ok("get deployment nginx-deployment -o jsonpath='{.status.updatedReplicas} {.status.replicas}'")?
            == "3 3")
    })?;
    assert!(rollout.finished()?);
    rollout.until(|t| t.contains("successfully rolled out"))?;

    assert_eq!(
        cluster.ok("scale deployment/nginx-deployment --replicas=4")?,
        "deployment.apps/nginx-deployment scaled"
    );
    cluster.ok("rollout status deployment/nginx-deployment --timeout=60s")?;
    let said = cluster.refused("scale deployment/nginx-deployment --current-replicas=9 --replicas=1")?;
    has(&said, &["Expected replicas to be 9, was 4"]);
    cluster.ok("scale deployment/nginx-deployment --replicas=2")?;
    cluster.until("get pods -l app=nginx -o name", |t| t.lines().count() == 2)?;

    // Paused, nothing rolls; resumed and restarted, everything does.
    cluster.ok("rollout pause deployment/nginx-deployment")?;
    has(&cluster.refused("rollout restart deployment/nginx-deployment")?, &["can't restart paused deployment"]);
    cluster.ok("rollout resume deployment/nginx-deployment")?;
    let said = cluster.ok("rollout restart deployment/nginx-deployment")?;
    assert_eq!(said, "deployment.apps/nginx-deployment restarted");
    cluster.ok("rollout status deployment/nginx-deployment --timeout=60s")?;
    Ok(())
}
