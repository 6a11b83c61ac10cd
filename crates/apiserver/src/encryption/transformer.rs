//! The providers of a resource, in the order of the configuration: the first writes, and whichever wrote a value reads it.

use super::cipher::Cipher;
use super::kms::{Plugin, Wait};
use super::measures::{Measures, Transformed, Way};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What every encrypted value begins with.
pub(crate) const ENCRYPTED: &[u8] = b"k8s:enc:";

/// Each has what its values are counted in, apart by what upstream tells them by.
#[derive(Debug)]
pub(super) enum Provider {
    /// Stores values as they are.
    Identity { read: Arc<Transformed>, written: Arc<Transformed> },
    /// Ciphers by the names of their keys.
    Keys {
        prefix: &'static str,
        /// What is told of a value of none of the keys.
        unknown: &'static str,
        keys: Vec<Key>,
        counted: Arc<Transformed>,
    },
    /// A key of the plugin's for the keys of values.
    Kms { prefix: String, plugin: Arc<Plugin>, counted: Arc<Transformed> },
}

/// A key of a provider.
#[derive(Debug)]
pub(super) struct Key {
    name: String,
    cipher: Cipher,
    counted: Arc<Transformed>,
}

impl Key {
    pub(super) fn new(name: &str, cipher: Cipher, measures: &Measures) -> Self {
        Key { name: name.to_owned(), cipher, counted: measures.of(&format!("{name}:")) }
    }
}

/// A value as it was before it was stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It was not encrypted.
    AsStored,
    Decrypted(Vec<u8>),
}

/// What is stored, read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) opened: Opened,
    /// It would be stored otherwise now: not the first key of the first provider opened it, or its plugin has another key.
    /// What the value says of itself does not count, because a key may be replaced under its name.
    pub(super) stale: bool,
}

/// The providers of a resource; never empty.
#[derive(Debug, Clone)]
pub(super) struct Providers {
    pub(super) all: Vec<Arc<Provider>>,
    /// Where values of none of them are counted.
    unknown: Arc<Transformed>,
}

/// Notes what came of reading a value, or writing it.
fn note<T>(counted: &Transformed, way: Way, took: Duration, result: &Result<T, String>) {
    counted.note(way, took, result.as_ref().err().map(String::as_str));
}

/// Several errors as upstream shows them together.
pub(super) fn aggregate(mut errors: Vec<String>) -> Option<String> {
    let mut seen = std::collections::HashSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    match errors.len() {
        0 => None,
        1 => errors.pop(),
        _ => Some(format!("[{}]", errors.join(", "))),
    }
}

impl Providers {
    /// None yet.
    pub(super) fn new(measures: &Measures) -> Self {
        Providers { all: Vec::new(), unknown: measures.of("unknown") }
    }

    /// Makes a value what is stored.
    ///
    /// # Errors
    /// The plugin has given no key, or none that may still be used.
    pub(super) fn seal(&self, data: &[u8], context: &[u8]) -> Result<Opened, String> {
        let began = Instant::now();
        match &**self.all.first().ok_or("no provider is configured")? {
            Provider::Identity { written, .. } => {
                written.note(Way::In, began.elapsed(), None);
                Ok(Opened::AsStored)
            }
            Provider::Keys { prefix, keys, counted, .. } => {
                let key = keys.first().ok_or("no key is configured")?;
                let sealed = key.cipher.seal(data, context);
                let took = began.elapsed();
                note(&key.counted, Way::In, took, &sealed);
                note(counted, Way::In, took, &sealed);
                Ok(Opened::Decrypted([prefix.as_bytes(), key.name.as_bytes(), b":", &sealed?].concat()))
            }
            Provider::Kms { prefix, plugin, counted } => {
                let sealed = plugin.seal(data, context);
                note(counted, Way::In, began.elapsed(), &sealed);
                Ok(Opened::Decrypted([prefix.as_bytes(), &sealed?].concat()))
            }
        }
    }

    /// Makes what is stored a value.
    ///
    /// # Errors
    /// It is of no provider, damaged, or the plugin does not answer.
    pub(super) async fn open(&self, data: &[u8], context: &[u8], wait: Wait) -> Result<Read, String> {
        let began = Instant::now();
        let mut errors = Vec::new();
        for (place, provider) in self.all.iter().enumerate() {
            let late = place != 0;
            // Several providers may have the same prefix, with other keys: an error is no end.
            match &**provider {
                // It reads everything but what another provider wrote.
                Provider::Identity { read, .. } if !data.starts_with(ENCRYPTED) => {
                    read.note(Way::Out, began.elapsed(), None);
                    return Ok(Read { opened: Opened::AsStored, stale: late });
                }
                Provider::Identity { .. } => {}
                Provider::Keys { prefix, unknown, keys, counted } => {
                    let Some(data) = data.strip_prefix(prefix.as_bytes()) else { continue };
                    let began = Instant::now();
                    let opened = self.open_by_keys(keys, unknown, data, context);
                    note(counted, Way::Out, began.elapsed(), &opened);
                    match opened {
                        Ok((opened, stale)) => {
                            return Ok(Read { opened: Opened::Decrypted(opened), stale: late || stale });
                        }
                        Err(error) => errors.push(error),
                    }
                }
                Provider::Kms { prefix, plugin, counted } => {
                    let Some(data) = data.strip_prefix(prefix.as_bytes()) else { continue };
                    let began = Instant::now();
                    let opened = plugin.open(data, context, wait).await;
                    note(counted, Way::Out, began.elapsed(), &opened);
                    match opened {
                        Ok((opened, stale)) => {
                            return Ok(Read { opened: Opened::Decrypted(opened), stale: late || stale });
                        }
                        Err(error) => errors.push(error),
                    }
                }
            }
        }
        Err(aggregate(errors).unwrap_or_else(|| {
            let why = "no matching prefix found";
            self.unknown.note(Way::Out, began.elapsed(), Some(why));
            why.to_owned()
        }))
    }

    /// Reads a value of a provider's with whichever key fits; tells whether that is not the first one.
    fn open_by_keys(
        &self,
        keys: &[Key],
        unknown: &str,
        data: &[u8],
        context: &[u8],
    ) -> Result<(Vec<u8>, bool), String> {
        let mut errors = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let Some(sealed) = of_key(data, &key.name) else { continue };
            let began = Instant::now();
            let opened = key.cipher.open(sealed, context);
            note(&key.counted, Way::Out, began.elapsed(), &opened);
            match opened {
                Ok(opened) => return Ok((opened, at != 0)),
                Err(error) => errors.push(error),
            }
        }
        Err(aggregate(errors).unwrap_or_else(|| {
            self.unknown.note(Way::Out, Duration::ZERO, Some(unknown));
            unknown.to_owned()
        }))
    }
}

/// What follows a key's name.
fn of_key<'d>(data: &'d [u8], name: &str) -> Option<&'d [u8]> {
    data.strip_prefix(name.as_bytes())?.strip_prefix(b":")
}
