use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::oci::{Algorithm, Digest};
use crate::runtime::tests::{DRIVERS, on_workers};

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
                    let mut staged = Staged::create(store.clone(), right).await.unwrap();
                    staged.append(Bytes::from_static(b"hello ")).await.unwrap();
                    assert!(staged.verify().is_err(), "half of it");
                    staged.append(Bytes::from_static(b"world")).await.unwrap();
                    assert_eq!(staged.commit(true).await.unwrap(), 11);
                    let open = store.open_blob(&right, 11).await.unwrap().unwrap();
                    assert_eq!(open.size, 11);
                    assert!(store.open_blob(&right, 12).await.unwrap().is_none(), "wrong size");

                    let wrong = Digest::of(algorithm, b"something else");
                    let mut staged = Staged::create(store.clone(), wrong).await.unwrap();
                    staged.append(Bytes::from_static(b"hello")).await.unwrap();
                    let error = staged.commit(false).await.unwrap_err();
                    assert!(
                        matches!(&error, StageError::Digest(mismatch) if mismatch.size == 5),
                        "{error}"
                    );
                    assert!(store.open_blob(&wrong, 5).await.unwrap().is_none());
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
fn a_store_is_opened_once_and_swept_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let refused = Store::open(folder.path()).err().unwrap();
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
    std::fs::write(folder.path().join("staging/left-over"), b"half").unwrap();
    drop(store);
    let (_store, swept) = Store::open(folder.path()).unwrap();
    assert_eq!(swept, 1);
    assert_eq!(files_below(&folder.path().join("staging")), 0);
}
