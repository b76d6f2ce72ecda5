//! Planning a launch allocates nothing: it is on every call's path.

#[path = "planning/portfolio.rs"]
#[expect(dead_code, reason = "the other tests of planning use the rest")]
mod portfolio;

use drawloom::planning::{Setting, plan_launch};
use drawloom::{Device, Dtype};
use portfolio::{AMPLE, CONTEXT, artifact, case, h200};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting what this thread asks for.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator; the counter is a plain thread-local number without a
// destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn planning_allocates_nothing() {
    let artifact = artifact();
    let device: Device = h200();
    let setting = Setting {
        operator: artifact.operator(),
        manifest: artifact.manifest(),
        types: &[Dtype::Bf16],
        device: &device,
        wanted: CONTEXT,
    };
    for case in [case(4, 32, 8, 4096, 4096, 128), case(1, 8, 2, 1, 65_536, 128)] {
        let before = COUNT.get();
        let plan = plan_launch(&setting, &case.tensors, &case.scalars, AMPLE)
            .unwrap()
            .unwrap();
        let kernels = plan.kernels().count();
        assert_eq!(COUNT.get() - before, 0);
        assert!(kernels > 0);
    }
    let before = COUNT.get();
    drop(vec![1u8]);
    assert_eq!(COUNT.get() - before, 1, "the counter counts");
}
