//! Collections that are deleted through the registry.

use super::Object;
use crate::cache::sim::client::selected;
use crate::cache::sim::judge::{Judge, Since};
use crate::cache::sim::script::Draw;
use crate::cache::sim::server::Up;
use crate::cache::sim::view::View;
use crate::context::Context;
use crate::options::Options;
use crate::user::UserInfo;
use api::Status;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::testing::sim::world::{Verdict, expect};

/// The deletion of all that someone sees.
#[derive(Clone, Debug)]
pub(in crate::cache::sim) struct Sweep {
    pub(in crate::cache::sim) view: View,
    grace: Option<i64>,
    now: Timestamp,
    /// It is only to be told what would be deleted.
    pub(super) dry: bool,
}

/// What it was answered.
#[derive(Debug)]
pub(in crate::cache::sim) struct Swept {
    /// Of the list.
    revision: i64,
    /// What was listed, as it was then.
    objects: Vec<Object>,
}

impl Swept {
    /// So many objects were deleted.
    pub(in crate::cache::sim) fn len(&self) -> usize {
        self.objects.len()
    }
}

impl Draw<'_> {
    pub(in crate::cache::sim) fn sweep(&mut self) -> Sweep {
        Sweep {
            view: self.view(),
            grace: *self.random.pick(&[None, Some(0), Some(5)]),
            now: Timestamp::from_millisecond(self.wall).unwrap_or_default(),
            dry: self.random.chance(20),
        }
    }
}

/// Deletes a collection.
pub(in crate::cache::sim) async fn sweep(up: Up, sweep: Sweep) -> Result<Swept, Status> {
    let Sweep { view, grace, now, dry } = sweep;
    let (served, filter) = selected(&up, &view, "deletecollection")?;
    let cx = Context::new(Arc::new(UserInfo::apiserver()), "client", now);
    let mut options = Options { dry_run: dry, ..Options::default() };
    options.delete.grace_period_seconds = grace;
    let listed = up.registry.delete_collection(&cx, served, &filter, &view.options(), &options).await?;
    let objects = listed.entries.iter().map(|entry| Object::read(entry.item(), None));
    Ok(Swept {
        revision: listed.revision.cast_signed(),
        objects: objects.collect::<Result<_, _>>().map_err(Status::internal)?,
    })
}

impl Judge {
    /// The deletion of a collection was answered.
    pub(in crate::cache::sim) fn answered_sweep(
        &self,
        sweep: &Sweep,
        since: Since,
        answer: &Result<Swept, Status>,
    ) -> Verdict {
        let view = &sweep.view;
        let swept = match answer {
            Ok(swept) => swept,
            Err(status) if self.is_unknown(status, since) => return Ok(()),
            Err(status) => return self.may_refuse(status, 0, view.storage, |key| view.reaches(key), since),
        };
        let revision = swept.revision;
        expect(revision >= since.revision, || format!("it is of {revision}, and {} was there", since.revision))?;
        expect(revision <= self.revision(), || format!("it is of {revision}, which is not there"))?;
        let seen = self.history.seen(view, revision);
        let mut listed: BTreeMap<&str, &Object> = seen.iter().map(|object| (&*object.key, &***object)).collect();
        for object in &swept.objects {
            let key = object.key.as_str();
            let meant = listed.remove(key);
            expect(meant == Some(object), || format!("{key} is told as {object:?}, and was {meant:?}"))?;
            let versions = self.versions_since(view.storage, key, Since { revision, ..since });
            let mut goes = versions.iter().map(|version| version.as_ref().is_none_or(|v| v.deletion.is_some()));
            expect(sweep.dry || goes.any(|goes| goes), || format!("{key} is said to be deleted, and never was"))?;
        }
        expect(listed.is_empty(), || format!("{:?} were there, and are not told", listed.keys()))
    }
}
