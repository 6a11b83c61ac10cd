//! Removes requests that are of no use any more, looking again and again.

mod pods;
mod signing;

pub use pods::controller as pod_cleaner;
pub use signing::controller as cleaner;

use crate::{Running, gone_is_fine};
use futures::FutureExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Has somebody look now, and again after each pause, until the process ends.
fn again_and_again<F: Future<Output = ()> + Send>(
    shutdown: CancellationToken,
    pause: Duration,
    look: impl Fn() -> F + Send + Sync + 'static,
) -> Running {
    async move {
        loop {
            look().await;
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
    .boxed()
}

/// Removes a request that is over: this one, not another that has its name by now.
async fn remove<K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug>(api: &Api<K>, over: &ObjectMeta) {
    let name = over.name.as_deref().unwrap_or_default();
    let this_one = Preconditions { uid: over.uid.clone(), resource_version: None };
    if let Err(error) = gone_is_fine(api.delete(name, &DeleteParams::default().preconditions(this_one)).await) {
        let (kind, namespace) = (K::kind(&()), over.namespace.as_deref().unwrap_or_default());
        tracing::warn!(%kind, namespace, name, "a request for a certificate that is over cannot be removed: {error}");
    }
}
