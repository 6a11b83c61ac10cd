//! The queues of a level, by themselves: who is served, and that no seat is lost.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const MILLI: Nanos = 1_000_000;

fn queued(limit: u64) -> QueueSet<&'static str> {
    QueueSet::new(0, Queuing::Queues { queues: 64, hand: 6, length: 50 }, limit)
}

fn flow() -> Arc<Flow> {
    Arc::new(Flow::default())
}

/// Those that are executed, the longest first.
fn executing(set: &QueueSet<&'static str>) -> Vec<(Id, &'static str)> {
    let since = |stage| if let Stage::Executing(since) = stage { Some(since) } else { None };
    let mut all: Vec<_> = set.requests().filter_map(|(id, r)| Some((since(r.stage)?, id, r.about))).collect();
    all.sort_unstable();
    all.into_iter().map(|(_, id, about)| (id, about)).collect()
}

#[test]
fn who_finds_a_seat_does_not_wait() {
    let (mut set, flow) = (queued(2), flow());
    for hash in [1, 1] {
        let id = set.start(0, &flow, Estimate::seats(1), hash, "a").expect("a seat");
        assert_eq!(set.get(id).map(|r| r.stage), Some(Stage::Executing(0)));
    }
    let third = set.start(0, &flow, Estimate::seats(1), 1, "a").expect("a place in a queue");
    assert_eq!(set.get(third).map(|r| r.stage), Some(Stage::Waiting));
    assert!(set.take_woken().is_empty());
    let (first, _) = executing(&set)[0];
    set.leave(MILLI, first, Refusal::Cancelled);
    assert_eq!(set.take_woken(), [third]);
    assert_eq!((set.seats(), set.waiting()), (2, 0));
}

#[test]
fn without_queues_it_is_refused_and_exempt_never() {
    let flow = flow();
    let mut set: QueueSet<()> = QueueSet::new(0, Queuing::Reject, 1);
    let held = set.start(0, &flow, Estimate::seats(1), 0, ()).expect("a seat");
    assert_eq!(set.start(0, &flow, Estimate::seats(1), 0, ()), Err(Refusal::ConcurrencyLimit));
    set.leave(1, held, Refusal::Cancelled);
    // What is wider than all seats has them alone.
    assert!(set.start(1, &flow, Estimate::seats(9), 0, ()).is_ok());
    let mut set: QueueSet<()> = QueueSet::new(0, Queuing::Exempt, 0);
    assert!((0..100).all(|_| set.start(0, &flow, Estimate::seats(1), 0, ()).is_ok()));
    assert_eq!(set.seats(), 100);
}

#[test]
fn a_full_queue_refuses_and_others_do_not() {
    let mut set: QueueSet<()> = QueueSet::new(0, Queuing::Queues { queues: 8, hand: 1, length: 3 }, 1);
    let flow = flow();
    let refused = (0..10).filter_map(|_| set.start(0, &flow, Estimate::seats(1), 1, ()).err()).collect::<Vec<_>>();
    assert_eq!(refused, [Refusal::QueueFull; 6], "one is executed, three wait");
    assert!(set.start(0, &flow, Estimate::seats(1), 2, ()).is_ok(), "the queue of another flow has room");
}

/// Two flows that always have more to ask, one with ten times as many requests: both get half of the time.
#[test]
fn two_flows_share_the_seats_and_a_flood_starves_nobody() {
    let mut set = queued(4);
    let flow = flow();
    let mut served = [0u32; 2];
    let mut now = 0;
    for _ in 0..2_000 {
        // The flood fills all its queues, the other one has eight requests waiting.
        for _ in 0..400 {
            if set.start(now, &flow, Estimate::seats(1), 12_345, "flood").is_err() {
                break;
            }
        }
        while set.requests().filter(|(_, r)| r.about == "other" && r.stage == Stage::Waiting).count() < 8 {
            set.start(now, &flow, Estimate::seats(1), 98_765_432_109, "other").expect("room in its queues");
        }
        now += 3 * MILLI;
        let (id, who) = executing(&set)[0];
        served[usize::from(who == "other")] += 1;
        set.leave(now, id, Refusal::Cancelled);
    }
    // It is the queues that share: the flood has six of them, the other one up to six.
    let share = f64::from(served[1]) / f64::from(served[0] + served[1]);
    assert!(share > 0.3, "{served:?}");
}

#[test]
fn who_asks_for_little_is_served_before_a_flood() {
    let (mut set, flow) = (queued(1), flow());
    let mut now = 0;
    while set.start(now, &flow, Estimate::seats(1), 7, "flood").is_ok() {}
    for _ in 0..20 {
        set.start(now, &flow, Estimate::seats(1), 1 << 40, "quiet").expect("a queue of its own");
        let mut ended = 0;
        loop {
            now += MILLI;
            let (id, who) = executing(&set)[0];
            set.leave(now, id, Refusal::Cancelled);
            if who == "quiet" {
                break;
            }
            ended += 1;
            assert!(ended <= 8, "it waits behind the flood");
        }
    }
}

#[test]
fn seats_linger_after_a_write_that_many_watch() {
    let (mut set, flow) = (queued(2), flow());
    let write = Estimate { initial: 1, finally: 2, lingering: 5 * MILLI };
    let id = set.start(0, &flow, write, 1, "write").expect("seats");
    set.leave(MILLI, id, Refusal::Cancelled);
    assert_eq!((set.seats(), set.executing()), (2, 0));
    let waits = set.start(2 * MILLI, &flow, Estimate::seats(1), 2, "read").expect("a place");
    assert_eq!(set.next_release(), Some(6 * MILLI));
    set.poll(5 * MILLI);
    assert!(set.take_woken().is_empty());
    set.poll(6 * MILLI);
    assert_eq!(set.take_woken(), [waits]);
    assert_eq!((set.seats(), set.next_release()), (1, None));
}

#[test]
fn what_lingers_wider_than_the_level_does_so_longer() {
    let (mut set, flow) = (queued(2), flow());
    let write = Estimate { initial: 1, finally: 10, lingering: 5 * MILLI };
    let id = set.start(0, &flow, write, 1, "write").expect("seats");
    assert_eq!(set.get(id).map(|r| r.estimate), Some(Estimate { initial: 1, finally: 2, lingering: 25 * MILLI }));
    assert_eq!(set.seats(), 2);
}

#[test]
fn fewer_queues_drain_and_more_seats_wake() {
    let (mut set, flow) = (queued(0), flow());
    let ids: Vec<Id> =
        (0..40).map(|n| set.start(0, &flow, Estimate::seats(1), n * 1_000_003, "a").expect("a place")).collect();
    set.configure(1, Queuing::Queues { queues: 2, hand: 1, length: 1 }, 40, 40);
    assert_eq!(set.take_woken().len(), 40);
    for id in ids {
        set.leave(2, id, Refusal::Cancelled);
    }
    assert_eq!((set.queues().len(), set.seats(), set.is_idle()), (2, 0, true));
}

proptest! {
    #[test]
    fn a_hand_has_different_cards_of_the_deck(hash: u64, deck in 1usize..200, size in 1usize..9) {
        let mut cards = [0; MAX_HAND];
        let hand: BTreeSet<usize> = deal(hash, deck, &mut cards[..size]).iter().copied().collect();
        prop_assert_eq!(hand.len(), size.min(deck));
        prop_assert!(hand.iter().all(|card| *card < deck));
    }

    /// Whatever comes, leaves, gives up and is configured anew: the sums are those of the parts, seats are never more than
    /// there are (but for one that is wider than all), and in the end nothing is left.
    #[test]
    fn no_seat_is_lost(
        steps in prop::collection::vec((0u8..8, any::<u64>(), 1u32..5, 0u32..6, 0u64..8), 1..300),
        limit in 1u64..6,
    ) {
        let mut set: QueueSet<()> = QueueSet::new(0, Queuing::Queues { queues: 8, hand: 3, length: 4 }, limit);
        let (flow, mut now, mut ids) = (flow(), 0, Vec::new());
        for (what, hash, initial, finally, time) in steps {
            now += time * MILLI;
            match what {
                0..=3 => {
                    let estimate = Estimate { initial, finally, lingering: if finally > 0 { time * MILLI } else { 0 } };
                    ids.extend(set.start(now, &flow, estimate, hash, ()));
                }
                4..=6 if !ids.is_empty() => {
                    let id = ids.swap_remove(usize::try_from(hash % ids.len() as u64).unwrap());
                    prop_assert!(set.leave(now, id, Refusal::TimeOut).is_some());
                }
                7 => {
                    let queues = 4 + usize::try_from(hash % 8).unwrap();
                    set.configure(now, Queuing::Queues { queues, hand: 3, length: 4 }, limit, limit);
                }
                _ => {}
            }
            let waiting: u64 = set.requests().filter(|(_, r)| r.stage == Stage::Waiting).count() as u64;
            prop_assert_eq!(waiting, set.waiting() as u64);
            prop_assert_eq!(set.requests().count(), set.waiting() + set.executing());
            prop_assert_eq!(set.queues().iter().map(|q| q.seats).sum::<u64>(), set.seats());
            prop_assert_eq!(set.queues().iter().filter(|q| q.is_active()).count(), set.active);
            prop_assert!(set.seats() <= limit || set.executing() <= 1 || set.requests().any(|(_, r)| u64::from(r.estimate.most()) > limit));
            // Nobody waits while everything is free.
            prop_assert!(set.waiting() == 0 || set.seats() > 0);
        }
        for id in ids {
            set.leave(now, id, Refusal::Cancelled);
        }
        set.poll(now + 1_000 * MILLI);
        prop_assert_eq!((set.seats(), set.waiting(), set.executing(), set.active), (0, 0, 0, 0));
        prop_assert_eq!(flow.executing_seats.load(Ordering::Relaxed), 0);
        prop_assert_eq!(flow.inqueue_seats.load(Ordering::Relaxed), 0);
    }
}
