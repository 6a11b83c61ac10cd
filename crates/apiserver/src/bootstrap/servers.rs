//! Which servers a cluster has, where several share a store: each keeps a key of its address alive under a lease, as
//! upstream's lease reconciler does, and the Service `kubernetes` leads to all whose key is there.

use super::Advertised;
use super::services::endpoints;
use crate::cache::Chain;
use futures::StreamExt;
use schema::Encoded;
use std::net::IpAddr;
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
    servers: watch::Sender<Vec<IpAddr>>,
    lease: Mutex<Option<LeaseId>>,
    end: CancellationToken,
}

impl Presence {
    /// Tells the other servers of this one, if there can be any.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn begin(at: Advertised, store: &Arc<dyn Store>) -> Result<Arc<Self>, store::Error> {
        let servers = watch::Sender::new(vec![at.address]);
        let presence = Arc::new(Presence { at, servers, lease: Mutex::new(None), end: CancellationToken::new() });
        if presence.at.shared {
            presence.announce(&**store).await?;
            presence.look(&**store).await?;
            tokio::spawn(presence.clone().keep(store.clone()));
        }
        Ok(presence)
    }

    /// Whom the Service `kubernetes` leads to, in order, never empty.
    pub(crate) fn servers(&self) -> watch::Receiver<Vec<IpAddr>> {
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
        let value = Encoded::new(&endpoints("", &self.key(), &[self.at.address], None)).stored("v1", "Endpoints");
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
            let addresses = found.kvs.iter().filter_map(|kv| {
                let address = std::str::from_utf8(&kv.key).ok()?.strip_prefix(PLACE)?;
                address.parse().ok()
            });
            let mut addresses: Vec<IpAddr> = addresses.collect();
            addresses.sort_unstable();
            Ok::<_, store::Error>(addresses)
        };
        let mut addresses = read().await?;
        if !addresses.contains(&self.at.address) && !self.end.is_cancelled() {
            self.announce(store).await?;
            addresses = read().await?;
        }
        // The endpoints of a Service are of one family, and a server that withdraws leaves what it led to to the others.
        addresses.retain(|address| address.is_ipv4() == self.at.address.is_ipv4());
        if !addresses.is_empty() {
            self.servers.send_if_modified(|known| {
                let changed = *known != addresses;
                *known = addresses;
                changed
            });
        }
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

    async fn sees(presence: &Presence, wanted: &[&str]) {
        let wanted: Vec<IpAddr> = wanted.iter().map(|text| text.parse().expect("an address")).collect();
        let mut servers = presence.servers();
        let seen = tokio::time::timeout(Duration::from_secs(60), servers.wait_for(|servers| *servers == wanted)).await;
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
        };
        let both: Vec<IpAddr> = ["192.0.2.9", "192.0.2.10"].map(|text| text.parse().expect("an address")).into();
        ensure(&*opened.store, caches, &settings("192.0.2.9"), &both).await.expect("made");
        for address in ["192.0.2.10", "192.0.2.9"] {
            let written = ensure(&*opened.store, caches, &settings(address), &both).await.expect("kept");
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
