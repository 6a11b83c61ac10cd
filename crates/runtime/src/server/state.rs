//! Sandboxes and containers in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use cri::v1::{ContainerConfig, ContainerState, LinuxContainerResources, PodSandboxConfig};
use tokio::sync::watch;

use super::{
    error::{Result, RuntimeError},
    record::{ContainerRecord, Finished, SandboxRecord, Status},
};

/// A sandbox. Changes happen under [`Sandbox::operation`].
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) config: PodSandboxConfig,
    record: RwLock<SandboxRecord>,
    /// Held while the sandbox, or what depends on its existence, is changed.
    pub(crate) operation: tokio::sync::RwLock<()>,
}

/// A container. Changes happen under [`Container::operation`].
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) config: ContainerConfig,
    pub(crate) sandbox: String,
    record: RwLock<ContainerRecord>,
    /// Follows the record's status, for those who wait.
    pub(crate) status: watch::Sender<Status>,
    pub(crate) resources: Mutex<LinuxContainerResources>,
    pub(crate) operation: tokio::sync::Mutex<()>,
    /// Held while the status is written, so that an end is noted once.
    pub(crate) saving: Mutex<()>,
    /// Processor time at a moment, for the rate since then.
    pub(crate) last_cpu: Mutex<Option<(i64, u64)>>,
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sandbox {
    pub(crate) fn new(config: PodSandboxConfig, record: SandboxRecord) -> Self {
        Self { id: record.id.clone(), config, record: RwLock::new(record), operation: tokio::sync::RwLock::default() }
    }

    pub(crate) fn record(&self) -> SandboxRecord {
        read(&self.record).clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut SandboxRecord)) -> SandboxRecord {
        let mut record = write(&self.record);
        change(&mut record);
        record.clone()
    }

    /// The group that the kubelet made for the pod; empty when it made none.
    pub(crate) fn cgroup_parent(&self) -> &str {
        self.config.linux.as_ref().map_or("", |l| l.cgroup_parent.as_str())
    }
}

impl Container {
    pub(crate) fn new(config: ContainerConfig, record: ContainerRecord) -> Self {
        let resources = config.linux.as_ref().and_then(|l| l.resources.clone()).unwrap_or_default();
        Self {
            id: record.id.clone(),
            sandbox: record.sandbox.clone(),
            config,
            status: watch::Sender::new(record.status.clone()),
            record: RwLock::new(record),
            resources: Mutex::new(resources),
            operation: tokio::sync::Mutex::default(),
            saving: Mutex::default(),
            last_cpu: Mutex::default(),
        }
    }

    pub(crate) fn record(&self) -> ContainerRecord {
        read(&self.record).clone()
    }

    /// Changes the record and tells those who wait for the status.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ContainerRecord)) -> ContainerRecord {
        let mut record = write(&self.record);
        change(&mut record);
        let copy = record.clone();
        drop(record);
        self.status.send_if_modified(|status| {
            let changed = *status != copy.status;
            status.clone_from(&copy.status);
            changed
        });
        copy
    }

    pub(crate) fn state(&self) -> ContainerState {
        read(&self.record).status.state()
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        let record = read(&self.record);
        (record.status.state() == ContainerState::ContainerRunning).then_some(record.status.pid).flatten()
    }

    /// Returns when the container has ended.
    pub(crate) async fn ended(&self) -> Finished {
        let mut status = self.status.subscribe();
        loop {
            if let Some(finished) = &status.borrow_and_update().finished {
                return finished.clone();
            }
            // The sender lives as long as `self`.
            if status.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Status {
    pub(crate) fn state(&self) -> ContainerState {
        match (&self.finished, self.started_at) {
            (Some(_), _) => ContainerState::ContainerExited,
            (None, Some(_)) => ContainerState::ContainerRunning,
            (None, None) => ContainerState::ContainerCreated,
        }
    }
}

/// All of one kind, by id.
#[derive(Debug)]
pub(crate) struct Table<T> {
    kind: &'static str,
    entries: RwLock<BTreeMap<String, Arc<T>>>,
}

impl<T> Table<T> {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self { kind, entries: RwLock::default() }
    }

    pub(crate) fn insert(&self, id: &str, entry: Arc<T>) {
        write(&self.entries).insert(id.to_owned(), entry);
    }

    pub(crate) fn remove(&self, id: &str) {
        write(&self.entries).remove(id);
    }

    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        read(&self.entries).values().cloned().collect()
    }

    /// By the id, or by a prefix of it that only one has.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<T>> {
        self.find(id)?.ok_or_else(|| RuntimeError::NotFound { kind: self.kind, id: id.to_owned() })
    }

    /// As [`Table::get`], for operations that what is gone already has had.
    pub(crate) fn find(&self, id: &str) -> Result<Option<Arc<T>>> {
        let entries = read(&self.entries);
        if let Some(entry) = entries.get(id) {
            return Ok(Some(entry.clone()));
        }
        if id.is_empty() {
            return Ok(None);
        }
        let mut matches = entries.range(id.to_owned()..).take_while(|(key, _)| key.starts_with(id));
        match (matches.next(), matches.next()) {
            (None, _) => Ok(None),
            (Some((_, entry)), None) => Ok(Some(entry.clone())),
            (Some(_), Some(_)) => Err(RuntimeError::InvalidArgument(format!("{} id {id:?} is ambiguous", self.kind))),
        }
    }
}

/// Whether `labels` has everything that `selector` asks for.
pub(crate) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_name_one_or_none() {
        let table = Table::new("container");
        for id in ["abc1", "abc2", "b"] {
            table.insert(id, Arc::new(id.to_owned()));
        }
        assert_eq!(*table.get("abc1").unwrap(), "abc1");
        assert_eq!(*table.get("abc2").unwrap(), "abc2");
        assert_eq!(*table.get("b").unwrap(), "b");
        assert!(matches!(table.get("abc"), Err(RuntimeError::InvalidArgument(_))));
        assert!(matches!(table.get("x"), Err(RuntimeError::NotFound { .. })));
        assert!(table.find("").unwrap().is_none());
    }
}
