//! Volumes and claims begin as pending; claims say twice what they are made from, and volumes when they changed last.

use super::{Rules, Strategy, keep_other_side};
use crate::context::Context;
use crate::registry::meta;
use schema::{Map, Resource, Value};

const TRANSITION: [&str; 2] = ["status", "lastPhaseTransitionTime"];

#[derive(Debug)]
pub struct Volumes(pub Rules);

impl Strategy for Volumes {
    fn prepare_for_create(&self, cx: &Context, _: &Resource, object: &mut Map) {
        object.set_at(&["status", "phase"], "Pending");
        object.set_at(&TRANSITION, meta::time(cx.now));
    }

    fn prepare_for_update(&self, cx: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        keep_other_side(row, subresource, object, old);
        if subresource != "status" {
            return;
        }
        let moved = object.str_at(&["status", "phase"]) != old.str_at(&["status", "phase"]);
        let (now, was) = (object.at(&TRANSITION), old.at(&TRANSITION));
        match (moved, now, was) {
            (false, None, Some(was)) => object.set_at(&TRANSITION, was.clone()),
            // Who changes the phase and tells no other time has the server tell it.
            (true, now, was) if now.is_none() || now == was => object.set_at(&TRANSITION, meta::time(cx.now)),
            _ => {}
        }
    }

    fn rules(&self) -> Rules {
        self.0
    }
}

#[derive(Debug)]
pub struct Claims {
    pub rules: Rules,
    /// Whether a claim may be made from what is in another namespace.
    pub elsewhere: bool,
}

impl Strategy for Claims {
    fn prepare_for_create(&self, _: &Context, _: &Resource, object: &mut Map) {
        object.set_at(&["status", "phase"], "Pending");
        sources(object, None, self.elsewhere);
    }

    fn prepare_for_update(&self, _: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        keep_other_side(row, subresource, object, old);
        if subresource.is_empty() {
            sources(object, Some(old), self.elsewhere);
        }
    }

    fn rules(&self) -> Rules {
        self.rules
    }
}

fn source<'a>(object: &'a Map, field: &str) -> Option<&'a Map> {
    object.at(&["spec", field]).and_then(Value::as_map)
}

/// A claim or a snapshot of its own namespace, which is all that the older field may name.
fn is_plain(source: &Map) -> bool {
    matches!(
        (source.str_at(&["apiGroup"]), source.str_at(&["kind"])),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    )
}

/// Makes `dataSource` and `dataSourceRef` say the same, where either is left out.
fn sources(object: &mut Map, old: Option<&Map>, may_be_elsewhere: bool) {
    let had = |field: &str| old.and_then(|old| source(old, field));
    if had("dataSource").is_none()
        && had("dataSourceRef").is_none()
        && source(object, "dataSource").is_some_and(|source| !is_plain(source))
    {
        object.remove_at(&["spec", "dataSource"]);
    }
    let elsewhere = |source: &Map| !source.str_at(&["namespace"]).is_empty();
    if !may_be_elsewhere
        && source(object, "dataSourceRef").is_some_and(elsewhere)
        && !had("dataSourceRef").is_some_and(elsewhere)
    {
        object.remove_at(&["spec", "dataSourceRef"]);
    }
    match (source(object, "dataSource").cloned(), source(object, "dataSourceRef").cloned()) {
        (Some(source), None) => object.set_at(&["spec", "dataSourceRef"], source),
        (None, Some(mut reference)) if !elsewhere(&reference) => {
            reference.remove("namespace");
            object.set_at(&["spec", "dataSource"], reference);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    fn made(text: &str, old: Option<&str>) -> Map {
        let mut object = map(text);
        sources(&mut object, old.map(map).as_ref(), false);
        object
    }

    #[test]
    fn both_fields_name_the_source() {
        let plain = "{kind: PersistentVolumeClaim, name: a}";
        let both = map(&format!("{{spec: {{dataSource: {plain}, dataSourceRef: {plain}}}}}"));
        assert_eq!(made(&format!("{{spec: {{dataSource: {plain}}}}}"), None), both);
        assert_eq!(made(&format!("{{spec: {{dataSourceRef: {plain}}}}}"), None), both);
        let other = "{apiGroup: example.com, kind: Book, name: a}";
        let old_field = format!("{{spec: {{dataSource: {other}}}}}");
        assert_eq!(made(&old_field, None), map("{spec: {}}"), "the older field names claims and snapshots alone");
        let kept = format!("{{spec: {{dataSource: {other}, dataSourceRef: {other}}}}}");
        assert_eq!(made(&format!("{{spec: {{dataSourceRef: {other}}}}}"), None), map(&kept));
        assert_eq!(made(&old_field, Some(&kept)), map(&kept), "what was there is not taken away");
        let elsewhere = "{spec: {dataSourceRef: {kind: PersistentVolumeClaim, name: a, namespace: b}}}";
        assert_eq!(made(elsewhere, None), map("{spec: {}}"));
    }
}
