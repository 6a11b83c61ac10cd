//! Aggregated cluster roles: their rules are those of the roles that they select.

use crate::informer::{Informer, key};
use crate::objects::ClusterRole;
use crate::pods;
use crate::queue::{Key, Queue};
use crate::{Context, Running, gone_is_fine};
use futures::FutureExt;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;

pub fn controller(context: &Context) -> Running {
    let client = context.clients.service_account("clusterrole-aggregation-controller");
    let roles: Informer<ClusterRole> = context.informers.of();
    let queue = Queue::<Key>::named(&context.config.queues, "ClusterRoleAggregator");
    let (q, all) = (queue.clone(), roles.clone());
    roles.on_change(move |old, new| {
        if let Some(role) = new.filter(|r| r.aggregation_rule.is_some()) {
            q.add(key(role.as_ref()));
        }
        for aggregate in all.all().iter().filter(|r| r.aggregation_rule.is_some()) {
            if [old, new].into_iter().flatten().any(|r| selects(aggregate, r)) {
                q.add(key(aggregate.as_ref()));
            }
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        roles.synced().await;
        let reconcile = |key: Key| {
            let (client, roles) = (client.clone(), roles.clone());
            async move {
                let Some(role) = roles.by_key(&key).filter(|r| r.aggregation_rule.is_some()) else {
                    return Ok(None::<Duration>);
                };
                let mut others = roles.all();
                others.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
                let rules = rules(&role, others.iter().map(AsRef::as_ref));
                if role.rules.as_deref().unwrap_or(&[]) != rules {
                    let api: Api<ClusterRole> = Api::all(client);
                    let patch =
                        json!({"rules": rules, "metadata": {"resourceVersion": role.metadata.resource_version}});
                    let written = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
                    if let Some(written) = gone_is_fine(written)? {
                        roles.assume(written);
                    }
                }
                Ok(None)
            }
        };
        queue.run("clusterrole-aggregation", 1, shutdown, reconcile).await;
        Ok(())
    }
    .boxed()
}

fn selects(aggregate: &ClusterRole, role: &ClusterRole) -> bool {
    aggregate.metadata.name != role.metadata.name
        && aggregate
            .aggregation_rule
            .iter()
            .flat_map(|a| &a.cluster_role_selectors)
            .any(|s| pods::matches(&pods::selector(s), &role.metadata))
}

/// The rules of all selected roles, in the order of their names, each once.
fn rules<'r>(aggregate: &ClusterRole, roles: impl Iterator<Item = &'r ClusterRole>) -> Vec<Value> {
    let mut rules: Vec<Value> = Vec::new();
    for rule in roles.filter(|r| selects(aggregate, r)).flat_map(|r| r.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    rules
}
