//! `pilothouse scheduler`: the scheduler alone, with kube-scheduler's flags.

use super::config_file::ConfigFile;
use super::features::FeatureArgs;
use super::serving::{self, About, ServingArgs};
use super::{ClientArgs, LeaderArgs, LogArgs, client};
use anyhow::{Context, Result};
use clap::Args;
use std::path::PathBuf;

const NAME: &str = "kube-scheduler";
const PORT: u16 = 10259;

#[derive(Clone, Debug, Args)]
pub struct SchedulerArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// A KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1); flags come before what it says
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    leader: LeaderArgs,
    #[command(flatten)]
    serving: ServingArgs,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Fields of the configuration that change nothing here.
const MEANINGLESS: &[&str] = &[
    "parallelism",
    "percentageOfNodesToScore",
    "enableProfiling",
    "enableContentionProfiling",
    "delayCacheUntilActive",
    "clientConnection",
    "podInitialBackoffSeconds",
    "podMaxBackoffSeconds",
];

impl SchedulerArgs {
    /// Fills in what the configuration file says and no flag does.
    fn with_config(mut self) -> Result<Self> {
        let Some(path) = &self.config else { return Ok(self) };
        let mut file = ConfigFile::read(path, "kubescheduler.config.k8s.io/v1", "KubeSchedulerConfiguration")?;
        let kubeconfig = file.take("clientConnection.kubeconfig")?;
        let leader = &mut self.leader;
        leader.leader_elect = leader.leader_elect.or(file.take("leaderElection.leaderElect")?);
        let time = file.take_text("leaderElection.leaseDuration")?;
        leader.leader_elect_lease_duration = leader.leader_elect_lease_duration.or(time);
        let time = file.take_text("leaderElection.renewDeadline")?;
        leader.leader_elect_renew_deadline = leader.leader_elect_renew_deadline.or(time);
        let time = file.take_text("leaderElection.retryPeriod")?;
        leader.leader_elect_retry_period = leader.leader_elect_retry_period.or(time);
        let text = file.take("leaderElection.resourceName")?;
        leader.leader_elect_resource_name = leader.leader_elect_resource_name.take().or(text);
        let text = file.take("leaderElection.resourceNamespace")?;
        leader.leader_elect_resource_namespace = leader.leader_elect_resource_namespace.take().or(text);
        if let Some(lock) = file.take::<String>("leaderElection.resourceLock")?
            && lock != "leases"
        {
            anyhow::bail!(
                "--config {}: leaderElection.resourceLock {lock:?} is not supported: it must be leases",
                path.display()
            );
        }
        file.finish(MEANINGLESS, &["profiles", "extenders"])?;
        self.client.kubeconfig = self.client.kubeconfig.take().or(kubeconfig);
        Ok(self)
    }
}

/// Runs the scheduler.
pub fn run(args: SchedulerArgs) -> Result<()> {
    let args = args.with_config()?;
    let gates = args.features.gates()?;
    super::run_alone(1, |shutdown| async move {
        let election = args.leader.election(NAME, crate::election::SCHEDULER)?;
        let client = client::client(&client::config(&args.client, "kubeconfig").await?, NAME)?;
        let about = About {
            name: NAME,
            ready: None,
            leading: election.as_ref().map(|e| (e.name.clone(), e.leading.subscribe())),
            gates,
            tells: Vec::new(),
        };
        let address = serving::secure(&args.serving, PORT, &args.client, about, shutdown.clone()).await?;
        super::announce(&super::running(NAME, address));
        let config = scheduler::Config { identity: crate::cluster::address::host_name()? };
        super::run_elected(client.clone(), election, shutdown, async |leading| {
            scheduler::run(config, client, leading).await.context("the scheduler ended")
        })
        .await
    })
}
