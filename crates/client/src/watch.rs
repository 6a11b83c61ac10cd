//! Watches that never end: list, follow, and list again when need be.
//!
//! kube's watcher does the work. It is compiled for every type that it brings, as the reading of answers is, and in one executable
//! of all components these are many; so it is run here on objects as they came, and only the reading of an object is each type's.

use crate::backoff::Backoff;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ApiResource;
use kube::runtime::watcher::watcher;
pub use kube::runtime::watcher::{Config, Error, Event};
use kube::{Api, Client, Resource};
use raw::Raw;
use serde::de::{DeserializeOwned, Error as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

mod listing;
mod raw;

pub use listing::Listing;

/// What a watch brings, in order; it does not end. An error says why all is asked for again after a while, or which object's change
/// cannot be read and is left out.
pub type Events<K> = BoxStream<'static, Result<Event<K>, Error>>;

/// Watches the objects of a kind, in all namespaces if it has any.
pub fn all<K>(client: Client, config: Config) -> Events<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
{
    resource(client, &ApiResource::erase::<K>(&()), config)
}

/// Watches the objects of a kind, in all namespaces if it has any, for who keeps them all: they come in one list, as pages would
/// only make the first one later. Errors are told in the log.
pub fn kept<K>(client: Client, config: Config) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
{
    all(client, config.page_size(u32::MAX)).filter_map(|event| async move {
        event
            .inspect_err(|error| tracing::warn!(kind = %K::kind(&()), %error, "a watch failed and is tried again"))
            .ok()
    })
}

/// Watches the objects of a kind in one namespace.
pub fn namespaced<K>(client: Client, namespace: &str, config: Config) -> Events<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
{
    typed(Api::namespaced_with(client, namespace, &ApiResource::erase::<K>(&())), config)
}

/// Watches the objects of a resource that is known at run time only, in all namespaces if it has any.
pub fn resource<K: DeserializeOwned + Send + 'static>(
    client: Client,
    resource: &ApiResource,
    config: Config,
) -> Events<K> {
    typed(Api::all_with(client, resource), config)
}

fn typed<K: DeserializeOwned + Send + 'static>(api: Api<Raw>, config: Config) -> Events<K> {
    let anew = Arc::new(AtomicBool::new(false));
    let read = |raw: Raw| serde_json::from_str::<K>(raw.text.get()).map_err(|error| unreadable(&raw, error));
    follow(api, config, anew.clone())
        .map(move |event| match event? {
            Event::Init => Ok(Event::Init),
            // Without it the list would say that the object is gone.
            Event::InitApply(raw) => {
                read(raw).map(Event::InitApply).inspect_err(|_| anew.store(true, Ordering::Release))
            }
            Event::InitDone => Ok(Event::InitDone),
            Event::Apply(raw) => read(raw).map(Event::Apply),
            // A list says, too, that it is gone.
            Event::Delete(raw) => read(raw).map(Event::Delete).inspect_err(|_| anew.store(true, Ordering::Release)),
        })
        .boxed()
}

fn unreadable(raw: &Raw, error: serde_json::Error) -> Error {
    let ObjectMeta { namespace, name, .. } = &raw.metadata;
    let name = name.as_deref().unwrap_or_default();
    let told = match namespace {
        Some(namespace) => format!("{namespace}/{name} cannot be read: {error}"),
        None => format!("{name} cannot be read: {error}"),
    };
    Error::WatchFailed(kube::Error::SerdeError(serde_json::Error::custom(told)))
}

/// Follows a resource, pausing after every error. `anew`: whether what the last event brought was of no use, so that
/// all is to be listed again.
fn follow(api: Api<Raw>, config: Config, anew: Arc<AtomicBool>) -> BoxStream<'static, Result<Event<Raw>, Error>> {
    struct Following<S> {
        events: S,
        backoff: Backoff,
        failed: bool,
    }
    let begin = move || watcher(api.clone(), config.clone()).boxed();
    let following = Following { events: begin(), backoff: Backoff::default(), failed: false };
    stream::unfold((following, begin, anew), |(mut following, begin, anew)| async move {
        if anew.swap(false, Ordering::AcqRel) {
            following.events = begin();
            following.failed = true;
        }
        if std::mem::take(&mut following.failed) {
            tokio::time::sleep(following.backoff.pause()).await;
        }
        // A watcher does not end.
        let event = following.events.next().await?;
        match &event {
            Err(error) => {
                following.failed = true;
                // Told as an answer and not as an event, this would be asked again for ever.
                if matches!(error, Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410) {
                    following.events = begin();
                }
            }
            Ok(Event::InitDone) => following.backoff.settle(),
            // That a list begins is said before it is asked for.
            Ok(Event::Init | Event::InitApply(_) | Event::Apply(_) | Event::Delete(_)) => {}
        }
        Some((event, (following, begin, anew)))
    })
    .boxed()
}

#[cfg(test)]
mod tests;
