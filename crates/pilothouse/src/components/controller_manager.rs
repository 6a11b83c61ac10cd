//! `pilothouse controller-manager`: the controllers alone, with kube-controller-manager's flags.

use super::credentials::Accounts;
use super::features::FeatureArgs;
use super::serving::{self, About, ServingArgs};
use super::{ClientArgs, LeaderArgs, LogArgs, client};
use crate::authority::CaFiles;
use crate::cli::Cidr;
use crate::cli::values::GoDuration;
use anyhow::{Context, Result, bail};
use clap::{ArgAction, Args};
use kube::Client;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "kube-controller-manager";
const PORT: u16 = 10257;

#[derive(Clone, Debug, Args)]
pub struct ManagerArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Which controllers run: `*` for all that are on by default, NAME, -NAME
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true, value_name = "NAMES")]
    controllers: Vec<String>,
    /// Give nodes their pod networks
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    allocate_node_cidrs: bool,
    /// The network that nodes' pod networks are cut from
    #[arg(long, value_name = "CIDR")]
    cluster_cidr: Option<Cidr>,
    /// Prefix of each node's pod network [default: 24]
    #[arg(long, value_name = "BITS", alias = "node-cidr-mask-size-ipv4", value_parser = clap::value_parser!(u8).range(8..=30))]
    node_cidr_mask_size: Option<u8>,
    /// The CA that is published in every namespace
    #[arg(long, value_name = "FILE")]
    root_ca_file: Option<PathBuf>,
    /// Give each controller the credentials of its own service account
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    use_service_account_credentials: bool,
    /// How long a node may not renew before it is held unreachable
    #[arg(long, default_value = "50s", value_name = "DURATION")]
    node_monitor_grace_period: GoDuration,
    /// How long a token that was made by itself for a service account may be unused until it is invalid, and then gone
    #[arg(long, default_value = "8760h", value_name = "DURATION")]
    legacy_service_account_token_clean_up_period: GoDuration,
    /// Key for the tokens of token Secrets
    #[arg(long, value_name = "FILE")]
    service_account_private_key_file: Option<PathBuf>,
    #[command(flatten)]
    signing: SigningArgs,
    #[command(flatten)]
    leader: LeaderArgs,
    #[command(flatten)]
    serving: ServingArgs,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// What certificate signing requests are signed with.
#[derive(Clone, Debug, Args)]
pub struct SigningArgs {
    /// CA certificate that signs for every signer
    #[arg(long, value_name = "FILE", requires = "cluster_signing_key_file")]
    cluster_signing_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "cluster_signing_cert_file")]
    cluster_signing_key_file: Option<PathBuf>,
    /// The longest life of what is signed
    #[arg(long, value_name = "DURATION", alias = "experimental-cluster-signing-duration")]
    cluster_signing_duration: Option<GoDuration>,
    #[arg(long, hide = true)]
    cluster_signing_kube_apiserver_client_cert_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    cluster_signing_kube_apiserver_client_key_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    cluster_signing_kubelet_client_cert_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    cluster_signing_kubelet_client_key_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    cluster_signing_kubelet_serving_cert_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    cluster_signing_kubelet_serving_key_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    cluster_signing_legacy_unknown_cert_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    cluster_signing_legacy_unknown_key_file: Option<PathBuf>,
}

/// Controllers that upstream has and this version has not: they may be named.
const ABSENT: &[&str] = &[
    "cloud-node-lifecycle-controller",
    "device-taint-eviction-controller",
    "endpointslice-mirroring-controller",
    "ephemeral-volume-controller",
    "horizontal-pod-autoscaler-controller",
    "kube-apiserver-serving-clustertrustbundle-publisher-controller",
    "node-route-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-expander-controller",
    "pod-garbage-collector-controller",
    "resourceclaim-controller",
    "selinux-warning-controller",
    "service-lb-controller",
    "storageversion-garbage-collector-controller",
    "storageversion-migrator-controller",
    "taint-eviction-controller",
    "ttl-controller",
    "validatingadmissionpolicy-status-controller",
    "volumeattributesclass-protection-controller",
];

fn check_controllers(list: &[String]) -> Result<()> {
    for entry in list.iter().filter(|entry| *entry != "*") {
        let name = entry.strip_prefix('-').unwrap_or(entry);
        if controllers::CONTROLLERS.iter().any(|(known, _)| *known == name) {
            continue;
        }
        if !ABSENT.contains(&name) {
            bail!("--controllers: {name:?} is not in the list of known controllers");
        }
        if !entry.starts_with('-') {
            tracing::warn!("--controllers: {name} is not part of this version yet, and does not run");
        }
    }
    Ok(())
}

/// Clients by identity: each account its own, or all the manager's.
struct Identities {
    manager: Client,
    accounts: Option<Accounts>,
}

impl controllers::Clients for Identities {
    fn manager(&self) -> Client {
        self.manager.clone()
    }

    fn service_account(&self, name: &str) -> Client {
        let Some(accounts) = &self.accounts else { return self.manager.clone() };
        accounts.client(name).unwrap_or_else(|e| {
            tracing::error!("no client for the service account {name}: {e:#}; the manager's own is used");
            self.manager.clone()
        })
    }
}

/// Runs the controllers.
pub fn run(args: ManagerArgs) -> Result<()> {
    check_controllers(&args.controllers)?;
    let gates = args.features.gates()?;
    let cluster_cidr = match (args.allocate_node_cidrs, args.cluster_cidr) {
        (true, Some(cidr)) => {
            let bits = args.node_cidr_mask_size.unwrap_or(24);
            if bits < cidr.prefix {
                bail!(
                    "--node-cidr-mask-size {bits} is larger than --cluster-cidr {cidr}: it must be at least {}",
                    cidr.prefix
                );
            }
            Some((cidr.address, cidr.prefix, bits))
        }
        (true, None) => bail!("--allocate-node-cidrs needs --cluster-cidr"),
        (false, _) => None,
    };
    if args.service_account_private_key_file.is_some() {
        tracing::warn!("--service-account-private-key-file has no effect yet: tokens of token Secrets are not made");
    }
    let authority = args.signing.authority()?;
    let root_ca = match &args.root_ca_file {
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("cannot read --root-ca-file {}", file.display()))?
        }
        None => String::new(),
    };
    super::run_alone(1, |shutdown| async move {
        let election = args.leader.election(NAME, crate::election::MANAGER)?;
        let api = client::config(&args.client, "kubeconfig").await?;
        let manager = client::client(&api, NAME)?;
        let accounts = if args.use_service_account_credentials {
            let mut bare = api.clone();
            bare.auth_info = kube::config::AuthInfo::default();
            Some(Accounts::new(client::connections(&bare)?, &bare, manager.clone(), NAME))
        } else {
            None
        };
        let queues = controllers::queue::Queues::default();
        let about = About {
            name: NAME,
            ready: None,
            leading: election.as_ref().map(|e| (e.name.clone(), e.leading.subscribe())),
            gates: gates.clone(),
            tells: vec![Arc::new(queues.clone())],
        };
        let address = serving::secure(&args.serving, PORT, &args.client, about, shutdown.clone()).await?;
        super::announce(&super::running(NAME, address));
        let mut list = args.controllers.clone();
        if root_ca.is_empty() {
            // As upstream: without a CA there is nothing to publish.
            list.push("-root-ca-certificate-publisher-controller".to_owned());
        }
        if cluster_cidr.is_none() {
            list.push("-node-ipam-controller".to_owned());
        }
        let config = controllers::Config {
            controllers: list,
            root_ca,
            cluster_cidr,
            legacy_token_clean_up: args.legacy_service_account_token_clean_up_period.0,
            node_monitor_grace: Duration::max(args.node_monitor_grace_period.0, Duration::from_secs(1)),
            authority: authority.map(|a| a as Arc<dyn controllers::certificates::CertificateAuthority>),
            signing_duration: args.signing.cluster_signing_duration.map_or(Duration::from_hours(365 * 24), |d| d.0),
            tokens: None,
            gates,
            queues,
        };
        let clients = Arc::new(Identities { manager: manager.clone(), accounts });
        super::run_elected(manager, election, shutdown, async |leading| {
            controllers::run(config, clients, leading).await.context("the controllers ended")
        })
        .await
    })
}

impl SigningArgs {
    /// What requests are signed with; `None`: they are not signed.
    fn authority(&self) -> Result<Option<Arc<CaFiles>>> {
        let of_one_signer = [
            &self.cluster_signing_kube_apiserver_client_cert_file,
            &self.cluster_signing_kube_apiserver_client_key_file,
            &self.cluster_signing_kubelet_client_cert_file,
            &self.cluster_signing_kubelet_client_key_file,
            &self.cluster_signing_kubelet_serving_cert_file,
            &self.cluster_signing_kubelet_serving_key_file,
            &self.cluster_signing_legacy_unknown_cert_file,
            &self.cluster_signing_legacy_unknown_key_file,
        ];
        if of_one_signer.iter().any(|f| f.is_some()) {
            bail!(
                "--cluster-signing-SIGNER-cert-file and -key-file are not supported yet: give --cluster-signing-cert-file and --cluster-signing-key-file for all signers"
            );
        }
        let (Some(certificate), Some(key)) = (&self.cluster_signing_cert_file, &self.cluster_signing_key_file) else {
            return Ok(None);
        };
        let files = CaFiles { certificate: certificate.clone(), key: key.clone() };
        for (flag, file) in [("cert", &files.certificate), ("key", &files.key)] {
            std::fs::read_to_string(file)
                .with_context(|| format!("cannot read --cluster-signing-{flag}-file {}", file.display()))?;
        }
        Ok(Some(Arc::new(files)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_known_by_upstreams_names() {
        let check = |list: &[&str]| check_controllers(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert!(check(&["*", "-deployment-controller", "service-lb-controller"]).is_ok());
        let error = check(&["no-such-controller"]).expect_err("unknown").to_string();
        assert!(error.contains("no-such-controller"), "{error}");
    }
}
