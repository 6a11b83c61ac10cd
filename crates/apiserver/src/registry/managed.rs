//! `metadata.managedFields` on every write, and server-side apply: the registry's side of [`schema::apply`].

use super::convert::Shapes;
use super::mutation::Apply;
use super::{Served, meta};
use crate::context::Context;
use crate::options::{FIELD_MANAGER_MAX, Options};
use crate::strategy;
use api::field::printable;
use api::{Cause, Reason, Status};
use schema::apply::manager::conflict_message;
use schema::apply::{Conflict, Element, Manager, OneShape, Set};
use schema::{Map, Resource, TypeRef, Value};

/// Who writes: the query's `fieldManager`, or else the first word of the user agent.
pub fn manager_name(cx: &Context, options: &Options) -> String {
    if !options.field_manager.is_empty() {
        return options.field_manager.clone();
    }
    let agent = cx.user_agent.split('/').next().unwrap_or("");
    let mut name = String::new();
    for c in agent.chars().filter(|c| printable(*c)) {
        if name.len() + c.len_utf8() > FIELD_MANAGER_MAX {
            break;
        }
        name.push(c);
    }
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// Notes what a create (`live` is none) or an update set, in the version of the request.
pub fn track(
    served: &Served,
    cx: &Context,
    live: Option<&Map>,
    object: &mut Map,
    subresource: &str,
    options: &Options,
) {
    let name = manager_name(cx, options);
    // Of those who scale, upstream notes no time: it keeps those of the object, which knows none of what comes by its scale.
    let now = if subresource == "scale" { String::new() } else { meta::time(cx.now) };
    let (row, api_version) = (&served.resource, served.api_version());
    let versions = &Shapes { row, api_version };
    let manager = Manager { name: &name, api_version, subresource, now: &now, versions };
    schema::apply::track(row.schema.root(), live, object, &manager, &reset_fields(row, subresource));
}

/// What this endpoint does not write, whatever is asked of it.
pub fn reset_fields(row: &Resource, subresource: &str) -> Set {
    let mut set = Set::new();
    let mut without = |path: &[&str]| {
        path.iter().fold(&mut set, |set, field| set.below(Element::Field((*field).into()))).insert_here();
    };
    match subresource {
        "status" => {
            for field in row.schema.root().as_struct().into_iter().flat_map(|s| s.fields()) {
                if !matches!(field.name(), "status" | "metadata" | "kind" | "apiVersion") {
                    without(&[field.name()]);
                }
            }
            if !strategy::status_owns_metadata(row) {
                without(&["metadata"]);
            }
        }
        // It writes a part of the status.
        "approval" => {}
        _ if row.flags.status => without(&["status"]),
        _ => {}
    }
    strategy::resets(row, subresource).for_each(without);
    set
}

/// The object that an apply makes.
///
/// # Errors
/// 409 with the conflicts.
pub fn apply(apply: &Apply<'_>, cx: &Context, existing: Option<&Map>) -> Result<Map, Status> {
    let now = meta::time(cx.now);
    // What a lens of a subresource shows is of a kind of its own.
    let own = apply.api_version == apply.row.api_version() && apply.kind == apply.row.kind;
    let shapes = Shapes { row: apply.row, api_version: &apply.api_version };
    let manager = Manager {
        name: &apply.options.field_manager,
        api_version: &apply.api_version,
        subresource: &apply.subresource,
        now: &now,
        versions: if own { &shapes } else { &OneShape },
    };
    let reset = reset_fields(apply.row, &apply.subresource);
    schema::apply::apply(apply.ty, existing, &apply.config, &manager, apply.options.force, &reset)
        .map_err(|conflicts| conflict(&conflicts))
}

/// What an apply changes only until defaults and what was allocated are filled in again, it does not change: the times stay
/// too. So they do when it only writes quantities otherwise: that is stored, and counts as no change.
pub fn keep_times(ty: TypeRef<'_>, live: &Map, object: &mut Map) {
    let timeless = |map: &Map| {
        let mut map = map.clone();
        let metadata = map.get_mut("metadata").and_then(Value::as_map_mut);
        let entries = metadata.and_then(|metadata| metadata.get_mut("managedFields")).and_then(Value::as_list_mut);
        for entry in entries.into_iter().flatten().filter_map(Value::as_map_mut) {
            entry.remove("time");
        }
        map
    };
    let (before, now) = (timeless(live), timeless(object));
    if before == now {
        object.clone_from(live);
    } else if schema::semantic::same(ty, &before, &now) {
        strategy::keep_at(object, live, &["metadata", "managedFields"]);
    }
}

fn conflict(conflicts: &[Conflict]) -> Status {
    let mut status = Status::new(409, Reason::Conflict, conflict_message(conflicts));
    let causes = conflicts.iter().flat_map(|conflict| {
        conflict.paths.iter().map(|path| Cause {
            reason: "FieldManagerConflict".into(),
            message: conflict.message(),
            field: path.clone(),
        })
    });
    status.details_mut().causes = causes.collect();
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    #[test]
    fn times_stay_when_quantities_are_only_written_otherwise() {
        let quota = |cpu: &str, time: &str| {
            map(&format!(
                "{{metadata: {{managedFields: [{{manager: a, time: '{time}'}}]}}, spec: {{hard: {{cpu: '{cpu}'}}}}}}"
            ))
        };
        let ty = schema::types::of_kind("", "v1", "ResourceQuota").expect("a kind");
        let kept = |cpu: &str| {
            let mut object = quota(cpu, "new");
            keep_times(ty, &quota("1.234", "old"), &mut object);
            object
        };
        assert_eq!(kept("1.234"), quota("1.234", "old"));
        assert_eq!(kept("1234m"), quota("1234m", "old"));
        assert_eq!(kept("1235m"), quota("1235m", "new"));
    }
}
