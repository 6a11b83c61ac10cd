//! The seats of one priority level, and the queues before them: fair queuing, without IO and without a clock.
//!
//! Each queue has a virtual time, at which its next request begins. Of all queues with somebody waiting, the one is served
//! whose request would end first if the seats were shared by the queues second by second (KEP-1040). A queue is chosen out of
//! the hand that its flow is dealt, so that a flow which fills its queues leaves to most others a queue that is not full.

use super::metrics::Flow;
use super::timing::{Integrator, Moments, Nanos, Timing};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Seats times nanoseconds: wide enough never to overflow.
pub(super) type Work = i128;

/// How long a request is taken to last until it has ended.
const SERVICE: Nanos = 3_000_000;

/// What a request is thought to cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Estimate {
    /// Seats while it is executed.
    pub(super) initial: u32,
    /// Seats for some time after its end.
    pub(super) finally: u32,
    pub(super) lingering: Nanos,
}

impl Estimate {
    pub(super) const fn seats(initial: u32) -> Self {
        Estimate { initial, finally: 0, lingering: 0 }
    }

    /// The seats that are taken for all of its time.
    pub(super) fn most(&self) -> u32 {
        self.initial.max(self.finally)
    }

    pub(super) fn work(&self) -> Work {
        work(self.initial, SERVICE) + work(self.finally, self.lingering)
    }
}

pub(super) fn work(seats: u32, time: Nanos) -> Work {
    work_of(seats.into(), time)
}

fn work_of(seats: u64, time: Nanos) -> Work {
    Work::from(seats) * Work::from(time)
}

/// How requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queuing {
    /// They never do: there is no limit.
    Exempt,
    /// Who finds no seat is refused.
    Reject,
    Queues {
        queues: usize,
        hand: usize,
        length: usize,
    },
}

/// Why a request is refused: the label of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    QueueFull,
    ConcurrencyLimit,
    TimeOut,
    Cancelled,
}

pub(super) const REFUSALS: [&str; 4] = ["queue-full", "concurrency-limit", "time-out", "cancelled"];

/// A request that waits or is executed: its place among those of its level, until it has left.
pub(super) type Id = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting,
    /// Since when.
    Executing(Nanos),
}

pub(super) struct Request<T> {
    pub(super) stage: Stage,
    pub(super) estimate: Estimate,
    /// `None`: of a level without queues.
    pub(super) queue: Option<usize>,
    pub(super) flow: Arc<Flow>,
    pub(super) about: T,
    /// The virtual time of its arrival.
    arrival: Work,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// In the order of their arrival.
    pub(super) waiting: VecDeque<Id>,
    pub(super) waiting_initial: u64,
    pub(super) waiting_most: u64,
    pub(super) waiting_work: Work,
    pub(super) executing: usize,
    /// With those of requests that have ended and linger.
    pub(super) seats: u64,
    /// The virtual time at which its next request begins.
    pub(super) next: Work,
}

impl Queue {
    fn is_active(&self) -> bool {
        self.executing > 0 || !self.waiting.is_empty()
    }
}

/// What a level has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) dispatched: u64,
    pub(super) rejected: u64,
    pub(super) timed_out: u64,
    pub(super) cancelled: u64,
}

/// Virtual times as they were when a request last left a queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dispatched {
    pub(super) at: Work,
    pub(super) start: Work,
    pub(super) bounds: (Work, Work),
    pub(super) discounted: (Work, Work),
}

const SEAT_RATIOS: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
const REQUEST_RATIOS: &[f64] = &[0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0];
const DEMAND_RATIOS: &[f64] = &[0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0];

/// What is observed of a level over time.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    demand: Integrator,
    pub(super) demand_ratio: Timing,
    pub(super) seats: Timing,
    pub(super) waiting: Timing,
    pub(super) executing: Timing,
}

impl Observed {
    fn new() -> Self {
        Observed {
            demand: Integrator::default(),
            demand_ratio: Timing::new(DEMAND_RATIOS),
            seats: Timing::new(SEAT_RATIOS),
            waiting: Timing::new(REQUEST_RATIOS),
            executing: Timing::new(REQUEST_RATIOS),
        }
    }

    fn pass(&mut self, nanos: Nanos) {
        self.demand.pass(nanos);
        for timing in [&mut self.demand_ratio, &mut self.seats, &mut self.waiting, &mut self.executing] {
            timing.pass(nanos);
        }
    }
}

/// Seats of a request that has ended: until when, whose queue's, how many, of which flow.
struct Lingering {
    until: Nanos,
    queue: Option<usize>,
    seats: u32,
    flow: Arc<Flow>,
}

impl PartialEq for Lingering {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}
impl Eq for Lingering {}
impl PartialOrd for Lingering {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Lingering {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.until.cmp(&other.until)
    }
}

/// The seats and queues of a level. `T` is what its owner keeps of each request.
pub(super) struct QueueSet<T> {
    queuing: Queuing,
    limit: u64,
    requests: Vec<Option<Request<T>>>,
    free: Vec<Id>,
    /// There may be more than are wanted, as long as the last ones are in use.
    queues: Vec<Queue>,
    /// The queue that was served last.
    robin: usize,
    /// How often a hand was dealt.
    dealt: usize,
    now: Nanos,
    /// How far each queue would be that always had something to do, in seats times time.
    progress: Work,
    active: usize,
    waiting: usize,
    waiting_seats: u64,
    executing: usize,
    seats: u64,
    lingering: BinaryHeap<Reverse<Lingering>>,
    /// Who got a seat after waiting, and was not told yet.
    woken: Vec<Id>,
    pub(super) totals: Totals,
    pub(super) last: Dispatched,
    pub(super) observed: Observed,
}

impl<T> QueueSet<T> {
    pub(super) fn new(now: Nanos, queuing: Queuing, limit: u64) -> Self {
        let mut set = QueueSet {
            queuing,
            limit,
            requests: Vec::new(),
            free: Vec::new(),
            queues: Vec::new(),
            robin: 0,
            dealt: 0,
            now,
            progress: 0,
            active: 0,
            waiting: 0,
            waiting_seats: 0,
            executing: 0,
            seats: 0,
            lingering: BinaryHeap::new(),
            woken: Vec::new(),
            totals: Totals::default(),
            last: Dispatched::default(),
            observed: Observed::new(),
        };
        set.configure(now, queuing, limit, 1);
        set
    }

    /// Takes another configuration; `denominator` is what utilizations are told of. Who waits goes on waiting.
    #[allow(clippy::cast_precision_loss, reason = "a statistic")]
    pub(super) fn configure(&mut self, now: Nanos, queuing: Queuing, limit: u64, denominator: u64) {
        self.sync(now);
        self.queuing = queuing;
        self.limit = limit;
        let mut places = 1;
        if let Queuing::Queues { queues, length, .. } = queuing {
            places = queues.max(1) * length.max(1);
            if queues > self.queues.len() {
                self.queues.resize_with(queues, Queue::default);
            }
        }
        self.drop_idle_queues();
        self.observed.waiting.of(places as f64);
        for timing in [&mut self.observed.executing, &mut self.observed.seats, &mut self.observed.demand_ratio] {
            timing.of(denominator.max(1) as f64);
        }
        self.dispatch_all(None);
    }

    fn drop_idle_queues(&mut self) {
        let wanted = if let Queuing::Queues { queues, .. } = self.queuing { queues } else { 0 };
        while self.queues.len() > wanted
            && self.queues.last().is_some_and(|queue| !queue.is_active() && queue.seats == 0)
        {
            self.queues.pop();
        }
        self.robin = self.robin.min(self.queues.len().saturating_sub(1));
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }
    pub(super) fn executing(&self) -> usize {
        self.executing
    }
    #[cfg(test)]
    pub(super) fn seats(&self) -> u64 {
        self.seats
    }
    pub(super) fn progress(&self) -> Work {
        self.progress
    }
    pub(super) fn queues(&self) -> &[Queue] {
        &self.queues
    }
    pub(super) fn is_idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0
    }
    pub(super) fn get(&self, id: Id) -> Option<&Request<T>> {
        self.requests.get(id)?.as_ref()
    }
    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Request<T>> {
        self.requests.get_mut(id)?.as_mut()
    }
    pub(super) fn requests(&self) -> impl Iterator<Item = (Id, &Request<T>)> {
        self.requests.iter().enumerate().filter_map(|(id, request)| Some((id, request.as_ref()?)))
    }

    /// Tells of each who got a seat after waiting, since this was asked last.
    pub(super) fn tell_woken(&mut self, mut tell: impl FnMut(&mut T)) {
        for id in self.woken.drain(..) {
            if let Some(Some(request)) = self.requests.get_mut(id) {
                tell(&mut request.about);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn take_woken(&mut self) -> Vec<Id> {
        self.woken.drain(..).collect()
    }

    /// When seats will be freed though no request ends; only who has somebody waiting must be awake then.
    pub(super) fn next_release(&self) -> Option<Nanos> {
        if self.waiting == 0 { None } else { self.lingering.peek().map(|Reverse(lingering)| lingering.until) }
    }

    /// Frees the seats whose time has come.
    pub(super) fn poll(&mut self, now: Nanos) {
        self.sync(now);
    }

    /// What the demand for seats was in the last period.
    pub(super) fn demand(&mut self, now: Nanos) -> Moments {
        self.sync(now);
        self.observed.demand.reset()
    }

    /// Brings virtual time up to the real one, and frees the seats whose time came meanwhile.
    fn sync(&mut self, now: Nanos) {
        while let Some(Reverse(first)) = self.lingering.peek()
            && first.until <= now
            && let Some(Reverse(ended)) = self.lingering.pop()
        {
            self.advance(ended.until);
            self.release(ended.queue, ended.seats, &ended.flow);
            self.dispatch_all(None);
        }
        self.advance(now);
    }

    fn advance(&mut self, now: Nanos) {
        let passed = now.saturating_sub(self.now);
        if passed == 0 {
            return;
        }
        self.now = now;
        if self.active > 0 {
            let asked = (self.seats + self.waiting_seats).min(self.limit);
            let active = self.active as u64;
            self.progress += match asked.checked_mul(passed) {
                Some(product) => Work::from(product / active),
                None => work_of(asked, passed) / Work::from(active),
            };
        }
        self.observed.pass(passed);
    }

    #[allow(clippy::cast_precision_loss, reason = "a statistic")]
    fn observe(&mut self) {
        let demand = (self.seats + self.waiting_seats) as f64;
        self.observed.demand.set(demand);
        self.observed.demand_ratio.set(demand);
        self.observed.seats.set(self.seats as f64);
        self.observed.waiting.set(self.waiting as f64);
        self.observed.executing.set(self.executing as f64);
    }

    /// Begins a request of a flow whose identity hashes to `hash`. It is executed at once or waits: its [`Stage`] tells.
    pub(super) fn start(
        &mut self,
        now: Nanos,
        flow: &Arc<Flow>,
        estimate: Estimate,
        hash: u64,
        about: T,
    ) -> Result<Id, Refusal> {
        self.sync(now);
        let Queuing::Queues { hand, length, queues } = self.queuing else {
            if self.queuing == Queuing::Reject && !self.accommodates(estimate.most()) {
                self.totals.rejected += 1;
                return Err(Refusal::ConcurrencyLimit);
            }
            let (stage, arrival) = (Stage::Executing(now), self.progress);
            let id = self.keep(Request { stage, estimate, queue: None, flow: flow.clone(), about, arrival });
            self.take_seats(None, estimate.most(), flow);
            self.observe();
            return Ok(id);
        };
        let at = self.pick(hash, queues, hand);
        if self.seats >= self.limit && self.queues[at].waiting.len() >= length {
            self.totals.rejected += 1;
            return Err(Refusal::QueueFull);
        }
        let arrival = self.progress;
        let request = Request { stage: Stage::Waiting, estimate, queue: Some(at), flow: flow.clone(), about, arrival };
        let id = self.keep(request);
        let queue = &mut self.queues[at];
        if !queue.is_active() {
            queue.next = self.progress;
            self.active += 1;
        }
        queue.waiting.push_back(id);
        queue.waiting_initial += u64::from(estimate.initial);
        queue.waiting_most += u64::from(estimate.most());
        queue.waiting_work += estimate.work();
        self.waiting += 1;
        self.waiting_seats += u64::from(estimate.most());
        flow.waits(1, i64::from(estimate.most()));
        flow.queue_length.observe(queue.waiting.len() as u64);
        self.bound(at);
        self.dispatch_all(Some(at));
        // Who did not wait need not be woken.
        if self.woken.last() == Some(&id) {
            self.woken.pop();
        }
        self.observe();
        Ok(id)
    }

    /// Ends a request, whatever it was at. `given_up`: why, if it still waits.
    pub(super) fn leave(&mut self, now: Nanos, id: Id, given_up: Refusal) -> Option<Stage> {
        self.sync(now);
        let request = self.requests.get_mut(id)?.take()?;
        self.free.push(id);
        match request.stage {
            Stage::Executing(since) => self.finish(now, &request, since),
            Stage::Waiting => {
                if let Some(at) = request.queue
                    && let Some(place) = self.queues[at].waiting.iter().position(|other| *other == id)
                {
                    self.queues[at].waiting.remove(place);
                    self.forget_waiting(at, &request);
                    if !self.queues[at].is_active() {
                        self.active -= 1;
                    }
                    self.bound(at);
                }
                self.totals.rejected += 1;
                match given_up {
                    Refusal::TimeOut => self.totals.timed_out += 1,
                    _ => self.totals.cancelled += 1,
                }
                self.drop_idle_queues();
                // A wide request that blocked the others may be gone.
                self.dispatch_all(None);
            }
        }
        self.observe();
        Some(request.stage)
    }

    fn finish(&mut self, now: Nanos, request: &Request<T>, since: Nanos) {
        self.executing -= 1;
        request.flow.executing.fetch_sub(1, Ordering::Relaxed);
        let (estimate, seats) = (request.estimate, request.estimate.most());
        if let Some(at) = request.queue {
            let queue = &mut self.queues[at];
            queue.executing -= 1;
            // It was taken to last as long as all do; now it is known.
            let took = now.saturating_sub(since);
            queue.next -= work(estimate.initial, SERVICE) - work(estimate.initial, took);
            if !queue.is_active() {
                self.active -= 1;
            }
            self.bound(at);
        }
        if estimate.lingering == 0 {
            self.release(request.queue, seats, &request.flow);
        } else {
            let (until, queue, flow) = (now + estimate.lingering, request.queue, request.flow.clone());
            self.lingering.push(Reverse(Lingering { until, queue, seats, flow }));
        }
        self.dispatch_all(None);
    }

    fn keep(&mut self, request: Request<T>) -> Id {
        if let Some(id) = self.free.pop() {
            self.requests[id] = Some(request);
            return id;
        }
        self.requests.push(Some(request));
        self.requests.len() - 1
    }

    fn take_seats(&mut self, queue: Option<usize>, seats: u32, flow: &Flow) {
        self.executing += 1;
        self.seats += u64::from(seats);
        self.totals.dispatched += 1;
        if let Some(at) = queue {
            self.queues[at].executing += 1;
            self.queues[at].seats += u64::from(seats);
        }
        flow.executing.fetch_add(1, Ordering::Relaxed);
        flow.executing_seats.fetch_add(i64::from(seats), Ordering::Relaxed);
    }

    fn release(&mut self, queue: Option<usize>, seats: u32, flow: &Flow) {
        self.seats -= u64::from(seats);
        if let Some(at) = queue {
            self.queues[at].seats -= u64::from(seats);
            self.drop_idle_queues();
        }
        flow.executing_seats.fetch_sub(i64::from(seats), Ordering::Relaxed);
        self.observe();
    }

    fn forget_waiting(&mut self, at: usize, request: &Request<T>) {
        let (estimate, queue) = (request.estimate, &mut self.queues[at]);
        queue.waiting_initial -= u64::from(estimate.initial);
        queue.waiting_most -= u64::from(estimate.most());
        queue.waiting_work -= estimate.work();
        self.waiting -= 1;
        self.waiting_seats -= u64::from(estimate.most());
        request.flow.waits(-1, -i64::from(estimate.most()));
    }

    fn accommodates(&self, seats: u32) -> bool {
        let seats = u64::from(seats);
        // What is wider than all seats there are has them alone.
        if seats > self.limit { self.executing == 0 } else { self.seats + seats <= self.limit }
    }

    /// The queue with the least work out of the hand that is dealt for a hash.
    fn pick(&mut self, hash: u64, queues: usize, hand: usize) -> usize {
        let mut cards = [0; MAX_HAND];
        let hand = deal(hash, queues, &mut cards[..hand.clamp(1, MAX_HAND)]);
        // Not always from the first on: flows with overlapping hands would be preferred differently.
        let offset = self.dealt % hand.len();
        self.dealt = self.dealt.wrapping_add(1);
        let order = hand[offset..].iter().chain(&hand[..offset]);
        order.copied().min_by_key(|at| self.queues[*at].waiting_work).unwrap_or(0)
    }

    /// As many begin as there is room for. `newest`: the queue that somebody came to last.
    fn dispatch_all(&mut self, newest: Option<usize>) {
        while self.waiting > 0 && self.seats < self.limit && self.dispatch(newest) {}
    }

    /// The request that would end first, begins, if there is room for it.
    fn dispatch(&mut self, newest: Option<usize>) -> bool {
        let count = self.queues.len();
        let mut best: Option<(Work, usize, Id)> = None;
        let (mut bounds, mut discounted) = ((Work::MAX, Work::MIN), (Work::MAX, Work::MIN));
        // Mostly nobody else waits than who has just come.
        let order = match newest {
            Some(only) if self.waiting == 1 => only..only + 1,
            _ => self.robin + 1..self.robin + 1 + count,
        };
        for step in order {
            let at = if step < count { step } else { step - count };
            let queue = &self.queues[at];
            let Some(oldest) = queue.waiting.front() else { continue };
            let Some(request) = self.get(*oldest) else { continue };
            let (start, ahead) = (queue.next, Work::from(queue.seats) * Work::from(SERVICE));
            bounds = (bounds.0.min(start), bounds.1.max(start));
            discounted = (discounted.0.min(start - ahead), discounted.1.max(start - ahead));
            let end = start + request.estimate.work();
            if best.is_none_or(|(least, ..)| end < least) {
                best = Some((end, at, *oldest));
            }
        }
        let Some((_, at, id)) = best else { return false };
        let Some(seats) = self.get(id).map(|request| request.estimate.most()) else { return false };
        if !self.accommodates(seats) {
            if let Some(request) = self.get(id) {
                request.flow.no_accommodation.fetch_add(1, Ordering::Relaxed);
            }
            return false;
        }
        self.robin = at;
        self.queues[at].waiting.pop_front();
        let Some(mut request) = self.requests[id].take() else { return false };
        self.forget_waiting(at, &request);
        // Fewer seats for longer are the same work.
        let limit = u32::try_from(self.limit).unwrap_or(u32::MAX);
        if request.estimate.finally > limit {
            let total = work(request.estimate.finally, request.estimate.lingering);
            request.estimate.finally = limit;
            request.estimate.lingering = u64::try_from(total / Work::from(limit.max(1))).unwrap_or(0);
        }
        self.last = Dispatched { at: self.progress, start: self.queues[at].next, bounds, discounted };
        self.take_seats(Some(at), request.estimate.most(), &request.flow);
        self.queues[at].next += request.estimate.work();
        request.stage = Stage::Executing(self.now);
        self.requests[id] = Some(request);
        self.woken.push(id);
        self.bound(at);
        true
    }

    /// Nothing begins before it has come: who could not use all its share has no claim on it later.
    fn bound(&mut self, at: usize) {
        let oldest = self.queues[at].waiting.front().and_then(|id| self.get(*id)).map(|request| request.arrival);
        if let Some(arrival) = oldest {
            let queue = &mut self.queues[at];
            queue.next = queue.next.max(arrival);
        }
    }
}

/// The largest hand that validation lets pass: with more cards the bits of a hash are used up.
const MAX_HAND: usize = 60;

/// Deals different cards of a deck, all hands being equally likely over all hashes.
fn deal(mut hash: u64, deck: usize, hand: &mut [usize]) -> &[usize] {
    let size = hand.len().min(deck);
    for at in 0..size {
        let left = (deck - at) as u64;
        let mut card = (hash % left) as usize;
        hash /= left;
        // Its number among those that are left, to its number in the deck.
        let mut place = 0;
        while place < at && hand[place] <= card {
            card += 1;
            place += 1;
        }
        // The hand is in order.
        hand.copy_within(place..at, place + 1);
        hand[place] = card;
    }
    &hand[..size]
}

#[cfg(test)]
mod tests;
