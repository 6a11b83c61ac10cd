//! Walking the lists of an object.

use schema::{Map, Value};

/// The objects of a list; none when there is no such list.
pub(crate) fn items<'a>(map: &'a Map, path: &[&str]) -> impl Iterator<Item = &'a Map> + use<'a> {
    map.at(path).and_then(Value::as_list).unwrap_or_default().iter().filter_map(Value::as_map)
}

/// The objects of a list, for change.
pub(crate) fn items_mut<'a>(map: &'a mut Map, path: &[&str]) -> impl Iterator<Item = &'a mut Map> + use<'a> {
    map.at_mut(path).and_then(Value::as_list_mut).into_iter().flatten().filter_map(Value::as_map_mut)
}

/// The list at a path, made when it is absent; `None` when something else is in its place.
pub(crate) fn list_mut<'a>(map: &'a mut Map, parent: &'static str, key: &'static str) -> Option<&'a mut Vec<Value>> {
    let parent = map.entry(parent, || Map::new().into()).as_map_mut()?;
    parent.entry(key, || Value::List(Vec::new())).as_list_mut()
}
