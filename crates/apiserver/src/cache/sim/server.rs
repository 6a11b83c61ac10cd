//! The API server's life: its tasks run on threads that take turns with the store's, on a clock that is set by hand.

use super::judge::{Projection, Projections};
use super::view::{STORAGES, Storage};
use super::wire::{End, Known, Line};
use crate::cache::Cacher;
use crate::cache::feed::{Caches, Tasks};
use crate::registry::{Allocator, Hooks, Registry, Served, layout_of};
use crate::surface::Surface;
use api::Status;
use schema::Resource;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use store::testing::fiber;
use store::testing::sim::machine::{Machine, Slot, take};
use store::testing::sim::world::expect;
use tokio::runtime::{Handle, Runtime};

/// Those in the store's process: who writes as another server does, and who serves the wire.
pub(super) const WRITERS: usize = 3;
pub(super) const CALLERS: std::ops::Range<usize> = WRITERS..WRITERS + 4;
pub(super) const CONNECTIONS: std::ops::Range<usize> = CALLERS.end..CALLERS.end + 2;
pub(super) const INSIDE: usize = CONNECTIONS.end;
/// Those in the API server's process: what feeds the caches, and who reads, watches and writes.
pub(super) const FEED: usize = INSIDE;
pub(super) const MENDER: usize = INSIDE + 1;
const OPENER: usize = INSIDE + 2;
/// Those that bring to the caches what the store has.
pub(super) const FEEDERS: [usize; 3] = [FEED, MENDER, OPENER];
pub(super) const READERS: std::ops::Range<usize> = OPENER + 1..OPENER + 4;
pub(super) const WATCHERS: std::ops::Range<usize> = READERS.end..READERS.end + 3;
pub(super) const AUTHORS: std::ops::Range<usize> = WATCHERS.end..WATCHERS.end + 4;
pub(super) const SWEEPER: usize = AUTHORS.end;
pub(super) const OUTSIDE: usize = SWEEPER + 1 - INSIDE;

/// So many turns are waited for an API server that starts.
pub(super) const PATIENCE: u64 = 300;

/// Where an API server's tasks are, and all that ends with it.
#[derive(Clone, Debug)]
pub(super) struct Seats {
    pub(super) feed: usize,
    pub(super) mender: usize,
    pub(super) opener: usize,
    pub(super) all: std::ops::Range<usize>,
}

pub(super) const SEATS: Seats = Seats { feed: FEED, mender: MENDER, opener: OPENER, all: INSIDE..INSIDE + OUTSIDE };

/// What an API server serves, and of that what it follows from its start on.
pub(super) struct Rows {
    pub(super) served: Vec<&'static Resource>,
    pub(super) followed: Vec<&'static Resource>,
    /// Gives Services what they need.
    pub(super) allocates: Option<Allocates>,
}

/// Makes an allocator, given the store and the registry.
pub(super) type Allocates = fn(Arc<dyn Store>, &Registry) -> Arc<dyn Allocator>;

impl Rows {
    /// Those of the storages, of which these are followed.
    pub(super) fn of(followed: &[Storage]) -> Rows {
        let rows = |storages: &[Storage]| storages.iter().map(|storage| storage.row()).collect();
        Rows { served: rows(&STORAGES), followed: rows(followed), allocates: None }
    }
}

/// Time as everything on it sees it. It goes when it is told to.
pub(super) struct Time(Runtime);

impl Time {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        Time(runtime.expect("a runtime"))
    }

    pub(super) fn handle(&self) -> Handle {
        self.0.handle().clone()
    }

    pub(super) fn advance(&self, millis: u64) {
        self.0.block_on(tokio::time::advance(Duration::from_millis(millis)));
    }
}

/// Does something of the API server's on the thread that takes turns there.
pub(super) fn run<T: Send + 'static>(
    machine: &Machine,
    seat: usize,
    handle: &Handle,
    slot: &Slot<T>,
    work: impl Future<Output = T> + Send + 'static,
) {
    let handle = handle.clone();
    machine.start(seat, slot, move || {
        let _context = handle.enter();
        fiber::wait(work)
    });
}

type Begun = Result<(Arc<Caches>, Tasks), store::Error>;

enum Stage {
    Beginning(Slot<Begun>),
    Replaying(Arc<Caches>, Slot<Result<(), store::Error>>),
    Up(Up),
}

/// An API server that serves.
#[derive(Clone)]
pub(super) struct Up {
    pub(super) registry: Arc<Registry>,
    /// Those that are served so far.
    pub(super) served: [Option<Arc<Served>>; STORAGES.len()],
    pub(super) projections: Projections,
}

/// Where an API server runs: its seats, its line to the store, and itself while its process is there.
pub(super) struct Site {
    pub(super) seats: Seats,
    pub(super) line: Line,
    process: Option<Process>,
}

struct Process {
    handle: Handle,
    rows: Rows,
    stage: Stage,
    /// A storage that is being added.
    added: Option<(Storage, Slot<Result<Arc<Cacher>, store::Error>>)>,
    /// What its tasks leave when they end, which they never do.
    ended: Slot<()>,
}

impl Site {
    pub(super) fn new(seats: Seats, line: Line) -> Site {
        Site { seats, line, process: None }
    }

    /// Its process begins, to serve these.
    pub(super) fn start(&mut self, machine: &Machine, time: &Time, rows: Rows) {
        let layouts = rows.followed.iter().filter_map(|row| layout_of(row)).collect();
        let (handle, begun) = (time.handle(), Slot::default());
        let store = Arc::new(End(self.line.wire.clone()));
        run(machine, self.seats.opener, &handle, &begun, Caches::begin(store, layouts));
        let stage = Stage::Beginning(begun);
        self.process = Some(Process { handle, rows, stage, added: None, ended: Slot::default() });
    }

    /// Its process ends where it is; `false`: there was none.
    pub(super) fn stop(&mut self, machine: &Machine) -> Result<bool, String> {
        if self.process.take().is_none() {
            return Ok(false);
        }
        self.seats.all.clone().try_for_each(|seat| machine.stop(seat))?;
        self.line.drop_all();
        Ok(true)
    }

    pub(super) fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// It does what comes next, if it can. `Ok(false)`: it could not be started.
    ///
    /// # Errors
    /// It stopped following the store.
    pub(super) fn look(&mut self, machine: &Machine) -> Result<bool, String> {
        let Some(process) = &mut self.process else { return Ok(true) };
        match &process.stage {
            Stage::Beginning(begun) => match take(begun) {
                None => return Ok(true),
                Some(Err(_)) => return Ok(false),
                Some(Ok((caches, tasks))) => {
                    run(machine, self.seats.feed, &process.handle, &process.ended, tasks.feed);
                    run(machine, self.seats.mender, &process.handle, &process.ended, tasks.mender);
                    let (replayed, waiting) = (Slot::default(), caches.clone());
                    let work = async move { waiting.replayed().await };
                    run(machine, self.seats.opener, &process.handle, &replayed, work);
                    process.stage = Stage::Replaying(caches, replayed);
                }
            },
            Stage::Replaying(caches, replayed) => match take(replayed) {
                None => {}
                Some(Err(_)) => return Ok(false),
                Some(Ok(())) => {
                    let store = Arc::new(End(self.line.wire.clone()));
                    process.stage = Stage::Up(Up::new(store, &process.rows, caches.clone()));
                }
            },
            Stage::Up(_) => {}
        }
        expect(take(&process.ended).is_none(), || "the API server follows the store no more".into())?;
        Ok(true)
    }

    /// Adds a storage if it is not served yet, and none is being added.
    pub(super) fn add(&mut self, machine: &Machine, storage: Storage) {
        let Some(process) = &mut self.process else { return };
        let Stage::Up(up) = &process.stage else { return };
        if process.added.is_some() || up.serves(storage) {
            return;
        }
        let Some(layout) = layout_of(storage.row()) else { return };
        let (caches, added) = (up.registry.caches().clone(), Slot::default());
        run(machine, self.seats.opener, &process.handle, &added, async move { caches.add(layout).await });
        process.added = Some((storage, added));
    }

    /// A storage that was added.
    pub(super) fn added(&mut self) -> Option<Storage> {
        let process = self.process.as_mut()?;
        let (storage, result) = process.added.as_ref().and_then(|(storage, added)| Some((*storage, take(added)?)))?;
        process.added = None;
        let (Stage::Up(up), Ok(cacher)) = (&mut process.stage, result) else { return None };
        up.serve(storage, &cacher);
        Some(storage)
    }

    /// What serves, once it does.
    pub(super) fn up(&self) -> Option<&Up> {
        match &self.process.as_ref()?.stage {
            Stage::Up(up) => Some(up),
            Stage::Beginning(_) | Stage::Replaying(..) => None,
        }
    }

    /// Whether it serves, and its caches follow the store.
    pub(super) fn follows(&self) -> bool {
        self.up().is_some_and(|up| up.registry.caches().following())
    }

    /// What its clients may have noticed of the disk and the wire.
    pub(super) fn known(&self, machine: &Machine) -> Known {
        Known { failures: machine.failures(), ..self.line.wire.known() }
    }
}

impl Up {
    fn new(store: Arc<dyn Store>, rows: &Rows, caches: Arc<Caches>) -> Up {
        let registry = Registry::over(store.clone(), None, Surface::default(), &rows.served, caches);
        if let Some(allocates) = rows.allocates {
            let allocators = vec![("", "services", allocates(store, &registry))];
            registry.install(Hooks { allocators, ..Hooks::default() });
        }
        let mut up = Up { registry, served: Default::default(), projections: Default::default() };
        for storage in STORAGES {
            if let Some(cacher) = up.registry.caches().get(storage.prefix()) {
                up.serve(storage, &cacher);
            }
        }
        up
    }

    fn serve(&mut self, storage: Storage, cacher: &Arc<Cacher>) {
        let served = self.registry.served("", "v1", storage.plural()).expect("it is served");
        let mut served = Served::clone(&served);
        served.cacher = Some(cacher.clone());
        cacher.observe(Arc::clone(&self.projections[storage as usize]) as Arc<_>);
        self.served[storage as usize] = Some(Arc::new(served));
    }

    /// What serves a storage.
    ///
    /// # Errors
    /// Nothing does.
    pub(super) fn of(&self, storage: Storage) -> Result<&Arc<Served>, Status> {
        self.served[storage as usize].as_ref().ok_or_else(|| Status::internal(format!("{storage:?} is not served")))
    }

    pub(super) fn serves(&self, storage: Storage) -> bool {
        self.served[storage as usize].is_some()
    }

    /// What each who is told of every change was told makes sense.
    pub(super) fn check(&self) -> Result<(), String> {
        self.projections.iter().try_for_each(|projection: &Arc<Projection>| projection.check())
    }
}
