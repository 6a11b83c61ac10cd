//! What is asked of one object but is not the object itself.

use super::{Call, NotServed, read, target, write};
use crate::http::answer;
use crate::http::{Body, Request, Response};
use crate::registry::{Registry, Served};
use api::{ResourceVersion, Status};
use http::{Method, StatusCode};
use schema::resource::Verbs;
use std::sync::Arc;

pub(super) async fn handle(
    registry: &Arc<Registry>,
    served: &Arc<Served>,
    mut call: Call,
) -> Result<Response<Body>, NotServed> {
    let target = target(served, &call);
    let Some(row) = served.resource.subresource(&target.subresource).cloned() else { return Err(NotServed::Path) };
    if call.info.parts.len() > 3 && target.subresource != "proxy" {
        return Err(NotServed::Path);
    }
    let hatch = served.subresources.get(&target.subresource).cloned();
    // What is proxied decides on methods itself.
    let proxies = target.subresource == "proxy" && hatch.as_ref().is_some_and(|hatch| hatch.connects());
    let verb = match call.info.verb.as_str() {
        "get" => Verbs::GET,
        "create" => Verbs::CREATE,
        "update" => Verbs::UPDATE,
        "patch" => Verbs::PATCH,
        "delete" => Verbs::DELETE,
        _ if proxies => Verbs::GET,
        _ => return Err(Status::method_not_allowed().into()),
    };
    if !row.verbs.contains(verb) || call.method == Method::HEAD && !proxies {
        return Err(Status::method_not_allowed().into());
    }
    if let Some(hatch) = hatch.as_ref().filter(|hatch| hatch.connects()) {
        let mut request = Request::new(std::mem::take(&mut call.body));
        let cx = call.cx.clone();
        *request.method_mut() = call.parts.method.clone();
        *request.uri_mut() = call.parts.uri.clone();
        *request.version_mut() = call.parts.version;
        *request.headers_mut() = std::mem::take(&mut call.parts.headers);
        *request.extensions_mut() = std::mem::take(&mut call.parts.extensions);
        return Ok(hatch.connect(&cx, &target, request).await?);
    }
    let api_version =
        if row.group.is_empty() { row.version.to_string() } else { format!("{}/{}", row.group, row.version) };
    let own = (row.group == served.resource.group
        && row.version == served.resource.version
        && row.kind == served.resource.kind)
        .then(|| served.resource.schema.root());
    let missing = || Status::internal(format!("{api_version} {} is not in the catalogue", row.kind));
    let Some(hatch) = hatch else {
        // The object itself under other rules: its strategy knows them.
        let name = target.subresource.clone();
        return Ok(match verb {
            Verbs::GET => read::get(registry, served, call).await?,
            Verbs::UPDATE => write::update(registry, served, call, &name).await?,
            Verbs::PATCH => write::patch(registry, served, call, &name).await?,
            _ => return Err(Status::method_not_allowed().into()),
        });
    };
    let ty = match own {
        Some(ty) => ty,
        None => schema::types::of_kind(&row.group, &row.version, &row.kind).ok_or_else(missing)?,
    };
    let answer = match verb {
        Verbs::GET => {
            // Upstream's lenses can be had as tables and as metadata.
            let view = call.view(true, false)?;
            let version = crate::request::parameter(&call.query, "resourceVersion").unwrap_or_default();
            let version = ResourceVersion::parse(&version)?.map(|version| version.0);
            let entry = registry.get(served, &target.namespace, &target.name, version).await?;
            let shown = hatch.read(&target, &served.decode(&entry)?)?;
            answer::lens(StatusCode::OK, ty, (&row.group, &row.kind), &shown, view, call.cx.now)
        }
        Verbs::CREATE => write::create_subresource(registry, served, call, ty, &api_version, &row.kind).await,
        Verbs::DELETE => Err(Status::method_not_allowed()),
        _ => write::through(registry, served, call, ty, &api_version, (&row.group, &row.kind)).await,
    };
    Ok(answer?)
}
