//! What administrators ask of a member.

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::convert::refusal;
use super::{Face, TERM, VERSION};
use crate::proto::maintenance_server::Maintenance;
use crate::proto::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, HashKvRequest,
    HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest,
    SnapshotResponse, StatusRequest, StatusResponse, alarm_request,
};
use crate::snapshot;
use crate::{Error, Store};

/// A snapshot's bytes in one message.
const CHUNK: usize = 64 << 10;

impl Face {
    /// A checksum of all that is held up to a revision (0: the present), as etcd makes it of the same history.
    async fn hash(&self, revision: i64) -> Result<(u32, i64, i64), Status> {
        let export = self.store.export().await.map_err(|error| refusal(&error))?;
        let (current, compacted) = (export.revision, export.compacted);
        if revision > current {
            return Err(refusal(&Error::FutureRevision { asked: revision, current }));
        }
        if revision != 0 && revision < compacted {
            return Err(refusal(&Error::Compacted { asked: revision, compacted }));
        }
        let until = if revision == 0 { current } else { revision };
        let hashed = tokio::task::spawn_blocking(move || snapshot::hash(&export, until)).await;
        let hash = hashed.map_err(|error| Status::internal(error.to_string()))?.map_err(|error| refusal(&error))?;
        // etcd says -1 where nothing was compacted.
        Ok((hash, if compacted == 0 { -1 } else { compacted }, current))
    }
}

#[tonic::async_trait]
impl Maintenance for Face {
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        let request = request.into_inner();
        let full = self.store.health().await.map_err(|error| refusal(&error))?.is_some();
        let wanted = matches!(AlarmType::try_from(request.alarm), Ok(AlarmType::None | AlarmType::Nospace));
        if request.action != alarm_request::AlarmAction::Get as i32 && (!full || request.action == 1) {
            // There is one alarm, and it is raised and dropped by the disk.
            return Ok(Response::new(AlarmResponse { header: self.present(), alarms: Vec::new() }));
        }
        let alarm = AlarmMember { member_id: self.member(), alarm: AlarmType::Nospace as i32 };
        let alarms = if full && wanted { vec![alarm] } else { Vec::new() };
        Ok(Response::new(AlarmResponse { header: self.present(), alarms }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let status = self.store.status().await.map_err(|error| refusal(&error))?;
        let size = i64::try_from(status.size).unwrap_or(i64::MAX);
        let index = u64::try_from(status.revision).unwrap_or_default();
        let member = self.member();
        Ok(Response::new(StatusResponse {
            header: self.header(status.revision),
            version: VERSION.into(),
            db_size: size,
            leader: member,
            raft_index: index,
            raft_term: TERM,
            raft_applied_index: index,
            errors: status.read_only.map(|_| format!("memberID:{member} alarm:NOSPACE ")).into_iter().collect(),
            db_size_in_use: size,
            is_learner: false,
        }))
    }

    async fn defragment(&self, _: Request<DefragmentRequest>) -> Result<Response<DefragmentResponse>, Status> {
        self.store.maintain().await.map_err(|error| refusal(&error))?;
        Ok(Response::new(DefragmentResponse { header: self.present() }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let (hash, _, revision) = Face::hash(self, 0).await?;
        Ok(Response::new(HashResponse { header: self.header(revision), hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let (hash, compact_revision, revision) = Face::hash(self, request.into_inner().revision).await?;
        Ok(Response::new(HashKvResponse { header: self.header(revision), hash, compact_revision }))
    }

    async fn move_leader(&self, request: Request<MoveLeaderRequest>) -> Result<Response<MoveLeaderResponse>, Status> {
        if request.into_inner().target_id != self.member() {
            return Err(Status::failed_precondition("etcdserver: bad leader transferee"));
        }
        Ok(Response::new(MoveLeaderResponse { header: self.present() }))
    }

    type SnapshotStream = BoxStream<'static, Result<SnapshotResponse, Status>>;

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let export = self.store.export().await.map_err(|error| refusal(&error))?;
        let header = self.header(export.revision);
        // Nothing may be left beside a full store, which is to be saved all the more.
        let places = [self.store.directory().to_owned(), std::env::temp_dir()];
        let made = tokio::task::spawn_blocking(move || {
            snapshot::where_space_is(&places, |place| snapshot::unnamed(&export, place))
        });
        let made = made.await;
        let made = made.map_err(|error| Status::internal(error.to_string()))?;
        let (file, size) = made.map_err(|error| refusal(&error))?;
        let state = (tokio::fs::File::from_std(file), size);
        let stream = futures::stream::try_unfold(state, move |(mut file, left)| async move {
            use tokio::io::AsyncReadExt;
            if left == 0 {
                return Ok(None);
            }
            let mut blob = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
            file.read_exact(&mut blob).await.map_err(|error| Status::data_loss(error.to_string()))?;
            let remaining_bytes = left - blob.len() as u64;
            let response = SnapshotResponse { header, remaining_bytes, blob: blob.into() };
            Ok(Some((response, (file, remaining_bytes))))
        });
        Ok(Response::new(stream.boxed()))
    }
}
