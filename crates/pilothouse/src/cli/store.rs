//! `pilothouse store`: looking after a cluster's state, embedded (its files while it is stopped, its etcd face while it runs)
//! or in etcd; and at its past, through the API server.

use super::undo::{self, DiffArgs, HistoryArgs, RestoreArgs};
use crate::backend::{self, Backend, EtcdArgs};
use crate::place::Place;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use store::embedded::Embedded;
use store::{Etcd, Store, etcd, snapshot, tools};

#[derive(Debug, Args)]
pub struct StoreArgs {
    /// Directory of everything the cluster keeps
    #[arg(long, global = true, default_value = crate::place::DEFAULT_DATA_DIR, value_name = "DIR")]
    data_dir: PathBuf,
    /// "embedded", or members of an etcd cluster: http(s)://HOST:PORT,…; a running cluster's face: unix:///PATH
    #[arg(long, global = true, default_value = "embedded", value_name = "STORE")]
    store: String,
    #[command(flatten)]
    etcd: EtcdArgs,
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Tells revision, size and number of keys
    Status,
    /// Checks everything that is held: all files of a stopped cluster; of a running one and of etcd, what is served
    Verify {
        /// Delete the objects whose values are damaged, and tell which they were
        #[arg(long)]
        drop_damaged: bool,
    },
    /// Forgets all history, what `restore` needs too, and gives its space back
    Compact,
    /// Saves, restores and looks at snapshots of the whole store in files, which etcdctl takes too
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Shows the versions of an object, of a running cluster
    History(HistoryArgs),
    /// Shows what is different between two moments: of an object, or of a namespace; of a running cluster
    Diff(DiffArgs),
    /// Brings an object or a namespace back to what it was at a moment, in a running cluster (for files: `snapshot restore`)
    Restore(RestoreArgs),
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Saves the state into a file
    Save { file: PathBuf },
    /// Makes the embedded store of a new data directory from a file of either engine
    Restore {
        file: PathBuf,
        /// By how much revisions are raised above the snapshot's: more than were issued since
        #[arg(long, default_value_t = 1_000_000_000, value_parser = clap::value_parser!(i64).range(1..))]
        bump_revision: i64,
        /// Take a file without a checksum, such as a copy of a member's database
        #[arg(long)]
        skip_hash_check: bool,
    },
    /// Reads a file through and tells what it holds
    Status { file: PathBuf },
}

#[allow(clippy::print_stdout, reason = "what a command tells its caller")]
fn say(name: &str, value: impl std::fmt::Display) {
    println!("{name:<11}{value}");
}

/// Carries out a command on the store of a data directory, or on etcd.
pub fn run(args: StoreArgs) -> Result<()> {
    let place = Place::new(&args.data_dir)?;
    match args.command {
        StoreCommand::History(args) => return undo::history(args, &place),
        StoreCommand::Diff(args) => return undo::diff(args, &place),
        StoreCommand::Restore(args) => return undo::restore(args, &place),
        // Files alone, whatever the engine.
        StoreCommand::Snapshot(SnapshotCommand::Status { file }) => {
            tell_snapshot(&snapshot::status(&file)?);
            return Ok(());
        }
        StoreCommand::Snapshot(SnapshotCommand::Restore { file, bump_revision, skip_hash_check }) => {
            if args.store != "embedded" {
                bail!(
                    "only an embedded store is restored: for etcd, `etcdctl snapshot restore` takes the file (with --bump-revision and --mark-compacted; an etcdctl that has these not takes what is saved of an embedded store that was restored from the file)"
                );
            }
            let restored = snapshot::restore(&file, &place.store, bump_revision, skip_hash_check)
                .with_context(|| format!("cannot restore into {}", place.store.display()))?;
            say("snapshot", restored.snapshot);
            say("revision", restored.revision);
            say("keys", restored.keys);
            say("leases", restored.leases);
            return Ok(());
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match Backend::choose(&args.store, &args.etcd, &place)? {
        Backend::Embedded { directory, socket } => {
            if !directory.exists() {
                bail!("{} has no store", args.data_dir.display());
            }
            let Err(error) = runtime.block_on(embedded(&directory, &args.command)) else { return Ok(()) };
            if !matches!(error.downcast_ref::<store::Error>(), Some(store::Error::Locked { .. })) {
                return Err(error);
            }
            if matches!(args.command, StoreCommand::Compact) {
                return Err(error.context(
                    "all history is forgotten while the cluster is stopped (^C is enough; its pods go on running)",
                ));
            }
            if std::os::unix::net::UnixStream::connect(&socket).is_err() {
                return Err(error.context(
                    "something has the store open: wait for it or stop it (^C is enough; pods go on running); if it is a cluster with --serve-etcd, give what that says as --store",
                ));
            }
            let options = etcd::Options::parse(&format!("unix://{}", socket.display()), None, None, None)?;
            runtime.block_on(served(options, &args.command)).context("the cluster runs, and its store was asked")
        }
        Backend::Etcd(options) => runtime.block_on(served(options, &args.command)),
    }
}

async fn served(mut options: etcd::Options, command: &StoreCommand) -> Result<()> {
    // Compacting is left to servers, and to those who ask for it.
    options.compaction_interval = None;
    let store = Etcd::connect(options).await.context("etcd can't be used")?;
    etcd(&store, command).await
}

async fn embedded(directory: &Path, command: &StoreCommand) -> Result<()> {
    match command {
        StoreCommand::Status => tell_directory(&tools::status(directory)?),
        StoreCommand::Compact => {
            let (before, after) = tools::compact(directory).await?;
            tell_directory(&after);
            say("freed", before.size.saturating_sub(after.size));
        }
        StoreCommand::Verify { drop_damaged } => {
            if *drop_damaged {
                let dropped = tools::drop_damaged(directory, backend::untouched(), |key, damage| {
                    say("dropped", format_args!("{key} ({damage})"));
                });
                if dropped.await? == 0 {
                    say("dropped", "nothing: all objects can be read");
                }
                // What is left in the files is referred to by nothing but the past.
                return Ok(());
            }
            let found = tools::verify(directory)?;
            tell_directory(&found.status);
            say("entries", found.entries);
            for damage in &found.damage {
                say("damage", damage);
            }
            if !found.damage.is_empty() {
                bail!("{} places are damaged", found.damage.len());
            }
        }
        StoreCommand::Snapshot(SnapshotCommand::Save { file }) => {
            let store = Embedded::open(directory, backend::untouched())?;
            snapshot::save(&store.export().await?, file)?;
            store.close();
            tell_snapshot(&snapshot::status(file)?);
        }
        // Done before an engine was chosen.
        StoreCommand::Snapshot(_) | StoreCommand::History(_) | StoreCommand::Diff(_) | StoreCommand::Restore(_) => {}
    }
    Ok(())
}

async fn etcd(store: &Etcd, command: &StoreCommand) -> Result<()> {
    match command {
        StoreCommand::Status => tell(&store.status().await?),
        StoreCommand::Compact => {
            let revision = store.status().await?.revision;
            match store.compact(revision).await {
                Ok(()) | Err(store::Error::Compacted { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            store.defragment().await?;
            tell(&store.status().await?);
        }
        StoreCommand::Verify { drop_damaged: true } => {
            bail!("--drop-damaged is for the files of a stopped cluster")
        }
        StoreCommand::Verify { drop_damaged: false } => {
            let hashes = store.hashes().await?;
            let mut told = Vec::new();
            for (endpoint, hash) in &hashes {
                match hash {
                    Ok(hash) => {
                        say(&format!("{hash:08x}"), endpoint);
                        told.push(hash);
                    }
                    Err(error) => say("unknown", format_args!("{endpoint} ({})", error.with_causes())),
                }
            }
            if told.windows(2).any(|pair| pair[0] != pair[1]) {
                bail!("members hold different states: one of them is damaged");
            }
            if told.len() < hashes.len() {
                bail!("{} of {} members could not be asked", hashes.len() - told.len(), hashes.len());
            }
        }
        StoreCommand::Snapshot(SnapshotCommand::Save { file }) => tell_snapshot(&store.snapshot(file).await?),
        StoreCommand::Snapshot(_) | StoreCommand::History(_) | StoreCommand::Diff(_) | StoreCommand::Restore(_) => {}
    }
    Ok(())
}

fn tell(status: &store::StoreStatus) {
    say("revision", status.revision);
    say("compacted", status.compacted);
    say("keys", status.keys);
    say("bytes", status.size);
    if let Some(reason) = &status.read_only {
        say("read-only", reason);
    }
}

fn tell_directory(status: &tools::Status) {
    say("revision", status.revision);
    say("compacted", status.compacted);
    say("keys", status.keys);
    say("leases", status.leases);
    say("bytes", status.size);
}

fn tell_snapshot(status: &snapshot::Status) {
    say("hash", format!("{:08x}", status.hash));
    say("revision", status.revision);
    say("keys", status.keys);
    say("entries", status.total_keys);
    say("bytes", status.size);
    if !status.verified {
        say("checksum", "none");
    }
}
