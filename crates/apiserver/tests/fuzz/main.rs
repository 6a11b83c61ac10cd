//! The targets of `fuzz/`, with as many bytes as a test run has time for: random ones, and mutations of what is well-formed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod targets;

use proptest::prelude::*;
use targets::TARGETS;

/// Well-formed inputs, of pods or of no kind.
const SEEDS: &[(bool, &str)] = &[
    (
        true,
        "{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"a\",\"labels\":{\"a\":\"b\"}},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\",\"ports\":[{\"containerPort\":80}]}]}}",
    ),
    (true, "kind: ConfigMap\nmetadata: &m {name: a}\ndata: {k: |-\n  text\n, l: *m, 1: 0x10}\n---\n- <<: *m\n"),
    (
        true,
        "{\"spec\":{\"containers\":[{\"name\":\"c\"}]},\"metadata\":{\"finalizers\":[\"a\",\"b\"]}}\n{\"spec\":{\"containers\":[{\"name\":\"c\",\"$patch\":\"delete\"},{\"name\":\"d\"}],\"$setElementOrder/containers\":[{\"name\":\"d\"}]},\"metadata\":{\"$deleteFromPrimitiveList/finalizers\":[\"a\"]}}",
    ),
    (
        true,
        "{\"a\":[1,2,{\"b\":null}],\"c\":{}}\n[{\"op\":\"copy\",\"from\":\"/a\",\"path\":\"/c/d\"},{\"op\":\"move\",\"from\":\"/a/0\",\"path\":\"/a/-\"},{\"op\":\"test\",\"path\":\"/c\",\"value\":{}}]",
    ),
    (
        false,
        "{\"f:metadata\":{\"f:labels\":{\".\":{},\"f:a\":{}}},\"f:spec\":{\"f:containers\":{\"k:{\\\"name\\\":\\\"c\\\"}\":{\"v:1\":{},\"i:0\":{}}}}}",
    ),
    (false, "a in (b,c),!d,e!=f,g notin (h),x>1,y<2,z==1"),
    (false, "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MTIsInN0YXJ0IjoiZGVmYXVsdC9hXHUwMDAwIn0"),
    (
        false,
        "/apis/apps/v1/namespaces/a/deployments/b/scale?limit=1&continue=x&resourceVersion=0&resourceVersionMatch=Exact&dryRun=All&fieldManager=%41&force=true",
    ),
];

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), 0_usize..6, any::<u8>(), "[\\[\\]{}\",:0-9a-z$/~*&|\\n -]{0,6}");
    (prop::sample::select(SEEDS), prop::collection::vec(change, 0..12)).prop_map(|((pod, seed), changes)| {
        let pods = schema::resource::all().iter().position(|row| row.kind == "Pod").unwrap();
        let mut bytes: Vec<u8> = pod.then_some(u8::try_from(pods).unwrap()).into_iter().chain(seed.bytes()).collect();
        for (at, length, byte, text) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            let end = (at + length).min(bytes.len());
            match byte % 4 {
                0 => {
                    bytes.drain(at..end);
                }
                1 => bytes[at] = byte,
                2 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => {
                    bytes.splice(at..end, text.bytes());
                }
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_bytes_do_harm(bytes in prop_oneof![4 => mutated(), 1 => prop::collection::vec(any::<u8>(), 0..200)]) {
        for (_, target) in TARGETS {
            target(&bytes);
        }
    }
}

/// What cargo-fuzz runs is what is run here.
#[test]
fn every_target_has_a_fuzzer() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = std::fs::read_to_string(directory.join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml has no target {name}");
        let source = std::fs::read_to_string(directory.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("targets::{name}(bytes)")), "{source}");
    }
}
