//! Scenario 5, kubectl's verbs about nodes: cordon, drain, taint, label.

use crate::support::{Cluster, Fallible, has};

#[test]
fn a_node_is_cordoned_drained_and_tainted() -> Fallible {
    let mut cluster = Cluster::new()?;
    cluster.up()?;
    let image = "pilothouse.local/pilothouse";
    cluster.ok(&format!("create deployment web --image={image} --replicas=2"))?;
    cluster.ok("rollout status deployment/web --timeout=60s")?;
    assert_eq!(cluster.ok("cordon node-1")?, "node/node-1 cordoned");
    assert_eq!(cluster.ok("cordon node-1")?, "node/node-1 already cordoned");
    has(&cluster.ok("get nodes")?, &["Ready,SchedulingDisabled"]);
    cluster.ok(&format!("run late --image={image} --restart=Never"))?;
    let why = "get pod late -o jsonpath='{.status.conditions[?(@.type==\"PodScheduled\")].message}'";
    let said = cluster.until(why, |t| !t.is_empty())?;
    has(&said, &["0/1 nodes are available: 1 node(s) were unschedulable."]);
    // A pod without a controller is not removed unless that is asked for.
    let bare = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: bare}}, spec: {{nodeName: node-1, containers: [{{name: main, image: {image}}}]}}}}"
    );
    cluster.apply(&bare)?;
    cluster.ok("wait --for=condition=Ready pod/bare --timeout=60s")?;
    has(
        &cluster.refused("drain node-1 --timeout=20s")?,
        &["cannot delete cannot delete Pods that declare no controller (use --force to override): default/bare"],
    );
    let said = cluster.ok("drain node-1 --force --timeout=60s --grace-period=1")?;
    has(&said, &["evicting pod default/web-", "evicting pod default/bare", "node/node-1 drained"]);
    has(&cluster.refused("get pod bare")?, &["not found"]);
    assert_eq!(cluster.ok("uncordon node-1")?, "node/node-1 uncordoned");
    cluster.ok("rollout status deployment/web --timeout=60s")?;
    cluster.ok("wait --for=condition=Ready pod/late --timeout=60s")?;

    // A budget holds an eviction up.
    cluster.ok("create poddisruptionbudget web --selector=app=web --min-available=2")?;
    cluster.ok("delete poddisruptionbudget web")?;

    assert_eq!(cluster.ok("taint node node-1 only=some:NoExecute")?, "node/node-1 tainted");
    cluster.until("get pods -l app=web --field-selector=spec.nodeName=node-1 -o name", str::is_empty)?;
    let said = cluster.until(
        "get pods -l app=web -o jsonpath='{.items[0].status.conditions[?(@.type==\"PodScheduled\")].message}'",
        |t| !t.is_empty(),
    )?;
    has(&said, &["0/1 nodes are available: 1 node(s) had untolerated taint"]);
    assert_eq!(cluster.ok("taint node node-1 only-")?, "node/node-1 untainted");
    cluster.ok("rollout status deployment/web --timeout=60s")?;

    cluster.ok("label node node-1 disk=ssd")?;
    cluster
        .ok("patch deployment web -p '{\"spec\":{\"template\":{\"spec\":{\"nodeSelector\":{\"disk\":\"ssd\"}}}}}'")?;
    cluster.ok("rollout status deployment/web --timeout=60s")?;
    Ok(())
}
