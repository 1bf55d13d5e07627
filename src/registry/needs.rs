//! Which content a fresh tag still needs, so that room is made elsewhere first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use papaya::HashMap;

use crate::oci::Digest;

/// Digests that are remembered, as content that is needed and as children of manifests each. Over
/// it nothing more is: the knowledge is only a preference, and comes back with the next
/// confirmation of each tag.
const DIGESTS_MAX: usize = 400_000;
/// Children of one manifest that are remembered; an image has some dozens.
const CHILDREN_MAX: usize = 1000;

struct Need {
    children: Arc<[Digest]>,
    until: u64,
}

/// What the manifests of fresh tags name, and until when (Unix seconds).
#[derive(Default)]
pub(super) struct Needs {
    manifests: HashMap<Digest, Need>,
    contents: HashMap<Digest, u64>,
    /// How many of them the manifests name, each as often as it is named.
    children: AtomicUsize,
}

impl Needs {
    /// A tag was bound to this manifest at `now`, and is fresh for `ttl`.
    pub(super) fn bound(
        &self,
        manifest: &Digest,
        children: Arc<[Digest]>,
        now: u64,
        ttl: Duration,
    ) {
        let children = match children.get(..CHILDREN_MAX) {
            Some(first) => first.into(),
            None => children,
        };
        if self.held() > DIGESTS_MAX {
            return;
        }
        let until = now.saturating_add(ttl.as_secs());
        self.mark(manifest, &children, until);
        self.children.fetch_add(children.len() + 1, Ordering::Relaxed);
        let manifests = self.manifests.pin();
        if let Some(before) = manifests.insert(*manifest, Need { children, until }) {
            self.children.fetch_sub(before.children.len() + 1, Ordering::Relaxed);
        }
    }

    /// The larger of both.
    fn held(&self) -> usize {
        self.children.load(Ordering::Relaxed).max(self.contents.pin().len())
    }

    /// Forgets what is needed no more, once that is worth it; everything, when that is not enough.
    /// Takes its time: not for a worker.
    pub(super) fn tidy(&self, now: u64) {
        if self.held() <= DIGESTS_MAX / 2 {
            return;
        }
        self.forget(now);
        if self.held() > DIGESTS_MAX / 2 {
            self.forget(u64::MAX);
        }
    }

    fn forget(&self, until: u64) {
        self.contents.pin().retain(|_, needed_until| *needed_until > until);
        let manifests = self.manifests.pin();
        for (manifest, need) in &manifests {
            // Of what is confirmed meanwhile only the new one stays and counts.
            if need.until <= until
                && let Some(gone) = manifests.remove(manifest)
            {
                self.children.fetch_sub(gone.children.len() + 1, Ordering::Relaxed);
            }
        }
    }

    /// Its binding was confirmed.
    pub(super) fn confirmed(&self, manifest: &Digest, now: u64, ttl: Duration) {
        let manifests = self.manifests.pin();
        let Some(children) = manifests.get(manifest).map(|need| need.children.clone()) else {
            return;
        };
        drop(manifests);
        self.bound(manifest, children, now, ttl);
    }

    /// Whether a tag that is still fresh at `now` needs this content. A manifest in an index is
    /// needed with it, and so is what it names.
    pub(super) fn contains(&self, digest: &Digest, now: u64) -> bool {
        self.contents.pin().get(digest).is_some_and(|&until| now < until)
    }

    /// This manifest was fetched because something else names it: it inherits the need.
    pub(super) fn named(&self, manifest: &Digest, children: Arc<[Digest]>, now: u64) {
        let until = self.contents.pin().get(manifest).copied().unwrap_or(0);
        if now < until {
            self.bound(manifest, children, now, Duration::from_secs(until - now));
        }
    }

    fn mark(&self, manifest: &Digest, children: &[Digest], until: u64) {
        let contents = self.contents.pin();
        for digest in std::iter::once(manifest).chain(children) {
            contents.insert(*digest, until);
        }
        // One step down: the manifests of an index name their layers themselves.
        let manifests = self.manifests.pin();
        for child in children {
            if let Some(need) = manifests.get(child).filter(|need| need.until < until) {
                for digest in need.children.iter() {
                    contents.insert(*digest, until);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn what_a_fresh_tag_names_is_needed_until_it_is_due() {
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let needs = Needs::default();
        let ttl = Duration::from_secs(10);
        needs.bound(&digest("index"), [digest("amd64")].into(), 100, ttl);
        needs.named(&digest("amd64"), [digest("layer")].into(), 101);
        needs.named(&digest("stranger"), [digest("its layer")].into(), 101);
        for (content, now, needed) in [
            ("index", 109, true),
            ("index", 110, false),
            ("amd64", 109, true),
            ("layer", 109, true),
            ("layer", 110, false),
            ("stranger", 102, false),
            ("its layer", 102, false),
        ] {
            assert_eq!(needs.contains(&digest(content), now), needed, "{content} at {now}");
        }
        needs.confirmed(&digest("index"), 200, ttl);
        assert!(needs.contains(&digest("amd64"), 209) && needs.contains(&digest("layer"), 209));
    }

    #[test]
    fn what_is_remembered_is_bounded_however_much_the_manifests_name() {
        let needs = Needs::default();
        let digest = |n: usize| Digest::of(Algorithm::Sha256, &n.to_le_bytes());
        let all: Arc<[Digest]> = (0..CHILDREN_MAX + 5).map(digest).collect();
        let ttl = Duration::from_secs(10);
        needs.bound(&digest(1_000_000), all.clone(), 100, ttl);
        assert!(needs.contains(&all[CHILDREN_MAX - 1], 109));
        assert!(!needs.contains(&all[CHILDREN_MAX], 109), "more than an image has");
        for n in 0..2 * DIGESTS_MAX / CHILDREN_MAX {
            needs.bound(&digest(2_000_000 + n), all.clone(), 100, ttl);
            needs.bound(&digest(2_000_000), all.clone(), 100, ttl);
        }
        assert!(needs.held() < DIGESTS_MAX + 2 * CHILDREN_MAX, "{}", needs.held());
        assert!(needs.held() > DIGESTS_MAX, "what is bound again counts once");
        needs.tidy(105);
        assert_eq!(needs.held(), 0, "all of it is needed, and too much");
        needs.bound(&digest(1), [digest(2)].into(), 100, ttl);
        needs.tidy(200);
        assert!(needs.contains(&digest(2), 109), "too little to be tidied");
    }
}
