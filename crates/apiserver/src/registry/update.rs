//! Update, patch and apply, on the object itself or through a subresource.

use super::attempt::{Attempt, stored};
use super::commit::Act;
use super::create::{Written, fill, fit_namespace, normalise, without_repeated_owners, written};
use super::mutation::Mutation;
use super::{Registry, Served, Side, check_segments, managed, meta};
use crate::admission::Operation;
use crate::authz;
use crate::cache::hooks::{self, Mutant};
use crate::cache::{Cacher, Entry};
use crate::context::Context;
use crate::options::Options;
use api::field::{FieldError, Path, Raw};
use api::{GroupResource, Reason, Status};
use schema::{Map, Value, semantic};
use std::sync::Arc;

/// The object of an update.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
}

impl Registry {
    /// Changes the object of a place by a mutation, which is tried again when the object changed meanwhile.
    ///
    /// # Errors
    /// 404 when there is none (and the mutation does not create), 409 for another resourceVersion than the object's, what
    /// the mutation, admission, validation or the store refuse.
    pub async fn update(
        &self,
        cx: &Context,
        served: &Arc<Served>,
        place: Place<'_>,
        mutation: &dyn Mutation,
        options: &Options,
    ) -> Result<Written, Status> {
        let cacher = served.storage("update")?;
        check_segments(place.namespace, place.name)?;
        let key = Cacher::key(place.namespace, place.name);
        let attempt = |current, _| self.attempt(cx, served, cacher, place, &key, current, mutation, options);
        self.attempts(served, cacher, &key, attempt).await
    }

    #[allow(clippy::too_many_arguments, reason = "one step of update, with all that it holds")]
    async fn attempt(
        &self,
        cx: &Context,
        served: &Arc<Served>,
        cacher: &Arc<Cacher>,
        place: Place<'_>,
        key: &str,
        current: Option<Arc<Entry>>,
        mutation: &dyn Mutation,
        options: &Options,
    ) -> Result<Attempt<Written>, Status> {
        let Some(entry) = current else {
            return self.attempt_create(cx, served, place, mutation, options).await;
        };
        check_uid(served, mutation, place, entry.uid())?;
        let row = &served.resource;
        let old = stored(served, cacher, &entry)?;
        let mut shown = None;
        if served.conversion.is_some() {
            let mut converted = old.clone();
            served.from_stored(&mut converted);
            schema::defaults::apply(row.schema.root(), &mut converted);
            shown = Some(converted);
        }
        let live = shown.as_ref().unwrap_or(&old);
        let mut object = mutation.apply(cx, Some(live))?;
        if mutation.is_patch() {
            meta::check_name(&object, place.name, place.namespace)?;
        }
        fit_namespace(&mut object, place.namespace)?;
        without_repeated_owners(cx, &mut object);
        if !mutation.tracks() {
            managed::track(served, cx, Some(live), &mut object, place.subresource, options);
        }
        served.stamp(&mut object);
        served.to_stored(&mut object);
        check_version(served, &object, &entry, place.name)?;
        let (operation, old) = (Operation::Update, &old);
        let Place { namespace, name, subresource } = place;
        if mutation.admits() {
            self.admit(cx, served, operation, subresource, namespace, name, &mut object, Some(old), options).await?;
        }

        meta::keep(&mut object, old);
        served.closed.drop_from(&mut object, Some(old));
        served.strategy.prepare_for_update(cx, row, place.subresource, &mut object, old);
        fill(served, cacher, &mut object, Some(old), Some(old));
        // Quantities that are only written otherwise are stored so, and are no change.
        let before = &*semantic::reworded(cacher.layout.schema.root(), old, &object);
        if row.flags.generation
            && matches!(place.subresource, "" | "scale")
            && served.strategy.changes_generation(&object, before)
        {
            let generation = old.at(&["metadata", "generation"]).and_then(Value::as_i64).unwrap_or(0);
            object.set_at(&["metadata", "generation"], generation + 1);
        }
        let side = match &served.allocator {
            Some(allocator) if place.subresource.is_empty() => {
                allocator.allocate(cx, served, &mut object, Some(old), options.dry_run).await?
            }
            _ => Side::default(),
        };
        let mut errors = meta::validate_update(row, place.subresource, &object, before);
        errors.extend(served.strategy.validate_update(cx, served.judged(), place.subresource, &object, before));
        if !errors.is_empty() {
            return Err(Status::invalid(&served.group_kind(), place.name, &errors));
        }
        let warnings = served.strategy.warnings_on_update(served.judged(), place.subresource, &object, before);
        warnings.into_iter().for_each(|warning| cx.warn(warning));
        served.strategy.canonicalize(&mut object);
        normalise(cacher, &mut object, Some(old))?;
        if mutation.admits() {
            self.validate(cx, served, operation, subresource, namespace, name, &mut object, Some(old), options).await?;
        }

        if mutation.tracks() {
            managed::keep_times(cacher.layout.schema.root(), old, &mut object);
        }
        let (encoded, known) = cacher.encode(&object, Some(&entry));
        let removed = self.removable(served, &object);
        let unchanged = !removed && encoded.is(entry.revision(), entry.item());
        // What is encrypted with a key of yesterday is written again: so keys are rotated.
        let dry_run = options.dry_run && !hooks::is(Mutant::DryRunWrites);
        if dry_run || unchanged && !self.stale(cacher, key).await? {
            return Ok(Attempt::Unchanged(written(served, object, Some(entry.revision()), &encoded, false)));
        }
        let (act, side) = if removed {
            // What the stored object has: what this write would have claimed was not.
            (Act::Delete, self.release(cx, served, old).await?)
        } else {
            let value = encoded.stored(&cacher.layout.api_version, &cacher.layout.kind);
            (Act::Put { value, lease: self.lease(served).await?, known }, side)
        };
        let committed = self.commit(cacher, key, entry.revision(), act, side).await?;
        self.attempted(cacher, key, committed, |at| written(served, object, Some(at), &encoded, false))
    }

    /// The mutation of an object that is not there.
    async fn attempt_create(
        &self,
        cx: &Context,
        served: &Arc<Served>,
        place: Place<'_>,
        mutation: &dyn Mutation,
        options: &Options,
    ) -> Result<Attempt<Written>, Status> {
        let replaces = !mutation.is_patch() && served.strategy.rules().create_on_update;
        if !place.subresource.is_empty() || !mutation.creates() && !replaces {
            return Err(Status::not_found(&served.group_resource(), place.name));
        }
        check_uid(served, mutation, place, "")?;
        let mut object = mutation.apply(cx, None)?;
        if !object.str_at(&["metadata", "uid"]).is_empty() && mutation.tracks() {
            let why = format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                object.str_at(&["metadata", "uid"])
            );
            return Err(Status::conflict(&served.group_resource(), place.name, why));
        }
        meta::check_name(&object, place.name, place.namespace)?;
        fit_namespace(&mut object, place.namespace)?;
        self.authorize_create(cx, served, place).await?;
        served.stamp(&mut object);
        let version = object.str_at(&["metadata", "resourceVersion"]).to_owned();
        if !matches!(version.as_str(), "" | "0") {
            if mutation.tracks() {
                return Err(Status::not_found(&served.group_resource(), place.name));
            }
            meta::of(&mut object).remove("resourceVersion");
        }
        let created = if mutation.tracks() {
            self.create_tracked(cx, served, place.namespace, object, options).await
        } else {
            self.create(cx, served, place.namespace, object, options).await
        };
        match created {
            Ok(written) => Ok(Attempt::Done(written)),
            Err(status) if status.reason == Reason::AlreadyExists => {
                self.caches.consistent().await?;
                let cacher = served.storage("update")?;
                Ok(Attempt::Again(cacher.get(&Cacher::key(place.namespace, place.name))?))
            }
            Err(status) => Err(status),
        }
    }

    /// A write that creates is a create, whatever its method: it needs that permission too.
    ///
    /// # Errors
    /// 403 without it.
    async fn authorize_create(&self, cx: &Context, served: &Served, place: Place<'_>) -> Result<(), Status> {
        let Some(authorizer) = self.authorizer.get() else { return Ok(()) };
        let row = &served.resource;
        let attributes = authz::Attributes {
            user: &cx.user,
            verb: "create",
            is_resource: true,
            group: &row.group,
            version: &row.version,
            resource: &row.plural,
            subresource: "",
            namespace: place.namespace,
            name: place.name,
            path: "",
            label_selector: "",
            field_selector: "",
        };
        match authorizer.authorize(&attributes).await {
            authz::Decision::Allow(_) => Ok(()),
            refused => Err(authz::forbidden(&attributes, refused.reason())),
        }
    }

    /// The entry of what the store has.
    pub(super) fn entry_of(
        &self,
        cacher: &Cacher,
        key: &str,
        found: Option<store::KeyValue>,
    ) -> Result<Option<Arc<Entry>>, Status> {
        let Some(kv) = found else { return Ok(None) };
        let entry = cacher.entry(key, kv.mod_revision.cast_unsigned(), &kv.value);
        entry.map(|entry| Some(Arc::new(entry))).map_err(|error| Status::internal(crate::cache::Chain(&error)))
    }

    /// Whether nothing holds an object any more that is being deleted.
    pub(super) fn removable(&self, served: &Served, object: &Map) -> bool {
        let grace = object.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
        !hooks::is(Mutant::LetGoAndKept)
            && meta::is_deleting(object)
            && meta::finalizers(object).is_empty()
            && !served.strategy.holds_deletion(object)
            && (grace == Some(0) || served.strategy.delete_after_update(object))
    }
}

/// Whether the object is the one that a mutation means by its uid. `actual` is empty when there is none.
fn check_uid(served: &Served, mutation: &dyn Mutation, place: Place<'_>, actual: &str) -> Result<(), Status> {
    let Some(wanted) = mutation.uid().filter(|wanted| *wanted != actual) else { return Ok(()) };
    let prefix = served.cacher.as_ref().map_or("", |cacher| cacher.layout.prefix.as_str());
    let key = format!("{prefix}{}", Cacher::key(place.namespace, place.name));
    Err(precondition_failed(&served.group_resource(), place.name, &key, "UID", wanted, actual))
}

/// 409 for an object that is not the one that is meant. `key`: where it is stored; `what`: the part that differs.
pub(crate) fn precondition_failed(
    resource: &GroupResource,
    name: &str,
    key: &str,
    what: &str,
    wanted: &str,
    actual: &str,
) -> Status {
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {actual}"
    );
    Status::conflict(resource, name, why)
}

/// The resourceVersion, if there is one, must be the object's.
fn check_version(served: &Served, object: &Map, entry: &Entry, name: &str) -> Result<(), Status> {
    match object.str_at(&["metadata", "resourceVersion"]) {
        "" | "0" if served.strategy.rules().unconditional_update => Ok(()),
        "" | "0" => {
            let metadata = Path::root("metadata");
            let why = "must be specified for an update";
            let error = FieldError::invalid(&metadata.child("resourceVersion"), Raw("0".to_owned()), why);
            Err(Status::invalid(&served.group_kind(), name, &[error]))
        }
        version => match api::number::uint(version) {
            Ok(version) if version == entry.revision() => Ok(()),
            Ok(_) => Err(Status::modified(&served.group_resource(), name)),
            Err(why) => {
                let metadata = Path::root("metadata");
                let error = FieldError::invalid(&metadata.child("resourceVersion"), version, why);
                Err(Status::invalid(&served.group_kind(), name, &[error]))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::mutation::Change;
    use crate::test_support::map;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A status is written often, and rarely says what depends on the spec: that costs what it has, not what the spec has.
    #[tokio::test]
    async fn the_spec_of_a_pod_is_not_read_to_write_its_status() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = store::Embedded::open(directory.path(), store::embedded::Options::default()).expect("a store");
        let registry = Registry::open(store).await.expect("a registry");
        let served = registry.preferred("", "pods").expect("served");
        let container = "{name: a, image: i, ports: [{containerPort: 80}], resources: {limits: {cpu: '1'}}}";
        let pod = map(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p, annotations: {{a: b}}}}, spec: {{nodeName: node-a, containers: [{container}]}}}}"
        ));
        let pod = {
            let mut pod = pod;
            crate::registry::complete::complete(served.resource.schema.root(), &mut pod, None);
            pod
        };
        let cx = Context::internal();
        let options = Options::default();
        let namespace = map("{apiVersion: v1, kind: Namespace, metadata: {name: default}}");
        let namespaces = registry.preferred("", "namespaces").expect("served");
        registry.create(&cx, &namespaces, "", namespace, &options).await.expect("made");
        let made = registry.create(&cx, &served, "default", pod, &options).await.expect("made").object;

        for (place, phase) in [("status", "Running"), ("status", "Failed")] {
            let existing = OnceLock::new();
            let asked = AtomicUsize::new(0);
            let mutation = Change(|pod: &mut Map| {
                asked.fetch_add(1, Ordering::Relaxed);
                existing.get_or_init(|| pod.get("spec").and_then(Value::as_map).cloned().expect("a spec"));
                pod.set_at(&["status", "phase"], phase);
                pod.set_at(&["status", "podIP"], "10.0.0.1");
                Ok(())
            });
            let place = Place { namespace: "default", name: "p", subresource: place };
            let written = registry.update(&cx, &served, place, &mutation, &options).await.expect("written");
            assert!(existing.get().is_some_and(Map::is_unread), "somebody has read it");
            assert_eq!(written.object.get("spec"), made.get("spec"));
            assert_eq!(written.object.str_at(&["status", "phase"]), phase);
            assert_eq!(asked.load(Ordering::Relaxed), 1);
            // What selectors find in the text that was taken over is where it was.
            let cacher = served.storage("get").expect("stored");
            let entry = cacher.get("default/p").expect("readable").expect("there");
            let paths = &cacher.layout.paths;
            assert_eq!(entry.field(paths, paths.position("spec.nodeName").expect("a field")), "node-a");
            assert_eq!(entry.field(paths, paths.position("status.phase").expect("a field")), phase);
        }
    }
}
