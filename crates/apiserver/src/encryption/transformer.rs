//! The providers of a resource, in the order of the configuration: the first writes, and whichever wrote a value reads it.

use super::cipher::Cipher;
use super::kms::{Plugin, Wait};
use std::sync::Arc;

/// What every encrypted value begins with.
pub(crate) const ENCRYPTED: &[u8] = b"k8s:enc:";

#[derive(Debug)]
pub(super) enum Provider {
    /// Stores values as they are.
    Identity,
    /// Ciphers by the names of their keys.
    Keys {
        prefix: &'static str,
        /// What is told of a value of none of the keys.
        unknown: &'static str,
        keys: Vec<(String, Cipher)>,
    },
    /// A key of the plugin's for the keys of values.
    Kms { prefix: String, plugin: Arc<Plugin> },
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
pub(super) struct Providers(pub(super) Vec<Arc<Provider>>);

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
    /// Makes a value what is stored.
    ///
    /// # Errors
    /// The plugin has given no key, or none that may still be used.
    pub(super) fn seal(&self, data: &[u8], context: &[u8]) -> Result<Opened, String> {
        let sealed = match &**self.0.first().ok_or("no provider is configured")? {
            Provider::Identity => return Ok(Opened::AsStored),
            Provider::Keys { prefix, keys, .. } => {
                let (name, cipher) = keys.first().ok_or("no key is configured")?;
                let sealed = cipher.seal(data, context)?;
                [prefix.as_bytes(), name.as_bytes(), b":", &sealed].concat()
            }
            Provider::Kms { prefix, plugin } => [prefix.as_bytes(), &plugin.seal(data, context)?].concat(),
        };
        Ok(Opened::Decrypted(sealed))
    }

    /// Makes what is stored a value.
    ///
    /// # Errors
    /// It is of no provider, damaged, or the plugin does not answer.
    pub(super) async fn open(&self, data: &[u8], context: &[u8], wait: Wait) -> Result<Read, String> {
        let mut errors = Vec::new();
        for (place, provider) in self.0.iter().enumerate() {
            let late = place != 0;
            // Several providers may have the same prefix, with other keys: an error is no end.
            match &**provider {
                // It reads everything but what another provider wrote.
                Provider::Identity if !data.starts_with(ENCRYPTED) => {
                    return Ok(Read { opened: Opened::AsStored, stale: late });
                }
                Provider::Identity => {}
                Provider::Keys { prefix, unknown, keys } => {
                    let Some(data) = data.strip_prefix(prefix.as_bytes()) else { continue };
                    let mut own = Vec::new();
                    for (at, (name, cipher)) in keys.iter().enumerate() {
                        let Some(sealed) = of_key(data, name) else { continue };
                        match cipher.open(sealed, context) {
                            Ok(opened) => {
                                return Ok(Read { opened: Opened::Decrypted(opened), stale: late || at != 0 });
                            }
                            Err(error) => own.push(error),
                        }
                    }
                    errors.push(aggregate(own).unwrap_or_else(|| (*unknown).to_owned()));
                }
                Provider::Kms { prefix, plugin } => {
                    let Some(data) = data.strip_prefix(prefix.as_bytes()) else { continue };
                    match plugin.open(data, context, wait).await {
                        Ok((opened, stale)) => {
                            return Ok(Read { opened: Opened::Decrypted(opened), stale: late || stale });
                        }
                        Err(error) => errors.push(error),
                    }
                }
            }
        }
        Err(aggregate(errors).unwrap_or_else(|| "no matching prefix found".to_owned()))
    }
}

/// What follows a key's name.
fn of_key<'d>(data: &'d [u8], name: &str) -> Option<&'d [u8]> {
    data.strip_prefix(name.as_bytes())?.strip_prefix(b":")
}
