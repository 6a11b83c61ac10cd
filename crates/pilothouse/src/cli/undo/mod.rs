//! `pilothouse store history|diff|restore`: the past of objects, through the API server, with the rights of a kubeconfig.
//!
//! | file | what |
//! |---|---|
//! | `moment` | what is written for a moment |
//! | `cluster` | kinds by the names people use; objects now and at a moment |
//! | `shown` | objects without what changes by itself; differences as people read them |
//! | `plan` | what a restore does, decided without asking anyone |
//! | `restore` | doing it |

mod cluster;
mod moment;
mod plan;
mod restore;
mod shown;

use crate::components::client;
use crate::kubeconfig::to_yaml;
use crate::place::Place;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use cluster::{Cluster, Kind};
use moment::Moment;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct AccessArgs {
    /// Whose rights are used, and which cluster is meant [default: DATA/admin.kubeconfig]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The namespace [default: that of the kubeconfig's context, else "default"]
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// As kubectl takes it: deployment, deploy, deployments.apps, deployment/NAME
    kind: String,
    name: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    /// The latest versions only; 0: all
    #[arg(long, default_value_t = 0, value_name = "N")]
    limit: usize,
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<Format>,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// As kubectl takes it; without one all of the namespace that --namespace names
    kind: Option<String>,
    name: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    /// A resource version, a time (2026-01-31T08:00:00Z), or how long ago (90s, 10m, 2h)
    #[arg(long, value_name = "MOMENT")]
    from: Moment,
    /// The same, or "now"
    #[arg(long, value_name = "MOMENT", default_value = "now")]
    to: Moment,
    /// With what controllers and kubelets report
    #[arg(long)]
    status: bool,
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<Format>,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// As kubectl takes it; without one all of the namespace that --namespace names
    kind: Option<String>,
    name: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    /// A resource version, a time (2026-01-31T08:00:00Z), or how long ago (90s, 10m, 2h)
    #[arg(long, value_name = "MOMENT")]
    to: Moment,
    /// Have the API server check everything and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Delete what was made in the namespace since then
    #[arg(long)]
    prune: bool,
    #[arg(long, short, value_name = "FORMAT")]
    output: Option<Format>,
}

/// What programs read.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
    Yaml,
}

#[allow(clippy::print_stdout, reason = "what a command tells its caller")]
fn say(text: &str) {
    print!("{text}");
}

fn say_document(document: &Value, format: Format) -> Result<()> {
    match format {
        Format::Json => say(&format!("{}\n", serde_json::to_string_pretty(document)?)),
        Format::Yaml => say(&to_yaml(document)?),
    }
    Ok(())
}

/// What a command is about.
enum Scope {
    Object(Kind, String),
    Namespace,
}

impl AccessArgs {
    async fn open(&self, place: &Place) -> Result<Cluster> {
        let file = self.kubeconfig.as_ref().unwrap_or(&place.admin_kubeconfig);
        let config = client::from_file(file).await.with_context(|| {
            format!("{} cannot be used: name a kubeconfig with --kubeconfig, or the data directory", file.display())
        })?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Cluster::open(client::client(&config, "pilothouse-store")?, namespace).await
    }

    fn scope(&self, cluster: &Cluster, kind: Option<String>, name: Option<String>) -> Result<Scope> {
        let (kind, name) = match (kind, name) {
            (None, _) if self.namespace.is_some() => return Ok(Scope::Namespace),
            (None, _) => bail!("say what: KIND NAME, or --namespace for all of a namespace"),
            (Some(kind), Some(name)) => (kind, name),
            (Some(kind), None) => match kind.split_once('/') {
                Some((kind, name)) if !name.is_empty() => (kind.to_owned(), name.to_owned()),
                _ => bail!("say which {kind}: give its name"),
            },
        };
        Ok(Scope::Object(cluster.kind(&kind)?, name))
    }
}

fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Shows the versions of an object.
pub fn history(args: HistoryArgs, place: &Place) -> Result<()> {
    run(async {
        let cluster = args.access.open(place).await?;
        let Scope::Object(kind, name) = args.access.scope(&cluster, Some(args.kind), args.name)? else { return Ok(()) };
        let versions = cluster.history(&kind, &name, args.limit).await?;
        match args.output {
            Some(format) => say_document(&Value::Array(versions), format)?,
            None => say(&shown::versions(&versions)),
        }
        Ok(())
    })
}

/// Shows what is different between two moments.
pub fn diff(args: DiffArgs, place: &Place) -> Result<()> {
    run(async {
        let cluster = args.access.open(place).await?;
        let scope = args.access.scope(&cluster, args.kind, args.name)?;
        let (from, to) = (args.from.fix(), args.to.fix());
        let (pairs, left_out) = match &scope {
            Scope::Object(kind, name) => {
                let (before, after) = (cluster.get(kind, name, &from).await?, cluster.get(kind, name, &to).await?);
                if before.is_none() && after.is_none() {
                    bail!("{} existed at neither moment", kind.title(name));
                }
                (vec![(kind.clone(), name.clone(), before, after)], Vec::new())
            }
            Scope::Namespace => {
                let (before, after) = (cluster.everything(&from).await?, cluster.everything(&to).await?);
                tracing::debug!(before.revision, after.revision, "the namespace was read");
                cluster::paired(before, after)
            }
        };
        let mut changes = Vec::new();
        let mut text = String::new();
        for (kind, name, before, after) in pairs {
            let (before, after) = (
                before.map(|object| shown::bare(object, args.status)),
                after.map(|object| shown::bare(object, args.status)),
            );
            if before == after {
                continue;
            }
            let title = kind.title(&name);
            text.push_str(&shown::difference(&title, (&args.from, before.as_ref()), (&args.to, after.as_ref()))?);
            changes.push(json!({"kind": kind.kind, "name": name, "object": title, "from": before, "to": after}));
        }
        match args.output {
            Some(format) => say_document(&Value::Array(changes), format)?,
            None => say(&text),
        }
        let unread: Vec<&str> = left_out.iter().filter(|one| one.unread).map(|one| one.kind.plural.as_str()).collect();
        if !unread.is_empty() {
            bail!("not compared, as the API server cannot read them: {}", unread.join(", "));
        }
        Ok(())
    })
}

/// Brings an object or a namespace back.
pub fn restore(args: RestoreArgs, place: &Place) -> Result<()> {
    run(async {
        let cluster = args.access.open(place).await?;
        let scope = args.access.scope(&cluster, args.kind, args.name)?;
        let moment = args.to.fix();
        if moment.is_none() {
            bail!("now is what there is: say which moment to go back to");
        }
        let asked = restore::Asked { dry_run: args.dry_run, prune: args.prune };
        let mut outcomes = Vec::new();
        let mut tell = |outcome: restore::Outcome| {
            if args.output.is_none() {
                say(&format!("{outcome}\n"));
            }
            outcomes.push(outcome);
        };
        match &scope {
            Scope::Object(kind, name) => restore::object(&cluster, kind, name, &moment, asked, &mut tell).await?,
            Scope::Namespace => restore::namespace(&cluster, &moment, asked, &mut tell).await?,
        }
        if let Some(format) = args.output {
            say_document(&Value::Array(outcomes.iter().map(restore::Outcome::document).collect()), format)?;
        }
        let failed = outcomes.iter().filter(|outcome| outcome.failed()).count();
        if failed > 0 {
            bail!("{failed} of {} objects could not be brought back", outcomes.len());
        }
        Ok(())
    })
}
