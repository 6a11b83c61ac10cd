//! Create.

use super::commit::{Act, Committed, contended};
use super::{Registry, Served, Side, check_segments, managed, meta};
use crate::admission::{Attributes, Operation};
use crate::cache::Cacher;
use crate::cache::hooks::{self, Mutant};
use crate::context::Context;
use crate::options::Options;
use api::Status;
use bytes::Bytes;
use schema::{Encoded, Map, Value};
use std::sync::Arc;

/// How often a generated name may collide.
const NAMES: usize = 8;
/// How often what goes along with a write (allocations) may have changed meanwhile.
pub(super) const SIDE_TRIES: usize = 64;

/// A written object.
#[derive(Clone, Debug)]
pub struct Written {
    /// In the version of the request, with its resourceVersion.
    pub object: Map,
    /// The JSON of `object` without kind, where the stored version is the request's.
    pub(crate) item: Option<Bytes>,
    /// It was not there before.
    pub created: bool,
}

/// Gives an object the namespace of the request.
///
/// # Errors
/// 400 when it says another.
pub(super) fn fit_namespace(object: &mut Map, namespace: &str) -> Result<(), Status> {
    let own = object.str_at(&["metadata", "namespace"]);
    if own == namespace {
        return Ok(());
    }
    if own.is_empty() {
        meta::of(object).insert("namespace", namespace);
        return Ok(());
    }
    if namespace.is_empty() {
        meta::of(object).remove("namespace");
        return Ok(());
    }
    Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"))
}

/// Removes owners that are given twice, which upstream warns of.
pub(super) fn without_repeated_owners(cx: &Context, object: &mut Map) {
    let Some(owners) = object.at_mut(&["metadata", "ownerReferences"]).and_then(Value::as_list_mut) else { return };
    let mut seen: Vec<Value> = Vec::with_capacity(owners.len());
    let before = owners.len();
    let mut repeated = String::new();
    owners.retain(|owner| {
        let first = !seen.contains(owner);
        if first {
            seen.push(owner.clone());
        } else if let Some(owner) = owner.as_map() {
            repeated = owner.str_at(&["uid"]).to_owned();
        }
        first
    });
    if owners.len() < before {
        cx.warn(format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {repeated}"
        ));
    }
}

impl Registry {
    /// Creates an object. It comes decoded and defaulted in the version of the request.
    ///
    /// # Errors
    /// What admission, validation or the store refuse; 409 when there is one of its name.
    pub async fn create(
        &self,
        cx: &Context,
        served: &Arc<Served>,
        namespace: &str,
        mut object: Map,
        options: &Options,
    ) -> Result<Written, Status> {
        if served.resource.namespaced && namespace.is_empty() {
            return Err(Status::bad_request("namespace is required to create this object"));
        }
        fit_namespace(&mut object, if served.resource.namespaced { namespace } else { "" })?;
        without_repeated_owners(cx, &mut object);
        managed::track(served, cx, None, &mut object, "", options);
        self.create_tracked(cx, served, namespace, object, options).await
    }

    /// The same for an object whose managers are noted already.
    pub(super) async fn create_tracked(
        &self,
        cx: &Context,
        served: &Arc<Served>,
        namespace: &str,
        mut object: Map,
        options: &Options,
    ) -> Result<Written, Status> {
        let cacher = served.storage("create")?;
        // What admission and strategy leave as it came needs no second look; a conversion leaves nothing.
        let given = served.conversion.is_none().then(|| object.clone());
        served.to_stored(&mut object);
        let name = object.str_at(&["metadata", "name"]).to_owned();
        self.admit(cx, served, Operation::Create, "", namespace, &name, &mut object, None, options).await?;
        meta::fill_new(cx, &mut object);
        let base = object.str_at(&["metadata", "generateName"]).to_owned();
        let generated = object.str_at(&["metadata", "name"]).is_empty() && !base.is_empty();
        let mut names = 0;
        loop {
            let admitted = if generated {
                object.set_at(&["metadata", "name"], meta::generate_name(&base)?);
                object.clone()
            } else {
                std::mem::take(&mut object)
            };
            match self.try_create(cx, served, cacher, namespace, admitted, given.as_ref(), options).await {
                Err(status)
                    if generated
                        && status.code == 409
                        && status.reason == api::Reason::AlreadyExists
                        && !hooks::is(Mutant::GeneratedNameMadeOnce) =>
                {
                    names += 1;
                    if names == NAMES {
                        let name = object.str_at(&["metadata", "name"]);
                        return Err(Status::generate_name_conflict(&served.group_resource(), name));
                    }
                }
                result => return result,
            }
        }
    }

    /// `given`: the object before admission, in normal form, if `admitted` was made from that.
    #[allow(clippy::too_many_arguments, reason = "what one try of `create_tracked` has of it")]
    async fn try_create(
        &self,
        cx: &Context,
        served: &Arc<Served>,
        cacher: &Arc<Cacher>,
        namespace: &str,
        mut admitted: Map,
        given: Option<&Map>,
        options: &Options,
    ) -> Result<Written, Status> {
        let row = &served.resource;
        let admitted_name = admitted.str_at(&["metadata", "name"]).to_owned();
        // Only what goes along makes another try. Without it the object is not copied: its parts are changed where they are.
        let tries = if served.allocator.is_some() { SIDE_TRIES } else { 1 };
        for _ in 0..tries {
            let mut object = match &served.allocator {
                Some(_) => admitted.clone(),
                None => std::mem::take(&mut admitted),
            };
            if row.flags.status && !served.strategy.keeps_status_on_create() {
                object.remove("status");
            }
            let metadata = meta::of(&mut object);
            let version = metadata.remove("resourceVersion");
            // Of a kind that counts none it stays what its maker says.
            if row.flags.generation {
                metadata.insert("generation", 1_i64);
            }
            let side = match &served.allocator {
                Some(allocator) => allocator.allocate(cx, served, &mut object, None, options.dry_run).await?,
                None => Side::default(),
            };
            served.closed.drop_from(&mut object, None);
            served.strategy.prepare_for_create(cx, row, &mut object);
            fill(served, cacher, &mut object, given, None);
            let name = object.str_at(&["metadata", "name"]).to_owned();
            let mut errors = meta::validate(row, &object, served.judged().features);
            errors.extend(served.strategy.validate_create(cx, served.judged(), &object));
            if !errors.is_empty() {
                return Err(Status::invalid(&served.group_kind(), &name, &errors));
            }
            let warnings = served.strategy.warnings_on_create(served.judged(), &object);
            warnings.into_iter().for_each(|warning| cx.warn(warning));
            served.strategy.canonicalize(&mut object);
            normalise(cacher, &mut object, given)?;
            self.validate(cx, served, Operation::Create, "", namespace, &name, &mut object, None, options).await?;
            check_segments(namespace, &name)?;
            let key = Cacher::key(namespace, &name);
            let (encoded, known) = cacher.encode(&object, None);
            if options.dry_run {
                self.caches.consistent().await?;
                // One that cannot be read is there, too.
                if !matches!(cacher.get(&key), Ok(None)) {
                    return Err(Status::already_exists(&served.group_resource(), &name));
                }
                let mut tried = written(served, object, None, &encoded, true);
                if let Some(version) = version {
                    // Nothing looks at it, and it is told as it came.
                    tried.object.set_at(&["metadata", "resourceVersion"], version);
                    tried.item = None;
                }
                return Ok(tried);
            }
            // The store is the first to mind it, and one that is no number is none to it.
            let version = version.as_ref().and_then(Value::as_str).unwrap_or_default();
            if api::number::uint(version).is_ok_and(|version| version != 0) {
                let why = "resourceVersion should not be set on objects to be created";
                return Err(Status::new(500, api::Reason::Unknown, why));
            }
            let lease = self.lease(served).await?;
            let value = encoded.stored(&cacher.layout.api_version, &cacher.layout.kind);
            match self.commit(cacher, &key, 0, Act::Put { value, lease, known }, side).await? {
                Committed::Done(revision) => {
                    if let Some(note) = &served.inert {
                        note.log();
                    }
                    return Ok(written(served, object, Some(revision), &encoded, true));
                }
                Committed::Changed(_) => return Err(Status::already_exists(&served.group_resource(), &name)),
                Committed::SideChanged => {}
            }
        }
        Err(contended(&served.group_resource(), &admitted_name))
    }

    pub(super) async fn lease(&self, served: &Served) -> Result<i64, Status> {
        self.leases.lease(served.strategy.time_to_live()).await.map_err(|error| super::commit::refused(&error))
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one Attributes, which borrows them all")]
    pub(super) async fn admit(
        &self,
        cx: &Context,
        served: &Served,
        operation: Operation,
        subresource: &str,
        namespace: &str,
        name: &str,
        object: &mut Map,
        old: Option<&Map>,
        options: &Options,
    ) -> Result<(), Status> {
        let resource = &served.resource;
        let dry_run = options.dry_run;
        let mut attributes =
            Attributes { operation, resource, subresource, namespace, name, cx, dry_run, object, old, options };
        self.admission().admit(&mut attributes).await
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one Attributes, which borrows them all")]
    pub(super) async fn validate(
        &self,
        cx: &Context,
        served: &Served,
        operation: Operation,
        subresource: &str,
        namespace: &str,
        name: &str,
        object: &mut Map,
        old: Option<&Map>,
        options: &Options,
    ) -> Result<(), Status> {
        let resource = &served.resource;
        let dry_run = options.dry_run;
        let attributes =
            Attributes { operation, resource, subresource, namespace, name, cx, dry_run, object, old, options };
        self.admission().validate(&attributes).await
    }
}

/// Gives what admission and strategies made of an object the defaults that it has for its readers: upstream's find them as they read
/// it from the store, ours read what is stored. `from`: what it was made from, with all its defaults; `old`: what is stored.
pub(super) fn fill(served: &Served, cacher: &Cacher, object: &mut Map, from: Option<&Map>, old: Option<&Map>) {
    schema::defaults::changed(cacher.layout.schema.root(), object, from);
    // Not what a closed gate took out.
    served.closed.drop_from(object, old);
}

/// Brings what strategies and admission made of an object into its normal form. `from`: what is stored, if it was made from that.
pub(super) fn normalise(cacher: &Cacher, object: &mut Map, from: Option<&Map>) -> Result<(), Status> {
    // What is text in it stays so: the check goes by another tree.
    #[cfg(debug_assertions)]
    let alone = from.map(|_| {
        let text = schema::json::to_string(object);
        let alone = schema::json::parse(text.as_bytes())
            .and_then(|tree| schema::normal::changed(cacher.layout.schema.root(), tree, None));
        alone.map(|alone| schema::json::to_string(&alone.object))
    });
    let done = schema::normal::normalise(cacher.layout.schema.root(), object, from);
    #[cfg(debug_assertions)]
    if let Some(Ok(alone)) = alone {
        debug_assert!(
            done.is_err() || alone == schema::json::to_string(object),
            "what it shares with what it was made from was not in normal form"
        );
    }
    done.map_err(|error| Status::internal(format!("the object does not fit its kind after admission: {error}")))
}

/// What is answered: the object in the version of the request, at its revision (none for a dry run).
pub(super) fn written(
    served: &Served,
    mut object: Map,
    revision: Option<u64>,
    encoded: &Encoded,
    created: bool,
) -> Written {
    match revision {
        Some(revision) => object.set_at(&["metadata", "resourceVersion"], revision.to_string()),
        None => {
            object.remove_at(&["metadata", "resourceVersion"]);
        }
    }
    served.from_stored(&mut object);
    let item = served.conversion.is_none().then(|| match revision {
        Some(revision) => encoded.item(revision),
        None => Bytes::copy_from_slice(encoded.bare()),
    });
    Written { object, item, created }
}
