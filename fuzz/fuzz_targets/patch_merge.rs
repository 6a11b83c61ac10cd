#![no_main]

#[path = "../../crates/apiserver/tests/fuzz/targets.rs"]
#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::patch_merge(bytes));
