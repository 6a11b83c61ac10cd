//! Scenario 1: a Deployment of three replicas behind a ClusterIP, a name and a port of the node.

use crate::support::machines::NODE;
use crate::support::{Cluster, Fallible, has, manifest, wait};
use std::collections::BTreeSet;

/// Writes each replica's name where its web server shows it.
fn name_replicas(cluster: &Cluster) -> Fallible<BTreeSet<String>> {
    let pods = cluster.ok("get pods -l app=nginx -o jsonpath='{.items[*].metadata.name}'")?;
    for pod in pods.split(' ') {
        cluster.ok(&format!("exec {pod} -- sh -c 'hostname > /usr/share/nginx/html/who'"))?;
    }
    Ok(pods.split(' ').map(str::to_owned).collect())
}

/// Asks until all replicas have answered; nobody else ever may.
fn all_answer(what: &str, replicas: &BTreeSet<String>, ask: impl Fn() -> Fallible<String>) -> Fallible {
    let mut answered = BTreeSet::new();
    wait(what, || {
        answered.extend(ask()?.lines().map(str::to_owned));
        assert!(answered.is_subset(replicas), "{what}: {answered:?} of {replicas:?}");
        Ok(answered == *replicas)
    })
}

#[test]
fn every_replica_answers_through_address_name_and_node_port() -> Fallible {
    let cluster = Cluster::running()?;
    cluster.ok(&format!("apply -f {} -f {}", manifest("nginx-deployment.yaml"), manifest("services.yaml")))?;
    cluster.ok("run client --image=busybox --restart=Never -- sleep 3600")?;
    cluster.ok("rollout status deployment/nginx-deployment --timeout=90s")?;
    cluster.ok("wait --for=condition=Ready pod/client --timeout=60s")?;
    let ready = "get endpointslices -l kubernetes.io/service-name=my-service -o jsonpath='{.items[*].endpoints[*].conditions.ready}'";
    cluster.until(ready, |t| t == "true true true")?;
    let replicas = name_replicas(&cluster)?;
    assert_eq!(replicas.len(), 3);

    let ip = cluster.ok("get service my-service -o jsonpath='{.spec.clusterIP}'")?;
    let (address, port) = (format!("{ip}:80"), format!("{NODE}:30008"));
    all_answer("ClusterIP from the node", &replicas, || cluster.machines.ask(&address, "/who"))?;
    all_answer("node port from the node", &replicas, || cluster.machines.ask(&port, "/who"))?;
    all_answer("node port from outside", &replicas, || cluster.machines.ask_from_outside(&port, "/who"))?;
    let many = |host: &str| format!("for i in 1 2 3 4 5 6 7 8; do wget -qO- http://{host}/who; done");
    for host in ["my-service.default.svc.cluster.local", "my-service.default", "my-service", &address, &port] {
        let line = format!("exec client -- sh -c '{}'", many(host));
        all_answer(&format!("{host} from a pod"), &replicas, || cluster.ok(&line))?;
    }
    // A replica reaches its own Service, itself among those that answer (hairpin).
    let first = replicas.first().ok_or("no replica")?;
    let node = cluster.ok("exec client -- wget -qO- http://my-service")?;
    has(&node, &["Welcome to nginx!"]);
    cluster.ok("scale deployment nginx-deployment --replicas=1")?;
    cluster.until(ready, |t| t == "true")?;
    cluster.until("get pods -l app=nginx -o name", |t| t.lines().count() == 1)?;
    let last = cluster.ok("get pods -l app=nginx -o jsonpath='{.items[0].metadata.name}'")?;
    assert!(replicas.contains(&last), "{last}, {first}");
    let hairpin = format!(
        "exec {last} -- bash -c 'exec 3<>/dev/tcp/my-service/80; printf \"GET /who HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3'"
    );
    has(&cluster.ok(&hairpin)?, &[&last]);

    // Without endpoints a connection is refused at once, not left to time out.
    cluster.ok("scale deployment nginx-deployment --replicas=0")?;
    cluster.until(ready, str::is_empty)?;
    wait("refused without endpoints", || {
        Ok(cluster.machines.ask(&address, "/who").is_err_and(|e| e.to_string().contains("refused")))
    })?;

    // A port that is taken is refused in upstream's words, and changes nothing.
    let taken = cluster.feed(
        "create -f -",
        "{apiVersion: v1, kind: Service, metadata: {name: twin}, spec: {type: NodePort, ports: [{port: 80, nodePort: 30008}]}}",
    )?;
    assert!(!taken.status.success());
    let said = String::from_utf8_lossy(&taken.stderr);
    has(&said, &["spec.ports[0].nodePort: Invalid value: 30008: provided port is already allocated"]);
    has(&cluster.refused("get service twin")?, &["services \"twin\" not found"]);
    Ok(())
}
