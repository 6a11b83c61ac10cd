//! What writes through the registry may be answered, and may have done: each is as if it were done at one moment between when
//! it was asked and when it was answered, to the object as it was then.

use super::outcome::Outcome;
use super::{MARK, Sweep, Write, Wrote};
use crate::cache::feed::PATIENCE;
use crate::cache::sim::judge::{Judge, Since};
use crate::cache::sim::view::{Happened, Object, Storage};
use api::Status;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use store::testing::sim::ask::Ask;
use store::testing::sim::world::{Verdict, expect};
use store::{KeyRange, Op};

/// Writes that were asked for.
#[derive(Default)]
pub(in crate::cache::sim) struct Writes {
    /// By their marks.
    marked: BTreeMap<String, Marked>,
    /// Who made revisions of which a write was answered.
    made: BTreeMap<i64, Maker>,
    /// What may have removed an object, or begun to, but for dry runs.
    removers: Removers,
}

#[derive(Default)]
struct Removers {
    /// Those through the registry, with the revision since when.
    writes: Vec<(Write, i64)>,
    sweeps: Vec<(Sweep, Since)>,
    /// Keys that another server deleted, or was about to.
    others: Vec<KeyRange>,
    /// Keys that were put with a lease, so that they may go by themselves.
    leased: BTreeSet<bytes::Bytes>,
}

/// Who made a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    /// One that had something to do.
    Sure,
    /// One that may as well have come later, and had nothing to do.
    Likely,
}

struct Marked {
    write: Write,
    since: Since,
    /// The revision that has its mark.
    made: Option<i64>,
}

fn mark_of(object: Option<&Rc<Object>>) -> &str {
    object.and_then(|object| object.annotations.get(MARK)).map_or("", String::as_str)
}

impl Write {
    /// Whether it made this of what was there.
    fn made(&self, happened: &Happened) -> bool {
        match (self.outcome(happened.before.as_deref()), &happened.now) {
            (Outcome::Becomes(mut expected) | Outcome::Fades(mut expected), Some(now)) => {
                if happened.before.is_none() {
                    // Made by the registry, and another than before.
                    expected.uid.clone_from(&now.uid);
                    expected.key.clone_from(&now.key);
                }
                expected.at(now.revision) == **now
            }
            (Outcome::Goes(_), None) => true,
            _ => false,
        }
    }
}

impl Judge {
    /// A write is asked for.
    pub(in crate::cache::sim) fn asked(&mut self, write: &Write) -> Since {
        let since = self.since();
        if !write.dry {
            self.writes.removers.writes.push((write.clone(), since.revision));
        }
        if !write.mark.is_empty() {
            let marked = Marked { write: write.clone(), since, made: None };
            self.writes.marked.insert(write.mark.clone(), marked);
        }
        since
    }

    /// A collection is to be deleted.
    pub(in crate::cache::sim) fn asked_sweep(&mut self, sweep: &Sweep) -> Since {
        let since = self.since();
        if !sweep.dry {
            self.writes.removers.sweeps.push((sweep.clone(), since));
        }
        since
    }

    /// Another server is about to do something.
    pub(in crate::cache::sim) fn asked_elsewhere(&mut self, ask: &Ask) {
        let Ask::Txn(txn) = ask else { return };
        for op in &txn.success {
            match op {
                Op::Delete { keys } => self.writes.removers.others.push(keys.clone()),
                Op::Put { key, lease, .. } if *lease != 0 => drop(self.writes.removers.leased.insert(key.clone())),
                _ => {}
            }
        }
    }

    /// Who may have removed it, or begun to, has been asked for.
    fn explain_removal(&self, storage: Storage, happened: &Happened) -> Verdict {
        let Some(before) = &happened.before else { return Ok(()) };
        let begun = |now: &Object| now.uid == before.uid && now.deletion.is_some() && now.deletion != before.deletion;
        if happened.now.as_ref().is_some_and(|now| !begun(now)) {
            return Ok(());
        }
        let removers = &self.writes.removers;
        let gone = happened.now.is_none();
        let last = before.deletion.as_ref().is_some_and(|(_, grace)| *grace == 0);
        let writes = |(write, since): &(Write, i64)| {
            let same = write.storage == storage && write.key() == before.key && *since < happened.revision;
            same && (write.deletes() || gone && last)
        };
        let sweeps = |(sweep, since): &(Sweep, Since)| {
            let versions = || self.versions_since(storage, &before.key, *since);
            let view = &sweep.view;
            view.storage == storage
                && since.revision < happened.revision
                && versions().iter().flatten().any(|version| view.sees(version))
        };
        let full = bytes::Bytes::from(format!("{}{}", storage.prefix(), before.key));
        let elsewhere = || removers.leased.contains(&full) || removers.others.iter().any(|keys| keys.contains(&full));
        let asked = removers.writes.iter().any(writes) || gone && elsewhere() || removers.sweeps.iter().any(sweeps);
        expect(asked, || format!("nobody wanted this to go: {happened:?}"))
    }

    /// What happened from a revision on has been asked for, each once, and did what was asked.
    pub(in crate::cache::sim) fn explain(&mut self, storage: Storage, happened: &[Happened]) -> Verdict {
        for happened in happened {
            self.explain_removal(storage, happened)?;
            let mark = mark_of(happened.now.as_ref());
            if mark == mark_of(happened.before.as_ref()) || !mark.starts_with('m') {
                continue;
            }
            let revision = happened.revision;
            let Some(marked) = self.writes.marked.get_mut(mark) else {
                return Err(format!("nobody asked for {happened:?}"));
            };
            expect(!marked.write.dry, || format!("{:?} was a dry run, and was done: {happened:?}", marked.write))?;
            let once = marked.made.replace(revision);
            expect(once.is_none(), || format!("{:?} was done at {once:?} and at {revision}", marked.write))?;
            expect(marked.write.made(happened) && marked.since.revision < revision, || {
                format!("{:?} was done to something else: {happened:?}", marked.write)
            })?;
        }
        Ok(())
    }

    /// A write was answered.
    pub(in crate::cache::sim) fn answered_write(
        &mut self,
        write: &Write,
        since: Since,
        answer: &Result<Wrote, Status>,
    ) -> Verdict {
        match answer {
            Ok(wrote) if write.dry => self.would_write(write, since, wrote),
            Ok(wrote) => {
                self.wrote(write, since, wrote)?;
                self.found(write, since, wrote)
            }
            Err(status) => self.refused_write(write, since, status),
        }
    }

    /// A dry run tells what would have come of it at some time since.
    fn would_write(&self, write: &Write, since: Since, wrote: &Wrote) -> Verdict {
        let versions = self.versions_since(write.storage, &wrote.object.key, since);
        let comes_to = |object: Option<&Object>| match write.outcome(object) {
            Outcome::Becomes(mut made) => {
                if object.is_none() {
                    made.uid.clone_from(&wrote.object.uid);
                    made.key.clone_from(&wrote.object.key);
                }
                made.at(0) == wrote.object && !wrote.gone
            }
            Outcome::Goes(last) => last.at(0) == wrote.object && wrote.gone == write.deletes(),
            Outcome::Fades(last) => last.at(0) == wrote.object && wrote.gone,
            Outcome::Stays => object.is_some_and(|object| object.at(0) == wrote.object) && !wrote.gone,
            Outcome::Refused(..) => false,
        };
        expect(versions.iter().any(|object| comes_to(object.as_deref())), || {
            format!("it would not have come to that, as it was\n {versions:?}")
        })
    }

    fn wrote(&mut self, write: &Write, since: Since, wrote: &Wrote) -> Verdict {
        let (revision, key) = (wrote.object.revision, wrote.object.key.as_str());
        expect(revision <= self.revision(), || format!("it is of {revision}, which is not there"))?;
        let happened = self.history.happened(write.storage, key, revision);
        // Nothing was to be done to the object as it was at some time since.
        let versions = self.versions_since(write.storage, key, since);
        let idle = versions.iter().flatten().find(|object| object.revision == revision).is_some_and(|object| {
            let outcome = write.outcome(Some(object));
            let stays = outcome == Outcome::Stays || outcome == Outcome::Becomes(Object::clone(object));
            stays && **object == wrote.object && !wrote.gone
        });
        let did = |happened: &&Happened| write.made(happened) || self.ended(write, since, happened);
        let made = happened.filter(|happened| revision > since.revision && did(happened));
        // Of several who may have done it, only one has; whoever else may have had nothing to do had not.
        let other = self.writes.made.get(&revision).copied();
        let Some(happened) = made.filter(|_| other != Some(Maker::Sure)) else {
            return expect(idle, || format!("it did not do it, and it was to be done: {happened:?}"));
        };
        let (told, gone) = match (write.outcome(happened.before.as_deref()), &happened.now) {
            (Outcome::Goes(last), _) => (last.at(revision), write.deletes()),
            (Outcome::Fades(_), Some(now)) => {
                let mut later = self.history.since(write.storage, revision + 1).iter();
                // Another server may as well put another in its place.
                let other = |now: &Option<Rc<Object>>| now.as_ref().is_none_or(|now| now.uid != wrote.object.uid);
                let gone = later.any(|later| later.key() == key && other(&later.now));
                expect(gone, || "nobody removed what it had told the end of".to_owned())?;
                (Object::clone(now), true)
            }
            (_, Some(now)) => (Object::clone(now), false),
            (_, None) => match &happened.before {
                Some(last) => (Object::clone(last).at(revision), true),
                None => return Err(format!("{happened:?} is nothing")),
            },
        };
        expect(told == wrote.object && gone == wrote.gone, || format!("it made {told:?}, gone: {gone}"))?;
        let marked = self.writes.marked.get(&write.mark).map(|marked| marked.made);
        // What is removed is told with its mark to nobody else.
        let fits = marked.is_none_or(|made| made == happened.now.is_some().then_some(revision));
        expect(fits, || format!("its mark is of {marked:?}"))?;
        self.writes.made.insert(revision, if idle { Maker::Likely } else { Maker::Sure });
        Ok(())
    }

    /// Whether a write removed what it had told the end of, and so made another version of.
    fn ended(&self, write: &Write, since: Since, happened: &Happened) -> bool {
        let Some(before) = happened.before.as_ref().filter(|_| happened.now.is_none()) else { return false };
        let told = self.history.happened(write.storage, &before.key, before.revision);
        told.filter(|told| told.revision > since.revision).is_some_and(|told| {
            let outcome = write.outcome(told.before.as_deref());
            matches!(outcome, Outcome::Fades(end) if end.at(before.revision) == **before)
        })
    }

    /// What an object was from a moment on, one version after another; `None`: it was not there.
    pub(super) fn versions_since(&self, storage: Storage, key: &str, since: Since) -> Vec<Option<Rc<Object>>> {
        let mut versions = vec![self.history.at(storage, key, since.revision).cloned()];
        let happened = self.history.since(storage, since.revision + 1).iter();
        versions.extend(happened.filter(|happened| happened.key() == key).map(|happened| happened.now.clone()));
        versions
    }

    /// Its client finds what it wrote, or what came after it.
    fn found(&self, write: &Write, since: Since, wrote: &Wrote) -> Verdict {
        let (before, known) = (since.known, self.known);
        let apart = before.apart || known.breaks > before.breaks;
        let waited = self.now - since.time >= PATIENCE.as_millis() as u64;
        let least = if apart || waited { 1 } else { wrote.object.revision };
        let key = &wrote.object.key;
        let found = match &wrote.found {
            Ok(found) => found.as_ref(),
            Err(status) => return self.may_refuse(status, 0, write.storage, |dark| dark == key, since),
        };
        let mut possible = (least..=self.revision()).map(|revision| self.history.at(write.storage, key, revision));
        expect(possible.any(|object| object.map(|object| &**object) == found), || {
            format!("its client found {found:?} right after that, which it was at no revision from {least} on")
        })
    }

    /// Whether nobody knows what became of a write that was refused so.
    pub(super) fn is_unknown(&self, status: &Status, since: Since) -> bool {
        let (before, known) = (since.known, self.known);
        match status.code {
            // The disk failed, and takes no writes for a while; or nobody knows what became of it.
            503 | 504 | 500 if known.failures > before.failures => true,
            503 => known.losses > before.losses || known.failures > 0,
            504 => self.lost_patience(since),
            _ => false,
        }
    }

    fn refused_write(&mut self, write: &Write, since: Since, status: &Status) -> Verdict {
        let name = status.details.as_ref().map_or("", |details| details.name.as_str());
        let key = if write.generates() { format!("{}/{name}", write.namespace) } else { write.key() };
        if self.is_unknown(status, since) {
            return Ok(());
        }
        if status.code == 500 {
            // It is sealed, and was when it was looked at.
            let sealed = |object: &Rc<Object>| object.is_sealed();
            let keyless = self.keyless.is_some_and(|look| look >= since.look);
            let seen = self.versions_since(write.storage, &key, since).iter().flatten().any(sealed);
            if keyless && seen || self.dark.was(write.storage, |dark| dark == key, since.look) {
                return Ok(());
            }
        }
        let marked = self.writes.marked.get(&write.mark).and_then(|marked| marked.made);
        expect(marked.is_none(), || format!("it was done at {marked:?}"))?;
        // Of a generated name the last is told, and that others were tried.
        let tried = !write.generates() || status.message.contains("not able to generate a unique name");
        let versions = self.versions_since(write.storage, &key, since);
        let told = Outcome::Refused(status.code, status.reason);
        expect(tried && versions.iter().any(|object| write.outcome(object.as_deref()) == told), || {
            format!("{} {:?} {}: it was\n {versions:?}", status.code, status.reason, status.message)
        })
    }
}
