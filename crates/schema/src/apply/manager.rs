//! `metadata.managedFields`: reading, updating and writing it, with upstream's rules.

use super::merge;
use super::path::Element;
use super::set::Set;
use super::versions::{self, Changes, Versions};
use super::walk::{Comparison, compare, created, set_of};
use crate::normal;
use crate::tree::{Map, Value};
use crate::types::TypeRef;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{PoisonError, RwLock};

/// Entries of updates kept apart at most, those through subresources too; the oldest beyond it become one.
const MAX_UPDATE_MANAGERS: usize = 10;
const ANCIENT: &str = "ancient-changes";
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The one format of the fields that there is.
const FIELDS_TYPE: &str = "FieldsV1";
/// The manager whose client-side applies are taken over.
const KUBECTL: &str = "kubectl";
/// Where client-side apply keeps what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Metadata that nobody owns: the server's, and the identity.
pub(super) const UNOWNED: [&str; 10] = [
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Who writes, through what.
#[derive(Clone, Copy, Debug)]
pub struct Manager<'a> {
    pub name: &'a str,
    /// The version that is written through.
    pub api_version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339, with seconds; empty where upstream notes no time.
    pub now: &'a str,
    /// How the versions look that others wrote through.
    pub versions: &'a dyn Versions,
}

/// Another manager owns fields that an apply would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub manager: String,
    pub operation: String,
    pub subresource: String,
    pub api_version: String,
    pub time: String,
    /// As messages show them: `.spec.replicas`.
    pub paths: Vec<String>,
}

impl Conflict {
    /// `conflict with "x" using v1` (upstream's words of one cause).
    pub fn message(&self) -> String {
        let mut text = format!("conflict with {:?}", self.manager);
        if !self.subresource.is_empty() {
            // A String takes every write.
            write!(text, " with subresource {:?}", self.subresource).unwrap_or(());
        }
        if self.operation == "Update" {
            write!(text, " using {}", self.api_version).unwrap_or(());
        }
        text
    }
}

/// Upstream's message of all conflicts of one apply.
pub fn conflict_message(conflicts: &[Conflict]) -> String {
    let count: usize = conflicts.iter().map(|c| c.paths.len()).sum();
    if let ([one], 1) = (conflicts, count) {
        return format!("Apply failed with 1 conflict: {}: {}", one.message(), one.paths[0]);
    }
    let mut lines = vec![format!("Apply failed with {count} conflicts:")];
    for conflict in conflicts {
        lines.push(format!("{}:", conflict.message().replacen("conflict", "conflicts", 1)));
        lines.extend(conflict.paths.iter().map(|p| format!("- {p}")));
    }
    let mut text = lines.remove(0);
    text.push(' ');
    text.push_str(&lines.join("\n"));
    text
}

/// One entry of `managedFields`.
#[derive(Clone, Debug)]
struct Entry {
    manager: String,
    apply: bool,
    api_version: String,
    subresource: String,
    time: String,
    fields: Fields,
    /// As it is stored, while it stays so.
    stored: Option<Value>,
}

/// The fields that an entry owns.
#[derive(Clone, Debug, Default)]
struct Fields {
    /// The set as it was read, while it stays so.
    text: Option<Value>,
    /// Read when it is asked for: most writes have nothing to do with what others own.
    set: OnceCell<Set>,
}

impl From<Set> for Fields {
    fn from(set: Set) -> Self {
        Fields { text: None, set: OnceCell::from(set) }
    }
}

impl Fields {
    /// `None` when they can't be read. Those that `known` says to be well-formed are not looked at yet.
    fn read(fields: Option<&Value>, known: bool) -> Option<Self> {
        match fields {
            None | Some(Value::Null) => Some(Set::new().into()),
            Some(text @ Value::Raw(_)) => {
                let fields = Fields { text: Some(text.clone()), set: OnceCell::new() };
                if !known {
                    let read = Set::from_fields(text).ok()?;
                    // Not read yet: it takes this one.
                    fields.set.get_or_init(|| read);
                }
                Some(fields)
            }
            Some(tree) => Set::from_fields(tree).ok().map(Self::from),
        }
    }

    /// A stored text that can't be read, which no write here leaves, owns nothing: as an entry that can't be.
    fn set(&self) -> &Set {
        self.set.get_or_init(|| self.text.as_ref().and_then(|text| Set::from_fields(text).ok()).unwrap_or_default())
    }

    fn is_empty(&self) -> bool {
        match (self.set.get(), &self.text) {
            (None, Some(Value::Raw(text))) => &**text == "{}",
            _ => self.set().is_empty(),
        }
    }

    /// Whether they can have something in common with a set, or with what is below its members.
    fn may_meet(&self, set: &Set) -> bool {
        match (self.set.get(), &self.text) {
            (None, Some(Value::Raw(text))) => set.may_meet(text),
            _ => true,
        }
    }

    fn write(&self) -> Value {
        self.text.clone().unwrap_or_else(|| self.set().to_fields())
    }
}

impl Entry {
    fn is(&self, manager: &Manager<'_>, apply: bool) -> bool {
        self.apply == apply
            && self.manager == manager.name
            && self.subresource == manager.subresource
            // An applier is one whatever the version; updates are kept apart by it.
            && (apply || self.api_version == manager.api_version)
    }

    fn read(value: &Value, known: bool) -> Option<Entry> {
        let map = value.as_map()?;
        let fields = Fields::read(map.get("fieldsV1"), known)?;
        let (operation, api_version) = (map.str_at(&["operation"]), map.str_at(&["apiVersion"]));
        let known_kind = matches!(operation, "Apply" | "Update") && map.str_at(&["fieldsType"]) == FIELDS_TYPE;
        if !known_kind || api_version.is_empty() {
            return None;
        }
        Some(Entry {
            manager: map.str_at(&["manager"]).to_owned(),
            apply: operation == "Apply",
            api_version: api_version.to_owned(),
            subresource: map.str_at(&["subresource"]).to_owned(),
            time: map.str_at(&["time"]).to_owned(),
            fields,
            stored: known.then(|| value.clone()),
        })
    }

    /// Whether two are one to upstream, of which the later counts.
    fn is_as(&self, other: &Entry) -> bool {
        self.identifier() == other.identifier()
    }

    /// The text that upstream knows an entry by. Those of one second are put in order by it.
    fn identifier(&self) -> Vec<u8> {
        let (operation, api_version) = if self.apply { ("Apply", "") } else { ("Update", self.api_version.as_str()) };
        let parts = [
            ("manager", self.manager.as_str()),
            ("operation", operation),
            ("apiVersion", api_version),
            ("subresource", self.subresource.as_str()),
        ];
        let mut out = Vec::new();
        for (key, value) in parts.into_iter().filter(|(_, value)| !value.is_empty()) {
            out.push(if out.is_empty() { b'{' } else { b',' });
            crate::json::encode_str(key, &mut out);
            out.push(b':');
            crate::json::encode_str(value, &mut out);
        }
        out.push(b'}');
        out
    }

    /// Whether it is what became of the oldest updates of a version.
    fn is_ancient(&self, api_version: &str) -> bool {
        !self.apply && self.manager == ANCIENT && self.subresource.is_empty() && self.api_version == api_version
    }

    fn set(&self) -> &Set {
        self.fields.set()
    }

    fn replace(&mut self, set: Set) {
        self.fields = set.into();
        self.stored = None;
    }

    fn set_time(&mut self, time: String) {
        self.time = time;
        self.stored = None;
    }

    fn write(&self) -> Value {
        if let Some(stored) = &self.stored {
            return stored.clone();
        }
        let mut map = Map::new();
        map.insert("apiVersion", self.api_version.as_str());
        map.insert("fieldsType", FIELDS_TYPE);
        map.insert("fieldsV1", self.fields.write());
        if !self.manager.is_empty() {
            map.insert("manager", self.manager.as_str());
        }
        map.insert("operation", if self.apply { "Apply" } else { "Update" });
        if !self.subresource.is_empty() {
            map.insert("subresource", self.subresource.as_str());
        }
        if !self.time.is_empty() {
            map.insert("time", self.time.as_str());
        }
        Value::Map(map)
    }
}

/// What an object says of who manages it.
fn managers(object: &Map) -> Option<&[Value]> {
    object.at(&["metadata", "managedFields"]).and_then(Value::as_list)
}

/// Everyone who manages an object; `None` when an entry can't be read.
fn read(object: &Map) -> Option<Vec<Entry>> {
    managers(object).unwrap_or_default().iter().map(|entry| Entry::read(entry, false)).collect()
}

/// The managers that a client sends; `None` when one can't be read.
fn read_sent(object: &Map) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for entry in read(object)? {
        entries.retain(|other| !other.is_as(&entry));
        entries.push(entry);
    }
    Some(entries)
}

/// Whether a client gives up on who manages what: it sends one entry that says nothing.
fn given_up(sent: &[Value]) -> bool {
    let nothing = |value: &Value| value.is_null() || value.as_str() == Some("");
    matches!(sent, [Value::Map(one)] if one.iter().all(|(_, value)| nothing(value)))
}

/// Everyone who manages an object that is stored, and was read when it was written.
fn read_stored(object: &Map) -> Option<Vec<Entry>> {
    managers(object).unwrap_or_default().iter().map(|entry| Entry::read(entry, true)).collect()
}

fn write(object: &mut Map, mut entries: Vec<Entry>) {
    entries.retain(|e| !e.fields.is_empty());
    if entries.is_empty() {
        object.remove_at(&["metadata", "managedFields"]);
        return;
    }
    // Appliers first, then by time, then by name: upstream's order.
    entries.sort_by(|a, b| {
        b.apply
            .cmp(&a.apply)
            .then_with(|| a.time.cmp(&b.time))
            .then_with(|| a.manager.cmp(&b.manager))
            .then_with(|| a.api_version.cmp(&b.api_version))
            .then_with(|| a.subresource.cmp(&b.subresource))
    });
    object.set_at(&["metadata", "managedFields"], entries.iter().map(Entry::write).collect::<Vec<_>>());
}

/// An object without what nobody owns.
pub(super) fn owned_part(object: &Map) -> Map {
    let mut part = object.clone();
    part.remove("apiVersion");
    part.remove("kind");
    if let Some(metadata) = part.get_mut("metadata").and_then(Value::as_map_mut) {
        for key in UNOWNED {
            metadata.remove(key);
        }
        if metadata.is_empty() {
            part.remove("metadata");
        }
    }
    part
}

/// Notes what a create or update changed, in the new object's `managedFields`.
///
/// `live` is `None` for a create. An object that has no managers at all is left so until something is applied to it,
/// unless it is being created. What the client sends of them counts when it can be read; otherwise, and through a
/// subresource, the live ones do. `reset` are paths that this endpoint does not write: whatever the object says there,
/// nobody gains or loses them by it.
pub fn track(ty: TypeRef<'_>, live: Option<&Map>, object: &mut Map, manager: &Manager<'_>, reset: &Set) {
    let given = if manager.subresource.is_empty() { managers(object).unwrap_or_default() } else { &[] };
    let stored = live.and_then(managers).unwrap_or_default();
    let mut entries = if given_up(given) {
        Vec::new()
    } else {
        let sent = if given.is_empty() || given == stored { None } else { read_sent(object) };
        sent.or_else(|| live.and_then(read_stored)).unwrap_or_default()
    };
    if live.is_some() && entries.is_empty() {
        object.remove_at(&["metadata", "managedFields"]);
        return;
    }
    let entry = |fields: Fields| Entry {
        manager: manager.name.to_owned(),
        apply: false,
        api_version: manager.api_version.to_owned(),
        subresource: manager.subresource.to_owned(),
        time: manager.now.to_owned(),
        fields,
        stored: None,
    };
    let empty;
    let before = match live {
        Some(live) => live,
        None => {
            empty = zero(ty);
            if entries.is_empty() {
                // Nobody owns anything yet that it would have to be compared with.
                let text = Some(created(ty, &empty, object, &UNOWNED, reset));
                write(object, vec![entry(Fields { text, set: OnceCell::new() })]);
                return;
            }
            &empty
        }
    };
    let change = compare(ty, before, object, &UNOWNED).without(reset);
    if change == Comparison::default() {
        // Who manages what stays as it is, as far as the client let it.
        cap(&mut entries);
        write(object, entries);
        return;
    }
    let mut changes = Changes::new(manager.versions, before, object, reset, change);
    take_from_others(&mut entries, |e| e.is(manager, false), &mut changes);
    let versions::Change { changed, removed } = changes.own;
    if let Some(entry) = entries.iter_mut().find(|e| e.is(manager, false)) {
        let next = entry.set().difference(&removed).union(&changed);
        if next != *entry.set() {
            entry.replace(next);
            entry.set_time(manager.now.to_owned());
        } else if !changed.is_empty() {
            entry.set_time(manager.now.to_owned());
        }
    } else if !changed.is_empty() {
        entries.push(entry(changed.into()));
    }
    cap(&mut entries);
    write(object, entries);
}

/// The empty object of a type, as Go writes it. Those of built-in types are made once.
fn zero(ty: TypeRef<'_>) -> Map {
    static MADE: RwLock<BTreeMap<u32, Map>> = RwLock::new(BTreeMap::new());
    let Some(number) = ty.built_in_number() else { return make_zero(ty) };
    if let Some(map) = MADE.read().unwrap_or_else(PoisonError::into_inner).get(&number) {
        return map.clone();
    }
    let map = make_zero(ty);
    MADE.write().unwrap_or_else(PoisonError::into_inner).insert(number, map.clone());
    map
}

fn make_zero(ty: TypeRef<'_>) -> Map {
    let mut map = Map::new();
    // Nothing can be wrong with an empty object.
    if let Err(e) = normal::normalise(ty, &mut map, None) {
        unreachable!("an empty object is normal: {e}");
    }
    map
}

fn last_applied(object: &Map) -> &str {
    object.str_at(&["metadata", "annotations", LAST_APPLIED])
}

/// What client-side apply set of an object, and is still so.
fn client_side_applied(ty: TypeRef<'_>, live: &Map, api_version: &str) -> Option<Set> {
    let Ok(Value::Map(applied)) = crate::json::parse(last_applied(live).as_bytes()) else { return None };
    if applied.str_at(&["apiVersion"]) != api_version {
        return None;
    }
    let applied = owned_part(&applied);
    let change = compare(ty, &applied, &owned_part(live), &UNOWNED);
    Some(set_of(ty, &applied).difference(&change.changed()).difference(&change.removed))
}

/// A field that a subresource shows in a place of its own: the replicas of a scale.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// Where the field is, in the object and in what is shown.
    pub path: &'a [&'static str],
    /// The version of the object, and of what is shown.
    pub api_version: &'a str,
    pub shown_version: &'a str,
}

impl Window<'_> {
    fn only(&self) -> Set {
        let mut set = Set::new();
        let mut at = &mut set;
        for field in self.path {
            at = at.below(Element::Field((*field).into()));
        }
        at.insert_here();
        set
    }

    /// The managers of an object as the subresource shows them: those who own the field, of that alone.
    pub fn narrow(&self, object: &Map) -> Option<Value> {
        let only = self.only();
        let owners = read(object)?.into_iter().filter(|entry| entry.set().intersects(&only)).map(|entry| {
            let fields = only.clone().into();
            let shown = Entry { api_version: self.shown_version.to_owned(), fields, stored: None, ..entry };
            shown.write()
        });
        let owners: Vec<Value> = owners.collect();
        (!owners.is_empty()).then_some(Value::List(owners))
    }

    /// Brings what became of the shown managers back to the object's: who owns the field no more loses it, who owns it
    /// newly is added. The times stay the object's, which knows none of whoever is new.
    pub fn widen(&self, object: &mut Map, shown: &Map) {
        let only = self.only();
        let (Some(mut entries), Some(shown)) = (read(object), read(shown)) else { return };
        let same =
            |a: &Entry, b: &Entry| a.manager == b.manager && a.apply == b.apply && a.subresource == b.subresource;
        for entry in entries.iter_mut().filter(|entry| entry.set().intersects(&only)) {
            if !shown.iter().any(|other| same(entry, other)) {
                entry.replace(entry.set().difference(&only));
            }
        }
        for other in shown.into_iter().filter(|other| other.set().intersects(&only)) {
            if !entries.iter().any(|entry| same(entry, &other)) {
                entries.push(Entry {
                    api_version: self.api_version.to_owned(),
                    time: String::new(),
                    fields: only.clone().into(),
                    stored: None,
                    ..other
                });
            }
        }
        write(object, entries);
    }
}

fn take_from_others(entries: &mut [Entry], own: impl Fn(&Entry) -> bool, changes: &mut Changes<'_>) {
    for entry in entries.iter_mut().filter(|e| !own(e)) {
        let (versions::Change { changed, removed }, _) = changes.seen_by(&entry.api_version);
        if !entry.fields.may_meet(changed) && !entry.fields.may_meet(removed) {
            continue;
        }
        let set = entry.set();
        if set.intersects(changed) || set.intersects_below(removed) {
            entry.replace(set.difference(changed).recursive_difference(removed));
        }
    }
}

/// Makes one of the oldest updates of a version while there are too many, whatever they came through.
///
/// The first of a version stays as it is until there is a second to be made one with.
fn cap(entries: &mut Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    let mut count = entries.iter().filter(|entry| !entry.apply).count();
    if count <= MAX_UPDATE_MANAGERS {
        return;
    }
    let (rest, mut updates): (Vec<Entry>, Vec<Entry>) = entries.drain(..).partition(|entry| entry.apply);
    updates.sort_by_cached_key(|entry| (entry.time.clone(), entry.identifier()));
    let mut updates: Vec<Option<Entry>> = updates.into_iter().map(Some).collect();
    let mut firsts: Vec<usize> = Vec::new();
    for at in 0..updates.len() {
        if count <= MAX_UPDATE_MANAGERS {
            break;
        }
        let Some(entry) = updates[at].take() else { continue };
        let of = |at: &usize| updates[*at].as_ref().is_some_and(|first| first.api_version == entry.api_version);
        let first = firsts.iter().copied().find(of);
        // Upstream loses those that are one already when they come second; here they wait for the next.
        let (Some(first), false) = (first, entry.is_ancient(&entry.api_version)) else {
            if first.is_none() {
                firsts.push(at);
            }
            updates[at] = Some(entry);
            continue;
        };
        let ancient = |other: &Option<Entry>| other.as_ref().is_some_and(|other| other.is_ancient(&entry.api_version));
        let into = updates.iter().position(ancient).unwrap_or(first);
        if let Some(into) = &mut updates[into] {
            into.replace(into.set().union(entry.set()));
            into.set_time(entry.time);
            into.manager = ANCIENT.to_owned();
            into.subresource.clear();
            count -= 1;
        }
    }
    entries.extend(rest);
    entries.extend(updates.into_iter().flatten());
}

/// Applies a configuration: the object that results, with its managers.
///
/// `live` is `None` when the object is created by it. `reset` are paths that this endpoint does not write
/// (the status of the object itself, the spec through `status`): they are taken out of the configuration's claims.
///
/// # Errors
/// The conflicts with other managers, unless `force`.
pub fn apply(
    ty: TypeRef<'_>,
    live: Option<&Map>,
    config: &Map,
    manager: &Manager<'_>,
    force: bool,
    reset: &Set,
) -> Result<Map, Vec<Conflict>> {
    let mut entries = live.and_then(read).unwrap_or_default();
    let empty = Map::new();
    let live_object = live.unwrap_or(&empty);
    if let Some(live) = live.filter(|_| entries.is_empty()) {
        // Upstream takes it for an update that made all of it, through this endpoint.
        let text = Some(created(ty, &zero(ty), live, &UNOWNED, reset));
        entries.push(Entry {
            manager: BEFORE_FIRST_APPLY.to_owned(),
            apply: false,
            api_version: manager.api_version.to_owned(),
            subresource: manager.subresource.to_owned(),
            time: manager.now.to_owned(),
            fields: Fields { text, set: OnceCell::new() },
            stored: None,
        });
    }
    let mut config = config.clone();
    config.remove_at(&["metadata", "managedFields"]);
    let own_part = owned_part(&config);
    let claimed = set_of(ty, &own_part).recursive_difference(reset);
    let last = entries.iter().position(|e| e.is(manager, true)).map(|at| entries.remove(at));

    let mut object = merge::merged(ty, live_object, &config);
    if let Some(last) = &last {
        let others = entries.iter().map(|e| (e.api_version.as_str(), e.set()));
        let owned = others.chain([(manager.api_version, &claimed)]);
        versions::prune(manager.versions, ty, &mut object, (&last.api_version, last.set()), owned);
    }
    let change = compare(ty, live_object, &object, &UNOWNED).without(reset);
    let merged = object.clone();
    let mut changes = Changes::new(manager.versions, live_object, &merged, reset, change);
    // What kubectl set with client-side apply, it may set with server-side apply too.
    let upgraded = if manager.name == KUBECTL && !force {
        live.and_then(|live| client_side_applied(ty, live, manager.api_version)).unwrap_or_default()
    } else {
        Set::new()
    };
    let mut conflicts = Vec::new();
    for entry in &entries {
        let (change, here) = changes.seen_by(&entry.api_version);
        let mut disputed = entry.set().intersection(&change.changed);
        if here {
            disputed = disputed.difference(&upgraded);
        }
        if !disputed.is_empty() {
            conflicts.push(Conflict {
                manager: entry.manager.clone(),
                operation: if entry.apply { "Apply" } else { "Update" }.to_owned(),
                subresource: entry.subresource.clone(),
                api_version: entry.api_version.clone(),
                time: entry.time.clone(),
                paths: disputed.paths(),
            });
        }
    }
    if !conflicts.is_empty() && !force {
        conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
        return Err(conflicts);
    }
    if manager.name == KUBECTL && live.is_some_and(|live| !last_applied(live).is_empty()) {
        let mut plain = config.clone();
        plain.remove_at(&["metadata", "annotations", LAST_APPLIED]);
        let text = format!("{}\n", crate::json::to_string(&plain));
        object.set_at(&["metadata", "annotations", LAST_APPLIED], text);
    }
    take_from_others(&mut entries, |_| false, &mut changes);
    let unchanged = last.as_ref().is_some_and(|last| *last.set() == claimed) && Some(&object) == live;
    entries.push(Entry {
        manager: manager.name.to_owned(),
        apply: true,
        api_version: manager.api_version.to_owned(),
        subresource: manager.subresource.to_owned(),
        time: if unchanged { last.map(|last| last.time).unwrap_or_default() } else { manager.now.to_owned() },
        fields: claimed.into(),
        stored: None,
    });
    write(&mut object, entries);
    Ok(object)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
