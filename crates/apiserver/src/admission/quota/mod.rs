//! ResourceQuota: no namespace uses more than its quotas say.
//!
//! What is used stands in the status of each quota. A write reserves there what it will use, by compare-and-put, before it
//! happens; so several writers, and several servers on one store, never exceed a quota together. A reservation whose write
//! fails afterwards, and what a deletion frees, is found by counting: the controller does so, and this plugin does before it
//! refuses anybody. Reservations of this server whose objects are not stored yet are added to what is counted.

pub(crate) mod amounts;
pub mod limited;

use super::{Admission, Attributes, Operation};
use crate::lookup::{Lookup, RESOURCE_QUOTAS, Stored};
use amounts::{Amounts, Node, amounts as list};
use api::quota::{scope, usage};
use api::{Quantity, Reason, Status};
use async_trait::async_trait;
use limited::Limited;
use schema::{Map, Value};
use std::collections::HashMap;
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
    /// What the write adds, of what the quota bounds.
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

    /// The quotas that have to do with a write, with what it adds to each.
    fn bounds(&self, a: &Attributes<'_>, quotas: Vec<Arc<Map>>) -> Result<Vec<Bound>, Status> {
        let (group, plural) = (a.resource.group.as_ref(), a.resource.plural.as_ref());
        let is_pod = group.is_empty() && plural == "pods";
        let adds = added(a);
        let mut bounds = Vec::new();
        for quota in quotas {
            let hard = list(&quota, &["spec", "hard"]);
            if !scope::holds(Node::Object(&quota), group, plural, Node::Object(a.object))
                || !adds.keys().any(|name| hard.contains_key(name))
            {
                continue;
            }
            if is_pod && a.operation == Operation::Create {
                usage::check_said(Node::Object(a.object), &hard).map_err(|why| {
                    a.forbidden(format!("failed quota: {}: {why}", quota.str_at(&["metadata", "name"])))
                })?;
            }
            let adds = adds.iter().filter(|(name, _)| hard.contains_key(*name)).map(|(n, v)| (n.clone(), *v)).collect();
            bounds.push(Bound { quota, hard, adds });
        }
        Ok(bounds)
    }

    /// Refuses what needs a quota and has none.
    fn covered(&self, a: &Attributes<'_>, quotas: &[Arc<Map>]) -> Result<(), Status> {
        let of = (a.resource.group.as_ref(), a.resource.plural.as_ref());
        if !self.limited.iter().any(|limited| (limited.group.as_str(), limited.plural.as_str()) == of) {
            return Ok(());
        }
        if added(a).is_empty() {
            return Ok(());
        }
        // All that the object uses, not only what the write adds.
        let used = usage::of(of.0, of.1, Node::Object(a.object));
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

    /// What is used of what a quota bounds, counted from the objects and from what is about to become one.
    ///
    /// # Errors
    /// One of the objects cannot be read.
    fn count(&self, namespace: &str, quota: &Map, hard: &Amounts) -> Result<Amounts, Status> {
        let mut used: Amounts = hard.keys().map(|name| (name.clone(), Quantity::ZERO)).collect();
        let mut pending = self.pending_of(namespace, quota.str_at(&["metadata", "name"]));
        for row in schema::resource::all().iter().filter(|r| r.namespaced && r.storage.is_some()) {
            let (group, plural) = (row.group.as_ref(), row.plural.as_ref());
            let weighs = usage::weighs_updates(group, plural);
            if !weighs && !hard.contains_key(plural) && !hard.contains_key(&usage::count_name(group, plural)) {
                continue;
            }
            for object in self.objects.list(Stored { group, plural }, Some(namespace))? {
                let name = object.str_at(&["metadata", "name"]);
                pending.retain(|(g, p, n, _)| g != group || p != plural || n != name);
                if scope::holds(Node::Object(quota), group, plural, Node::Object(&object)) {
                    let mut more = usage::of(group, plural, Node::Object(&object));
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
    async fn reserve(&self, a: &Attributes<'_>, bound: &Bound) -> Result<(), Status> {
        let name = bound.quota.str_at(&["metadata", "name"]);
        let mut quota = bound.quota.clone();
        for _ in 0..TRIES {
            let known = list(&quota, &["status", "hard"]);
            let mut used = list(&quota, &["status", "used"]);
            let complete = bound.hard.keys().all(|n| known.contains_key(n) && used.contains_key(n));
            if !complete || !exceeded(bound, &used).is_empty() {
                used = self.count(a.namespace, &quota, &bound.hard)?;
            }
            let over = exceeded(bound, &used);
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
            let mut reserved = (*quota).clone();
            reserved.set_at(&["status", "hard"], to_value(&bound.hard));
            reserved.set_at(&["status", "used"], to_value(&used));
            match self.writer.write_status(&reserved).await {
                Ok(()) => {
                    self.note_pending(a, name, &bound.adds);
                    return Ok(());
                }
                Err(conflict) if conflict.reason == Reason::Conflict => {}
                // A quota that was deleted meanwhile bounds nothing.
                Err(gone) if gone.reason == Reason::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
            match self.objects.fresh(RESOURCE_QUOTAS, a.namespace, name).await? {
                Some(fresh) => quota = fresh,
                None => return Ok(()),
            }
        }
        Err(Status::modified(&api::GroupResource::new("", "resourcequotas"), name))
    }
}

/// What a write adds to what is used.
fn added(a: &Attributes<'_>) -> Amounts {
    let (group, plural) = (a.resource.group.as_ref(), a.resource.plural.as_ref());
    let mut adds = usage::of(group, plural, Node::Object(a.object));
    if let Some(old) = a.old {
        let before = usage::of(group, plural, Node::Object(old));
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
        if a.operation == Operation::Update && !usage::weighs_updates(group, plural) {
            return Ok(());
        }
        let quotas = self.objects.list(RESOURCE_QUOTAS, Some(a.namespace))?;
        self.covered(a, &quotas)?;
        if quotas.is_empty() || self.bounds(a, quotas)?.is_empty() {
            return Ok(());
        }
        let turn = self.turn(a.namespace);
        let _held = turn.lock().await;
        // Read again: whoever had the turn before has changed them.
        let mut fresh = Vec::new();
        for quota in self.objects.list(RESOURCE_QUOTAS, Some(a.namespace))? {
            fresh.extend(self.objects.fresh(RESOURCE_QUOTAS, a.namespace, quota.str_at(&["metadata", "name"])).await?);
        }
        for bound in self.bounds(a, fresh)? {
            self.reserve(a, &bound).await?;
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
