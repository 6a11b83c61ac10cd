//! The etcd face: the embedded engine served as etcd's v3 API, so that `etcdctl` and whatever else speaks it works.
//!
//! | file | what |
//! |---|---|
//! | `listen` | a unix socket of the owner's, or TLS that demands a client certificate |
//! | `convert` | messages as the trait's words, and errors as etcd words them |
//! | `kv`, `lease`, `watch`, `maintenance` | the services |
//! | `refused` | what is not served, and says so |
//!
//! There is one member, which leads always; the term of its leadership never changes.

mod convert;
mod kv;
mod lease;
mod listen;
mod maintenance;
mod refused;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::future::Future;
use std::sync::Arc;

use tonic::Status;
use tonic::service::Routes;
use tonic::transport::Server;

pub use listen::{Address, Listener, Tls};

use crate::proto::cluster_server::ClusterServer;
use crate::proto::kv_server::KvServer;
use crate::proto::lease_server::LeaseServer;
use crate::proto::maintenance_server::MaintenanceServer;
use crate::proto::watch_server::WatchServer;
use crate::proto::{self, ResponseHeader};
use crate::{Embedded, Error};

/// The etcd whose behaviour is served; clients choose by it what they rely on.
const VERSION: &str = "3.5.21";
/// Requests are read up to this, so that those above etcd's limit are refused in its words.
const MAX_REQUEST: usize = 64 << 20;
/// Many writers share one connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
const TERM: u64 = 1;

/// What the services share.
#[derive(Clone)]
pub(crate) struct Face {
    store: Arc<Embedded>,
    /// Where clients are told to find this member.
    urls: Arc<Vec<String>>,
}

/// Serves until `shutdown`; then what is under way is finished, and watches are ended.
pub async fn serve(
    store: Arc<Embedded>,
    listener: Listener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let face = Face { store, urls: Arc::new(vec![listener.url()]) };
    let mut routes = Routes::builder();
    routes
        .add_service(KvServer::new(face.clone()).max_decoding_message_size(MAX_REQUEST))
        .add_service(WatchServer::new(face.clone()))
        .add_service(LeaseServer::new(face.clone()))
        .add_service(MaintenanceServer::new(face.clone()))
        .add_service(ClusterServer::new(face))
        .add_service(refused::Auth);
    let (ending, ended) = tokio::sync::watch::channel(false);
    let connections = listener.connections(ended);
    let served = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(connections, async move {
            shutdown.await;
            ending.send_replace(true);
        })
        .await;
    served.map_err(|error| Error::Unavailable(format!("the etcd face ended: {error}")))
}

impl Face {
    fn header(&self, revision: i64) -> Option<ResponseHeader> {
        let id = self.store.id();
        Some(ResponseHeader { cluster_id: id, member_id: self.member(), revision, raft_term: TERM })
    }

    /// The header of an answer that names no revision of its own.
    fn present(&self) -> Option<ResponseHeader> {
        self.header(self.store.revision())
    }

    /// The member's number: the store's, but not the same as the cluster's.
    fn member(&self) -> u64 {
        self.store.id().rotate_left(32) | 1
    }
}

type Changed = Result<tonic::Response<proto::MemberChangeResponse>, Status>;

/// What whoever wants other members is told.
fn one_member() -> Changed {
    Err(Status::unimplemented(
        "the store has one member, the server itself: none is added, removed, updated or promoted; several servers share an etcd",
    ))
}

#[tonic::async_trait]
impl proto::cluster_server::Cluster for Face {
    async fn member_add(&self, _: tonic::Request<proto::MemberChangeRequest>) -> Changed {
        one_member()
    }

    async fn member_remove(&self, _: tonic::Request<proto::MemberChangeRequest>) -> Changed {
        one_member()
    }

    async fn member_update(&self, _: tonic::Request<proto::MemberChangeRequest>) -> Changed {
        one_member()
    }

    async fn member_promote(&self, _: tonic::Request<proto::MemberChangeRequest>) -> Changed {
        one_member()
    }

    async fn member_list(
        &self,
        _: tonic::Request<proto::MemberListRequest>,
    ) -> Result<tonic::Response<proto::MemberListResponse>, Status> {
        let member = proto::Member {
            id: self.member(),
            name: "pilothouse".into(),
            peer_ur_ls: Vec::new(),
            client_ur_ls: self.urls.to_vec(),
            is_learner: false,
        };
        Ok(tonic::Response::new(proto::MemberListResponse { header: self.present(), members: vec![member] }))
    }
}
