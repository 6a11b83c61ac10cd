//! `pilothouse apiserver`: the API server alone with its store, with kube-apiserver's flags.
//!
//! What no flag gives is made and kept in the data directory: a CA, the serving certificate, the key of tokens; and, when
//! clients have no other CA, a kubeconfig of an administrator.

mod audit;
mod flags;

pub use flags::ApiserverArgs;

use crate::cluster::certificates;
use crate::cluster::control_plane::ControlPlane;
use crate::kubeconfig;
use crate::lock;
use crate::pki::Pki;
use crate::place::Place;
use anyhow::{Context, Result, bail};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

const NAME: &str = "kube-apiserver";

/// Runs the API server.
pub fn run(args: ApiserverArgs) -> Result<()> {
    args.surface.check()?;
    args.admission()?;
    let place = Place::new(&args.data_dir)?;
    std::fs::create_dir_all(&place.data_dir).with_context(|| format!("cannot create {}", place.data_dir.display()))?;
    let _lock = lock::take(&place.lock)?;
    crate::cluster::claim::Claim::take_for(&place, None)?;
    let listener = crate::cluster::listen(SocketAddr::new(args.bind_address, args.secure_port), "secure-port")?;
    let address = listener.local_addr()?;
    super::run_alone(crate::cluster::threads(), |shutdown| async move {
        let end = CancellationToken::new();
        let start = async {
            args.agree(&place).await?;
            let made = args.make(&place, address.port())?;
            let plane = ControlPlane::start(made.plan, listener, end.clone()).await?;
            anyhow::Ok((made.own, plane))
        };
        let (own, plane) = tokio::select! {
            started = start => started?,
            // A store that does not answer, say.
            () = shutdown.cancelled() => bail!("stopped before it was ready"),
        };
        let mut told = format!("{NAME} is running at https://{address}");
        let mut admin = None;
        if let Some((pki, leaves)) = &own
            && leaves.iter().any(|leaf| leaf.file == certificates::ADMIN)
        {
            write_admin(pki, address, &place.admin_kubeconfig)?;
            told = format!("{told}; its administrator's kubeconfig is {}", place.admin_kubeconfig.display());
            admin = Some((address, place.admin_kubeconfig.clone()));
        }
        super::announce(&told);
        let renewal = async {
            match own {
                Some((pki, leaves)) => renew(&pki, &leaves, &plane, admin).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => tokio::time::sleep(args.shutdown_delay_duration.0).await,
            why = plane.ended() => return Err(why),
            () = renewal => {}
        }
        end.cancel();
        plane.stop().await;
        Ok(())
    })
}

fn write_admin(pki: &Pki, address: SocketAddr, file: &Path) -> Result<()> {
    let (pair, ca) = (pki.pair(certificates::ADMIN)?, pki.ca_pem()?);
    let host = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    let entry = kubeconfig::Entry {
        name: "pilothouse",
        server: format!("https://{}", SocketAddr::new(host, address.port())),
        ca_pem: &ca,
        certificate_pem: &pair.certificate,
        key_pem: &pair.key,
    };
    entry.write(file)
}

/// Renews the certificates that are made here; those who serve with files read them again by themselves.
async fn renew(pki: &Pki, leaves: &[crate::pki::Leaf], plane: &ControlPlane, admin: Option<(SocketAddr, PathBuf)>) {
    loop {
        tokio::time::sleep(certificates::LOOK).await;
        for leaf in leaves {
            let renewed = pki.ensure(leaf).and_then(|renewed| {
                if renewed && leaf.file == certificates::KUBELET_CLIENT {
                    plane.replace_kubelet_client(pki)?;
                }
                if let Some((address, file)) = admin.as_ref().filter(|_| renewed && leaf.file == certificates::ADMIN) {
                    write_admin(pki, *address, file)?;
                }
                Ok(())
            });
            if let Err(e) = renewed {
                tracing::error!(certificate = leaf.file, "cannot be renewed and is tried again: {e:#}");
            }
        }
    }
}
