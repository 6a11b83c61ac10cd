//! What a server does once before it answers anything, by the names of upstream's post-start hooks. Who answers has done it: health
//! tells these names for those who ask for them, or exclude them.

use std::sync::{Mutex, PoisonError};

/// Hooks that are done, in their order.
#[derive(Debug, Default)]
pub struct Started(Mutex<Vec<&'static str>>);

impl Started {
    pub fn done(&self, hook: &'static str) {
        let mut hooks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !hooks.contains(&hook) {
            hooks.push(hook);
        }
    }

    /// All that are done.
    pub fn hooks(&self) -> Vec<&'static str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
