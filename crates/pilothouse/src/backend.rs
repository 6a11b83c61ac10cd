//! Where state is kept: the embedded engine in a directory, or an etcd cluster. Flags, the choice, opening and closing.

use crate::cli::values::{ByteSize, GoDuration};
use crate::place::Place;
use anyhow::{Context, Result, bail};
use apiserver::encryption::{Encryption, Sealed};
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::embedded::{Embedded, Options, Undo};
use store::{Etcd, Store, etcd, face};
use tokio_util::sync::CancellationToken;

/// How etcd is reached; upstream's flags.
#[derive(Clone, Debug, Args)]
pub struct EtcdArgs {
    /// Certificate authority of etcd's servers
    #[arg(long, global = true, value_name = "FILE")]
    pub etcd_cafile: Option<PathBuf>,
    /// Certificate shown to etcd
    #[arg(long, global = true, value_name = "FILE", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, global = true, value_name = "FILE", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
    /// Prefix of all keys in etcd
    #[arg(long, global = true, value_name = "PREFIX", default_value = "/registry")]
    pub etcd_prefix: String,
}

/// Whether the embedded engine is also served as etcd, and where.
#[derive(Clone, Debug, Args)]
pub struct FaceArgs {
    /// Serve the embedded store as etcd's API: unix:///PATH, or https://IP:PORT with client certificates [default:
    /// store.sock in the data directory, for root alone]
    #[arg(long, value_name = "ADDRESS")]
    pub serve_etcd: Option<face::Address>,
    /// Certificate of that port
    #[arg(long, value_name = "FILE", requires = "serve_etcd_keyfile")]
    pub serve_etcd_certfile: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", requires = "serve_etcd_cafile")]
    pub serve_etcd_keyfile: Option<PathBuf>,
    /// Authority whose certificates may do everything there
    #[arg(long, value_name = "FILE", requires = "serve_etcd_certfile")]
    pub serve_etcd_cafile: Option<PathBuf>,
}

impl FaceArgs {
    /// Begins to serve an embedded store until `shutdown`, so that it can be saved and looked at while it runs.
    pub async fn serve(&self, opened: &Opened, shutdown: CancellationToken) -> Result<()> {
        let Some((store, socket)) = opened.embedded.clone() else {
            if self.serve_etcd.is_some() {
                bail!("--serve-etcd is for the embedded store: with etcd as the store, ask etcd itself");
            }
            return Ok(());
        };
        let own = face::Address::Unix(socket);
        let address = self.serve_etcd.as_ref().unwrap_or(&own);
        let tls = match (&self.serve_etcd_certfile, &self.serve_etcd_keyfile, &self.serve_etcd_cafile) {
            (Some(certificate), Some(key), Some(authority)) => Some(face::Tls {
                cert_file: certificate.clone(),
                key_file: key.clone(),
                client_ca_file: authority.clone(),
            }),
            _ if matches!(address, face::Address::Https(_)) => {
                bail!(
                    "--serve-etcd on a port needs --serve-etcd-certfile, --serve-etcd-keyfile and --serve-etcd-cafile"
                )
            }
            _ => None,
        };
        let listener = match face::Listener::bind(address, tls.as_ref()).await {
            Ok(listener) => listener,
            // On a full disk, say: nobody asked for it.
            Err(error) if self.serve_etcd.is_none() => {
                let error = anyhow::Error::new(error);
                tracing::warn!("the store cannot be saved while it runs: {error:#}");
                return Ok(());
            }
            Err(error) => return Err(anyhow::Error::new(error).context("--serve-etcd")),
        };
        tracing::info!(url = listener.url(), "the store is served as etcd");
        tokio::spawn(async move {
            if let Err(error) = face::serve(store, listener, shutdown.cancelled_owned()).await {
                tracing::error!("{error:#}");
            }
        });
        Ok(())
    }
}

/// Objects that change every few seconds and that nobody would look back at or restore: they would fill whatever is kept.
/// Leases say who is alive now; Events are a log themselves, and end by themselves after an hour.
const NOT_KEPT: [&str; 2] = ["/registry/leases/", "/registry/events/"];

/// How much of the past the embedded store keeps.
#[derive(Clone, Debug, Args)]
pub struct UndoArgs {
    /// How long the past of objects is kept, to look at and to restore (not of Leases and Events); 0: not beyond 5 minutes
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub undo_horizon: GoDuration,
    /// What the past may take of the disk; beyond it the oldest is forgotten; 0: none is kept
    #[arg(long, value_name = "SIZE", default_value = "256Mi")]
    pub undo_size: ByteSize,
}

impl UndoArgs {
    fn options(&self) -> Options {
        let (horizon, ByteSize(bytes)) = (self.undo_horizon.0, self.undo_size);
        let undo = (!horizon.is_zero() && bytes > 0).then(|| Undo { horizon, bytes, except: not_kept() });
        Options { undo, ..Options::default() }
    }
}

fn not_kept() -> Vec<bytes::Bytes> {
    NOT_KEPT.iter().map(|prefix| bytes::Bytes::from_static(prefix.as_bytes())).collect()
}

/// For a look at a store that a cluster will open again: nothing of its past is forgotten.
pub fn untouched() -> Options {
    let undo = Undo { horizon: Duration::MAX, bytes: u64::MAX, except: not_kept() };
    Options { retention: None, undo: Some(undo), ..Options::default() }
}

/// What of the state is encrypted where it is stored; upstream's flags.
#[derive(Clone, Debug, Args)]
pub struct EncryptionArgs {
    /// How values are encrypted in the store: a file with an EncryptionConfiguration
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Read that file again when it changes
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    pub encryption_provider_config_automatic_reload: bool,
}

impl EncryptionArgs {
    /// The store with its values encrypted, if that is asked.
    pub async fn seal(&self, store: Arc<dyn Store>, prefix: &str) -> Result<Option<Arc<Sealed>>> {
        let reload = self.encryption_provider_config_automatic_reload;
        let Some(file) = &self.encryption_provider_config else {
            if reload {
                bail!("--encryption-provider-config-automatic-reload must be set with --encryption-provider-config");
            }
            return Ok(None);
        };
        let encryption = Encryption::open(file.clone(), reload, prefix).await;
        let encryption = encryption.with_context(|| format!("--encryption-provider-config {}", file.display()))?;
        Ok(Some(Sealed::new(store, encryption)))
    }
}

/// An engine that was chosen, not opened yet.
#[derive(Clone, Debug)]
pub enum Backend {
    Embedded {
        directory: PathBuf,
        /// Where it is served as etcd if nothing else is said.
        socket: PathBuf,
    },
    Etcd(etcd::Options),
}

/// An open engine.
#[derive(Clone)]
pub struct Opened {
    pub store: Arc<dyn Store>,
    /// With where it is served as etcd if nothing else is said.
    embedded: Option<(Arc<Embedded>, PathBuf)>,
}

impl Backend {
    /// What `--store` says: `embedded`, which has its place, or endpoints of etcd.
    pub fn choose(store: &str, args: &EtcdArgs, place: &Place) -> Result<Self> {
        match store {
            "embedded" => Ok(Self::Embedded { directory: place.store.clone(), socket: place.store_socket.clone() }),
            servers => Self::etcd(servers, args),
        }
    }

    /// What `--etcd-servers` says: `http(s)://host:port`, separated by commas.
    pub fn etcd(servers: &str, args: &EtcdArgs) -> Result<Self> {
        let (ca, certificate, key) =
            (args.etcd_cafile.as_deref(), args.etcd_certfile.as_deref(), args.etcd_keyfile.as_deref());
        let options = etcd::Options::parse(servers, ca, certificate, key)?;
        Ok(Self::Etcd(options.with_prefix(&args.etcd_prefix)?))
    }

    /// Whether other servers can use it at the same time.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Etcd(_))
    }

    /// What all keys begin with where they are stored.
    pub fn prefix(&self) -> &str {
        match self {
            Self::Embedded { .. } => "/registry",
            Self::Etcd(options) => &options.prefix,
        }
    }

    /// Opens the engine, on the runtime that will use it. etcd keeps its own past.
    pub async fn open(&self, undo: &UndoArgs) -> Result<Opened> {
        match self {
            Self::Embedded { directory, socket } => {
                let (directory, options) = (directory.clone(), undo.options());
                let open = move || Embedded::open(directory, options);
                let store = tokio::task::spawn_blocking(open).await?;
                let store = store.map_err(|e| match e {
                    store::Error::Corrupt { .. } => anyhow::anyhow!(
                        "the store is damaged: {e}; restore a snapshot (`pilothouse store snapshot restore`) or a copy of the data directory, or start anew after `pilothouse reset`"
                    ),
                    e => anyhow::Error::new(e).context("the store can't be opened"),
                })?;
                Ok(Opened { store: store.clone(), embedded: Some((store, socket.clone())) })
            }
            Self::Etcd(options) => {
                let store = Etcd::connect(options.clone()).await.context("etcd can't be used")?;
                Ok(Opened { store, embedded: None })
            }
        }
    }
}

/// Says why what is in the store can't be read, and what helps against damage.
pub fn unreadable(error: store::Error) -> anyhow::Error {
    match error {
        store::Error::Corrupt { .. } => anyhow::anyhow!(
            "an object in the store is damaged: {error}; restore a snapshot or a copy of the data directory, or see with `pilothouse store verify` what else is damaged, and give up those objects with --drop-damaged"
        ),
        error => anyhow::Error::new(error).context("the store can't be read"),
    }
}

impl Opened {
    /// Waits until the embedded engine can't be written any more until it is opened again, and tells why. Never for etcd.
    pub async fn failed(&self) -> String {
        match &self.embedded {
            Some((embedded, _)) => embedded.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Lets others open the embedded engine's directory. Waits for the disk.
    pub fn close(&self) {
        if let Some((embedded, _)) = &self.embedded {
            embedded.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn args(prefix: &str) -> EtcdArgs {
        EtcdArgs { etcd_cafile: None, etcd_certfile: None, etcd_keyfile: None, etcd_prefix: prefix.to_owned() }
    }

    #[test]
    fn the_flag_says_which_engine() {
        let place = Place::new(Path::new("/data")).expect("a place");
        let choose = |store: &str, prefix: &str| Backend::choose(store, &args(prefix), &place);
        assert!(
            matches!(choose("embedded", "/registry").expect("chosen"), Backend::Embedded { directory, .. } if directory == Path::new("/data/store"))
        );
        let chosen = choose("http://127.0.0.1:2379,http://127.0.0.1:2479", "/mine").expect("chosen");
        let Backend::Etcd(options) = chosen else { panic!("{chosen:?}") };
        assert_eq!((options.endpoints.len(), options.prefix.as_str()), (2, "/mine"));
        for (store, prefix, told) in [
            ("sqlite", "/registry", "sqlite"),
            ("https://127.0.0.1:2379", "/registry", "--etcd-cafile"),
            ("http://127.0.0.1:2379", "mine", "--etcd-prefix"),
        ] {
            let error = choose(store, prefix).expect_err("refused").to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
