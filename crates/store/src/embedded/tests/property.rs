//! Random operations, restarts and compactions, compared with the model.

use proptest::prelude::*;

use super::*;
use crate::suite::model::Model;
use crate::suite::{batch, established, key};
use crate::{Compare, Event, History, KeyRange, Op, Range, Relation, Target, Txn, Watch};

#[derive(Clone, Debug)]
enum Step {
    Txn(Txn),
    /// The whole key space at a revision back from the present.
    ReadPast(u8),
    /// The whole key space at any revision, and the versions of a key, whatever has been compacted.
    History(u8, bytes::Bytes),
    /// All changes from a revision back from the present.
    Replay(u8),
    Compact(u8),
    Maintain,
    Reopen,
}

fn keys() -> impl Strategy<Value = bytes::Bytes> {
    prop_oneof![(0..6u8).prop_map(|n| key(&format!("/a/{n}"))), (0..4u8).prop_map(|n| key(&format!("/b/{n}")))]
}

fn ranges() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => keys().prop_map(KeyRange::key),
        1 => Just(KeyRange::prefix(key("/a/"))),
        1 => (keys(), keys()).prop_map(|(start, end)| KeyRange::between(start, end)),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let value = || (any::<u8>(), 0..200usize).prop_map(|(byte, len)| bytes::Bytes::from(vec![byte; len]));
    let put = (keys(), value()).prop_map(|(key, value)| Op::Put { key, value, lease: 0 });
    let delete = ranges().prop_map(|keys| Op::Delete { keys });
    let op = prop_oneof![4 => put, 1 => delete];
    prop::collection::vec(op, 1..4).prop_map(|ops| {
        // No key is touched twice: that is refused, which has its own test.
        let mut kept: Vec<Op> = Vec::new();
        for op in ops {
            let clashes = kept.iter().any(|other| match (&op, other) {
                (Op::Put { key, .. }, Op::Put { key: other, .. }) => key == other,
                (Op::Put { key, .. }, Op::Delete { keys }) | (Op::Delete { keys }, Op::Put { key, .. }) => {
                    keys.contains(key)
                }
                _ => true,
            });
            if !clashes {
                kept.push(op);
            }
        }
        kept
    })
}

fn compares() -> impl Strategy<Value = Vec<Compare>> {
    let relation =
        prop_oneof![Just(Relation::Equal), Just(Relation::NotEqual), Just(Relation::Greater), Just(Relation::Less)];
    let target = prop_oneof![
        (0..30i64).prop_map(Target::ModRevision),
        (0..30i64).prop_map(Target::CreateRevision),
        (0..4i64).prop_map(Target::Version),
        any::<u8>().prop_map(|byte| Target::Value(bytes::Bytes::from(vec![byte; 3]))),
    ];
    prop::collection::vec((keys(), relation, target), 0..2).prop_map(|compares| {
        compares.into_iter().map(|(key, relation, target)| Compare { key, relation, target }).collect()
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let txn = (compares(), ops(), ops())
        .prop_map(|(compares, success, failure)| Step::Txn(Txn { compares, success, failure, previous: false }));
    let step = prop_oneof![
        20 => txn,
        2 => any::<u8>().prop_map(Step::ReadPast),
        2 => (any::<u8>(), keys()).prop_map(|(by, key)| Step::History(by, key)),
        2 => any::<u8>().prop_map(Step::Replay),
        1 => any::<u8>().prop_map(Step::Compact),
        1 => Just(Step::Maintain),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..80)
}

/// A revision between the mark and the present.
fn back(model: &Model, by: u8) -> i64 {
    let low = model.compacted.max(1);
    model.revision - i64::from(by) % (model.revision - low + 1)
}

async fn run(options: Options, steps: Vec<Step>) {
    let keeps = options.undo.is_some();
    let mut fixture = Local::new(options);
    let mut model = Model::default();
    for step in steps {
        let store = Arc::clone(fixture.engine());
        match step {
            Step::Txn(txn) => {
                let expected = model.txn(&txn);
                let result = store.txn(txn).await.expect("evaluated");
                assert_eq!((result.succeeded, result.revision), (expected, model.revision));
            }
            Step::ReadPast(by) => {
                let revision = back(&model, by);
                let read = store.range(Range::of(KeyRange::all()).at(revision)).await.expect("read");
                assert_eq!(read.kvs, model.range(&KeyRange::all(), revision), "at {revision}");
            }
            Step::History(by, key) if keeps => {
                let revision = model.revision - i64::from(by) % model.revision;
                let read = store.range_at(Range::of(KeyRange::all()).at(revision)).await.expect("read");
                assert_eq!(read.kvs, model.range(&KeyRange::all(), revision), "at {revision}");
                let told = store.versions(key.clone(), revision, 0).await.expect("told").versions;
                let told: Vec<(i64, bool)> = told.iter().rev().map(|v| (v.revision, v.kv.is_some())).collect();
                let events = model.history(&KeyRange::key(key), 0).into_iter();
                let events = events.map(|event| (event.revision(), matches!(event, Event::Put { .. })));
                assert_eq!(told, events.filter(|(made, _)| *made <= revision).collect::<Vec<_>>(), "up to {revision}");
            }
            Step::History(..) => {}
            Step::Replay(by) => {
                let from = back(&model, by);
                let mut stream = store.watch(Watch::of(KeyRange::all(), from)).await.expect("watching");
                assert_eq!(established(&mut stream).await, model.revision);
                let expected = model.history(&KeyRange::all(), from);
                let mut told: Vec<Event> = Vec::new();
                while told.len() < expected.len() {
                    told.extend(batch(&mut stream).await.expect("told").events);
                }
                assert_eq!(told, expected, "from {from}");
            }
            Step::Compact(by) => {
                let mark = back(&model, by);
                if mark > model.compacted {
                    store.compact(mark).await.expect("compacted");
                    model.compacted = mark;
                }
            }
            Step::Maintain => store.maintain().await.expect("maintained"),
            Step::Reopen => {
                drop(store);
                fixture.reopen().await;
            }
        }
        let store = fixture.engine();
        let read = store.range(Range::of(KeyRange::all())).await.expect("read");
        assert_eq!(read.kvs, model.range(&KeyRange::all(), i64::MAX));
        let status = store.status().await.expect("status");
        assert_eq!((status.revision, status.compacted, status.keys), (model.revision, model.compacted, read.kvs.len()));
    }
    fixture.engine().close();
    let verification = crate::tools::verify(fixture.directory.path()).expect("verified");
    assert!(verification.damage.is_empty(), "{:?}", verification.damage);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_what_the_model_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(tiny(), steps));
    }

    #[test]
    fn history_is_what_the_model_was(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(keeping(), steps));
    }
}
