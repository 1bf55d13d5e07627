use std::path::Path;
use std::thread::JoinHandle;

use super::*;
use crate::catalog::{BlobRecord, LinkRecord, NO_OWNER, Subscriber, TagRecord, Tended, Write};
use crate::config::Config;
use crate::keeping::Keeping;
use crate::oci::{Algorithm, Digest, Namespace, RepositoryName, Scope, Tag};
use crate::storage::{Pool, ROOT_POOL};

/// Nobody listens to the catalog.
struct Nobody;

impl Subscriber for Nobody {
    fn applied(&mut self, _: &Write) {}
    fn rebuilt(&mut self) {}
    fn group(&mut self, _: u64) {}
    fn offered(&mut self, _: &Digest, _: &[u8]) {}
    fn tend(&mut self) -> Tended {
        Tended::Idle
    }
    fn closed(&mut self) {}
}

/// A store in a temporary folder, filled without a server. All of its files count as old.
pub(in crate::registry) struct Scratch {
    pub(in crate::registry) upkeep: Upkeep,
    catalog_thread: Option<JoinHandle<()>>,
    pub(in crate::registry) folder: tempfile::TempDir,
}

impl Scratch {
    pub(in crate::registry) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        let unstarted = Catalog::open(&store.catalog_path()).unwrap();
        let (catalog, thread) = unstarted.start(Box::new(Nobody)).unwrap();
        let pushes = Pushes {
            gate: Arc::default(),
            rules: HostedRules::new(&Config::embedded().unwrap()),
            uploads: Arc::default(),
        };
        let mut upkeep = Upkeep::new(Arc::new(store), catalog, &pushes);
        upkeep.since = SystemTime::now() + Duration::from_secs(3600);
        Self { upkeep, catalog_thread: Some(thread), folder }
    }

    pub(in crate::registry) fn write(&self, writes: Vec<Write>) {
        self.upkeep.catalog.write_blocking(writes, false).unwrap();
    }

    pub(in crate::registry) fn pool(&self) -> &Pool {
        self.upkeep.store.pool(ROOT_POOL).unwrap()
    }

    /// A file of content, without a name.
    pub(in crate::registry) fn file(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        std::fs::write(self.pool().blob_path(&digest), bytes).unwrap();
        digest
    }

    /// Stored content.
    pub(in crate::registry) fn blob(&self, bytes: &[u8], is_hosted: bool) -> Digest {
        let digest = self.file(bytes);
        let record = BlobRecord {
            digest,
            size: bytes.len() as u64,
            pool: 0,
            is_hosted,
            owner: NO_OWNER,
            keeping: Keeping::default(),
        };
        self.write(vec![Write::PutBlob { record, is_synced: true }]);
        digest
    }

    pub(in crate::registry) fn link(&self, link: LinkRecord) {
        self.write(vec![Write::PutLink(link)]);
    }

    pub(in crate::registry) fn tag(&self, scope: &Scope, tag: &str, digest: Digest) {
        let tag = Tag::parse(tag).unwrap();
        let record = TagRecord { scope: scope.clone(), tag, digest, checked_at: 1 };
        self.write(vec![Write::PutTag(record)]);
    }

    pub(in crate::registry) fn has_name(&self, digest: &Digest) -> bool {
        self.upkeep.catalog.blob_now(digest).unwrap().is_some()
    }

    pub(in crate::registry) fn has_file(&self, digest: &Digest) -> bool {
        self.path(digest).symlink_metadata().is_ok()
    }

    pub(in crate::registry) fn path(&self, digest: &Digest) -> std::path::PathBuf {
        self.pool().blob_path(digest)
    }

    pub(in crate::registry) fn quarantined(&self) -> usize {
        let folder: &Path = &self.folder.path().join("quarantine");
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.upkeep.catalog.close(true);
        self.catalog_thread.take().map(JoinHandle::join);
    }
}

pub(in crate::registry) fn hosted(repository: &str) -> Scope {
    Scope { upstream: None, repository: RepositoryName::parse(repository).unwrap() }
}

pub(in crate::registry) fn cached(repository: &str) -> Scope {
    let upstream = Some(Namespace::parse("ghcr.io").unwrap());
    Scope { upstream, ..hosted(repository) }
}

#[test]
fn a_rate_is_kept_and_a_stop_is_noticed() {
    let progress = Progress::default();
    let started = clock::now();
    let mut pace = Pace::new(1_000_000, &progress);
    for _ in 0..10 {
        assert!(pace.spend(20_000));
    }
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
    progress.stop();
    assert!(!Pace::new(1, &progress).spend(1_000_000));
}

#[test]
fn problems_are_counted_beyond_those_that_are_told() {
    let mut problems = Problems::default();
    (0..PROBLEMS_MAX + 5).for_each(|n| problems.add(n.to_string()));
    assert_eq!((problems.told.len(), problems.more), (PROBLEMS_MAX, 5));
}

#[test]
fn removal_waits_for_a_push_and_the_next_push_for_the_removal() {
    let gate = Arc::new(PushGate::default());
    let pushing = pollster::block_on(gate.pushing());
    let (removed, is_removed) = std::sync::mpsc::channel();
    let remover = gate.clone();
    let thread = std::thread::spawn(move || {
        let _removing = remover.removing();
        removed.send(()).unwrap();
    });
    assert!(is_removed.recv_timeout(Duration::from_millis(50)).is_err(), "it waits");
    drop(pushing);
    is_removed.recv_timeout(Duration::from_secs(10)).unwrap();
    thread.join().unwrap();
    drop(pollster::block_on(gate.pushing()));
}

/// How often a task was woken.
#[derive(Default)]
struct Wakes(AtomicU64);

impl std::task::Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn pushes_that_wait_do_not_keep_each_other_awake() {
    let gate = PushGate::default();
    let wakes = [(); 3].map(|()| Arc::<Wakes>::default());
    let mut waiting = [(); 3].map(|()| Box::pin(gate.pushing()));
    let mut poll_woken = |last: &mut [u64; 3]| {
        let mut polled = 0;
        for ((future, wakes), last) in waiting.iter_mut().zip(&wakes).zip(last) {
            let now = wakes.0.load(Ordering::SeqCst);
            if now != *last {
                *last = now;
                polled += 1;
                let waker = std::task::Waker::from(wakes.clone());
                let poll = future.as_mut().poll(&mut std::task::Context::from_waker(&waker));
                assert!(poll.is_pending(), "a removal goes on");
            }
        }
        polled
    };
    let removing = gate.removing();
    assert_eq!(poll_woken(&mut [u64::MAX; 3]), 3, "all wait");
    drop(removing);
    // The next removal is there before any of them.
    let _removing = gate.removing();
    let mut last = [0; 3];
    let rounds = (0..10).take_while(|_| poll_woken(&mut last) > 0).count();
    assert!(rounds < 10, "they wake each other without end");
}
