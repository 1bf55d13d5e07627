//! Memory that goes round: names seen lately, and resolutions that nobody holds any more.

use std::hash::BuildHasher;
use std::mem::{replace, swap, take};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Draft;
use crate::oci::RepositoryName;
use crate::plugin::{Candidate, Resolution, Route};

/// Names that one worker remembers for one plugin, a power of two: at most about 140 KiB.
const NAMES_SEEN: usize = 512;
/// Requests of one worker hold about as many resolutions at a time, under a usual load.
const RESOLUTIONS: usize = 16;

/// Repository names by their text, each in the only slot that its hash allows: the latest stays.
#[derive(Debug, Default)]
pub(super) struct SeenNames {
    hasher: RandomState,
    /// Empty until the first name comes.
    slots: Vec<Option<RepositoryName>>,
}

impl SeenNames {
    /// The name, if the text is within the grammar. Allocates for a name not seen lately only.
    pub(super) fn get(&mut self, text: &str) -> Option<RepositoryName> {
        if self.slots.is_empty() {
            self.slots.resize(NAMES_SEEN, None);
        }
        let hash = self.hasher.hash_one(text.as_bytes());
        let index = usize::try_from(hash % NAMES_SEEN as u64).unwrap_or(0);
        let slot = self.slots.get_mut(index)?;
        if let Some(name) = slot.as_ref().filter(|name| name.as_str() == text) {
            return Some(name.clone());
        }
        let name = RepositoryName::parse(text).ok()?;
        *slot = Some(name.clone());
        Some(name)
    }
}

/// Resolutions that were given out, in turn; one that has come back is filled again.
#[derive(Debug, Default)]
pub(super) struct Recycled {
    given_out: Vec<Arc<Resolution>>,
    next: usize,
    /// Empty lists with room, of resolutions that became hosted.
    lists: Vec<Vec<Candidate>>,
}

impl Recycled {
    /// Makes a resolution of what `draft` holds.
    pub(super) fn resolution(
        &mut self,
        draft: &mut Draft,
        plugin: &str,
        ns_was_sent: bool,
    ) -> Arc<Resolution> {
        if let Some(latest) = self.given_out.get(self.next)
            && is_said_by(latest, draft, ns_was_sent)
        {
            return Arc::clone(latest);
        }
        if self.given_out.len() < RESOLUTIONS {
            let resolution = Arc::new(self.fill(empty(), draft, plugin, ns_was_sent));
            self.next = self.given_out.len();
            self.given_out.push(Arc::clone(&resolution));
            return resolution;
        }
        self.next = (self.next + 1) % RESOLUTIONS;
        let lists = &mut self.lists;
        match self.given_out.get_mut(self.next) {
            Some(slot) => {
                match Arc::get_mut(slot) {
                    Some(free) => fill(free, lists, draft, plugin, ns_was_sent),
                    // Somebody still holds it: it is left to them.
                    None => {
                        let mut new = empty();
                        fill(&mut new, lists, draft, plugin, ns_was_sent);
                        *slot = Arc::new(new);
                    }
                }
                Arc::clone(slot)
            }
            None => Arc::new(self.fill(empty(), draft, plugin, ns_was_sent)),
        }
    }

    fn fill(
        &mut self,
        mut resolution: Resolution,
        draft: &mut Draft,
        plugin: &str,
        ns_was_sent: bool,
    ) -> Resolution {
        fill(&mut resolution, &mut self.lists, draft, plugin, ns_was_sent);
        resolution
    }
}

fn empty() -> Resolution {
    Resolution {
        route: Route::Upstream { candidates: Vec::new() },
        rule: String::new(),
        scoped_by_ns: false,
        tag_ttl: None,
        stale_max: None,
        is_immutable: false,
        plugin: String::new(),
    }
}

/// Whether the resolution, one of the same plugin, says all that the draft holds. One image asks
/// for a dozen blobs, and all of them go the same way.
fn is_said_by(resolution: &Resolution, draft: &Draft, ns_was_sent: bool) -> bool {
    let Route::Upstream { candidates } = &resolution.route else { return false };
    draft.hosted.is_none()
        && resolution.scoped_by_ns == ns_was_sent
        && draft.candidates.are(candidates)
        && (resolution.tag_ttl, resolution.stale_max) == (draft.tag_ttl, draft.stale_max)
        && resolution.is_immutable == draft.is_immutable
        && resolution.rule == draft.rule
}

/// Moves the draft into `resolution`, and the memory of that into the draft.
fn fill(
    resolution: &mut Resolution,
    lists: &mut Vec<Vec<Candidate>>,
    draft: &mut Draft,
    plugin: &str,
    ns_was_sent: bool,
) {
    // Whether a plugin looked at `ns` is its secret; an upstream answer to a request that had one
    // is taken to be within it.
    resolution.scoped_by_ns = ns_was_sent && draft.hosted.is_none();
    match (&mut resolution.route, draft.hosted.take()) {
        (Route::Upstream { candidates }, None) => draft.candidates.give_for(candidates),
        (route @ Route::Hosted { .. }, None) => {
            let mut candidates = lists.pop().unwrap_or_default();
            draft.candidates.give_for(&mut candidates);
            *route = Route::Upstream { candidates };
        }
        (Route::Hosted { repository }, Some(hosted)) => *repository = hosted,
        (route @ Route::Upstream { .. }, Some(repository)) => {
            let before = replace(route, Route::Hosted { repository });
            if let (Route::Upstream { mut candidates }, true) = (before, lists.len() < RESOLUTIONS)
            {
                candidates.clear();
                lists.push(candidates);
            }
        }
    }
    swap(&mut resolution.rule, &mut draft.rule);
    (resolution.tag_ttl, resolution.stale_max) = (draft.tag_ttl, draft.stale_max);
    resolution.is_immutable = take(&mut draft.is_immutable);
    resolution.plugin.clear();
    resolution.plugin.push_str(plugin);
}
