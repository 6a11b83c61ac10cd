//! What any bytes are thrown at: every decoder, the patches, apply, selectors, tokens, queries. A target must neither panic
//! nor hang, and what it takes must be what it gives again. `fuzz/` runs these under cargo-fuzz, `main.rs` with fewer bytes.

use api::selector::{FieldSelector, LabelSelector};
use apiserver::options::{ListOptions, Options, OptionsKind};
use apiserver::registry::token::Token;
use apiserver::request::RequestInfo;
use schema::apply::{Manager, OneShape, Set};
use schema::{Map, Resource, Value, json, normal, patch, protobuf, resource, yaml};

pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("decode_json", decode_json),
    ("decode_yaml", decode_yaml),
    ("decode_protobuf", decode_protobuf),
    ("patch_json", patch_json),
    ("patch_merge", patch_merge),
    ("patch_strategic", patch_strategic),
    ("apply", apply),
    ("owned_fields", owned_fields),
    ("selectors", selectors),
    ("continue_token", continue_token),
    ("queries", queries),
];

/// The first byte picks a kind, the rest is the input.
fn of_kind(bytes: &[u8]) -> Option<(&'static Resource, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let all = resource::all();
    Some((&all[usize::from(*first) % all.len()], rest))
}

/// What was decoded is written and read again as it is.
fn settled(row: &Resource, object: &Map) {
    let mut text = Vec::new();
    json::encode(object, &mut text);
    let again = json::decode(row.schema.root(), &text).expect("what was written is read");
    assert_eq!(&again.object, object);
    assert!(again.problems.is_empty());
}

pub fn decode_json(bytes: &[u8]) {
    let Some((row, input)) = of_kind(bytes) else { return };
    if let Ok(decoded) = json::decode(row.schema.root(), input) {
        settled(row, &decoded.object);
    }
    if let Ok(value) = json::parse(input) {
        let mut text = Vec::new();
        json::encode_value(&value, &mut text);
        assert_eq!(json::parse(&text).expect("what was written is read"), value);
    }
}

pub fn decode_yaml(bytes: &[u8]) {
    let Some((row, input)) = of_kind(bytes) else { return };
    if let Ok(decoded) = yaml::decode(row.schema.root(), input) {
        settled(row, &decoded.object);
    }
    // Only that it ends, and without a panic.
    let _ = yaml::parse_all(input);
}

pub fn decode_protobuf(bytes: &[u8]) {
    let Some((row, input)) = of_kind(bytes) else { return };
    let ty = row.schema.root();
    let mut enveloped = Vec::new();
    protobuf::envelope(&row.api_version(), &row.kind, input, &mut enveloped);
    for message in [input, &enveloped] {
        let Ok(decoded) = protobuf::decode(ty, message) else { continue };
        let mut written = Vec::new();
        if protobuf::encode(ty, &decoded.object, &mut written).is_ok() {
            assert_eq!(protobuf::decode(ty, &written).expect("what was written is read").object, decoded.object);
        }
    }
    let _ = protobuf::type_meta(input);
}

/// A document and a patch, divided by the first newline.
fn pair(bytes: &[u8]) -> Option<(&'static Resource, Value, Value)> {
    let (row, input) = of_kind(bytes)?;
    let at = input.iter().position(|byte| *byte == b'\n')?;
    Some((row, json::parse(&input[..at]).ok()?, json::parse(&input[at + 1..]).ok()?))
}

fn checked(row: &Resource, patched: Value) {
    if let Ok(decoded) = normal::typed(row.schema.root(), patched) {
        settled(row, &decoded.object);
    }
}

pub fn patch_json(bytes: &[u8]) {
    let Some((row, mut target, patch)) = pair(bytes) else { return };
    let before = target.clone();
    match patch::json::apply(&mut target, patch) {
        Ok(()) => checked(row, target),
        Err(_) => assert_eq!(target, before, "a patch that is refused changes nothing"),
    }
}

pub fn patch_merge(bytes: &[u8]) {
    let Some((row, mut target, patch)) = pair(bytes) else { return };
    patch::merge::apply(&mut target, patch.clone());
    let once = target.clone();
    patch::merge::apply(&mut target, patch);
    assert_eq!(target, once, "merging again changes nothing");
    checked(row, target);
}

pub fn patch_strategic(bytes: &[u8]) {
    let Some((row, Value::Map(mut target), Value::Map(patch))) = pair(bytes) else { return };
    if patch::strategic::apply(row.schema.root(), &mut target, patch).is_ok() {
        checked(row, Value::Map(target));
    }
}

pub fn apply(bytes: &[u8]) {
    let Some((row, live, config)) = pair(bytes) else { return };
    let ty = row.schema.root();
    let (Ok(live), Ok(config)) = (normal::typed(ty, live), normal::typed(ty, config)) else { return };
    let (live, config) = (live.object, config.object);
    let api_version = row.api_version();
    let manager = Manager {
        name: "m",
        api_version: &api_version,
        subresource: "",
        now: "2024-01-01T00:00:00Z",
        versions: &OneShape,
    };
    let none = Set::new();
    // Refusals are only for conflicts, of which force knows none.
    let once = schema::apply::apply(ty, Some(&live), &config, &manager, true, &none).expect("forced");
    let again = schema::apply::apply(ty, Some(&once), &config, &manager, true, &none).expect("forced");
    assert_eq!(again, once, "applying again changes nothing");
    let mut updated = live.clone();
    schema::apply::track(ty, Some(&once), &mut updated, &manager, &none);
}

pub fn owned_fields(bytes: &[u8]) {
    let Ok(fields) = json::parse(bytes) else { return };
    if let Ok(set) = Set::from_fields(&fields) {
        assert_eq!(Set::from_fields(&set.to_fields()).expect("what was written is read"), set);
    }
}

pub fn selectors(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        let again = LabelSelector::parse(&selector.to_string()).expect("what was written is read");
        assert_eq!(again.to_string(), selector.to_string());
    }
    // Only that it ends, and without a panic.
    let _ = FieldSelector::parse(text);
}

pub fn continue_token(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(token) = Token::decode(&text) {
        assert_eq!(Token::decode(&token.encode()).expect("our own"), token);
    }
}

pub fn queries(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (path, query) = text.split_once('?').unwrap_or(("/api/v1/pods", &text));
    for method in ["GET", "POST", "PATCH", "DELETE", ""] {
        // Refusals are fine; panics are not.
        let _ = RequestInfo::parse(method, path, query);
    }
    for watch in [true, false] {
        let _ = ListOptions::of_query(query, watch);
    }
    for kind in [OptionsKind::Create, OptionsKind::Update, OptionsKind::Patch, OptionsKind::Apply, OptionsKind::Delete]
    {
        let _ = Options::of_query(query, kind);
    }
}
