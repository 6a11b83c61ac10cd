//! The machine that the store runs on: a disk that fails and loses power, a clock, and threads that take turns.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::embedded::{Clock, Disk, Options, Turns};
use crate::testing::clock::{Hand, Run};
use crate::testing::disk::{Call, Fate, Loss, MemoryDisk, Platter};
use crate::testing::fiber::{self, Fibers, State};
use crate::testing::random::Random;
use crate::{Embedded, Error};

const WRITER: usize = 0;
const UPKEEP: usize = 1;
/// The fiber of the first seat.
const FIRST: usize = 2;

/// What decides the fate of the disk's calls.
pub struct Control {
    inner: Mutex<Inner>,
    /// The machine is off.
    off: AtomicBool,
}

struct Inner {
    random: Random,
    /// Calls until the power goes.
    power: Option<u64>,
    /// Calls that fail, and how many of them still do.
    failing: Option<(Vec<Call>, u64)>,
    failures: u64,
    calls: u64,
    engine: Option<Arc<Embedded>>,
}

impl Control {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another call, or the moment after one: the power may go here.
    fn boundary(&self) {
        let mut inner = self.inner();
        inner.calls += 1;
        if let Some(left) = &mut inner.power {
            if *left == 0 {
                inner.power = None;
                self.off.store(true, Ordering::SeqCst);
                drop(inner);
                fiber::lose_power();
            }
            *left -= 1;
        }
    }

    fn pause(&self, always: bool) {
        let engine = {
            let mut inner = self.inner();
            if !always && inner.random.chance(70) {
                return;
            }
            inner.engine.clone()
        };
        if engine.is_none_or(|engine| engine.is_unlocked()) {
            fiber::pause();
        }
    }
}

impl Fate for Control {
    fn before(&self, call: Call, _: &str) -> io::Result<()> {
        if !fiber::inside() {
            return Ok(());
        }
        if std::thread::panicking() || self.off.load(Ordering::SeqCst) {
            return Err(io::Error::other("the machine is off"));
        }
        if call.changes() {
            self.boundary();
        }
        self.pause(call.changes());
        let mut inner = self.inner();
        if let Some((calls, left)) = &mut inner.failing
            && calls.contains(&call)
            && *left > 0
        {
            *left -= 1;
            inner.failures += 1;
            return Err(match call {
                Call::Create | Call::Write => io::ErrorKind::StorageFull.into(),
                _ => io::Error::other("the disk failed"),
            });
        }
        Ok(())
    }

    fn after_sync(&self) {
        if fiber::inside() && !std::thread::panicking() {
            self.boundary();
            self.pause(true);
        }
    }
}

/// An engine that runs on the machine.
struct Running {
    engine: Arc<Embedded>,
    turns: Arc<Mutex<Option<Turns>>>,
}

/// Beside the engine's own threads it has seats, each for one who does one thing at a time.
pub struct Machine {
    control: Arc<Control>,
    platter: Arc<Platter>,
    hand: Arc<Hand>,
    fibers: Fibers,
    /// So many seats are in the engine's process, and end with it.
    inside: usize,
    running: Option<Running>,
    /// Who goes first, if not just anyone: so one thread may wait while another does a lot.
    ranks: Option<Vec<u64>>,
    /// How many times in a hundred the ranks change.
    change: u64,
    /// Those who stay where they are.
    frozen: Vec<usize>,
    pub random: Random,
}

/// Why a machine could not go on: it is off, or something is wrong.
#[derive(Debug)]
pub enum Stop {
    Off,
    Wrong(String),
}

impl From<String> for Stop {
    fn from(words: String) -> Self {
        Self::Wrong(words)
    }
}

impl Machine {
    /// A new machine with an empty disk, with seats in the engine's process and behind them seats outside of it. `prepare`
    /// runs on each thread first, also on the caller's.
    pub fn new(seed: u64, (inside, outside): (usize, usize), prepare: impl Fn() + Send + Clone + 'static) -> Self {
        prepare();
        let fibers = FIRST + inside + outside;
        let inner = Inner {
            random: Random::new(seed ^ 0x1234_5678),
            power: None,
            failing: None,
            failures: 0,
            calls: 0,
            engine: None,
        };
        let hand = Arc::new(Hand::default());
        hand.set_wall(1_700_000_000_000);
        let mut random = Random::new(seed);
        let change = *random.pick(&[1, 4, 10]);
        let ranks = random.chance(60).then(|| vec![0; fibers]);
        Self {
            control: Arc::new(Control { inner: Mutex::new(inner), off: AtomicBool::new(false) }),
            platter: Arc::default(),
            hand,
            fibers: Fibers::new(fibers, prepare),
            inside,
            running: None,
            ranks,
            change,
            frozen: Vec::new(),
            random,
        }
    }

    pub fn now(&self) -> u64 {
        self.hand.millis()
    }

    pub fn hand(&self) -> &Hand {
        &self.hand
    }

    /// Calls of the disk that failed.
    pub fn failures(&self) -> u64 {
        self.control.inner().failures
    }

    /// Calls that change the disk so far, and the moments after syncs: at each the power can go.
    pub fn boundaries(&self) -> u64 {
        self.control.inner().calls
    }

    /// The power goes at the boundary after so many more.
    pub fn cut_after(&self, boundaries: u64) {
        self.control.inner().power = Some(boundaries);
    }

    /// The next `count` of these calls fail.
    fn fail(&self, calls: Vec<Call>, count: u64) {
        self.control.inner().failing = Some((calls, count));
    }

    /// Some of the next calls fail; tells which.
    pub fn fail_any(&self, random: &mut Random) -> String {
        let calls = match random.below(6) {
            0 => vec![Call::Create, Call::Write],
            1 => vec![Call::Sync],
            2 => vec![Call::SyncNames, Call::Rename, Call::Remove],
            3 => vec![Call::Read, Call::Open, Call::Size],
            4 => vec![Call::Write, Call::Sync],
            _ => vec![Call::Create, Call::Write, Call::Sync, Call::SyncNames, Call::SetLen],
        };
        let count = *random.pick(&[1, 1, 2, 5]);
        let words = format!("the next {count} of {calls:?} fail");
        self.fail(calls, count);
        words
    }

    pub fn heal(&self) {
        self.control.inner().failing = None;
    }

    /// The engine that runs.
    ///
    /// # Panics
    /// When none does.
    pub fn engine(&self) -> Arc<Embedded> {
        Arc::clone(&self.running.as_ref().expect("the store is open").engine)
    }

    pub fn is_open(&self) -> bool {
        self.running.is_some()
    }

    pub fn disk(&self) -> MemoryDisk {
        MemoryDisk::with(&self.platter, Arc::clone(&self.control) as Arc<dyn Fate>)
    }

    /// Opens the store as a new process does.
    pub fn open(&mut self, options: &Options) -> Result<Result<(), Error>, Stop> {
        let first = self.random.below(1 << 40);
        let id = self.random.draw();
        let clock: Arc<dyn Clock> = Arc::new(Run::new(&self.hand, first));
        let disk: Arc<dyn Disk> = Arc::new(self.disk());
        let (opened, options) = (Slot::default(), options.clone());
        self.begin(UPKEEP, &opened, move || Embedded::at_rest(disk, clock, options, id));
        while self.fibers.state(UPKEEP) != State::Idle {
            self.go_on(UPKEEP)?;
        }
        let result = locked(&opened).take();
        match result {
            Some(Ok((engine, turns))) => {
                self.control.inner().engine = Some(Arc::clone(&engine));
                self.running = Some(Running { engine, turns: Arc::new(Mutex::new(Some(turns))) });
                Ok(Ok(()))
            }
            Some(Err(error)) => Ok(Err(error)),
            None => Err(Stop::Wrong("the store did not open".into())),
        }
    }

    fn go_on(&self, fiber: usize) -> Result<(), Stop> {
        self.fibers.go_on(fiber).map_err(|panic| format!("a thread panicked: {panic}"))?;
        if self.control.off.load(Ordering::SeqCst) { Err(Stop::Off) } else { Ok(()) }
    }

    /// Whether the writer has something to do now.
    fn writer_is_due(&self) -> bool {
        let Some(running) = &self.running else { return false };
        locked(&running.turns).as_ref().is_some_and(Turns::due)
    }

    /// Lets one thread, chosen by the seed, go on; `false` when none can.
    pub fn turn(&mut self) -> Result<bool, Stop> {
        let paused = |fiber: &usize| self.fibers.state(*fiber) == State::Paused && !self.frozen.contains(fiber);
        let mut ready: Vec<usize> = (0..self.fibers.len()).filter(paused).collect();
        if self.fibers.state(WRITER) == State::Idle && self.writer_is_due() {
            ready.push(WRITER);
        }
        if ready.is_empty() {
            return Ok(false);
        }
        let fiber = match &mut self.ranks {
            None => *self.random.pick(&ready),
            Some(ranks) => {
                if self.random.chance(self.change) {
                    ranks.iter_mut().for_each(|rank| *rank = self.random.draw());
                }
                ready.into_iter().max_by_key(|fiber| ranks[*fiber]).unwrap_or(WRITER)
            }
        };
        if let (WRITER, State::Idle, Some(running)) = (fiber, self.fibers.state(WRITER), &self.running) {
            let slot = Arc::clone(&running.turns);
            self.fibers.start(WRITER, move || {
                // Taken out as long as the turn lasts.
                let taken = locked(&slot).take();
                if let Some(mut turns) = taken {
                    turns.next(false);
                    *locked(&slot) = Some(turns);
                }
            });
        }
        self.go_on(fiber)?;
        Ok(true)
    }

    /// Those who sit there stay where they are, and no others do.
    pub fn freeze(&mut self, seats: impl IntoIterator<Item = usize>) {
        self.frozen = seats.into_iter().map(|seat| FIRST + seat).collect();
    }

    /// Whether who sits there has nothing under way.
    pub fn is_free(&self, seat: usize) -> bool {
        self.fibers.state(FIRST + seat) == State::Idle
    }

    /// Whether who sits there has nothing to do now: nothing is under way, or it waits for something.
    pub fn is_at_rest(&self, seat: usize) -> bool {
        self.fibers.state(FIRST + seat) != State::Paused
    }

    /// Whether a thread has something under way or to do.
    pub fn is_busy(&self) -> bool {
        let busy = |fiber| self.fibers.state(fiber) != State::Idle;
        (0..self.fibers.len()).any(busy) || self.writer_is_due()
    }

    /// Whether nobody can go on, but those who were told to stay where they are.
    pub fn is_quiet(&self) -> bool {
        let paused = |fiber| self.fibers.state(fiber) == State::Paused && !self.frozen.contains(&fiber);
        !(0..self.fibers.len()).any(paused) && !self.writer_is_due()
    }

    /// One who is free does something; what it returns is put into the slot.
    pub fn start<T: Send + 'static>(&self, seat: usize, slot: &Slot<T>, work: impl FnOnce() -> T + Send + 'static) {
        self.begin(FIRST + seat, slot, work);
    }

    /// Ends what is under way there.
    pub fn stop(&self, seat: usize) -> Result<(), String> {
        let unwound = self.fibers.unwind(FIRST + seat);
        unwound.map_err(|panic| format!("it panicked when it was stopped: {panic}"))
    }

    /// The upkeep looks what is due.
    pub fn upkeep(&self, all: bool, slot: &Slot<Result<(), Error>>) {
        let Some(running) = &self.running else { return };
        let (engine, turns) = (Arc::clone(&running.engine), Arc::clone(&running.turns));
        self.begin(UPKEEP, slot, move || {
            let idle = |engine: &Embedded| !engine.has_requests() && locked(&turns).is_some();
            engine.keep_up(all, &|engine| fiber::wait_until(|| idle(engine)))
        });
    }

    fn begin<T: Send + 'static>(&self, fiber: usize, slot: &Slot<T>, work: impl FnOnce() -> T + Send + 'static) {
        let slot = Arc::clone(slot);
        self.fibers.start(fiber, move || {
            let result = work();
            *locked(&slot) = Some(result);
        });
    }
}

/// Where a fiber leaves what it returns.
pub type Slot<T> = Arc<Mutex<Option<T>>>;

/// What a fiber has left there, if it has.
pub fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    locked(slot).take()
}

/// Something that one who has a seat asked for, until it is answered.
pub struct Request<Q, S, A> {
    pub asked: Q,
    /// What was known then.
    pub since: S,
    pub answer: Slot<A>,
}

/// What was asked for, what was known then, and the answer, once it is there; then nothing is asked for any more.
pub fn answered<Q, S, A>(request: &mut Option<Request<Q, S, A>>) -> Option<(Q, S, A)> {
    let answer = take(&request.as_ref()?.answer)?;
    request.take().map(|request| (request.asked, request.since, answer))
}

fn locked<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// Ends the engine's process: with a loss of power what is not synced is lost too.
    pub fn end(&mut self, loss: Option<Loss>) -> Result<(), String> {
        self.control.off.store(true, Ordering::SeqCst);
        let unwound = self.fibers.lose_power(0..FIRST + self.inside);
        self.running = None;
        self.frozen.clear();
        {
            let mut inner = self.control.inner();
            inner.engine = None;
            inner.power = None;
        }
        if let Some(loss) = loss {
            self.platter = Arc::new(self.platter.after(loss, &mut self.random));
        }
        self.control.off.store(false, Ordering::SeqCst);
        unwound.map_err(|panic| format!("the engine panicked when it was killed: {panic}"))
    }
}
