//! Watchers that remember every event, and resume from the last one whenever their stream ends.

use crate::Fallible;
use crate::arena::PATIENCE;
use crate::dice::Dice;
use crate::load::{SELECTOR, SENTINEL, Shared, token_of};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::testing::history::{Told, Watched};

/// How a watcher goes on after its stream ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Habit {
    /// From the last event or bookmark.
    Resume,
    /// The same, and it leaves its stream again and again by itself.
    Restless,
    /// From a new list.
    Relist,
}

/// One watcher: its number, how it goes on, and what it has been told so far.
pub struct Watcher {
    pub number: usize,
    pub habit: Habit,
    pub dice: Dice,
    pub shared: Arc<Shared>,
}

impl Watcher {
    /// Watches until it has seen the event of the sentinel; gives all that it was told.
    pub async fn run(self, client: Client) -> Fallible<Vec<Watched>> {
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        let mut stretches: Vec<Watched> = Vec::new();
        // The bookmark or event from which it goes on.
        let mut position = 0;
        loop {
            self.shared.up().await;
            if stretches.is_empty() || self.habit == Habit::Relist {
                match self.shared.list(&api, self.number).await {
                    Some(revision) => position = revision,
                    None => {
                        tokio::task::yield_now().await;
                        continue;
                    }
                }
                let stretch = Watched { client: self.number, after: position, until: position, ..Watched::default() };
                stretches.push(stretch);
            }
            let params = WatchParams::default().labels(SELECTOR).timeout(280);
            let stream = match api.watch(&params, &position.to_string()).await {
                Ok(stream) => stream.boxed(),
                Err(kube::Error::Api(status)) if status.code == 410 => return Err(expired(position, &status.message)),
                // It is down, or going down.
                Err(_) => {
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let stretch = stretches.last_mut().ok_or("no stretch")?;
            if self.follow(stream, stretch, &mut position).await? {
                return Ok(stretches);
            }
        }
    }

    /// Notes what a stream tells until it ends; whether that was the end of all.
    async fn follow(
        &self,
        mut stream: futures::stream::BoxStream<'_, kube::Result<WatchEvent<ConfigMap>>>,
        stretch: &mut Watched,
        position: &mut i64,
    ) -> Fallible<bool> {
        let mut left = if self.habit == Habit::Restless { 1 + self.dice.below(60) } else { u64::MAX };
        while left > 0 {
            left -= 1;
            let told = tokio::time::timeout(PATIENCE, stream.next()).await;
            let told = told.map_err(|_| format!("a watch from revision {position} is told nothing any more"))?;
            let (object, there) = match told {
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => (object, true),
                Some(Ok(WatchEvent::Deleted(object))) => (object, false),
                Some(Ok(WatchEvent::Bookmark(mark))) => {
                    let revision: i64 = mark.metadata.resource_version.parse()?;
                    if revision < *position {
                        return Err(format!("a bookmark goes back from {position} to {revision}").into());
                    }
                    (*position, stretch.until) = (revision, revision);
                    continue;
                }
                Some(Ok(WatchEvent::Error(status))) if status.code == 410 => {
                    return Err(expired(*position, &status.message));
                }
                Some(Ok(WatchEvent::Error(_)) | Err(_)) | None => return Ok(false),
            };
            let revision: i64 = object.resource_version().ok_or("an event without revision")?.parse()?;
            if revision <= *position {
                return Err(format!("a watch at revision {position} was told of {revision}").into());
            }
            (*position, stretch.until) = (revision, revision);
            let key = object.name_any();
            let last = there && key == SENTINEL;
            stretch.events.push(Told { key, revision, value: there.then(|| token_of(&object)) });
            self.shared.trace.seen.fetch_add(1, Ordering::Relaxed);
            if last {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn expired(position: i64, message: &str) -> Box<dyn std::error::Error + Send + Sync> {
    format!("a watch from revision {position} was told that it is gone, though that was just now: {message}").into()
}
