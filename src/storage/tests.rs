use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::oci::{Algorithm, Digest, Digester};
use crate::runtime::File;
use crate::runtime::tests::{DRIVERS, on_workers};

fn held() -> Box<dyn std::any::Any> {
    Box::new(())
}

fn files_below(path: &Path) -> usize {
    std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { files_below(&path) } else { 1 })
        .sum()
}

#[test]
fn content_is_committed_when_its_digest_matches_and_gone_otherwise() {
    for driver in DRIVERS {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("store");
            let (store, swept) = Store::open(&root).unwrap();
            assert_eq!(swept, 0);
            assert_eq!(root.metadata().unwrap().permissions().mode() & 0o777, 0o700);
            let store = Arc::new(store);
            on_workers(1, driver, move |_| {
                let store = store.clone();
                async move {
                    let right = Digest::of(algorithm, b"hello world");
                    let mut staged = Staged::create(&store, ROOT_POOL, right, 0).await.unwrap();
                    staged.append(Bytes::from_static(b"hello ")).await.unwrap();
                    assert!(staged.verify().is_err(), "half of it");
                    staged.append(Bytes::from_static(b"world")).await.unwrap();
                    assert_eq!(staged.commit(true).await.unwrap(), 11);
                    let open = store.open_blob(ROOT_POOL, &right, 11, held).await.unwrap().unwrap();
                    assert_eq!(open.size, 11);
                    assert!(
                        store.open_blob(ROOT_POOL, &right, 12, held).await.unwrap().is_none(),
                        "wrong size"
                    );

                    let wrong = Digest::of(algorithm, b"something else");
                    let mut staged = Staged::create(&store, ROOT_POOL, wrong, 0).await.unwrap();
                    staged.append(Bytes::from_static(b"hello")).await.unwrap();
                    let error = staged.commit(false).await.unwrap_err();
                    assert!(
                        matches!(&error, StageError::Digest(mismatch) if mismatch.size == 5),
                        "{error}"
                    );
                    assert!(store.open_blob(ROOT_POOL, &wrong, 5, held).await.unwrap().is_none());
                    // The removal is a task of its own.
                    for _ in 0..100 {
                        crate::runtime::sleep(std::time::Duration::from_millis(10)).await;
                    }
                }
            });
            assert_eq!(files_below(&root.join("staging")), 0);
            assert_eq!(files_below(&root.join("blobs")), 1);
        }
    }
}

#[test]
fn content_is_written_in_whole_pieces_until_somebody_asks_for_the_rest() {
    const PIECE: u64 = crate::limits::FRAME_BYTES_MAX as u64;
    let content: Arc<Vec<u8>> = Arc::new((0..3 * PIECE + 77).map(|n| (n % 251) as u8).collect());
    for (driver, expected) in DRIVERS.into_iter().flat_map(|driver| [(driver, 0), (driver, 1)]) {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).unwrap().0);
        let content = content.clone();
        on_workers(1, driver, move |_| {
            let (store, content) = (store.clone(), Bytes::from(content.to_vec()));
            async move {
                let (digest, size) =
                    (Digest::of(Algorithm::Sha256, &content), content.len() as u64);
                // Whether or not its size is known.
                let create = || Staged::create(&store, ROOT_POOL, digest, expected * size);
                for odd in [4093, 16 * 1024, 200_001, 262_144, 300_000, content.len()] {
                    let mut staged = create().await.unwrap();
                    let (mut rest, mut settled) = (content.clone(), 0);
                    while !rest.is_empty() {
                        staged.append(rest.split_to(odd.min(rest.len()))).await.unwrap();
                        let (size, written) = (staged.size(), staged.written());
                        let is_all = expected == 1 && rest.is_empty() && written == size;
                        let whole = settled.max(size / PIECE * PIECE);
                        assert!(is_all || written == whole, "{odd}: {written} of {size}");
                        let mut there = vec![0; usize::try_from(written).unwrap()];
                        staged.shared().read_exact_at(&mut there, 0).unwrap();
                        assert!(content.starts_with(&there), "{odd}: {written} of {size}");
                        if size / 100_000 % 3 == 1 {
                            staged.settle().await.unwrap();
                            assert_eq!(staged.written(), size);
                            settled = size;
                        }
                    }
                    assert_eq!(staged.commit(false).await.unwrap(), size);
                    let stored = std::fs::read(store.pool(ROOT_POOL).unwrap().blob_path(&digest));
                    assert!(stored.unwrap() == content, "in pieces of {odd}");
                }
            }
        });
    }
}

#[test]
fn content_of_which_the_disk_refused_a_part_is_never_whole() {
    for driver in DRIVERS {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).unwrap().0);
        let path = folder.path().join("staging/refused");
        on_workers(1, driver, move |_| {
            let (store, path) = (store.clone(), path.clone());
            async move {
                std::fs::write(&path, b"").unwrap();
                // A file that cannot be written to.
                let file =
                    File::from_shared(Arc::new(std::fs::File::open(&path).unwrap())).unwrap();
                let pool = store.pool(ROOT_POOL).unwrap().clone();
                let digest = Digest::of(Algorithm::Sha256, b"hello world");
                let digester = Digester::new(Algorithm::Sha256);
                let mut staged = Staged::of_parts(pool, path, Rc::new(file), digest, digester, 0);
                staged.will_have(0);
                staged.append(Bytes::from_static(b"hello ")).await.unwrap();
                assert!(matches!(staged.settle().await, Err(StageError::Io { .. })));
                assert_eq!(staged.written(), 0, "what was refused is nobody's to read");
                assert!(staged.settle().await.is_err(), "and it is not forgotten");
                assert!(staged.append(Bytes::from_static(b"world")).await.is_err());
                assert!(matches!(staged.verify(), Err(StageError::Io { .. })));
                assert!(matches!(staged.commit(false).await, Err(StageError::Io { .. })));
                assert!(store.open_blob(ROOT_POOL, &digest, 11, held).await.unwrap().is_none());
            }
        });
    }
}

#[test]
fn a_commit_replaces_nothing_that_is_right_and_sets_aside_what_is_not() {
    use std::os::unix::fs::MetadataExt;
    for driver in DRIVERS {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"hello world");
        let path = store.pool(ROOT_POOL).unwrap().blob_path(&digest);
        let store = Arc::new(store);
        let commit = |durable: bool| {
            let store = store.clone();
            on_workers(1, driver, move |_| {
                let store = store.clone();
                async move {
                    let mut staged = Staged::create(&store, ROOT_POOL, digest, 0).await.unwrap();
                    staged.append(Bytes::from_static(b"hello world")).await.unwrap();
                    assert_eq!(staged.commit(durable).await.unwrap(), 11);
                    // The removal of what was not needed is a task of its own.
                    crate::runtime::sleep(std::time::Duration::from_millis(300)).await;
                }
            });
            assert_eq!(files_below(&folder.path().join("staging")), 0);
            assert_eq!(std::fs::read(&path).unwrap(), b"hello world");
            path.metadata().unwrap().ino()
        };
        let first = commit(true);
        assert_eq!((commit(false), commit(true)), (first, first), "the one that was promised");
        let quarantine = folder.path().join("quarantine");
        for (n, wrong) in [&b"hello"[..], b"HELLO WORLD"].into_iter().enumerate() {
            std::fs::write(&path, wrong).unwrap();
            assert_ne!(commit(n == 0), first);
            assert_eq!(files_below(&quarantine), n + 1);
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        commit(false);
        assert_eq!(std::fs::read_dir(&quarantine).unwrap().count(), 3);
    }
}

#[test]
fn content_that_came_in_any_order_is_hashed_from_its_file() {
    for driver in DRIVERS {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        let store = Arc::new(store);
        on_workers(1, driver, move |_| {
            let store = store.clone();
            async move {
                // No whole number of buffers.
                let bytes = Bytes::from(vec![7; 20_000_001]);
                let right = Digest::of(Algorithm::Sha256, &bytes);
                for is_right in [false, true] {
                    let mut staged = Staged::create(&store, ROOT_POOL, right, 0).await.unwrap();
                    let writer = staged.writer();
                    let end = bytes.slice(19_000_000..);
                    let end = if is_right { end } else { Bytes::from(vec![8; end.len()]) };
                    writer.write_at(end, 19_000_000).await.unwrap();
                    assert!(staged.hash_all(20_000_002).await.is_err(), "beyond its end");
                    writer.write_at(bytes.slice(..19_000_000), 0).await.unwrap();
                    staged.hash_all(20_000_001).await.unwrap();
                    let found = staged.commit(false).await.map_err(|error| error.to_string());
                    assert_eq!(found.is_ok(), is_right, "{found:?}");
                }
                let open = store.open_blob(ROOT_POOL, &right, 20_000_001, held).await.unwrap();
                assert!(open.is_some());
            }
        });
    }
}

#[test]
fn a_store_is_opened_once_and_swept_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let refused = Store::open(folder.path()).err().unwrap();
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
    std::fs::write(folder.path().join("staging/left-over"), b"half").unwrap();
    std::fs::create_dir_all(folder.path().join("staging/lost/found")).unwrap();
    drop(store);
    let (_store, swept) = Store::open(folder.path()).unwrap();
    assert_eq!(swept, 2);
    assert_eq!(files_below(&folder.path().join("staging")), 0);
}

// ---- further pools -----------------------------------------------------------------------------

const STORE: [u8; 16] = [7; 16];

/// A store with its folders of pools, `a` and `b`, which is closed when it is dropped.
struct Pools {
    folder: tempfile::TempDir,
    store: Store,
}

impl Pools {
    fn new(folder: tempfile::TempDir) -> Self {
        let (store, _) = Store::open(&folder.path().join("root")).unwrap();
        Self { folder, store }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn open_as(
        &mut self,
        store_id: [u8; 16],
        number: u8,
        folder: &str,
        is_made: bool,
    ) -> Result<bool, StoreError> {
        let path = self.path(folder);
        let name = if number == 1 { "a" } else { "b" };
        self.store.open_pool(&store_id, WantedPool { number, name, path: &path, is_made })
    }

    fn open(&mut self, number: u8, folder: &str, is_made: bool) -> Result<bool, StoreError> {
        self.open_as(STORE, number, folder, is_made)
    }

    /// As after a restart.
    fn again(self) -> Self {
        let Self { folder, store } = self;
        drop(store);
        Self::new(folder)
    }
}

#[test]
fn a_pool_is_made_once_and_known_again_wherever_its_folder_is_mounted() {
    let mut pools = Pools::new(tempfile::tempdir().unwrap());
    assert!(pools.open(1, "a", false).unwrap());
    let mode = pools.path("a").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // The mark was written, but the catalog did not learn of it: a crash in between.
    let mut pools = pools.again();
    assert!(pools.open(1, "a", false).unwrap());
    std::fs::write(pools.path("a/staging/left-over"), b"half").unwrap();
    std::fs::rename(pools.path("a"), pools.path("elsewhere")).unwrap();
    let mut pools = pools.again();
    assert!(pools.open(1, "elsewhere", true).unwrap());
    assert_eq!(files_below(&pools.path("elsewhere/staging")), 0, "swept");
    assert!(pools.open(2, "b", false).unwrap());
    let names: Vec<_> = pools.store.pools().map(|pool| (pool.number(), pool.name())).collect();
    assert_eq!(names, [(0, "root"), (1, "a"), (2, "b")]);
    let free = |pool| pools.store.free_bytes(pool).unwrap();
    let whole = pools.store.pool(ROOT_POOL).unwrap().disk_free_bytes().unwrap();
    assert!(free(1) <= whole / 2, "three share a file system: {} of {whole}", free(1));
}

#[test]
fn content_goes_into_the_pool_it_was_meant_for_and_is_read_from_there_only() {
    let mut pools = Pools::new(tempfile::tempdir().unwrap());
    assert!(pools.open(1, "a", false).unwrap());
    let path = pools.path("a");
    let store = Arc::new(pools.store);
    let poisoned = store.pool(1).unwrap().clone();
    on_workers(1, crate::runtime::Driver::Epoll, move |_| {
        let store = store.clone();
        async move {
            let digest = Digest::of(Algorithm::Sha256, b"hello");
            let mut staged = Staged::create(&store, 1, digest, 0).await.unwrap();
            staged.append(Bytes::from_static(b"hello")).await.unwrap();
            assert_eq!((staged.pool(), staged.commit(true).await.unwrap()), (1, 5));
            assert!(store.open_blob(1, &digest, 5, held).await.unwrap().is_some());
            assert!(store.open_blob(ROOT_POOL, &digest, 5, held).await.unwrap().is_none());
            let missing = store.open_blob(9, &digest, 5, held).await.unwrap_err().to_string();
            assert!(missing.contains("number 9) is missing"), "{missing}");
            // That we are short of something says nothing of the disk.
            let pool = store.pool(1).unwrap();
            let error = |errno: rustix::io::Errno| std::io::Error::from(errno);
            pool.poison(&std::io::Error::other("a queue is full"));
            pool.poison(&error(rustix::io::Errno::MFILE));
            assert!(!pool.is_poisoned());
            // Read-only, and the others go on.
            pool.poison(&error(rustix::io::Errno::IO));
            let refused = Staged::create(&store, 1, digest, 0).await.err().unwrap().to_string();
            assert!(refused.contains("pool a is read-only"), "{refused}");
            assert!(store.open_blob(1, &digest, 5, held).await.unwrap().is_some());
            assert!(Staged::create(&store, ROOT_POOL, digest, 0).await.is_ok());
            assert!(!store.is_poisoned(), "one of two");
        }
    });
    assert!(poisoned.is_poisoned());
    assert_eq!(files_below(&path.join("blobs")), 1);
}

#[test]
fn a_pool_that_lost_its_disk_is_left_out_and_nothing_is_put_into_the_mount_point() {
    let mut pools = Pools::new(tempfile::tempdir().unwrap());
    for number in [1, 2] {
        assert!(pools.open(number, if number == 1 { "a" } else { "b" }, false).unwrap());
    }
    let mut pools = pools.again();
    std::fs::remove_dir_all(pools.path("a")).unwrap();
    std::fs::remove_dir_all(pools.path("b")).unwrap();
    std::fs::create_dir(pools.path("b")).unwrap();
    assert!(!pools.open(1, "a", true).unwrap(), "no folder");
    assert!(!pools.open(2, "b", true).unwrap(), "an empty one");
    pools.store.pool_undeclared(3, "c");
    assert_eq!(files_below(&pools.path("b")), 0);
    assert!(!pools.path("a").exists());
    assert!(!pools.store.has_pool(1) && !pools.store.has_pool(2) && pools.store.has_pool(0));
    let missing: Vec<_> =
        pools.store.missing().iter().map(|pool| (pool.number, pool.is_declared)).collect();
    assert_eq!(missing, [(1, true), (2, true), (3, false)]);
}

#[test]
fn what_is_not_the_pool_is_refused_in_so_many_words() {
    let mut pools = Pools::new(tempfile::tempdir().unwrap());
    assert!(pools.open(1, "a", false).unwrap());
    assert!(pools.open(2, "b", false).unwrap());
    let refusal = |found: Result<bool, StoreError>| found.unwrap_err().to_string();
    let twice = refusal(pools.open(3, "a", false));
    assert!(twice.contains("found the folder of pool \"a\""), "{twice}");
    let mut pools = pools.again();
    for (case, found, words) in [
        (
            "swapped",
            pools.open(1, "b", true),
            ["pool \"a\", number 1", "found pool \"b\"", "swapped"],
        ),
        (
            "another store's",
            pools.open_as([8; 16], 1, "a", true),
            ["this store", "of another store", "`path`"],
        ),
        ("the root", pools.open(1, "root", false), ["own", "\"root\"", "another path"]),
    ] {
        let text = refusal(found);
        assert!(words.iter().all(|word| text.contains(word)), "{case}: {text}");
    }
    std::fs::write(pools.path("a/pool.json"), b"{").unwrap();
    let text = refusal(pools.open(1, "a", true));
    assert!(text.contains("cannot be read") && text.contains("another name"), "{text}");
    std::fs::create_dir_all(pools.path("old/blobs")).unwrap();
    let text = refusal(pools.open(3, "old", false));
    assert!(text.contains("expected an empty folder"), "{text}");
    let other = Store::open(&pools.path("root2")).unwrap();
    let mut other = other.0;
    assert!(pools.open(2, "b", true).unwrap());
    let path = pools.path("b");
    let wanted = WantedPool { number: 2, name: "b", path: &path, is_made: true };
    let held = other.open_pool(&STORE, wanted).unwrap_err();
    assert!(matches!(held, StoreError::Locked { .. }), "{held}");
}

#[test]
fn what_is_no_file_is_no_content_and_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"");
    let path = store.pool(ROOT_POOL).unwrap().blob_path(&digest);
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let store = Arc::new(store);
    on_workers(1, crate::runtime::Driver::Epoll, move |_| {
        let store = store.clone();
        async move {
            let opened = store.open_blob(ROOT_POOL, &digest, 0, held);
            let opened = crate::runtime::timeout(std::time::Duration::from_secs(10), opened).await;
            assert!(opened.unwrap().unwrap().is_none());
            let read = store.read_small(ROOT_POOL, &digest, 0);
            let read = crate::runtime::timeout(std::time::Duration::from_secs(10), read).await;
            assert!(read.unwrap().unwrap().is_none());
        }
    });
}

#[test]
fn a_file_that_is_kept_open_is_used_only_while_it_is_what_its_name_promises() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&folder.path().join("store")).unwrap();
    let store = Arc::new(store);
    on_workers(1, crate::runtime::Driver::Epoll, move |_| {
        let store = store.clone();
        async move {
            let digest = Digest::of(Algorithm::Sha256, b"hello");
            let put = async || {
                let mut staged = Staged::create(&store, ROOT_POOL, digest, 0).await.unwrap();
                staged.append(Bytes::from_static(b"hello")).await.unwrap();
                staged.commit(true).await.unwrap();
            };
            let open = async || store.open_blob(ROOT_POOL, &digest, 5, held).await.unwrap();
            put().await;
            let first = open().await.unwrap().file;
            assert!(Arc::ptr_eq(&first, &open().await.unwrap().file), "kept open");
            let pool = store.pool(ROOT_POOL).unwrap();
            let path = pool.blob_path(&digest);

            // Removed, and stored again: another file.
            store.remove_blob(ROOT_POOL, &digest).unwrap();
            assert!(open().await.is_none(), "removed");
            put().await;
            let second = open().await.unwrap().file;
            assert!(!Arc::ptr_eq(&first, &second));

            // Set aside, and stored again: what was open is the damaged one.
            assert!(pool.quarantine(&path, None).unwrap().is_some());
            assert!(open().await.is_none(), "in quarantine");
            put().await;
            let third = open().await.unwrap().file;
            assert!(!Arc::ptr_eq(&second, &third));

            // Cut off by somebody else.
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4).unwrap();
            while open().await.is_some() {
                // Found out within 25 ms.
                crate::runtime::sleep(std::time::Duration::from_millis(5)).await;
            }

            // What was removed does not stay open.
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5).unwrap();
            assert!(open().await.is_some());
            assert_eq!(open_files::count(), 1);
            store.remove_blob(ROOT_POOL, &digest).unwrap();
            while open_files::count() > 0 {
                crate::runtime::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    });
}
