//! Ids and reserved names.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use cri::v1::{ContainerMetadata, PodSandboxMetadata};

/// A new id: 64 hexadecimal digits, of which a prefix names it too.
pub(crate) fn new_id() -> String {
    let half = || uuid::Uuid::new_v4().simple().to_string();
    half() + &half()
}

/// The name that no two sandboxes share.
pub(crate) fn sandbox_name(m: &PodSandboxMetadata) -> String {
    format!("{}_{}_{}_{}", m.name, m.namespace, m.uid, m.attempt)
}

/// The name that no two containers share.
pub(crate) fn container_name(c: &ContainerMetadata, s: &PodSandboxMetadata) -> String {
    format!("{}_{}_{}_{}_{}", c.name, s.name, s.namespace, s.uid, c.attempt)
}

/// Names in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Arc<Mutex<HashMap<String, String>>>);

/// A name that is taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("name {name:?} is reserved for {id:?}")]
pub(crate) struct Reserved {
    name: String,
    id: String,
}

/// Holds a name until dropped, or for good with [`Reservation::keep`].
#[derive(Debug)]
pub(crate) struct Reservation {
    names: Names,
    name: Option<String>,
}

impl Names {
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<Reservation, Reserved> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = names.get(name)
            && holder != id
        {
            return Err(Reserved { name: name.to_owned(), id: holder.clone() });
        }
        names.insert(name.to_owned(), id.to_owned());
        Ok(Reservation { names: self.clone(), name: Some(name.to_owned()) })
    }

    /// Frees the name of something that is removed.
    pub(crate) fn release(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.remove(name);
    }
}

impl Reservation {
    /// The thing exists now; [`Names::release`] frees its name.
    pub(crate) fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            self.names.release(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_held_until_it_is_released() {
        let names = Names::default();
        let first = names.reserve("n", "1").unwrap();
        assert_eq!(names.reserve("n", "2").unwrap_err().to_string(), "name \"n\" is reserved for \"1\"");
        drop(first);
        names.reserve("n", "2").unwrap().keep();
        assert!(names.reserve("n", "3").is_err());
        names.release("n");
        assert!(names.reserve("n", "3").is_ok());
    }

    #[test]
    fn ids_look_like_ids() {
        let id = new_id();
        assert!(id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(id, new_id());
    }
}
