//! Kinds that are served in two versions but stored in one: how trees go from one to the other, without loss.

mod autoscaling;
mod devices;
mod event;

use schema::apply::Versions;
use schema::{Map, Resource, TypeRef};
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

/// The versions of a row's kind, as its objects' managers know them.
#[derive(Clone, Copy, Debug)]
pub struct Shapes<'a> {
    pub row: &'a Resource,
    /// The row's own.
    pub api_version: &'a str,
}

/// The conversion of a row whose version has another shape than the stored one.
fn shape(row: &Resource) -> Option<&'static Conversion> {
    of(row).filter(|conversion| !std::ptr::eq(*conversion, &SAME_SHAPE))
}

impl Shapes<'_> {
    /// The row of a version of the same objects.
    fn at(&self, api_version: &str) -> Option<&'static Resource> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let row = schema::resource::get(group, version, &self.row.plural)?;
        let same = row.storage.as_ref()?.prefix == self.row.storage.as_ref()?.prefix;
        same.then_some(row)
    }

    /// Whether a version is one of the same objects.
    pub fn knows(&self, api_version: &str) -> bool {
        self.at(api_version).is_some()
    }

    fn converted(&self, object: &Map, from: &Resource, to: &Resource) -> Map {
        let mut object = object.clone();
        if let Some(conversion) = of(from) {
            (conversion.to_stored)(&mut object);
        }
        if let Some(conversion) = of(to) {
            (conversion.from_stored)(&mut object);
        }
        object.insert("apiVersion", to.api_version());
        object.insert("kind", to.kind.as_ref());
        if let Err(error) = schema::normal::normalise(to.schema.root(), &mut object, None) {
            tracing::debug!(version = to.api_version(), %error, "an object does not fit the version of one of its managers");
        }
        object
    }
}

impl Versions for Shapes<'_> {
    fn other(&self, api_version: &str) -> Option<TypeRef<'_>> {
        if api_version == self.api_version {
            return None;
        }
        let row = self.at(api_version)?;
        let same = match (shape(self.row), shape(row)) {
            (Some(own), Some(other)) => std::ptr::eq(own, other),
            (None, None) => true,
            _ => false,
        };
        (!same).then(|| row.schema.root())
    }

    fn there(&self, object: &Map, api_version: &str) -> Map {
        self.at(api_version).map_or_else(|| object.clone(), |row| self.converted(object, self.row, row))
    }

    fn back(&self, object: &Map, api_version: &str) -> Map {
        self.at(api_version).map_or_else(|| object.clone(), |row| self.converted(object, row, self.row))
    }
}

/// Moves fields: from, to.
fn rename(object: &mut Map, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let moved: Vec<(&'static str, _)> =
        names.filter_map(|(from, to)| object.remove(from).map(|value| (to, value))).collect();
    for (name, value) in moved {
        object.insert(Cow::Borrowed(name), value);
    }
}
