//! What an administrator asks of members: a snapshot, whether they hold the same, their space back.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::members::Repeat;
use super::{Etcd, MAX_ANSWER, read_failed, told};
use crate::proto::maintenance_client::MaintenanceClient;
use crate::{Error, proto, snapshot};

impl Etcd {
    /// Saves a snapshot of one member into a file that is not there yet; it appears when it is whole, checked and synced.
    pub async fn snapshot(&self, path: &Path) -> Result<snapshot::Status, Error> {
        let failed = |doing: &'static str| {
            let path = path.to_owned();
            move |source| Error::Io { doing, path, source }
        };
        if path.exists() {
            return Err(failed("write")(std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it is there already")));
        }
        let call = |channel, request| async move {
            MaintenanceClient::new(channel).max_decoding_message_size(MAX_ANSWER).snapshot(request).await
        };
        let mut parts = self
            .core
            .members
            .call(Repeat::Safe, proto::SnapshotRequest {}, call)
            .await
            .map_err(|failure| read_failed(&failure))?;
        let part = snapshot::part_of(path);
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&part);
        let mut file = opened.map_err(failed("create"))?;
        let received = async {
            while let Some(part) = parts.message().await.map_err(|status| Error::Unavailable(told(&status)))? {
                file.write_all(&part.blob).map_err(failed("write"))?;
            }
            file.sync_all().map_err(failed("sync"))?;
            let status = snapshot::status(&part)?;
            if !status.verified {
                return Err(Error::Unavailable("the snapshot that etcd sent is cut short".into()));
            }
            fs::rename(&part, path).map_err(failed("name"))?;
            Ok(status)
        };
        let saved = received.await;
        if saved.is_err() {
            // What is said is why it failed.
            drop(fs::remove_file(&part));
        }
        saved
    }

    /// Each member's hash of all that is held up to one revision, with its endpoint. Where they differ, a member is damaged.
    pub async fn hashes(&self) -> Result<Vec<(String, u32)>, Error> {
        let revision = self.core.revision().await?;
        let mut hashes = Vec::new();
        for member in self.core.members.all() {
            let asked = MaintenanceClient::new(member.channel()).hash_kv(proto::HashKvRequest { revision }).await;
            let answer =
                asked.map_err(|status| Error::Unavailable(format!("{}: {}", member.endpoint, told(&status))))?;
            hashes.push((member.endpoint.to_string(), answer.into_inner().hash));
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
