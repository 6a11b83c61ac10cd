//! A first deployment without any registry: the image that the binary carries.

use crate::support::{Cluster, Fallible, has, wait};
use std::collections::BTreeSet;

#[test]
fn the_readmes_tour_works_without_a_registry() -> Fallible {
    tour(Cluster::new()?).map(drop)
}

/// Nor does a first deployment need a network.
#[test]
fn the_readmes_tour_works_without_a_network() -> Fallible {
    let cluster = Cluster::without_network()?;
    let before = cluster.machines.network_state()?;
    let mut cluster = tour(cluster)?;
    cluster.stop(nix::sys::signal::Signal::SIGTERM)?;
    // The address that the machine was given goes with the cluster.
    cluster.reset()?;
    assert_eq!(cluster.machines.network_state()?, before);
    Ok(())
}

fn tour(mut cluster: Cluster) -> Fallible<Cluster> {
    let ready = cluster.up()?;
    assert_eq!(ready["node"], "node-1");
    has(&cluster.ok("get nodes")?, &[" Ready "]);
    cluster.ok("create deployment hello --image=pilothouse.local/pilothouse --replicas=2")?;
    cluster.ok("rollout status deployment/hello --timeout=60s")?;
    cluster.ok("expose deployment hello --port=80 --target-port=8080")?;
    let address = cluster.ok("get service hello -o jsonpath='{.spec.clusterIP}'")? + ":80";
    let pods = cluster.ok("get pods -o jsonpath='{.items[*].metadata.name}'")?;
    let pods: BTreeSet<String> = pods.split(' ').map(str::to_owned).collect();
    let mut answered = BTreeSet::new();
    wait("both answer", || {
        answered.extend(cluster.machines.ask(&address, "/hostname"));
        Ok(answered == pods)
    })?;
    cluster.ok("scale deployment hello --replicas=4")?;
    cluster.ok("rollout status deployment/hello --timeout=60s")?;
    has(&cluster.ok("logs deployment/hello")?, &["listening on port 8080"]);
    cluster.ok("set image deployment/hello *=pilothouse.local/absent")?;
    cluster.until("get pods -o jsonpath='{.items[*].status.containerStatuses[0].state.waiting.reason}'", |t| {
        t.contains("ErrImagePull") || t.contains("ImagePullBackOff")
    })?;
    has(&cluster.machines.ask(&address, "/")?, &["Hello from"]);
    cluster.ok("rollout undo deployment/hello")?;
    has(&cluster.ok("rollout status deployment/hello --timeout=60s")?, &["successfully rolled out"]);
    // A namespace goes with all that is in it.
    cluster.ok("create namespace gone")?;
    cluster.ok("-n gone create deployment more --image=pilothouse.local/pilothouse")?;
    cluster.ok("-n gone rollout status deployment/more --timeout=60s")?;
    cluster.ok("delete namespace gone --timeout=60s")?;
    assert_eq!(cluster.ok("get pods,deployments -n gone -o name")?, "");
    Ok(cluster)
}
