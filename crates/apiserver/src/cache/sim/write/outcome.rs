//! What a write does to an object, as clients may rely on it: of one version after another, none of the cache.

use super::{COUNT, MARK, Verb, Write};
use crate::cache::sim::view::{Object, Storage};
use api::Reason;
use jiff::{SignedDuration, Timestamp};

/// What a write comes to, given the object as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is this then, but for its revision.
    Becomes(Object),
    /// It is removed, and was this last.
    Goes(Object),
    /// It becomes this, and is removed then.
    Fades(Object),
    /// Nothing is to be done.
    Stays,
    Refused(u16, Reason),
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What an update makes of an object, or the removal that it is when nothing holds it any more.
fn updated(object: Object) -> Outcome {
    match &object.deletion {
        Some((_, 0)) if object.finalizers.is_empty() => Outcome::Goes(object),
        _ => Outcome::Becomes(object),
    }
}

/// What an update may not change.
fn is_valid(sent: &Object, current: &Object) -> bool {
    let deletion = sent.deletion.is_none() || sent.deletion == current.deletion;
    let created = sent.created.is_empty() || sent.created == current.created;
    let held = |finalizer: &String| current.deletion.is_none() || current.finalizers.contains(finalizer);
    deletion && created && sent.node == current.node && sent.finalizers.iter().all(held)
}

const CONFLICT: Outcome = Outcome::Refused(409, Reason::Conflict);
const INVALID: Outcome = Outcome::Refused(422, Reason::Invalid);

impl Write {
    /// What it comes to.
    pub(super) fn outcome(&self, current: Option<&Object>) -> Outcome {
        if let Verb::Create(text) = &self.verb {
            return match current {
                Some(_) => Outcome::Refused(409, Reason::AlreadyExists),
                None => self.created(text),
            };
        }
        if let Verb::Apply(label) = &self.verb {
            let mut object = current.cloned().unwrap_or_else(|| self.applied());
            object.labels.insert("l".to_owned(), (*label).to_owned());
            object.annotations.insert(MARK.to_owned(), self.mark.clone());
            return updated(object);
        }
        let Some(current) = current else { return Outcome::Refused(404, Reason::NotFound) };
        let is_it = |uid: &Option<String>, version: Option<i64>| {
            uid.as_ref().is_none_or(|uid| *uid == current.uid)
                && version.is_none_or(|version| version == current.revision)
        };
        match &self.verb {
            Verb::Create(_) | Verb::Apply(_) => unreachable!("it was told above"),
            Verb::Replace(text, version) => match Object::read(text.as_bytes(), Some(0)) {
                Ok(sent) => replaced(&sent, *version, current),
                Err(_) => INVALID,
            },
            Verb::Patch(change) => {
                let mut object = current.clone();
                if let Some((label, value)) = &change.label {
                    match value {
                        Some(value) => drop(object.labels.insert((*label).to_owned(), value.clone())),
                        None => drop(object.labels.remove(*label)),
                    }
                }
                let annotations = change.annotation.iter().map(String::as_str);
                for annotation in annotations.chain((!self.mark.is_empty()).then_some(MARK)) {
                    object.annotations.insert(annotation.to_owned(), self.mark.clone());
                }
                if let Some(finalizers) = &change.finalizers {
                    object.finalizers = finalizers.iter().map(|finalizer| (*finalizer).to_owned()).collect();
                }
                // A patch that says another uid would change it.
                match (is_it(&None, change.version), is_it(&change.uid, None)) {
                    (false, _) => CONFLICT,
                    (true, false) => INVALID,
                    (true, true) if !is_valid(&object, current) => INVALID,
                    (true, true) => updated(object),
                }
            }
            Verb::Phase(phase, version) => match is_it(&None, *version) {
                true => updated(Object { phase: (*phase).to_owned(), ..current.clone() }),
                false => CONFLICT,
            },
            Verb::Count(seen) => {
                if current.annotations.get(COUNT) != Some(seen) {
                    return INVALID;
                }
                let mut object = current.clone();
                object.annotations.insert(COUNT.to_owned(), (seen.parse::<u64>().unwrap_or(0) + 1).to_string());
                object.annotations.insert(MARK.to_owned(), self.mark.clone());
                updated(object)
            }
            Verb::Delete { grace, uid, version } => match is_it(uid, *version) {
                true => self.deleted(*grace, current),
                false => CONFLICT,
            },
        }
    }

    fn created(&self, text: &str) -> Outcome {
        let Ok(sent) = Object::read(text.as_bytes(), Some(0)) else { return INVALID };
        let phase = if self.storage == Storage::Pods { "Pending" } else { "" };
        Outcome::Becomes(Object { created: time(self.now), phase: phase.to_owned(), deletion: None, ..sent })
    }

    /// What an apply makes where there is nothing, before it is applied.
    fn applied(&self) -> Object {
        Object { key: self.key(), created: time(self.now), ..Object::default() }
    }

    fn deleted(&self, grace: Option<i64>, current: &Object) -> Outcome {
        let mut object = current.clone();
        let held = !object.finalizers.is_empty();
        let is_up = matches!(object.deletion, Some((_, 0)));
        if self.storage == Storage::ConfigMaps || is_up {
            if !held {
                return Outcome::Goes(object);
            }
            let end: Option<Timestamp> = object.deletion.as_ref().and_then(|(end, _)| end.parse().ok());
            let end = end.filter(|end| *end <= self.now).unwrap_or(self.now);
            object.deletion = Some((time(end), 0));
            return if object == *current { Outcome::Stays } else { Outcome::Becomes(object) };
        }
        let period = match &current.deletion {
            None => {
                let period = if object.node.is_empty() { 0 } else { grace.unwrap_or(30) };
                object.deletion = Some((time(self.now + SignedDuration::from_secs(period)), period));
                period
            }
            Some((end, running)) => {
                let Some(period) = grace.filter(|period| period < running) else { return Outcome::Stays };
                let end: Timestamp = end.parse().unwrap_or(self.now);
                let end = end - SignedDuration::from_secs(*running) + SignedDuration::from_secs(period);
                object.deletion = Some((time(end), period));
                period
            }
        };
        if held || period > 0 { Outcome::Becomes(object) } else { Outcome::Fades(object) }
    }
}

fn replaced(sent: &Object, version: Option<i64>, current: &Object) -> Outcome {
    if !sent.uid.is_empty() && sent.uid != current.uid || version.is_some_and(|version| version != current.revision) {
        return CONFLICT;
    }
    if !is_valid(sent, current) {
        return INVALID;
    }
    updated(Object {
        labels: sent.labels.clone(),
        annotations: sent.annotations.clone(),
        finalizers: sent.finalizers.clone(),
        data: sent.data.clone(),
        ..current.clone()
    })
}
