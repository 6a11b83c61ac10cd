//! What clients write, given what they can know.

use super::{BASE, COUNT, Change, MARK, Verb, Write, edited};
use crate::cache::sim::script::Draw;
use crate::cache::sim::view::{Object, PHASES, Storage};
use schema::{Map, Value};

const LABELS: [&str; 3] = ["0", "1", "2"];
const FINALIZERS: [&[&str]; 4] = [&[], &[], &["x/a"], &["x/a", "x/b"]];

/// What a write is about.
pub(in crate::cache::sim) type Subject = (Storage, &'static str, String);

impl Draw<'_> {
    /// What several may write at a time.
    pub(in crate::cache::sim) fn subject(&mut self) -> Subject {
        let storage = if self.random.chance(60) { Storage::Pods } else { Storage::ConfigMaps };
        let (namespace, name) = self.named(storage);
        (storage, namespace, name)
    }

    /// A write of something; mostly of what is there.
    pub(in crate::cache::sim) fn request(&mut self, subject: Option<Subject>) -> Write {
        let (storage, namespace, name) = match subject {
            Some(subject) => subject,
            None => self.subject(),
        };
        let key = format!("{namespace}/{name}");
        let now = jiff::Timestamp::from_millisecond(self.wall).unwrap_or_default();
        *self.unique += 1;
        let mark = format!("m{}", *self.unique);
        let current = self.judge.history.at(storage, &key, i64::MAX).map(|object| Object::clone(object));
        // What the client saw last, which may be some time ago.
        let versions = self.judge.history.texts(storage, &key);
        let back = if self.random.chance(60) { 0 } else { self.random.index(versions.len().max(1)) };
        let seen = versions.iter().rev().nth(back).map(|(revision, text)| (*revision, text.clone()));
        let known = seen.as_ref().and_then(|(revision, text)| Object::read(text, Some(*revision)).ok());
        let version = known.as_ref().filter(|_| self.random.chance(30)).map(|known| known.revision);
        let uid = known.as_ref().filter(|_| self.random.chance(25)).map(|known| known.uid.clone());
        let new = if current.is_some() { self.random.chance(10) } else { self.random.chance(60) };
        let applies = !storage.has_status() && current.is_none() && self.random.chance(40);
        let going = current.as_ref().is_some_and(|object| object.deletion.is_some() && !object.finalizers.is_empty());
        let lets_go = going && self.random.chance(40);
        let mut write =
            Write { storage, namespace, name, verb: Verb::Count(String::new()), mark, now, dry: false, dice: 0 };
        write.dry = self.random.chance(12);
        write.dice = self.random.draw();
        write.verb = match (self.random.below(20), seen, known) {
            (..3, ..) => {
                write.name = String::new();
                Verb::Create(self.body(&write))
            }
            _ if lets_go => Verb::Patch(Change { finalizers: Some(Vec::new()), ..self.change(uid, version) }),
            // What pods must have it does not give.
            (..17, ..) if applies => Verb::Apply(LABELS[self.random.index(LABELS.len())]),
            (15 | 16, ..) if !storage.has_status() => Verb::Apply(LABELS[self.random.index(LABELS.len())]),
            _ if new => Verb::Create(self.body(&write)),
            (3..7, Some((revision, text)), _) => {
                let version = self.random.chance(60).then_some(revision);
                match self.resent(version, &text, &write.mark) {
                    Some(text) => Verb::Replace(text, version),
                    None => Verb::Create(self.body(&write)),
                }
            }
            (7..9, _, Some(known)) => {
                let seen = known.annotations.get(COUNT).cloned().unwrap_or_default();
                Verb::Count(seen)
            }
            (9 | 10, ..) if storage.has_status() => {
                write.mark = String::new();
                Verb::Phase(PHASES[self.random.index(PHASES.len())], version)
            }
            (11..15, ..) => {
                write.mark = String::new();
                Verb::Delete { grace: *self.random.pick(&[None, None, Some(0), Some(5)]), uid, version }
            }
            _ => {
                let change = self.change(uid, version);
                if change.annotation.is_none() && change.finalizers.is_none() && self.random.chance(60) {
                    // It may have nothing to do.
                    write.mark = String::new();
                }
                Verb::Patch(change)
            }
        };
        write
    }

    fn change(&mut self, uid: Option<String>, version: Option<i64>) -> Change {
        let random = &mut self.random;
        let label = match random.below(4) {
            0 => None,
            1 => Some(("t", if random.chance(50) { Some("x".to_owned()) } else { None })),
            _ => Some(("l", Some(random.below(3).to_string()))),
        };
        let annotation = random.chance(50).then(|| format!("k{}", random.below(3)));
        let finalizers = random.chance(30).then(|| random.pick(&FINALIZERS).to_vec());
        Change { label, annotation, finalizers, uid, version }
    }

    /// A new object.
    fn body(&mut self, write: &Write) -> String {
        let name = if write.generates() { Err(BASE) } else { Ok(write.name.as_str()) };
        let finalizers = *self.random.pick(&FINALIZERS);
        self.text(write.storage, (write.namespace, name), &write.mark, finalizers, None)
    }

    /// An object that a client saw, changed.
    fn resent(&mut self, version: Option<i64>, text: &[u8], mark: &str) -> Option<String> {
        let change = self.change(None, None);
        let anyone = self.random.chance(30);
        edited(text, |object| {
            if let Some(version) = version {
                object.set_at(&["metadata", "resourceVersion"], version.to_string());
            }
            if anyone {
                object.remove_at(&["metadata", "uid"]);
            }
            let mut set = |path: &[&'static str; 3], value: Option<String>| match value {
                Some(value) => object.set_at(path, value),
                None => drop(object.remove_at(path)),
            };
            set(&["metadata", "annotations", MARK], Some(mark.to_owned()));
            if let Some((label, value)) = change.label {
                set(&["metadata", "labels", label], value);
            }
            match change.finalizers {
                Some(finalizers) if finalizers.is_empty() => drop(object.remove_at(&["metadata", "finalizers"])),
                Some(finalizers) => set_finalizers(object, &finalizers),
                None => {}
            }
        })
    }
}

fn set_finalizers(object: &mut Map, finalizers: &[&str]) {
    let finalizers: Vec<Value> = finalizers.iter().map(|finalizer| Value::from(*finalizer)).collect();
    object.set_at(&["metadata", "finalizers"], finalizers);
}
