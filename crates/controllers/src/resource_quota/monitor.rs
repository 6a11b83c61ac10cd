//! Watches of the kinds that quotas name: what goes makes room.

use super::add_all;
use crate::informer::Informer;
use crate::objects::ResourceQuota;
use crate::queue::{Key, Queue};
use api::quota::usage;
use client::watch::{self, Event};
use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

pub(super) struct Monitors {
    client: Client,
    queue: Queue<Key>,
    quotas: Informer<ResourceQuota>,
    shutdown: CancellationToken,
    started: Mutex<HashSet<(String, String)>>,
}

impl Monitors {
    pub(super) fn new(
        client: Client,
        queue: Queue<Key>,
        quotas: Informer<ResourceQuota>,
        shutdown: CancellationToken,
    ) -> Self {
        Monitors { client, queue, quotas, shutdown, started: Mutex::default() }
    }

    /// Watches a kind from now on, until shutdown.
    pub(super) fn ensure(&self, resource: &ApiResource) {
        let id = (resource.group.clone(), resource.plural.clone());
        if !self.started.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return;
        }
        let config = watch::Config::default().any_semantic();
        let mut events = watch::resource::<PartialObjectMeta<DynamicObject>>(self.client.clone(), resource, config);
        let weighs = usage::weighs_updates(&resource.group, &resource.plural);
        let (queue, quotas, shutdown) = (self.queue.clone(), self.quotas.clone(), self.shutdown.clone());
        let plural = resource.plural.clone();
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    () = shutdown.cancelled() => return,
                    event = events.next() => event,
                };
                match event {
                    Some(Ok(Event::Delete(object))) => {
                        add_all(&queue, &quotas, &object.namespace().unwrap_or_default())
                    }
                    Some(Ok(Event::Apply(object))) if weighs => {
                        add_all(&queue, &quotas, &object.namespace().unwrap_or_default());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(e)) => tracing::warn!(plural, "the watch failed and is tried again: {e}"),
                    None => return,
                }
            }
        });
    }
}
