//! Kinds that are served in two versions but stored in one: how trees go from one to the other, without loss.

mod autoscaling;
mod devices;
mod event;

use schema::{Map, Resource};
use std::borrow::Cow;

/// Both ways, in place. `apiVersion` and `kind` are the caller's.
#[derive(Debug)]
pub struct Conversion {
    pub to_stored: fn(&mut Map),
    pub from_stored: fn(&mut Map),
    /// How field selectors spell the stored version's fields: theirs, ours. `None`: as the stored version does.
    pub labels: Option<&'static [(&'static str, &'static str)]>,
}

/// The conversion of a row, where its version is not the stored one.
pub fn of(row: &Resource) -> Option<&'static Conversion> {
    let stored = row.storage.as_ref()?;
    if stored.version == row.version && stored.group == row.group {
        return None;
    }
    match (row.group.as_ref(), row.version.as_ref(), row.kind.as_ref()) {
        ("events.k8s.io", "v1", "Event") => Some(&event::CONVERSION),
        ("autoscaling", "v1", "HorizontalPodAutoscaler") => Some(&autoscaling::CONVERSION),
        ("resource.k8s.io", "v1beta1", "ResourceClaim") => Some(&devices::CLAIM),
        ("resource.k8s.io", "v1beta1", "ResourceClaimTemplate") => Some(&devices::TEMPLATE),
        ("resource.k8s.io", "v1beta1", "ResourceSlice") => Some(&devices::SLICE),
        _ => Some(&SAME_SHAPE),
    }
}

/// Of versions that differ in their name alone.
static SAME_SHAPE: Conversion = Conversion { to_stored: |_| {}, from_stored: |_| {}, labels: None };

/// Moves fields: from, to.
fn rename(object: &mut Map, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let moved: Vec<(&'static str, _)> =
        names.filter_map(|(from, to)| object.remove(from).map(|value| (to, value))).collect();
    for (name, value) in moved {
        object.insert(Cow::Borrowed(name), value);
    }
}
