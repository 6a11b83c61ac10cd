//! What a server does once when it starts, by the names of upstream's post-start hooks: its health tells what is not done yet.

use std::sync::{PoisonError, RwLock};

/// Hooks that have begun, in their order, and whether they are done.
#[derive(Debug, Default)]
pub struct Started(RwLock<Vec<(&'static str, bool)>>);

impl Started {
    /// From now on the server is not ready until this is [done](Started::done).
    pub fn begin(&self, hook: &'static str) {
        self.set(hook, false);
    }

    pub fn done(&self, hook: &'static str) {
        self.set(hook, true);
    }

    fn set(&self, hook: &'static str, done: bool) {
        let mut hooks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match hooks.iter_mut().find(|(name, _)| *name == hook) {
            Some(known) => known.1 = done,
            None => hooks.push((hook, done)),
        }
    }

    /// All that have begun.
    pub fn hooks(&self) -> Vec<(&'static str, bool)> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
