//! Delete: at once, after a grace period, or when the last finalizer is gone.

use super::attempt::{Attempt, stored};
use super::commit::{Act, Committed};
use super::create::{Written, normalise, written};
use super::read::Listed;
use super::{Registry, Served, Side, check_segments, meta};
use crate::admission::Operation;
use crate::cache::hooks::{self, Mutant};
use crate::cache::{Cacher, Entry, Filter};
use crate::context::Context;
use crate::options::{DeleteOptions, ListOptions, Options, Propagation};
use crate::strategy::{GarbageCollection, Strategy};
use api::{GroupKind, GroupResource, Reason, Status};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use schema::{Encoded, Map, Value};
use std::sync::Arc;

/// How many objects of a collection are deleted at once.
const DELETES: usize = 16;

/// What became of an object that was to be deleted.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// As it was last.
    pub object: Written,
    /// It is gone; otherwise something holds it, or it has time left.
    pub gone: bool,
}

/// What a delete does.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Nothing: it is being deleted already.
    Keep,
    Update(Map),
    /// It is written first that its time is up, which watchers are told, and then it is removed.
    UpdateAndRemove(Map),
    Remove,
}

impl Registry {
    /// Deletes an object, or begins to.
    ///
    /// # Errors
    /// 404 when there is none, 409 when a precondition does not hold, what admission or the store refuse.
    pub async fn delete(
        &self,
        cx: &Context,
        served: &Arc<Served>,
        namespace: &str,
        name: &str,
        options: &Options,
    ) -> Result<Deleted, Status> {
        let cacher = served.storage("delete")?;
        check_segments(namespace, name)?;
        let key = Cacher::key(namespace, name);
        let attempt = |current, again| self.try_delete(cx, served, cacher, &key, current, (options, again));
        self.attempts(served, cacher, &key, attempt).await
    }

    /// Deletes what a list finds, many at a time; tells the list, and of each object what it was then: also of those that
    /// somebody else was quicker to delete.
    ///
    /// # Errors
    /// Those of the list, and of the first delete that is refused: others may be done by then.
    pub async fn delete_collection(
        &self,
        cx: &Context,
        served: &Arc<Served>,
        filter: &Filter,
        list: &ListOptions,
        options: &Options,
    ) -> Result<Listed, Status> {
        let listed = match hooks::is(Mutant::CollectionOfStaleList) {
            true => self.list(served, filter, &ListOptions { version: Some(0), ..list.clone() }).await?,
            false => self.list(served, filter, list).await?,
        };
        let forgetful = Options { dry_run: false, ..options.clone() };
        let options = if hooks::is(Mutant::CollectionForgetsDryRun) { &forgetful } else { options };
        // Boxed one by one: a stream of borrowing futures is not known to be Send otherwise.
        let deletes: Vec<BoxFuture<'_, Result<(), Status>>> = listed
            .entries
            .iter()
            .map(|entry| -> BoxFuture<'_, _> {
                Box::pin(async move {
                    match self.delete(cx, served, entry.namespace(), entry.name(), options).await {
                        Err(status) if status.reason != Reason::NotFound => Err(status),
                        _ => Ok(()),
                    }
                })
            })
            .collect();
        stream::iter(deletes).buffered(DELETES).try_collect::<()>().await?;
        Ok(listed)
    }

    /// One try; the options with whether it is not the first.
    async fn try_delete(
        &self,
        cx: &Context,
        served: &Arc<Served>,
        cacher: &Arc<Cacher>,
        key: &str,
        current: Option<Arc<Entry>>,
        (options, again): (&Options, bool),
    ) -> Result<Attempt<Deleted>, Status> {
        let resource = served.group_resource();
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let Some(entry) = current else {
            return Err(Status::not_found(&resource, name));
        };
        let old = stored(served, cacher, &entry)?;
        if !(again && hooks::is(Mutant::PreconditionsLookedAtOnce)) {
            check_preconditions(served, &options.delete, &entry, name)?;
        }
        let mut nothing = Map::new();
        let (operation, old) = (Operation::Delete, &old);
        self.admit(cx, served, operation, "", namespace, name, &mut nothing, Some(old), options).await?;
        self.validate(cx, served, operation, "", namespace, name, &mut nothing, Some(old), options).await?;
        let (mut object, goes) = match plan(cx, served.strategy.as_ref(), old, options.delete.clone()) {
            Plan::Keep => {
                return Ok(Attempt::Unchanged(deleted(served, old.clone(), Some(entry.revision()), false)));
            }
            Plan::Remove if options.dry_run => {
                return Ok(Attempt::Unchanged(deleted(served, old.clone(), Some(entry.revision()), true)));
            }
            Plan::Remove => {
                let removed = self.remove(cx, served, cacher, key, old, entry.revision()).await?;
                return self.attempted(cacher, key, removed, |at| deleted(served, old.clone(), Some(at), true));
            }
            Plan::Update(object) => (object, false),
            Plan::UpdateAndRemove(object) => (object, true),
        };
        normalise(cacher, &mut object, Some(old))?;
        let (encoded, known) = cacher.encode(&object, Some(&entry));
        if options.dry_run || !goes && encoded.is(entry.revision(), entry.item()) {
            return Ok(Attempt::Unchanged(deleted(served, object, Some(entry.revision()), goes)));
        }
        let value = encoded.stored(&cacher.layout.api_version, &cacher.layout.kind);
        let act = Act::Put { value, lease: self.lease(served).await?, known };
        if !goes {
            let updated = self.commit(cacher, key, entry.revision(), act, Side::default()).await?;
            return self.attempted(cacher, key, updated, |at| deleted(served, object, Some(at), false));
        }
        // Nobody waits for this one to be found: the next is to be.
        let (marked, _noted) = self.transact(cacher, key, entry.revision(), act, Side::default()).await?;
        let Committed::Done(revision) = marked else {
            return self.attempted(cacher, key, marked, |at| deleted(served, object, Some(at), false));
        };
        let removed = self.remove(cx, served, cacher, key, &object, revision).await?;
        match self.attempted(cacher, key, removed, |at| at)? {
            Attempt::Done(at) => Ok(Attempt::Done(deleted(served, object, Some(at), true))),
            // Somebody else was quicker to remove what was to be removed.
            Attempt::Again(now) if now.as_ref().is_none_or(|now| now.uid() != entry.uid()) => {
                self.shown(revision).await;
                Ok(Attempt::Done(deleted(served, object, Some(revision), true)))
            }
            Attempt::Again(now) => Ok(Attempt::Again(now)),
            Attempt::SideChanged | Attempt::Unchanged(_) => Ok(Attempt::SideChanged),
        }
    }

    /// What goes along with the removal of an object: it gives back what it holds elsewhere.
    pub(super) async fn release(&self, cx: &Context, served: &Arc<Served>, last: &Map) -> Result<Side, Status> {
        match &served.allocator {
            Some(allocator) => allocator.release(cx, served, last).await,
            None => Ok(Side::default()),
        }
    }

    /// Removes an object, as it was seen last under this revision.
    async fn remove(
        &self,
        cx: &Context,
        served: &Arc<Served>,
        cacher: &Arc<Cacher>,
        key: &str,
        last: &Map,
        revision: u64,
    ) -> Result<Committed, Status> {
        let side = self.release(cx, served, last).await?;
        self.commit(cacher, key, revision, Act::Delete, side).await
    }
}

/// What is answered of an object, as it was last.
fn deleted(served: &Served, object: Map, revision: Option<u64>, gone: bool) -> Deleted {
    let encoded = Encoded::new(&object);
    Deleted { object: written(served, object, revision, &encoded, false), gone }
}

fn check_preconditions(served: &Served, options: &DeleteOptions, entry: &Entry, name: &str) -> Result<(), Status> {
    let revision = entry.revision().to_string();
    for (what, wanted, actual, perhaps) in [
        ("UID", &options.uid, entry.uid(), "deleted and then recreated"),
        ("ResourceVersion", &options.resource_version, revision.as_str(), "modified"),
    ] {
        if let Some(wanted) = wanted
            && wanted != actual
        {
            return Err(other_is_meant(&served.group_kind(), name, what, wanted, actual, perhaps));
        }
    }
    Ok(())
}

/// 409 for a delete that means another object. Upstream names the kind where others name the resource.
pub(crate) fn other_is_meant(
    kind: &GroupKind,
    name: &str,
    what: &str,
    wanted: &str,
    actual: &str,
    perhaps: &str,
) -> Status {
    let why = format!(
        "the {what} in the precondition ({wanted}) does not match the {what} in record ({actual}). The object might have been {perhaps}"
    );
    Status::conflict(&GroupResource::new(kind.group.clone(), kind.kind.clone()), name, why)
}

/// What a delete with these options does to an object.
fn plan(cx: &Context, strategy: &dyn Strategy, old: &Map, mut options: DeleteOptions) -> Plan {
    let mut object = old.clone();
    without_negative_grace(&mut object, &mut options);
    let graceful = match begin_grace(cx, strategy, &mut object, &mut options) {
        Grace::Pending => return Plan::Keep,
        Grace::Begun => true,
        Grace::None => false,
    };
    set_dependents_finalizers(strategy, &mut object, &options);
    let held = !meta::finalizers(&object).is_empty() || strategy.holds_deletion(&object);
    if graceful {
        let stays = held || options.grace_period_seconds.unwrap_or(0) > 0;
        return match stays {
            true => Plan::Update(object),
            false if hooks::is(Mutant::EndUntold) => Plan::Remove,
            false => Plan::UpdateAndRemove(object),
        };
    }
    if !held {
        return Plan::Remove;
    }
    mark(cx, &mut object);
    strategy.begin_deletion(cx, &mut object);
    Plan::Update(object)
}

/// A negative grace period is one second, whether it is asked for or was begun with.
fn without_negative_grace(object: &mut Map, options: &mut DeleteOptions) {
    options.grace_period_seconds = options.grace_period_seconds.map(|period| if period < 0 { 1 } else { period });
    let running = ["metadata", "deletionGracePeriodSeconds"];
    if object.at(&running).and_then(Value::as_i64).is_some_and(|period| period < 0) {
        object.set_at(&running, 1_i64);
    }
}

enum Grace {
    /// The kind has none, or it is over.
    None,
    Begun,
    /// It runs already.
    Pending,
}

/// The object is given, or keeps, the time until it is removed.
fn begin_grace(cx: &Context, strategy: &dyn Strategy, object: &mut Map, options: &mut DeleteOptions) -> Grace {
    if meta::is_deleting(object) {
        // When its time is up, only finalizers are left to be changed.
        let running = object.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
        let Some(running) = running.filter(|period| *period != 0) else { return Grace::None };
        if !strategy.check_graceful_delete(object, &mut options.clone()) {
            return Grace::None;
        }
        let Some(period) = options.grace_period_seconds else {
            options.grace_period_seconds = Some(running);
            return Grace::Pending;
        };
        // Only a shorter one can be asked for.
        if period >= running {
            return Grace::Pending;
        }
        let end: Option<Timestamp> = object.str_at(&["metadata", "deletionTimestamp"]).parse().ok();
        let end = end.unwrap_or(cx.now) - SignedDuration::from_secs(running) + SignedDuration::from_secs(period);
        set_deletion(object, end, period);
        return Grace::Begun;
    }
    if !strategy.check_graceful_delete(object, options) {
        return Grace::None;
    }
    let period = options.grace_period_seconds.unwrap_or(0);
    set_deletion(object, cx.now + SignedDuration::from_secs(period), period);
    count(object);
    Grace::Begun
}

fn set_deletion(object: &mut Map, at: Timestamp, period: i64) {
    let metadata = meta::of(object);
    metadata.insert("deletionTimestamp", meta::time(at));
    metadata.insert("deletionGracePeriodSeconds", period);
}

/// The beginning of a deletion is a change that controllers notice.
fn count(object: &mut Map) {
    if let Some(generation) = object.at(&["metadata", "generation"]).and_then(Value::as_i64).filter(|g| *g > 0) {
        object.set_at(&["metadata", "generation"], generation + 1);
    }
}

/// The object is to go as soon as nothing holds it.
fn mark(cx: &Context, object: &mut Map) {
    if !meta::is_deleting(object) {
        count(object);
    }
    let end: Option<Timestamp> = object.str_at(&["metadata", "deletionTimestamp"]).parse().ok();
    let metadata = meta::of(object);
    if end.is_none_or(|end| end > cx.now) {
        metadata.insert("deletionTimestamp", meta::time(cx.now));
    }
    metadata.insert("deletionGracePeriodSeconds", 0_i64);
}

/// Puts the finalizers in place that have the garbage collector orphan, or delete first, what depends on the object.
fn set_dependents_finalizers(strategy: &dyn Strategy, object: &mut Map, options: &DeleteOptions) {
    let present: Vec<&str> = meta::finalizers(object).iter().filter_map(Value::as_str).collect();
    let policy = strategy.rules().garbage_collection;
    let (orphan, foreground) = if policy == GarbageCollection::Unsupported {
        (false, false)
    } else if let Some(orphan) = options.orphan_dependents {
        (orphan, false)
    } else if let Some(propagation) = options.propagation {
        (propagation == Propagation::Orphan, propagation == Propagation::Foreground)
    } else if present.contains(&meta::ORPHAN) {
        (true, false)
    } else if present.contains(&meta::FOREGROUND) {
        (false, true)
    } else {
        (policy == GarbageCollection::Orphan, false)
    };
    if present.contains(&meta::ORPHAN) == orphan && present.contains(&meta::FOREGROUND) == foreground {
        return;
    }
    let mut finalizers: Vec<Value> =
        present.iter().filter(|f| **f != meta::ORPHAN && **f != meta::FOREGROUND).map(|f| Value::from(*f)).collect();
    for (wanted, name) in [(orphan, meta::ORPHAN), (foreground, meta::FOREGROUND)] {
        if wanted {
            finalizers.push(name.into());
        }
    }
    if finalizers.is_empty() {
        object.remove_at(&["metadata", "finalizers"]);
    } else {
        object.set_at(&["metadata", "finalizers"], finalizers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::{Pods, Rules, Standard};
    use api::features::Gates;

    fn pods() -> Pods {
        Pods::new(Rules::STANDARD, &Gates::default())
    }

    fn object(json: &str) -> Map {
        match schema::json::parse(json.as_bytes()).expect("JSON") {
            Value::Map(map) => map,
            _ => panic!("an object"),
        }
    }

    fn planned(strategy: &dyn Strategy, json: &str, options: DeleteOptions) -> Plan {
        plan(&Context::internal(), strategy, &object(json), options)
    }

    #[test]
    fn what_nothing_holds_goes_at_once() {
        assert_eq!(
            planned(&Standard(Rules::STANDARD), r#"{"metadata":{"name":"a"}}"#, DeleteOptions::default()),
            Plan::Remove
        );
    }

    #[test]
    fn finalizers_hold() {
        let Plan::Update(held) = planned(
            &Standard(Rules::STANDARD),
            r#"{"metadata":{"finalizers":["a/b"],"generation":2}}"#,
            DeleteOptions::default(),
        ) else {
            panic!("it is held")
        };
        assert!(meta::is_deleting(&held));
        assert_eq!(held.at(&["metadata", "deletionGracePeriodSeconds"]), Some(&Value::Int(0)));
        assert_eq!(held.at(&["metadata", "generation"]), Some(&Value::Int(3)));
    }

    #[test]
    fn propagation_becomes_a_finalizer() {
        for (propagation, name) in [(Propagation::Orphan, "orphan"), (Propagation::Foreground, "foregroundDeletion")] {
            let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
            let Plan::Update(held) = planned(&Standard(Rules::STANDARD), r#"{"metadata":{}}"#, options) else {
                panic!("it is held")
            };
            assert_eq!(meta::finalizers(&held), [Value::from(name)]);
        }
        let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        assert_eq!(
            planned(&Standard(Rules::STANDARD), r#"{"metadata":{"finalizers":["orphan"]}}"#, options),
            Plan::Remove
        );
    }

    #[test]
    fn pods_have_grace_once_they_have_a_node() {
        let running = r#"{"metadata":{},"spec":{"nodeName":"n","terminationGracePeriodSeconds":30}}"#;
        let Plan::Update(dying) = planned(&pods(), running, DeleteOptions::default()) else { panic!("it has grace") };
        assert_eq!(dying.at(&["metadata", "deletionGracePeriodSeconds"]), Some(&Value::Int(30)));
        let json = schema::json::to_string(&dying);
        assert_eq!(planned(&pods(), &json, DeleteOptions::default()), Plan::Keep);
        let shorter = |seconds| DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() };
        assert_eq!(planned(&pods(), &json, shorter(60)), Plan::Keep);
        assert!(matches!(planned(&pods(), &json, shorter(5)), Plan::Update(_)));
        let nowhere = r#"{"metadata":{"generation":1},"spec":{}}"#;
        for (pod, options) in [(json.as_str(), shorter(0)), (nowhere, DeleteOptions::default()), (running, shorter(0))]
        {
            let Plan::UpdateAndRemove(gone) = planned(&pods(), pod, options) else { panic!("{pod} goes at once") };
            assert_eq!(gone.at(&["metadata", "deletionGracePeriodSeconds"]), Some(&Value::Int(0)));
            assert_eq!(planned(&pods(), &schema::json::to_string(&gone), shorter(9)), Plan::Remove, "as it is");
        }
    }

    #[test]
    fn a_pod_whose_time_is_up_is_held_by_what_the_last_delete_says() {
        let held = |finalizers: &str| {
            format!(
                r#"{{"metadata":{{"deletionTimestamp":"2020-01-01T00:00:00Z","deletionGracePeriodSeconds":0,"finalizers":{finalizers}}}}}"#
            )
        };
        let with = |propagation| DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        let Plan::Update(pod) = planned(&pods(), &held(r#"["a/b"]"#), with(Propagation::Foreground)) else {
            panic!("it is held")
        };
        assert_eq!(meta::finalizers(&pod), [Value::from("a/b"), Value::from("foregroundDeletion")]);
        assert_eq!(planned(&pods(), &held(r#"["orphan"]"#), with(Propagation::Background)), Plan::Remove);
    }
}
