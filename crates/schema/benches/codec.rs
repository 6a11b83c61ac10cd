//! How fast a pod of 3.4 KiB is decoded and encoded, and how much it allocates, beside `serde_json::Value`.

#![allow(clippy::print_stdout, reason = "a benchmark reports on standard output")]

use schema::{Encoded, json, normal, protobuf, types, yaml};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator; counting has no effect on memory.
#[allow(unsafe_code, reason = "allocations can only be counted by an allocator")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer comes from `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn measure(name: &str, size: usize, mut work: impl FnMut()) {
    for _ in 0..100 {
        work();
    }
    let (count, bytes) = (COUNT.load(Relaxed), BYTES.load(Relaxed));
    work();
    let (count, bytes) = (COUNT.load(Relaxed) - count, BYTES.load(Relaxed) - bytes);
    let (start, mut runs) = (Instant::now(), 0u32);
    while start.elapsed() < Duration::from_millis(500) {
        for _ in 0..100 {
            work();
        }
        runs += 100;
    }
    let each = start.elapsed().as_secs_f64() / f64::from(runs);
    println!(
        "{name:<34} {:>8.2} µs {:>8.0} MB/s {count:>6} allocations {bytes:>8} bytes",
        each * 1e6,
        size as f64 / each / 1e6
    );
}

fn main() {
    let text = include_str!("pod.json");
    let compact = serde_json::from_str::<serde_json::Value>(text).expect("the sample is JSON").to_string();
    let text = compact.as_bytes();
    let size = text.len();
    let ty = types::of_kind("", "v1", "Pod").expect("pods are built in");
    let object = json::decode(ty, text).expect("the sample is a pod").object;
    let value: serde_json::Value = serde_json::from_slice(text).expect("the sample is JSON");
    let mut message = Vec::new();
    protobuf::encode(ty, &object, &mut message).expect("a decoded pod can be encoded");
    println!("a pod of {size} bytes, {} in protobuf", message.len());
    measure("decode, checked and normalised", size, || {
        black_box(json::decode(ty, black_box(text)).expect("decodes"));
    });
    measure("parse, untyped", size, || {
        black_box(json::parse(black_box(text)).expect("parses"));
    });
    measure("serde_json::Value: parse", size, || {
        black_box(serde_json::from_slice::<serde_json::Value>(black_box(text)).expect("parses"));
    });
    measure("encode", size, || {
        let mut out = Vec::with_capacity(4096);
        json::encode(black_box(&object), &mut out);
        black_box(out);
    });
    measure("encode once, with revision", size, || {
        black_box(Encoded::new(black_box(&object)).item(123_456));
    });
    measure("serde_json::Value: encode", size, || {
        black_box(serde_json::to_vec(black_box(&value)).expect("encodes"));
    });
    measure("clone", size, || {
        black_box(black_box(&object).clone());
    });
    measure("normalise in place", size, || {
        let mut object = black_box(&object).clone();
        normal::normalise(ty, &mut object, None).expect("is normal");
        black_box(object);
    });
    measure("decode protobuf", message.len(), || {
        black_box(protobuf::decode(ty, black_box(&message)).expect("decodes"));
    });
    measure("encode protobuf", message.len(), || {
        let mut out = Vec::new();
        protobuf::encode(ty, black_box(&object), &mut out).expect("encodes");
        black_box(out);
    });
    measure("decode as YAML", size, || {
        black_box(yaml::decode(ty, black_box(text)).expect("decodes"));
    });
}
