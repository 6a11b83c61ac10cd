//! The room for lines that wait for the disk.

use std::sync::Arc;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Lines that may wait for the disk, and their bytes, but for a single line that is larger. When more come, requests wait.
pub(super) const QUEUE: usize = 4096;
pub(super) const QUEUE_BYTES: u32 = 16 << 20;
/// Requests that may be under way with room for their ends: what is kept for those holds no other line, so that nobody who waits
/// for the queue waits for somebody who waits for it, too. Both together are all that is held in memory: 32 MiB.
pub(super) const ENDS: usize = 4096;
/// When less room than this is left, nothing that could be written waits for others or for its turn.
const SHORT: usize = QUEUE_BYTES as usize / 2;

/// Room for one line, until that is written or given up.
#[derive(Debug)]
pub struct Place {
    /// Until the writer takes it. `None`: it was kept for the end of a request.
    line: Option<OwnedSemaphorePermit>,
    _bytes: OwnedSemaphorePermit,
}

impl Place {
    /// The bytes of a line that fits what is kept for the end of a request.
    pub const END: usize = 4096;

    /// The line waits for its turn no longer, but is still held.
    pub(super) fn taken(&mut self) {
        self.line = None;
    }
}

/// The room for lines that wait.
#[derive(Clone, Debug)]
pub(super) struct Room {
    lines: Arc<Semaphore>,
    pub(super) bytes: Arc<Semaphore>,
    ends: Arc<Semaphore>,
    /// Told when little is left.
    short: Arc<Notify>,
}

impl Room {
    pub(super) fn new(lines: usize) -> Self {
        Room {
            // More are more than memory holds.
            lines: Arc::new(Semaphore::new(lines.min(Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(QUEUE_BYTES as usize)),
            ends: Arc::new(Semaphore::new(ENDS)),
            short: Arc::default(),
        }
    }

    /// What a line of so many bytes takes. One that never fits takes all.
    fn size(bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(QUEUE_BYTES)
    }

    /// Takes room if there is some.
    pub(super) fn take(&self, bytes: usize) -> Option<Place> {
        let line = self.lines.clone().try_acquire_owned().ok()?;
        let bytes = self.bytes.clone().try_acquire_many_owned(Self::size(bytes)).ok();
        self.tell();
        Some(Place { line: Some(line), _bytes: bytes? })
    }

    /// Takes room as soon as there is some.
    pub(super) async fn wait(&self, bytes: usize) -> Option<Place> {
        let line = self.lines.clone().acquire_owned().await.ok()?;
        let bytes = self.bytes.clone().acquire_many_owned(Self::size(bytes)).await.ok();
        self.tell();
        Some(Place { line: Some(line), _bytes: bytes? })
    }

    /// Keeps room for the end of a request. Those that last long are as many as there are clients, and leave half of it to others.
    pub(super) async fn keep(&self, lasting: bool) -> Option<Place> {
        let ends = self.ends.clone();
        let end = match lasting {
            true if ends.available_permits() <= ENDS / 2 => None,
            true => ends.try_acquire_owned().ok(),
            false => ends.acquire_owned().await.ok(),
        };
        end.map(|end| Place { line: None, _bytes: end })
    }

    pub(super) fn is_short(&self) -> bool {
        self.bytes.available_permits() < SHORT
    }

    fn tell(&self) {
        if self.is_short() {
            self.short.notify_one();
        }
    }

    /// Returns when little is left.
    pub(super) async fn short(&self) {
        while !self.is_short() {
            self.short.notified().await;
        }
    }
}
