//! Nodes that no longer answer: their status, their taints, and the pods on them.
//!
//! Three parts, as upstream: [`health`] judges nodes by their Leases and marks them; [`eviction`] deletes pods that do
//! not tolerate a `NoExecute` taint; [`pod_gc`] removes pods of nodes that are gone.

mod eviction;
mod health;
mod pod_gc;
mod taints;

use crate::{Context, Running};
use futures::FutureExt;

pub fn controller(context: &Context) -> Running {
    let health = health::controller(context);
    let eviction = eviction::controller(context);
    let pod_gc = pod_gc::controller(context);
    async move {
        futures::try_join!(health, eviction, pod_gc)?;
        Ok(())
    }
    .boxed()
}
