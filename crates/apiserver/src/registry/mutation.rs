//! What an update does to an object, as a pure function of it: replace, patch, apply, or a lens of a subresource over these.

use super::convert::Shapes;
use super::{Served, Subresource, Target, managed, meta};
use crate::context::Context;
use crate::options::{FieldValidation, Options};
use crate::scheme::Said;
use api::{FieldError, GroupKind, Reason, Status};
use schema::apply::Versions as _;
use schema::patch::PatchError;
use schema::{DecodeError, Decoded, Map, Problem, TypeRef, Value};

/// Makes the object that is to be from the one that is. It is asked again when the object changed meanwhile.
pub trait Mutation: Send + Sync {
    /// `existing` and the result are in the version of the request; `None`: there is no such object.
    ///
    /// # Errors
    /// The refusal.
    fn apply(&self, cx: &Context, existing: Option<&Map>) -> Result<Map, Status>;

    /// The mutation itself has noted in `managedFields` who set what.
    fn tracks(&self) -> bool {
        false
    }

    /// Admission looks at the object; it does not where it has looked at what asks for the change.
    fn admits(&self) -> bool {
        true
    }

    /// The uid that the object must have, before anything is made of it: what is sent whole names the object it means.
    fn uid(&self) -> Option<&str> {
        None
    }

    /// It makes the object where there is none.
    fn creates(&self) -> bool {
        false
    }

    /// What it is to authorization and admission options: an apply is a patch.
    fn is_patch(&self) -> bool {
        true
    }
}

/// PUT: the object as it was sent, decoded and defaulted.
pub struct Replace(pub Map);

impl Mutation for Replace {
    fn apply(&self, _: &Context, _: Option<&Map>) -> Result<Map, Status> {
        Ok(self.0.clone())
    }
    fn uid(&self) -> Option<&str> {
        Some(self.0.str_at(&["metadata", "uid"])).filter(|uid| !uid.is_empty())
    }
    fn is_patch(&self) -> bool {
        false
    }
}

/// Changes in place, for what the server does itself.
pub struct Change<F>(pub F);

impl<F: Fn(&mut Map) -> Result<(), Status> + Send + Sync> Mutation for Change<F> {
    fn apply(&self, _: &Context, existing: Option<&Map>) -> Result<Map, Status> {
        let mut object = existing.cloned().unwrap_or_default();
        (self.0)(&mut object)?;
        Ok(object)
    }
}

/// The three patches that need no ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
}

/// PATCH with one of them.
pub struct Patch<'a> {
    pub kind: PatchKind,
    pub patch: Value,
    /// What is wrong with the patch itself, where strict validation looks: fields given twice.
    pub problems: Vec<String>,
    /// What is patched: the kind of the resource, or of a subresource's lens.
    pub ty: TypeRef<'a>,
    pub said: Said<'a>,
    pub row: &'a schema::Resource,
    pub validation: FieldValidation,
    pub defaults: bool,
}

impl Mutation for Patch<'_> {
    fn apply(&self, cx: &Context, existing: Option<&Map>) -> Result<Map, Status> {
        let Some(existing) = existing else { return Err(Status::internal("a patch of nothing")) };
        let mut value = Value::Map(existing.clone());
        match self.kind {
            PatchKind::Json => schema::patch::json::apply(&mut value, self.patch.clone()).map_err(refused)?,
            PatchKind::Merge => schema::patch::merge::apply(&mut value, self.patch.clone()),
            PatchKind::Strategic => {
                let (Value::Map(target), Value::Map(patch)) = (&mut value, &self.patch) else {
                    return Err(Status::bad_request("a strategic merge patch must be an object"));
                };
                schema::patch::strategic::apply(self.ty, target, patch.clone()).map_err(refused)?;
            }
        }
        // Upstream shows the patched object; of a strategic patch, the patch.
        let shown = match self.kind {
            PatchKind::Strategic => None,
            PatchKind::Json | PatchKind::Merge => Some(value.clone()),
        };
        let shown = || match &shown {
            None => schema::patch::shown(&self.patch).to_string(),
            Some(value) => {
                let mut json = Vec::new();
                schema::json::encode_value(value, &mut json);
                String::from_utf8_lossy(&json).into_owned()
            }
        };
        let decoded = match (self.kind, value) {
            // Upstream does not go through text here, and so has other rules of what is what.
            (PatchKind::Strategic, Value::Map(object)) => restored(self.ty, object, Some(existing)),
            (_, value) => self.decoded(value, existing),
        };
        let decoded = decoded.map_err(|why| invalid_patch(&shown(), &why))?;
        let found = decoded.problems.iter().map(ToString::to_string);
        let problems: Vec<String> = self.problems.iter().cloned().chain(found).collect();
        judge(cx, &problems, self.validation, |problems| {
            invalid_patch(&shown(), &format!("strict decoding error: {problems}"))
        })?;
        let mut object = decoded.object;
        if object.is_empty() {
            let name = existing.str_at(&["metadata", "name"]);
            return Err(Status::bad_request(format!(
                "the name of the object ({name} based on URL) was undeterminable: name must be provided"
            )));
        }
        if self.defaults {
            super::complete::complete(self.ty, &mut object, Some(existing));
        }
        Ok(object)
    }
}

impl Patch<'_> {
    /// A patched object, read as what it says it is: a JSON or merge patch can change that. It is empty when it says no version.
    fn decoded(&self, value: Value, existing: &Map) -> Result<Decoded, String> {
        let as_expected =
            |value| schema::normal::changed(self.ty, value, Some(existing)).map_err(|error| error.to_string());
        let Value::Map(object) = &value else { return as_expected(value) };
        let (api_version, kind) = (said(object, "apiVersion")?, said(object, "kind")?);
        let kind = if kind.is_empty() { self.said.kind } else { kind };
        if (Said { api_version, kind }) == self.said {
            return as_expected(value);
        }
        let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
        let (now, kind) = (Said { api_version: &api_version, kind: &kind }, kind.as_str());
        let (group, version) = now.group_version()?;
        if version.is_empty() && kind == self.said.kind {
            // Upstream takes it for its internal version, whose fields have no names in JSON.
            let unknown = object.iter().filter(|(key, _)| !matches!(*key, "apiVersion" | "kind"));
            let problems = unknown.map(|(key, _)| Problem::Unknown(key.to_owned())).collect();
            return Ok(Decoded { object: Map::new(), problems });
        }
        if !now.is_registered() {
            return Err(now.unregistered());
        }
        let own = self.said.kind == self.row.kind && self.said.api_version == self.row.api_version();
        let shapes = Shapes { row: self.row, api_version: self.said.api_version };
        let (own_group, _) = self.said.group_version()?;
        if own && kind == self.said.kind && (group == own_group || shapes.knows(&api_version)) {
            // The same object in another version.
            let Some(ty) = shapes.other(&api_version) else { return as_expected(value) };
            let decoded = schema::normal::typed(ty, value).map_err(|error| error.to_string())?;
            return Ok(Decoded { object: shapes.back(&decoded.object, &api_version), ..decoded });
        }
        if let Some(ty) = schema::types::of_kind(group, version, kind) {
            schema::normal::typed(ty, value).map_err(|error| error.to_string())?;
        }
        Err(now.unconvertible(self.said))
    }
}

/// What an object says of its version or kind; empty when it does not.
fn said<'m>(object: &'m Map, key: &str) -> Result<&'m str, String> {
    let got = match object.get(key) {
        None | Some(Value::Null) => return Ok(""),
        Some(Value::Str(text)) => return Ok(text),
        Some(Value::Bool(_)) => "bool",
        Some(Value::List(_)) => "array",
        Some(Value::Int(_) | Value::Float(_)) => "number",
        Some(_) => "object",
    };
    Err(format!(
        "couldn't get version/kind; json parse error: json: cannot unmarshal {got} into Go struct field .{key} of type string"
    ))
}

/// A tree checked against a type as upstream's converter of untyped objects does it. `from`: what it was made from, in normal form.
fn restored(ty: TypeRef<'_>, tree: Map, from: Option<&Map>) -> Result<Decoded, String> {
    // Almost every tree is of its type as it is. The copy costs nothing.
    match schema::normal::changed(ty, Value::Map(tree.clone()), from) {
        Err(DecodeError::Type { .. }) => {}
        other => return other.map_err(|error| error.to_string()),
    }
    let mut tree = Value::Map(tree);
    schema::untyped::restore(ty, &mut tree)?;
    schema::normal::changed(ty, tree, from).map_err(|error| error.to_string())
}

/// 422 as upstream words what a patch made of an object: the kind is not named.
fn invalid_patch(shown: &str, why: &str) -> Status {
    let error = FieldError::invalid(&"patch", shown, why);
    Status::invalid(&GroupKind::new("", ""), "", &[error])
}

/// What upstream's generic answers say, which keep the reason to themselves.
fn refused(error: PatchError) -> Status {
    match error {
        PatchError::Malformed(why) => Status::bad_request(why),
        PatchError::Rejected(why) => {
            tracing::debug!(why, "a patch does not fit its object");
            let message = "the server rejected our request due to an error in our request";
            let mut status = Status::new(422, Reason::Invalid, message);
            status.details_mut();
            status
        }
        PatchError::TooMany { .. } => {
            Status::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {error}"))
        }
        PatchError::Failed(why) => Status::new(500, Reason::Unknown, why),
    }
}

/// Refuses or warns of what is unknown or twice in an object, as `fieldValidation` says.
///
/// # Errors
/// What `strict` makes of the problems.
pub fn judge(
    cx: &Context,
    problems: &[String],
    validation: FieldValidation,
    strict: impl FnOnce(&str) -> Status,
) -> Result<(), Status> {
    match validation {
        FieldValidation::Warn => {
            // Keys that a YAML document repeats are one problem, but a warning each.
            let each = problems.iter().flat_map(|problem| match problem.strip_prefix(schema::REPEATED) {
                Some(lines) => lines.trim().split('\n').map(str::trim).collect(),
                None => vec![problem.as_str()],
            });
            each.for_each(|problem| cx.warn(problem));
        }
        FieldValidation::Strict if !problems.is_empty() => return Err(strict(&problems.join(", "))),
        FieldValidation::Strict | FieldValidation::Ignore => {}
    }
    Ok(())
}

/// A patch that can't be read. Whether it has an object is asked first.
pub struct Malformed {
    pub why: Status,
    /// It is an apply, which would make an object.
    pub creates: bool,
}

impl Mutation for Malformed {
    fn apply(&self, _: &Context, _: Option<&Map>) -> Result<Map, Status> {
        Err(self.why.clone())
    }
    fn creates(&self) -> bool {
        self.creates
    }
}

/// Server-side apply.
pub struct Apply<'a> {
    /// As it was written: what was not given is not owned.
    pub config: Map,
    /// What it says twice, which is judged as the options ask.
    pub twice: Vec<String>,
    pub ty: TypeRef<'a>,
    pub api_version: String,
    pub kind: String,
    pub subresource: String,
    pub options: &'a Options,
    pub row: &'a schema::Resource,
    pub defaults: bool,
}

impl Apply<'_> {
    /// The configuration's object as upstream's messages name it: by what it says itself.
    fn named(&self) -> String {
        let said = |key| self.config.str_at(&["metadata", key]);
        format!("{}/{}; {}", said("namespace"), said("name"), said_kind(&self.config))
    }

    /// What keeps the configuration from being applied to anything.
    fn judge(&self) -> Result<(), Status> {
        if self.config.str_at(&["apiVersion"]) != self.api_version || self.config.str_at(&["kind"]) != self.kind {
            return Err(Status::bad_request(format!("invalid object type: {}", said_kind(&self.config))));
        }
        if self.config.at(&["metadata", "managedFields"]).is_some_and(|managers| managers.as_list().is_some()) {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        schema::apply::typed::judge(self.ty, &self.config).map_err(|faults| {
            Status::new(
                500,
                Reason::Unknown,
                format!("failed to create typed patch object ({}): {faults}", self.named()),
            )
        })
    }
}

/// The kind that an object says it is, as Go writes it: `apps/v1, Kind=Deployment`, `/v1, Kind=Pod`.
fn said_kind(object: &Map) -> String {
    let (api_version, kind) = (object.str_at(&["apiVersion"]), object.str_at(&["kind"]));
    match api_version.matches('/').count() {
        0 => format!("/{api_version}, Kind={kind}"),
        1 => format!("{api_version}, Kind={kind}"),
        // That is no version, and so nothing is known of the object.
        _ => "/, Kind=".to_owned(),
    }
}

impl Mutation for Apply<'_> {
    fn apply(&self, cx: &Context, existing: Option<&Map>) -> Result<Map, Status> {
        self.judge()?;
        let merged = managed::apply(self, cx, existing)?;
        let typed = restored(self.ty, merged, existing);
        let typed = typed.map_err(|why| {
            let what = said_kind(&self.config);
            let why = format!("unable to convert unstructured object to {what}: {why}");
            let why = format!("failed to convert new object ({}) to proper version: {why}", self.named());
            Status::new(500, Reason::Unknown, why)
        })?;
        judge(cx, &self.twice, self.options.field_validation, |problems| {
            Status::bad_request(format!("error strict decoding YAML: error converting YAML to JSON: {problems}"))
        })?;
        let mut object = typed.object;
        if self.defaults {
            super::complete::complete(self.ty, &mut object, existing);
        }
        Ok(object)
    }
    fn tracks(&self) -> bool {
        true
    }
    fn creates(&self) -> bool {
        self.subresource.is_empty()
    }
}

/// Another mutation, through the shape in which a subresource shows the object.
pub struct Through<'a> {
    pub target: &'a Target,
    pub subresource: &'a dyn Subresource,
    pub inner: &'a dyn Mutation,
}

impl Mutation for Through<'_> {
    fn apply(&self, cx: &Context, existing: Option<&Map>) -> Result<Map, Status> {
        let Some(existing) = existing else { return Err(Status::internal("a subresource of nothing")) };
        let mut shown = self.subresource.read(self.target, existing)?;
        let window = self.subresource.window().filter(|_| self.inner.tracks());
        let window = window.map(|(path, shown_version)| schema::apply::Window {
            path,
            api_version: self.target.served.api_version(),
            shown_version,
        });
        if let Some(owners) = window.and_then(|window| window.narrow(existing)) {
            shown.set_at(&["metadata", "managedFields"], owners);
        }
        let mut changed = self.inner.apply(cx, Some(&shown))?;
        if self.is_patch() {
            meta::check_name(&changed, &self.target.name, &self.target.namespace)?;
        }
        let owners = changed.remove_at(&["metadata", "managedFields"]);
        let version = changed.at(&["metadata", "resourceVersion"]).cloned();
        let mut object = existing.clone();
        if let Some(window) = window {
            let mut shown = Map::new();
            shown.set_at(&["metadata", "managedFields"], owners.unwrap_or_default());
            window.widen(&mut object, &shown);
        }
        self.subresource.write(self.target, &mut object, changed)?;
        match version {
            Some(version) => object.set_at(&["metadata", "resourceVersion"], version),
            None => {
                object.remove_at(&["metadata", "resourceVersion"]);
            }
        }
        Ok(object)
    }
    fn uid(&self) -> Option<&str> {
        self.inner.uid()
    }
    fn is_patch(&self) -> bool {
        self.inner.is_patch()
    }
    fn tracks(&self) -> bool {
        self.inner.tracks() && self.subresource.window().is_some()
    }
}

/// The type of what a resource or a lens takes.
pub fn type_of(served: &Served) -> TypeRef<'_> {
    served.resource.schema.root()
}
