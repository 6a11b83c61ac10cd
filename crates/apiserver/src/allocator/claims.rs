//! Claims of addresses and ports as operations of the store: IPAddress objects, and the bitmap of node ports.

use super::bitmap::PortBitmap;
use super::range::{AddressRange, Family, PortRange};
use super::service::{self, Claims, Pools, Taken};
use crate::cache::hooks::{self, Mutant};
use crate::context::Context;
use crate::lookup::{IP_ADDRESSES, Lookup, SERVICE_CIDRS};
use crate::registry::{Allocator, Served, Side};
use api::Status;
use async_trait::async_trait;
use bytes::Bytes;
use schema::{Encoded, Map, Value};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use store::{Compare, KeyRange, Op, Range, Relation, Store, Target};

/// Where upstream keeps the bitmap.
const PORTS_KEY: &str = "/registry/ranges/servicenodeports";
const ADDRESSES: &str = "/registry/ipaddresses/";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGER: &str = "ipallocator.k8s.io";
/// How often another address is chosen because the one before was taken a moment ago.
const TRIES: usize = 32;

/// Random bytes, or those that a simulation draws.
fn random_uuid() -> uuid::Uuid {
    let drawn = hooks::drawn().map(|bytes| uuid::Builder::from_random_bytes(bytes).into_uuid());
    drawn.unwrap_or_else(uuid::Uuid::new_v4)
}

/// Gives Services their addresses and ports.
pub struct ServiceAllocator {
    store: Arc<dyn Store>,
    objects: Arc<dyn Lookup>,
    families: Vec<Family>,
    ranges: Vec<AddressRange>,
    ports: PortRange,
}

/// The bitmap as it is stored, and the revision it must still have when it is written.
struct StoredPorts {
    bitmap: PortBitmap,
    revision: i64,
}

struct Held<'a> {
    objects: &'a dyn Lookup,
    /// Found taken in the store, though memory does not know yet.
    also: &'a BTreeSet<IpAddr>,
    ports: Option<&'a PortBitmap>,
}

impl Taken for Held<'_> {
    fn address(&self, address: IpAddr) -> bool {
        // What cannot be read is taken.
        self.also.contains(&address) || !matches!(self.objects.get(IP_ADDRESSES, "", &address.to_string()), Ok(None))
    }
    fn port(&self, port: u16) -> bool {
        self.ports.is_some_and(|ports| ports.taken(port))
    }
}

fn unavailable(error: store::Error) -> Status {
    Status::internal(format!("the store does not answer: {error}"))
}

fn address_key(address: IpAddr) -> Bytes {
    Bytes::from(format!("{ADDRESSES}{address}"))
}

fn has_ports(service: Option<&Map>) -> bool {
    service.is_some_and(|s| matches!(s.str_at(&["spec", "type"]), "NodePort" | "LoadBalancer"))
}

/// The ranges of every ServiceCIDR that is ready and stays, and the server's own, which nobody may have noted yet: those come
/// first, and are no more given from when all who name them are unready or go.
pub(super) fn ranges(own: &[AddressRange], cidrs: &[Arc<Map>]) -> Vec<AddressRange> {
    let (mut open, mut closed) = (Vec::new(), Vec::new());
    for cidr in cidrs {
        let conditions = cidr.at(&["status", "conditions"]).and_then(Value::as_list).unwrap_or_default();
        let unready = conditions
            .iter()
            .filter_map(Value::as_map)
            .any(|c| c.str_at(&["type"]) == "Ready" && c.str_at(&["status"]) != "True");
        let of = if unready || cidr.at(&["metadata", "deletionTimestamp"]).is_some() { &mut closed } else { &mut open };
        let listed = cidr.at(&["spec", "cidrs"]).and_then(Value::as_list).unwrap_or_default();
        of.extend(listed.iter().filter_map(Value::as_str).filter_map(AddressRange::parse));
    }
    let own = own.iter().filter(|range| open.contains(*range) || !closed.contains(*range));
    let mut all: Vec<AddressRange> = own.cloned().collect();
    for range in open {
        if !all.contains(&range) {
            all.push(range);
        }
    }
    all
}

impl ServiceAllocator {
    /// `ranges` are the service CIDRs that the server is started with, the default family's first.
    pub fn new(store: Arc<dyn Store>, objects: Arc<dyn Lookup>, ranges: Vec<AddressRange>, ports: PortRange) -> Self {
        let mut families: Vec<Family> = Vec::new();
        for range in &ranges {
            if !families.contains(&range.family()) {
                families.push(range.family());
            }
        }
        ServiceAllocator { store, objects, families, ranges, ports }
    }

    fn pools(&self) -> Result<Pools, Status> {
        let addresses = ranges(&self.ranges, &self.objects.list(SERVICE_CIDRS, None)?);
        Ok(Pools { families: self.families.clone(), addresses, ports: self.ports })
    }

    async fn stored_ports(&self) -> Result<StoredPorts, Status> {
        let read = self.store.range(Range::of(KeyRange::key(PORTS_KEY))).await.map_err(unavailable)?;
        let Some(kv) = read.kvs.into_iter().next() else {
            return Ok(StoredPorts { bitmap: PortBitmap::empty(self.ports), revision: 0 });
        };
        let bitmap = PortBitmap::from_stored(self.ports, &kv.value)
            .ok_or_else(|| Status::internal(format!("the value of {PORTS_KEY} cannot be read")))?;
        Ok(StoredPorts { bitmap, revision: kv.mod_revision })
    }

    /// The claimed addresses that are taken in the store.
    async fn lost(&self, claims: &Claims) -> Result<Vec<IpAddr>, Status> {
        let mut lost = Vec::new();
        for address in &claims.claim_addresses {
            let mut range = Range::of(KeyRange::key(address_key(*address)));
            range.count_only = true;
            if self.store.range(range).await.map_err(unavailable)?.count > 0 {
                lost.push(*address);
            }
        }
        Ok(lost)
    }

    /// The conditions and operations that make claims true.
    async fn side(
        &self,
        cx: &Context,
        service: &Map,
        claims: &Claims,
        ports: Option<StoredPorts>,
    ) -> Result<Side, Status> {
        let mut side = Side::default();
        let absent = |key: Bytes| Compare { key, relation: Relation::Equal, target: Target::ModRevision(0) };
        for address in &claims.claim_addresses {
            let key = address_key(*address);
            if !hooks::is(Mutant::AddressUnguarded) {
                side.compares.push(absent(key.clone()));
            }
            side.ops.push(Op::Put { key, value: ip_address(cx, *address, service), lease: 0 });
        }
        for address in &claims.release_addresses {
            let name = address.to_string();
            let is_own = |held: &Map| {
                ["namespace", "name"]
                    .into_iter()
                    .all(|key| held.str_at(&["spec", "parentRef", key]) == service.str_at(&["metadata", key]))
            };
            // Memory may still have the claim of whom the address belonged to before, if another server gave it out anew.
            let own = match self.objects.get(IP_ADDRESSES, "", &name) {
                Ok(Some(held)) if is_own(&held) || hooks::is(Mutant::ClaimOfStaleMemory) => is_own(&held),
                _ => self.objects.fresh(IP_ADDRESSES, "", &name).await?.is_some_and(|held| is_own(&held)),
            };
            if own && !hooks::is(Mutant::AddressNotReleased) {
                side.ops.push(Op::Delete { keys: KeyRange::key(address_key(*address)) });
            }
        }
        if let Some(StoredPorts { mut bitmap, revision }) = ports {
            let before = bitmap.clone();
            claims.release_ports.iter().for_each(|port| bitmap.set(*port, false));
            claims.claim_ports.iter().for_each(|port| bitmap.set(*port, true));
            if bitmap != before {
                let key = Bytes::from_static(PORTS_KEY.as_bytes());
                let value = Bytes::from(schema::json::to_string(&bitmap.to_object()));
                if !hooks::is(Mutant::PortsUnguarded) {
                    side.compares.push(Compare {
                        key: key.clone(),
                        relation: Relation::Equal,
                        target: Target::ModRevision(revision),
                    });
                }
                side.ops.push(Op::Put { key, value, lease: 0 });
            }
        }
        Ok(side)
    }
}

/// The object that claims an address for a Service, as it is stored.
fn ip_address(cx: &Context, address: IpAddr, service: &Map) -> Bytes {
    let mut object = Map::new();
    object.set_at(&["metadata", "name"], address.to_string());
    object.set_at(&["metadata", "uid"], random_uuid().to_string());
    object.set_at(&["metadata", "creationTimestamp"], cx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    object.set_at(&["metadata", "labels", FAMILY], Family::of(address).as_str());
    object.set_at(&["metadata", "labels", MANAGED_BY], MANAGER);
    object.set_at(&["spec", "parentRef", "resource"], "services");
    object.set_at(&["spec", "parentRef", "namespace"], service.str_at(&["metadata", "namespace"]));
    object.set_at(&["spec", "parentRef", "name"], service.str_at(&["metadata", "name"]));
    Encoded::new(&object).stored("networking.k8s.io/v1", "IPAddress")
}

#[async_trait]
impl Allocator for ServiceAllocator {
    async fn allocate(
        &self,
        cx: &Context,
        _served: &Arc<Served>,
        object: &mut Map,
        old: Option<&Map>,
        dry_run: bool,
    ) -> Result<Side, Status> {
        let mut pools = self.pools()?;
        let (mut also, mut fresh) = (BTreeSet::new(), false);
        for _ in 0..TRIES {
            let ports = if has_ports(Some(object)) || has_ports(old) { Some(self.stored_ports().await?) } else { None };
            let held = Held { objects: &*self.objects, also: &also, ports: ports.as_ref().map(|p| &p.bitmap) };
            let mut planned = object.clone();
            let mut random = || random_uuid().as_u64_pair().1;
            let claims = match service::plan(&pools, &held, &mut random, &mut planned, old) {
                Ok(claims) => claims,
                // Memory may have taken for taken what another server has given back.
                Err(_) if !fresh && !hooks::is(Mutant::FullOfStaleMemory) => {
                    self.objects.consistent().await?;
                    pools = self.pools()?;
                    fresh = true;
                    also.clear();
                    continue;
                }
                Err(refused) => return Err(refused),
            };
            if dry_run || claims.is_empty() {
                *object = planned;
                return Ok(Side::default());
            }
            let lost = if hooks::is(Mutant::AddressUnguarded) { Vec::new() } else { self.lost(&claims).await? };
            if lost.is_empty() {
                let side = self.side(cx, &planned, &claims, ports).await?;
                *object = planned;
                return Ok(side);
            }
            also.extend(lost);
        }
        Err(Status::internal("failed to allocate a serviceIP: range is full"))
    }

    async fn release(&self, cx: &Context, _served: &Arc<Served>, object: &Map) -> Result<Side, Status> {
        let claims = service::release(object);
        let ports = if claims.release_ports.is_empty() { None } else { Some(self.stored_ports().await?) };
        self.side(cx, object, &claims, ports).await
    }
}
