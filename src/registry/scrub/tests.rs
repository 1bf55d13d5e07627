use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::SystemTime;

use super::*;
use crate::registry::upkeep::tests::Scratch;

const FAST: u64 = 1 << 40;

fn verify(scratch: &Scratch) -> VerifyReport {
    scratch.upkeep.verify(FAST, &Progress::default()).unwrap()
}

/// One way to damage a file.
type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 6] = [
    ("a flipped bit", |path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[3] ^= 0x10;
        fs::write(path, bytes).unwrap();
    }),
    ("cut short", |path| fs::File::options().write(true).open(path).unwrap().set_len(4).unwrap()),
    ("longer", |path| {
        let mut bytes = fs::read(path).unwrap();
        bytes.push(0);
        fs::write(path, bytes).unwrap();
    }),
    ("empty", |path| fs::write(path, b"").unwrap()),
    ("a symbolic link to itself", |path| {
        fs::remove_file(path).unwrap();
        symlink(path, path).unwrap();
    }),
    ("a folder", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
];

#[test]
fn what_is_right_stays_and_every_damage_is_set_aside() {
    for is_hosted in [false, true] {
        let scratch = Scratch::new();
        let right = scratch.blob(b"untouched content", is_hosted);
        for (nth, (what, damage)) in DAMAGES.into_iter().enumerate() {
            let wrong = scratch.blob(what.as_bytes(), is_hosted);
            let report = verify(&scratch);
            assert_eq!((report.damage(), report.blobs, report.is_well()), (0, 2, true), "{what}");
            damage(&scratch.path(&wrong));
            let progress = Progress::default();
            let report = scratch.upkeep.verify(FAST, &progress).unwrap();
            let (cached, hosted) = (u64::from(!is_hosted), u64::from(is_hosted));
            assert_eq!((report.damaged, report.damaged_hosted), (cached, hosted), "{report:?}");
            assert_eq!(report.is_well(), !is_hosted, "{what}");
            assert_eq!((progress.now().blobs, progress.now().blobs_total), (2, 2));
            assert!(report.problems.told[0].contains(&wrong.to_string()), "{report:?}");
            assert!(!scratch.has_name(&wrong) && !scratch.has_file(&wrong), "{what}");
            assert!(scratch.has_name(&right) && scratch.has_file(&right), "{what}");
            assert_eq!(scratch.quarantined(), nth + 1, "{what}");
        }
    }
}

#[test]
fn a_name_without_a_file_is_removed() {
    for is_hosted in [false, true] {
        let scratch = Scratch::new();
        let gone = scratch.blob(b"gone", is_hosted);
        fs::remove_file(scratch.path(&gone)).unwrap();
        let report = verify(&scratch);
        let missing = (report.missing, report.missing_hosted);
        assert_eq!(missing, (u64::from(!is_hosted), u64::from(is_hosted)));
        assert_eq!((report.is_well(), scratch.has_name(&gone)), (!is_hosted, false));
    }
}

#[test]
fn files_without_a_name_go_unless_they_may_be_about_to_get_one() {
    let mut scratch = Scratch::new();
    let named = scratch.blob(b"named", false);
    let orphan = scratch.file(b"orphan");
    let foreign = scratch.path(&orphan).with_file_name("README");
    fs::write(&foreign, "hello").unwrap();
    // In a folder that is not its own.
    let misplaced = scratch.path(&orphan).with_file_name(named.hex());
    fs::write(&misplaced, "named").unwrap();

    let later = scratch.upkeep.since;
    scratch.upkeep.since = SystemTime::UNIX_EPOCH;
    let report = verify(&scratch);
    assert_eq!((report.orphans, report.foreign), (0, 0), "younger than the process");
    scratch.upkeep.since = later;
    let report = verify(&scratch);
    assert_eq!((report.orphans, report.orphan_bytes, report.foreign), (1, 6, 2), "{report:?}");
    assert!(report.is_well());
    assert!(!scratch.has_file(&orphan) && !foreign.exists() && !misplaced.exists());
    assert!(scratch.has_file(&named));
    assert_eq!(scratch.quarantined(), 2);
}

#[test]
fn with_a_catalog_that_names_nothing_no_file_is_an_orphan() {
    let scratch = Scratch::new();
    let lonely = [scratch.file(b"one"), scratch.file(b"two")];
    let report = verify(&scratch);
    assert_eq!((report.orphans, report.unrepaired, report.is_well()), (0, 1, false));
    assert!(report.problems.told[0].contains("catalog.redb"), "{report:?}");
    assert!(lonely.iter().all(|digest| scratch.has_file(digest)));
}

#[test]
fn a_successor_of_the_damaged_file_is_not_set_aside() {
    let scratch = Scratch::new();
    let digest = scratch.blob(b"content", false);
    let record = scratch.upkeep.catalog.blob_now(&digest).unwrap().unwrap();
    fs::write(scratch.path(&digest), b"CONTENT").unwrap();
    let found = scratch.pool().inspect(&digest, 7, |_| true).unwrap();
    // As a fill commits: another file takes the name.
    let staged = scratch.folder.path().join("staging/x");
    fs::write(&staged, b"content").unwrap();
    fs::rename(&staged, scratch.path(&digest)).unwrap();
    let mut report = VerifyReport::default();
    let looked = scratch.upkeep.judge(scratch.pool(), &record, found, &mut report).unwrap();
    assert!(matches!(looked, Looked::Changed));
    assert!(scratch.has_name(&digest) && scratch.has_file(&digest));
    assert_eq!((report, scratch.quarantined()), (VerifyReport::default(), 0));
}

#[test]
fn a_stop_ends_it_and_is_told() {
    let scratch = Scratch::new();
    scratch.blob(b"content", false);
    let progress = Progress::default();
    progress.stop();
    let report = scratch.upkeep.verify(FAST, &progress).unwrap();
    assert!(report.stopped && !report.is_well() && report.blobs == 0);
}

#[test]
fn many_contents_are_all_looked_at() {
    let scratch = Scratch::new();
    let all: Vec<Digest> =
        (0..PIECE + 200).map(|n| scratch.blob(&n.to_le_bytes(), false)).collect();
    for digest in all.iter().step_by(3) {
        (DAMAGES[0].1)(&scratch.path(digest));
    }
    let report = verify(&scratch);
    assert_eq!(report.damaged as usize, all.len().div_ceil(3));
    assert_eq!(report.blobs as usize, all.len());
    assert_eq!(report.problems.told.len() + report.problems.more as usize, all.len().div_ceil(3));
}
