//! The certificates of a cluster on one machine: which there are, and renewing them while it runs.

use super::Settings;
use super::control_plane::ControlPlane;
use crate::kubeconfig;
use crate::pki::{Leaf, Pki, Usage};
use anyhow::Result;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub const API_SERVER: &str = "apiserver";
pub const KUBELET_CLIENT: &str = "apiserver-kubelet-client";
pub const KUBELET: &str = "kubelet";
pub const ADMIN: &str = "admin";

/// How often certificates are looked at.
pub const LOOK: Duration = Duration::from_secs(3600);

fn leaf(file: &'static str, name: &str, organizations: &[&str], usage: Usage) -> Leaf {
    Leaf {
        file,
        common_name: name.to_owned(),
        organizations: organizations.iter().map(|o| (*o).to_owned()).collect(),
        usage,
    }
}

/// What the API server serves with: its Service's names, this machine's, and the addresses it is reached at.
pub fn api_server(domain: &str, addresses: &[IpAddr], host: Option<&str>) -> Leaf {
    let mut addresses: Vec<IpAddr> = addresses.iter().copied().filter(|ip| !ip.is_unspecified()).collect();
    addresses.push(IpAddr::from([127, 0, 0, 1]));
    addresses.sort();
    addresses.dedup();
    let mut names: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).to_vec();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names.extend(host.map(str::to_owned));
    leaf(API_SERVER, "kube-apiserver", &[], Usage::Server { names, addresses })
}

/// What the API server shows to kubelets.
pub fn kubelet_client() -> Leaf {
    leaf(KUBELET_CLIENT, "kube-apiserver-kubelet-client", &["system:masters"], Usage::Client)
}

/// The administrator's.
pub fn admin() -> Leaf {
    leaf(ADMIN, "kubernetes-admin", &["system:masters"], Usage::Client)
}

fn leaves(settings: &Settings) -> Vec<Leaf> {
    let addresses = [settings.args.service_cidr.nth(1).into(), settings.node_ip, settings.api.ip()];
    let server = api_server(&settings.args.cluster_domain, &addresses, Some(&settings.node_name));
    let mut leaves = vec![server, kubelet_client(), admin()];
    if settings.node.is_some() {
        leaves.push(leaf(
            KUBELET,
            &format!("system:node:{}", settings.node_name),
            &["system:nodes"],
            Usage::Server { names: vec![settings.node_name.clone()], addresses: vec![settings.node_ip] },
        ));
    }
    leaves
}

/// Makes what is missing or nearly over.
pub fn ensure(settings: &Settings) -> Result<Pki> {
    let pki = Pki::open(settings.place.pki.clone())?;
    for leaf in leaves(settings) {
        pki.ensure(&leaf)?;
    }
    Ok(pki)
}

/// Renews what is nearly over, as long as the cluster runs. Those who serve with files reload them by themselves.
pub async fn renew(settings: &Settings, pki: &Pki, plane: &ControlPlane, admin: PathBuf) -> Result<()> {
    loop {
        tokio::time::sleep(LOOK).await;
        for leaf in leaves(settings) {
            match pki.ensure(&leaf) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(certificate = leaf.file, "renewed");
                    renewed(settings, pki, plane, &admin, leaf.file)?;
                }
                Err(e) => tracing::error!(certificate = leaf.file, "cannot be renewed and is tried again: {e:#}"),
            }
        }
    }
}

fn renewed(settings: &Settings, pki: &Pki, plane: &ControlPlane, admin: &std::path::Path, file: &str) -> Result<()> {
    match file {
        KUBELET_CLIENT => plane.replace_kubelet_client(pki),
        ADMIN => {
            let (pair, ca) = (pki.pair(ADMIN)?, pki.ca_pem()?);
            let entry = kubeconfig::Entry {
                name: settings.args.place.name(),
                server: settings.server_url(),
                ca_pem: &ca,
                certificate_pem: &pair.certificate,
                key_pem: &pair.key,
            };
            entry.write(admin)?;
            match kubeconfig::Person::find().filter(|_| !settings.args.no_merge) {
                Some(person) => entry.merge_into(&person),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}
