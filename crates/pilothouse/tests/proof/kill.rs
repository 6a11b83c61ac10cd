//! kill -9 at any moment, under load and while it starts.

use crate::Fallible;
use crate::arena::{isolated, rounds};
use crate::dice::Dice;
use crate::load::Load;
use crate::server::{Server, binary};
use nix::sys::signal::Signal;
use std::process::Command;
use std::time::Duration;

#[test]
fn killed_under_load_it_loses_nothing() -> Fallible {
    isolated(async || {
        let directory = tempfile::tempdir()?;
        let mut server = Server::new(&directory.path().join("d"), &directory.path().join("log"), 6443, &[]);
        server.up().await?;
        let mut load = Load::begin(&[&server], 6, 16 << 10).await?;
        let dice = Dice::new(7);
        let (rounds, mut kills, mut slowest) = (rounds(10), 0, Duration::ZERO);
        for round in 0..rounds {
            load.acknowledged(usize::try_from(100 + dice.below(200))?).await?;
            tokio::time::sleep(Duration::from_micros(dice.below(20_000))).await;
            load.set_up(false);
            server.end(Signal::SIGKILL)?;
            kills += 1;
            load.shared.trace.settle();
            // Now and then once more, while it starts.
            if round % 3 == 2 {
                server.start()?;
                tokio::time::sleep(Duration::from_micros(dice.below(slowest.as_micros().try_into()?) + 1)).await;
                server.end(Signal::SIGKILL)?;
                kills += 1;
            }
            slowest = slowest.max(server.up().await?);
            load.set_up(true);
        }
        let summary = load.end(&server).await?;
        println!("kill -9: {kills} kills, slowest readiness {} ms, {summary}", slowest.as_millis());
        if let Some(limit) = std::env::var("PILOTHOUSE_READY_MS").ok().and_then(|text| text.parse().ok()) {
            assert!(slowest <= Duration::from_millis(limit), "ready again after {slowest:?} only");
        }
        server.end(Signal::SIGTERM)?;
        let verified = Command::new(binary()).args(["store", "verify", "--data-dir"]).arg(server.data()).output()?;
        assert!(verified.status.success(), "{verified:?}");
        Ok(())
    })
}

#[test]
fn killed_while_it_starts_for_the_first_time_it_starts_the_next() -> Fallible {
    isolated(async || {
        let directory = tempfile::tempdir()?;
        let (dice, rounds) = (Dice::new(8), rounds(10));
        let mut usual = Duration::ZERO;
        for round in 0..=rounds {
            let data = directory.path().join(format!("d{round}"));
            let mut server = Server::new(&data, &directory.path().join("log"), 6443, &[]);
            if round > 0 {
                server.start()?;
                tokio::time::sleep(Duration::from_micros(dice.below(usual.as_micros().try_into()?) + 1)).await;
                server.end(Signal::SIGKILL)?;
            }
            let took = server.up().await?;
            usual = usual.max(took);
            server.end(Signal::SIGKILL)?;
            std::fs::remove_dir_all(&data)?;
        }
        println!("kill -9 in the first start: {rounds} kills, each start after it was ready");
        Ok(())
    })
}
