//! Cluster DNS as it runs: watches, the records, and the sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use client::watch::{self as watches, Event, Listing, kept};
use futures::StreamExt;
use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::answer::{Ttls, Zone};
use crate::forward::{Forwarder, Upstreams};
use crate::objects::{EndpointSlice, Namespace, Service};
use crate::records::{ObjectName, Records, name_of};
use crate::server::{Clients, Listeners, Resolver};

/// What cluster DNS needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen, for UDP and TCP alike. Addresses should be given, not `0.0.0.0`, so that answers
    /// come from where questions went.
    pub listen: Vec<SocketAddr>,
    /// The zone of the cluster, such as `cluster.local`.
    pub cluster_domain: String,
    /// Who may ask. On an address that other machines reach, this should not be everyone.
    pub clients: Clients,
    /// Who is asked about other names.
    pub upstreams: Upstreams,
    /// For how long answers hold; 30 and 5 seconds are usual.
    pub ttls: Ttls,
    /// Set to the addresses that are listened on once all names of the cluster are known.
    pub ready: Option<watch::Sender<Option<Vec<SocketAddr>>>>,
}

impl Config {
    /// The usual configuration: the node's resolvers, and the times of a kubeadm cluster.
    pub fn new(listen: Vec<SocketAddr>, cluster_domain: impl Into<String>) -> Self {
        Self {
            listen,
            cluster_domain: cluster_domain.into(),
            clients: Clients::default(),
            upstreams: Upstreams::default(),
            ttls: Ttls { positive: 30, negative: 5 },
            ready: None,
        }
    }
}

/// Cluster DNS cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The zone has no valid name.
    #[error("the cluster domain {0:?} is not a domain name")]
    Domain(String),
    /// An address cannot be listened on.
    #[error("cluster DNS cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Runs cluster DNS until `shutdown`.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let zone = Zone::new(&config.cluster_domain, config.ttls);
    let zone = zone.map_err(|_| Error::Domain(config.cluster_domain.clone()))?;
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for address in &config.listen {
        let listen = |source| Error::Listen { address: *address, source };
        let listener = Listeners::bind(*address).await.map_err(listen)?;
        addresses.push(listener.address().map_err(listen)?);
        listeners.push(listener);
    }
    let forwarder = Forwarder::new(config.upstreams.clone(), addresses.clone());
    let resolver = Arc::new(Resolver::new(zone, forwarder, config.clients.clone()));
    let mut servers = JoinSet::new();
    for listener in listeners {
        servers.spawn(listener.serve(resolver.clone()));
    }
    let follow = follow(&resolver, client, || {
        if let Some(ready) = &config.ready {
            ready.send_replace(Some(addresses.clone()));
        }
    });
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = follow => {}
    }
    Ok(())
}

/// A change of any kind that cluster DNS reads.
enum Observation {
    Service(Event<Service>),
    Slice(Event<EndpointSlice>),
    Namespace(Event<Namespace>),
}

/// Keeps the records as the cluster is; calls `on_complete` once they are.
async fn follow(resolver: &Resolver, client: Client, on_complete: impl FnOnce()) {
    let services = kept(client.clone(), watches::Config::default()).map(Observation::Service);
    let slices = kept(client.clone(), watches::Config::default()).map(Observation::Slice);
    let namespaces = kept(client, watches::Config::default()).map(Observation::Namespace);
    let events = futures::stream::select(services, futures::stream::select(slices, namespaces));
    tokio::pin!(events);
    let mut lists = Lists::default();
    let mut on_complete = Some(on_complete);
    while let Some(event) = events.next().await {
        resolver.update(|records| lists.apply(event, records));
        if lists.are_complete()
            && let Some(on_complete) = on_complete.take()
        {
            resolver.set_complete();
            on_complete();
        }
    }
}

/// Lists in progress.
#[derive(Default)]
struct Lists {
    services: Listing<ObjectName>,
    slices: Listing<ObjectName>,
    namespaces: Listing<ObjectName>,
}

impl Lists {
    fn are_complete(&self) -> bool {
        self.services.is_complete() && self.slices.is_complete() && self.namespaces.is_complete()
    }

    fn apply(&mut self, observation: Observation, records: &mut Records) {
        match observation {
            Observation::Service(event) => {
                let (service, gone) = self.services.take(event, name_of, || records.service_names());
                service.iter().for_each(|service| records.apply_service(service));
                gone.iter().for_each(|name| records.delete_service(name));
            }
            Observation::Slice(event) => {
                let (slice, gone) = self.slices.take(event, name_of, || records.slice_names());
                slice.iter().for_each(|slice| records.apply_slice(slice));
                gone.iter().for_each(|name| records.delete_slice(name));
            }
            Observation::Namespace(event) => {
                let (namespace, gone) = self.namespaces.take(event, name_of, || records.namespace_names());
                namespace.iter().for_each(|namespace| records.apply_namespace(namespace));
                gone.iter().for_each(|name| records.delete_namespace(&name.name));
            }
        }
    }
}
