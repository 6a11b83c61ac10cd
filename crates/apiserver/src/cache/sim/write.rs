//! Writes through the registry, as requests ask for them: of clients that know old versions, and collide with each other and
//! with what other servers write.

mod draw;
mod judge;
mod outcome;
mod sweep;

pub(super) use draw::Subject;
pub(super) use judge::Writes;
pub(super) use sweep::{Sweep, Swept, sweep};

use super::server::Up;
use super::view::{Object, Storage};
use crate::cache::hooks;
use crate::context::Context;
use crate::options::{FieldValidation, Options};
use crate::registry::mutation::{Apply, Patch, PatchKind, Replace};
use crate::registry::{Place, Served, complete};
use crate::scheme::Said;
use crate::user::UserInfo;
use api::Status;
use jiff::Timestamp;
use schema::{Encoded, Map, Resource, Value};
use std::sync::Arc;
use store::testing::random::Random;

/// The annotation that tells who wrote last, each time another.
pub(super) const MARK: &str = "w";
/// The annotation that counts.
const COUNT: &str = "n";
/// What names are generated from.
const BASE: &str = "g-";

/// A write.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) storage: Storage,
    pub(super) namespace: &'static str,
    /// Empty: one is to be generated.
    pub(super) name: String,
    verb: Verb,
    /// What it marks the object with; empty: nothing.
    mark: String,
    now: Timestamp,
    /// It is only to be told what would be done.
    dry: bool,
    /// What the registry draws from.
    dice: u64,
}

#[derive(Clone, Debug)]
enum Verb {
    /// With this object.
    Create(String),
    /// By this object; with a resourceVersion.
    Replace(String, Option<i64>),
    Patch(Change),
    /// A patch of the status, to this phase; with a resourceVersion.
    Phase(&'static str, Option<i64>),
    /// A server-side apply of a label and the mark.
    Apply(&'static str),
    /// Counts one up, from where the client saw it.
    Count(String),
    Delete {
        grace: Option<i64>,
        uid: Option<String>,
        version: Option<i64>,
    },
}

/// What a merge patch does.
#[derive(Clone, Debug, Default)]
struct Change {
    label: Option<(&'static str, Option<String>)>,
    annotation: Option<String>,
    finalizers: Option<Vec<&'static str>>,
    uid: Option<String>,
    version: Option<i64>,
}

/// What a write was answered.
#[derive(Debug)]
pub(super) struct Wrote {
    pub(super) object: Object,
    /// It was deleted, and is gone.
    gone: bool,
    /// What its client found right after that, of any version.
    found: Result<Option<Object>, Status>,
}

/// An object as a client sends it.
pub(super) fn decoded(row: &Resource, text: &str) -> Result<Map, Status> {
    let ty = row.schema.root();
    let decoded = schema::json::decode(ty, text.as_bytes()).map_err(|error| Status::internal(error.to_string()))?;
    let mut object = decoded.object;
    complete::complete(ty, &mut object, None);
    Ok(object)
}

/// A patch of an object.
pub(super) fn patch<'a>(served: &'a Served, kind: PatchKind, text: &str) -> Result<Patch<'a>, Status> {
    let patch = schema::json::parse(text.as_bytes()).map_err(|error| Status::internal(error.to_string()))?;
    let row = &served.resource;
    let (ty, said) = (row.schema.root(), Said { api_version: served.api_version(), kind: &row.kind });
    let (problems, validation) = (Vec::new(), FieldValidation::Strict);
    Ok(Patch { kind, patch, problems, ty, said, row, validation, defaults: true })
}

/// Does something while the registry draws from this.
pub(super) async fn with_dice<T>(dice: u64, work: impl Future<Output = T>) -> T {
    hooks::dice(Some(Random::new(dice)));
    let done = work.await;
    hooks::dice(None);
    done
}

/// An object as it is stored, by another server.
pub(super) fn stored(storage: Storage, text: &str) -> bytes::Bytes {
    let object = decoded(storage.row(), text).unwrap_or_else(|status| panic!("{text}: {}", status.message));
    Encoded::new(&object).stored("v1", storage.kind())
}

impl Change {
    /// As JSON, with a mark.
    fn text(&self, mark: &str) -> String {
        let string = |value: &Option<String>| serde_json::to_value(value).unwrap_or_default();
        let mut metadata = serde_json::Map::new();
        if let Some((label, value)) = &self.label {
            metadata.insert("labels".into(), serde_json::json!({ *label: string(value) }));
        }
        let mut annotations = serde_json::Map::new();
        if !mark.is_empty() {
            annotations.insert(MARK.into(), mark.into());
        }
        if let Some(annotation) = &self.annotation {
            annotations.insert(annotation.clone(), mark.into());
        }
        metadata.insert("annotations".into(), annotations.into());
        if let Some(finalizers) = &self.finalizers {
            metadata.insert("finalizers".into(), serde_json::json!(finalizers));
        }
        if let Some(uid) = &self.uid {
            metadata.insert("uid".into(), uid.as_str().into());
        }
        if let Some(version) = self.version {
            metadata.insert("resourceVersion".into(), version.to_string().into());
        }
        serde_json::json!({ "metadata": metadata }).to_string()
    }
}

impl Write {
    /// Whether it makes the name.
    pub(super) fn generates(&self) -> bool {
        self.name.is_empty()
    }

    fn deletes(&self) -> bool {
        matches!(self.verb, Verb::Delete { .. })
    }

    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The patch that it is, and of which part.
    fn patch(&self) -> Option<(PatchKind, String, &'static str)> {
        match &self.verb {
            Verb::Patch(change) => Some((PatchKind::Merge, change.text(&self.mark), "")),
            Verb::Phase(phase, version) => {
                let version = version.map_or(String::new(), |version| format!("\"resourceVersion\":\"{version}\""));
                let text = format!("{{\"metadata\":{{{version}}},\"status\":{{\"phase\":\"{phase}\"}}}}");
                Some((PatchKind::Merge, text, "status"))
            }
            Verb::Count(seen) => {
                let at = |name: &str| format!("/metadata/annotations/{name}");
                let next = seen.parse::<u64>().unwrap_or(0) + 1;
                let text = serde_json::json!([
                    { "op": "test", "path": at(COUNT), "value": seen },
                    { "op": "replace", "path": at(COUNT), "value": next.to_string() },
                    { "op": "replace", "path": at(MARK), "value": self.mark },
                ]);
                Some((PatchKind::Json, text.to_string(), ""))
            }
            Verb::Create(_) | Verb::Replace(..) | Verb::Apply(_) | Verb::Delete { .. } => None,
        }
    }

    /// Does it; tells what became of the object, and whether it is gone.
    async fn perform(&self, up: &Up) -> Result<(Map, bool), Status> {
        let served = up.of(self.storage)?;
        let (namespace, name) = (self.namespace, self.name.as_str());
        let cx = Context::new(Arc::new(UserInfo::apiserver()), "client", self.now);
        let mut options =
            Options { dry_run: self.dry, field_validation: FieldValidation::Strict, ..Options::default() };
        let place = |subresource| Place { namespace, name, subresource };
        if let Some((kind, text, subresource)) = self.patch() {
            let mutation = patch(served, kind, &text)?;
            let written = up.registry.update(&cx, served, place(subresource), &mutation, &options).await?;
            return Ok((written.object, false));
        }
        match &self.verb {
            Verb::Create(text) => {
                let object = decoded(&served.resource, text)?;
                Ok((up.registry.create(&cx, served, namespace, object, &options).await?.object, false))
            }
            Verb::Replace(text, _) => {
                let mutation = Replace(decoded(&served.resource, text)?);
                Ok((up.registry.update(&cx, served, place(""), &mutation, &options).await?.object, false))
            }
            Verb::Apply(label) => {
                let config = serde_json::json!({
                    "apiVersion": "v1",
                    "kind": self.storage.kind(),
                    "metadata": {
                        "namespace": namespace,
                        "name": name,
                        "labels": { "l": label },
                        "annotations": { MARK: self.mark },
                    },
                });
                let config = schema::json::parse(config.to_string().as_bytes());
                let Ok(Value::Map(config)) = config else { return Err(Status::internal("no configuration")) };
                options.field_manager = "applier".to_owned();
                options.force = true;
                let mutation = Apply {
                    config,
                    twice: Vec::new(),
                    ty: served.resource.schema.root(),
                    api_version: "v1".to_owned(),
                    kind: self.storage.kind().to_owned(),
                    subresource: String::new(),
                    options: &options,
                    row: &served.resource,
                    defaults: true,
                };
                Ok((up.registry.update(&cx, served, place(""), &mutation, &options).await?.object, false))
            }
            Verb::Delete { grace, uid, version } => {
                options.delete.grace_period_seconds = *grace;
                options.delete.uid.clone_from(uid);
                options.delete.resource_version = version.map(|version| version.to_string());
                let deleted = up.registry.delete(&cx, served, namespace, name, &options).await?;
                Ok((deleted.object.object, deleted.gone))
            }
            Verb::Patch(_) | Verb::Phase(..) | Verb::Count(_) => unreachable!("patches were done"),
        }
    }
}

/// Does a write, and looks at once what there is.
pub(super) async fn write(up: Up, write: Box<Write>) -> Result<Wrote, Status> {
    let (object, gone) = with_dice(write.dice, write.perform(&up)).await?;
    let read = |text: &[u8], revision| Object::read(text, revision).map_err(Status::internal);
    // What was not made has no revision.
    let object = read(schema::json::to_string(&object).as_bytes(), write.dry.then_some(0))?;
    if write.dry {
        return Ok(Wrote { object, gone, found: Ok(None) });
    }
    let (namespace, name) = object.key.split_once('/').unwrap_or_default();
    let found = match up.registry.get(up.of(write.storage)?, namespace, name, Some(0)).await {
        Ok(entry) => Ok(Some(read(entry.item(), None)?)),
        Err(status) if status.code == 404 => Ok(None),
        Err(status) => Err(status),
    };
    Ok(Wrote { object, gone, found })
}

/// The text of an object that a client changes and sends back.
fn edited(text: &[u8], edit: impl FnOnce(&mut Map)) -> Option<String> {
    let Ok(Value::Map(mut object)) = schema::json::parse(text) else { return None };
    edit(&mut object);
    Some(schema::json::to_string(&object))
}
