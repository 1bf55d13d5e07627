//! Answers that need no wait, made without a future: what clients of a mirror ask most.
//!
//! ```text
//! begin    /v2/, a manifest or blob that is at hand, a refusal → the answer
//!          a manifest or blob that is not                      → where it was routed to
//!          anything else                                       → untouched
//! answer   goes on from there, as far as it has to wait (`router`)
//! ```
//!
//! Nothing is decided twice: what was routed here is not routed again.

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::answer::{Answer, Facts};
use super::candidates::Routed;
use super::peer::Peer;
use super::router::{Api, Ask, Asking, base};
use crate::auth::Principal;
use crate::http::RequestHead;
use crate::oci::{Endpoint, Target};
use crate::plugin::Resolution;

/// How far a request has come without a wait.
// The large one is the usual one, and a box would be its only allocation.
#[expect(clippy::large_enum_variant)]
pub enum Begun {
    /// Answered.
    Answered(Answer),
    /// Routed, for a client that says nothing of itself, and may read it.
    Routed(Box<Held>),
    /// Nothing has happened yet.
    Untouched,
}

/// What is known of a request that was routed.
pub struct Held {
    pub(super) endpoint: Rc<Endpoint>,
    pub(super) resolution: Arc<Resolution>,
    pub(super) facts: Facts,
}

impl Api {
    /// Answers what can be answered at once. The request must have no body.
    pub fn begin(&self, head: &RequestHead, peer: &Peer) -> Begun {
        if !head.method.reads() || head.via().is_some() {
            return Begun::Untouched;
        }
        let Some(endpoint) = self.targets.borrow_mut().endpoint(head) else {
            return Begun::Untouched;
        };
        let access = self.access();
        if !access.is_silent(head, peer) {
            return Begun::Untouched;
        }
        let principal = &Principal::ANONYMOUS;
        let asking = Asking { head, endpoint: &endpoint, peer, principal, access: &access };
        let (name, ask) = match &endpoint.target {
            Target::Base => {
                return Begun::Answered(super::router::finish(head, base(&asking)));
            }
            Target::Manifest { name, reference } => (name, Ask::Manifest(reference)),
            Target::Blob { name, digest } => (name, Ask::Blob(digest)),
            _ => return Begun::Untouched,
        };
        let (resolution, facts) = match self.route_read(&asking, name, &ask) {
            Ok(routed) => routed,
            Err(answer) => return Begun::Answered(super::router::finish(head, answer)),
        };
        let routed = Routed { head, endpoint: &endpoint, name, ask: &ask, resolution: &resolution };
        match self.at_hand(&routed, facts) {
            Ok(answer) => {
                let answer = super::router::scoped(&endpoint, &resolution, answer);
                Begun::Answered(super::router::finish(head, answer))
            }
            Err(facts) => {
                let endpoint = endpoint.clone();
                Begun::Routed(Box::new(Held { endpoint, resolution, facts }))
            }
        }
    }
}

/// Targets that were read before: clients ask for the same ones again and again, and what a target
/// means depends on nothing else.
#[derive(Default)]
pub(super) struct Targets {
    hasher: RandomState,
    /// Empty until the first comes. Each text has one slot, and the latest stays.
    slots: Vec<Option<(Box<str>, Rc<Endpoint>)>>,
}

/// Slots of one worker, a power of two.
const TARGETS: usize = 1024;
/// Longer ones are not kept, so that all of them together stay below 1 MiB.
const TARGET_BYTES_MAX: usize = 384;

impl Targets {
    /// What a GET or HEAD addresses; `None` for what is no endpoint.
    fn endpoint(&mut self, head: &RequestHead) -> Option<Rc<Endpoint>> {
        let (path, query) = (head.path(), head.query());
        let parsed = || Endpoint::parse(true, path, query).ok().map(Rc::new);
        // A path has no question mark.
        let parts = [path, if query.is_some() { "?" } else { "" }, query.unwrap_or_default()];
        if parts.iter().map(|part| part.len()).sum::<usize>() > TARGET_BYTES_MAX {
            return parsed();
        }
        let hash = self.hasher.hash_one((path, query));
        let at = usize::try_from(hash % TARGETS as u64).unwrap_or(0);
        if let Some(Some((text, endpoint))) = self.slots.get(at)
            && is_made_of(text, parts)
        {
            return Some(endpoint.clone());
        }
        let endpoint = parsed()?;
        if !matches!(endpoint.target, Target::Base | Target::Manifest { .. } | Target::Blob { .. })
        {
            return Some(endpoint);
        }
        if self.slots.is_empty() {
            self.slots.resize_with(TARGETS, || None);
        }
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Some((parts.concat().into(), endpoint.clone()));
        }
        Some(endpoint)
    }
}

fn is_made_of(text: &str, parts: [&str; 3]) -> bool {
    let mut rest = Some(text);
    for part in parts {
        rest = rest.and_then(|rest| rest.strip_prefix(part));
    }
    rest == Some("")
}

pub(super) type TargetsCell = RefCell<Targets>;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use crate::http::Parsed;

    fn head(target: &str) -> RequestHead {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        match RequestHead::parse(text.as_bytes()).unwrap() {
            Parsed::Complete { head, .. } => head,
            Parsed::Partial => panic!("half a head"),
        }
    }

    #[test]
    fn a_target_that_was_read_before_means_the_same() {
        let mut targets = Targets::default();
        let digest = format!("sha256:{}", "a".repeat(64));
        let long = format!("/v2/{}/manifests/v1?ns=a.example", "a/".repeat(190) + "a");
        let mut asked: Vec<String> = (0..3000)
            .flat_map(|n| {
                [
                    format!("/v2/org/app/manifests/v{n}"),
                    format!("/v2/app{n}/manifests/v1?ns=A.example"),
                ]
            })
            .collect();
        asked.extend([
            "/v2/".to_owned(),
            "/v2".to_owned(),
            "/v2/?".to_owned(),
            "/v2/?ns=a.example".to_owned(),
            "/v2/a/manifests/v1".to_owned(),
            "/v2/a/manifests/v1?".to_owned(),
            format!("/v2/a/manifests/{digest}"),
            format!("/v2/a/blobs/{digest}"),
            "/v2/a/tags/list?n=3".to_owned(),
            "/v2/A/manifests/v1".to_owned(),
            "/nothing".to_owned(),
            long,
        ]);
        for round in 0..3 {
            for target in &asked {
                let head = head(target);
                let read = Endpoint::parse(true, head.path(), head.query()).ok();
                let found = targets.endpoint(&head);
                assert_eq!(found.as_deref(), read.as_ref(), "{target} in round {round}");
            }
        }
        assert_eq!(targets.slots.len(), TARGETS);
        assert!(targets.slots.iter().flatten().all(|(text, _)| text.len() <= TARGET_BYTES_MAX));
    }
}
