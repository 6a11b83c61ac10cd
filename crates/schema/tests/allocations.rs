//! What the rules of pods cost that say nothing. There is one test, so that nothing else allocates beside it.

use schema::{defaults, json, resource, validation};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator; counting has no effect on memory.
#[allow(unsafe_code, reason = "allocations can only be counted by an allocator")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
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

/// The allocations of warnings of a pod of so many containers, each with variables and a port.
fn of_warnings(containers: usize) -> u64 {
    let one = |i: usize| {
        format!(
            r#"{{"name":"c{i}","image":"i","env":[{{"name":"A","value":"1"}},{{"name":"B","value":"2"}}],"ports":[{{"name":"p{i}","containerPort":{}}}]}}"#,
            i + 1
        )
    };
    let containers: Vec<String> = (0..containers).map(one).collect();
    let text = format!(
        r#"{{"metadata":{{"name":"p","namespace":"n","annotations":{{"a":"b"}}}},"spec":{{"containers":[{}],"volumes":[{{"name":"kube-api-access","projected":{{"sources":[{{"serviceAccountToken":{{"path":"token"}}}},{{"configMap":{{"name":"c","items":[{{"key":"ca.crt","path":"ca.crt"}}]}}}},{{"downwardAPI":{{"items":[{{"path":"namespace","fieldRef":{{"fieldPath":"metadata.namespace"}}}}]}}}}]}}}}]}}}}"#,
        containers.join(",")
    );
    let row = resource::of_kind("", "v1", "Pod").expect("pods are served");
    let mut object = json::decode(row.schema.root(), text.as_bytes()).expect("a pod").object;
    defaults::apply(row.schema.root(), &mut object);
    let features = validation::Features::default();
    let before = COUNT.load(Relaxed);
    let warnings = validation::warnings("", "Pod", "", &object, None, features);
    let count = COUNT.load(Relaxed) - before;
    assert!(warnings.is_empty(), "{warnings:?}");
    count
}

/// A new pod of which nothing is to be told costs a few sets for the whole of it, and nothing for each of its containers,
/// variables and ports.
#[test]
fn a_plain_pod_is_warned_of_for_nothing() {
    let (one, many) = (of_warnings(1), of_warnings(8));
    assert_eq!(many, one);
    assert!(one <= 6, "{one} allocations");
}
