//! Bytes on the heap, now and at most.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

#[derive(Debug)]
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static HEAP: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator that counts; every call is passed on as it came")]
// SAFETY: the system's allocator does the work under the caller's own guarantees.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Bytes held now.
pub(crate) fn held() -> usize {
    NOW.load(Relaxed)
}

/// What came of some work, the bytes that it left on the heap, and the most that it had there.
pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = held();
    PEAK.store(before, Relaxed);
    let outcome = work();
    (outcome, held().saturating_sub(before), PEAK.load(Relaxed).saturating_sub(before))
}
