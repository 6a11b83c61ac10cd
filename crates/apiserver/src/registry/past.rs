//! What was there at a moment, and the versions of an object, as far back as the store keeps them.
//!
//! It is read from the store, not from memory. Who may look is decided by today's roles; but rights in a namespace reach back
//! only to its creation, so that nobody sees what others had in a namespace of that name before.

use super::commit::refused;
use super::measures::Storing;
use super::token::Token;
use super::{Listed, Registry, Served};
use crate::authz::{self, Decision};
use crate::cache::{Cacher, Chain, Entry, Filter, Scope};
use crate::context::Context;
use crate::options::ListOptions;
use crate::request::{Moment, RequestInfo};
use api::Status;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Instant;
use store::{History, KeyRange, KeyValue, Range};

/// Versions of an object that are told when nobody says how many.
const VERSIONS: usize = 500;

/// Versions of an object.
#[derive(Debug)]
pub struct Past {
    /// Newest first.
    pub versions: Vec<PastVersion>,
    /// The version to go on from, of older ones.
    pub next: Option<u64>,
    /// What happened before is not kept, or not for who asks.
    pub since: u64,
}

/// A version of an object, or its removal.
#[derive(Debug)]
pub struct PastVersion {
    pub revision: u64,
    pub time: Option<Timestamp>,
    pub became: Became,
}

/// What an object became.
#[derive(Debug)]
pub enum Became {
    Added(Entry),
    Modified(Entry),
    Removed,
    /// It was there, but is not readable any more, for this reason: it was encrypted with a key that is gone.
    Unreadable(String),
}

/// The keys that may be in a scope.
fn keys(cacher: &Cacher, scope: &Scope, namespace: Option<&str>) -> KeyRange {
    let prefix = &cacher.layout.prefix;
    let below = |namespace: &str| KeyRange::prefix(format!("{prefix}{namespace}/"));
    match scope {
        Scope::Key(key) => KeyRange::key(format!("{prefix}{key}")),
        Scope::Namespace(namespace) | Scope::Label { namespace: Some(namespace), .. } => below(namespace),
        Scope::All | Scope::Field(..) | Scope::Label { namespace: None, .. } => {
            namespace.map_or_else(|| KeyRange::prefix(prefix.clone()), below)
        }
    }
}

fn time(second: Option<i64>) -> Option<Timestamp> {
    second.and_then(|second| Timestamp::from_second(second).ok())
}

/// The entry of a past value, or why it is not readable.
fn entry(cacher: &Cacher, kv: &KeyValue) -> Result<Entry, String> {
    let key = String::from_utf8_lossy(&kv.key);
    let name = key.strip_prefix(&cacher.layout.prefix).unwrap_or(&key);
    let entry = cacher.entry(name, kv.mod_revision.cast_unsigned(), &kv.value);
    entry.map_err(|error| format!("unable to transform key {}: {}", api::field::go_quote(&key), Chain(&error)))
}

impl Registry {
    fn history(&self) -> Result<&dyn History, Status> {
        self.store.history().ok_or_else(|| Status::bad_request("the store of this server keeps no history"))
    }

    /// The revision of a moment, for objects of a scope, and when it was, if that is known.
    ///
    /// # Errors
    /// 410 before what is kept, 400 for a moment that is still to come.
    pub async fn moment(
        &self,
        cx: &Context,
        served: &Served,
        filter: &Filter,
        moment: Moment,
    ) -> Result<(u64, Option<Timestamp>), Status> {
        let cacher = served.storage("get")?;
        let history = self.history()?;
        match moment {
            Moment::Revision(revision) => {
                let second = history.time_of(revision.cast_signed()).await.map_err(|error| refused(&error))?;
                Ok((revision, time(second)))
            }
            Moment::Second(second) => {
                if second > cx.now.as_second() {
                    let (asked, now) = (time(Some(second)).unwrap_or(Timestamp::MAX), cx.now);
                    return Err(Status::bad_request(format!("{asked} is still to come: it is {now}")));
                }
                let keys = keys(cacher, &filter.scope, filter.namespace.as_deref());
                match history.revision_at(&keys, second).await {
                    Ok(revision) => Ok((revision.cast_unsigned(), time(Some(second)))),
                    Err(error) => Err(self.lost(served, &error).await),
                }
            }
        }
    }

    /// What is told of a moment that the store does not have.
    async fn lost(&self, served: &Served, error: &store::Error) -> Status {
        let what = served.group_resource();
        let of = |second: Option<i64>| time(second).map_or_else(String::new, |time| format!(", of {time}"));
        match error {
            store::Error::Compacted { asked, compacted } => {
                let since = match self.history() {
                    Ok(history) => history.time_of(*compacted).await.ok().flatten(),
                    Err(_) => None,
                };
                let since = of(since);
                Status::expired(format!(
                    "resource version {asked} is older than what is kept of {what}: the oldest is {compacted}{since}"
                ))
            }
            store::Error::TimeNotKept { asked, oldest: oldest @ Some(_) } => {
                let asked = time(Some(*asked)).unwrap_or(Timestamp::MIN);
                Status::expired(format!(
                    "{asked} is older than what is kept of {what}: the oldest is{}",
                    &of(*oldest)[1..]
                ))
            }
            store::Error::TimeNotKept { oldest: None, .. } => Status::bad_request(format!(
                "this store does not know what {what} there were at a time: ask for a resource version"
            )),
            store::Error::FutureRevision { asked, current } => {
                Status::bad_request(format!("resource version {asked} is still to come: the latest is {current}"))
            }
            other => refused(other),
        }
    }

    /// The revision from which on the user may see what was there in the namespace of a request: that of its creation, or any
    /// for whom the same is allowed in all namespaces.
    ///
    /// # Errors
    /// 403 when there is no such namespace and the user has no such right.
    pub async fn visible_since(&self, cx: &Context, info: &RequestInfo) -> Result<u64, Status> {
        let Some(authorizer) = self.authorizer.get().filter(|_| !info.namespace.is_empty()) else { return Ok(0) };
        let wide = authz::Attributes { namespace: "", ..authz::Attributes::of(&cx.user, info) };
        match authorizer.authorize(&wide).await {
            Decision::Allow(_) => Ok(0),
            no => match self.namespace_created(&info.namespace).await? {
                Some(created) => Ok(created),
                None => Err(authz::forbidden(&wide, no.reason())),
            },
        }
    }

    /// The revision that created a namespace that is there.
    async fn namespace_created(&self, namespace: &str) -> Result<Option<u64>, Status> {
        let namespaces = self.preferred("", "namespaces");
        let Some(cacher) = namespaces.as_ref().and_then(|served| served.cacher.as_ref()) else { return Ok(None) };
        let range = Range::of(KeyRange::key(format!("{}{namespace}", cacher.layout.prefix)));
        let read = self.store.range(Range { keys_only: true, ..range }).await.map_err(|error| refused(&error))?;
        Ok(read.kvs.first().map(|kv| kv.create_revision.cast_unsigned()))
    }

    /// Refuses a moment before the namespace of the request was made, unless the user may look at all of them.
    ///
    /// # Errors
    /// 403.
    pub async fn allow_moment(
        &self,
        cx: &Context,
        served: &Served,
        info: &RequestInfo,
        revision: u64,
    ) -> Result<(), Status> {
        let since = self.visible_since(cx, info).await?;
        if revision >= since {
            return Ok(());
        }
        let why = format!(
            "the namespace {:?} was made after that moment, in resource version {since}: what was there before is for those who may {} them in all namespaces",
            info.namespace, info.verb
        );
        Err(Status::forbidden(&served.group_resource(), &info.name, why))
    }

    /// An object as it was at a revision.
    ///
    /// # Errors
    /// 404 when there was none, 410 before what is kept.
    pub async fn get_at(&self, served: &Served, namespace: &str, name: &str, revision: u64) -> Result<Entry, Status> {
        let cacher = served.storage("get")?;
        super::check_segments(namespace, name)?;
        let keys = keys(cacher, &Scope::Key(Cacher::key(namespace, name)), None);
        let read = self.history()?.range_at(Range::of(keys).at(revision.cast_signed())).await;
        let kvs = match read {
            Ok(read) => read.kvs,
            Err(error) => return Err(self.lost(served, &error).await),
        };
        let kv = kvs.first().ok_or_else(|| Status::not_found(&served.group_resource(), name))?;
        entry(cacher, kv).map_err(Status::internal)
    }

    /// The objects that a filter sees, as they were at a revision.
    ///
    /// # Errors
    /// 410 before what is kept.
    pub async fn list_at(
        &self,
        served: &Served,
        filter: &Filter,
        options: &ListOptions,
        revision: u64,
    ) -> Result<Listed, Status> {
        let cacher = served.storage("list")?;
        let prefix = &cacher.layout.prefix;
        let mut range = Range::of(keys(cacher, &filter.scope, filter.namespace.as_deref())).at(revision.cast_signed());
        if let Some(token) = options.token.as_ref().filter(|_| range.keys.end.is_some()) {
            // The least key behind it.
            let after = format!("{prefix}{}\0", token.after);
            range.keys.start = range.keys.start.max(after.into());
        }
        let selects = filter.selects() || filter.scope.is_indexed();
        if !selects {
            range.limit = options.limit;
        }
        let group = cacher.layout.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let what = Storing { group, operation: "list", resource: &cacher.layout.resource };
        let (history, began) = (self.history()?, Instant::now());
        let read = history.range_at(range).await;
        self.measures.stored(what, read.is_err(), began.elapsed());
        let read = match read {
            Ok(read) => read,
            Err(error) => return Err(self.lost(served, &error).await),
        };
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        let mut more = read.more;
        let mut evaluated = 0;
        for kv in &read.kvs {
            evaluated += 1;
            let entry = entry(cacher, kv).map_err(Status::internal)?;
            if selects && !filter.sees(&entry, cacher.paths()) {
                continue;
            }
            if options.limit > 0 && entries.len() == options.limit {
                more = true;
                break;
            }
            entries.push(Arc::new(entry));
        }
        self.measures.listed(what, read.kvs.len(), evaluated, entries.len());
        let remaining = (more && !selects).then(|| read.count - entries.len());
        let next = entries.last().filter(|_| more).map_or_else(String::new, |last| {
            Token { revision: Some(revision), after: last.key().to_owned(), seen: None }.encode()
        });
        Ok(Listed { entries, revision, next, remaining })
    }

    /// The latest versions of an object up to `until` (0: the present), those from `since` on.
    ///
    /// # Errors
    /// 410 before what is kept.
    pub async fn versions(
        &self,
        served: &Served,
        (namespace, name): (&str, &str),
        (since, until): (u64, u64),
        limit: usize,
    ) -> Result<Past, Status> {
        let cacher = served.storage("get")?;
        super::check_segments(namespace, name)?;
        let limit = if limit == 0 { VERSIONS } else { limit.min(VERSIONS) };
        let key = format!("{}{}", cacher.layout.prefix, Cacher::key(namespace, name));
        let told = match self.history()?.versions(key.into(), until.cast_signed(), limit).await {
            Ok(told) => told,
            Err(error) => return Err(self.lost(served, &error).await),
        };
        let mut versions = Vec::with_capacity(told.versions.len());
        let mut hidden = false;
        for version in told.versions {
            let revision = version.revision.cast_unsigned();
            hidden = revision < since;
            if hidden {
                break;
            }
            versions.push(PastVersion {
                revision,
                time: time(version.time),
                became: match version.kv {
                    None => Became::Removed,
                    Some(kv) => match entry(cacher, &kv) {
                        Ok(entry) if kv.version == 1 => Became::Added(entry),
                        Ok(entry) => Became::Modified(entry),
                        Err(why) => Became::Unreadable(why),
                    },
                },
            });
        }
        let next = versions.last().filter(|_| told.more && !hidden).map(|oldest| oldest.revision - 1);
        Ok(Past { versions, next, since: since.max(told.since.cast_unsigned()) })
    }
}
