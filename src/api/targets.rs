//! What this worker remembers of targets: clients ask for the same ones again and again.
//!
//! **Invariant:** what is remembered depends on nothing that can change: what a text means, and the keys
//! of names. Where a target is routed to, who may have it and what is stored is asked each time.

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::rc::Rc;

use foldhash::fast::RandomState;

use crate::http::RequestHead;
use crate::oci::{Endpoint, KeyedScope, Namespace, RepositoryName, Scope, Target};

/// A target that was read.
pub(super) struct Known {
    pub(super) endpoint: Endpoint,
    /// Its tag or digest as resolvers see it.
    pub(super) reference: Box<str>,
    /// Where it was routed to the last time.
    scope: RefCell<Option<Rc<KeyedScope>>>,
}

impl Known {
    fn new(endpoint: Endpoint) -> Self {
        let reference = endpoint.target.reference().into();
        Self { endpoint, reference, scope: RefCell::new(None) }
    }

    /// This scope, with the keys that it was last asked for here if it is the same as the last time.
    pub(super) fn keyed(
        &self,
        upstream: Option<&Namespace>,
        repository: &RepositoryName,
    ) -> Rc<KeyedScope> {
        let mut last = self.scope.borrow_mut();
        let is_same =
            |scope: &Scope| scope.upstream.as_ref() == upstream && scope.repository == *repository;
        match &*last {
            Some(keyed) if is_same(keyed.scope()) => keyed.clone(),
            _ => {
                let scope = Scope { upstream: upstream.cloned(), repository: repository.clone() };
                last.insert(Rc::new(KeyedScope::new(scope))).clone()
            }
        }
    }
}

/// Targets that were read before.
#[derive(Default)]
pub(super) struct Targets {
    hasher: RandomState,
    /// Empty until the first comes. Each text has one slot, and the latest stays.
    slots: Vec<Slot>,
}

type Slot = Option<(Box<[u8]>, Rc<Known>)>;

/// Slots of one worker, a power of two.
const TARGETS: usize = 1024;
/// Longer ones are not kept, so that all of them together stay below 2 MiB.
const TARGET_BYTES_MAX: usize = 384;

impl Targets {
    /// What a GET or HEAD addresses; `None` for what is no endpoint.
    pub(super) fn known(&mut self, head: &RequestHead) -> Option<Rc<Known>> {
        let (path, query) = head.target();
        let parsed =
            || Endpoint::parse(true, head.path(), head.query()).ok().map(Known::new).map(Rc::new);
        // A path has no question mark.
        let mark = if query.is_some() { &b"?"[..] } else { b"" };
        let parts = [path, mark, query.unwrap_or_default()];
        if parts.iter().map(|part| part.len()).sum::<usize>() > TARGET_BYTES_MAX {
            return parsed();
        }
        let hash = self.hasher.hash_one((path, query));
        let at = usize::try_from(hash % TARGETS as u64).unwrap_or(0);
        if let Some(Some((text, known))) = self.slots.get(at)
            && is_made_of(text, parts)
        {
            return Some(known.clone());
        }
        let known = parsed()?;
        let target = &known.endpoint.target;
        if !matches!(target, Target::Base | Target::Manifest { .. } | Target::Blob { .. }) {
            return Some(known);
        }
        if self.slots.is_empty() {
            self.slots.resize_with(TARGETS, || None);
        }
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Some((parts.concat().into(), known.clone()));
        }
        Some(known)
    }
}

fn is_made_of(text: &[u8], parts: [&[u8]; 3]) -> bool {
    let mut rest = Some(text);
    for part in parts {
        rest = rest.and_then(|rest| rest.strip_prefix(part));
    }
    rest == Some(b"")
}

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
                let found = targets.known(&head);
                let endpoint = found.as_deref().map(|known| &known.endpoint);
                assert_eq!(endpoint, read.as_ref(), "{target} in round {round}");
                if let Some(known) = found {
                    assert_eq!(*known.reference, known.endpoint.target.reference(), "{target}");
                }
            }
        }
        assert_eq!(targets.slots.len(), TARGETS);
        assert!(targets.slots.iter().flatten().all(|(text, _)| text.len() <= TARGET_BYTES_MAX));
    }

    #[test]
    fn keys_are_those_of_where_it_is_routed_to_now() {
        let mut targets = Targets::default();
        let known = targets.known(&head("/v2/org/app/manifests/v1")).unwrap();
        let tag = crate::oci::Tag::parse("v1").unwrap();
        let namespaces = ["a.example", "b.example"].map(|text| Namespace::parse(text).unwrap());
        let repositories = ["org/app", "other"].map(|text| RepositoryName::parse(text).unwrap());
        let upstreams = [Some(&namespaces[0]), Some(&namespaces[1]), None];
        for round in 0..2 {
            for upstream in upstreams {
                for repository in &repositories {
                    let scope =
                        Scope { upstream: upstream.cloned(), repository: repository.clone() };
                    let keyed = known.keyed(upstream, repository);
                    assert_eq!(keyed.scope(), &scope, "round {round}");
                    assert_eq!(keyed.tag_key(&tag), scope.tag_key(&tag), "round {round}");
                    let again = known.keyed(upstream, repository);
                    assert!(Rc::ptr_eq(&keyed, &again), "{scope} is remembered");
                }
            }
        }
    }
}
