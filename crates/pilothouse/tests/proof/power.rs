//! The power fails under load: what was not flushed is lost or torn, what was acknowledged is there.

use crate::Fallible;
use crate::arena::{isolated, rounds};
use crate::dice::Dice;
use crate::load::Load;
use crate::platter::Disk;
use crate::server::Server;
use nix::sys::signal::Signal;
use std::path::Path;

/// As many as a small disk has space for: each start begins a segment of the log.
const CUTS: usize = 6;

/// Cuts the power of one disk several times.
async fn cut(directory: &Path, seed: u64) -> Fallible {
    let mut disk = Disk::new(directory, seed)?;
    let mut server = Server::new(&disk.path().join("d"), &directory.join("log"), 6443, &[]);
    server.up().await?;
    let mut load = Load::begin(&[&server], 6, 16 << 10).await?;
    let dice = Dice::new(seed + 1000);
    for _ in 0..CUTS {
        load.acknowledged(usize::try_from(1 + dice.below(100))?).await?;
        disk.cut_after(dice.below(20)).await?;
        load.set_up(false);
        server.end(Signal::SIGKILL)?;
        load.shared.trace.settle();
        disk.restore()?;
        server.up().await?;
        load.set_up(true);
    }
    let summary = load.end(&server).await?;
    let (flushes, lost) = disk.history();
    println!("power cuts: {CUTS}, {flushes} flushes, {lost} unflushed sectors lost; {summary}");
    assert!(lost > 0, "there was something to lose");
    server.end(Signal::SIGTERM)
}

#[test]
fn a_power_failure_costs_nothing_that_was_acknowledged() -> Fallible {
    isolated(async || {
        for seed in 0..rounds(1) {
            let directory = tempfile::tempdir()?;
            cut(directory.path(), u64::try_from(seed)?).await?;
        }
        Ok(())
    })
}
