//! What accompanies a request on its way through the registry: who asks, and what is to be told beside the answer.

use crate::user::UserInfo;
use jiff::Timestamp;
use std::sync::{Arc, Mutex, PoisonError};

/// Travels with one request. Cheap to clone: clones share their warnings and annotations.
#[derive(Clone, Debug)]
pub struct Context {
    pub user: Arc<UserInfo>,
    /// The `User-Agent` header, which names the field manager when nothing else does.
    pub user_agent: Arc<str>,
    /// When the request arrived: the time that its writes carry.
    pub now: Timestamp,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Debug, Default)]
struct Notes {
    warnings: Vec<String>,
    annotations: Vec<(String, String)>,
}

impl Context {
    pub fn new(user: Arc<UserInfo>, user_agent: &str, now: Timestamp) -> Self {
        Context { user, user_agent: user_agent.into(), now, notes: Arc::default() }
    }

    /// For what the server does on its own account. It passes no authorization, and admission as anyone.
    pub fn internal() -> Self {
        Self::new(Arc::new(UserInfo::apiserver()), "apiserver", Timestamp::now())
    }

    /// Tells the client something beside the answer: a `Warning: 299` header. Repeated ones are told once.
    pub fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.warnings.contains(&warning) {
            notes.warnings.push(warning);
        }
    }

    /// Adds an annotation to the audit event of the request; the first of a key stays.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.annotations.iter().any(|(k, _)| k == key) {
            notes.annotations.push((key.to_owned(), value.into()));
        }
    }

    /// The warnings so far, in their order.
    pub fn warnings(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).warnings.clone()
    }

    /// The audit annotations so far.
    pub fn annotations(&self) -> Vec<(String, String)> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).annotations.clone()
    }
}
