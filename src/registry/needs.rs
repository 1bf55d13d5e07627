//! Which content a fresh tag still needs, so that room is made elsewhere first.

use std::sync::Arc;
use std::time::Duration;

use papaya::HashMap;

use crate::oci::Digest;

/// Manifests whose children are remembered. Over it all is forgotten: the knowledge is only a
/// preference, and comes back with the next confirmation of each tag.
const MANIFESTS_MAX: usize = 50_000;

struct Need {
    children: Arc<[Digest]>,
    until: u64,
}

/// What the manifests of fresh tags name, and until when (Unix seconds).
#[derive(Default)]
pub(super) struct Needs {
    manifests: HashMap<Digest, Need>,
    contents: HashMap<Digest, u64>,
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
        let manifests = self.manifests.pin();
        if manifests.len() >= MANIFESTS_MAX {
            manifests.clear();
            self.contents.pin().clear();
        }
        let until = now.saturating_add(ttl.as_secs());
        self.mark(manifest, &children, until);
        manifests.insert(*manifest, Need { children, until });
    }

    /// Its binding was confirmed.
    pub(super) fn confirmed(&self, manifest: &Digest, now: u64, ttl: Duration) {
        let until = now.saturating_add(ttl.as_secs());
        let manifests = self.manifests.pin();
        let Some(children) = manifests.get(manifest).map(|need| need.children.clone()) else {
            return;
        };
        self.mark(manifest, &children, until);
        manifests.insert(*manifest, Need { children, until });
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
#[allow(clippy::unwrap_used)]
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
}
