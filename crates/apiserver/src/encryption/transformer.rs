//! The providers of a resource, in the order of the configuration: the first writes, and whichever wrote a value reads it.

use super::cipher::Cipher;
use super::kms::Plugin;
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
    pub(super) async fn open(&self, data: &[u8], context: &[u8]) -> Result<Opened, String> {
        let mut errors = Vec::new();
        for provider in &self.0 {
            // Several providers may have the same prefix, with other keys: an error is no end.
            match &**provider {
                // It reads everything but what another provider wrote.
                Provider::Identity if !data.starts_with(ENCRYPTED) => return Ok(Opened::AsStored),
                Provider::Identity => {}
                Provider::Keys { prefix, unknown, keys } => {
                    let Some(data) = data.strip_prefix(prefix.as_bytes()) else { continue };
                    let mut own = Vec::new();
                    for sealed in keys.iter().filter_map(|(name, cipher)| Some((of_key(data, name)?, cipher))) {
                        let (sealed, cipher) = sealed;
                        match cipher.open(sealed, context) {
                            Ok(opened) => return Ok(Opened::Decrypted(opened)),
                            Err(error) => own.push(error),
                        }
                    }
                    errors.push(aggregate(own).unwrap_or_else(|| (*unknown).to_owned()));
                }
                Provider::Kms { prefix, plugin } => {
                    let Some(data) = data.strip_prefix(prefix.as_bytes()) else { continue };
                    match plugin.open(data, context).await {
                        Ok(opened) => return Ok(Opened::Decrypted(opened)),
                        Err(error) => errors.push(error),
                    }
                }
            }
        }
        Err(aggregate(errors).unwrap_or_else(|| "no matching prefix found".to_owned()))
    }

    /// Whether a readable value would be stored otherwise now: by another provider or key.
    pub(super) fn stale(&self, data: &[u8]) -> bool {
        match self.0.first().map(|first| &**first) {
            None | Some(Provider::Identity) => data.starts_with(ENCRYPTED),
            Some(Provider::Keys { prefix, keys, .. }) => {
                let own = data.strip_prefix(prefix.as_bytes());
                keys.first().is_none_or(|(name, _)| own.and_then(|own| of_key(own, name)).is_none())
            }
            Some(Provider::Kms { prefix, plugin }) => {
                data.strip_prefix(prefix.as_bytes()).is_none_or(|own| plugin.stale(own))
            }
        }
    }
}

/// What follows a key's name.
fn of_key<'d>(data: &'d [u8], name: &str) -> Option<&'d [u8]> {
    data.strip_prefix(name.as_bytes())?.strip_prefix(b":")
}
