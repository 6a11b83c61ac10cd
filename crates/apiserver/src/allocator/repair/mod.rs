//! Mends what Services have been given: addresses whose claim somebody removed are claimed again, claims of nobody go, node ports
//! are taken as the Services have them, and what only people can mend is told in events. Upstream's repair controllers of cluster
//! IPs and node ports.

mod addresses;
mod ports;

use super::claims::ServiceAllocator;
use super::range::AddressRange;
use crate::cache::{Cacher, Change, ChangeKind, Observer, Scope};
use crate::context::Context;
use crate::events::{Acting, Counting};
use crate::lookup::{IP_ADDRESSES, SERVICE_CIDRS, SERVICES, Stored};
use crate::options::Options;
use crate::registry::{Registry, Served};
use crate::user::UserInfo;
use addresses::{Claim, Mend};
use api::Status;
use api::events::{Kind, Reference, Report};
use jiff::Timestamp;
use ports::Leaks;
use schema::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How often everything is looked at, changed or not.
const INTERVAL: Duration = Duration::from_secs(180);
/// What could not be mended is tried again, after twice the time at each failure, and so often; then it waits for the next look at
/// everything.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const TRIES: u32 = 15;
/// How often the ports are rebuilt at once while others write them.
const PORT_TRIES: usize = 5;
/// How often it is looked whether the server's own ServiceCIDR is there.
const RANGE_WAIT: Duration = Duration::from_millis(100);
const LONGEST_RANGE_WAIT: Duration = Duration::from_secs(10);

const ADDRESS_CONTROLLER: &str = "ipallocator-repair-controller";
const PORT_CONTROLLER: &str = "portallocator-repair-controller";
/// What health calls it: done when it has begun, as no request waits for what it mends.
pub(crate) const HOOK: &str = "poststarthook/start-service-ip-repair-controllers";

/// Something to look at, by its key in the cache.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Service(String),
    Address(String),
}

/// What has changed since it was looked at.
#[derive(Default)]
struct Pending {
    keys: Mutex<BTreeSet<Key>>,
    notify: Notify,
}

impl Pending {
    fn add(&self, key: Key) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.notify.notify_one();
    }
    fn take(&self) -> BTreeSet<Key> {
        std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Services(Arc<Pending>);

impl Observer for Services {
    fn changed(&self, _: &Cacher, change: &Change) {
        if change.kind != ChangeKind::Deleted {
            self.0.add(Key::Service(change.entry.key().to_owned()));
        }
    }
}

struct Addresses(Arc<Pending>);

impl Observer for Addresses {
    fn changed(&self, cacher: &Cacher, change: &Change) {
        if change.kind != ChangeKind::Deleted {
            return self.0.add(Key::Address(change.entry.key().to_owned()));
        }
        // Whose claim is gone claims again; one that nobody can read is found at the next look at everything.
        let Ok(address) = cacher.decode(&change.entry) else { return };
        let of = |key| address.str_at(&["spec", "parentRef", key]);
        self.0.add(Key::Service(Cacher::key(of("namespace"), of("name"))));
    }
}

/// Begins to mend, for as long as there is the registry. `host` is what the machine is called.
pub(crate) fn begin(registry: &Arc<Registry>, allocator: &Arc<ServiceAllocator>, host: &str) {
    let pending = Arc::new(Pending::default());
    registry.observe(SERVICES.group, SERVICES.plural, Arc::new(Services(pending.clone())));
    registry.observe(IP_ADDRESSES.group, IP_ADDRESSES.plural, Arc::new(Addresses(pending.clone())));
    let (registry, allocator) = (Arc::downgrade(registry), Arc::downgrade(allocator));
    let repair = Repair {
        registry,
        allocator,
        addresses: Acting::new(ADDRESS_CONTROLLER, host),
        ports: Counting::new(PORT_CONTROLLER),
        leaks: Leaks::new(),
    };
    tokio::spawn(repair.run(pending));
}

struct Repair {
    registry: Weak<Registry>,
    allocator: Weak<ServiceAllocator>,
    addresses: Acting,
    ports: Counting,
    leaks: Leaks,
}

/// The server, while it is there.
struct Server {
    registry: Arc<Registry>,
    allocator: Arc<ServiceAllocator>,
}

impl Server {
    fn served(&self, kind: Stored) -> Result<Arc<Served>, Status> {
        let served = self.registry.preferred(kind.group, kind.plural);
        served.ok_or_else(|| Status::internal(format!("{} are not served", kind.plural)))
    }

    /// The keys of all objects of a kind.
    fn keys(&self, kind: Stored) -> Result<Vec<String>, Status> {
        let served = self.served(kind)?;
        let (state, _) = served.storage("list")?.now();
        Ok(state.range(&Scope::All, None).map(|entry| entry.key().to_owned()).collect())
    }

    /// The ranges of all ServiceCIDRs, those too from which nothing more is given.
    fn ranges(&self) -> Result<Vec<AddressRange>, Status> {
        let cidrs = self.allocator.objects().list(SERVICE_CIDRS, None)?;
        let listed = |cidr: &Arc<Map>| {
            let list = cidr.at(&["spec", "cidrs"]).and_then(Value::as_list).unwrap_or_default();
            list.iter().filter_map(Value::as_str).filter_map(AddressRange::parse).collect::<Vec<_>>()
        };
        Ok(cidrs.iter().flat_map(listed).collect())
    }

    /// Removes a claim, as it was seen.
    async fn remove(&self, claim: &Map) -> Result<(), Status> {
        let mut options = Options::default();
        options.delete.resource_version = Some(claim.str_at(&["metadata", "resourceVersion"]).to_owned());
        let (served, name) = (self.served(IP_ADDRESSES)?, claim.str_at(&["metadata", "name"]));
        match self.registry.delete(&context(), &served, "", name, &options).await {
            Err(status) if status.code != 404 => Err(status),
            _ => Ok(()),
        }
    }
}

fn context() -> Context {
    Context::new(Arc::new(UserInfo::apiserver()), ADDRESS_CONTROLLER, Timestamp::now())
}

fn report(object: &Map, (api_version, kind): (&str, &str), reason: &str, message: String) -> Report {
    let of = |key| object.str_at(&["metadata", key]).to_owned();
    let about = Reference {
        kind: kind.to_owned(),
        api_version: api_version.to_owned(),
        namespace: of("namespace"),
        name: of("name"),
        uid: of("uid"),
        resource_version: of("resourceVersion"),
        ..Reference::default()
    };
    Report { about, kind: Kind::Warning, reason: reason.to_owned(), message, at: Timestamp::now() }
}

const SERVICE: (&str, &str) = ("v1", "Service");
const ADDRESS: (&str, &str) = ("networking.k8s.io/v1", "IPAddress");

/// What is looked at again, and when.
#[derive(Default)]
struct Later {
    due: BTreeMap<Key, Instant>,
    failures: HashMap<Key, u32>,
}

impl Later {
    fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    fn take(&mut self, now: Instant) -> Vec<Key> {
        let due: Vec<Key> = self.due.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        for key in &due {
            self.due.remove(key);
        }
        due
    }

    /// What comes after a look at something.
    fn looked(&mut self, key: Key, outcome: Result<Option<Duration>, Status>) {
        let wait = match outcome {
            Ok(wait) => {
                self.failures.remove(&key);
                wait
            }
            Err(status) => {
                let failures = self.failures.entry(key.clone()).or_default();
                let wait = FIRST_WAIT.saturating_mul(1 << *failures);
                *failures += 1;
                if *failures > TRIES {
                    self.failures.remove(&key);
                    tracing::warn!(?key, why = status.message, "what a Service was given could not be mended");
                    return;
                }
                Some(wait)
            }
        };
        match wait {
            Some(wait) => drop(self.due.insert(key, Instant::now() + wait)),
            None => drop(self.due.remove(&key)),
        }
    }
}

impl Repair {
    /// `None`: the server is gone.
    fn server(&self) -> Option<Server> {
        Some(Server { registry: self.registry.upgrade()?, allocator: self.allocator.upgrade()? })
    }

    async fn run(mut self, pending: Arc<Pending>) {
        // Before the range is noted every address would be out of it.
        let mut wait = RANGE_WAIT;
        loop {
            let Some(server) = self.server() else { return };
            if matches!(server.allocator.objects().get(SERVICE_CIDRS, "", "kubernetes"), Ok(Some(_))) {
                break;
            }
            drop(server);
            // The first look is at everything.
            drop(pending.take());
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_RANGE_WAIT);
        }
        let mut looks = tokio::time::interval(INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut later = Later::default();
        loop {
            let due = async {
                match later.next() {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let all = tokio::select! {
                _ = looks.tick() => true,
                () = pending.notify.notified() => false,
                () = due => false,
            };
            let mut keys = pending.take();
            keys.extend(later.take(Instant::now()));
            if all {
                let Some(server) = self.server() else { return };
                match server.keys(SERVICES).and_then(|services| Ok((services, server.keys(IP_ADDRESSES)?))) {
                    Ok((services, addresses)) => {
                        keys.extend(services.into_iter().map(Key::Service));
                        keys.extend(addresses.into_iter().map(Key::Address));
                    }
                    Err(status) => tracing::warn!(why = status.message, "the Services could not be looked at"),
                }
                if let Err(status) = self.ports(&server).await {
                    tracing::warn!(why = status.message, "the node ports could not be looked at");
                }
            }
            // Services come first: a claim that is wrong for one may be right for another then.
            for key in keys {
                let Some(server) = self.server() else { return };
                let outcome = match &key {
                    Key::Service(key) => self.service(&server, key).await.map(|()| None),
                    Key::Address(name) => self.address(&server, name).await,
                };
                later.looked(key, outcome);
                drop(server);
                tokio::task::yield_now().await;
            }
        }
    }

    /// Mends what is wrong with the addresses of a Service.
    async fn service(&mut self, server: &Server, key: &str) -> Result<(), Status> {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let objects = server.allocator.objects();
        let look = || -> Result<_, Status> {
            let Some(service) = objects.get(SERVICES, namespace, name)? else { return Ok(None) };
            let findings = addresses::of_service(&service, &server.ranges()?, objects)?;
            Ok((!findings.is_empty()).then_some((service, findings)))
        };
        if look()?.is_none() {
            return Ok(());
        }
        // A Service may be seen a moment before its claim.
        objects.consistent().await?;
        let Some((service, findings)) = look()? else { return Ok(()) };
        for finding in findings {
            if let Some((reason, message)) = finding.event {
                tracing::warn!(namespace, name, reason, "{message}");
                let report = report(&service, SERVICE, reason, message);
                self.addresses.tell(&server.registry, &report, "ClusterIPAllocation").await;
            }
            let (ip, wrong) = match finding.mend {
                Mend::Tell => continue,
                Mend::Claim(ip) => (ip, None),
                Mend::Replace(ip, claim) => (ip, Some(claim)),
            };
            let served = server.served(SERVICES)?;
            let full = format!("{}{key}", served.storage("get")?.layout.prefix);
            let revision =
                server.allocator.claim_again(&context(), ip, &service, full.into(), wrong.as_deref()).await?;
            server.registry.caches().reached(revision).await?;
        }
        Ok(())
    }

    /// Removes an IPAddress of nobody; gives after which time it is to be looked at again.
    async fn address(&mut self, server: &Server, name: &str) -> Result<Option<Duration>, Status> {
        let objects = server.allocator.objects();
        let look = || -> Result<_, Status> {
            let Some(address) = objects.get(IP_ADDRESSES, "", name)? else { return Ok(None) };
            match addresses::of_address(&address, objects, Timestamp::now())? {
                Claim::Stays => Ok(None),
                other => Ok(Some((address, other))),
            }
        };
        match look()? {
            None => return Ok(None),
            Some((_, Claim::Waits(wait))) => return Ok(Some(wait)),
            Some(_) => {}
        }
        objects.consistent().await?;
        let (address, reason, message) = match look()? {
            None | Some((_, Claim::Stays)) => return Ok(None),
            Some((_, Claim::Waits(wait))) => return Ok(Some(wait)),
            Some((address, Claim::Goes(reason, message))) => (address, reason, message),
        };
        tracing::warn!(name, reason, "{message}");
        let report = report(&address, ADDRESS, reason, message);
        self.addresses.tell(&server.registry, &report, "IPAddressAllocation").await;
        server.remove(&address).await.map(|()| None)
    }

    /// Rebuilds which node ports are taken.
    async fn ports(&mut self, server: &Server) -> Result<(), Status> {
        for _ in 0..PORT_TRIES {
            let stored = server.allocator.stored_ports().await?;
            // The Services must be at least as new as what is taken.
            let objects = server.allocator.objects();
            objects.consistent().await?;
            let services = objects.list(SERVICES, None)?;
            let mut leaks = self.leaks.clone();
            let (rebuilt, problems) = ports::rebuild(server.allocator.ports(), &stored.bitmap, &services, &mut leaks);
            if rebuilt != stored.bitmap && !server.allocator.put_ports(&rebuilt, stored.revision).await? {
                continue;
            }
            self.leaks = leaks;
            for problem in problems {
                tracing::warn!(reason = problem.reason, "{}", problem.message);
                let report = report(&problem.service, SERVICE, problem.reason, problem.message);
                self.ports.tell(&server.registry, &report).await;
            }
            return Ok(());
        }
        Err(Status::internal("others keep taking node ports"))
    }
}

#[cfg(test)]
mod tests;
