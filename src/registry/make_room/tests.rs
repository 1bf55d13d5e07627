use std::thread::JoinHandle;

use futures_channel::oneshot;

use super::super::eviction;
use super::super::{Due, IndexFeed, Lease, SpaceLimits, space};
use super::*;
use crate::catalog::{BlobRecord, NO_OWNER, Write};
use crate::index::IndexOptions;
use crate::keeping::Keeping;
use crate::oci::{Algorithm, Digest};
use crate::storage::{ROOT_POOL, WantedPool};

const MIB: u64 = 1 << 20;

fn claim(mebibytes: u64) -> Claim {
    Claim { pool: ROOT_POOL, owner: NO_OWNER, is_hosted: false, bytes: mebibytes * MIB }
}

/// A store of at most 16 MiB with a room maker that is called by hand.
struct Rig {
    maker: RoomMaker,
    catalog_thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::with(SpaceLimits { total: 16 * MIB, ..Default::default() })
    }

    /// The same with pools and upstreams that have limits of their own.
    fn with(limits: SpaceLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(folder.path()).unwrap();
        for &number in limits.pools.keys() {
            let path = folder.path().join("pool");
            let wanted = WantedPool { number, name: "a", path: &path, is_made: false };
            assert!(store.open_pool(&[1; 16], wanted).unwrap());
        }
        let unstarted = Catalog::open(&store.catalog_path()).unwrap();
        let opened = unstarted.opened().clone();
        let (index, writer, _) = Index::open(IndexOptions {
            folder: store.index_path(),
            store_id: opened.store_id,
            slots_min: 1000,
            small_bytes: 0,
        })
        .unwrap();
        let (space, requests) = Space::new(&store, limits);
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

    /// Stored content of 1 MiB.
    fn blob(&self, n: u64, is_hosted: bool) -> Digest {
        self.blob_in(n, is_hosted, ROOT_POOL, NO_OWNER)
    }

    fn blob_in(&self, n: u64, is_hosted: bool, pool: u8, owner: u16) -> Digest {
        self.put(n, |record| BlobRecord { pool, owner, is_hosted, ..record })
    }

    /// Stored content that is kept on these terms.
    fn blob_on(&self, n: u64, keeping: Keeping) -> Digest {
        self.put(n, |record| BlobRecord { keeping, ..record })
    }

    fn put(&self, n: u64, with: impl FnOnce(BlobRecord) -> BlobRecord) -> Digest {
        let bytes = n.to_le_bytes().repeat(MIB as usize / 8);
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let record = with(BlobRecord {
            digest,
            size: MIB,
            pool: ROOT_POOL,
            is_hosted: false,
            owner: NO_OWNER,
            keeping: Keeping::default(),
        });
        let path = self.maker.store.pool(record.pool).unwrap().blob_path(&digest);
        std::fs::write(path, &bytes).unwrap();
        let write = Write::PutBlob { record, is_synced: false };
        self.maker.catalog.write_blocking(vec![write], false).unwrap();
        digest
    }

    fn lease(&self, digest: &Digest) -> Lease {
        self.maker.leases.take(digest)
    }

    /// Asks for room as a fill does that has to wait.
    fn wait_for(&mut self, mebibytes: u64) -> oneshot::Receiver<space::Reservation> {
        self.wait_for_claim(claim(mebibytes))
    }

    fn wait_for_claim(&mut self, claim: Claim) -> oneshot::Receiver<space::Reservation> {
        let (answer, granted) = oneshot::channel();
        self.maker.queue.push_back(Waiting { claim, answer });
        granted
    }

    fn is_stored(&self, digest: &Digest) -> bool {
        let mut pools = self.maker.store.pools();
        let is_file = pools.any(|pool| pool.blob_path(digest).exists());
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
    let victims = rig.maker.choose(Limit::Total, 2 * MIB);
    let read = victims[0].record.digest;
    let lease = rig.lease(&read);
    assert_eq!(rig.maker.evict(victims), 2);
    assert_eq!((rig.maker.space.used(), rig.maker.space.leaving()), (14 * MIB, MIB));
    // Its successor has a lease of its own.
    let _successor = rig.lease(&read);
    assert!(rig.maker.space.try_reserve(claim(2)).is_none());
    let promised = rig.maker.space.try_reserve(claim(1)).unwrap();
    drop(lease);
    rig.maker.settle();
    assert_eq!(rig.maker.space.leaving(), 0);
    assert!(rig.maker.space.try_reserve(claim(1)).is_some());
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

#[test]
fn an_upstream_over_its_limit_loses_its_own_content_only() {
    let owners = [(1, 4 * MIB)].into();
    let mut rig = Rig::with(SpaceLimits { total: 16 * MIB, owners, ..Default::default() });
    let own: Vec<_> = (0..6).map(|n| rig.blob_in(n, false, ROOT_POOL, 1)).collect();
    let others: Vec<_> = (6..12).map(|n| rig.blob_in(n, false, ROOT_POOL, 2)).collect();
    assert_eq!(rig.maker.space.owned(1), Some((6 * MIB, 4 * MIB)));
    rig.maker.make_room();
    assert_eq!(own.iter().filter(|digest| rig.is_stored(digest)).count(), 3, "the low watermark");
    assert!(others.iter().all(|digest| rig.is_stored(digest)));
    // A download of it makes room among its own, one of another upstream among all.
    let mut more = rig.wait_for_claim(Claim { owner: 1, ..claim(4) });
    rig.maker.make_room();
    let more = more.try_recv().unwrap().unwrap();
    assert!(others.iter().all(|digest| rig.is_stored(digest)));
    assert!(!own.iter().any(|digest| rig.is_stored(digest)));
    assert!(rig.maker.space.try_reserve(Claim { owner: 1, ..claim(1) }).is_none());
    assert!(rig.maker.space.try_reserve(Claim { owner: 2, ..claim(6) }).is_some());
    drop(more);
    assert!(rig.maker.space.try_reserve(Claim { owner: 1, ..claim(4) }).is_some());
}

#[test]
fn whoever_waits_for_a_limit_that_is_stuck_holds_up_nobody_else() {
    let limits = SpaceLimits {
        total: 16 * MIB,
        owners: [(1, 4 * MIB)].into(),
        pools: [(1, 4 * MIB)].into(),
    };
    let mut rig = Rig::with(limits);
    let own: Vec<_> = (0..4).map(|n| rig.blob_in(n, false, ROOT_POOL, 1)).collect();
    let leases: Vec<_> = own.iter().map(|digest| rig.lease(digest)).collect();
    let in_pool: Vec<_> = (4..8).map(|n| rig.blob_in(n, false, 1, 2)).collect();
    let in_root: Vec<_> = (8..16).map(|n| rig.blob_in(n, false, ROOT_POOL, 2)).collect();
    let mut stuck = rig.wait_for_claim(Claim { owner: 1, ..claim(1) });
    let mut pool = rig.wait_for_claim(Claim { pool: 1, ..claim(2) });
    rig.maker.make_room();
    assert!(stuck.try_recv().unwrap().is_none() && rig.maker.space.is_stuck());
    let pool = pool.try_recv().unwrap().expect("room in the pool");
    assert!(in_root.iter().all(|digest| rig.is_stored(digest)), "nothing lacked there");
    assert_eq!(in_pool.iter().filter(|digest| rig.is_stored(digest)).count(), 1);
    assert_eq!(rig.maker.space.used_in(1), Some(MIB));
    assert!(own.iter().all(|digest| rig.is_stored(digest)), "all of it is being read");
    drop((leases, pool));
    rig.maker.make_room();
    assert!(stuck.try_recv().unwrap().is_some() && !rig.maker.space.is_stuck());
}

#[test]
fn what_is_pinned_stays_until_it_expires_and_what_expired_goes_first() {
    let mut rig = Rig::new();
    let now = clock::unix_seconds();
    let pinned = Keeping { is_pinned: true, ..Keeping::default() };
    let later = Keeping { expires_at: Some(now + 3600), ..pinned };
    let pinned = [(0, pinned), (1, later)].map(|(n, keeping)| rig.blob_on(n, keeping));
    let past = Keeping { expires_at: Some(now), ..Keeping::default() };
    let past_pinned = Keeping { is_pinned: true, priority: 10, ..past };
    let expired = [(2, past), (3, past_pinned)].map(|(n, keeping)| rig.blob_on(n, keeping));
    let low = rig.blob_on(4, Keeping { priority: -1, ..Keeping::default() });
    let others: Vec<_> = (5..16).map(|n| rig.blob(n, false)).collect();
    let is_stored = |rig: &Rig, all: &[Digest]| all.iter().filter(|it| rig.is_stored(it)).count();

    let victims = |rig: &mut Rig, mebibytes| {
        let victims = rig.maker.choose(Limit::Total, mebibytes * MIB);
        let digests = victims.iter().map(|victim| victim.record.digest).collect::<Vec<_>>();
        rig.maker.evict(victims);
        digests
    };
    let first = victims(&mut rig, 2);
    assert!(expired.iter().all(|digest| first.contains(digest)), "{first:?}");
    assert_eq!(victims(&mut rig, 1), [low]);
    assert_eq!((is_stored(&rig, &pinned), is_stored(&rig, &others)), (2, 11));

    let mut all = rig.wait_for(16);
    rig.maker.make_room();
    assert!(all.try_recv().unwrap().is_none() && rig.maker.space.is_stuck());
    assert_eq!((is_stored(&rig, &pinned), is_stored(&rig, &others)), (2, 0));
    assert_eq!(rig.maker.space.used(), 2 * MIB, "pinned content counts as used");
}

#[test]
fn what_has_become_hosted_or_is_being_committed_is_not_evicted_any_more() {
    let mut rig = Rig::new();
    let all: Vec<_> = (0..16).map(|n| rig.blob(n, false)).collect();
    let victims = rig.maker.choose(Limit::Total, 3 * MIB);
    let (pushed, moved) = (victims[0].record.clone(), victims[1].record.digest);
    let (pushed_digest, left) = (pushed.digest, victims[2].record.digest);
    // A push makes the first of them ours, and another one is being committed.
    let record = BlobRecord { is_hosted: true, ..pushed };
    let write = Write::PutBlob { record: record.clone(), is_synced: true };
    rig.maker.catalog.write_blocking(vec![write], true).unwrap();
    let store = rig.maker.store.clone();
    let turn = pollster::block_on(store.turn(&moved));
    assert_eq!(rig.maker.evict(victims.clone()), 1);
    assert!(rig.is_stored(&pushed_digest) && rig.is_stored(&moved) && !rig.is_stored(&left));
    assert_eq!(rig.maker.catalog.blob_now(&pushed_digest).unwrap(), Some(record));
    assert_eq!((rig.maker.space.used(), rig.maker.space.leaving()), (14 * MIB, 0));
    drop(turn);
    assert_eq!(rig.maker.evict(victims), 1);
    assert_eq!(all.iter().filter(|digest| rig.is_stored(digest)).count(), 14);
    assert_eq!((rig.maker.space.used(), rig.maker.space.leaving()), (13 * MIB, 0));
}

#[test]
fn what_cannot_be_removed_keeps_its_name_and_its_pool_is_left_alone() {
    let limits =
        SpaceLimits { total: 16 * MIB, pools: [(1, 8 * MIB)].into(), ..Default::default() };
    let mut rig = Rig::with(limits);
    // A folder is in the place of each file of the root: no unlink removes it.
    let fixed: Vec<_> = (0..14).map(|n| rig.blob(n, false)).collect();
    for digest in &fixed {
        let path = rig.maker.store.pool(ROOT_POOL).unwrap().blob_path(digest);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
    }
    let mut much = rig.wait_for(8);
    rig.maker.make_room();
    assert!(much.try_recv().unwrap().is_none() && rig.maker.space.is_stuck());
    assert!(fixed.iter().all(|digest| rig.is_stored(digest)), "forgotten, and still there");
    for digest in &fixed {
        assert!(rig.maker.catalog.blob_now(digest).unwrap().is_some());
    }
    assert_eq!((rig.maker.space.used(), rig.maker.space.leaving()), (14 * MIB, 0));
    assert!(rig.maker.space.is_fixed(ROOT_POOL) && !rig.maker.space.is_fixed(1));
    // The other one still makes room.
    let other: Vec<_> = (20..22).map(|n| rig.blob_in(n, false, 1, NO_OWNER)).collect();
    let mut two = rig.wait_for_claim(Claim { pool: 1, ..claim(2) });
    rig.maker.queue.rotate_right(1);
    rig.maker.make_room();
    assert!(two.try_recv().unwrap().is_some());
    assert!(!other.iter().any(|digest| rig.is_stored(digest)));
    assert!(fixed.iter().all(|digest| rig.is_stored(digest)));
}

#[test]
fn bytes_that_have_just_become_free_are_not_counted_twice() {
    let mut rig = Rig::new();
    let digest = rig.blob(1, false);
    let lease = rig.lease(&digest);
    let reader = rig.maker.leases.detach(&digest).unwrap();
    let huge = Claim { bytes: 1 << 60, ..claim(0) };
    rig.maker.space.leaves(&huge);
    rig.maker.leaving.push((reader, huge));
    drop(lease);
    // The disk is asked after its last reader has gone, so it has told of these bytes.
    rig.maker.make_room();
    assert!(rig.maker.space.disk_free_in(ROOT_POOL).unwrap() < 1 << 60);
}

#[test]
fn nothing_is_evicted_in_the_place_of_what_is_about_to_be_closed() {
    let mut rig = Rig::new();
    let all: Vec<_> = (0..16).map(|n| rig.blob(n, false)).collect();
    // All of them were served just now, and are kept open.
    let kept: Vec<_> = all.iter().map(|digest| (*digest, rig.lease(digest).keep_open())).collect();
    let (leases, index) = (rig.maker.leases.clone(), rig.maker.index.clone());
    let closing = std::thread::spawn(move || {
        // As a worker does: what has no name any more is closed, a little later.
        let began = std::time::Instant::now();
        let mut kept = kept;
        while !kept.is_empty() && began.elapsed() < std::time::Duration::from_secs(1) {
            std::thread::sleep(std::time::Duration::from_millis(20));
            kept.retain(|(digest, _)| index.blob(digest).hit().is_some());
        }
        drop((leases, kept));
    });
    let mut one = rig.wait_for(1);
    rig.maker.make_room();
    assert!(one.try_recv().unwrap().is_some());
    let stored = all.iter().filter(|digest| rig.is_stored(digest)).count();
    assert!(stored >= 14, "{stored} of 16 stayed, to make room for one");
    closing.join().unwrap();
}
