//! `pilothouse store`: looking after the embedded store of a cluster that is stopped.

use super::PlaceArgs;
use crate::place::Place;
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use store::Store;
use store::embedded::{Embedded, Options};

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Tells revision, size and number of keys
    Status(PlaceArgs),
    /// Forgets all history and gives its space back
    Compact(PlaceArgs),
}

#[allow(clippy::print_stdout, reason = "what a command tells its caller")]
fn say(text: &str) {
    println!("{text}");
}

/// Carries out a command on the store of a data directory.
pub fn run(command: StoreCommand) -> Result<()> {
    let (StoreCommand::Status(place) | StoreCommand::Compact(place)) = &command;
    let directory = Place::new(&place.data_dir)?.store;
    if !directory.exists() {
        bail!("{} has no store", place.data_dir.display());
    }
    let store = Embedded::open(directory, Options::default()).context("stop the cluster first (`pilothouse down`)")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if matches!(command, StoreCommand::Compact(_)) {
            let revision = store.status().await?.revision;
            match store.compact(revision).await {
                Ok(()) | Err(store::Error::Compacted { .. }) => {}
                Err(e) => return Err(e.into()),
            }
            store.maintain().await?;
        }
        let status = store.status().await?;
        say(&format!("revision   {}", status.revision));
        say(&format!("compacted  {}", status.compacted));
        say(&format!("keys       {}", status.keys));
        say(&format!("bytes      {}", status.size));
        Ok(())
    })
}
