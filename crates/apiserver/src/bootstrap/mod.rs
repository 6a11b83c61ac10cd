//! What is there from the start, made and kept without needless writes: on an empty store in a few transactions, on one that
//! has everything in none.

mod flow_control;
pub(crate) mod identity;
mod objects;
mod range;
pub mod rbac;
mod servers;
mod services;

pub(crate) use flow_control::mandatory as mandatory_flow_control;
pub use objects::FrontProxy;
pub(crate) use range::Problems as RangeProblems;
pub use servers::Presence;
pub use services::{Advertised, dns_endpoint_slice};

use crate::cache::{Cacher, Caches, NotReached, Scope};
use api::features::{Gates, parse_bool};
use jiff::Timestamp;
use schema::apply::{Element, Manager, OneShape};
use schema::{Encoded, Map, Resource, Value};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use store::{Compare, KeyRange, Op, Relation, Store, Target, Txn};
use thiserror::Error;

/// etcd takes 128 operations in a transaction unless it is told otherwise.
const BATCH: usize = 100;
/// How often it is begun again when another server writes the same.
const TRIES: usize = 8;
const MANAGER: &str = "kube-apiserver";

/// Which objects there are to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server as the cluster sees it; `None` leaves the Service `kubernetes` to others.
    pub advertised: Option<Advertised>,
    /// The service CIDRs, the default family's first.
    pub service_ranges: Vec<String>,
    /// The address of `kube-dns`; `None` leaves that Service to others.
    pub dns: Option<IpAddr>,
    /// PEM of the clients' authorities.
    pub client_ca: String,
    pub front_proxy: Option<FrontProxy>,
    /// What the machine is called, under which the server keeps a Lease; `None`: it keeps none.
    pub host: Option<String>,
}

#[derive(Debug, Error)]
pub enum BootstrapError {
    #[error("the first objects could not be written")]
    Store(#[from] store::Error),
    #[error("the first objects were written, but are not seen")]
    NotSeen(#[from] NotReached),
    #[error("other servers kept changing the first objects: {0} tries were not enough")]
    Contended(usize),
    #[error("{0} is not served, but the first objects need it")]
    NotServed(String),
}

impl BootstrapError {
    /// Whether the store refused for now, so that they can be made later.
    pub fn may_pass(&self) -> bool {
        matches!(self, BootstrapError::Store(error) if may_pass(error))
    }
}

/// Whether what the store refuses may be taken later without a new start: a disk gets space, a plugin that encrypts becomes well,
/// a majority of etcd's members is there again.
fn may_pass(error: &store::Error) -> bool {
    use store::Error::{ReadOnly, Transform, Unavailable, Unknown};
    matches!(error, ReadOnly { .. } | Unknown { .. } | Transform(_) | Unavailable(_))
}

/// When an object that exists is written.
#[derive(Clone, Copy, Debug)]
enum Keep {
    /// Never.
    Absent,
    /// When it lacks something of its default role or binding.
    Role,
    /// When its spec differs, while this annotation of it is true, or says nothing and nobody has changed the spec; then the
    /// annotation tells which of the two it is. One that is mandatory is kept whatever its annotation
    /// says, but for what of `spec.exempt` is set: that is the administrator's (KEP-1040).
    Marked { annotation: &'static str, mandatory: bool },
    /// As the server's ServiceCIDR: see [`range::step`].
    Range,
    /// When one of these fields differs.
    Same(&'static [&'static [&'static str]]),
}

/// An object that is to be there.
#[derive(Clone, Debug)]
struct Wanted {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    object: Map,
    keep: Keep,
    /// Fields that have only what every server gives such an object by itself: nobody comes to own them.
    given: &'static [&'static str],
}

impl Wanted {
    fn new(group: &'static str, version: &'static str, plural: &'static str, object: Map, keep: Keep) -> Self {
        Wanted { group, version, plural, object, keep, given: &[] }
    }

    fn row(&self) -> Result<&'static Resource, BootstrapError> {
        let missing = || BootstrapError::NotServed(format!("{}/{} {}", self.group, self.version, self.plural));
        schema::resource::get(self.group, self.version, self.plural).ok_or_else(missing)
    }
}

/// What becomes of one object.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Put(Map),
    /// Deleted first, then made anew: what differs cannot be changed.
    Replace(Map),
}

/// Compares an object with what is stored.
fn step(wanted: &Wanted, existing: Option<&Map>) -> Step {
    let Some(existing) = existing else { return Step::Put(wanted.object.clone()) };
    match wanted.keep {
        Keep::Absent => Step::Nothing,
        Keep::Range => range::step(&wanted.object, existing),
        Keep::Role => match rbac::reconcile(existing, &wanted.object) {
            rbac::Change::Keep => Step::Nothing,
            rbac::Change::Update(object) => Step::Put(object),
            rbac::Change::Recreate(object) => Step::Replace(object),
        },
        Keep::Marked { annotation, mandatory } => {
            let generation = existing.at(&["metadata", "generation"]).and_then(Value::as_i64).unwrap_or(0);
            let mark = parse_bool(existing.str_at(&["metadata", "annotations", annotation]));
            let follows = mandatory || mark.unwrap_or(generation == 1);
            let mut spec = wanted.object.get("spec").cloned().unwrap_or_default();
            if let (true, Some(exempt), Value::Map(spec)) = (mandatory, existing.at(&["spec", "exempt"]), &mut spec) {
                spec.insert("exempt", exempt.clone());
            }
            let (marked, kept) = (mark == Some(follows), !follows || existing.get("spec") == Some(&spec));
            if marked && kept {
                return Step::Nothing;
            }
            let mut updated = existing.clone();
            if !marked {
                updated.set_at(&["metadata", "annotations", annotation], follows.to_string());
            }
            if kept {
                return Step::Put(updated);
            }
            updated.insert("spec", spec);
            updated.set_at(&["metadata", "generation"], generation + 1);
            Step::Put(updated)
        }
        Keep::Same(paths) => {
            let mut updated = existing.clone();
            for path in paths {
                match wanted.object.at(path) {
                    Some(value) => updated.set_at(path, value.clone()),
                    None => {
                        updated.remove_at(path);
                    }
                }
            }
            if updated == *existing { Step::Nothing } else { Step::Put(updated) }
        }
    }
}

fn wanted(settings: &Settings, gates: &Gates, servers: &[SocketAddr], now: &str) -> Vec<Wanted> {
    let mut all = objects::namespaces();
    all.extend(objects::priority_classes());
    all.extend(flow_control::flow_control());
    for default in rbac::defaults(gates) {
        all.push(Wanted::new("rbac.authorization.k8s.io", "v1", default.resource, default.object, Keep::Role));
    }
    if !settings.service_ranges.is_empty() {
        all.push(range::wanted(&settings.service_ranges, now));
    }
    all.push(objects::extension_authentication(&settings.client_ca, settings.front_proxy.as_ref()));
    // The day of an RFC 3339 time.
    all.push(objects::legacy_token_tracking(now.split('T').next().unwrap_or(now)));
    all.extend(settings.advertised.as_ref().map(|at| services::kubernetes(at, servers)).unwrap_or_default());
    all.extend(settings.dns.map(services::kube_dns).unwrap_or_default());
    all
}

/// Makes and mends the first objects. `servers` are whom the Service `kubernetes` leads to, if it is kept: not none then.
///
/// Returns how many were written; they are in the caches then.
///
/// # Errors
/// Those of the store, and when other servers keep getting in the way.
pub async fn ensure(
    store: &dyn Store,
    caches: &Caches,
    settings: &Settings,
    gates: &Gates,
    servers: &[SocketAddr],
) -> Result<usize, BootstrapError> {
    let now = Timestamp::now();
    let shown = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let wanted = wanted(settings, gates, servers, &shown);
    let mut written = 0;
    for _ in 0..TRIES {
        let mut batch: Vec<Change> = Vec::new();
        for one in &wanted {
            batch.extend(plan(caches, one, &shown)?);
        }
        batch.extend(superfluous(caches));
        if batch.is_empty() {
            return Ok(written);
        }
        let (mut changed, mut revision) = (false, 0);
        for part in batch.chunks(BATCH) {
            let txn = Txn {
                compares: part.iter().map(|c| c.compare.clone()).collect(),
                ..Txn::of(part.iter().map(|c| c.op.clone()).collect())
            };
            let result = store.txn(txn).await?;
            revision = result.revision;
            if result.succeeded {
                written += part.len();
            } else {
                changed = true;
            }
        }
        // What another server wrote between is seen then, too.
        caches.reached(revision.cast_unsigned()).await?;
        if !changed && batch.iter().all(|c| matches!(c.op, Op::Put { .. })) {
            return Ok(written);
        }
    }
    Err(BootstrapError::Contended(TRIES))
}

/// Whether an object of flow control was another one before, in what a server keeps: most changes are of its status.
pub(crate) fn flow_control_differs(before: Option<&Map>, after: Option<&Map>) -> bool {
    let of = |object: Option<&Map>| {
        object.map(|object| (object.get("spec").cloned(), object.at(&["metadata", "annotations"]).cloned()))
    };
    of(before) != of(after)
}

/// Removes what servers of other versions made for flow control, and keep no more.
fn superfluous(caches: &Caches) -> Vec<Change> {
    let mut all = Vec::new();
    for plural in flow_control::PLURALS {
        let row = schema::resource::get(flow_control::GROUP, "v1", plural);
        let storage = row.and_then(|row| row.storage.as_ref());
        let Some(cacher) = storage.and_then(|storage| caches.get(&storage.prefix)) else { continue };
        let (state, _) = cacher.now();
        for entry in state.range(&Scope::All, None) {
            // What cannot be read is left alone.
            let Ok(object) = cacher.decode(entry) else { continue };
            if !flow_control::is_superfluous(plural, &object) {
                continue;
            }
            let full = format!("{}{}", cacher.layout.prefix, entry.key());
            let target = Target::ModRevision(entry.revision().cast_signed());
            let compare = Compare { key: full.clone().into(), relation: Relation::Equal, target };
            all.push(Change { compare, op: Op::Delete { keys: KeyRange::key(full) } });
        }
    }
    all
}

/// One write, and what must hold for it.
struct Change {
    compare: Compare,
    op: Op,
}

fn plan(caches: &Caches, wanted: &Wanted, now: &str) -> Result<Option<Change>, BootstrapError> {
    let row = wanted.row()?;
    let missing = || BootstrapError::NotServed(row.group_resource());
    let cacher: Arc<Cacher> = row.storage.as_ref().and_then(|s| caches.get(&s.prefix)).ok_or_else(missing)?;
    let text = |key| wanted.object.str_at(&["metadata", key]);
    let key = Cacher::key(text("namespace"), text("name"));
    // One that is there and cannot be read is left alone: it is told in the log, and no other may take its place.
    let Ok(entry) = cacher.get(&key) else { return Ok(None) };
    if entry.is_some() && matches!(wanted.keep, Keep::Absent) {
        return Ok(None);
    }
    let existing = entry.as_ref().and_then(|entry| cacher.decode(entry).ok());
    let full = format!("{}{key}", cacher.layout.prefix);
    let revision = entry.map_or(0, |entry| entry.revision().cast_signed());
    let op = match step(wanted, existing.as_ref()) {
        Step::Nothing => return Ok(None),
        Step::Replace(_) => Op::Delete { keys: KeyRange::key(full.clone()) },
        Step::Put(object) => {
            let value = finish(row, object, wanted.given, existing.as_ref(), now).stored(&row.api_version(), &row.kind);
            Op::Put { key: full.clone().into(), value, lease: 0 }
        }
    };
    let compare = Compare { key: full.into(), relation: Relation::Equal, target: Target::ModRevision(revision) };
    Ok(Some(Change { compare, op }))
}

/// Gives an object what every stored one has.
fn finish(row: &Resource, mut object: Map, given: &[&str], existing: Option<&Map>, now: &str) -> Encoded {
    if existing.is_none() {
        object.set_at(&["metadata", "uid"], uuid::Uuid::new_v4().to_string());
        object.set_at(&["metadata", "creationTimestamp"], now);
    }
    let ty = row.schema.root();
    schema::defaults::apply(ty, &mut object);
    let api_version = row.api_version();
    let manager = Manager { name: MANAGER, api_version: &api_version, subresource: "", now, versions: &OneShape };
    let mut reset = crate::registry::managed::reset_fields(row, "");
    for field in given {
        reset.below(Element::Field((*field).into())).insert_here();
    }
    schema::apply::track(ty, existing, &mut object, &manager, &reset);
    Encoded::new(&object)
}

#[cfg(test)]
mod tests;
