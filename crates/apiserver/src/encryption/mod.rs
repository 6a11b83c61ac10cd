//! Encryption at rest: upstream's `EncryptionConfiguration`, and values that upstream and this server can read of each other.
//!
//! ```text
//! registry, caches, bootstrap, allocators ──▶ Sealed (a Store) ──▶ engine
//!                                              │ by key: whose providers?
//!                                     Encryption ◀── configuration, read again when it changes
//! ```
//!
//! | file | what |
//! |---|---|
//! | `config` | the configuration: read, checked, made rules |
//! | `transformer` | a resource's providers in their order |
//! | `cipher` | AES-CBC, AES-GCM, secretbox, and the derived keys of envelopes |
//! | `kms` | plugins |
//! | `sealed` | the store with encrypted values |
//! | `measures` | what is told of it |
//!
//! A server without a configuration has none of this on any path. With one, keys of other kinds cost one look into a map.

mod cipher;
mod config;
mod kms;
mod measures;
mod sealed;
mod transformer;

pub use sealed::Sealed;
pub(crate) use sealed::unreadable;
pub(crate) use transformer::ENCRYPTED;

use crate::registry::measures::Tells;
use crate::server::{Check, Of};
use arc_swap::ArcSwap;
use config::Configured;
use futures::future::BoxFuture;
use kms::{Pace, Plugin};
use measures::Measures;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use transformer::Providers;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long new plugins have to become well before a new configuration is refused.
const PATIENCE: Duration = Duration::from_secs(10);

const ROOT: &str = "/registry";

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    #[error(
        "error while parsing file: error while loading file: error opening encryption provider configuration file {path:?}"
    )]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("error while parsing file: {0}")]
    Content(String),
}

/// Which keys of the store have which providers.
#[derive(Debug, Default)]
struct Rules {
    /// Of the built-in kinds that have any, by prefix.
    built_in: BTreeMap<&'static str, Providers>,
    configured: Configured,
}

/// The encryption of a server's state.
#[derive(Debug)]
pub struct Encryption {
    rules: ArcSwap<Rules>,
    /// What the keys begin with where they are stored, as upstream has them: they are authenticated with values.
    prefix: String,
    reloads: bool,
    pace: Pace,
    measures: Arc<Measures>,
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A String takes every write.
        write!(text, "{byte:02x}").unwrap_or(());
        text
    })
}

/// What is stored under a key that is of no built-in kind: `/registry/GROUP/PLURAL/…`.
fn custom(key: &str) -> Option<(&str, &str)> {
    let (group, rest) = key.strip_prefix("/registry/")?.split_once('/')?;
    group.contains('.').then_some((group, rest.split_once('/')?.0))
}

impl Rules {
    fn new(configured: Configured) -> Self {
        let mut built_in = BTreeMap::new();
        for row in schema::resource::all().iter().chain(schema::resource::optional()) {
            let Some(storage) = &row.storage else { continue };
            if let Some(providers) = configured.of(&storage.group, &row.plural) {
                let prefix: &'static str = match &storage.prefix {
                    std::borrow::Cow::Borrowed(prefix) => prefix,
                    std::borrow::Cow::Owned(_) => continue,
                };
                built_in.insert(prefix, providers.clone());
            }
        }
        // What is no resource, under the names that upstream has for it.
        for (prefix, name) in [("/registry/ranges/", "servicenodeportallocations")] {
            if let Some(providers) = configured.of("", name) {
                built_in.insert(prefix, providers.clone());
            }
        }
        Rules { built_in, configured }
    }

    fn find(&self, key: &str) -> Option<Providers> {
        let before = self.built_in.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back();
        if let Some((prefix, providers)) = before
            && key.starts_with(prefix)
        {
            return Some(providers.clone());
        }
        let (group, plural) = custom(key)?;
        self.configured.of(group, plural).cloned()
    }
}

async fn load(
    path: &Path,
    reload: bool,
    pace: Pace,
    measures: &Arc<Measures>,
) -> Result<(Configured, [u8; 32]), EncryptionError> {
    let text = tokio::fs::read(path).await;
    let text = text.map_err(|source| EncryptionError::Read { path: path.display().to_string(), source })?;
    let configured =
        config::read(&text, &path.display().to_string(), reload, pace, measures).map_err(EncryptionError::Content)?;
    Ok((configured, Sha256::digest(&text).into()))
}

impl Encryption {
    /// Reads the configuration, and again when the file has changed if `reload` says so. `prefix` is that of all keys in
    /// etcd: `/registry`.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub async fn open(path: PathBuf, reload: bool, prefix: &str) -> Result<Arc<Self>, EncryptionError> {
        Self::open_paced(path, reload, prefix, Pace::default()).await
    }

    async fn open_paced(path: PathBuf, reload: bool, prefix: &str, pace: Pace) -> Result<Arc<Self>, EncryptionError> {
        let measures = Arc::default();
        let (configured, hash) = load(&path, reload, pace, &measures).await?;
        measures.configured(&hash);
        look_after(&configured.plugins).await;
        let encryption = Arc::new(Encryption {
            rules: ArcSwap::from_pointee(Rules::new(configured)),
            prefix: prefix.to_owned(),
            reloads: reload,
            pace,
            measures,
        });
        if reload {
            tokio::spawn(follow(Arc::downgrade(&encryption), path, hash));
        }
        Ok(encryption)
    }

    fn providers(&self, key: &[u8]) -> Option<Providers> {
        self.rules.load().find(std::str::from_utf8(key).ok()?)
    }

    /// What is authenticated with a value: where it is stored.
    fn context(&self, key: &[u8]) -> Vec<u8> {
        let rest = key.strip_prefix(ROOT.as_bytes()).unwrap_or(key);
        [self.prefix.as_bytes(), rest].concat()
    }

    /// What is told of it in `/metrics`.
    pub(crate) fn measures(&self) -> Arc<dyn Tells> {
        self.measures.clone()
    }

    /// How the plugins are, each by its place; all in one check where another configuration may have others.
    pub fn checks(self: &Arc<Self>) -> Vec<Check> {
        if self.reloads {
            let encryption = self.clone();
            let look = move || -> BoxFuture<'static, Result<(), String>> {
                let rules = encryption.rules.load_full();
                Box::pin(async move { well(&rules.configured.plugins).await })
            };
            return vec![Check { name: "kms-providers", of: Of::HealthAndReadiness, look: Arc::new(look) }];
        }
        let rules = self.rules.load();
        let checks = rules.configured.plugins.iter().enumerate().map(|(at, plugin)| {
            let plugin = plugin.clone();
            let look = move || -> BoxFuture<'static, Result<(), String>> {
                let plugin = plugin.clone();
                Box::pin(async move { plugin.health().await })
            };
            // A server has them as long as it lives, and a process has one server.
            Check { name: format!("kms-provider-{at}").leak(), of: Of::HealthAndReadiness, look: Arc::new(look) }
        });
        checks.collect()
    }
}

/// Begins to look after all of them, side by side: no start waits for one after the other.
async fn look_after(plugins: &[Arc<Plugin>]) {
    futures::future::join_all(plugins.iter().map(Plugin::look_after)).await;
}

async fn well(plugins: &[Arc<Plugin>]) -> Result<(), String> {
    let mut errors = Vec::new();
    for (at, plugin) in plugins.iter().enumerate() {
        errors.extend(plugin.health().await.err().map(|error| format!("kms-provider-{at}: {error}")));
    }
    transformer::aggregate(errors).map_or(Ok(()), Err)
}

/// Takes over what the file says when it has changed; what cannot be used is told, and the present stays.
async fn follow(encryption: Weak<Encryption>, path: PathBuf, mut loaded: [u8; 32]) {
    let mut refused = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(encryption) = encryption.upgrade() else { return };
        let hash = match tokio::fs::read(&path).await {
            Ok(text) => <[u8; 32]>::from(Sha256::digest(&text)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the encryption configuration cannot be read");
                continue;
            }
        };
        if hash == loaded || refused == Some(hash) {
            continue;
        }
        let taken = take_over(&encryption, &path).await;
        encryption.measures.reloaded(taken.is_ok());
        match taken {
            Ok(hash) => {
                encryption.measures.configured(&hash);
                (loaded, refused) = (hash, None);
                tracing::info!(path = %path.display(), "the encryption configuration was read again");
            }
            Err(error) => {
                // A plugin may become well; a text does not become right.
                refused = matches!(error, Refused::Content(_)).then_some(hash);
                tracing::error!(path = %path.display(), %error, "the new encryption configuration is not used");
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Content(#[from] EncryptionError),
    #[error("health check for new transformers failed: {0}")]
    Unwell(String),
}

async fn take_over(encryption: &Encryption, path: &Path) -> Result<[u8; 32], Refused> {
    let (configured, hash) = load(path, true, encryption.pace, &encryption.measures).await?;
    look_after(&configured.plugins).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while let Err(why) = well(&configured.plugins).await {
        if tokio::time::Instant::now() >= deadline {
            return Err(Refused::Unwell(why));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    encryption.rules.store(Arc::new(Rules::new(configured)));
    Ok(hash)
}

#[cfg(test)]
mod tests;
