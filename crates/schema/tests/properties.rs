//! What holds for objects of every kind, and for any bytes.

mod support;

use proptest::prelude::*;
use schema::{Map, json, normal, protobuf, resource, types, yaml};
use support::Generator;

fn kind(n: usize) -> &'static schema::Resource {
    &resource::all()[n % resource::all().len()]
}

/// A made-up object in normal form.
fn object(n: usize, seed: u64) -> (&'static schema::Resource, Map) {
    let resource = kind(n);
    let ty = resource.schema.root();
    let made = Generator::new(seed, 400).object(ty, &resource.api_version(), &resource.kind);
    let decoded = normal::typed(ty, made.into()).unwrap();
    assert_eq!(decoded.problems, []);
    (resource, decoded.object)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

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
        normal::normalise(resource.schema.root(), &mut again).unwrap();
        prop_assert_eq!(again, object);
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
    for n in 0..resource::all().len() {
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
