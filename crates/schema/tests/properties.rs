//! What holds for objects of every kind, and for any bytes.

mod support;

use proptest::prelude::*;
use schema::{Kind, Map, TypeRef, Value, defaults, json, normal, protobuf, semantic, types, yaml};
use support::{Generator, kind, kinds};

/// A made-up object in normal form.
fn object(n: usize, seed: u64) -> (&'static schema::Resource, Map) {
    let resource = kind(n);
    let ty = resource.schema.root();
    let made = Generator::new(seed, 400).object(ty, &resource.api_version(), &resource.kind);
    let decoded = normal::typed(ty, made.into()).unwrap();
    assert_eq!(decoded.problems, []);
    (resource, decoded.object)
}

/// How many entries an object has, those of its parts included.
fn count(map: &Map) -> usize {
    map.iter().map(|(_, value)| 1 + count_in(value)).sum()
}

fn count_in(value: &Value) -> usize {
    match value {
        Value::Map(map) => count(map),
        Value::List(items) => items.iter().map(count_in).sum(),
        _ => 0,
    }
}

/// Does something to the entry of this number that may or may not leave it in normal form.
fn damage_one(map: &mut Map, at: &mut usize, how: usize) {
    let keys: Vec<String> = map.iter().map(|(key, _)| key.to_owned()).collect();
    for key in keys {
        if *at == 0 {
            match how {
                0 => drop(map.remove(&key)),
                1 => drop(map.insert(format!("{key}x"), "unknown")),
                _ => drop(map.insert(key, replacement(how))),
            }
            *at = usize::MAX;
            return;
        }
        *at -= 1;
        if let Some(value) = map.get_mut(&key) {
            damage_in(value, at, how);
        }
        if *at == usize::MAX {
            return;
        }
    }
}

fn damage_in(value: &mut Value, at: &mut usize, how: usize) {
    match value {
        Value::Map(map) => damage_one(map, at, how),
        Value::List(items) => {
            for item in items {
                if *at != usize::MAX {
                    damage_in(item, at, how);
                }
            }
        }
        _ => {}
    }
}

fn replacement(how: usize) -> Value {
    match how {
        2 => Value::Null,
        3 => "".into(),
        4 => 0i64.into(),
        5 => false.into(),
        6 => Map::new().into(),
        7 => Vec::new().into(),
        8 => (1i64 << 40).into(),
        9 => "1000m".into(),
        10 => vec![Value::Null].into(),
        _ => "text".into(),
    }
}

/// Does something to every quantity of an object.
fn each_quantity(ty: TypeRef<'_>, value: &mut Value, change: &mut impl FnMut(&mut Value)) {
    match (ty.kind(), value) {
        (Kind::Quantity, Value::Null) => {}
        (Kind::Quantity, value) => change(value),
        (Kind::List(of), Value::List(items)) => items.iter_mut().for_each(|item| each_quantity(of, item, change)),
        (Kind::Map(of), Value::Map(map)) => map.iter_mut().for_each(|(_, value)| each_quantity(of, value, change)),
        (Kind::Struct(s), Value::Map(map)) => {
            for (key, value) in map.iter_mut() {
                if let Some(field) = s.field(key) {
                    each_quantity(field.ty(), value, change);
                }
            }
        }
        _ => {}
    }
}

/// The billionths of a quantity, which are one text for one value.
fn billionths(value: &Value) -> String {
    let text = value.as_str().expect("a text");
    format!("{}n", api::Quantity::parse(text).expect("a quantity").nanos())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn objects_are_the_same_when_all_is_but_how_quantities_are_written(
        n in any::<usize>(), seed in any::<u64>(), choices in any::<u64>(),
    ) {
        let (resource, one) = object(n, seed);
        let ty = resource.schema.root();
        prop_assert!(semantic::same(ty, &one, &one));
        let (mut other, mut choices) = (Value::Map(one.clone()), choices | 1);
        each_quantity(ty, &mut other, &mut |value| {
            choices = choices.rotate_left(7).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            match choices >> 60 {
                0 => *value = "7777".into(),
                1..=8 => *value = billionths(value).as_str().into(),
                _ => {}
            }
        });
        let Value::Map(other) = other else { unreachable!("it was an object") };
        let canonical = |map: &Map| {
            let mut value = Value::Map(map.clone());
            each_quantity(ty, &mut value, &mut |value| *value = billionths(value).as_str().into());
            value
        };
        let expected = canonical(&one) == canonical(&other);
        prop_assert_eq!(semantic::same(ty, &one, &other), expected);
        prop_assert_eq!(semantic::same(ty, &other, &one), expected);
        // What is left of the difference is no matter of how something is written.
        let reworded = semantic::reworded(ty, &one, &other);
        prop_assert_eq!(canonical(&reworded), canonical(&one));
        prop_assert_eq!(*reworded == other, expected);
    }

    #[test]
    fn json_comes_back_as_it_went(n in 0usize..1000, seed: u64) {
        let (resource, object) = object(n, seed);
        let text = json::to_string(&object);
        let again = json::decode(resource.schema.root(), text.as_bytes()).unwrap();
        prop_assert_eq!(&again.problems, &[]);
        prop_assert_eq!(&json::to_string(&again.object), &text);
        prop_assert_eq!(again.object, object);
    }

    #[test]
    fn json_is_yaml(n in 0usize..1000, seed: u64) {
        let (resource, object) = object(n, seed);
        let text = json::to_string(&object);
        let again = yaml::decode(resource.schema.root(), text.as_bytes()).unwrap();
        prop_assert_eq!(json::to_string(&again.object), text);
    }

    #[test]
    fn no_text_makes_the_yaml_decoder_panic(text in "[-a-z0-9:&*<|>\\[\\]{},'\"!%#? \n]{0,60}") {
        let _ = yaml::parse_all(text.as_bytes());
    }

    #[test]
    fn normal_form_is_final(n in 0usize..1000, seed: u64) {
        let (resource, object) = object(n, seed);
        let mut again = object.clone();
        normal::normalise(resource.schema.root(), &mut again, None).unwrap();
        prop_assert_eq!(again, object);
    }

    /// What is mended where it is comes out as what is made anew, and nothing of the object that it was made from is changed.
    #[test]
    fn trees_become_what_their_text_does(n in 0usize..1000, seed: u64, at: prop::sample::Index, damage in 0usize..12) {
        let (resource, from) = object(n, seed);
        let ty = resource.schema.root();
        let before = json::to_string(&from);
        let mut object = from.clone();
        let places = count(&object);
        damage_one(&mut object, &mut at.index(places.max(1)), damage);
        let text = json::to_string(&object);
        let mended = normal::changed(ty, object.into(), Some(&from));
        prop_assert_eq!(json::to_string(&from), before);
        match (mended, json::decode(ty, text.as_bytes())) {
            (Ok(mended), Ok(made)) => {
                prop_assert_eq!(mended.problems, made.problems);
                prop_assert_eq!(mended.object, made.object);
            }
            (Err(mended), Err(made)) => prop_assert_eq!(mended.to_string(), made.to_string()),
            (mended, made) => prop_assert!(false, "{:?} instead of {:?}", mended, made),
        }
    }

    /// What shares parts with an object that has its defaults gets the same defaults as what shares nothing.
    #[test]
    fn defaults_of_what_changed_are_all_there_are(n in 0usize..1000, seed: u64, at: prop::sample::Index, damage in 0usize..12) {
        let (resource, mut from) = object(n, seed);
        let ty = resource.schema.root();
        defaults::apply(ty, &mut from);
        let mut object = from.clone();
        let places = count(&object);
        damage_one(&mut object, &mut at.index(places.max(1)), damage);
        let text = json::to_string(&object);
        let shared = normal::changed(ty, object.into(), Some(&from));
        if let (Ok(shared), Ok(alone)) = (shared, json::decode(ty, text.as_bytes())) {
            let (mut shared, mut alone) = (shared.object, alone.object);
            defaults::changed(ty, &mut shared, Some(&from));
            defaults::apply(ty, &mut alone);
            prop_assert_eq!(shared, alone);
        }
    }

    #[test]
    fn protobuf_loses_nothing(n in 0usize..1000, seed: u64) {
        let (resource, object) = object(n, seed);
        let ty = resource.schema.root();
        let mut bytes = Vec::new();
        protobuf::encode(ty, &object, &mut bytes).unwrap();
        prop_assert_eq!(protobuf::type_meta(&bytes).unwrap(), (resource.api_version(), resource.kind.to_string()));
        let again = protobuf::decode(ty, &bytes).unwrap();
        prop_assert_eq!(json::to_string(&again.object), json::to_string(&object));
        let mut same = Vec::new();
        protobuf::encode(ty, &again.object, &mut same).unwrap();
        prop_assert_eq!(same, bytes);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(n in 0usize..1000, bytes: Vec<u8>) {
        let ty = kind(n).schema.root();
        let _ = json::decode(ty, &bytes);
        let _ = json::parse(&bytes);
        let _ = yaml::decode(ty, &bytes);
        let _ = yaml::parse_all(&bytes);
        let _ = protobuf::decode(ty, &bytes);
        let enveloped = [&b"k8s\0\x12\xff\x01"[..], &bytes].concat();
        let _ = protobuf::decode(ty, &enveloped);
        let mut raw = Vec::new();
        protobuf::envelope("v1", "X", &bytes, &mut raw);
        let _ = protobuf::decode(ty, &raw);
    }

    #[test]
    fn damaged_objects_make_no_decoder_panic(n in 0usize..1000, seed: u64, at: prop::sample::Index, byte: u8) {
        let (resource, object) = object(n, seed);
        let ty = resource.schema.root();
        let mut text = json::to_string(&object).into_bytes();
        let place = at.index(text.len());
        text[place] = byte;
        let _ = json::decode(ty, &text);
        let _ = yaml::decode(ty, &text);
        text.truncate(place);
        prop_assert!(json::decode(ty, &text).is_err());
        let mut bytes = Vec::new();
        protobuf::encode(ty, &object, &mut bytes).unwrap();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        if let Ok(decoded) = protobuf::decode(ty, &bytes) {
            let _ = protobuf::encode(ty, &decoded.object, &mut Vec::new());
        }
    }
}

#[test]
fn every_kind_goes_through_every_codec() {
    for n in 0..kinds().count() {
        for seed in 1..20 {
            let (resource, object) = object(n, seed);
            let ty = types::of_kind(&resource.group, &resource.version, &resource.kind).unwrap();
            let mut bytes = Vec::new();
            protobuf::encode(ty, &object, &mut bytes).unwrap();
            let again = protobuf::decode(ty, &bytes).unwrap().object;
            assert_eq!(json::to_string(&again), json::to_string(&object), "{} {seed}", resource.plural);
        }
    }
}
