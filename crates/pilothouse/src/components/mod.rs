//! The components that run alone: one process each, told by upstream's flags, against any conformant API server.
//!
//! | file | what |
//! |---|---|
//! | `apiserver`, `scheduler`, `controller_manager`, `kubelet`, `proxy`, `dns` | one component each: its flags, and how it is run |
//! | `client` | the way to the API server that a kubeconfig names |
//! | `credentials` | clients under the names of service accounts |
//! | `serving`, `delegated` | the port for health and metrics, and who may use it |
//! | `ciphers` | the suites of TLS 1.2 that are offered |
//! | `features` | feature gates, and what the API server serves |
//! | `config_file` | configuration files of upstream's kinds |
//! | `tls_bootstrap` | a kubelet's first certificate |

pub mod apiserver;
pub mod ciphers;
pub mod client;
pub mod config_file;
pub mod controller_manager;
pub mod credentials;
pub mod delegated;
pub mod dns;
pub mod features;
pub mod kubelet;
pub mod proxy;
pub mod scheduler;
pub mod serving;
pub mod tls_bootstrap;

use crate::cli::values::GoDuration;
use crate::election::{self, Election};
use crate::systemd;
use anyhow::{Context, Result};
use clap::{ArgAction, Args};
use kube::Client;
use std::future::Future;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// How much is logged, as upstream's `-v` says it.
#[derive(Clone, Debug, Default, Args)]
pub struct LogArgs {
    /// Level of the log's detail: 0 warnings, 1 to 3 what happens, 4 and more everything
    #[arg(short, long = "v", value_name = "LEVEL")]
    pub verbosity: Option<u8>,
}

/// How the API server is reached.
#[derive(Clone, Debug, Default, Args)]
pub struct ClientArgs {
    /// The kubeconfig that names the API server and this component's credentials
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Address of the API server, instead of the kubeconfig's
    #[arg(long, value_name = "URL")]
    pub master: Option<String>,
}

/// Whether and how one of several processes is chosen to act.
#[derive(Clone, Debug, Args)]
pub struct LeaderArgs {
    /// Act only while holding the Lease
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub leader_elect: Option<bool>,
    /// How long others wait for a leader that does not renew [default: 15s]
    #[arg(long, value_name = "DURATION")]
    pub leader_elect_lease_duration: Option<GoDuration>,
    /// How long a leader tries to renew before it stops acting [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub leader_elect_renew_deadline: Option<GoDuration>,
    /// The wait between attempts [default: 2s]
    #[arg(long, value_name = "DURATION")]
    pub leader_elect_retry_period: Option<GoDuration>,
    /// The kind of lock
    #[arg(long, value_parser = ["leases"], value_name = "KIND")]
    pub leader_elect_resource_lock: Option<String>,
    /// The Lease's name [default: as upstream's]
    #[arg(long, value_name = "NAME")]
    pub leader_elect_resource_name: Option<String>,
    /// The Lease's namespace [default: kube-system]
    #[arg(long, value_name = "NAMESPACE")]
    pub leader_elect_resource_namespace: Option<String>,
}

impl LeaderArgs {
    /// The election, unless it is off. `component`: in whose name events tell of it.
    ///
    /// # Errors
    /// Times that do not fit together, by upstream's rules.
    pub fn election(&self, usual_name: &str, component: &'static str) -> Result<Option<Election>> {
        if self.leader_elect == Some(false) {
            return Ok(None);
        }
        let time = |flag: Option<GoDuration>, usual| flag.map_or(std::time::Duration::from_secs(usual), |d| d.0);
        let lease = time(self.leader_elect_lease_duration, 15);
        let renew = time(self.leader_elect_renew_deadline, 10);
        let retry = time(self.leader_elect_retry_period, 2);
        if lease <= renew {
            anyhow::bail!(
                "--leader-elect-lease-duration {lease:?} must be longer than --leader-elect-renew-deadline {renew:?}"
            );
        }
        if lease.as_secs() == 0 || retry.is_zero() {
            anyhow::bail!(
                "--leader-elect-lease-duration must be at least 1s and --leader-elect-retry-period more than 0"
            );
        }
        if renew <= retry.mul_f64(1.2) {
            anyhow::bail!(
                "--leader-elect-renew-deadline {renew:?} must be longer than 1.2 times --leader-elect-retry-period {retry:?}"
            );
        }
        // Upstream's form. A new process is a new holder: nothing proves that the one before is dead.
        let identity = format!("{}_{}", crate::cluster::address::host_name()?, uuid::Uuid::new_v4());
        let namespace = self.leader_elect_resource_namespace.as_deref().unwrap_or("kube-system");
        let name = self.leader_elect_resource_name.as_deref().unwrap_or(usual_name);
        Ok(Some(Election {
            lease_duration: lease,
            renew_deadline: renew,
            retry_period: retry,
            ..Election::new(namespace, name, &identity, component)
        }))
    }
}

/// Runs a component while it holds the Lease of its election, if there is one.
pub async fn run_elected<F, R>(
    client: Client,
    election: Option<Election>,
    shutdown: CancellationToken,
    act: F,
) -> Result<()>
where
    F: FnOnce(CancellationToken) -> R,
    R: Future<Output = Result<()>>,
{
    match election {
        Some(election) => election::lead(client, election, shutdown, act).await,
        None => act(shutdown).await,
    }
}

/// Runs a component in the foreground until it ends, or is told to by a signal: then `shutdown` is cancelled and the
/// component ends by itself. A second signal ends it at once.
pub fn run_alone<F, R>(threads: usize, run: F) -> Result<()>
where
    F: FnOnce(CancellationToken) -> R,
    R: Future<Output = Result<()>>,
{
    let runtime = if threads > 1 {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .on_thread_start(memory::keep)
            .on_thread_stop(memory::give_back)
            .enable_all()
            .build()
    } else {
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    }
    .context("cannot start a runtime")?;
    let outcome = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let running = run(shutdown.clone());
        tokio::pin!(running);
        tokio::select! {
            outcome = &mut running => return outcome,
            name = crate::cluster::stop_signal() => tracing::info!("stopping: {name}"),
        }
        systemd::notify("STOPPING=1");
        shutdown.cancel();
        tokio::select! {
            outcome = running => outcome,
            name = crate::cluster::stop_signal() => anyhow::bail!("ended at once by a second {name}"),
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}

/// Says that a component runs, to people and to systemd.
#[allow(clippy::print_stdout, reason = "what a command tells its caller")]
pub fn announce(text: &str) {
    use std::io::Write;
    // A closed standard output must not end the component.
    let mut out = std::io::stdout().lock();
    if let Err(e) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        tracing::debug!("cannot print: {e}");
    }
    systemd::notify("READY=1");
}

/// What is said of a component that runs.
pub fn running(name: &str, address: Option<std::net::SocketAddr>) -> String {
    match address {
        Some(address) => format!("{name} is running; health and metrics at https://{address}"),
        None => format!("{name} is running"),
    }
}
