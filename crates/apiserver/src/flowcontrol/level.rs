//! A priority level at work: its queues behind a lock that is held for moments, and those who wait for a seat.

use super::borrow::{Demand, Limits};
use super::metrics::Flow;
use super::queueset::{Estimate, Id, Observed, QueueSet, Queuing, Refusal, Request, Stage};
use super::timing::{Moments, Nanos};
use crate::request::RequestInfo;
use crate::user::UserInfo;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What is kept of a request, to wake it and to tell of it.
pub(super) struct About {
    pub(super) info: Arc<RequestInfo>,
    pub(super) user: Arc<UserInfo>,
    pub(super) schema: Arc<str>,
    pub(super) arrived: Timestamp,
    waker: Option<oneshot::Sender<()>>,
}

impl About {
    pub(super) fn new(info: &Arc<RequestInfo>, user: &Arc<UserInfo>, schema: &Arc<str>, arrived: Timestamp) -> Self {
        About { info: info.clone(), user: user.clone(), schema: schema.clone(), arrived, waker: None }
    }
}

/// A priority level. It outlives its object as long as requests are in it.
pub(super) struct Level {
    pub(super) name: String,
    /// Nobody waits in it.
    pub(super) exempt: bool,
    began: Instant,
    inner: Mutex<Inner>,
    pub(super) flows: Mutex<BTreeMap<String, Arc<Flow>>>,
    pub(super) limits: Mutex<Shared>,
    retry: Mutex<RetryAfter>,
}

struct Inner {
    set: QueueSet<About>,
    /// When seats that linger will be freed though nothing else happens: a task sleeps until then.
    alarm: Option<Nanos>,
    /// Where that task runs: the runtime of whoever waited last.
    runtime: Option<Handle>,
}

impl Inner {
    /// Sets the alarm, if somebody waits for seats that are freed before it rings. Tells the time that a task must sleep until.
    fn alarm(&mut self) -> Option<Nanos> {
        let next = self.set.next_release()?;
        if self.alarm.is_some_and(|alarm| alarm <= next) {
            return None;
        }
        self.alarm = Some(next);
        Some(next)
    }
}

/// The queues of a level, to look at. They change only where those are woken who got a seat by it.
pub(super) struct Look<'a>(MutexGuard<'a, Inner>);

impl Deref for Look<'_> {
    type Target = QueueSet<About>;

    fn deref(&self) -> &QueueSet<About> {
        &self.0.set
    }
}

/// What a level has of the server's seats, and why.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) current: u64,
    pub(super) demand: Demand,
    pub(super) target: f64,
}

/// A place of a request in its level: freed when this is dropped, whether it waits or is executed.
pub(super) struct Ticket {
    level: Arc<Level>,
    id: Id,
    flow: Arc<Flow>,
    watch: bool,
    /// Why it leaves, if it still waits.
    given_up: Refusal,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = self.level.now();
        let stage = self.level.with(|inner| inner.set.leave(now, self.id, self.given_up));
        match stage {
            Some(Stage::Executing(since)) => {
                self.flow.executed(self.watch, Duration::from_nanos(now.saturating_sub(since)));
            }
            Some(Stage::Waiting) => self.flow.refused(self.given_up),
            None => {}
        }
    }
}

impl Level {
    pub(super) fn new(name: &str, queuing: Queuing) -> Arc<Self> {
        Arc::new(Level {
            name: name.to_owned(),
            exempt: queuing == Queuing::Exempt,
            began: Instant::now(),
            inner: Mutex::new(Inner { set: QueueSet::new(0, queuing, 0), alarm: None, runtime: None }),
            flows: Mutex::default(),
            limits: Mutex::default(),
            retry: Mutex::new(RetryAfter::default()),
        })
    }

    pub(super) fn now(&self) -> Nanos {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The time that one of its own stands for.
    pub(super) fn time(&self, at: Nanos) -> Timestamp {
        let ago = Duration::from_nanos(self.now().saturating_sub(at));
        Timestamp::now() - jiff::SignedDuration::try_from(ago).unwrap_or_default()
    }

    pub(super) fn lock(&self) -> Look<'_> {
        Look(self.inner())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queues, then wakes who got a seat by it. While somebody waits, seats that linger are freed when their time
    /// has come: no other request may end then.
    fn with<R>(self: &Arc<Self>, change: impl FnOnce(&mut Inner) -> R) -> R {
        let (result, alarm) = self.change(change);
        if let Some((at, runtime)) = alarm {
            let level = self.clone();
            runtime.spawn(async move {
                let mut next = Some(at);
                while let Some(at) = next {
                    tokio::time::sleep_until(level.began + Duration::from_nanos(at)).await;
                    let now = level.now();
                    let rung = |inner: &mut Inner| {
                        // An earlier one may have been set, and rung, since.
                        inner.alarm.take_if(|alarm| *alarm == at);
                        inner.set.poll(now);
                    };
                    next = level.change(rung).1.map(|(at, _)| at);
                }
            });
        }
        result
    }

    /// The same, without the task that sleeps until the time told.
    fn change<R>(&self, change: impl FnOnce(&mut Inner) -> R) -> (R, Option<(Nanos, Handle)>) {
        let mut inner = self.inner();
        let result = change(&mut inner);
        let mut woken = Vec::new();
        inner.set.tell_woken(|about| woken.extend(about.waker.take()));
        let alarm = inner.alarm().and_then(|at| Some((at, inner.runtime.clone()?)));
        drop(inner);
        for waker in woken {
            // Who is gone gives the seat back when its ticket is dropped.
            waker.send(()).unwrap_or(());
        }
        (result, alarm)
    }

    pub(super) fn configure(self: &Arc<Self>, queuing: Queuing, limit: u64, denominator: u64) {
        let now = self.now();
        self.with(|inner| inner.set.configure(now, queuing, limit, denominator));
    }

    pub(super) fn demand(self: &Arc<Self>) -> Moments {
        let now = self.now();
        self.with(|inner| inner.set.demand(now))
    }

    /// What was observed of it until now.
    pub(super) fn observed(self: &Arc<Self>) -> Observed {
        let now = self.now();
        self.with(|inner| {
            inner.set.poll(now);
            inner.set.observed.clone()
        })
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lock().is_idle()
    }

    /// The counts of a flow schema in this level.
    pub(super) fn flow(&self, schema: &str) -> Arc<Flow> {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        flows.entry(schema.to_owned()).or_default().clone()
    }

    /// A seat for a request: at once, or after waiting for no longer than `patience`. Tells how long it waited. What `waits`
    /// makes is held meanwhile.
    pub(super) async fn enter<W>(
        self: &Arc<Self>,
        flow: &Arc<Flow>,
        estimate: Estimate,
        hash: u64,
        about: About,
        patience: Duration,
        waits: impl FnOnce() -> W,
    ) -> Result<(Ticket, Duration), Refusal> {
        let watch = about.info.verb == "watch";
        let now = self.now();
        let mut receiver = None;
        let started = self.with(|inner| {
            let id = inner.set.start(now, flow, estimate, hash, about)?;
            if let Some(Request { stage: Stage::Waiting, about, .. }) = inner.set.get_mut(id) {
                let (sender, told) = oneshot::channel();
                about.waker = Some(sender);
                receiver = Some(told);
                inner.runtime = Some(Handle::current());
            }
            Ok(id)
        });
        let id = started.inspect_err(|refusal| {
            flow.refused(*refusal);
            flow.waited(false, Duration::ZERO);
        })?;
        let mut ticket = Ticket { level: self.clone(), id, flow: flow.clone(), watch, given_up: Refusal::Cancelled };
        let Some(told) = receiver else {
            flow.dispatched.fetch_add(1, Ordering::Relaxed);
            if !self.exempt {
                flow.waited(true, Duration::ZERO);
            }
            return Ok((ticket, Duration::ZERO));
        };
        let waiting = waits();
        let got = tokio::time::timeout(patience, told).await;
        drop(waiting);
        let waited = Duration::from_nanos(self.now().saturating_sub(now));
        if !matches!(got, Ok(Ok(()))) {
            // Told at the last moment it has a seat, though nobody said so.
            let executing = matches!(self.lock().get(id).map(|request| request.stage), Some(Stage::Executing(_)));
            if !executing {
                flow.waited(false, waited);
                ticket.given_up = Refusal::TimeOut;
                return Err(Refusal::TimeOut);
            }
        }
        flow.dispatched.fetch_add(1, Ordering::Relaxed);
        flow.waited(true, waited);
        Ok((ticket, waited))
    }

    /// Notes that a request was refused; tells the seconds after which it should be tried again.
    pub(super) fn dropped(&self, second: i64) -> i64 {
        let mut retry = self.retry.lock().unwrap_or_else(PoisonError::into_inner);
        retry.dropped(second);
        retry.seconds
    }
}

/// After how many seconds who was refused should try again: doubled when many are refused, less again when few are.
#[derive(Debug)]
struct RetryAfter {
    seconds: i64,
    /// How many were refused in which second, but in the present one.
    history: std::collections::VecDeque<(i64, i64)>,
    present: (i64, i64),
    doubled: i64,
}

/// The longest that anybody is told to wait.
const LONGEST: i64 = 32;

impl Default for RetryAfter {
    fn default() -> Self {
        RetryAfter { seconds: 1, history: std::collections::VecDeque::new(), present: (0, 0), doubled: 0 }
    }
}

impl RetryAfter {
    fn dropped(&mut self, second: i64) {
        // Around the edge of a second, who was there first may be told last.
        if second <= self.present.0 {
            self.present.1 += 1;
            return;
        }
        let past = std::mem::replace(&mut self.present, (second, 1));
        self.history.push_back(past);
        let kept = (2 * self.seconds).min(LONGEST);
        self.history.retain(|(at, _)| past.0 - at <= kept);
        let recent = self.history.iter().filter(|(at, _)| *at < second && second - at <= self.seconds);
        let dropped: i64 = recent.map(|(_, count)| count).sum();
        if second - self.doubled >= self.seconds && dropped >= 3 * self.seconds {
            self.seconds = (2 * self.seconds).min(LONGEST);
            self.doubled = second;
        } else if dropped < self.seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        let info = RequestInfo::parse("GET", "/api/v1/pods", "").expect("a path");
        About::new(&Arc::new(info), &Arc::new(UserInfo::new("jane", ["g"])), &Arc::from("s"), Timestamp::UNIX_EPOCH)
    }

    fn level(limit: u64) -> Arc<Level> {
        let queuing = Queuing::Queues { queues: 8, hand: 2, length: 10 };
        let level = Level::new("l", queuing);
        level.configure(queuing, limit, limit);
        level
    }

    /// Executing, seats, waiting, cancelled.
    fn numbers(level: &Level) -> (usize, u64, usize, u64) {
        let set = level.lock();
        (set.executing(), set.seats(), set.waiting(), set.totals.cancelled)
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_seat_that_is_freed() {
        let level = level(1);
        let flow = level.flow("s");
        let enter = |patience| {
            let (level, flow) = (level.clone(), flow.clone());
            async move { level.enter(&flow, Estimate::seats(1), 1, about(), patience, || ()).await }
        };
        let (held, waited) = enter(LONG).await.expect("a seat");
        assert_eq!(waited, Duration::ZERO);
        let waiting = tokio::spawn(enter(LONG));
        while level.lock().waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(enter(Duration::from_secs(1)).await.err(), Some(Refusal::TimeOut));
        drop(held);
        let (next, waited) = waiting.await.expect("no panic").expect("the seat");
        assert_eq!(waited, Duration::from_secs(1));
        drop(next);
        assert!(level.is_idle());
        assert_eq!(level.lock().seats(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_takes_no_seat_along() {
        let level = level(1);
        let flow = level.flow("s");
        let (held, _) = level.enter(&flow, Estimate::seats(1), 1, about(), LONG, || ()).await.expect("a seat");
        {
            let mut waiting = std::pin::pin!(level.enter(&flow, Estimate::seats(1), 1, about(), LONG, || ()));
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            // It is given the seat, and never knows.
            drop(held);
            assert_eq!(level.lock().executing(), 1);
        }
        assert_eq!(numbers(&level), (0, 0, 0, 0));
        let (held, _) = level.enter(&flow, Estimate::seats(1), 1, about(), LONG, || ()).await.expect("a seat");
        {
            let mut waiting = std::pin::pin!(level.enter(&flow, Estimate::seats(1), 1, about(), LONG, || ()));
            assert!(futures::poll!(waiting.as_mut()).is_pending());
        }
        assert_eq!(numbers(&level), (1, 1, 0, 1));
        drop(held);
        assert!(level.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn lingering_seats_are_freed_though_nothing_else_happens() {
        let level = level(1);
        let flow = level.flow("s");
        let write = Estimate { initial: 1, finally: 1, lingering: 5_000_000 };
        drop(level.enter(&flow, write, 1, about(), LONG, || ()).await.expect("a seat"));
        let (_held, waited) = level.enter(&flow, Estimate::seats(1), 1, about(), LONG, || ()).await.expect("a seat");
        assert!(waited >= Duration::from_millis(5) && waited < Duration::from_millis(50), "{waited:?}");
    }

    /// An executing write whose seats will linger, and who waits for them.
    async fn lingers_before_who_waits(lingering: Nanos) -> (Arc<Level>, Ticket, impl Future<Output = Duration>) {
        let level = level(1);
        let flow = level.flow("s");
        let write = Estimate { initial: 1, finally: 1, lingering };
        let (held, _) = level.enter(&flow, write, 1, about(), LONG, || ()).await.expect("a seat");
        let waits = {
            let level = level.clone();
            async move {
                let entered = level.enter(&flow, Estimate::seats(1), 1, about(), LONG, || ()).await;
                entered.expect("a seat").1
            }
        };
        (level, held, waits)
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_before_seats_linger_gets_them_when_they_are_freed() {
        let (level, held, waits) = lingers_before_who_waits(5_000_000).await;
        let mut waits = std::pin::pin!(waits);
        assert!(futures::poll!(waits.as_mut()).is_pending());
        assert_eq!(level.lock().next_release(), None);
        drop(held);
        let waited = waits.await;
        assert!(waited >= Duration::from_millis(5) && waited < Duration::from_millis(50), "{waited:?}");
        assert!(level.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn seats_that_linger_for_less_are_freed_before_those_that_began_earlier() {
        let level = level(2);
        let flow = level.flow("s");
        let write = |lingering| Estimate { initial: 1, finally: 1, lingering };
        let enter = async |estimate| level.enter(&flow, estimate, 1, about(), LONG, || ()).await.expect("a seat");
        let (long, short) = (enter(write(1_000_000_000)).await.0, enter(write(5_000_000)).await.0);
        let mut waits = std::pin::pin!(enter(Estimate::seats(1)));
        assert!(futures::poll!(waits.as_mut()).is_pending());
        drop(long);
        drop(short);
        let (_held, waited) = waits.await;
        assert!(waited >= Duration::from_millis(5) && waited < Duration::from_millis(50), "{waited:?}");
    }

    #[tokio::test]
    async fn who_asks_what_was_observed_wakes_those_who_get_a_seat_by_it() {
        let (level, held, waits) = lingers_before_who_waits(1).await;
        let mut waits = std::pin::pin!(waits);
        assert!(futures::poll!(waits.as_mut()).is_pending());
        drop(held);
        // The seats' time comes, and nothing else has run meanwhile.
        let until = level.lock().next_release().expect("seats that linger");
        while level.now() <= until {
            std::hint::spin_loop();
        }
        level.observed();
        assert!(futures::poll!(waits.as_mut()).is_ready(), "it holds a seat, and does not know");
    }

    #[test]
    fn refusals_lengthen_the_pause_and_their_end_shortens_it() {
        let mut retry = RetryAfter::default();
        for second in 100..110 {
            for _ in 0..100 {
                retry.dropped(second);
            }
        }
        assert!(retry.seconds >= 8, "{}", retry.seconds);
        let most = retry.seconds;
        for second in [200, 300, 400] {
            retry.dropped(second);
        }
        assert_eq!(retry.seconds, most - 3);
    }
}
