//! Which pods are behind which Service: as EndpointSlices, and as the older Endpoints.

pub mod legacy;
pub mod members;
pub mod slices;

use crate::informer::{Informer, Object, key};
use crate::objects::{Pod, Service};
use crate::pods;
use crate::queue::{Key, Queue};
use std::sync::Arc;

/// The Services of a namespace that select an object's labels.
fn selecting(services: &Informer<Service>, pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    let mut keys = Vec::new();
    for service in services.in_namespace(namespace) {
        if let Some(selector) = &service.spec.selector
            && selects(selector, pod)
        {
            keys.push(key(service.as_ref()));
        }
    }
    keys
}

fn selects(selector: &std::collections::BTreeMap<String, String>, pod: &Pod) -> bool {
    !selector.is_empty()
        && pod.metadata.labels.as_ref().is_some_and(|labels| selector.iter().all(|(k, v)| labels.get(k) == Some(v)))
}

/// Asks for every Service that a change of Services or pods can concern.
fn subscribe(queue: &Queue<Key>, services: &Informer<Service>, all_pods: &Informer<Pod>) {
    let q = queue.clone();
    services.on_change(move |old, new| {
        if let Some(service) = new.or(old) {
            q.add(key(service.as_ref()));
        }
    });
    let (q, services) = (queue.clone(), services.clone());
    all_pods.on_change(move |old, new| {
        if let (Some(old), Some(new)) = (old, new)
            && members::same_for_endpoints(old, new)
        {
            return;
        }
        for pod in [old, new].into_iter().flatten() {
            for key in selecting(&services, pod) {
                q.add(key);
            }
        }
    });
}

/// Asks for a Service when what we wrote of it was changed by someone else.
fn subscribe_written<K: Object>(
    queue: &Queue<Key>,
    written: &Informer<K>,
    service: impl Fn(&K) -> Option<String> + Send + Sync + 'static,
) {
    let q = queue.clone();
    written.on_change(move |old, new| {
        let object: Option<&Arc<K>> = new.or(old);
        if let Some(object) = object
            && let Some(name) = service(object)
        {
            q.add(Key::new(object.meta().namespace.as_deref().unwrap_or(""), &name));
        }
    });
}

/// Pods that a Service selects and that can be reached at all.
fn candidates(service: &Service, all_pods: &Informer<Pod>) -> Vec<Arc<Pod>> {
    let Some(selector) = &service.spec.selector else { return Vec::new() };
    let mut found = all_pods.in_namespace(service.metadata.namespace.as_deref().unwrap_or(""));
    found.retain(|p| selects(selector, p) && !p.status.pod_ip.is_empty() && !pods::is_finished(p));
    found
}
