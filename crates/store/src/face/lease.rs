//! Leases.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::Face;
use super::convert::refusal;
use crate::proto::lease_server::Lease;
use crate::proto::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use crate::{Error, Store};

/// etcd's limit, in seconds.
const MAX_TTL: i64 = 9_000_000_000;

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[tonic::async_trait]
impl Lease for Face {
    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        if ttl > MAX_TTL {
            return Err(Status::out_of_range("etcdserver: too large lease TTL"));
        }
        // As etcd does with what is less than it can keep.
        let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or_default().max(1));
        let id = self.store.lease_grant_as(id, ttl).await.map_err(|error| refusal(&error))?;
        let header = self.present();
        Ok(Response::new(LeaseGrantResponse { header, id, ttl: seconds(ttl), error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        self.store.lease_revoke(request.into_inner().id).await.map_err(|error| refusal(&error))?;
        Ok(Response::new(LeaseRevokeResponse { header: self.present() }))
    }

    type LeaseKeepAliveStream = BoxStream<'static, Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let face = self.clone();
        let answers = request.into_inner().then(move |request| {
            let face = face.clone();
            async move {
                let id = request?.id;
                let ttl = match face.store.lease_keep_alive(id).await {
                    Ok(ttl) => seconds(ttl),
                    // That it is over is an answer, as in etcd.
                    Err(Error::LeaseNotFound(_)) => 0,
                    Err(error) => return Err(refusal(&error)),
                };
                Ok(LeaseKeepAliveResponse { header: face.present(), id, ttl })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let header = self.present();
        let response = match self.store.lease_state(id).await {
            Ok(state) => LeaseTimeToLiveResponse {
                header,
                id,
                ttl: seconds(state.left),
                granted_ttl: seconds(state.granted),
                keys: if keys { state.keys } else { Vec::new() },
            },
            Err(Error::LeaseNotFound(_)) => LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() },
            Err(error) => return Err(refusal(&error)),
        };
        Ok(Response::new(response))
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Result<Response<LeaseLeasesResponse>, Status> {
        let leases = self.store.leases().await.map_err(|error| refusal(&error))?;
        let leases = leases.into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: self.present(), leases }))
    }
}
