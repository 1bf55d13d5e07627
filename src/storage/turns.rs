//! Who may put the file of some content in place, or take it away, together with its name.
//!
//! A file and its name change one after the other. Without turns eviction could take the name of
//! cached content away, a push then find the file in place, keep it and name it anew, and eviction
//! remove it after that.

use async_lock::{Mutex, MutexGuard};

use super::Store;
use crate::oci::Digest;

/// Contents that differ in their first byte do not wait for each other.
const STRIPES: usize = 256;

pub(super) struct Turns([Mutex<()>; STRIPES]);

/// Nobody else puts or removes this content, and names it or forgets its name, while it lives.
pub struct Turn<'a>(#[allow(dead_code, reason = "held, not read")] MutexGuard<'a, ()>);

/// Turns of several contents. Only who never waits for one may have more than one.
pub struct HeldTurns<'a> {
    turns: &'a Turns,
    held: Vec<(u8, MutexGuard<'a, ()>)>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self([const { Mutex::new(()) }; STRIPES])
    }

    fn stripe(&self, digest: &Digest) -> (u8, &Mutex<()>) {
        let [first, ..] = &self.0;
        let n = digest.as_bytes().first().copied().unwrap_or(0);
        // There are as many as a byte has values.
        (n, self.0.get(usize::from(n)).unwrap_or(first))
    }
}

impl Store {
    /// Waits for the turn of this content. To be held from before its file is put in place until it
    /// has its name, or from before the name goes until its file has gone: some disk operations.
    pub async fn turn(&self, digest: &Digest) -> Turn<'_> {
        Turn(self.turns.stripe(digest).1.lock().await)
    }

    /// None yet, for several.
    pub fn turns(&self) -> HeldTurns<'_> {
        HeldTurns { turns: &self.turns, held: Vec::new() }
    }
}

impl HeldTurns<'_> {
    /// Takes the turn of this content too, unless somebody else has it.
    pub fn try_take(&mut self, digest: &Digest) -> bool {
        let (n, stripe) = self.turns.stripe(digest);
        if self.held.iter().any(|(held, _)| *held == n) {
            return true;
        }
        let Some(guard) = stripe.try_lock() else { return false };
        self.held.push((n, guard));
        true
    }
}
