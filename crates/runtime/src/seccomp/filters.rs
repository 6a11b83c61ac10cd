//! Compiled filters that are remembered: nearly all containers of a node have one of very few profiles, and compiling the
//! default one takes longer than all else that is done to create a container.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Profile, ProfileError, compile};

/// How many are kept. A filter has 4,096 instructions of eight bytes at most.
const KEPT: usize = 8;

/// The filters compiled last, the one asked for most recently first.
#[derive(Default)]
pub(crate) struct Filters(Mutex<VecDeque<(Profile, Arc<[u8]>)>>);

impl Filters {
    /// The filter of a profile. Two callers may compile the same one at the same time; neither waits for the other.
    pub(crate) fn of(&self, profile: &Profile) -> Result<Arc<[u8]>, ProfileError> {
        if let Some(known) = self.known(profile) {
            return Ok(known);
        }
        let filter: Arc<[u8]> = compile(profile)?.into();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((profile.clone(), Arc::clone(&filter)));
        kept.truncate(KEPT);
        Ok(filter)
    }

    fn known(&self, profile: &Profile) -> Option<Arc<[u8]>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| known == profile)?;
        let found = kept.remove(at)?;
        let filter = Arc::clone(&found.1);
        kept.push_front(found);
        Some(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{default_profile, profile::Action};

    #[test]
    fn a_profile_is_compiled_once_and_another_one_apart() {
        let filters = Filters::default();
        let first = filters.of(&default_profile(0)).unwrap();
        assert!(Arc::ptr_eq(&first, &filters.of(&default_profile(0)).unwrap()));
        // CAP_SYS_ADMIN opens calls.
        let other = filters.of(&default_profile(1 << 21)).unwrap();
        assert_ne!(first, other);
        assert!(Arc::ptr_eq(&first, &filters.of(&default_profile(0)).unwrap()));
    }

    #[test]
    fn few_are_kept() {
        let filters = Filters::default();
        let first = filters.of(&default_profile(0)).unwrap();
        for number in 0..KEPT as i32 {
            let default_action = Action::Errno(libc::EPERM + number + 1);
            filters.of(&Profile { default_action, ..default_profile(0) }).unwrap();
        }
        assert_eq!(filters.0.lock().unwrap().len(), KEPT);
        assert!(!Arc::ptr_eq(&first, &filters.of(&default_profile(0)).unwrap()));
    }
}
