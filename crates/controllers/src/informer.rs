//! Informers: one reflector per kind, shared by all controllers, with handlers that turn changes into keys.
//!
//! What is kept is a projection (see [`crate::objects`]). A controller that wrote an object puts the answer in with
//! [`Informer::assume`], so that its next reconcile sees its own write even before the watch brings it: there is no
//! second bookkeeping of expectations.

use crate::queue::Key;
use crate::{Error, code};
use client::watch::{self, Event};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What informers can hold.
pub trait Object: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {
    /// Drops what this projection doesn't read, before the object is kept.
    fn slim(&mut self) {
        self.meta_mut().managed_fields = None;
    }
}

type Handler<K> = Box<dyn Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync>;

/// The known objects of one kind. Clones are the same informer.
pub struct Informer<K> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    objects: RwLock<Known<K>>,
    handlers: Mutex<Vec<Handler<K>>>,
    synced: tokio::sync::watch::Sender<bool>,
}

struct Known<K> {
    /// By namespace, then name.
    objects: BTreeMap<String, BTreeMap<String, Arc<K>>>,
    /// The uids of the objects that went last, with when: answers to our own writes may come after the watch
    /// told that they are gone.
    gone: HashMap<String, Instant>,
    /// The order in which they went.
    order: VecDeque<(Instant, String)>,
}

/// How long an answer to a write may be on its way at most; the client gives a request up before.
const LATE: Duration = Duration::from_secs(60);

impl<K> Known<K> {
    fn bury(&mut self, uid: Option<String>, now: Instant) {
        while let Some((at, uid)) = self.order.front().filter(|(at, _)| now.duration_since(*at) > LATE) {
            if self.gone.get(uid) == Some(at) {
                self.gone.remove(uid);
            }
            self.order.pop_front();
        }
        if let Some(uid) = uid {
            self.gone.insert(uid.clone(), now);
            self.order.push_back((now, uid));
        }
    }
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer { inner: self.inner.clone() }
    }
}

/// A resource version as a number: they compare within one resource (KEP-5504).
fn version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// The key of an object.
pub fn key<K: Resource>(object: &K) -> Key {
    Key {
        namespace: object.meta().namespace.clone().unwrap_or_default(),
        name: object.meta().name.clone().unwrap_or_default(),
    }
}

impl<K: Object> Informer<K> {
    fn new() -> Self {
        Informer {
            inner: Arc::new(Inner {
                objects: RwLock::new(Known { objects: BTreeMap::new(), gone: HashMap::new(), order: VecDeque::new() }),
                handlers: Mutex::default(),
                synced: tokio::sync::watch::Sender::new(false),
            }),
        }
    }

    /// Calls a handler with the old and new object at each change from now on (`None`: not there).
    /// Handlers must be quick: they add keys to queues.
    pub fn on_change(&self, handler: impl Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static) {
        self.inner.handlers.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(handler));
    }

    /// Adds the key of every object that changes to a queue.
    pub fn feed(&self, queue: &crate::queue::Queue<Key>) {
        let queue = queue.clone();
        self.on_change(move |old, new| {
            if let Some(object) = new.or(old) {
                queue.add(key(object.as_ref()));
            }
        });
    }

    /// Returns once everything that was there at the start is known.
    pub async fn synced(&self) {
        let mut synced = self.inner.synced.subscribe();
        // The sender lives as long as this handle.
        if synced.wait_for(|s| *s).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read(|objects| objects.get(namespace)?.get(name).cloned())
    }

    pub fn by_key(&self, key: &Key) -> Option<Arc<K>> {
        self.get(&key.namespace, &key.name)
    }

    /// The objects of a namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read(|objects| objects.get(namespace).map(|o| o.values().cloned().collect()).unwrap_or_default())
    }

    /// All objects, by namespace and name.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read(|objects| objects.values().flat_map(|o| o.values().cloned()).collect())
    }

    fn read<T>(&self, read: impl FnOnce(&BTreeMap<String, BTreeMap<String, Arc<K>>>) -> T) -> T {
        read(&self.inner.objects.read().unwrap_or_else(PoisonError::into_inner).objects)
    }

    /// Takes an object that the API server just answered with, unless something newer is known, or that it is
    /// gone by now.
    pub fn assume(&self, object: K) {
        self.put(object);
    }

    /// Forgets an object that the API server just removed, unless it is another by now.
    pub fn assume_deleted(&self, key: &Key, uid: &str) {
        let same = self.by_key(key).is_some_and(|o| o.meta().uid.as_deref() == Some(uid));
        if same {
            self.remove(key);
        }
    }

    fn put(&self, mut object: K) {
        object.slim();
        let Key { namespace, name } = key(&object);
        let object = Arc::new(object);
        let old = {
            let mut known = self.inner.objects.write().unwrap_or_else(PoisonError::into_inner);
            if object.meta().uid.as_ref().is_some_and(|uid| known.gone.contains_key(uid)) {
                return;
            }
            let slot = known.objects.entry(namespace).or_default();
            if let Some(known) = slot.get(&name) {
                let newer = version(object.as_ref()) > version(known.as_ref());
                if !newer {
                    return;
                }
            }
            slot.insert(name, object.clone())
        };
        self.tell(old.as_ref(), Some(&object));
    }

    fn remove(&self, key: &Key) {
        let old = {
            let mut known = self.inner.objects.write().unwrap_or_else(PoisonError::into_inner);
            let Some(of_namespace) = known.objects.get_mut(&key.namespace) else { return };
            let old = of_namespace.remove(&key.name);
            if of_namespace.is_empty() {
                known.objects.remove(&key.namespace);
            }
            known.bury(old.as_ref().and_then(|old| old.meta().uid.clone()), Instant::now());
            old
        };
        if old.is_some() {
            self.tell(old.as_ref(), None);
        }
    }

    /// An object is listed that was taken for gone: the list is right.
    fn exhume(&self, object: &K) {
        if let Some(uid) = &object.meta().uid {
            self.inner.objects.write().unwrap_or_else(PoisonError::into_inner).gone.remove(uid);
        }
    }

    /// Remembers that an object is gone that was not known.
    fn bury(&self, uid: Option<String>) {
        self.inner.objects.write().unwrap_or_else(PoisonError::into_inner).bury(uid, Instant::now());
    }

    fn tell(&self, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        for handler in self.inner.handlers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            handler(old, new);
        }
    }

    /// Follows the API server until the end of the program.
    async fn run(self, client: Client) -> Result<(), Error> {
        let mut events = watch::all::<K>(client, watch::Config::default().any_semantic());
        let mut listed: Option<(HashSet<Key>, u64)> = None;
        let mut absent = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = Some((HashSet::new(), 0)),
                Ok(Event::InitApply(object)) => {
                    if let Some((keys, newest)) = &mut listed {
                        keys.insert(key(&object));
                        *newest = (*newest).max(version(&object));
                    }
                    self.exhume(&object);
                    self.put(object);
                }
                Ok(Event::InitDone) => {
                    let (keys, newest) = listed.take().unwrap_or_default();
                    for object in self.all() {
                        // What is newer than the list was written by us meanwhile.
                        if !keys.contains(&key(object.as_ref())) && version(object.as_ref()) <= newest.max(1) {
                            self.remove(&key(object.as_ref()));
                        }
                    }
                    self.inner.synced.send_replace(true);
                }
                Ok(Event::Apply(object)) => self.put(object),
                Ok(Event::Delete(object)) => {
                    let key = key(&object);
                    let same = self.by_key(&key).is_some_and(|o| o.meta().uid == object.meta().uid);
                    if same {
                        self.remove(&key);
                    } else {
                        self.bury(object.meta().uid.clone());
                    }
                }
                // A gate lets its controllers run; that its kinds are served is another flag. Said once, and looked for again.
                Err(watch::Error::InitialListFailed(e)) if code(&e) == 404 => {
                    if !std::mem::replace(&mut absent, true) {
                        tracing::info!(kind = %K::kind(&()), "the kind is not served: see --runtime-config of the API server");
                    }
                }
                Err(e) => tracing::warn!(kind = %K::kind(&()), "the watch failed and is tried again: {e}"),
            }
        }
        Err(Error::Other(format!("the watch of {} ended", K::kind(&()))))
    }
}

/// One informer per kind, made when first asked for.
pub struct Informers {
    client: Client,
    made: Mutex<HashMap<TypeId, (Box<dyn Any + Send + Sync>, Option<BoxFuture<'static, Result<(), Error>>>)>>,
}

impl Informers {
    pub fn new(client: Client) -> Self {
        Informers { client, made: Mutex::default() }
    }

    /// The informer of a kind; it follows the API server once [`Informers::run`] runs.
    pub fn of<K: Object>(&self) -> Informer<K> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let (informer, _) = made.entry(TypeId::of::<K>()).or_insert_with(|| {
            let informer = Informer::<K>::new();
            let run = informer.clone().run(self.client.clone()).boxed();
            (Box::new(informer), Some(run))
        });
        informer
            .downcast_ref::<Informer<K>>()
            .cloned()
            .unwrap_or_else(|| unreachable!("an informer is filed under its own type"))
    }

    /// Runs every informer that was asked for before this call.
    pub fn run(&self, shutdown: CancellationToken) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<_> = made.values_mut().filter_map(|(_, run)| run.take()).collect();
        async move {
            if all.is_empty() {
                shutdown.cancelled().await;
                return Ok(());
            }
            tokio::select! {
                () = shutdown.cancelled() => Ok(()),
                (first, _, _) = futures::future::select_all(all) => first,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Pod;
    use serde_json::json;

    fn pod(uid: &str, version: u64) -> Pod {
        let metadata = json!({"name": "p", "namespace": "n", "uid": uid, "resourceVersion": version.to_string()});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    /// The answer to a write may come after the watch told that the object is gone.
    #[test]
    fn what_is_gone_is_not_assumed_to_be_there() {
        let informer = Informer::<Pod>::new();
        let key = key(&pod("a", 1));
        informer.assume(pod("a", 1));
        informer.remove(&key);
        informer.assume(pod("a", 2));
        assert!(informer.by_key(&key).is_none());
        // Also one that was never seen.
        informer.bury(Some("b".into()));
        informer.assume(pod("b", 3));
        assert!(informer.by_key(&key).is_none());
        // Another of the same name is another.
        informer.assume(pod("c", 4));
        assert_eq!(informer.by_key(&key).unwrap().metadata.uid.as_deref(), Some("c"));
        // And what is gone for long is forgotten.
        let mut known = informer.inner.objects.write().unwrap();
        known.bury(None, Instant::now() + LATE * 2);
        assert!(known.gone.is_empty() && known.order.is_empty());
    }
}
