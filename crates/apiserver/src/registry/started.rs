//! What a server does once at its start, by the names of upstream's post-start hooks: health tells of each whether it is done, for
//! those who ask for it, or exclude it.

use std::sync::{Mutex, PoisonError};

/// Hooks in their order, and whether each is done.
#[derive(Debug, Default)]
pub struct Started(Mutex<Vec<(&'static str, bool)>>);

impl Started {
    /// It will be done.
    pub fn begun(&self, hook: &'static str) {
        self.set(hook, false);
    }

    pub fn done(&self, hook: &'static str) {
        self.set(hook, true);
    }

    fn set(&self, hook: &'static str, done: bool) {
        let mut hooks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match hooks.iter_mut().find(|(name, _)| *name == hook) {
            Some((_, before)) => *before |= done,
            None => hooks.push((hook, done)),
        }
    }

    /// All of them.
    pub fn hooks(&self) -> Vec<&'static str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(hook, _)| *hook).collect()
    }

    pub fn is_done(&self, hook: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&(hook, true))
    }
}
