//! The Lease by which a server is known among those of its cluster, and the end of Leases of servers that are gone.

use crate::context::Context;
use crate::options::{ListOptions, Options};
use crate::registry::mutation::Mutation;
use crate::registry::{Place, Registry, Served, selection};
use crate::user::UserInfo;
use api::Status;
use jiff::{SignedDuration, Timestamp};
use schema::{Map, Value};
use sha2::{Digest, Sha256};
use std::sync::{Arc, Weak};
use std::time::Duration;

const NAMESPACE: &str = "kube-system";
/// Says whose identity a Lease is.
const COMPONENT_LABEL: &str = "apiserver.kubernetes.io/identity";
const COMPONENT: &str = "kube-apiserver";
/// How long a server counts that does not renew its Lease, in seconds, and how often it does: upstream's.
const DURATION: i64 = 3600;
const RENEW: Duration = Duration::from_secs(10);
/// How often Leases are looked through for ended ones.
const COLLECT: Duration = Duration::from_secs(3600);

/// What the server of a machine is called: the same at each of its starts, and as upstream's there would be.
fn name(host: &str) -> String {
    let mut hash = Sha256::new();
    for part in [host, COMPONENT] {
        // Longer host names than the kernel's 64 bytes there are none.
        hash.update(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        hash.update(part);
    }
    format!("apiserver-{}", base32(&hash.finalize()[..16]))
}

/// RFC 4648, in lower case and without padding.
fn base32(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let digit = |start: usize| (start..start + 5).fold(0, |value, at| value << 1 | bit(at));
    (0..bytes.len() * 8).step_by(5).map(|start| char::from(DIGITS[usize::from(digit(start))])).collect()
}

/// A sign of life: makes the Lease, or renews it.
#[derive(Debug)]
struct Beat {
    name: String,
    host: String,
    holder: String,
}

impl Mutation for Beat {
    fn apply(&self, cx: &Context, existing: Option<&Map>) -> Result<Map, Status> {
        let mut lease = existing.cloned().unwrap_or_default();
        lease.set_at(&["metadata", "name"], self.name.as_str());
        lease.set_at(&["metadata", "labels", COMPONENT_LABEL], COMPONENT);
        lease.set_at(&["metadata", "labels", "kubernetes.io/hostname"], self.host.as_str());
        lease.set_at(&["spec", "holderIdentity"], self.holder.as_str());
        lease.set_at(&["spec", "leaseDurationSeconds"], DURATION);
        lease.set_at(&["spec", "renewTime"], cx.now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string());
        Ok(lease)
    }
    fn is_patch(&self) -> bool {
        false
    }
    fn creates(&self) -> bool {
        true
    }
}

/// Whether nobody has renewed a Lease for its time. One that says no time never counts.
fn is_expired(lease: &Map, now: Timestamp) -> bool {
    let renewed = lease.str_at(&["spec", "renewTime"]).parse::<Timestamp>().ok();
    let lasts = lease.at(&["spec", "leaseDurationSeconds"]).and_then(Value::as_i64).map(SignedDuration::from_secs);
    let until = renewed.zip(lasts).and_then(|(renewed, lasts)| renewed.checked_add(lasts).ok());
    until.is_none_or(|until| until < now)
}

fn context() -> Context {
    Context::new(Arc::new(UserInfo::apiserver()), COMPONENT, Timestamp::now())
}

/// Keeps the Lease of this machine's server and ends those of others, for as long as there is the registry.
pub(crate) fn keep(registry: &Arc<Registry>, host: String) {
    let beat = Beat { name: name(&host), holder: format!("{}_{}", name(&host), uuid::Uuid::new_v4()), host };
    let registry = Arc::downgrade(registry);
    tokio::spawn(async move {
        let mut beats = tokio::time::interval(RENEW);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut collections = tokio::time::interval(COLLECT);
        loop {
            let done = tokio::select! {
                _ = beats.tick() => renew(&registry, &beat).await,
                _ = collections.tick() => collect(&registry).await,
            };
            match done {
                None => return,
                Some(Ok(())) => {}
                Some(Err(status)) => {
                    tracing::warn!(lease = beat.name, why = status.message, "the servers' Leases could not be kept");
                }
            }
        }
    });
}

fn leases(registry: &Registry) -> Result<Arc<Served>, Status> {
    let served = registry.preferred("coordination.k8s.io", "leases");
    served.ok_or_else(|| Status::internal("leases are not served"))
}

/// `None`: the server is gone.
async fn renew(registry: &Weak<Registry>, beat: &Beat) -> Option<Result<(), Status>> {
    let registry = registry.upgrade()?;
    let place = Place { namespace: NAMESPACE, name: &beat.name, subresource: "" };
    let renewed = async {
        let served = leases(&registry)?;
        registry.update(&context(), &served, place, beat, &Options::default()).await.map(|_| ())
    };
    Some(renewed.await)
}

async fn collect(registry: &Weak<Registry>) -> Option<Result<(), Status>> {
    let registry = registry.upgrade()?;
    Some(collect_from(&registry).await)
}

async fn collect_from(registry: &Registry) -> Result<(), Status> {
    let served = leases(registry)?;
    let labels = format!("{COMPONENT_LABEL}={COMPONENT}");
    let filter = selection::filter(&served, served.storage("list")?, NAMESPACE, "", &labels, "")?;
    let listed = registry.list(&served, &filter, &ListOptions::default()).await?;
    let cx = context();
    for entry in listed.entries {
        if !is_expired(&served.decode(&entry)?, cx.now) {
            continue;
        }
        let mut options = Options::default();
        // One that was renewed meanwhile stays.
        options.delete.resource_version = Some(entry.revision().to_string());
        match registry.delete(&cx, &served, NAMESPACE, entry.name(), &options).await {
            Ok(_) => tracing::info!(lease = entry.name(), "the Lease of a server that is gone was removed"),
            Err(status) if matches!(status.code, 404 | 409) => {}
            Err(status) => return Err(status),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::opened;

    #[test]
    fn names_are_those_of_upstream() {
        assert_eq!(base32(b"foobar"), "mzxw6ytboi");
        // sha256 of 0x0004 "host" 0x000e "kube-apiserver".
        assert_eq!(name("host"), "apiserver-dd6egxogzxmivwqge6rcnj6rwi");
    }

    #[tokio::test]
    async fn a_server_renews_its_lease_and_ends_those_of_servers_that_are_gone() {
        let opened = opened().await;
        let registry = &opened.registry;
        let served = leases(registry).expect("served");
        let beat = |name: &str, holder: &str| Beat { name: name.into(), host: "h".into(), holder: holder.into() };
        let at = async |beat: &Beat, now: Timestamp| {
            let cx = Context::new(Arc::new(UserInfo::apiserver()), COMPONENT, now);
            let place = Place { namespace: NAMESPACE, name: &beat.name, subresource: "" };
            registry.update(&cx, &served, place, beat, &Options::default()).await.expect("written")
        };
        let now = Timestamp::now();
        let old = now - SignedDuration::from_secs(DURATION + 60);
        at(&beat("a", "before"), old).await;
        at(&beat("b", "b"), old).await;
        let renewed = at(&beat("a", "after"), now).await;
        assert_eq!(renewed.object.str_at(&["spec", "holderIdentity"]), "after");
        assert_eq!(renewed.object.str_at(&["metadata", "labels", COMPONENT_LABEL]), COMPONENT);
        assert_eq!(renewed.object.str_at(&["metadata", "labels", "kubernetes.io/hostname"]), "h");
        collect_from(registry).await.expect("collected");
        assert!(registry.get(&served, NAMESPACE, "a", None).await.is_ok());
        assert_eq!(registry.get(&served, NAMESPACE, "b", None).await.expect_err("gone").code, 404);
    }
}
