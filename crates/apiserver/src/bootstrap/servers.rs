//! Which servers a cluster has, where several share a store: each keeps a key of its address alive under a lease, as
//! upstream's lease reconciler does, and the Service `kubernetes` leads to all whose key is there.

use super::services::{endpoints, port};
use super::{Advertised, may_pass};
use crate::cache::Chain;
use futures::StreamExt;
use schema::{Encoded, Map, Value};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use store::{KeyRange, LeaseId, Op, OpResult, Range, Store, Txn, Watch};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

/// Upstream's place, followed by the address.
const PLACE: &str = "/registry/masterleases/";
/// How long a server counts that has not been heard of: upstream's.
const TIME_TO_LIVE: Duration = Duration::from_secs(15);
/// After a failure of the store.
const AGAIN: Duration = Duration::from_secs(1);

/// This server among those of its store.
#[derive(Debug)]
pub struct Presence {
    at: Advertised,
    servers: watch::Sender<Vec<SocketAddr>>,
    lease: Mutex<Option<LeaseId>>,
    end: CancellationToken,
}

impl Presence {
    /// Tells the other servers of this one, if there can be any.
    ///
    /// # Errors
    /// Those of the store, but for one that takes no writes now: it is told later then.
    pub(crate) async fn begin(at: Advertised, store: &Arc<dyn Store>) -> Result<Arc<Self>, store::Error> {
        let servers = watch::Sender::new(vec![SocketAddr::new(at.address, at.port)]);
        let presence = Arc::new(Presence { at, servers, lease: Mutex::new(None), end: CancellationToken::new() });
        if presence.at.shared {
            let told = async {
                presence.announce(&**store).await?;
                presence.look(&**store).await
            };
            match told.await {
                Err(error) if may_pass(&error) => {
                    tracing::warn!(error = %Chain(&error), "other servers can't be told of this one yet: it is tried again");
                }
                told => told?,
            }
            tokio::spawn(presence.clone().keep(store.clone()));
        }
        Ok(presence)
    }

    /// Whom the Service `kubernetes` leads to, in order, never empty, all of one port: an EndpointSlice has one. Every server
    /// finds the same here, so none undoes what another writes.
    pub(crate) fn servers(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.servers.subscribe()
    }

    /// Takes this server off, at its end; the others lead nobody here any more.
    pub async fn withdraw(&self, store: &dyn Store) {
        self.end.cancel();
        let Some(lease) = self.lease.lock().await.take() else { return };
        if let Err(error) = store.lease_revoke(lease).await {
            tracing::warn!(error = %Chain(&error), "other servers still count this one, for {TIME_TO_LIVE:?}");
        }
    }

    fn key(&self) -> String {
        format!("{PLACE}{}", self.at.address)
    }

    /// Puts this server's key under a new lease.
    async fn announce(&self, store: &dyn Store) -> Result<(), store::Error> {
        let mut lease = self.lease.lock().await;
        if self.end.is_cancelled() {
            return Ok(());
        }
        let granted = store.lease_grant(TIME_TO_LIVE).await?;
        let object = endpoints("", &self.key(), &[self.at.address], port("https", self.at.port, "TCP"));
        let value = Encoded::new(&object).stored("v1", "Endpoints");
        store.txn(Txn::of(vec![Op::Put { key: self.key().into(), value, lease: granted }])).await?;
        *lease = Some(granted);
        Ok(())
    }

    /// Reads who is there; this server is announced again if it is not.
    async fn look(&self, store: &dyn Store) -> Result<(), store::Error> {
        let read = || async {
            let range = Range::of(KeyRange::prefix(PLACE));
            let result = store.txn(Txn::of(vec![Op::Range(range)])).await?;
            let Some(OpResult::Range(found)) = result.results.into_iter().next() else { return Ok(Vec::new()) };
            let servers = found.kvs.iter().filter_map(|kv| {
                let address = std::str::from_utf8(&kv.key).ok()?.strip_prefix(PLACE)?;
                // Upstream's values tell no port: there it is the same everywhere.
                Some(SocketAddr::new(address.parse().ok()?, told_port(&kv.value).unwrap_or(self.at.port)))
            });
            let mut servers: Vec<SocketAddr> = servers.collect();
            servers.sort_unstable();
            Ok::<_, store::Error>(servers)
        };
        let mut servers = read().await?;
        if !servers.iter().any(|server| server.ip() == self.at.address) && !self.end.is_cancelled() {
            self.announce(store).await?;
            servers = read().await?;
        }
        // The endpoints of a Service are of one family, and a server that withdraws leaves what it led to to the others.
        servers.retain(|server| server.is_ipv4() == self.at.address.is_ipv4());
        let Some(first) = servers.first().copied() else { return Ok(()) };
        if servers.iter().any(|server| server.port() != first.port()) {
            tracing::warn!(
                port = first.port(),
                "servers of one store have different ports: the Service kubernetes leads only to those with this one; give all the same"
            );
        }
        servers.retain(|server| server.port() == first.port());
        self.servers.send_if_modified(|known| {
            let changed = *known != servers;
            *known = servers;
            changed
        });
        Ok(())
    }

    /// Keeps this server's key alive and follows the others' until it withdraws.
    async fn keep(self: Arc<Self>, store: Arc<dyn Store>) {
        while !self.end.is_cancelled() {
            if let Err(error) = self.follow(&*store).await {
                tracing::debug!(error = %Chain(&error), "who else serves is asked again");
            }
            tokio::select! {
                () = self.end.cancelled() => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    async fn follow(&self, store: &dyn Store) -> Result<(), store::Error> {
        let mut changes = store.watch(Watch { progress: false, ..Watch::of(KeyRange::prefix(PLACE), 0) }).await?;
        self.look(store).await?;
        let mut beat = tokio::time::interval(TIME_TO_LIVE / 3);
        loop {
            tokio::select! {
                () = self.end.cancelled() => return Ok(()),
                batch = changes.next() => {
                    let Some(batch) = batch else { return Ok(()) };
                    if !batch?.events.is_empty() {
                        self.look(store).await?;
                    }
                }
                _ = beat.tick() => self.renew(store).await?,
            }
        }
    }

    async fn renew(&self, store: &dyn Store) -> Result<(), store::Error> {
        let lease = *self.lease.lock().await;
        match lease {
            Some(lease) => match store.lease_keep_alive(lease).await {
                Ok(_) => Ok(()),
                Err(store::Error::LeaseNotFound(_)) => self.announce(store).await,
                Err(error) => Err(error),
            },
            None => self.announce(store).await,
        }
    }
}

/// The port in the value of a server of ours.
fn told_port(value: &[u8]) -> Option<u16> {
    let Ok(Value::Map(endpoints)) = schema::json::parse(value) else { return None };
    let first = |map: &Map, list: &str| map.at(&[list])?.as_list()?.first()?.as_map().cloned();
    let port = first(&first(&endpoints, "subsets")?, "ports")?;
    port.get("port")?.as_i64()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::{Settings, ensure};
    use crate::test_support::opened;
    use schema::Value;

    fn at(address: &str) -> Advertised {
        let parsed = |text: &str| text.parse().expect("an address");
        Advertised { address: parsed(address), port: 6443, cluster_ip: parsed("10.96.0.1"), shared: true }
    }

    fn servers(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|text| SocketAddr::new(text.parse().expect("an address"), 6443)).collect()
    }

    async fn sees(presence: &Presence, wanted: &[&str]) {
        let wanted = servers(wanted);
        let mut known = presence.servers();
        let seen = tokio::time::timeout(Duration::from_secs(60), known.wait_for(|known| *known == wanted)).await;
        seen.expect("in time").expect("it is kept");
    }

    #[tokio::test]
    async fn servers_know_of_each_other_and_of_who_withdraws_or_was_forgotten() {
        let opened = opened().await;
        let store: Arc<dyn Store> = opened.store.clone();
        let first = Presence::begin(at("192.0.2.9"), &store).await.expect("begun");
        sees(&first, &["192.0.2.9"]).await;
        let second = Presence::begin(at("192.0.2.10"), &store).await.expect("begun");
        for presence in [&first, &second] {
            sees(presence, &["192.0.2.9", "192.0.2.10"]).await;
        }
        // A key that somebody removed comes back.
        let forgotten = Op::Delete { keys: KeyRange::key(second.key()) };
        store.txn(Txn::of(vec![forgotten])).await.expect("removed");
        sees(&first, &["192.0.2.9", "192.0.2.10"]).await;
        // One with another port is told the same as all: nobody undoes what another writes.
        let other = Advertised { port: 7443, ..at("192.0.2.11") };
        let third = Presence::begin(other, &store).await.expect("begun");
        sees(&third, &["192.0.2.9", "192.0.2.10"]).await;
        third.withdraw(&*store).await;
        second.withdraw(&*store).await;
        sees(&first, &["192.0.2.9"]).await;
        first.withdraw(&*store).await;
        let keys = Op::Range(Range::of(KeyRange::prefix(PLACE)));
        let left = store.txn(Txn::of(vec![keys])).await.expect("read").results;
        assert!(matches!(&left[..], [OpResult::Range(range)] if range.kvs.is_empty()), "{left:?}");
    }

    #[tokio::test]
    async fn the_service_leads_to_every_server_and_no_server_undoes_another() {
        let opened = opened().await;
        let caches = opened.registry.caches();
        let settings = |address| Settings {
            advertised: Some(at(address)),
            service_ranges: vec!["10.96.0.0/16".into()],
            dns: None,
            client_ca: "PEM".into(),
            front_proxy: None,
            host: None,
        };
        let both = servers(&["192.0.2.9", "192.0.2.10"]);
        ensure(&*opened.store, caches, &settings("192.0.2.9"), &api::features::Gates::default(), &both)
            .await
            .expect("made");
        for (address, port) in [("192.0.2.10", 6443), ("192.0.2.9", 6443), ("192.0.2.11", 7443)] {
            let mut settings = settings(address);
            settings.advertised = Some(Advertised { port, ..at(address) });
            let written =
                ensure(&*opened.store, caches, &settings, &api::features::Gates::default(), &both).await.expect("kept");
            assert_eq!(written, 0, "{address}");
        }
        let row = schema::resource::get("discovery.k8s.io", "v1", "endpointslices").expect("a row");
        let cacher = caches.get(&row.storage.as_ref().expect("storage").prefix).expect("a cacher");
        let slice =
            cacher.decode(&cacher.get("default/kubernetes").expect("readable").expect("there")).expect("an object");
        let endpoints = slice.at(&["endpoints"]).and_then(Value::as_list).expect("endpoints");
        let addresses: Vec<&str> = endpoints
            .iter()
            .filter_map(|endpoint| endpoint.as_map()?.at(&["addresses"])?.as_list()?.first()?.as_str())
            .collect();
        assert_eq!(addresses, ["192.0.2.9", "192.0.2.10"]);
    }
}
