//! The one registry that serves every kind, built-in or custom: rows, strategies, admission, allocation, the store.
//!
//! | file | what |
//! |---|---|
//! | `served`, `table` | what is served, by path |
//! | `create`, `update`, `delete`, `read` | the verbs |
//! | `past` | what was there at a moment, and versions of an object |
//! | `complete` | defaults and aliases of what was decoded |
//! | `mutation` | what an update does: replace, patch, apply, through a subresource's lens |
//! | `attempt` | trying until a write is settled |
//! | `commit` | the transactions with the store |
//! | `meta`, `managed` | what all objects have |
//! | `measures` | admission and store, timed |
//! | `selection`, `token` | selectors and `continue` tokens |
//! | `scale` | replicas and selector, shown alike of every kind |
//! | `convert` | kinds that are served in two versions |
//! | `subresource`, `virtual_resource`, `allocator` | the escape hatches. There is no fourth. |

mod allocator;
mod attempt;
mod commit;
pub mod complete;
pub mod convert;
mod create;
mod delete;
mod leases;
pub mod managed;
pub mod measures;
pub mod meta;
pub mod mutation;
mod past;
mod read;
pub mod scale;
pub mod selection;
mod served;
mod started;
mod subresource;
mod table;
pub mod token;
mod update;
mod virtual_resource;

pub use allocator::{Allocator, Side};
pub use create::Written;
pub use delete::Deleted;
pub(crate) use delete::other_is_meant;
pub use past::{Became, Past, PastVersion};
pub use read::Listed;
pub use served::Served;
pub use started::Started;
pub use subresource::{Subresource, Target};
pub use table::Table;
pub use update::Place;
pub(crate) use update::precondition_failed;
pub use virtual_resource::Virtual;

use crate::admission::{Attributes, Chain, Operation};
use crate::authz::Authorizer;
use crate::cache::{Cacher, Caches, Layout, NotReached, Observer, Paths, Scope, State, Unreadable};
use crate::context::Context;
use crate::encryption::{Encryption, Sealed};
use crate::options::Options;
use crate::surface::Surface;
use api::Status;
use api::features::Gates;
use arc_swap::ArcSwap;
use schema::{Map, Resource};
use std::sync::{Arc, OnceLock};
use store::Store;

/// What stands behind the seams, given once when all of it is made.
#[derive(Default)]
pub struct Hooks {
    /// Asked when a write of another verb turns out to create; without one everything is allowed.
    pub authorizer: Option<Arc<dyn Authorizer>>,
    pub admission: Chain,
    /// Group, plural, subresource.
    pub subresources: Vec<(&'static str, &'static str, &'static str, Arc<dyn Subresource>)>,
    /// Group, plural.
    pub virtuals: Vec<(&'static str, &'static str, Arc<dyn Virtual>)>,
    /// Group, plural.
    pub allocators: Vec<(&'static str, &'static str, Arc<dyn Allocator>)>,
}

/// Serves every kind.
pub struct Registry {
    store: Arc<dyn Store>,
    /// The same store, when it encrypts.
    sealed: Option<Arc<Sealed>>,
    caches: Arc<Caches>,
    table: ArcSwap<Table>,
    admission: OnceLock<Chain>,
    authorizer: OnceLock<Arc<dyn Authorizer>>,
    gates: Gates,
    leases: leases::Leases,
    measures: measures::Measures,
    started: Started,
}

impl Registry {
    /// Loads every built-in kind from the store, and follows it; serves what is served when nobody asks for more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open(store: Arc<dyn Store>) -> Result<Arc<Self>, store::Error> {
        Self::open_as(store, None, Surface::default()).await
    }

    /// The same, serving what was asked for; `sealed`: that store again, when it is one whose values are encrypted.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open_as(
        store: Arc<dyn Store>,
        sealed: Option<Arc<Sealed>>,
        surface: Surface,
    ) -> Result<Arc<Self>, store::Error> {
        let rows = surface.rows();
        let mut layouts: Vec<Layout> = Vec::new();
        // The server itself reads kinds that it may not serve.
        for row in schema::resource::all().iter().chain(rows.iter().copied()) {
            if let Some(layout) = layout_of(row)
                && !layouts.iter().any(|other| other.prefix == layout.prefix)
            {
                layouts.push(layout);
            }
        }
        let caches = Caches::open(store.clone(), layouts).await?;
        Ok(Self::over(store, sealed, surface, &rows, caches))
    }

    /// Serves rows from caches that follow the store.
    pub(crate) fn over(
        store: Arc<dyn Store>,
        sealed: Option<Arc<Sealed>>,
        surface: Surface,
        rows: &[&Resource],
        caches: Arc<Caches>,
    ) -> Arc<Self> {
        let served = rows.iter().map(|row| {
            let cacher = row.storage.as_ref().and_then(|storage| caches.get(&storage.prefix));
            let mut served = Served::new(Arc::new(Resource::clone(row)), cacher, &surface);
            if row.subresource("scale").is_some() {
                let plain_selector = row.kind == "ReplicationController";
                served.subresources.insert("scale".to_owned(), Arc::new(scale::Scale { plain_selector }));
            }
            Arc::new(served)
        });
        let table = Table::new(served.collect());
        // Every kind has been read by now, and is followed.
        let started = Started::default();
        FOLLOWED.into_iter().for_each(|hook| started.done(hook));
        let measures = measures::Measures::default();
        if let Some(sealed) = &sealed {
            measures.tell_of(sealed.encryption().measures());
        }
        Arc::new(Registry {
            leases: leases::Leases::new(store.clone()),
            gates: surface.gates,
            store,
            sealed,
            caches,
            table: ArcSwap::from_pointee(table),
            admission: OnceLock::new(),
            measures,
            started,
            authorizer: OnceLock::new(),
        })
    }

    /// What is done when the server starts.
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// Puts admission and the hatches in their places. Only the first call counts.
    pub fn install(&self, hooks: Hooks) {
        if self.admission.set(hooks.admission).is_err() {
            tracing::error!("admission and hatches were installed before, and stay as they are");
            return;
        }
        if let Some(authorizer) = hooks.authorizer {
            // Set once, as admission above.
            self.authorizer.get_or_init(|| authorizer);
        }
        let mut table = Table::clone(&self.table.load());
        for (group, plural, name, subresource) in hooks.subresources {
            table.change(group, plural, |served| {
                served.subresources.insert(name.to_owned(), subresource.clone());
            });
        }
        for (group, plural, virtual_resource) in hooks.virtuals {
            table.change(group, plural, |served| served.virtual_resource = Some(virtual_resource.clone()));
        }
        for (group, plural, allocator) in hooks.allocators {
            table.change(group, plural, |served| served.allocator = Some(allocator.clone()));
        }
        self.table.store(Arc::new(table));
    }

    /// What is served now.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// A resource by the parts of its path.
    pub fn served(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Served>> {
        self.table.load().get(group, version, plural)
    }

    /// A resource in the version that is preferred.
    pub fn preferred(&self, group: &str, plural: &str) -> Option<Arc<Served>> {
        self.table.load().preferred(group, plural)
    }

    pub fn caches(&self) -> &Arc<Caches> {
        &self.caches
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The encryption of the state, if there is any.
    pub fn encryption(&self) -> Option<&Arc<Encryption>> {
        self.sealed.as_ref().map(|sealed| sealed.encryption())
    }

    /// Whether an object as it is stored would be encrypted otherwise now.
    async fn stale(&self, cacher: &Cacher, key: &str) -> Result<bool, Status> {
        let Some(sealed) = &self.sealed else { return Ok(false) };
        let full = format!("{}{key}", cacher.layout.prefix);
        sealed.stale(full.as_bytes()).await.map_err(|error| commit::refused(&error))
    }

    /// Has an observer told of all objects of a resource (as added), then of every change, in order and before any reader.
    /// See [`Observer`] for what it must not do. `false`: nothing is stored under that name.
    pub fn observe(&self, group: &str, plural: &str, observer: Arc<dyn Observer>) -> bool {
        let mut rows = schema::resource::all().iter().chain(schema::resource::optional());
        let row = rows.find(|row| row.group == group && row.plural == plural);
        let storage = row.and_then(|row| row.storage.as_ref());
        let cacher = storage.and_then(|storage| self.caches.get(&storage.prefix));
        cacher.inspect(|cacher| cacher.observe(observer)).is_some()
    }

    /// Admission of a connect: exec, attach, port-forward, proxy. `object` are its options.
    ///
    /// # Errors
    /// The refusal.
    pub async fn admit_connect(&self, cx: &Context, target: &Target, mut object: Map) -> Result<(), Status> {
        let options = Options::default();
        let mut attributes = Attributes {
            operation: Operation::Connect,
            resource: &target.served.resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            cx,
            dry_run: false,
            object: &mut object,
            old: None,
            options: &options,
        };
        self.admission().admit(&mut attributes).await?;
        self.admission().validate(&attributes).await
    }

    /// Admission and the implementation of a create through a subresource.
    ///
    /// # Errors
    /// The refusal.
    pub async fn create_subresource(
        &self,
        cx: &Context,
        target: &Target,
        mut object: Map,
        options: &Options,
    ) -> Result<Map, Status> {
        let subresource = target.served.subresources.get(&target.subresource);
        let subresource = subresource.ok_or_else(|| target.unsupported("create"))?.clone();
        let mut attributes = Attributes {
            operation: Operation::Create,
            resource: &target.served.resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            cx,
            dry_run: options.dry_run,
            object: &mut object,
            old: None,
            options,
        };
        self.admission().admit(&mut attributes).await?;
        self.admission().validate(&attributes).await?;
        subresource.create(cx, target, object, options).await
    }

    /// A create of a virtual resource.
    ///
    /// # Errors
    /// The refusal.
    pub async fn create_virtual(
        &self,
        cx: &Context,
        served: &Arc<Served>,
        namespace: &str,
        mut object: Map,
        options: &Options,
    ) -> Result<Map, Status> {
        let unsupported = || Status::method_not_supported(&served.group_resource(), "create");
        let virtual_resource = served.virtual_resource.clone().ok_or_else(unsupported)?;
        create::fit_namespace(&mut object, namespace)?;
        if virtual_resource.admission() {
            let mut attributes = Attributes {
                operation: Operation::Create,
                resource: &served.resource,
                subresource: "",
                namespace,
                name: "",
                cx,
                dry_run: options.dry_run,
                object: &mut object,
                old: None,
                options,
            };
            self.admission().admit(&mut attributes).await?;
            self.admission().validate(&attributes).await?;
        }
        virtual_resource.create(cx, served, namespace, object, options).await
    }

    /// Which features are on.
    pub fn gates(&self) -> &Gates {
        &self.gates
    }

    /// What was measured so far.
    pub fn measures(&self) -> &measures::Measures {
        &self.measures
    }

    fn admission(&self) -> measures::Measured<'_> {
        static NONE: Chain = Chain(Vec::new());
        measures::Measured { chain: self.admission.get().unwrap_or(&NONE), measures: &self.measures }
    }
}

/// What is done when the caches follow the store.
const FOLLOWED: [&str; 2] = ["poststarthook/generic-apiserver-start-informers", "poststarthook/crd-informer-synced"];

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({:?})", self.caches)
    }
}

/// Where and as what a row is stored.
pub(crate) fn layout_of(row: &Resource) -> Option<Layout> {
    let storage = row.storage.as_ref()?;
    let schema = if storage.version == row.version && storage.group == row.group {
        row.schema.clone()
    } else {
        schema::resource::of_kind(&storage.group, &storage.version, &storage.kind)?.schema.clone()
    };
    let api_version = if storage.group.is_empty() {
        storage.version.to_string()
    } else {
        format!("{}/{}", storage.group, storage.version)
    };
    Some(Layout {
        prefix: storage.prefix.to_string(),
        resource: row.plural.to_string(),
        api_version,
        kind: storage.kind.to_string(),
        schema,
        paths: Paths::of(row),
    })
}

/// What a read says when the caches can't serve it.
impl From<NotReached> for Status {
    fn from(error: NotReached) -> Self {
        match error {
            NotReached::Behind { asked, current } => Status::too_large_resource_version(asked, current),
            NotReached::Store(error) => commit::refused(&error),
        }
    }
}

/// 500 for an object that is there but cannot be read.
impl From<Unreadable> for Status {
    fn from(error: Unreadable) -> Self {
        Status::internal(error.why)
    }
}

/// 500 when an object of a scope cannot be read: a list without it would be a lie.
pub(crate) fn check_all_readable(cacher: &Cacher, state: &State, scope: &Scope) -> Result<(), Status> {
    state.check(scope).map_err(|unreadable| not_all(cacher, &unreadable))
}

/// 500 for one of several objects.
fn not_all(cacher: &Cacher, unreadable: &Unreadable) -> Status {
    let key = format!("{}{}", cacher.layout.prefix, unreadable.key);
    Status::internal(format!("unable to transform key {}: {}", api::field::go_quote(&key), unreadable.why))
}

/// 400 for names that can't be parts of a key, wherever they come from.
fn check_segments(namespace: &str, name: &str) -> Result<(), Status> {
    for segment in [namespace, name] {
        if let Some(problem) = meta::segment_problems(segment, false).into_iter().next() {
            return Err(Status::bad_request(format!("{segment:?}: {problem}")));
        }
    }
    Ok(())
}
