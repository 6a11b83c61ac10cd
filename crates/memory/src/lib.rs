//! Small blocks of memory that a thread has freed are kept by it for its next ones.
//!
//! A write decodes an object into hundreds of small blocks and frees them together a moment later. The system's allocator does that
//! well for as many blocks of a size as each thread has a place for without a lock: glibc's has seven. Here a thread that serves
//! requests keeps as much as [`KEPT`] of each size; what is beyond, what is larger than [`LARGEST`], and all memory of other threads
//! is the system's. Measured: a tenth of the instructions of a write, for a megabyte at most of each thread of a runtime that serves
//! (those for blocking work, too, which end when there is none).
#![allow(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; blocks that are kept are linked through themselves"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

#[global_allocator]
static GLOBAL: Keeping = Keeping;

/// Blocks of up to so many bytes are kept.
const LARGEST: usize = 1024;
/// Sizes are rounded up to this, by which everything that the system's allocator gives is aligned.
const STEP: usize = 16;
/// The bytes of a size that a thread keeps at most.
const KEPT: usize = 16 << 10;

struct Keeping;

/// A block that is kept: its first bytes say where the next one is.
struct Block {
    next: *mut Block,
}

/// The blocks of one size that a thread keeps.
struct Class {
    first: Cell<*mut Block>,
    bytes: Cell<usize>,
}

struct Thread {
    keeps: Cell<bool>,
    classes: [Class; LARGEST / STEP],
}

thread_local! {
    // Nothing here needs to be dropped, so that memory can be asked for as long as the thread runs.
    static THREAD: Thread =
        const { Thread { keeps: Cell::new(false), classes: [const { Class::empty() }; LARGEST / STEP] } };
}

/// From now on the calling thread keeps what it frees, until it calls [`give_back`].
pub fn keep() {
    THREAD.with(|thread| thread.keeps.set(true));
}

/// The calling thread keeps nothing any more. To be called before it ends, as nobody else can.
pub fn give_back() {
    THREAD.with(|thread| {
        thread.keeps.set(false);
        for (number, class) in thread.classes.iter().enumerate() {
            while let Some(block) = class.take(size_of(number)) {
                // SAFETY: a block of this class came from the system, with this layout, and is in use nowhere.
                unsafe { System.dealloc(block, layout_of(number)) };
            }
        }
    });
}

/// The class of a layout, if its blocks are kept.
fn class_of(layout: Layout) -> Option<usize> {
    (layout.size() <= LARGEST && layout.align() <= STEP && layout.size() > 0).then(|| (layout.size() - 1) / STEP)
}

const fn size_of(class: usize) -> usize {
    (class + 1) * STEP
}

/// What the system is asked for in place of any layout of a class.
const fn layout_of(class: usize) -> Layout {
    match Layout::from_size_align(size_of(class), STEP) {
        Ok(layout) => layout,
        Err(_) => panic!("a small size and a power of two"),
    }
}

impl Class {
    const fn empty() -> Self {
        Class { first: Cell::new(ptr::null_mut()), bytes: Cell::new(0) }
    }

    fn take(&self, size: usize) -> Option<*mut u8> {
        let first = self.first.get();
        if first.is_null() {
            return None;
        }
        // SAFETY: a block that is kept was written by `put`, and is nobody else's.
        self.first.set(unsafe { (*first).next });
        self.bytes.set(self.bytes.get() - size);
        Some(first.cast())
    }

    /// Keeps a block; `false` when there are enough.
    ///
    /// # Safety
    /// The block has `size` bytes, is aligned to [`STEP`], and is the caller's to give.
    unsafe fn put(&self, block: *mut u8, size: usize) -> bool {
        let bytes = self.bytes.get() + size;
        if bytes > KEPT {
            return false;
        }
        let block = block.cast::<Block>();
        // SAFETY: it is large enough and aligned for a pointer, and the caller's.
        unsafe { block.write(Block { next: self.first.get() }) };
        self.first.set(block);
        self.bytes.set(bytes);
        true
    }
}

// SAFETY: every block of a class is given by the system with the layout of the class, which is at least the one asked for, and goes
// back to it with the same; between that it has one owner at a time: who asked for it, or one list of one thread. All else is the
// system's.
unsafe impl GlobalAlloc for Keeping {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(layout) else {
            // SAFETY: the caller's promises are those that are asked for.
            return unsafe { System.alloc(layout) };
        };
        match THREAD.with(|thread| thread.classes[class].take(size_of(class))) {
            Some(block) => block,
            // SAFETY: the layout of a class is not empty.
            None => unsafe { System.alloc(layout_of(class)) },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(class) = class_of(layout) else {
            // SAFETY: it was given by the system for this layout.
            return unsafe { System.dealloc(block, layout) };
        };
        // SAFETY: the block was given for a layout of this class, so it has its size; the caller gives it back.
        let kept =
            THREAD.with(|thread| thread.keeps.get() && unsafe { thread.classes[class].put(block, size_of(class)) });
        if !kept {
            // SAFETY: the system gave it for the layout of its class.
            unsafe { System.dealloc(block, layout_of(class)) };
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if class_of(layout).is_none() {
            // SAFETY: the caller's promises are those that are asked for.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the same layout; and the block, if there is one, has as many bytes.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size, rounded up to the alignment, is no overflow.
        let other = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class_of(layout), class_of(other)) {
            (Some(one), Some(other)) if one == other => block,
            // SAFETY: it was given by the system for this layout, and neither is of a class.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            _ => {
                // SAFETY: the new block is another one, and both have as many bytes as are copied.
                unsafe {
                    let moved = self.alloc(other);
                    if !moved.is_null() {
                        ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A thread of its own, as what is kept is the thread's.
    fn alone(work: impl FnOnce() + Send + 'static) {
        std::thread::spawn(work).join().expect("no panic");
    }

    fn kept() -> usize {
        THREAD.with(|thread| thread.classes.iter().map(|class| class.bytes.get()).sum())
    }

    #[test]
    fn a_thread_keeps_what_it_is_told_to_and_no_more() {
        alone(|| {
            drop(Box::new([0_u64; 4]));
            assert_eq!(kept(), 0, "nobody asked for it");
            keep();
            let blocks: Vec<Box<[u8; 100]>> = (0..1_000).map(|n| Box::new([n as u8; 100])).collect();
            drop(blocks);
            let class = (100 - 1) / STEP;
            THREAD.with(|thread| {
                let bytes = thread.classes[class].bytes.get();
                assert!(bytes <= KEPT && bytes > KEPT - size_of(class), "{bytes}");
            });
            let before = kept();
            let again = Box::new([1_u8; 100]);
            assert!(kept() < before, "it comes from what is kept");
            drop(again);
            give_back();
            assert_eq!(kept(), 0);
        });
    }

    proptest! {
        /// Blocks hold what was written to them, whatever else comes and goes, and are aligned.
        #[test]
        fn blocks_are_their_owners_alone(
            steps in proptest::collection::vec((0_usize..2_200, 0_usize..4, 0_usize..8, any::<bool>()), 1..200),
        ) {
            alone(move || {
                keep();
                let mut held: Vec<(*mut u8, Layout, u8)> = Vec::new();
                let check = |(block, layout, fill): (*mut u8, Layout, u8)| {
                    assert_eq!(block.addr() % layout.align(), 0);
                    // SAFETY: it is held, and was filled.
                    let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
                    assert!(bytes.iter().all(|byte| *byte == fill));
                };
                for (number, (size, align, at, grow)) in steps.into_iter().enumerate() {
                    let fill = number as u8;
                    let size = size.max(1);
                    if grow && at < held.len() {
                        let (block, layout, old) = held[at];
                        // SAFETY: it is held; the size is not 0.
                        let moved = unsafe { Keeping.realloc(block, layout, size) };
                        let layout = Layout::from_size_align(size, layout.align()).expect("a layout");
                        let same = layout.size().min(held[at].1.size());
                        check((moved, Layout::from_size_align(same, layout.align()).expect("a layout"), old));
                        // SAFETY: as many bytes were asked for.
                        unsafe { moved.write_bytes(fill, size) };
                        held[at] = (moved, layout, fill);
                    } else if at < held.len() {
                        let (block, layout, old) = held.swap_remove(at);
                        check((block, layout, old));
                        // SAFETY: it was held, and is not any more.
                        unsafe { Keeping.dealloc(block, layout) };
                    } else {
                        let layout = Layout::from_size_align(size, 8 << align).expect("a layout");
                        // SAFETY: the size is not 0.
                        let block = unsafe { Keeping.alloc_zeroed(layout) };
                        check((block, layout, 0));
                        // SAFETY: as many bytes were asked for.
                        unsafe { block.write_bytes(fill, size) };
                        held.push((block, layout, fill));
                    }
                    held.iter().copied().for_each(check);
                }
                for (block, layout, _) in held {
                    // SAFETY: each was held, once.
                    unsafe { Keeping.dealloc(block, layout) };
                }
                give_back();
            });
        }
    }
}
