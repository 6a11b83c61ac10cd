//! `kill -9` of a process that writes: nothing that it told as acknowledged is lost.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::suite::{key, list, put, put_op, text};
use crate::{History, KeyRange, Txn, Watch};

const DIRECTORY: &str = "STORE_CRASH_TEST_DIRECTORY";
const WRITERS: u64 = 8;
const ROUNDS: u64 = 6;

fn options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        checkpoint_bytes: 64 << 10,
        retention: Some(Duration::from_millis(100)),
        upkeep_interval: Duration::from_millis(7),
        ..keeping()
    }
}

/// Not a test by itself: what the child process of the test below does until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "the parent reads the acknowledgements from it")]
async fn child_writes_until_it_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let store = Embedded::open(directory, options()).expect("opened");
    let start: u64 =
        crate::suite::get(&*store, "/start").await.map_or(0, |kv| text(&kv.value).parse().expect("a number"));
    put(&*store, "/start", (start + 1_000_000).to_string()).await;
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in start.. {
                // Two keys in one transaction, which must never part.
                let value = format!("{number} {}", "x".repeat(300));
                let ops = vec![put_op(&format!("/w/{writer}/a"), &value), put_op(&format!("/w/{writer}/b"), &value)];
                let revision = store.txn(Txn::of(ops)).await.expect("applied").revision;
                println!("ack {writer} {number} {revision}");
            }
        });
    }
    println!("ready");
    std::io::stdout().flush().expect("flushed");
    std::future::pending::<()>().await;
}

fn spawn(directory: &Path) -> Child {
    let executable = std::env::current_exe().expect("this executable");
    Command::new(executable)
        .args(["--exact", "embedded::tests::crash::child_writes_until_it_is_killed", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the child starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_nothing_acknowledged_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
    let mut highest = 0;
    for round in 0..ROUNDS {
        let mut child = spawn(directory.path());
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let enough = 150 + round * 173;
        let mut told = 0;
        for line in lines {
            let line = line.expect("a line");
            // The test harness writes words of its own before the first.
            let Some(ack) = line.split("ack ").nth(1) else { continue };
            let words: Vec<u64> = ack.split(' ').map_while(|word| word.parse().ok()).collect();
            let [writer, number, revision] = words[..] else { continue };
            acknowledged.insert(writer, number);
            highest = highest.max(revision as i64);
            told += 1;
            if told == enough {
                child.kill().expect("killed");
            }
        }
        child.wait().expect("it is gone");
        assert!(told >= enough, "the child ended by itself after {told} writes");
        let path = directory.path().to_owned();
        check(&path, &acknowledged, highest).await;
    }
}

async fn check(directory: &Path, acknowledged: &BTreeMap<u64, u64>, highest: i64) {
    let started = std::time::Instant::now();
    // Without compaction by age, so that the history read below stays.
    let store = Embedded::open(directory, Options { retention: None, ..options() }).expect("it opens after the crash");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let status = store.status().await.expect("status");
    assert!(status.revision >= highest, "revision {} was told and {} is there", highest, status.revision);
    let held = list(&*store, KeyRange::prefix(key("/w/")), 0).await.expect("every value is whole");
    let number = |value: &str| value.split(' ').next().and_then(|word| word.parse::<u64>().ok()).expect("a number");
    for (writer, told) in acknowledged {
        let values: Vec<u64> = held
            .iter()
            .filter(|(key, _)| key.starts_with(&format!("/w/{writer}/")))
            .map(|(_, value)| number(value))
            .collect();
        assert_eq!(values.len(), 2);
        assert_eq!(values[0], values[1], "a transaction is there as a whole");
        assert!(values[0] >= *told, "writer {writer} was told {told}, and {} is there", values[0]);
    }
    // History beyond the compaction mark is whole, back to the first version of the first life, and has its times.
    for writer in acknowledged.keys() {
        let told = store.versions(key(&format!("/w/{writer}/a")), 0, 0).await.expect("every version is whole").versions;
        let numbers: Vec<u64> =
            told.iter().rev().filter_map(|v| v.kv.as_ref()).map(|kv| number(&text(&kv.value))).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "writer {writer}: {numbers:?}");
        let versions: Vec<i64> = told.iter().rev().filter_map(|v| v.kv.as_ref()).map(|kv| kv.version).collect();
        assert_eq!(versions, (1..=versions.len() as i64).collect::<Vec<_>>(), "writer {writer}");
        assert!(told.iter().all(|version| version.time.is_some()));
    }
    let mut stream = store.watch(Watch::of(KeyRange::all(), status.compacted.max(1))).await.expect("watching");
    crate::suite::established(&mut stream).await;
    let mut last = 0;
    while last < status.revision {
        let batch = crate::suite::batch(&mut stream).await.expect("history is whole");
        for event in &batch.events {
            let next = event.revision() == last + 1 || event.revision() == last || last == 0;
            assert!(next, "{} follows {last}", event.revision());
            last = event.revision();
        }
        last = last.max(batch.revision);
    }
    store.close();
    let verification = crate::tools::verify(directory).expect("verified");
    assert!(verification.damage.is_empty(), "{:?}", verification.damage);
}
