//! Carrying out a restore: every object is written through the API server, as anyone would write it.

use super::cluster::{Cluster, Kind, LeftOut, paired, refused};
use super::plan::{self, Action};
use anyhow::{Result, bail};
use http::Method;
use serde_json::{Value, json};

/// How often an object that changes meanwhile is looked at anew.
const TRIES: usize = 5;

/// What was asked for beside.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub dry_run: bool,
    pub prune: bool,
}

/// What became of one object.
#[derive(Debug)]
pub struct Outcome {
    title: String,
    result: Done,
    dry_run: bool,
}

#[derive(Debug)]
enum Done {
    Created,
    /// In a namespace that is not there, nothing can be tried.
    WouldBeCreated,
    Configured,
    Unchanged,
    Deleted,
    Skipped(String),
    Newer,
    Failed(String),
}

impl Done {
    fn word(&self) -> &'static str {
        match self {
            Self::Created | Self::WouldBeCreated => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
            Self::Skipped(_) => "skipped",
            Self::Newer => "newer",
            Self::Failed(_) => "failed",
        }
    }

    fn note(&self) -> &str {
        match self {
            Self::Skipped(why) | Self::Failed(why) => why,
            Self::WouldBeCreated => "not tried, as its namespace is not there",
            Self::Newer => "it was made since then, and --prune deletes it",
            _ => "",
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.title, self.result.word())?;
        if self.dry_run
            && matches!(self.result, Done::Created | Done::WouldBeCreated | Done::Configured | Done::Deleted)
        {
            f.write_str(" (dry run)")?;
        }
        match self.result.note() {
            "" => Ok(()),
            note => write!(f, ": {note}"),
        }
    }
}

impl Outcome {
    pub fn failed(&self) -> bool {
        matches!(self.result, Done::Failed(_))
    }

    pub fn document(&self) -> Value {
        json!({"object": self.title, "result": self.result.word(), "note": self.result.note(), "dryRun": self.dry_run})
    }
}

/// Brings one object back.
pub async fn object(
    cluster: &Cluster,
    kind: &Kind,
    name: &str,
    moment: &Option<String>,
    asked: Asked,
    tell: &mut impl FnMut(Outcome),
) -> Result<()> {
    let Some(past) = cluster.get(kind, name, moment).await? else {
        bail!("{} did not exist at that moment", kind.title(name));
    };
    let result = bring_back(cluster, kind, name, &past, asked).await;
    tell(Outcome { title: kind.title(name), result, dry_run: asked.dry_run });
    Ok(())
}

/// Brings a namespace and what people had made in it back.
pub async fn namespace(
    cluster: &Cluster,
    moment: &Option<String>,
    asked: Asked,
    tell: &mut impl FnMut(Outcome),
) -> Result<()> {
    let past = cluster.everything(moment).await?;
    let is_namespace = |(kind, ..): &(Kind, String, Value)| kind.is("", "namespaces");
    if !past.found.iter().any(is_namespace) {
        bail!("the namespace {} did not exist at that moment", cluster.namespace);
    }
    let present = cluster.everything(&None).await?;
    let absent = !present.found.iter().any(is_namespace);
    let (mut pairs, left_out) = paired(past, present);
    for LeftOut { kind, why, .. } in left_out.into_iter().filter(|one| one.unread) {
        tell(Outcome { title: kind.plural, result: Done::Failed(why), dry_run: asked.dry_run });
    }
    pairs.sort_by_key(|(kind, ..)| plan::order(kind));
    let mut newer = Vec::new();
    for (kind, name, past, present) in pairs {
        let title = kind.title(&name);
        let Some(past) = past else {
            if present.as_ref().is_some_and(|present| plan::made_by_others(present).is_none()) {
                newer.push((kind, name));
            }
            continue;
        };
        let result = match plan::made_by_others(&past) {
            Some(why) => Done::Skipped(why),
            None if absent && asked.dry_run && !kind.is("", "namespaces") => Done::WouldBeCreated,
            None => bring_back(cluster, &kind, &name, &past, asked).await,
        };
        tell(Outcome { title, result, dry_run: asked.dry_run });
    }
    // What needs others goes first.
    for (kind, name) in newer.into_iter().rev() {
        let result = if asked.prune { delete(cluster, &kind, &name, asked).await } else { Done::Newer };
        tell(Outcome { title: kind.title(&name), result, dry_run: asked.dry_run });
    }
    Ok(())
}

/// Makes an object what it was. It may be changed by others meanwhile, and is then looked at anew.
async fn bring_back(cluster: &Cluster, kind: &Kind, name: &str, past: &Value, asked: Asked) -> Done {
    let mut last = String::new();
    for _ in 0..TRIES {
        match attempt(cluster, kind, name, past, asked).await {
            Ok(done) => return done,
            Err(error) => {
                // The innermost says why; the title is there already.
                last = error.root_cause().to_string();
                // 409: it was made or changed since it was looked at.
                if refused(&error) != Some(409) {
                    break;
                }
            }
        }
    }
    Done::Failed(last)
}

async fn attempt(cluster: &Cluster, kind: &Kind, name: &str, past: &Value, asked: Asked) -> Result<Done> {
    let present = cluster.get(kind, name, &None).await?;
    let mut living = Vec::new();
    if present.is_none() {
        for owner in past["metadata"]["ownerReferences"].as_array().into_iter().flatten() {
            if cluster.is_there(owner).await? {
                living.push(owner.clone());
            }
        }
    }
    let options =
        if asked.dry_run { "?fieldManager=pilothouse-restore&dryRun=All" } else { "?fieldManager=pilothouse-restore" };
    let path = cluster.path(kind);
    Ok(match plan::plan(kind, past, present.as_ref(), |owner| living.contains(owner)) {
        Action::Create(object) => {
            cluster.ask(Method::POST, &format!("{path}{options}"), Some(&object)).await?;
            Done::Created
        }
        Action::Update(object) => {
            cluster.ask(Method::PUT, &format!("{path}/{name}{options}"), Some(&object)).await?;
            Done::Configured
        }
        Action::Nothing => Done::Unchanged,
        Action::Skip(why) => Done::Skipped(why),
        Action::Wait(why) => Done::Failed(why),
    })
}

async fn delete(cluster: &Cluster, kind: &Kind, name: &str, asked: Asked) -> Done {
    let options =
        if asked.dry_run { "?propagationPolicy=Background&dryRun=All" } else { "?propagationPolicy=Background" };
    match cluster.ask(Method::DELETE, &format!("{}/{name}{options}", cluster.path(kind)), None).await {
        Ok(_) => Done::Deleted,
        Err(error) => Done::Failed(error.root_cause().to_string()),
    }
}
