//! ResourceQuota: no namespace uses more than its quotas say.
//!
//! What is used stands in the status of each quota. A write reserves there what it will use, by compare-and-put, before it
//! happens; so several writers, and several servers on one store, never exceed a quota together. A reservation whose write
//! fails afterwards, and what a deletion frees, is found by counting: the controller does so, and this plugin does before it
//! refuses anybody. Reservations of this server whose objects are not stored yet are added to what is counted.

pub(crate) mod amounts;
pub mod limited;

use super::{Admission, Attributes, Operation, Sides};
use crate::lookup::{Lookup, RESOURCE_QUOTAS, Stored};
use amounts::{Amounts, Node, amounts as list};
use api::quota::{scope, usage};
use api::{Quantity, Reason, Status};
use async_trait::async_trait;
use jiff::Timestamp;
use limited::Limited;
use schema::{Map, Value};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Writes the status of a quota.
#[async_trait]
pub trait QuotaWriter: Send + Sync + 'static {
    /// Stores the status of `quota`, whose resourceVersion is that of the stored object.
    ///
    /// # Errors
    /// 409 when the stored object is another by now; 404 when it is gone.
    async fn write_status(&self, quota: &Map) -> Result<(), Status>;
}

/// How often a reservation is tried against other servers.
const TRIES: usize = 16;
/// How long a write may take between its reservation and its object being seen; afterwards it has failed.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// A reservation whose object may not be stored yet.
struct Pending {
    quota: String,
    group: String,
    plural: String,
    /// Empty for an update: its object is there already, as it was.
    name: String,
    adds: Amounts,
    at: Instant,
}

/// One of the quotas that a write must keep to.
struct Bound {
    quota: Arc<Map>,
    hard: Amounts,
    /// What the write adds.
    delta: Amounts,
    /// What it adds of what the quota bounds.
    adds: Amounts,
}

pub struct ResourceQuota {
    objects: Arc<dyn Lookup>,
    writer: Arc<dyn QuotaWriter>,
    /// What may be used only where a quota covers it.
    limited: Vec<Limited>,
    /// Writers of one namespace go one by one, so that they do not fail each other's compare.
    turns: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// By namespace.
    pending: Mutex<HashMap<String, Vec<Pending>>>,
}

impl ResourceQuota {
    pub fn new(objects: Arc<dyn Lookup>, writer: Arc<dyn QuotaWriter>, limited: Vec<Limited>) -> Self {
        ResourceQuota { objects, writer, limited, turns: Mutex::default(), pending: Mutex::default() }
    }

    fn turn(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(namespace).and_then(Weak::upgrade) {
            return turn;
        }
        // Only now and then, so that a write does not look at all namespaces.
        if turns.len() >= turns.capacity() {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        turns.insert(namespace.to_owned(), Arc::downgrade(&turn));
        turn
    }

    /// The quotas that have to do with a write, with what it adds to each; none where the write changes nothing that counts.
    ///
    /// # Errors
    /// A quota that wants more said, whose use is not known, or that is missing where something needs one.
    fn bounds(&self, a: &Attributes<'_>, quotas: &[Arc<Map>]) -> Result<Vec<Bound>, Status> {
        let mut bounds = Vec::new();
        let mut matched = false;
        for quota in quotas {
            let Some(bound) = bound(a, quota)? else { continue };
            matched = true;
            if !bound.delta.is_empty() {
                bounds.push(bound);
            }
        }
        let changes = if matched { !bounds.is_empty() } else { !added(a, None).is_empty() };
        if !changes {
            return Ok(Vec::new());
        }
        self.covered(a, quotas)?;
        bounds.retain(|bound| !bound.adds.is_empty());
        Ok(bounds)
    }

    /// Refuses what needs a quota and has none.
    fn covered(&self, a: &Attributes<'_>, quotas: &[Arc<Map>]) -> Result<(), Status> {
        if self.limited.is_empty() {
            return Ok(());
        }
        let of = (a.resource.group.as_ref(), a.resource.plural.as_ref());
        // All that the object uses, not only what the write adds.
        let used = usage::of(of.0, of.1, Node::Object(a.object), a.cx.now);
        let uncovered = limited::uncovered(&self.limited, of, a.object, &used, quotas);
        if !uncovered.amounts.is_empty() {
            return Err(a.forbidden(format!("insufficient quota to consume: {}", uncovered.amounts.join(","))));
        }
        if !uncovered.scopes.is_empty() {
            let scopes = uncovered.scopes.join(" ");
            let why = format!("insufficient quota to match these scopes: [{scopes}]");
            return Err(Status::new(500, Reason::Unknown, why));
        }
        Ok(())
    }

    /// What is used, at a moment, of what a quota bounds, counted from the objects and from what is about to become one.
    ///
    /// # Errors
    /// One of the objects cannot be read.
    fn count(&self, namespace: &str, quota: &Map, hard: &Amounts, now: Timestamp) -> Result<Amounts, Status> {
        let mut used: Amounts = hard.keys().map(|name| (name.clone(), Quantity::ZERO)).collect();
        let mut pending = self.pending_of(namespace, quota.str_at(&["metadata", "name"]));
        let rows = schema::resource::all().iter().chain(schema::resource::optional());
        let stored = rows.filter(|r| r.namespaced && r.storage.is_some());
        // Each once, in however many versions it is served.
        let stored: BTreeSet<(&str, &str)> = stored.map(|r| (r.group.as_ref(), r.plural.as_ref())).collect();
        for (group, plural) in stored {
            let weighs = usage::weighs_updates(group, plural);
            if !weighs && !hard.contains_key(plural) && !hard.contains_key(&usage::count_name(group, plural)) {
                continue;
            }
            for object in self.objects.list(Stored { group, plural }, Some(namespace))? {
                let name = object.str_at(&["metadata", "name"]);
                pending.retain(|(g, p, n, _)| g != group || p != plural || n != name);
                if scope::holds(Node::Object(quota), group, plural, Node::Object(&object)) {
                    let mut more = usage::of(group, plural, Node::Object(&object), now);
                    more.retain(|name, _| hard.contains_key(name));
                    amounts::add(&mut used, &more);
                }
            }
        }
        for (.., mut adds) in pending {
            adds.retain(|name, _| hard.contains_key(name));
            amounts::add(&mut used, &adds);
        }
        Ok(used)
    }

    /// The reservations of a quota that may still be on their way: group, plural, name, amounts.
    fn pending_of(&self, namespace: &str, quota: &str) -> Vec<(String, String, String, Amounts)> {
        let mut all = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(list) = all.get_mut(namespace) else { return Vec::new() };
        list.retain(|p| p.at.elapsed() < IN_FLIGHT);
        let of_quota = list.iter().filter(|p| p.quota == quota);
        of_quota.map(|p| (p.group.clone(), p.plural.clone(), p.name.clone(), p.adds.clone())).collect()
    }

    fn note_pending(&self, a: &Attributes<'_>, quota: &str, adds: &Amounts) {
        let created = a.operation == Operation::Create;
        let pending = Pending {
            quota: quota.to_owned(),
            group: a.resource.group.to_string(),
            plural: a.resource.plural.to_string(),
            name: if created { a.object.str_at(&["metadata", "name"]).to_owned() } else { String::new() },
            adds: adds.clone(),
            at: Instant::now(),
        };
        let mut all = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        // Only now and then, so that a write does not look at all namespaces.
        if all.len() >= all.capacity() {
            all.retain(|_, list| list.iter().any(|p| p.at.elapsed() < IN_FLIGHT));
        }
        let list = all.entry(a.namespace.to_owned()).or_default();
        list.retain(|p| p.at.elapsed() < IN_FLIGHT);
        list.push(pending);
    }

    /// Reserves in one quota; the refusal when there is no room.
    async fn reserve(&self, a: &Attributes<'_>, first: Bound) -> Result<(), Status> {
        let name = first.quota.str_at(&["metadata", "name"]).to_owned();
        let mut bound = first;
        for _ in 0..TRIES {
            let quota = &bound.quota;
            let mut used = list(quota, &["status", "used"]);
            let complete = is_counted(quota) && bound.hard.keys().all(|n| used.contains_key(n));
            if !complete || !exceeded(&bound, &used).is_empty() {
                used = self.count(a.namespace, quota, &bound.hard, a.cx.now)?;
            }
            let over = exceeded(&bound, &used);
            if !over.is_empty() {
                let only = |all: &Amounts| {
                    amounts::shown(
                        &all.iter().filter(|(n, _)| over.contains(n)).map(|(n, v)| (n.clone(), *v)).collect(),
                    )
                };
                return Err(a.forbidden(format!(
                    "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                    only(&bound.adds),
                    only(&used),
                    only(&bound.hard)
                )));
            }
            if a.dry_run {
                return Ok(());
            }
            amounts::add(&mut used, &bound.adds);
            let mut reserved = (**quota).clone();
            reserved.set_at(&["status", "hard"], to_value(&bound.hard));
            reserved.set_at(&["status", "used"], to_value(&used));
            match self.writer.write_status(&reserved).await {
                Ok(()) => {
                    self.note_pending(a, &name, &bound.adds);
                    return Ok(());
                }
                Err(conflict) if conflict.reason == Reason::Conflict => {}
                // A quota that was deleted meanwhile bounds nothing.
                Err(gone) if gone.reason == Reason::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
            let Some(fresh) = self.objects.fresh(RESOURCE_QUOTAS, a.namespace, &name).await? else { return Ok(()) };
            // It may bound something else by now.
            match self::bound(a, &fresh)?.filter(|bound| !bound.adds.is_empty()) {
                Some(now) => bound = now,
                None => return Ok(()),
            }
        }
        Err(Status::modified(&api::GroupResource::new("", "resourcequotas"), &name))
    }
}

/// Whether somebody has counted what is used of a quota: what its status bounds is what counts from then on.
fn is_counted(quota: &Map) -> bool {
    quota.at(&["status", "hard"]).and_then(Value::as_map).is_some_and(|hard| !hard.is_empty())
}

/// Whether quotas look at a write at all. Of a pod they look at its creation and its size, and at the change that takes it
/// from one scope to another.
fn handles(a: &Attributes<'_>) -> bool {
    let (group, plural) = (a.resource.group.as_ref(), a.resource.plural.as_ref());
    if a.operation != Operation::Update || !a.subresource.is_empty() {
        return true;
    }
    let ends = |pod: &Map| scope::selects("Terminating", "Exists", &[], group, plural, Node::Object(pod));
    match a.old {
        Some(old) if group.is_empty() && plural == "pods" => ends(old) != ends(a.object),
        _ => usage::weighs_updates(group, plural),
    }
}

/// What a quota has to do with a write; nothing, where it is about other objects or bounds nothing of this kind.
///
/// A quota that nobody has counted yet binds by its spec at once. Upstream's does not bind before its controller has been
/// there, which may be at any time.
///
/// # Errors
/// 403 when the object does not say what it must, or when what is used of the quota is not known.
fn bound(a: &Attributes<'_>, quota: &Arc<Map>) -> Result<Option<Bound>, Status> {
    let (group, plural) = (a.resource.group.as_ref(), a.resource.plural.as_ref());
    let counted = is_counted(quota);
    let hard = list(quota, &[if counted { "status" } else { "spec" }, "hard"]);
    let bounded: Vec<&str> =
        hard.keys().map(String::as_str).filter(|name| usage::counted_from(name) == Some((group, plural))).collect();
    if bounded.is_empty() || !scope::holds(Node::Object(quota), group, plural, Node::Object(a.object)) {
        return Ok(None);
    }
    let name = quota.str_at(&["metadata", "name"]);
    if group.is_empty() && plural == "pods" {
        usage::check_said(Node::Object(a.object), &hard)
            .map_err(|why| a.forbidden(format!("failed quota: {name}: {why}")))?;
    }
    let used = list(quota, &["status", "used"]);
    if counted && !bounded.iter().all(|name| used.contains_key(*name)) {
        return Err(a.forbidden(format!("status unknown for quota: {name}, resources: {}", bounded.join(","))));
    }
    let delta = added(a, Some(quota));
    let adds = delta.iter().filter(|(name, _)| hard.contains_key(*name)).map(|(n, v)| (n.clone(), *v)).collect();
    Ok(Some(Bound { quota: quota.clone(), hard, delta, adds }))
}

/// What a write adds to what is used: of a quota that was not about the object before, all of it.
fn added(a: &Attributes<'_>, quota: Option<&Map>) -> Amounts {
    let (group, plural) = (a.resource.group.as_ref(), a.resource.plural.as_ref());
    let mut adds = usage::of(group, plural, Node::Object(a.object), a.cx.now);
    let was_held = |old: &&Map| quota.is_none_or(|q| scope::holds(Node::Object(q), group, plural, Node::Object(old)));
    if let Some(old) = a.old.filter(was_held) {
        let before = usage::of(group, plural, Node::Object(old), a.cx.now);
        for (name, value) in &mut adds {
            if let Some(had) = before.get(name) {
                *value = value.sub(had);
            }
        }
    }
    adds.retain(|_, value| value.signum() > 0);
    adds
}

/// The names of what a reservation would exceed.
fn exceeded(bound: &Bound, used: &Amounts) -> Vec<String> {
    let over = bound.adds.iter().filter(|(name, add)| {
        let held = used.get(*name).copied().unwrap_or(Quantity::ZERO);
        bound.hard.get(*name).is_some_and(|hard| held.add(add) > *hard)
    });
    over.map(|(name, _)| name.clone()).collect()
}

fn to_value(amounts: &Amounts) -> Map {
    amounts.iter().map(|(name, value)| (name.clone().into(), Value::from(value.to_string()))).collect()
}

#[async_trait]
impl Admission for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn sides(&self) -> Sides {
        Sides::Validates
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let (group, plural) = (a.resource.group.as_ref(), a.resource.plural.as_ref());
        let resize = a.is_subresource("", "pods", "resize");
        if a.namespace.is_empty() || !a.subresource.is_empty() && !resize || group.is_empty() && plural == "namespaces"
        {
            return Ok(());
        }
        if !handles(a) {
            return Ok(());
        }
        let quotas = self.objects.list(RESOURCE_QUOTAS, Some(a.namespace))?;
        if quotas.is_empty() && self.limited.is_empty() || self.bounds(a, &quotas)?.is_empty() {
            return Ok(());
        }
        let turn = self.turn(a.namespace);
        let _held = turn.lock().await;
        // Read again: whoever had the turn before has changed them.
        let mut fresh = Vec::new();
        for quota in self.objects.list(RESOURCE_QUOTAS, Some(a.namespace))? {
            fresh.extend(self.objects.fresh(RESOURCE_QUOTAS, a.namespace, quota.str_at(&["metadata", "name"])).await?);
        }
        for bound in self.bounds(a, &fresh)? {
            self.reserve(a, bound).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;
    use crate::lookup::PODS;
    use crate::options::Options;
    use crate::test_support::{Held, map};

    async fn create(plugin: &ResourceQuota, name: &str, cpu: &str) -> Result<(), Status> {
        let row = Arc::new(schema::resource::get("", "v1", "pods").expect("a row").clone());
        let mut pod = map(&format!(
            "{{metadata: {{name: {name}, namespace: d}}, spec: {{containers: [{{name: c, resources: {{requests: {{cpu: '{cpu}'}}}}}}]}}}}"
        ));
        let attributes = Attributes {
            operation: Operation::Create,
            resource: &row,
            subresource: "",
            namespace: "d",
            name,
            cx: &Context::internal(),
            dry_run: false,
            object: &mut pod,
            old: None,
            options: &Options::default(),
        };
        plugin.validate(&attributes).await
    }

    fn held(hard: &str) -> Arc<Held> {
        let held = Arc::new(Held::default());
        held.put(
            RESOURCE_QUOTAS,
            map(&format!("{{metadata: {{name: q, namespace: d, resourceVersion: '1'}}, spec: {{hard: {hard}}}}}")),
        );
        held
    }

    #[tokio::test]
    async fn what_exceeds_a_quota_is_refused_in_upstreams_words() {
        let held = held("{pods: '2', requests.cpu: '1'}");
        let plugin = ResourceQuota::new(held.clone(), held.clone(), Vec::new());
        create(&plugin, "a", "600m").await.expect("room");
        held.put(
            PODS,
            map("{metadata: {name: a, namespace: d}, spec: {containers: [{resources: {requests: {cpu: 600m}}}]}}"),
        );
        let refused = create(&plugin, "b", "600m").await.expect_err("no room");
        assert_eq!(
            refused.message,
            "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1"
        );
        create(&plugin, "c", "400m").await.expect("room");
        let silent = held.get(RESOURCE_QUOTAS, "d", "q").expect("readable").expect("the quota");
        assert_eq!(silent.str_at(&["status", "used", "pods"]), "2");
    }

    #[tokio::test]
    async fn racing_writers_never_exceed_it_together() {
        let held = held("{count/pods: '5'}");
        let plugin = Arc::new(ResourceQuota::new(held.clone(), held.clone(), Vec::new()));
        let tasks: Vec<_> = (0..20)
            .map(|i| {
                let (plugin, held) = (plugin.clone(), held.clone());
                tokio::spawn(async move {
                    let name = format!("p{i}");
                    let admitted = create(&plugin, &name, "1m").await.is_ok();
                    if admitted {
                        held.put(PODS, map(&format!("{{metadata: {{name: {name}, namespace: d}}}}")));
                    }
                    admitted
                })
            })
            .collect();
        let mut admitted = 0;
        for task in tasks {
            admitted += usize::from(task.await.expect("no panic"));
        }
        assert_eq!(admitted, 5);
    }

    #[tokio::test]
    async fn what_a_deletion_frees_is_found_before_anybody_is_refused() {
        let held = held("{pods: '1'}");
        let plugin = ResourceQuota::new(held.clone(), held.clone(), Vec::new());
        create(&plugin, "a", "1m").await.expect("room");
        assert!(create(&plugin, "b", "1m").await.is_err(), "the first may still be on its way");
        held.put(PODS, map("{metadata: {name: a, namespace: d}}"));
        assert!(create(&plugin, "b", "1m").await.is_err());
        held.remove(PODS, "d", "a");
        plugin.pending.lock().expect("no panic").clear();
        create(&plugin, "b", "1m").await.expect("counted again");
    }
}
