//! Answers that need no wait, made without a future: what clients of a mirror ask most.
//!
//! ```text
//! begin    /v2/, a manifest or blob that is at hand, a refusal → the answer
//!          a manifest or blob that is not                      → where it was routed to
//!          anything else                                       → untouched
//! answer   goes on from there, as far as it has to wait (`router`)
//! ```
//!
//! Nothing is decided twice: what was routed here is not routed again, unless its content is overwritten
//! in the index between two lines of code, or is damaged there.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::answer::{Answer, Facts};
use super::candidates::Routed;
use super::peer::Peer;
use super::router::{Api, Ask, Asking, base};
use super::targets::Known;
use crate::auth::Principal;
use crate::http::RequestHead;
use crate::index::SmallAt;
use crate::oci::Target;
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
    pub(super) known: Rc<Known>,
    pub(super) resolution: Arc<Resolution>,
    pub(super) facts: Facts,
}

impl Api {
    /// Appends the body of an answer of [`Api::begin`] that lies in the index to `out`. `false`, and `out`
    /// as it was, when it was overwritten in this moment: the request is then to be answered as one that
    /// nothing has happened with yet.
    pub fn copy(&self, content: &SmallAt, out: &mut Vec<u8>) -> bool {
        self.registry.copy_small(content, out)
    }

    /// Answers what can be answered at once, of a request that came at `now`. It must have no body.
    pub fn begin(&self, head: &RequestHead, peer: &Peer, now: Instant) -> Begun {
        if !head.method.reads() || head.via().is_some() {
            return Begun::Untouched;
        }
        let Some(known) = self.targets.borrow_mut().known(head) else {
            return Begun::Untouched;
        };
        let endpoint = &known.endpoint;
        let access = self.access();
        if !access.is_silent(head, peer) {
            return Begun::Untouched;
        }
        let principal = &Principal::ANONYMOUS;
        let reference = &known.reference;
        let asking = Asking { head, endpoint, reference, peer, principal, access: &access };
        let (name, ask) = match &endpoint.target {
            Target::Base => {
                return answered(head, base(&asking));
            }
            Target::Manifest { name, reference } => (name, Ask::Manifest(reference)),
            Target::Blob { name, digest } => (name, Ask::Blob(digest)),
            _ => return Begun::Untouched,
        };
        let (resolution, facts) = match self.route_read(&asking, name, &ask) {
            Ok(routed) => routed,
            Err(answer) => return answered(head, answer),
        };
        let routed = Routed { head, endpoint, name, ask: &ask, resolution: &resolution };
        match self.at_hand(&routed, &known, now, facts) {
            Ok(mut answer) => {
                super::router::scope(endpoint, &resolution, &mut answer);
                answered(head, answer)
            }
            Err(facts) => Begun::Routed(Box::new(Held { known: known.clone(), resolution, facts })),
        }
    }
}

fn answered(head: &RequestHead, mut answer: Answer) -> Begun {
    super::router::finish(head, &mut answer);
    Begun::Answered(answer)
}
