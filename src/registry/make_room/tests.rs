use std::thread::JoinHandle;

use futures_channel::oneshot;

use super::super::eviction;
use super::super::{Due, IndexFeed, Lease, space};
use super::*;
use crate::catalog::{BlobRecord, NO_OWNER};
use crate::index::IndexOptions;
use crate::oci::{Algorithm, Digest};
use crate::storage::Pool;

const MIB: u64 = 1 << 20;

/// A store of at most 16 MiB with a room maker that is called by hand.
struct Rig {
    maker: RoomMaker,
    catalog_thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        let unstarted = Catalog::open(&store.catalog_path()).unwrap();
        let opened = unstarted.opened().clone();
        let (index, writer, _) = Index::open(IndexOptions {
            folder: store.index_path(),
            store_id: opened.store_id,
            slots_min: 1000,
            small_bytes: 0,
        })
        .unwrap();
        let (space, requests) = Space::new(16 * MIB);
        let due = (Due::First, opened.group);
        let feed = IndexFeed::new((index.clone(), writer), due, space.clone());
        let (catalog, thread) = unstarted.start(Box::new(feed)).unwrap();
        catalog.rebuild();
        let maker = RoomMaker {
            store: Arc::new(store),
            index,
            catalog,
            space,
            leases: Arc::default(),
            needs: Arc::default(),
            random: Random(7),
            requests,
            queue: VecDeque::new(),
            leaving: Vec::new(),
            told_at: None,
            evicted_at: None,
        };
        Self { maker, catalog_thread: Some(thread), _folder: folder }
    }

    fn pool(&self) -> &Arc<Pool> {
        self.maker.store.pool(ROOT_POOL).unwrap()
    }

    /// Stored content of 1 MiB.
    fn blob(&self, n: u64, is_hosted: bool) -> Digest {
        let bytes = n.to_le_bytes().repeat(MIB as usize / 8);
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        std::fs::write(self.pool().blob_path(&digest), &bytes).unwrap();
        let record = BlobRecord { digest, size: MIB, pool: 0, is_hosted, owner: NO_OWNER };
        let write = Write::PutBlob { record, is_synced: false };
        self.maker.catalog.write_blocking(vec![write], false).unwrap();
        digest
    }

    fn lease(&self, digest: &Digest) -> Lease {
        self.maker.leases.take(digest)
    }

    /// Asks for room as a fill does that has to wait.
    fn wait_for(&mut self, mebibytes: u64) -> oneshot::Receiver<space::Reservation> {
        let (answer, granted) = oneshot::channel();
        self.maker.queue.push_back(Waiting { bytes: mebibytes * MIB, answer });
        granted
    }

    fn is_stored(&self, digest: &Digest) -> bool {
        let is_file = self.pool().blob_path(digest).exists();
        assert_eq!(
            is_file,
            self.maker.index.blob(digest).hit().is_some(),
            "a name without its file"
        );
        is_file
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.maker.catalog.close(true);
        self.catalog_thread.take().map(JoinHandle::join);
    }
}

#[test]
fn what_is_leased_or_hosted_stays_whoever_wants_room() {
    let mut rig = Rig::new();
    let hosted = rig.blob(100, true);
    let leased: Vec<_> = (0..10).map(|n| rig.blob(n, false)).collect();
    let leases: Vec<_> = leased.iter().map(|digest| rig.lease(digest)).collect();
    let others: Vec<_> = (10..16).map(|n| rig.blob(n, false)).collect();
    let (mut six, mut one) = (rig.wait_for(6), rig.wait_for(1));
    rig.maker.make_room();
    assert!(rig.is_stored(&hosted) && leased.iter().all(|digest| rig.is_stored(digest)));
    assert!(!others.iter().any(|digest| rig.is_stored(digest)));
    let promised = six.try_recv().unwrap().unwrap();
    assert!(one.try_recv().unwrap().is_none(), "more than there may be was promised");
    assert!(rig.maker.space.is_stuck());
    assert_eq!((rig.maker.space.used(), rig.maker.space.reserved()), (10 * MIB, 6 * MIB));
    drop((leases, promised));
    rig.maker.make_room();
    assert!(one.try_recv().unwrap().is_some() && !rig.maker.space.is_stuck());
    assert!(rig.is_stored(&hosted));
}

#[test]
fn bytes_that_are_still_read_are_not_promised_to_others() {
    let mut rig = Rig::new();
    let all: Vec<_> = (0..16).map(|n| rig.blob(n, false)).collect();
    // Opened between the choice and the removal.
    let victims = rig.maker.choose(2 * MIB);
    let lease = rig.lease(&victims[0].digest);
    rig.maker.evict(&victims);
    assert_eq!((rig.maker.space.used(), rig.maker.space.leaving()), (14 * MIB, MIB));
    // Its successor has a lease of its own.
    let _successor = rig.lease(&victims[0].digest);
    assert!(rig.maker.space.try_reserve(2 * MIB).is_none());
    let promised = rig.maker.space.try_reserve(MIB).unwrap();
    drop(lease);
    rig.maker.settle();
    assert_eq!(rig.maker.space.leaving(), 0);
    assert!(rig.maker.space.try_reserve(MIB).is_some());
    drop(promised);
    assert_eq!(all.iter().filter(|digest| rig.is_stored(digest)).count(), 14);
    assert_eq!(rig.maker.space.reserved(), 0);
}

#[test]
fn room_is_made_in_order_and_given_to_whoever_still_wants_it() {
    let mut rig = Rig::new();
    for n in 0..16 {
        rig.blob(n, false);
    }
    let (mut first, gone, mut last) = (rig.wait_for(3), rig.wait_for(16), rig.wait_for(2));
    drop(gone);
    rig.maker.make_room();
    let first = first.try_recv().unwrap().unwrap();
    let last = last.try_recv().unwrap().unwrap();
    // No more than was needed, and the way down to the low watermark.
    assert_eq!(rig.maker.space.reserved(), 5 * MIB);
    assert_eq!(rig.maker.space.used(), 10 * MIB);
    drop((first, last));
    rig.maker.make_room();
    assert_eq!(rig.maker.space.used(), 10 * MIB, "evicted although nothing lacks");
}

#[test]
fn one_who_wants_too_much_does_not_hold_up_those_who_want_little() {
    let mut rig = Rig::new();
    let leases: Vec<_> = (0..10).map(|n| rig.blob(n, false)).map(|it| rig.lease(&it)).collect();
    let (mut much, mut little) = (rig.wait_for(8), rig.wait_for(4));
    rig.maker.make_room();
    assert!(much.try_recv().unwrap().is_none() && little.try_recv().unwrap().is_some());
    assert_eq!(leases.len(), rig.maker.leases.count());
}

#[test]
fn the_index_counts_uses_as_the_policy_was_measured_with() {
    for hits in [0, 1, 2, 5, 100, 4095] {
        for (last, now) in [(0, 0), (5, 6), (1439, 1440), (10, 100_000), (9_000, 10), (7, 7)] {
            let (index, policy) =
                (crate::index::counted(hits, last, now), eviction::counted(hits, last, now));
            assert_eq!(index, policy, "{hits} hits, {last} to {now}");
        }
    }
}
