//! The proxy as it runs: watches, the state, and the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::backoff::Backoff;
use client::watch::{self as watches, Event, Listing, kept};
use futures::{FutureExt, Stream, StreamExt};
use kube::Client;
use network::Cidr;
use network::nft::Family;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::health::HealthServers;
use crate::kernel::{self, KernelTable};
use crate::layout::Layout;
use crate::objects::{EndpointSlice, Node, SELECTOR, Service};
use crate::plan;
use crate::ruleset::{Delta, RuleSet};
use crate::state::{ServiceName, State, name_of};

/// How long to wait before the tables are tried again after an error, at first and at most: they are written as a whole.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// How often to look whether the tables are still there. Firewall services flush all tables when they are
/// reloaded; the kernel could tell, but only together with each of the many changes of our own.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// At which addresses of the node node ports are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// At all but loopback.
    #[default]
    All,
    /// At those in these ranges.
    Within(Vec<Cidr>),
}

/// What the proxy needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name: part of the names of its tables.
    pub cluster: String,
    /// The node's name: its endpoints are the local ones.
    pub node_name: String,
    /// Where pods are: traffic from elsewhere to cluster IPs gets the node's address as its source. Empty
    /// when that is not known.
    pub cluster_cidrs: Vec<Cidr>,
    /// Whether all traffic to cluster IPs gets the node's address as its source.
    pub masquerade_all: bool,
    /// At which addresses node ports are.
    pub node_port_addresses: NodePortAddresses,
    /// How often to look whether somebody deleted the tables; every five seconds when not given.
    pub look_every: Option<Duration>,
    /// Set to true once all services of the first lists answer.
    pub ready: Option<watch::Sender<bool>>,
}

/// The proxy cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's netlink sockets cannot be opened.
    #[error("the service proxy cannot use nftables: {0}")]
    Network(#[from] network::Error),
    /// The thread that talks to the kernel is gone.
    #[error("the service proxy's work was aborted: {0}")]
    Aborted(#[from] tokio::task::JoinError),
}

/// Runs the proxy until `shutdown`. The rules stay, so services answer meanwhile; [`kernel::reset`] takes
/// them away.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let mut proxy = Proxy::open(&config).await?;
    let events = observe(&config, client);
    tokio::pin!(events);
    let mut pending = Pending::default();
    let mut look = tokio::time::interval(config.look_every.unwrap_or(LOOK_EVERY));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let retry = async {
            match proxy.retry_after() {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            event = events.next() => match event {
                Some(event) => pending.apply(event, &mut proxy.state),
                None => return Ok(()),
            },
            () = retry => {}
            _ = look.tick() => {
                proxy.look_for_tables().await?;
                proxy.listen_again().await;
            }
        }
        // Whatever else is there already is part of the same transaction; nothing is waited for.
        while let Some(Some(event)) = events.next().now_or_never() {
            pending.apply(event, &mut proxy.state);
        }
        if pending.is_complete() {
            let in_sync = proxy.sync().await?;
            if let Some(ready) = config.ready.as_ref().filter(|_| in_sync) {
                ready.send_if_modified(|ready| !std::mem::replace(ready, true));
            }
        }
    }
}

/// A change of any kind that the proxy reads.
enum Observation {
    Service(Event<Service>),
    Slice(Event<EndpointSlice>),
    Node(Event<Node>),
}

fn observe(config: &Config, client: Client) -> impl Stream<Item = Observation> + use<> {
    let services = kept(client.clone(), watches::Config::default().labels(SELECTOR));
    let slices = kept(client.clone(), watches::Config::default().labels(SELECTOR));
    let own = format!("metadata.name={}", config.node_name);
    let node = kept(client, watches::Config::default().fields(&own));
    futures::stream::select(
        services.map(Observation::Service),
        futures::stream::select(slices.map(Observation::Slice), node.map(Observation::Node)),
    )
}

/// What the lists have brought so far. Until the first ones of Services and EndpointSlices are complete, nothing is
/// written: the rules of an earlier run may know more.
#[derive(Default)]
struct Pending {
    services: Listing<ServiceName>,
    slices: Listing<ServiceName>,
}

impl Pending {
    fn is_complete(&self) -> bool {
        self.services.is_complete() && self.slices.is_complete()
    }

    fn apply(&mut self, observation: Observation, state: &mut State) {
        match observation {
            Observation::Service(event) => {
                let (service, gone) = self.services.take(event, name_of, || state.service_names());
                service.iter().for_each(|service| state.apply_service(service));
                gone.iter().for_each(|name| state.delete_service(name));
            }
            Observation::Slice(event) => {
                let (slice, gone) = self.slices.take(event, name_of, || state.slice_names());
                slice.iter().for_each(|slice| state.apply_slice(slice));
                gone.iter().for_each(|name| state.delete_slice(name));
            }
            Observation::Node(Event::Apply(node) | Event::InitApply(node)) => state.apply_node(&node),
            Observation::Node(Event::Init | Event::InitDone | Event::Delete(_)) => {}
        }
    }
}

/// The state and the tables made from it.
struct Proxy {
    state: State,
    /// IPv4 and IPv6; taken away while a thread works on them.
    tables: Vec<Managed>,
    health: HealthServers,
    health_ports: BTreeMap<u16, (ServiceName, usize)>,
    /// The errors of ports that could not be listened on, as they were told.
    deaf: Vec<String>,
    /// The pauses between attempts, after an error.
    backoff: Backoff,
    /// How long to wait before the next attempt, after an error.
    retry: Option<Duration>,
}

/// A table and what it should hold.
struct Managed {
    kernel: KernelTable,
    rules: RuleSet,
    written: Written,
}

/// What is known about a table in the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    /// Nothing: it must be written as a whole.
    Unknown,
    /// It is not there: nothing needs it.
    Absent,
    /// It holds what it should, but for the changes at hand.
    Whole,
}

impl Managed {
    /// Brings the table up to its rule set, of which `delta` is new.
    fn write(&mut self, delta: &Delta) -> network::Result<()> {
        let needed = !self.rules.is_ipv6() || !self.rules.is_empty();
        let written = std::mem::replace(&mut self.written, Written::Unknown);
        self.written = match (written, needed) {
            (Written::Absent, false) => Written::Absent,
            (Written::Unknown, false) => {
                self.kernel.remove()?;
                Written::Absent
            }
            (Written::Unknown | Written::Absent, true) => {
                self.kernel.replace(&mut self.rules)?;
                Written::Whole
            }
            (Written::Whole, _) => {
                if !delta.is_empty() {
                    self.kernel.apply(&self.rules, delta)?;
                }
                Written::Whole
            }
        };
        Ok(())
    }
}

impl Proxy {
    async fn open(config: &Config) -> Result<Self, Error> {
        let layout = |family| Layout {
            table: kernel::table(&config.cluster, family),
            cluster_cidrs: config.cluster_cidrs.clone(),
            masquerade_all: config.masquerade_all,
            node_port_addresses: match &config.node_port_addresses {
                NodePortAddresses::All => None,
                NodePortAddresses::Within(ranges) => Some(ranges.clone()),
            },
        };
        let layouts = [Family::Ip, Family::Ip6].map(layout);
        let open = move || -> network::Result<Vec<_>> {
            let open = |layout: Layout| {
                let rules = RuleSet::new(layout.table.family);
                Ok(Managed { kernel: KernelTable::open(layout)?, rules, written: Written::Unknown })
            };
            layouts.into_iter().map(open).collect()
        };
        Ok(Self {
            state: State::new(&config.node_name),
            tables: tokio::task::spawn_blocking(open).await??,
            health: HealthServers::default(),
            health_ports: BTreeMap::new(),
            deaf: Vec::new(),
            backoff: Backoff::within(RETRY.0, RETRY.1),
            retry: None,
        })
    }

    /// Notices when somebody deleted the tables, so that the next [`Proxy::sync`] writes them anew.
    async fn look_for_tables(&mut self) -> Result<(), Error> {
        let mut tables = std::mem::take(&mut self.tables);
        let work = move || {
            for table in tables.iter_mut().filter(|table| table.written == Written::Whole) {
                match table.kernel.is_intact() {
                    Ok(true) => {}
                    Ok(false) => {
                        tracing::warn!("somebody deleted the rules of the service proxy; writing them anew");
                        table.written = Written::Unknown;
                    }
                    Err(error) => tracing::warn!(%error, "cannot look for the rules of the service proxy"),
                }
            }
            tables
        };
        self.tables = tokio::task::spawn_blocking(work).await?;
        Ok(())
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry
    }

    /// Brings the tables up to the state. An error of the kernel is told and tried again later, with
    /// everything. Whether the tables hold all they should.
    async fn sync(&mut self) -> Result<bool, Error> {
        let dirty = self.state.take_dirty();
        if dirty.is_empty() && self.tables.iter().all(|table| table.written != Written::Unknown) {
            return Ok(true);
        }
        let mut tables = std::mem::take(&mut self.tables);
        let deltas: Vec<Delta> = tables.iter_mut().map(|table| self.plan(&mut table.rules, &dirty)).collect();
        let work = move || {
            let written = tables.iter_mut().zip(&deltas).map(|(table, delta)| table.write(delta));
            let errors: Vec<network::Error> = written.filter_map(Result::err).collect();
            (tables, errors)
        };
        let (tables, errors) = tokio::task::spawn_blocking(work).await?;
        self.tables = tables;
        for error in &errors {
            tracing::warn!(%error, "the service proxy could not write its rules; it will try again");
        }
        self.retry = if errors.is_empty() {
            self.backoff = Backoff::within(RETRY.0, RETRY.1);
            None
        } else {
            Some(self.backoff.pause())
        };
        self.serve_health(&dirty).await;
        Ok(errors.is_empty())
    }

    fn plan(&self, rules: &mut RuleSet, dirty: &BTreeSet<ServiceName>) -> Delta {
        let mut delta = Delta::default();
        for service in dirty {
            let plan = plan::plan_service(&self.state, service, rules.is_ipv6());
            rules.update(service, plan, &mut delta);
        }
        delta
    }

    async fn serve_health(&mut self, dirty: &BTreeSet<ServiceName>) {
        let before = self.health_ports.clone();
        self.health_ports.retain(|_, (service, _)| !dirty.contains(service));
        for name in dirty {
            if let Some(port) = self.state.service(name).and_then(|service| service.health_check_port) {
                self.health_ports.insert(port, (name.clone(), plan::local_endpoints(&self.state, name)));
            }
        }
        if before != self.health_ports {
            self.listen().await;
        }
    }

    /// Serves the health check node ports. What fails again as it did before is not told again.
    async fn listen(&mut self) {
        let errors = self.health.serve(self.health_ports.clone()).await;
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        for error in errors.iter().filter(|error| !self.deaf.contains(error)) {
            tracing::warn!("{error}; it is tried again");
        }
        self.deaf = errors;
    }

    /// Tries the ports again that others used.
    async fn listen_again(&mut self) {
        if !self.deaf.is_empty() {
            self.listen().await;
        }
    }
}
