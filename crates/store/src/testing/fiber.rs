//! Threads that take turns: one runs at a time, until it pauses or its task ends, and who goes on is decided by the one
//! who drives them. So code that is written for threads runs in an order that a seed decides.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};

/// Who has the turn when no fiber has.
const DRIVER: usize = usize::MAX;

type Task = Box<dyn FnOnce() + Send>;

/// What unwinds a fiber whose machine lost power.
struct PowerLost;

/// What a fiber is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has no task.
    Idle,
    /// It can go on.
    Paused,
    /// It waits until something wakes it.
    Waiting,
}

struct Turn {
    /// Whose it is.
    of: AtomicUsize,
    driver: Thread,
}

struct Seat {
    number: usize,
    turn: Arc<Turn>,
    inner: Mutex<Inner>,
    woken: AtomicBool,
    /// The machine lost power: it unwinds when it goes on.
    lost: AtomicBool,
}

struct Inner {
    state: State,
    task: Option<Task>,
    /// What the last task panicked with.
    panic: Option<Box<dyn Any + Send>>,
    ended: bool,
}

impl Seat {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_turn(&self) {
        while self.turn.of.load(Ordering::Acquire) != self.number {
            std::thread::park();
        }
    }

    fn give_back(&self, state: State) {
        self.inner().state = state;
        self.turn.of.store(DRIVER, Ordering::Release);
        self.turn.driver.unpark();
    }

    fn pause(&self, state: State) {
        self.give_back(state);
        self.wait_for_turn();
        if self.lost.load(Ordering::Acquire) {
            resume_unwind(Box::new(PowerLost));
        }
    }
}

impl Wake for Seat {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
    }
}

thread_local! {
    static SEAT: RefCell<Option<Arc<Seat>>> = const { RefCell::new(None) };
}

fn seat() -> Option<Arc<Seat>> {
    SEAT.with_borrow(Clone::clone)
}

/// Whether this thread is a fiber.
pub fn inside() -> bool {
    SEAT.with_borrow(Option::is_some)
}

/// Lets others go first. Nothing outside of a fiber, or while one unwinds.
pub fn pause() {
    if let Some(seat) = seat()
        && !std::thread::panicking()
    {
        seat.pause(State::Paused);
    }
}

/// Ends this fiber's task here and now, as a loss of power does.
pub fn lose_power() -> ! {
    resume_unwind(Box::new(PowerLost))
}

/// Waits for a future. Outside of a fiber it must be ready.
///
/// # Panics
/// When it is not.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let Some(seat) = seat() else {
        let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("nobody is there to wait");
        };
        return output;
    };
    let waker = Waker::from(Arc::clone(&seat));
    loop {
        seat.woken.store(false, Ordering::Release);
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        seat.pause(State::Waiting);
    }
}

/// Waits until something holds; it is looked at whenever this fiber is chosen to go on.
pub fn wait_until(holds: impl Fn() -> bool) {
    while !holds() {
        pause();
    }
}

/// A set of fibers and their driver, who is the thread that made it.
pub struct Fibers {
    turn: Arc<Turn>,
    seats: Vec<Arc<Seat>>,
    threads: Vec<JoinHandle<()>>,
}

impl Fibers {
    /// Starts idle fibers; `prepare` runs on each thread first.
    ///
    /// # Panics
    /// When the machine has no more threads.
    pub fn new(count: usize, prepare: impl Fn() + Send + Clone + 'static) -> Self {
        let turn = Arc::new(Turn { of: AtomicUsize::new(DRIVER), driver: std::thread::current() });
        let mut fibers = Self { turn: Arc::clone(&turn), seats: Vec::new(), threads: Vec::new() };
        for number in 0..count {
            let inner = Mutex::new(Inner { state: State::Idle, task: None, panic: None, ended: false });
            let (woken, lost) = (AtomicBool::new(false), AtomicBool::new(false));
            let seat = Arc::new(Seat { number, turn: Arc::clone(&turn), inner, woken, lost });
            let body = {
                let (seat, prepare) = (Arc::clone(&seat), prepare.clone());
                move || {
                    prepare();
                    SEAT.set(Some(Arc::clone(&seat)));
                    run(&seat);
                }
            };
            fibers
                .threads
                .push(std::thread::Builder::new().name(format!("fiber-{number}")).spawn(body).expect("started"));
            fibers.seats.push(seat);
        }
        fibers
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// What a fiber is at; one that waits and was woken is paused.
    pub fn state(&self, fiber: usize) -> State {
        match self.seats[fiber].inner().state {
            State::Waiting if self.seats[fiber].woken.load(Ordering::Acquire) => State::Paused,
            state => state,
        }
    }

    /// Gives an idle fiber something to do; it does not begin before it gets its turn.
    ///
    /// # Panics
    /// When it is not idle.
    pub fn start(&self, fiber: usize, task: impl FnOnce() + Send + 'static) {
        let mut inner = self.seats[fiber].inner();
        assert_eq!(inner.state, State::Idle, "fiber {fiber} is busy");
        inner.task = Some(Box::new(task));
        inner.state = State::Paused;
    }

    /// Lets a fiber go on until it pauses or its task ends.
    ///
    /// # Errors
    /// With the words of its panic, unless it lost power.
    pub fn go_on(&self, fiber: usize) -> Result<(), String> {
        let seat = &self.seats[fiber];
        self.turn.of.store(fiber, Ordering::Release);
        self.threads[fiber].thread().unpark();
        while self.turn.of.load(Ordering::Acquire) != DRIVER {
            std::thread::park();
        }
        match seat.inner().panic.take() {
            Some(panic) if !panic.is::<PowerLost>() => Err(api::panic::text(&*panic).to_owned()),
            _ => Ok(()),
        }
    }

    /// Ends what a fiber does where it is.
    ///
    /// # Errors
    /// When it panics while it unwinds.
    pub fn unwind(&self, fiber: usize) -> Result<(), String> {
        let seat = &self.seats[fiber];
        seat.lost.store(true, Ordering::Release);
        let not_begun = seat.inner().task.take();
        let unwound = match not_begun {
            Some(_) => {
                seat.inner().state = State::Idle;
                Ok(())
            }
            None if self.state(fiber) != State::Idle => self.go_on(fiber),
            None => Ok(()),
        };
        seat.lost.store(false, Ordering::Release);
        unwound
    }

    /// Ends what these fibers do where they are.
    ///
    /// # Errors
    /// When one panics while it unwinds.
    pub fn lose_power(&self, mut fibers: impl Iterator<Item = usize>) -> Result<(), String> {
        fibers.try_for_each(|fiber| self.unwind(fiber))
    }
}

impl Drop for Fibers {
    fn drop(&mut self) {
        // What they unwind with was told already, or the test fails for another reason.
        drop(self.lose_power(0..self.seats.len()));
        for (fiber, seat) in self.seats.iter().enumerate() {
            seat.inner().ended = true;
            self.turn.of.store(fiber, Ordering::Release);
            if let Some(thread) = self.threads.get(fiber) {
                thread.thread().unpark();
            }
            while self.turn.of.load(Ordering::Acquire) != DRIVER {
                std::thread::park();
            }
        }
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn run(seat: &Seat) {
    loop {
        seat.wait_for_turn();
        let task = {
            let mut inner = seat.inner();
            if inner.ended {
                break;
            }
            inner.task.take()
        };
        let result = task.map_or(Ok(()), |task| catch_unwind(AssertUnwindSafe(task)));
        seat.inner().panic = result.err();
        seat.give_back(State::Idle);
    }
    seat.give_back(State::Idle);
}
