//! Claims of addresses and ports as operations of the store: IPAddress objects, and the bitmap of node ports.

use super::bitmap::PortBitmap;
use super::measures::{Measures, Refused, Scope};
use super::range::{AddressRange, Family, PortRange};
use super::service::{self, Claims, Pools, Taken};
use crate::cache::hooks::{self, Mutant};
use crate::context::Context;
use crate::lookup::{IP_ADDRESSES, Lookup, SERVICE_CIDRS};
use crate::measure::Tells;
use crate::registry::{Allocator, Served, Side};
use api::{GroupResource, Status};
use async_trait::async_trait;
use bytes::Bytes;
use schema::{Encoded, Map, Value};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use store::{Compare, KeyRange, Op, Range, Relation, Store, Target, Txn};

/// Where upstream keeps the bitmap.
const PORTS_KEY: &str = "/registry/ranges/servicenodeports";
const ADDRESSES: &str = "/registry/ipaddresses/";
pub(super) const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub(super) const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
pub(super) const MANAGER: &str = "ipallocator.k8s.io";
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
    measures: Measures,
}

/// The bitmap as it is stored, and the revision it must still have when it is written.
pub(super) struct StoredPorts {
    pub(super) bitmap: PortBitmap,
    pub(super) revision: i64,
}

struct Held<'a> {
    objects: &'a dyn Lookup,
    /// Found taken in the store, though memory does not know yet.
    also: &'a BTreeSet<IpAddr>,
    ports: Option<&'a PortBitmap>,
    /// What could not be given at last.
    refused: Mutex<Option<Refused>>,
}

impl Taken for Held<'_> {
    fn address(&self, address: IpAddr) -> bool {
        // What cannot be read is taken.
        self.also.contains(&address) || !matches!(self.objects.get(IP_ADDRESSES, "", &address.to_string()), Ok(None))
    }
    fn port(&self, port: u16) -> bool {
        self.ports.is_some_and(|ports| ports.taken(port))
    }
    fn refused(&self, refused: Refused) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
    }
}

fn unavailable(error: store::Error) -> Status {
    Status::internal(format!("the store does not answer: {error}"))
}

fn address_key(address: IpAddr) -> Bytes {
    Bytes::from(format!("{ADDRESSES}{address}"))
}

/// The revision at which an object was seen.
fn revision(seen: &Map) -> Result<i64, Status> {
    let revision = seen.str_at(&["metadata", "resourceVersion"]).parse();
    revision.map_err(|_| Status::internal("a Service or the claim of an address has no resourceVersion"))
}

/// That an object still is the one that was looked at.
fn as_seen(key: Bytes, seen: &Map) -> Result<Compare, Status> {
    Ok(Compare { key, relation: Relation::Equal, target: Target::ModRevision(revision(seen)?) })
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
        ServiceAllocator { store, objects, families, ranges, ports, measures: Measures::default() }
    }

    fn pools(&self) -> Result<Pools, Status> {
        let addresses = ranges(&self.ranges, &self.objects.list(SERVICE_CIDRS, None)?);
        Ok(Pools { families: self.families.clone(), addresses, ports: self.ports })
    }

    pub(super) fn objects(&self) -> &dyn Lookup {
        &*self.objects
    }

    pub(super) fn ports(&self) -> PortRange {
        self.ports
    }

    /// Claims an address for a Service that has it, in place of a claim that is wrong, or where there is none; if that, and the
    /// Service under its key in the store, still are as they were seen. Gives the revision of the claim.
    ///
    /// # Errors
    /// 409 when one of both is otherwise.
    pub(super) async fn claim_again(
        &self,
        cx: &Context,
        address: IpAddr,
        service: &Map,
        service_key: Bytes,
        wrong: Option<&Map>,
    ) -> Result<u64, Status> {
        let key = address_key(address);
        // In one step: an address that somebody has must be nobody else's in between.
        let as_it_was = match wrong {
            Some(wrong) => as_seen(key.clone(), wrong)?,
            None => Compare { key: key.clone(), relation: Relation::Equal, target: Target::ModRevision(0) },
        };
        let txn = Txn {
            compares: vec![as_it_was, as_seen(service_key, service)?],
            ..Txn::of(vec![Op::Put { key, value: ip_address(cx, address, service, wrong), lease: 0 }])
        };
        let result = self.store.txn(txn).await.map_err(unavailable)?;
        if result.succeeded {
            return Ok(result.revision.cast_unsigned());
        }
        let resource = GroupResource::new(IP_ADDRESSES.group, IP_ADDRESSES.plural);
        Err(Status::modified(&resource, &address.to_string()))
    }

    /// Writes which ports are taken; whether nobody else had since this revision.
    pub(super) async fn put_ports(&self, bitmap: &PortBitmap, revision: i64) -> Result<bool, Status> {
        let key = Bytes::from_static(PORTS_KEY.as_bytes());
        let value = Bytes::from(schema::json::to_string(&bitmap.to_object()));
        let compare = Compare { key: key.clone(), relation: Relation::Equal, target: Target::ModRevision(revision) };
        let txn = Txn { compares: vec![compare], ..Txn::of(vec![Op::Put { key, value, lease: 0 }]) };
        Ok(self.store.txn(txn).await.map_err(unavailable)?.succeeded)
    }

    pub(super) async fn stored_ports(&self) -> Result<StoredPorts, Status> {
        let read = self.store.range(Range::of(KeyRange::key(PORTS_KEY))).await.map_err(unavailable)?;
        let Some(kv) = read.kvs.into_iter().next() else {
            return Ok(StoredPorts { bitmap: PortBitmap::empty(self.ports), revision: 0 });
        };
        let bitmap = PortBitmap::from_stored(self.ports, &kv.value)
            .ok_or_else(|| Status::internal(format!("the value of {PORTS_KEY} cannot be read")))?;
        self.measures.ports_taken(bitmap.ports().count());
        Ok(StoredPorts { bitmap, revision: kv.mod_revision })
    }

    /// Notes what was given to a Service; `asked`: as it was sent.
    fn count(&self, pools: &Pools, claims: &Claims, asked: &Map) {
        let spec = |key| asked.at(&["spec", key]);
        let listed = |key| spec(key).and_then(Value::as_list).unwrap_or_default();
        for address in &claims.claim_addresses {
            let text = address.to_string();
            let named = |value: &Value| value.as_str() == Some(text.as_str());
            let given = listed("clusterIPs").iter().chain(spec("clusterIP")).any(named);
            if let Some(range) = pools.addresses.iter().find(|range| range.contains(*address)) {
                self.measures.gave_address(range.as_str(), Scope::of(given));
            }
        }
        for port in &claims.claim_ports {
            let is_it = |value: Option<&Value>| value.and_then(Value::as_i64) == Some(i64::from(*port));
            let of_port = listed("ports").iter().filter_map(Value::as_map).any(|of| is_it(of.get("nodePort")));
            self.measures.gave_port(Scope::of(of_port || is_it(spec("healthCheckNodePort"))));
        }
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

    /// The claim of an address as the store has it. Memory may still have that of whom the address belonged to before, if
    /// another server gave it out anew.
    async fn claim(&self, address: IpAddr) -> Result<Option<Arc<Map>>, Status> {
        let name = address.to_string();
        if let Ok(Some(held)) = self.objects.get(IP_ADDRESSES, "", &name) {
            if hooks::is(Mutant::ClaimOfStaleMemory) {
                return Ok(Some(held));
            }
            let range = Range { keys_only: true, ..Range::of(KeyRange::key(address_key(address))) };
            let read = self.store.range(range).await.map_err(unavailable)?;
            if read.kvs.first().map(|kv| kv.mod_revision) == Some(revision(&held)?) {
                return Ok(Some(held));
            }
        }
        self.objects.fresh(IP_ADDRESSES, "", &name).await
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
            side.ops.push(Op::Put { key, value: ip_address(cx, *address, service, None), lease: 0 });
        }
        for address in claims.release_addresses.iter().copied() {
            let is_own = |held: &Map| {
                ["namespace", "name"]
                    .into_iter()
                    .all(|key| held.str_at(&["spec", "parentRef", key]) == service.str_at(&["metadata", key]))
            };
            let own = self.claim(address).await?.filter(|held| is_own(held));
            if let Some(held) = own.filter(|_| !hooks::is(Mutant::AddressNotReleased)) {
                // It must not go if it is another's by the time of the write.
                let key = address_key(address);
                side.compares.push(as_seen(key.clone(), &held)?);
                side.ops.push(Op::Delete { keys: KeyRange::key(key) });
            }
        }
        if let Some(StoredPorts { mut bitmap, revision }) = ports {
            let before = bitmap.clone();
            claims.release_ports.iter().for_each(|port| bitmap.set(*port, false));
            claims.claim_ports.iter().for_each(|port| bitmap.set(*port, true));
            if bitmap != before {
                self.measures.ports_taken(bitmap.ports().count());
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
///
/// `before`: what it is made of, if it was there.
fn ip_address(cx: &Context, address: IpAddr, service: &Map, before: Option<&Map>) -> Bytes {
    let mut object = before.cloned().unwrap_or_default();
    if before.is_none() {
        object.set_at(&["metadata", "name"], address.to_string());
        object.set_at(&["metadata", "uid"], random_uuid().to_string());
        object.set_at(&["metadata", "creationTimestamp"], cx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    object.remove_at(&["metadata", "resourceVersion"]);
    object.remove("spec");
    object.set_at(&["metadata", "labels", FAMILY], Family::of(address).as_str());
    object.set_at(&["metadata", "labels", MANAGED_BY], MANAGER);
    object.set_at(&["spec", "parentRef", "resource"], "services");
    object.set_at(&["spec", "parentRef", "namespace"], service.str_at(&["metadata", "namespace"]));
    object.set_at(&["spec", "parentRef", "name"], service.str_at(&["metadata", "name"]));
    Encoded::new(&object).stored("networking.k8s.io/v1", "IPAddress")
}

impl Tells for ServiceAllocator {
    fn render(&self, out: &mut String) -> fmt::Result {
        // What can't be read is not told of: the next reader may.
        let ranges = self.pools().map(|pools| pools.addresses).unwrap_or_default();
        let claims = self.objects.list(IP_ADDRESSES, None).unwrap_or_default();
        let of = |claim: &Arc<Map>| claim.str_at(&["metadata", "name"]).parse().ok();
        let addresses: Vec<IpAddr> = claims.iter().filter_map(of).collect();
        self.measures.render(out, &ranges, &addresses, self.ports)
    }
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
            let held = Held {
                objects: &*self.objects,
                also: &also,
                ports: ports.as_ref().map(|p| &p.bitmap),
                refused: Mutex::default(),
            };
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
                Err(status) => {
                    let refused = held.refused.lock().unwrap_or_else(PoisonError::into_inner);
                    refused.iter().for_each(|refused| self.measures.refused(refused));
                    return Err(status);
                }
            };
            if dry_run || claims.is_empty() {
                *object = planned;
                return Ok(Side::default());
            }
            let lost = if hooks::is(Mutant::AddressUnguarded) { Vec::new() } else { self.lost(&claims).await? };
            if lost.is_empty() {
                let side = self.side(cx, &planned, &claims, ports).await?;
                self.count(&pools, &claims, object);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::{FromCaches, Stored};
    use crate::options::Options;
    use crate::registry::{Hooks, Registry, complete};
    use crate::test_support::{map, opened};
    use crate::user::UserInfo;
    use jiff::Timestamp;

    /// What memory has of one claim when it is asked for the first time.
    struct Stale {
        objects: FromCaches,
        claim: Mutex<Option<Arc<Map>>>,
    }

    #[async_trait]
    impl Lookup for Stale {
        fn get(&self, kind: Stored, namespace: &str, name: &str) -> Result<Option<Arc<Map>>, Status> {
            let old = if kind == IP_ADDRESSES { self.claim.lock().expect("no panic").take() } else { None };
            if old.is_some() { Ok(old) } else { self.objects.get(kind, namespace, name) }
        }
        fn list(&self, kind: Stored, namespace: Option<&str>) -> Result<Vec<Arc<Map>>, Status> {
            self.objects.list(kind, namespace)
        }
        async fn consistent(&self) -> Result<(), Status> {
            self.objects.consistent().await
        }
    }

    fn with_allocator(registry: &Arc<Registry>, objects: Arc<dyn Lookup>) -> Arc<dyn Allocator> {
        let ranges = vec![AddressRange::parse("10.0.0.0/29").expect("a range")];
        let ports = PortRange::parse("30000-30005").expect("a range");
        let allocator = Arc::new(ServiceAllocator::new(registry.store().clone(), objects, ranges, ports));
        registry.install(Hooks { allocators: vec![("", "services", allocator.clone())], ..Hooks::default() });
        allocator
    }

    /// Makes a Service, changes its claim so, deletes it by a memory that does not know of the change, and gives what is
    /// claimed then.
    async fn claimed_after(change: impl Fn(&mut Map)) -> Option<Arc<Map>> {
        let opened = opened().await;
        let registry = &opened.registry;
        let objects = FromCaches::new(registry.caches().clone());
        let stale = Arc::new(Stale { objects, claim: Mutex::default() });
        let allocator = with_allocator(registry, stale.clone());
        let cx = Context::new(Arc::new(UserInfo::apiserver()), "test", Timestamp::now());
        let services = registry.served("", "v1", "services").expect("served");
        let mut service = map("{metadata: {name: s}, spec: {ports: [{port: 80}], clusterIP: 10.0.0.3}}");
        complete::complete(services.resource.schema.root(), &mut service, None);
        let made = registry.create(&cx, &services, "n", service, &Options::default()).await.expect("made").object;
        let held = stale.get(IP_ADDRESSES, "", "10.0.0.3").expect("readable").expect("claimed");
        // Nor may it change between the look and the write.
        let side = allocator.release(&cx, &services, &made).await.expect("planned");
        let [Compare { target: Target::ModRevision(seen), .. }] = side.compares[..] else { panic!("{side:?}") };
        assert_eq!((seen.to_string().as_str(), side.ops.len()), (held.str_at(&["metadata", "resourceVersion"]), 1));
        let mut changed = (*held).clone();
        change(&mut changed);
        let key = address_key("10.0.0.3".parse().expect("an address"));
        let value = Encoded::new(&changed).stored("networking.k8s.io/v1", "IPAddress");
        let put = Txn::of(vec![Op::Put { key, value, lease: 0 }]);
        let revision = opened.store.txn(put).await.expect("changed").revision;
        *stale.claim.lock().expect("no panic") = Some(held);
        registry.delete(&cx, &services, "n", "s", &Options::default()).await.expect("deleted");
        assert!(stale.claim.lock().expect("no panic").is_none(), "memory was not asked");
        registry.caches().reached(revision.cast_unsigned()).await.expect("seen");
        stale.get(IP_ADDRESSES, "", "10.0.0.3").expect("readable")
    }

    #[tokio::test]
    async fn a_claim_goes_as_it_is_in_the_store_or_not_at_all() {
        let labelled = claimed_after(|claim| claim.set_at(&["metadata", "labels", "mine"], "yes")).await;
        assert!(labelled.is_none(), "it is still the Service's");
        let others = claimed_after(|claim| claim.set_at(&["spec", "parentRef", "name"], "other")).await;
        assert_eq!(others.expect("another's").str_at(&["spec", "parentRef", "name"]), "other");
    }
}
