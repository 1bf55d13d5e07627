//! A folder for an index, names to put, and a model to compare with.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::super::{
    BlobEntry, Index, IndexOptions, IndexWriter, LinkEntry, Lookup, Opened, TagEntry, media,
    recovery,
};
use crate::keeping::Keeping;
use crate::oci::{Algorithm, Digest, Namespace, RepositoryName, Scope, Tag};

pub(super) const STORE: [u8; 16] = *b"0123456789abcdef";
pub(super) const BOOT: Option<[u8; 16]> = Some([7; 16]);

/// A fresh folder, in memory where there is `/dev/shm`: tests open thousands of indexes, and each
/// syncs.
pub(super) fn folder() -> tempfile::TempDir {
    let shared_memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new();
    if shared_memory.is_dir() {
        builder.tempdir_in(shared_memory).or_else(|_| builder.tempdir()).unwrap()
    } else {
        builder.tempdir().unwrap()
    }
}

pub(super) fn options(folder: &Path, slots: u64, small: u64) -> IndexOptions {
    IndexOptions {
        folder: folder.to_owned(),
        store_id: STORE,
        slots_min: slots,
        small_bytes: small,
    }
}

pub(super) fn open(options: IndexOptions) -> (Arc<Index>, IndexWriter, Opened) {
    recovery::open_in_boot(options, BOOT).unwrap()
}

/// The seed of a randomised test: from the environment to repeat a run, else new. Printed, so that
/// a failure shows it.
pub(super) fn seed(test: &str) -> u64 {
    let given = std::env::var("INDEX_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("{test}: INDEX_TEST_SEED={seed}");
    seed
}

pub(super) fn digest(n: u64) -> Digest {
    let algorithm = if n % 16 == 15 { Algorithm::Sha512 } else { Algorithm::Sha256 };
    Digest::of(algorithm, &n.to_le_bytes())
}

pub(super) fn scope(n: u64) -> Scope {
    let upstream = ["docker.io", "ghcr.io", "quay.io"].get((n % 4) as usize);
    Scope {
        upstream: upstream.map(|name| Namespace::parse(name).unwrap()),
        repository: RepositoryName::parse(&format!("team/app-{}", n % 7)).unwrap(),
    }
}

pub(super) fn tag(n: u64) -> Tag {
    Tag::parse(&format!("v{n}")).unwrap()
}

/// Content of a blob that is small: all of it follows from `n` and `version`.
pub(super) fn content(n: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(n);
    (0..length).map(|_| random.u8(..)).collect()
}

pub(super) fn blob(n: u64) -> BlobEntry {
    BlobEntry {
        size: n,
        pool: n as u8,
        owner: (n >> 8) as u16,
        is_hosted: n.is_multiple_of(3),
        keeping: keeping(n),
    }
}

/// Terms that differ with `n`, of which most set something.
pub(super) fn keeping(n: u64) -> Keeping {
    Keeping {
        is_pinned: n.is_multiple_of(2),
        priority: (n % 21) as i8 - 10,
        expires_at: Some(n % 1000 * 4_294_967).filter(|at| *at > 0),
    }
}

pub(super) fn link(n: u64) -> LinkEntry {
    let media_type = (n % 7).checked_sub(1).map(|at| Arc::from(media::KNOWN[at as usize]));
    LinkEntry { media_type, linked_at: n }
}

/// What was put and not removed.
#[derive(Default, Clone)]
pub(super) struct Model {
    pub(super) blobs: HashMap<u64, BlobEntry>,
    pub(super) links: HashMap<u64, LinkEntry>,
    pub(super) tags: HashMap<u64, TagEntry>,
    pub(super) small: HashMap<u64, Vec<u8>>,
}

/// How look-ups went in [`Model::compare`].
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) hits: u64,
    pub(super) unanswered: u64,
}

impl Model {
    pub(super) fn cached_bytes(&self) -> u64 {
        self.blobs.values().filter(|entry| !entry.is_hosted).map(|entry| entry.size).sum()
    }

    pub(super) fn pinned_bytes(&self) -> u64 {
        let pinned = |entry: &&BlobEntry| !entry.is_hosted && entry.keeping.is_pinned;
        self.blobs.values().filter(pinned).map(|entry| entry.size).sum()
    }

    /// Looks up every key below `keys`: what the index answers must be what the model has. With
    /// `is_exact`, it must answer all that fits a slot, and deny nothing else.
    pub(super) fn compare(&self, index: &Index, keys: u64, is_exact: bool) -> Tally {
        let mut tally = Tally::default();
        for n in 0..keys {
            let fits = |n: &u64| self.tags.get(n).is_none_or(|tag| is_short(&tag.digest));
            check(index.blob(&digest(n)), self.blobs.get(&n), true, is_exact, &mut tally);
            check(
                index.link(&scope(n), &digest(n)),
                self.links.get(&n),
                true,
                is_exact,
                &mut tally,
            );
            check(index.tag(&scope(n), &tag(n)), self.tags.get(&n), fits(&n), is_exact, &mut tally);
            let mut bytes = b"before".to_vec();
            if index.small(&digest(n), &mut bytes) {
                assert_eq!(&bytes[6..], self.small.get(&n).expect("never put"), "small {n}");
                tally.hits += 1;
            } else {
                assert_eq!(bytes, b"before");
            }
        }
        tally
    }
}

fn is_short(digest: &Digest) -> bool {
    digest.algorithm() == Algorithm::Sha256
}

fn check<T: PartialEq + std::fmt::Debug>(
    found: Lookup<T>,
    expected: Option<&T>,
    fits: bool,
    is_exact: bool,
    tally: &mut Tally,
) {
    match (&found, expected) {
        (Lookup::Hit(found), expected) => {
            tally.hits += 1;
            assert_eq!(Some(found), expected);
        }
        (Lookup::Unsure, Some(_)) if !fits => {}
        (_, Some(expected)) => {
            tally.unanswered += 1;
            assert!(!is_exact, "{expected:?} was put and is answered with {found:?}");
        }
        (_, None) => assert!(!is_exact || found == Lookup::Miss, "never put: {found:?}"),
    }
}

/// Puts a bit of everything under the keys below `keys`.
pub(super) fn fill(writer: &mut IndexWriter, model: &mut Model, keys: u64) {
    for n in 0..keys {
        let bytes = content(n, (n * 37 % 900) as usize);
        let entry = BlobEntry { size: bytes.len() as u64, ..blob(n) };
        writer.put_blob(&digest(n), &entry);
        writer.put_small(&digest(n), &bytes);
        writer.put_link(&scope(n), &digest(n), &link(n));
        let bound = TagEntry { digest: digest(n + 1), checked_at: 1_700_000_000 + n };
        writer.put_tag(&scope(n), &tag(n), &bound);
        model.blobs.insert(n, entry);
        model.small.insert(n, bytes);
        model.links.insert(n, link(n));
        model.tags.insert(n, bound);
    }
    writer.rebuilt();
}
