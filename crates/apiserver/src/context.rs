//! What accompanies a request on its way through the registry: who asks, and what is to be told beside the answer.

use crate::user::UserInfo;
use jiff::Timestamp;
use schema::validation;
use schema::{Map, Value};
use std::sync::{Arc, Mutex, PoisonError};

/// Travels with one request. Cheap to clone: clones share their warnings and annotations.
#[derive(Clone, Debug)]
pub struct Context {
    pub user: Arc<UserInfo>,
    /// The `User-Agent` header, which names the field manager when nothing else does.
    pub user_agent: Arc<str>,
    /// When the request arrived: the time that its writes carry.
    pub now: Timestamp,
    /// The verb that a write was authorized with: `patch` for patches and applies, else `update`.
    pub verb: &'static str,
    notes: Notes,
}

/// What is to be told of a request beside its answer. Clones share it. Every request has it as an extension, so that who
/// authenticates it can tell something, too.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<Told>>);

/// How the object of a request names itself. Empty: it does not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reference {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    /// The object itself, or what else is sent, if it is wanted.
    pub object: Option<Value>,
    pub wants_object: bool,
}

impl Reference {
    fn show(&mut self, object: impl FnOnce() -> Option<Value>) {
        if self.wants_object {
            self.object = object();
        }
    }
}

/// What has been told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    pub warnings: Vec<String>,
    /// How much that is.
    told: validation::Told,
    /// Of the audit event.
    pub annotations: Vec<(String, String)>,
    /// The object of the request, for its audit event. `None`: nobody asks for it.
    pub reference: Option<Box<Reference>>,
}

impl Told {
    /// Tells the client something beside the answer: a `Warning: 299` header. Repeated ones are told once, and
    /// those that would be cut off the headers are not kept.
    pub fn warn(&mut self, warning: impl Into<String>) {
        let warning = warning.into();
        if !warning.is_empty() && !self.warnings.contains(&warning) && self.told.takes(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Adds an annotation to the audit event of the request; the first of a key stays.
    pub fn annotate(&mut self, key: &str, value: impl Into<String>) {
        if !self.annotations.iter().any(|(k, _)| k == key) {
            self.annotations.push((key.to_owned(), value.into()));
        }
    }
}

impl Notes {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all of it.
    pub fn tell(&self, more: &Told) {
        let mut told = self.told();
        more.warnings.iter().for_each(|warning| told.warn(warning.as_str()));
        more.annotations.iter().for_each(|(key, value)| told.annotate(key, value.as_str()));
    }
}

impl Context {
    pub fn new(user: Arc<UserInfo>, user_agent: &str, now: Timestamp) -> Self {
        Self::noting(user, user_agent, now, Notes::default())
    }

    /// The same for a request of which something may have been told before.
    pub fn noting(user: Arc<UserInfo>, user_agent: &str, now: Timestamp, notes: Notes) -> Self {
        Context { user, user_agent: user_agent.into(), now, verb: "update", notes }
    }

    /// The same for a request of this verb.
    #[must_use]
    pub fn asked_by(mut self, verb: &str) -> Self {
        self.verb = if verb == "patch" { "patch" } else { "update" };
        self
    }

    /// For what the server does on its own account. It passes no authorization, and admission as anyone.
    pub fn internal() -> Self {
        Self::new(Arc::new(UserInfo::apiserver()), "apiserver", Timestamp::now())
    }

    /// Tells the client something beside the answer: [`Told::warn`].
    pub fn warn(&self, warning: impl Into<String>) {
        self.notes.told().warn(warning);
    }

    /// Adds to the audit event of the request: [`Told::annotate`].
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        self.notes.told().annotate(key, value);
    }

    /// From now on it is noted how the object of the request names itself, and the object, if that is wanted.
    pub fn want_reference(&self, object: bool) {
        self.notes.told().reference.get_or_insert_default().wants_object = object;
    }

    /// Notes the object of the request, in this version and of this kind, if somebody wants to know.
    pub fn refer(&self, object: &Map, api_version: &str, kind: &str) {
        if let Some(reference) = &mut self.notes.told().reference {
            let of = |key| object.str_at(&["metadata", key]).to_owned();
            reference.namespace = of("namespace");
            reference.name = of("name");
            reference.uid = of("uid");
            reference.resource_version = of("resourceVersion");
            reference.show(|| {
                let mut object = object.clone();
                object.insert("apiVersion", api_version);
                object.insert("kind", kind);
                Some(Value::Map(object))
            });
        }
    }

    /// Notes what the request sends that is not its object: a patch, say.
    pub fn refer_to(&self, sent: impl FnOnce() -> Option<Value>) {
        if let Some(reference) = &mut self.notes.told().reference {
            reference.show(sent);
        }
    }

    /// How the object of the request names itself, as far as that was noted.
    pub fn reference(&self) -> Option<Reference> {
        self.notes.told().reference.as_deref().cloned()
    }

    /// Tells all of what somebody else found.
    pub fn tell(&self, told: &Told) {
        self.notes.tell(told);
    }

    /// The warnings so far, in their order.
    pub fn warnings(&self) -> Vec<String> {
        self.notes.told().warnings.clone()
    }

    /// The audit annotations so far.
    pub fn annotations(&self) -> Vec<(String, String)> {
        self.notes.told().annotations.clone()
    }
}
