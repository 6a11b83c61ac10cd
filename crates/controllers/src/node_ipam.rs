//! Gives every node its own pod network out of the cluster's.

use crate::events::{Kind, Recorder};
use crate::informer::{Informer, key};
use crate::objects::Node;
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, gone_is_fine};
use futures::FutureExt;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::Duration;

pub fn controller(context: &Context) -> Running {
    let client = context.clients.service_account("node-controller");
    let nodes: Informer<Node> = context.informers.of();
    let cidr = context.config.cluster_cidr;
    let recorder = Recorder::new(client.clone(), "cidrAllocator");
    let queue = Queue::<Key>::named(&context.config.queues, "cidrallocator_node");
    let q = queue.clone();
    nodes.on_change(move |_, new| {
        if let Some(node) = new.filter(|n| n.spec.pod_cidr.is_empty()) {
            q.add(key(node.as_ref()));
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        let Some((network, prefix, node_prefix)) = cidr else {
            shutdown.cancelled().await;
            return Ok(());
        };
        nodes.synced().await;
        // One worker: what one node was given is in the informer before the next is asked for.
        let reconcile = |key: Key| {
            let (client, nodes, recorder) = (client.clone(), nodes.clone(), recorder.clone());
            async move {
                let Some(node) = nodes.by_key(&key).filter(|n| n.spec.pod_cidr.is_empty()) else { return Ok(None::<Duration>) };
                let taken: HashSet<String> = nodes.all().iter().map(|n| n.spec.pod_cidr.clone()).collect();
                let Some(free) = free(network, prefix, node_prefix, &taken) else {
                    recorder.event(node.as_ref(), Kind::Normal, "CIDRNotAvailable", format!("Node {} status is now: CIDRNotAvailable", key.name));
                    return Err(Error::Other(format!("no /{node_prefix} is free in {network}/{prefix} for node {}", key.name)));
                };
                let api: Api<Node> = Api::all(client);
                let patch = json!({"metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
                    "spec": {"podCIDR": free, "podCIDRs": [free]}});
                let written = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
                if let Some(node) = gone_is_fine(written)? {
                    nodes.assume(node);
                }
                Ok(None)
            }
        };
        queue.run("node-ipam", 1, shutdown, reconcile).await;
        Ok(())
    }
    .boxed()
}

/// The first network of the node prefix that nobody has.
fn free(network: Ipv4Addr, prefix: u8, node_prefix: u8, taken: &HashSet<String>) -> Option<String> {
    let count = 1u64 << node_prefix.saturating_sub(prefix);
    let size = 1u64 << (32 - node_prefix);
    (0..count).find_map(|i| {
        let address = u32::try_from(u64::from(u32::from(network)) + i * size).ok()?;
        let candidate = format!("{}/{node_prefix}", Ipv4Addr::from(address));
        (!taken.contains(&candidate)).then_some(candidate)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_network_is_given_and_the_end_is_told() {
        let network = Ipv4Addr::new(10, 244, 0, 0);
        let mut taken = HashSet::from(["10.244.0.0/24".to_owned(), "10.244.2.0/24".to_owned()]);
        assert_eq!(free(network, 16, 24, &taken).as_deref(), Some("10.244.1.0/24"));
        taken.extend((0..4).map(|i| format!("10.244.{i}.0/24")));
        assert_eq!(free(network, 22, 24, &taken), None);
    }
}
