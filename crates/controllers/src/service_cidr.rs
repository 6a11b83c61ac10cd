//! Ranges of Services' addresses: each is held by a finalizer, told to be ready, and let go when no address is lost by that.

use crate::informer::{Informer, Object};
use crate::queue::{Key, Queue};
use crate::volume_protection::{finalizers, write};
use crate::{Context, Error, Running, gone_is_fine};
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "service-cidr-controller";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// Who gives Services their addresses.
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// How long a range that nobody needs is kept: by then no server gives addresses from it any more.
const GRACE: Duration = Duration::from_secs(10);
/// In place of a name: all ranges that are being deleted.
const EVERY: &str = "";

impl Object for ServiceCIDR {}
impl Object for IPAddress {}

/// A network, its addresses as numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Network {
    v4: bool,
    first: u128,
    last: u128,
}

fn number(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => (true, u32::from(address).into()),
        IpAddr::V6(address) => (false, address.into()),
    }
}

impl Network {
    fn parse(cidr: &str) -> Option<Self> {
        let (address, prefix) = cidr.split_once('/')?;
        let (v4, address) = number(address.parse().ok()?);
        let hosts = if v4 { 32_u32 } else { 128 }.checked_sub(prefix.parse().ok()?)?;
        let mask = u128::MAX.checked_shl(hosts).map_or(u128::MAX, |network| !network);
        Some(Network { v4, first: address & !mask, last: address | mask })
    }

    fn contains(&self, other: &Network) -> bool {
        self.v4 == other.v4 && self.first <= other.first && other.last <= self.last
    }

    /// Whether an address may be given from here: never the network's own, nor IPv4's broadcast address.
    fn gives(&self, address: IpAddr) -> bool {
        let (v4, number) = number(address);
        let last = if v4 { number < self.last } else { number <= self.last };
        self.v4 == v4 && self.first < number && last
    }
}

fn networks(cidr: &ServiceCIDR) -> impl Iterator<Item = Network> {
    let listed = cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    listed.filter_map(|cidr| Network::parse(cidr))
}

fn gives(cidr: &ServiceCIDR, address: IpAddr) -> bool {
    networks(cidr).any(|network| network.gives(address))
}

fn same(one: &ServiceCIDR, other: &ServiceCIDR) -> bool {
    one.metadata.name == other.metadata.name
}

fn is_deleting(cidr: &ServiceCIDR) -> bool {
    cidr.metadata.deletion_timestamp.is_some()
}

/// The address, if a server gave it to a Service.
fn given(address: &IPAddress) -> Option<IpAddr> {
    let by = address.metadata.labels.as_ref()?.get(MANAGED_BY)?;
    if by != ALLOCATOR {
        return None;
    }
    address.metadata.name.as_deref()?.parse().ok()
}

/// What the condition `Ready` is to say.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ready {
    status: &'static str,
    reason: Option<&'static str>,
    message: &'static str,
}

const READY: Ready = Ready { status: "True", reason: None, message: "Kubernetes Service CIDR is ready" };
const HELD: Ready = Ready {
    status: "False",
    reason: Some("Terminating"),
    message: "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
};

/// What is to be done with a range.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    finalizers: Option<Vec<String>>,
    ready: Option<Ready>,
    again: Option<Duration>,
}

/// Whether a range may go: others have all of it, or every address that was given from it.
fn may_go(cidr: &ServiceCIDR, all: &[Arc<ServiceCIDR>], addresses: &[Arc<IPAddress>]) -> bool {
    // Those that go themselves are no help: of two that are deleted together, one would let the other go.
    let others = || all.iter().filter(|other| !same(other, cidr) && other.metadata.deletion_timestamp.is_none());
    let within = |network: &Network| others().any(|other| networks(other).any(|larger| larger.contains(network)));
    networks(cidr).all(|network| within(&network))
        || addresses
            .iter()
            .filter_map(|address| given(address))
            .filter(|address| gives(cidr, *address))
            .all(|address| others().any(|other| gives(other, address)))
}

fn plan(cidr: &ServiceCIDR, all: &[Arc<ServiceCIDR>], addresses: &[Arc<IPAddress>], now: Timestamp) -> Plan {
    let ready = |wanted: Ready| {
        let conditions = cidr.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let told = conditions.filter(|condition| condition.type_ == "Ready").any(|condition| {
            condition.status == wanted.status
                && condition.reason == wanted.reason.unwrap_or("")
                && condition.message == wanted.message
        });
        (!told).then_some(wanted)
    };
    let finalizers = || finalizers(cidr, FINALIZER, || false);
    let Some(deleted) = &cidr.metadata.deletion_timestamp else {
        return Plan { finalizers: finalizers(), ready: ready(READY), again: None };
    };
    if !may_go(cidr, all, addresses) {
        // A range or an address that changes has it looked at again.
        return Plan { ready: ready(HELD), ..Plan::default() };
    }
    let gone = Duration::try_from(now.duration_since(deleted.0)).unwrap_or_default();
    match GRACE.checked_sub(gone).filter(|left| !left.is_zero()) {
        Some(left) => Plan { again: Some(left), ..Plan::default() },
        None => Plan { finalizers: finalizers(), ..Plan::default() },
    }
}

/// Applies the condition, as the one who has the say of it.
async fn tell(client: &Client, name: &str, ready: Ready) -> Result<Option<ServiceCIDR>, Error> {
    let mut condition = serde_json::json!({"type": "Ready", "status": ready.status, "message": ready.message,
        "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    if let Some(reason) = ready.reason {
        condition["reason"] = reason.into();
    }
    let object = serde_json::json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": name}, "status": {"conditions": [condition]}});
    let params = PatchParams::apply(NAME).force();
    let cidrs: Api<ServiceCIDR> = Api::all(client.clone());
    Ok(gone_is_fine(cidrs.patch_status(name, &params, &Patch::Apply(object)).await)?)
}

pub fn controller(context: &Context) -> Running {
    let client = context.clients.service_account("service-cidrs-controller");
    let cidrs: Informer<ServiceCIDR> = context.informers.of();
    let addresses: Informer<IPAddress> = context.informers.of();
    let queue = Queue::<Key>::named(&context.config.queues, "ipaddresses");
    cidrs.feed(&queue);
    let q = queue.clone();
    // A range that is new may have all that another is kept for.
    cidrs.on_change(move |old, new| {
        if old.is_none() && new.is_some() {
            q.add(Key::new("", EVERY));
        }
    });
    let (q, all) = (queue.clone(), cidrs.clone());
    addresses.on_change(move |old, new| {
        // An address that comes keeps a range, one that goes may let it go.
        let ((None, Some(address)) | (Some(address), None)) = (old, new) else { return };
        let Some(address) = given(address) else { return };
        for cidr in all.all().iter().filter(|cidr| is_deleting(cidr) && gives(cidr, address)) {
            q.add(crate::informer::key(cidr.as_ref()));
        }
    });
    let shutdown = context.shutdown.clone();
    async move {
        cidrs.synced().await;
        addresses.synced().await;
        let again = queue.clone();
        let reconcile = |key: Key| {
            let (client, cidrs, addresses, again) = (client.clone(), cidrs.clone(), addresses.clone(), again.clone());
            async move {
                let all = cidrs.all();
                if key.name == EVERY {
                    all.iter()
                        .filter(|cidr| is_deleting(cidr))
                        .for_each(|cidr| again.add(crate::informer::key(&**cidr)));
                    return Ok(None);
                }
                let Some(cidr) = cidrs.by_key(&key) else { return Ok(None) };
                let plan = plan(&cidr, &all, &addresses.all(), Timestamp::now());
                if let Some(finalizers) = plan.finalizers
                    && let Some(written) = write(&client, cidr.as_ref(), finalizers).await?
                {
                    cidrs.assume(written);
                }
                if let Some(ready) = plan.ready
                    && let Some(written) = tell(&client, &key.name, ready).await?
                {
                    cidrs.assume(written);
                }
                Ok(plan.again)
            }
        };
        queue.run("service-cidr", 1, shutdown, reconcile).await;
        Ok(())
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cidr(name: &str, cidrs: &[&str]) -> Result<ServiceCIDR, serde_json::Error> {
        serde_json::from_value(json!({"metadata": {"name": name, "finalizers": [FINALIZER]}, "spec": {"cidrs": cidrs},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "", "message": READY.message,
                "lastTransitionTime": "1970-01-01T00:00:00Z"}]}}))
    }

    fn address(name: &str, by: &str) -> Result<Arc<IPAddress>, serde_json::Error> {
        let object =
            json!({"metadata": {"name": name, "labels": {MANAGED_BY: by}}, "spec": {"parentRef": {"name": "s"}}});
        serde_json::from_value(object).map(Arc::new)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    #[test]
    fn a_range_is_held_and_told_to_be_ready() -> Result<(), serde_json::Error> {
        let mut one = cidr("a", &["10.0.0.0/24"])?;
        assert_eq!(plan(&one, &[], &[], at(0)), Plan::default(), "nothing is to be said twice");
        one.metadata.finalizers = Some(vec!["x".into()]);
        one.status = None;
        let held = Some(vec!["x".to_owned(), FINALIZER.to_owned()]);
        assert_eq!(plan(&one, &[], &[], at(0)), Plan { finalizers: held, ready: Some(READY), again: None });
        Ok(())
    }

    #[test]
    fn a_range_goes_when_no_address_is_lost() -> Result<(), serde_json::Error> {
        let mut one = cidr("a", &["10.0.0.0/24", "fd00::/112"])?;
        one.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(100)));
        let own = Arc::new(one.clone());
        let of = |others: &[&Arc<ServiceCIDR>], addresses: &[Arc<IPAddress>], now: i64| {
            let all: Vec<_> = [&own].iter().chain(others).map(|cidr| Arc::clone(cidr)).collect();
            plan(&one, &all, addresses, at(now))
        };
        let waits = |seconds| Plan { again: Some(Duration::from_secs(seconds)), ..Plan::default() };
        let goes = Plan { finalizers: Some(Vec::new()), ..Plan::default() };
        let stays = Plan { ready: Some(HELD), ..Plan::default() };
        assert_eq!(of(&[], &[], 101), waits(9), "servers are given the time to see it");
        assert_eq!(of(&[], &[], 110), goes);
        let used = [address("10.0.0.7", ALLOCATOR)?];
        assert_eq!(of(&[], &used, 200), stays);
        assert_eq!(of(&[], &[address("10.0.0.7", "someone")?, address("10.0.1.7", ALLOCATOR)?], 200), goes);
        assert_eq!(of(&[], &[address("10.0.0.0", ALLOCATOR)?, address("10.0.0.255", ALLOCATOR)?], 200), goes);
        // Another has the address, or all of the range.
        let small = Arc::new(cidr("b", &["10.0.0.0/28"])?);
        assert_eq!(of(&[&small], &used, 200), goes);
        assert_eq!(of(&[&small], &[address("10.0.0.17", ALLOCATOR)?], 200), stays);
        let large = Arc::new(cidr("c", &["10.0.0.0/16", "fd00::/64"])?);
        assert_eq!(of(&[&large], &[address("fd00::7", ALLOCATOR)?, address("10.0.0.17", ALLOCATOR)?], 200), goes);
        let four = Arc::new(cidr("d", &["10.0.0.0/16"])?);
        assert_eq!(of(&[&four], &[address("fd00::7", ALLOCATOR)?], 200), stays);
        // One that goes itself is no help.
        let mut going = (*large).clone();
        going.metadata.deletion_timestamp = one.metadata.deletion_timestamp.clone();
        assert_eq!(of(&[&Arc::new(going)], &used, 200), stays);
        Ok(())
    }

    #[test]
    fn networks_are_read_in_both_families() {
        let of = |cidr: &str| Network::parse(cidr).map(|network| (network.first, network.last));
        assert_eq!(of("0.0.0.1/24"), Some((0, 255)));
        assert_eq!(of("::1/128"), Some((1, 1)));
        assert_eq!(of("::/0"), Some((0, u128::MAX)));
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "::/129"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
