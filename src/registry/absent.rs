//! What an upstream has just said not to have: manifests, blobs, lists.
//!
//! Only its word counts, never a failure. It is looked at after the store, and forgotten as soon
//! as the content comes by another way; it ends with the process, and with a reload.

use std::sync::Arc;
use std::time::Instant;

use papaya::HashMap;

use super::PullError;
use super::state::{Registry, Shared};
use crate::oci::{Digest, Reference, Scope, ScopeKey};
use crate::runtime::clock;

/// Absences that are remembered at once, of a few hundred bytes each. Over it all is forgotten, and
/// each costs one more question.
const ABSENT_MAX: usize = 10_000;

/// By what was asked for, in which repository.
#[derive(Default)]
pub(super) struct Absences(HashMap<ScopeKey, Absence>);

struct Absence {
    since: Instant,
    until: Instant,
    error: Arc<PullError>,
}

impl Absences {
    fn find(&self, key: &ScopeKey) -> Option<PullError> {
        let absent = self.0.pin();
        let absence = absent.get(key)?;
        let now = clock::now();
        if now >= absence.until {
            absent.remove(key);
            return None;
        }
        let age = now.saturating_duration_since(absence.since).as_secs();
        Some(PullError::Remembered { error: absence.error.clone(), age })
    }
}

/// The key of a manifest, by whatever it is asked for.
pub(super) fn manifest_key(scope: &Scope, reference: &Reference) -> ScopeKey {
    match reference {
        Reference::Tag(tag) => scope.tag_key(tag),
        Reference::Digest(digest) => scope.link_key(digest),
    }
}

impl Shared {
    /// Remembers for `negative_ttl` what the upstream answered 404 with, and hands it on.
    pub(super) fn note_absent(&self, scope: &Scope, key: ScopeKey, error: PullError) -> PullError {
        let ttl = self.policy(scope).map(|policy| policy.negative_ttl).unwrap_or_default();
        if ttl.is_zero() {
            return error;
        }
        let absent = self.absent.0.pin();
        if absent.len() >= ABSENT_MAX {
            absent.clear();
        }
        let since = clock::now();
        let until = since + ttl;
        absent.insert(key, Absence { since, until, error: Arc::new(error.clone()) });
        error
    }

    /// The same of a blob.
    pub(super) fn note_absent_blob(&self, scope: &Scope, digest: &Digest) -> PullError {
        let error = PullError::BlobUnknown(format!("{scope} does not know blob {digest}"));
        self.note_absent(scope, scope.blob_key(digest), error)
    }

    /// Forgets all 404s: another configuration may ask somebody else, or as somebody else.
    pub fn forget_absences(&self) {
        self.absent.0.pin().clear();
    }

    /// What was missing has come.
    pub(super) fn note_present(&self, key: &ScopeKey) {
        let absent = self.absent.0.pin();
        if !absent.is_empty() {
            absent.remove(key);
        }
    }

    /// The same of content, whatever it was asked for as.
    pub(super) fn note_content_present(&self, scope: &Scope, digest: &Digest) {
        self.note_present(&scope.link_key(digest));
        self.note_present(&scope.blob_key(digest));
    }

    /// Whether anything is remembered: most of the time nothing is, and no key has to be made.
    pub(super) fn has_absences(&self) -> bool {
        !self.absent.0.pin().is_empty()
    }

    /// What the upstream has said of this a moment ago, if that was 404.
    pub(super) fn known_absent(&self, key: impl FnOnce() -> ScopeKey) -> Option<PullError> {
        if self.has_absences() { self.absent.find(&key()) } else { None }
    }
}

impl Registry {
    /// `Err` with what the upstream said a moment ago, if that was 404; counted.
    pub(super) fn expect_not_absent(
        &self,
        scope: &Scope,
        key: impl FnOnce() -> ScopeKey,
    ) -> Result<(), PullError> {
        let Some(error) = self.shared().known_absent(key) else { return Ok(()) };
        if let Some(upstream) = &scope.upstream {
            self.metrics().negative_hit(upstream);
        }
        Err(error)
    }
}
