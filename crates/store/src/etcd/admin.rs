//! What an administrator asks of members: a snapshot, whether they hold the same, their space back.

use std::io::Write;
use std::path::Path;

use super::members::Repeat;
use super::{Etcd, MAX_ANSWER, read_failed, told};
use crate::proto::maintenance_client::MaintenanceClient;
use crate::snapshot::{self, Part};
use crate::{Error, proto};

impl Etcd {
    /// Saves a snapshot of one member into a file that is not there yet; it appears when it is whole, checked and synced.
    pub async fn snapshot(&self, path: &Path) -> Result<snapshot::Status, Error> {
        let mut part = Part::create(path)?;
        let call = |channel, request| async move {
            MaintenanceClient::new(channel).max_decoding_message_size(MAX_ANSWER).snapshot(request).await
        };
        let mut pieces = self
            .core
            .members
            .call(Repeat::Never, proto::SnapshotRequest {}, call)
            .await
            .map_err(|failure| read_failed(&failure))?;
        while let Some(piece) = pieces.message().await.map_err(|status| Error::Unavailable(told(&status)))? {
            part.file.write_all(&piece.blob).map_err(Error::io("write", path))?;
        }
        part.sync()?;
        let status = snapshot::status(&part.path)?;
        if !status.verified {
            return Err(Error::Unavailable("the snapshot that etcd sent is cut short".into()));
        }
        part.appear()?;
        Ok(status)
    }

    /// Each member's hash of all that is held up to one revision, or why it does not tell it, with its endpoint. Where they differ,
    /// a member is damaged.
    pub async fn hashes(&self) -> Result<Vec<(String, Result<u32, Error>)>, Error> {
        let revision = self.core.revision().await?;
        let mut hashes = Vec::new();
        for member in self.core.members.all() {
            let asked = MaintenanceClient::new(member.channel()).hash_kv(proto::HashKvRequest { revision }).await;
            let hash = match asked {
                Ok(answer) => Ok(answer.into_inner().hash),
                Err(status) => Err(Error::Unavailable(told(&status))),
            };
            hashes.push((member.endpoint.to_string(), hash));
        }
        Ok(hashes)
    }

    /// Gives the space of forgotten history back, one member after the other.
    pub async fn defragment(&self) -> Result<(), Error> {
        for member in self.core.members.all() {
            let asked = MaintenanceClient::new(member.channel()).defragment(proto::DefragmentRequest {}).await;
            asked.map_err(|status| Error::Unavailable(format!("{}: {}", member.endpoint, told(&status))))?;
        }
        Ok(())
    }
}
