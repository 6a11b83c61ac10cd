//! Create, update, patch, delete and deletecollection.

use super::Call;
use crate::http::answer::{self, Object};
use crate::http::media::{self, View};
use crate::http::receive::{self, Expected};
use crate::http::{Body, Response};
use crate::options::{FieldValidation, ListOptions, Options, OptionsKind};
use crate::registry::mutation::{Apply, Malformed, Mutation, Patch, PatchKind, Replace, Through};
use crate::registry::{Place, Registry, Served, Written, meta, selection};
use crate::scheme::Said;
use api::Status;
use bytes::Bytes;
use http::StatusCode;
use schema::{Map, TypeRef, Value};
use std::sync::Arc;

const PATCHES: [(&str, Option<PatchKind>); 4] = [
    ("application/json-patch+json", Some(PatchKind::Json)),
    ("application/merge-patch+json", Some(PatchKind::Merge)),
    ("application/strategic-merge-patch+json", Some(PatchKind::Strategic)),
    ("application/apply-patch+yaml", None),
];

fn expected(served: &Served) -> Expected<'_> {
    Expected { ty: served.resource.schema.root(), api_version: served.api_version(), kind: &served.resource.kind }
}

fn answered(
    served: &Served,
    written: &Written,
    view: View,
    call_now: jiff::Timestamp,
) -> Result<Response<Body>, Status> {
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    answer::object(code, served, Object::written(written), view, call_now)
}

/// Reads the body of a write, and notes its size.
async fn read(registry: &Registry, served: &Served, call: &mut Call) -> Result<Bytes, Status> {
    let body = std::mem::take(&mut call.body);
    let bytes = receive::read(&call.parts.headers, body).await?;
    let verb = match call.info.verb.as_str() {
        "create" => "create",
        "update" => "update",
        "patch" => "patch",
        "deletecollection" => "delete_collection",
        _ => "delete",
    };
    registry.measures().sent(&served.resource.group, &served.resource.plural, verb, bytes.len());
    Ok(bytes)
}

/// Reads and decodes the body of a create or update.
async fn body(
    registry: &Registry,
    served: &Served,
    call: &mut Call,
    expected: Expected<'_>,
    validation: FieldValidation,
) -> Result<Map, Status> {
    let bytes = read(registry, served, call).await?;
    let mut object = receive::decode(&call.cx, &call.parts.headers, &bytes, expected, validation)?;
    crate::registry::complete::complete(expected.ty, &mut object, None);
    call.cx.refer(&object, expected.api_version, expected.kind);
    Ok(object)
}

pub(super) async fn create(
    registry: &Registry,
    served: &Arc<Served>,
    mut call: Call,
) -> Result<Response<Body>, Status> {
    let view = call.view(true, false)?;
    let options = Options::of_query(&call.query, OptionsKind::Create)?;
    let object = body(registry, served, &mut call, expected(served), options.field_validation).await?;
    let namespace = call.namespace(served);
    if served.virtual_resource.is_some() {
        let object = registry.create_virtual(&call.cx, served, namespace, object, &options).await?;
        return answer::object(StatusCode::CREATED, served, Object::Tree(&object, None), view, call.cx.now);
    }
    let written = registry.create(&call.cx, served, namespace, object, &options).await?;
    answered(served, &written, view, call.cx.now)
}

pub(super) async fn update(
    registry: &Registry,
    served: &Arc<Served>,
    mut call: Call,
    subresource: &str,
) -> Result<Response<Body>, Status> {
    let view = call.view(true, false)?;
    let options = Options::of_query(&call.query, OptionsKind::Update)?;
    let object = body(registry, served, &mut call, expected(served), options.field_validation).await?;
    let (namespace, name) = (call.namespace(served), call.name());
    meta::check_name(&object, name, namespace)?;
    let place = Place { namespace, name, subresource };
    let written = registry.update(&call.cx, served, place, &Replace(object), &options).await?;
    answered(served, &written, view, call.cx.now)
}

/// A PATCH's body, read as what its media type says.
struct Patched {
    kind: Option<PatchKind>,
    bytes: Bytes,
    options: Options,
}

async fn patched(registry: &Registry, served: &Served, call: &mut Call) -> Result<Patched, Status> {
    let content_type = media::content_type(&call.parts.headers);
    let accepted = PATCHES.iter().find(|(media, kind)| {
        *media == content_type && (served.resource.flags.strategic || *kind != Some(PatchKind::Strategic))
    });
    let Some((_, kind)) = accepted else {
        let names: Vec<&str> = PATCHES
            .iter()
            .filter(|(_, kind)| served.resource.flags.strategic || *kind != Some(PatchKind::Strategic))
            .map(|(name, _)| *name)
            .collect();
        return Err(Status::unsupported_media_type(&names));
    };
    let options_kind = if kind.is_none() { OptionsKind::Apply } else { OptionsKind::Patch };
    let options = Options::of_query(&call.query, options_kind)?;
    let bytes = read(registry, served, call).await?;
    call.cx.refer_to(|| crate::audit::of_patch(&call.parts.headers, &bytes));
    Ok(Patched { kind: *kind, bytes, options })
}

impl Patched {
    /// The configuration of an apply, as it was written, and what it says twice.
    fn configuration(&self) -> Result<(Map, Vec<String>), Status> {
        let bad = |why: &dyn std::fmt::Display| Status::bad_request(format!("error decoding YAML: {why}"));
        let (raw, twice) = schema::yaml::parse_strict(&self.bytes).map_err(|error| bad(&error))?;
        let config = match raw {
            Value::Map(config) => config,
            Value::Null => Map::new(),
            other => {
                let why = schema::json::mismatch(&other, "value of type map[string]interface {}");
                return Err(bad(&format!("error unmarshaling JSON: while decoding JSON: {why}")));
            }
        };
        Ok((config, twice.iter().map(ToString::to_string).collect()))
    }

    /// The mutation that the patch is to a type.
    fn mutation<'a>(
        &'a self,
        served: &'a Served,
        subresource: &str,
        expected: Expected<'a>,
    ) -> Result<Box<dyn Mutation + 'a>, Status> {
        let Some(kind) = self.kind else {
            let (config, twice) = match self.configuration() {
                Ok(read) => read,
                Err(why) => return Ok(Box::new(Malformed { why, creates: subresource.is_empty() })),
            };
            return Ok(Box::new(Apply {
                config,
                twice,
                ty: expected.ty,
                api_version: expected.api_version.to_owned(),
                kind: expected.kind.to_owned(),
                subresource: subresource.to_owned(),
                options: &self.options,
                row: &served.resource,
                defaults: true,
            }));
        };
        let (patch, problems) = match parsed_patch(kind, &self.bytes) {
            Ok(read) => read,
            Err(why) => return Ok(Box::new(Malformed { why, creates: false })),
        };
        Ok(Box::new(Patch {
            kind,
            patch,
            problems,
            ty: expected.ty,
            said: Said { api_version: expected.api_version, kind: expected.kind },
            row: &served.resource,
            validation: self.options.field_validation,
            defaults: true,
        }))
    }
}

/// A patch and what strict validation finds in it, refused in Go's words.
fn parsed_patch(kind: PatchKind, bytes: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let prefix = if kind == PatchKind::Strategic { "" } else { "error decoding patch: " };
    let bad = |why: String| Status::bad_request(format!("{prefix}{why}"));
    let (patch, twice) = schema::json::parse_strict(bytes).map_err(|error| bad(error.to_string()))?;
    // Nothing is no change, but for a merge patch, which it would be the result of.
    let patch = match (patch, kind) {
        (Value::Null, PatchKind::Json) => Value::List(Vec::new()),
        (Value::Null, PatchKind::Strategic) => Value::Map(Map::new()),
        (Value::Null, PatchKind::Merge) => return Err(Status::bad_request("Invalid JSON Patch")),
        (patch, _) => patch,
    };
    let wanted = match (&patch, kind) {
        (Value::List(_), PatchKind::Json) | (Value::Map(_), PatchKind::Merge | PatchKind::Strategic) => None,
        (_, PatchKind::Json) => Some("value of type []handlers.jsonPatchOp"),
        (_, PatchKind::Merge | PatchKind::Strategic) => Some("value of type map[string]interface {}"),
    };
    if let Some(wanted) = wanted {
        return Err(bad(schema::json::mismatch(&patch, wanted)));
    }
    let mut problems: Vec<String> = twice.iter().map(ToString::to_string).collect();
    if let Value::List(operations) = &patch {
        for (n, operation) in operations.iter().enumerate() {
            for (key, _) in operation.as_map().into_iter().flat_map(Map::iter) {
                if !matches!(key, "op" | "path" | "from" | "value") {
                    problems.push(format!("unknown field \"[{n}].{key}\""));
                }
            }
        }
        problems.iter_mut().for_each(|problem| problem.insert_str(0, "json patch "));
    }
    Ok((patch, problems))
}

pub(super) async fn patch(
    registry: &Registry,
    served: &Arc<Served>,
    mut call: Call,
    subresource: &str,
) -> Result<Response<Body>, Status> {
    let view = call.view(true, false)?;
    let patched = patched(registry, served, &mut call).await?;
    let (namespace, name) = (call.namespace(served), call.name());
    let place = Place { namespace, name, subresource };
    let written = {
        let mutation = patched.mutation(served, subresource, expected(served))?;
        registry.update(&call.cx, served, place, mutation.as_ref(), &patched.options).await?
    };
    answered(served, &written, view, call.cx.now)
}

/// PUT or PATCH of an object through a subresource's lens.
pub(super) async fn through(
    registry: &Registry,
    served: &Arc<Served>,
    mut call: Call,
    ty: TypeRef<'_>,
    api_version: &str,
    (group, kind): (&str, &str),
) -> Result<Response<Body>, Status> {
    let view = call.view(true, false)?;
    let target = super::target(served, &call);
    let Some(lens) = served.subresources.get(&target.subresource) else {
        return Err(target.unsupported("update"));
    };
    let expected = Expected { ty, api_version, kind };
    let place = Place { namespace: &target.namespace, name: &target.name, subresource: &target.subresource };
    let written = if call.info.verb == "patch" {
        let patched = patched(registry, served, &mut call).await?;
        let inner = patched.mutation(served, &target.subresource, expected)?;
        let mutation = Through { target: &target, subresource: lens.as_ref(), inner: inner.as_ref() };
        registry.update(&call.cx, served, place, &mutation, &patched.options).await?
    } else {
        let options = Options::of_query(&call.query, OptionsKind::Update)?;
        let object = body(registry, served, &mut call, expected, options.field_validation).await?;
        meta::check_name(&object, &target.name, &target.namespace)?;
        let inner = Replace(object);
        let mutation = Through { target: &target, subresource: lens.as_ref(), inner: &inner };
        registry.update(&call.cx, served, place, &mutation, &options).await?
    };
    let shown = lens.read(&target, &written.object)?;
    answer::lens(StatusCode::OK, ty, (group, kind), &shown, view, call.cx.now)
}

/// POST of what a subresource takes.
pub(super) async fn create_subresource(
    registry: &Registry,
    served: &Arc<Served>,
    mut call: Call,
    ty: TypeRef<'_>,
    api_version: &str,
    kind: &str,
) -> Result<Response<Body>, Status> {
    let view = call.view(false, false)?;
    let options = Options::of_query(&call.query, OptionsKind::Create)?;
    let target = super::target(served, &call);
    let expected = Expected { ty, api_version, kind };
    let object = body(registry, served, &mut call, expected, options.field_validation).await?;
    let made = registry.create_subresource(&call.cx, &target, object, &options).await?;
    if made.str_at(&["kind"]) == "Status" {
        let code = made.get("code").and_then(Value::as_i64).and_then(|code| u16::try_from(code).ok());
        let code = code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::CREATED);
        let bytes = answer::status_bytes(&made, view.format)
            .ok_or_else(|| Status::internal("the status can't be written in the format asked for"))?;
        return Ok(answer::finish(code, bytes.into(), view));
    }
    answer::tree(StatusCode::CREATED, ty, &made, view)
}

/// `DeleteOptions` of a body, if there is one; it counts rather than the query.
async fn delete_options(registry: &Registry, served: &Served, call: &mut Call) -> Result<Options, Status> {
    let bytes = read(registry, served, call).await?;
    if bytes.is_empty() {
        return Options::of_query(&call.query, OptionsKind::Delete);
    }
    let ty = schema::types::find("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")
        .ok_or_else(|| Status::internal("DeleteOptions are not in the catalogue"))?;
    let format = media::body_format(&call.parts.headers)?;
    let object = receive::decode_delete_options(format, &bytes, ty, &call.info.group)?;
    call.cx.refer_to(|| {
        let mut options = object.clone();
        for (key, unsaid) in [("apiVersion", "meta.k8s.io/v1"), ("kind", "DeleteOptions")] {
            if options.str_at(&[key]).is_empty() {
                options.insert(key, unsaid);
            }
        }
        Some(Value::Map(options))
    });
    Options::of_delete_body(&object)
}

pub(super) async fn delete(
    registry: &Registry,
    served: &Arc<Served>,
    mut call: Call,
) -> Result<Response<Body>, Status> {
    let view = call.view(true, false)?;
    let options = delete_options(registry, served, &mut call).await?;
    let (namespace, name) = (call.namespace(served), call.name());
    if let Some(why) = served.strategy.refuses_deletion(name) {
        return Err(Status::forbidden(&served.group_resource(), name, why));
    }
    let deleted = registry.delete(&call.cx, served, namespace, name, &options).await?;
    let code = match options.delete.orphan_dependents {
        Some(false) if !deleted.gone => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    };
    if !deleted.gone || served.resource.flags.returns_deleted {
        return answer::object(code, served, Object::written(&deleted.object), view, call.cx.now);
    }
    let mut details = Map::new();
    details.insert("name", name);
    if !served.resource.group.is_empty() {
        details.insert("group", served.resource.group.as_ref());
    }
    details.insert("kind", served.resource.plural.as_ref());
    details.insert("uid", deleted.object.object.str_at(&["metadata", "uid"]));
    let mut status = Map::new();
    status.insert("kind", "Status");
    status.insert("apiVersion", "v1");
    status.insert("metadata", Map::new());
    status.insert("status", "Success");
    status.insert("details", details);
    let bytes = answer::status_bytes(&status, view.format)
        .ok_or_else(|| Status::internal("the status can't be written in the format asked for"))?;
    Ok(answer::finish(code, bytes.into(), view))
}

pub(super) async fn delete_collection(
    registry: &Registry,
    served: &Arc<Served>,
    mut call: Call,
) -> Result<Response<Body>, Status> {
    let view = call.view(true, false)?;
    let list = ListOptions::of_query(&call.query, false)?;
    let options = delete_options(registry, served, &mut call).await?;
    let cacher = served.storage("deletecollection")?;
    let namespace = call.namespace(served);
    let (labels, fields) = (&list.label_selector, &list.field_selector);
    let filter = selection::filter(served, cacher, namespace, "", labels, fields)?;
    let listed = registry.delete_collection(&call.cx, served, &filter, &list, &options).await?;
    super::read::told(served, listed, view, call)
}
