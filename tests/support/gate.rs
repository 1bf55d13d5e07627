//! A gate: holds threads at a known point until the test says go, so that no test has to sleep.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Shut when made. Clones are the same gate.
#[derive(Clone, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    arrived: usize,
}

/// Longer than any test; a thread that is forgotten here still ends.
const PATIENCE: Duration = Duration::from_secs(120);

impl Gate {
    /// A shut gate.
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Lets everyone through, for good.
    pub fn open(&self) {
        self.0.state.lock().unwrap().open = true;
        self.0.changed.notify_all();
    }

    /// Whether `open` was called.
    pub fn is_open(&self) -> bool {
        self.0.state.lock().unwrap().open
    }

    /// Waits until the gate is open.
    pub fn pass(&self) {
        let mut state = self.0.state.lock().unwrap();
        state.arrived += 1;
        self.0.changed.notify_all();
        let waited = self.0.changed.wait_timeout_while(state, PATIENCE, |s| !s.open).unwrap();
        drop(waited);
    }

    /// Waits until `count` threads have come to the gate; panics after `bound`.
    #[track_caller]
    pub fn await_arrivals(&self, count: usize, bound: Duration) {
        let state = self.0.state.lock().unwrap();
        let (state, timeout) =
            self.0.changed.wait_timeout_while(state, bound, |s| s.arrived < count).unwrap();
        let arrived = state.arrived;
        drop(state);
        assert!(!timeout.timed_out(), "{arrived} of {count} came to the gate in {bound:?}");
    }
}
