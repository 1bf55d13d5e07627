//! Answers that plugins allow to be remembered, for one worker.
//!
//! One table for the whole chain: an answer is in it when every resolver that was asked for it
//! allowed that. Its key is what the most demanding answer so far depends on; that is finer than
//! others need, and never too coarse. Each key has one slot and the latest stays, so the memory is
//! bounded whatever clients ask for.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use ringport_plugin_abi as abi;

use super::{RequestKind, Resolution, ResolveError, ResolveRequest, Route};

/// Entries of one worker, a power of two.
const ENTRIES: usize = 4096;
/// Longer keys, and larger answers, are not remembered: with the entries they bound the memory of
/// a worker to about 12 MiB at the very worst, and to 1 MiB with usual names.
const KEY_BYTES_MAX: usize = 1024;
const CANDIDATES_MAX: usize = 4;
const MESSAGE_BYTES_MAX: usize = 512;

/// What the chain said.
pub(super) type Outcome = Result<Arc<Resolution>, Arc<ResolveError>>;

/// The remembered answers.
#[derive(Debug, Default)]
pub(super) struct Memo {
    hasher: RandomState,
    /// What answers in here depend on besides namespaces and name.
    depends_on: u64,
    /// Empty until the first answer comes.
    slots: Vec<Option<Entry>>,
    /// The key of the request at hand.
    key: Vec<u8>,
    hash: u64,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    key: Box<[u8]>,
    outcome: Outcome,
}

impl Memo {
    /// What was answered to an equal request. The key is kept for [`Memo::remember`].
    pub(super) fn find(
        &mut self,
        request: &ResolveRequest<'_>,
        wanted: &[String],
    ) -> Option<&Outcome> {
        if self.slots.is_empty() {
            return None;
        }
        self.make_key(request, wanted);
        let entry = self.slots.get(slot_of(self.hash))?.as_ref()?;
        (entry.hash == self.hash && *entry.key == *self.key).then_some(&entry.outcome)
    }

    /// Remembers an answer that depends on these bits, and on no other field of the request that
    /// [`Memo::find`] has just seen.
    pub(super) fn remember(
        &mut self,
        request: &ResolveRequest<'_>,
        wanted: &[String],
        depends_on: u64,
        outcome: &Outcome,
    ) {
        if !is_small(outcome) {
            return;
        }
        if self.slots.is_empty() {
            self.slots.resize_with(ENTRIES, || None);
            self.depends_on = depends_on;
        } else if depends_on & !self.depends_on != 0 {
            // The entries so far have shorter keys.
            self.slots.fill_with(|| None);
            self.depends_on |= depends_on;
        }
        self.make_key(request, wanted);
        if self.key.len() > KEY_BYTES_MAX {
            return;
        }
        if let Some(slot) = self.slots.get_mut(slot_of(self.hash)) {
            let (hash, key) = (self.hash, self.key.as_slice().into());
            *slot = Some(Entry { hash, key, outcome: outcome.clone() });
        }
    }

    /// Forgets everything: a plugin has a successor, or has failed.
    pub(super) fn clear(&mut self) {
        self.slots = Vec::new();
        self.depends_on = 0;
    }

    /// Each field behind its length, so that no two requests share a key.
    fn make_key(&mut self, request: &ResolveRequest<'_>, wanted: &[String]) {
        let key = &mut self.key;
        key.clear();
        let by = |bit: u64| self.depends_on & bit != 0;
        let namespace = |ns: Option<&crate::oci::Namespace>| ns.map_or(0, |ns| ns.as_str().len());
        push_length(key, namespace(request.ns));
        push_length(key, namespace(request.header));
        for ns in [request.ns, request.header].into_iter().flatten() {
            key.extend_from_slice(ns.as_str().as_bytes());
        }
        push(key, request.name.as_bytes());
        if self.depends_on != 0 {
            if by(abi::BY_KIND) {
                key.push(kind_number(request.kind));
            }
            if by(abi::BY_METHOD) {
                push(key, request.method.as_bytes());
            }
            if by(abi::BY_REFERENCE) {
                push(key, request.reference.as_bytes());
            }
            if by(abi::BY_CLIENT) {
                match request.client {
                    None => push(key, b""),
                    Some(IpAddr::V4(address)) => push(key, &address.octets()),
                    Some(IpAddr::V6(address)) => push(key, &address.octets()),
                }
            }
            if by(abi::BY_PRINCIPAL) {
                push(key, request.principal.unwrap_or_default().as_bytes());
            }
            if by(abi::BY_HEADERS) {
                push_headers(key, request, wanted);
            }
        }
        self.hash = self.hasher.hash_one(key.as_slice());
    }
}

/// The number of values of each header, and the values: none differs from an empty one.
fn push_headers(key: &mut Vec<u8>, request: &ResolveRequest<'_>, wanted: &[String]) {
    for name in wanted {
        let values = || request.head.into_iter().flat_map(|head| head.values(name));
        push_length(key, values().count());
        values().for_each(|value| push(key, value));
    }
}

fn push(key: &mut Vec<u8>, field: &[u8]) {
    push_length(key, field.len());
    key.extend_from_slice(field);
}

/// A request's head is smaller than 64 KiB, and so is every part of it.
fn push_length(key: &mut Vec<u8>, length: usize) {
    key.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
}

fn kind_number(kind: RequestKind) -> u8 {
    match kind {
        RequestKind::Manifest => 1,
        RequestKind::Blob => 2,
        RequestKind::Tags => 3,
        RequestKind::Referrers => 4,
    }
}

fn slot_of(hash: u64) -> usize {
    usize::try_from(hash % ENTRIES as u64).unwrap_or(0)
}

fn is_small(outcome: &Outcome) -> bool {
    match outcome {
        Ok(resolution) => match &resolution.route {
            Route::Hosted { .. } => true,
            Route::Upstream { candidates } => candidates.len() <= CANDIDATES_MAX,
        },
        Err(error) => error.message.len() <= MESSAGE_BYTES_MAX,
    }
}
