//! Many writers, readers and watchers at once.

use super::*;
use crate::Watch;

const WRITERS: usize = 16;
const ROUNDS: usize = 25;

async fn all<T: Send + 'static>(tasks: Vec<tokio::task::JoinHandle<T>>) -> Vec<T> {
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.expect("the task ends"));
    }
    results
}

/// Adds one to the number at a key by compare and put; tells the revision at which it did.
async fn increment(store: &dyn Store, at: &str) -> i64 {
    let mut held = get(store, at).await;
    loop {
        let (number, revision) =
            held.map_or((0, 0), |kv| (text(&kv.value).parse::<i64>().expect("a number"), kv.mod_revision));
        let txn = Txn::guarded(key(at), revision, put_op(at, (number + 1).to_string()));
        let result = store.txn(txn).await.expect("evaluated");
        if result.succeeded {
            return result.revision;
        }
        held = range_result(&result.results[0]).kvs.first().cloned();
    }
}

pub async fn counters_lose_nothing(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let tasks = (0..WRITERS).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut revisions = Vec::new();
            for round in 0..ROUNDS {
                revisions.push(increment(&*store, &format!("/counter/{}", (writer + round) % 3)).await);
            }
            revisions
        })
    });
    let mut revisions: Vec<i64> = all(tasks.collect()).await.into_iter().flatten().collect();
    let counters = list(&*store, KeyRange::prefix(key("/counter/")), 0).await.expect("listed");
    let sum: usize = counters.iter().map(|(_, value)| value.parse::<usize>().expect("a number")).sum();
    assert_eq!(sum, WRITERS * ROUNDS);
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), WRITERS * ROUNDS, "no revision was given twice");
}

pub async fn transfers_keep_the_sum(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    for account in 0..4 {
        put(&*store, &format!("/account/{account}"), "100").await;
    }
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    transfer(&*store, (writer + round) % 4, (writer + round * 3 + 1) % 4).await;
                }
            })
        })
        .collect();
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let accounts = list(&*store, KeyRange::prefix(key("/account/")), 0).await.expect("listed");
        let sum: i64 = accounts.iter().map(|(_, value)| value.parse::<i64>().expect("a number")).sum();
        assert_eq!(sum, 400, "a read sees whole transactions");
    }
    all(writers).await;
}

async fn transfer(store: &dyn Store, from: usize, to: usize) {
    if from == to {
        return;
    }
    let names = [format!("/account/{from}"), format!("/account/{to}")];
    loop {
        let mut kvs = Vec::new();
        for name in &names {
            kvs.push(get(store, name).await.expect("the account is there"));
        }
        let amounts: Vec<i64> = kvs.iter().map(|kv| text(&kv.value).parse().expect("a number")).collect();
        let txn = Txn {
            compares: kvs
                .iter()
                .zip(&names)
                .map(|(kv, name)| compare(name, Relation::Equal, Target::ModRevision(kv.mod_revision)))
                .collect(),
            success: vec![
                put_op(&names[0], (amounts[0] - 1).to_string()),
                put_op(&names[1], (amounts[1] + 1).to_string()),
            ],
            ..Txn::default()
        };
        if store.txn(txn).await.expect("evaluated").succeeded {
            return;
        }
    }
}

pub async fn watchers_agree_on_the_order(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let start = put(&*store, "/w/start", "x").await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = store.watch(Watch::of(KeyRange::prefix(key("/w/")), start + 1)).await.expect("watching");
        established(&mut stream).await;
        streams.push(stream);
    }
    let tasks = (0..WRITERS).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                put(&*store, &format!("/w/{}", (writer * round) % 5), format!("{writer}.{round}")).await;
            }
        })
    });
    all(tasks.collect()).await;
    let last = start + (WRITERS * ROUNDS) as i64;
    let mut histories = Vec::new();
    for stream in &mut streams {
        histories.push(told_until(stream, last).await);
    }
    assert_eq!(histories[0].len(), WRITERS * ROUNDS);
    assert!(histories.windows(2).all(|pair| pair[0] == pair[1]));
    for (number, event) in histories[0].iter().enumerate() {
        assert!(event.ends_with(&format!("@{}", start + 1 + number as i64)), "each revision once, in order: {event}");
    }
}

pub async fn readers_never_go_back(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    put(&*store, "/n", "0").await;
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in 1..=300 {
                let revision = put(&*store, "/n", number.to_string()).await;
                let seen = get(&*store, "/n").await.expect("it is there");
                assert!(seen.mod_revision >= revision, "what was acknowledged is seen");
            }
        })
    };
    let readers = (0..4).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut last = 0;
            while last < 300 {
                let number: i64 =
                    text(&get(&*store, "/n").await.expect("it is there").value).parse().expect("a number");
                assert!(number >= last, "{number} was read after {last}");
                // A read need not wait for anything, and the writer wants its turn too.
                tokio::task::yield_now().await;
                last = number;
            }
        })
    });
    all(readers.collect()).await;
    writer.await.expect("the writer ends");
}
