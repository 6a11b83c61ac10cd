//! Leader election by Lease: one of several processes acts, another takes over when it is gone (client-go `leaderelection`).

use anyhow::{Result, bail};
use controllers::events::{Kind, Recorder};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The components that elect, as upstream's events name them.
pub const SCHEDULER: &str = "default-scheduler";
pub const MANAGER: &str = "kube-controller-manager";

/// Which Lease, as whom, and how patiently.
#[derive(Clone, Debug)]
pub struct Election {
    pub namespace: String,
    pub name: String,
    /// Must name one process at a time: whoever finds it in the Lease goes on at once.
    pub identity: String,
    /// How long others wait for a holder that does not renew.
    pub lease_duration: Duration,
    /// How long the holder tries to renew before it stops acting.
    pub renew_deadline: Duration,
    /// The wait between attempts.
    pub retry_period: Duration,
    /// In whose name events tell of it.
    pub component: &'static str,
    /// Told whether the Lease is held.
    pub leading: watch::Sender<bool>,
}

/// What is to be done about the Lease as it was read.
#[derive(Debug, PartialEq)]
enum Plan {
    Create(LeaseSpec),
    Take(LeaseSpec),
    Renew(LeaseSpec),
    /// Someone else holds it.
    Wait,
}

/// What was last seen of the Lease, and when: its end is measured by this machine's clock, not by the holder's.
#[derive(Debug, Default)]
struct Observed {
    record: Option<LeaseSpec>,
    at: Option<Instant>,
}

impl Election {
    /// An election with upstream's times.
    pub fn new(namespace: &str, name: &str, identity: &str, component: &'static str) -> Self {
        Election {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            component,
            leading: watch::Sender::new(false),
        }
    }

    fn plan(&self, lease: Option<&LeaseSpec>, observed: &mut Observed, now: Instant, clock: Timestamp) -> Plan {
        let ours = |acquired: Option<MicroTime>, transitions: i32| LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.lease_duration.as_secs()).ok(),
            acquire_time: acquired.or(Some(MicroTime(clock))),
            renew_time: Some(MicroTime(clock)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        let Some(lease) = lease else { return Plan::Create(ours(None, 0)) };
        if observed.record.as_ref() != Some(lease) {
            *observed = Observed { record: Some(lease.clone()), at: Some(now) };
        }
        let holder = lease.holder_identity.as_deref().unwrap_or("");
        let transitions = lease.lease_transitions.unwrap_or(0);
        if holder == self.identity {
            return Plan::Renew(ours(lease.acquire_time.clone(), transitions));
        }
        let lasts = Duration::from_secs(lease.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0));
        let expired = observed.at.is_none_or(|at| now >= at + lasts);
        if holder.is_empty() || expired { Plan::Take(ours(None, transitions + 1)) } else { Plan::Wait }
    }
}

/// Acquires the Lease, runs `act` while it is held, and gives it back at the end.
///
/// # Errors
/// What `act` failed with, or that the Lease was lost: then `act` has been dropped.
pub async fn lead<F, R>(client: Client, election: Election, shutdown: CancellationToken, act: F) -> Result<()>
where
    F: FnOnce(CancellationToken) -> R,
    R: Future<Output = Result<()>>,
{
    let leases: Api<Lease> = Api::namespaced(client.clone(), &election.namespace);
    let mut observed = Observed::default();
    loop {
        match attempt(&leases, &election, &mut observed).await {
            Ok(Some(lease)) => {
                break Recorder::new(client, election.component).event(
                    &lease,
                    Kind::Normal,
                    "LeaderElection",
                    format!("{} became leader", election.identity),
                );
            }
            Ok(None) => {}
            Err(e) => tracing::debug!(lease = %election.name, "cannot acquire the lease yet: {e}"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(election.retry_period) => {}
        }
    }
    tracing::info!(lease = %election.name, "became leader");
    let told = Told::new(election.leading.clone());
    let leading = shutdown.child_token();
    let outcome = tokio::select! {
        outcome = act(leading.clone()) => outcome,
        () = renew(&leases, &election, &mut observed) => {
            bail!("lost the lease {}/{}", election.namespace, election.name);
        }
    };
    drop(told);
    release(&leases, &election).await;
    outcome
}

/// Tells that the Lease is held for as long as it lives.
struct Told(watch::Sender<bool>);

impl Told {
    fn new(leading: watch::Sender<bool>) -> Self {
        leading.send_replace(true);
        Told(leading)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// Renews until that has failed for too long or someone else holds the Lease.
async fn renew(leases: &Api<Lease>, election: &Election, observed: &mut Observed) {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(election.retry_period).await;
        match tokio::time::timeout(election.renew_deadline, attempt(leases, election, observed)).await {
            Ok(Ok(Some(_))) => last = Instant::now(),
            Ok(Ok(None)) => return,
            Ok(Err(e)) => tracing::warn!(lease = %election.name, "cannot renew the lease: {e}"),
            Err(_) => {}
        }
        if last.elapsed() >= election.renew_deadline {
            return;
        }
    }
}

/// The Lease, when it is ours afterwards.
async fn attempt(
    leases: &Api<Lease>,
    election: &Election,
    observed: &mut Observed,
) -> Result<Option<Lease>, kube::Error> {
    let found = leases.get_opt(&election.name).await?;
    let spec = found.as_ref().and_then(|l| l.spec.as_ref());
    let empty = LeaseSpec::default();
    let spec = found.as_ref().map(|_| spec.unwrap_or(&empty));
    let (lease, create) = match election.plan(spec, observed, Instant::now(), Timestamp::now()) {
        Plan::Wait => return Ok(None),
        Plan::Create(spec) => (
            Lease {
                metadata: ObjectMeta { name: Some(election.name.clone()), ..ObjectMeta::default() },
                spec: Some(spec),
            },
            true,
        ),
        Plan::Take(spec) | Plan::Renew(spec) => (Lease { spec: Some(spec), ..found.unwrap_or_default() }, false),
    };
    let written = if create {
        leases.create(&PostParams::default(), &lease).await
    } else {
        leases.replace(&election.name, &PostParams::default(), &lease).await
    };
    match written {
        Ok(lease) => {
            *observed = Observed { record: lease.spec.clone(), at: Some(Instant::now()) };
            Ok(Some(lease))
        }
        // Someone was quicker: look again later.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(e) => Err(e),
    }
}

/// Lets the next one in at once.
async fn release(leases: &Api<Lease>, election: &Election) {
    let release = async {
        let Some(mut lease) = leases.get_opt(&election.name).await? else { return Ok(()) };
        if let Some(spec) = lease.spec.as_mut().filter(|s| s.holder_identity.as_deref() == Some(&election.identity)) {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            leases.replace(&election.name, &PostParams::default(), &lease).await?;
        }
        Ok::<_, kube::Error>(())
    };
    match tokio::time::timeout(Duration::from_secs(2), release).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::warn!(lease = %election.name, "cannot give the lease back: {e}"),
        Err(_) => tracing::warn!(lease = %election.name, "cannot give the lease back in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(by: &str, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(by.into()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_was_seen_unchanged_for_its_time() {
        let election = Election::new("kube-system", "x", "me", "x");
        let mut observed = Observed::default();
        let clock = Timestamp::UNIX_EPOCH;
        let start = Instant::now();
        assert!(matches!(election.plan(None, &mut observed, start, clock), Plan::Create(_)));
        let theirs = held("other", 3);
        assert_eq!(election.plan(Some(&theirs), &mut observed, start, clock), Plan::Wait);
        let later = start + Duration::from_secs(14);
        assert_eq!(election.plan(Some(&theirs), &mut observed, later, clock), Plan::Wait);
        let Plan::Take(taken) = election.plan(Some(&theirs), &mut observed, start + Duration::from_secs(15), clock)
        else {
            panic!("taken when it has run out")
        };
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("me"), Some(4)));
        // A renewal by the other starts the time anew.
        let renewed = LeaseSpec { renew_time: Some(MicroTime(clock)), ..theirs };
        assert_eq!(election.plan(Some(&renewed), &mut observed, start + Duration::from_secs(20), clock), Plan::Wait);
        assert!(matches!(election.plan(Some(&held("", 1)), &mut observed, start, clock), Plan::Take(_)));
        assert!(matches!(election.plan(Some(&held("me", 1)), &mut observed, start, clock), Plan::Renew(_)));
    }

    #[tokio::test]
    async fn who_becomes_leader_is_told_in_an_event() {
        use http_body_util::BodyExt as _;
        let told: watch::Sender<Vec<serde_json::Value>> = watch::Sender::default();
        let api = told.clone();
        // An API that has nothing and takes everything.
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let missing = serde_json::json!({"kind": "Status", "status": "Failure", "reason": "NotFound",
                    "code": 404, "message": ""});
                let (code, answer) = if parts.method == http::Method::POST {
                    let mut object: serde_json::Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
                    object["metadata"]["uid"] = "the-uid".into();
                    object["metadata"]["namespace"] = parts.uri.path().split('/').rev().nth(1).into();
                    api.send_modify(|told| told.push(object.clone()));
                    (201, object)
                } else {
                    (404, missing)
                };
                let body = http_body_util::Full::new(bytes::Bytes::from(answer.to_string()));
                Ok::<_, anyhow::Error>(http::Response::builder().status(code).body(body)?)
            }
        });
        let election = Election::new("kube-system", "kube-scheduler", "me", SCHEDULER);
        let mut posted = told.subscribe();
        let act = async |_| {
            posted.wait_for(|told| told.len() == 2).await?;
            Ok(())
        };
        lead(Client::new(service, "default"), election, CancellationToken::new(), act).await.expect("led");
        let told = told.borrow();
        let (event, about) = (&told[1], &told[1]["involvedObject"]);
        assert_eq!(event["message"], "me became leader");
        assert_eq!((&event["reason"], &event["source"]["component"]), (&"LeaderElection".into(), &SCHEDULER.into()));
        assert_eq!((&about["kind"], &about["name"]), (&"Lease".into(), &"kube-scheduler".into()));
        assert_eq!((&about["apiVersion"], &about["uid"]), (&"coordination.k8s.io/v1".into(), &"the-uid".into()));
        assert_eq!(event["metadata"]["namespace"], "kube-system");
    }
}
