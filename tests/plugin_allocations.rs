//! A decision allocates nothing once its names have been seen: by a counting allocator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod plugin_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use plugin_support::{Installed, config, plugin_entry, pull};
use ringport::oci::Namespace;
use ringport::plugin::{Chain, ResolveRequest, WorkerChain};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came; counting touches a thread-local
// that needs neither allocation nor destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(mut run: impl FnMut()) -> u64 {
    let before = ALLOCATIONS.get();
    run();
    ALLOCATIONS.get() - before
}

/// Every shape of an answer that is no refusal, some held for a while as requests hold them: what
/// a hundred rounds of them allocate.
fn steady_allocations(worker: &WorkerChain) -> u64 {
    let ns = Namespace::parse("ghcr.io").unwrap();
    let requests = [
        pull("alpine"),
        pull("ghcr.io/org/app"),
        pull("team/app"),
        ResolveRequest { ns: Some(&ns), ..pull("org/app") },
        ResolveRequest { ns: Some(&ns), ..pull("ghcr.io/org/app") },
        ResolveRequest { header: Some(&ns), ..pull("org/app") },
    ];
    let mut held = Vec::with_capacity(4);
    let mut round = || {
        for request in &requests {
            assert!(worker.resolve_anew(request).is_ok() && worker.resolve(request).is_ok());
            if held.len() < 4 {
                held.push(worker.resolve_anew(request).expect("answered"));
            }
        }
        held.clear();
    };
    // Names are seen, memory that goes round has come round.
    (0..20).for_each(|_| round());
    allocations(|| (0..100).for_each(|_| round()))
}

/// Hashes are seeded anew for each worker. In one of about two hundred, two of the names or
/// requests have the same place and put each other out of it, so several are tried.
fn expect_none(chain: &Chain, what: &str) {
    let tried = [0, 1, 2, 3].map(|n| steady_allocations(&chain.start_worker(n).unwrap()));
    assert!(tried.contains(&0), "{what}: {tried:?}");
}

#[test]
fn a_decision_allocates_nothing() {
    let routing = "default_upstream = 'docker.io'\nhosted = ['team/*']";
    let linked = format!("resolvers = ['standard']\n{routing}");
    expect_none(&Chain::load(&config(&linked, "")).unwrap(), "linked in");
    // A library has an allocator of its own unless it is C; it is the host's half that counts here.
    let file = Installed::built("ringport_plugin_standard");
    let plugin = plugin_entry("loaded", &file.path, routing);
    let chain = Chain::load(&config("resolvers = ['loaded']", &plugin));
    expect_none(&chain.unwrap(), "loaded");
    let file = Installed::compiled("minimal-c/minimal.c", "0");
    let behind = format!("resolvers = ['c', 'standard']\n{routing}");
    let chain = Chain::load(&config(&behind, &plugin_entry("c", &file.path, "")));
    expect_none(&chain.unwrap(), "with a C plugin");
}

#[test]
fn the_counting_allocator_counts() {
    assert!(allocations(|| drop(std::hint::black_box(Box::new(7)))) > 0);
}
