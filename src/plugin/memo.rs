//! Answers that plugins allow to be remembered, for one worker.
//!
//! One table for the whole chain: an answer is in it when every resolver that was asked for it
//! allowed that. Its key is what the most demanding answer so far depends on; that is finer than
//! others need, and never too coarse. Each key has one slot and the latest stays, so the memory is
//! bounded whatever clients ask for.

use std::hash::{BuildHasher, Hasher as _};
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
    /// The request's fields that `depends_on` names; room that is used again.
    more: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    /// Of the parts of `key`.
    lengths: Lengths,
    key: Box<[u8]>,
    outcome: Outcome,
}

/// The parts of a key: `ns`, the header's namespace, the name, and all else.
const PARTS: usize = 4;

/// Their lengths, in 16 bits each: compared and hashed as one number.
type Lengths = u64;

impl Memo {
    /// What was answered to an equal request.
    pub(super) fn find(
        &mut self,
        request: &ResolveRequest<'_>,
        wanted: &[String],
    ) -> Option<&Outcome> {
        if self.slots.is_empty() {
            return None;
        }
        if self.depends_on != 0 {
            self.read_more(request, wanted);
        }
        let parts = self.parts(request);
        let lengths = lengths(&parts)?;
        let hash = self.hash(&parts, lengths);
        let entry = self.slots.get(slot_of(hash))?.as_ref()?;
        let is_found = entry.hash == hash && entry.lengths == lengths && entry.is_of(&parts);
        is_found.then_some(&entry.outcome)
    }

    /// Remembers an answer that depends on these bits, and on nothing else but namespaces and name.
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
        self.read_more(request, wanted);
        let parts = self.parts(request);
        let Some(lengths) = lengths(&parts) else { return };
        let (hash, key) = (self.hash(&parts, lengths), parts.concat().into());
        if let Some(slot) = self.slots.get_mut(slot_of(hash)) {
            *slot = Some(Entry { hash, lengths, key, outcome: outcome.clone() });
        }
    }

    /// Forgets everything: a plugin has a successor, or has failed.
    pub(super) fn clear(&mut self) {
        self.slots = Vec::new();
        self.more.clear();
        self.depends_on = 0;
    }

    fn parts<'a>(&'a self, request: &ResolveRequest<'a>) -> [&'a [u8]; PARTS] {
        let namespace = |ns: Option<&'a crate::oci::Namespace>| {
            ns.map_or(&b""[..], |ns| ns.as_str().as_bytes())
        };
        [namespace(request.ns), namespace(request.header), request.name.as_bytes(), &self.more]
    }

    /// Of the parts and of which of them are there. They are compared too.
    fn hash(&self, parts: &[&[u8]; PARTS], lengths: Lengths) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(lengths);
        for part in parts.iter().filter(|part| !part.is_empty()) {
            hasher.write(part);
        }
        hasher.finish()
    }

    /// Each field behind its length, so that no two requests share them all.
    fn read_more(&mut self, request: &ResolveRequest<'_>, wanted: &[String]) {
        if self.depends_on == 0 {
            return;
        }
        let more = &mut self.more;
        more.clear();
        let by = |bit: u64| self.depends_on & bit != 0;
        if by(abi::BY_KIND) {
            more.push(kind_number(request.kind));
        }
        if by(abi::BY_METHOD) {
            push(more, request.method.as_bytes());
        }
        if by(abi::BY_REFERENCE) {
            push(more, request.reference.as_bytes());
        }
        if by(abi::BY_CLIENT) {
            match request.client {
                None => push(more, b""),
                Some(IpAddr::V4(address)) => push(more, &address.octets()),
                Some(IpAddr::V6(address)) => push(more, &address.octets()),
            }
        }
        if by(abi::BY_PRINCIPAL) {
            push(more, request.principal.unwrap_or_default().as_bytes());
        }
        if by(abi::BY_HEADERS) {
            push_headers(more, request, wanted);
        }
    }
}

impl Entry {
    /// For parts of the same lengths.
    fn is_of(&self, parts: &[&[u8]; PARTS]) -> bool {
        let mut rest = &*self.key;
        // Empty slices point nowhere: comparing their bytes costs a vectorised memcmp a fault
        // that the processor has to suppress, some 40 ns each.
        parts.iter().filter(|part| !part.is_empty()).all(|part| {
            let Some((own, behind)) = rest.split_at_checked(part.len()) else { return false };
            rest = behind;
            own == *part
        })
    }
}

/// `None` for a key that is too long to be remembered.
fn lengths(parts: &[&[u8]; PARTS]) -> Option<Lengths> {
    let all = parts.iter().fold(0, |all: Lengths, part| all << 16 | part.len().min(0xffff) as u64);
    (parts.iter().map(|part| part.len()).sum::<usize>() <= KEY_BYTES_MAX).then_some(all)
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
