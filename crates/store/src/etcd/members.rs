//! The members of the etcd cluster: whom to ask, when to ask another, and what may be asked twice.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::dial::{self, NotConnected};
use super::options::{Endpoint, Options};
use crate::proto::maintenance_client::MaintenanceClient;
use crate::proto::{StatusRequest, StatusResponse};

/// A read asks the next member after this.
const READ_TRY: Duration = Duration::from_secs(3);
/// etcd gives a proposal five seconds and two elections.
const WRITE_TRY: Duration = Duration::from_secs(10);
/// A member may first write what it answers to its disk: gigabytes.
const LONG_TRY: Duration = Duration::from_secs(1800);
/// How long members are asked in turn before a call fails.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How often members are looked at when there are several, and how long one may take to answer.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a call may reach etcd twice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// A read: any failure of a member is answered by asking another.
    Safe,
    /// A write: asked again only when it is certain that nothing was done.
    Unsafe,
    /// What takes a member long and costs it much: as a write, but waited for.
    Never,
}

/// How a call failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// etcd said so.
    Refused(Status),
    /// Nobody could be asked; nothing was done.
    Unreachable(Status),
    /// It may have been done.
    Unknown(Status),
}

pub(crate) struct Member {
    pub(super) endpoint: Endpoint,
    channel: Channel,
    healthy: watch::Sender<bool>,
}

impl Member {
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Turns false when the member should be left for another.
    pub(super) fn health(&self) -> watch::Receiver<bool> {
        self.healthy.subscribe()
    }

    pub(super) fn set_health(&self, healthy: bool) {
        let changed = self.healthy.send_replace(healthy) != healthy;
        if changed && !healthy {
            tracing::warn!(endpoint = %self.endpoint, "this member of etcd does not answer");
        }
    }

    /// What the member says of itself. Not to be waited for longer than a moment.
    pub(crate) async fn status(&self) -> Result<StatusResponse, Status> {
        let mut client = MaintenanceClient::new(self.channel());
        let asked = tokio::time::timeout(CHECK_TIMEOUT, client.status(StatusRequest {})).await;
        Ok(asked.map_err(|_| Status::deadline_exceeded("no answer"))??.into_inner())
    }

    /// Sends one call; ends early when the member is found dead meanwhile.
    async fn call<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        let mut health = self.health();
        let was_healthy = *health.borrow_and_update();
        let died = async {
            if !was_healthy || health.wait_for(|healthy| !healthy).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            answer = call => answer.map(Response::into_inner),
            () = died => Err(Status::unavailable(format!("{} does not answer", self.endpoint))),
            () = tokio::time::sleep(limit) => {
                self.set_health(false);
                Err(Status::deadline_exceeded(format!("{} gave no answer in {limit:?}", self.endpoint)))
            }
        }
    }
}

pub(crate) struct Members {
    all: Vec<Arc<Member>>,
    next: AtomicUsize,
}

impl Members {
    pub(crate) fn new(options: &Options) -> Arc<Self> {
        let member = |endpoint: &Endpoint| {
            let channel = dial::channel(endpoint, options.tls.as_ref());
            Arc::new(Member { endpoint: endpoint.clone(), channel, healthy: watch::Sender::new(true) })
        };
        let members = Arc::new(Self { all: options.endpoints.iter().map(member).collect(), next: AtomicUsize::new(0) });
        if members.all.len() > 1 {
            for member in &members.all {
                tokio::spawn(keep_looking(Arc::downgrade(member)));
            }
        }
        members
    }

    pub(crate) fn all(&self) -> &[Arc<Member>] {
        &self.all
    }

    /// All members, in turn, those that answer first.
    pub(super) fn in_turn(&self) -> Vec<&Arc<Member>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut order: Vec<_> = (0..self.all.len()).map(|at| &self.all[(first + at) % self.all.len()]).collect();
        order.sort_by_key(|member| !*member.healthy.borrow());
        order
    }

    /// Calls one member after the other until one answers.
    pub(super) async fn call<M: Clone, T, F>(
        &self,
        repeat: Repeat,
        message: M,
        call: impl Fn(Channel, Request<M>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let limit = match repeat {
            Repeat::Safe => READ_TRY,
            Repeat::Unsafe => WRITE_TRY,
            Repeat::Never => LONG_TRY,
        };
        let deadline = Instant::now() + PATIENCE;
        let mut pause = PAUSE;
        loop {
            let mut last = Status::unavailable("etcd has no members");
            for member in self.in_turn() {
                let mut request = Request::new(message.clone());
                // A member that has no leader says so at once, and has done nothing.
                request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
                match member.call(limit, call(member.channel(), request)).await {
                    Ok(answer) => {
                        member.set_health(true);
                        return Ok(answer);
                    }
                    Err(status) if !lost(&status) => return Err(Failure::Refused(status)),
                    Err(status) if repeat == Repeat::Safe || nothing_done(&status) => {
                        tracing::debug!(endpoint = %member.endpoint, %status, "asking another member of etcd");
                        if self.all.len() > 1 {
                            member.set_health(false);
                        }
                        last = status;
                    }
                    Err(status) => return Err(Failure::Unknown(status)),
                }
            }
            if Instant::now() + pause >= deadline {
                return Err(Failure::Unreachable(last));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Whether the answer, if there is one, says that the member could not serve, rather than what is wrong with the call.
fn lost(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Internal | Code::Aborted => true,
        Code::Unknown => !status.message().starts_with("etcdserver: ") || status.message().contains("timed out"),
        _ => false,
    }
}

/// Whether it is certain that etcd did not begin to carry the call out.
fn nothing_done(status: &Status) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<NotConnected>() || error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    status.message() == "etcdserver: no leader"
}

/// Looks at a member from time to time, as long as it is used.
async fn keep_looking(member: Weak<Member>) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let Some(member) = member.upgrade() else { return };
        let status = member.status().await;
        member.set_health(matches!(&status, Ok(status) if status.leader != 0));
    }
}
