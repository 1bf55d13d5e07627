//! Processes that end, machines that go down, files that vanish under the map.

use std::fs;

use super::super::recovery::{generation_path, open_in_boot};
use super::super::{Index, Lookup, Opened, TagEntry};
use super::support::{Model, blob, digest, fill, folder, open, options, scope, tag};

const KEYS: u64 = 200;

#[test]
fn a_killed_process_is_trusted_in_the_same_boot_and_unsure_until_rebuilt() {
    let folder = folder();
    let mut model = Model::default();
    {
        let (_, mut writer, _) = open(options(folder.path(), 2000, 1 << 20));
        fill(&mut writer, &mut model, KEYS);
        writer.set_applied(41);
        writer.set_applied(42);
        // Not closed: as after kill -9, the page cache has it all and the header says "not clean".
    }
    let (index, mut writer, opened) = open(options(folder.path(), 2000, 1 << 20));
    assert_eq!(opened, Opened::Trusted { clean: false, applied: 42 });
    model.compare(&index, KEYS, false);
    assert_eq!(index.counts().cached_bytes, model.cached_bytes());
    assert_eq!(index.blob(&digest(KEYS)), Lookup::Unsure);
    writer.rebuilt();
    assert_eq!(index.blob(&digest(KEYS)), Lookup::Miss);
    model.compare(&index, KEYS, true);
}

/// Killed between the two stores of the sum, or its page damaged: it is added up again.
#[test]
fn a_sum_of_cached_bytes_that_is_not_proven_is_made_anew() {
    use super::super::layout::{
        LIVE_AT, LIVE_CACHED, LIVE_CACHED_CHECK, LIVE_PINNED, LIVE_PINNED_CHECK,
    };
    for word in [LIVE_CACHED, LIVE_CACHED_CHECK, LIVE_PINNED, LIVE_PINNED_CHECK] {
        let folder = folder();
        let mut model = Model::default();
        let (_, mut writer, _) = open(options(folder.path(), 2000, 0));
        fill(&mut writer, &mut model, KEYS);
        drop(writer);
        let path = generation_path(folder.path(), 1);
        let mut bytes = fs::read(&path).unwrap();
        bytes[LIVE_AT + 8 * word] ^= 4;
        fs::write(&path, bytes).unwrap();
        let (index, mut writer, opened) = open(options(folder.path(), 2000, 0));
        assert!(matches!(opened, Opened::Trusted { .. }), "{opened:?}");
        assert_eq!(index.counts().pinned_bytes, model.pinned_bytes());
        assert_eq!(index.counts().cached_bytes, model.cached_bytes());
        writer.remove_blob(&digest(1));
        model.blobs.remove(&1);
        assert_eq!(index.counts().cached_bytes, model.cached_bytes());
    }
}

#[test]
fn what_was_not_rebuilt_is_not_closed_as_complete() {
    let folder = folder();
    let mut model = Model::default();
    let (_, mut writer, _) = open(options(folder.path(), 2000, 0));
    fill(&mut writer, &mut model, KEYS);
    drop(writer);
    let (_, writer, opened) = open(options(folder.path(), 2000, 0));
    assert!(matches!(opened, Opened::Trusted { clean: false, .. }));
    writer.close().unwrap();
    let (_, _, opened) = open(options(folder.path(), 2000, 0));
    let Opened::Rebuild { why } = opened else { panic!("trusted") };
    assert!(why.contains("had not been filled"), "{why}");
}

#[test]
fn another_boot_trusts_only_what_was_closed() {
    let boots = [Some([8; 16]), None];
    for boot in boots {
        for is_closed in [false, true] {
            let folder = folder();
            let mut model = Model::default();
            let (_, mut writer, _) = open(options(folder.path(), 2000, 1 << 20));
            fill(&mut writer, &mut model, KEYS);
            if is_closed {
                writer.close().unwrap();
            }
            let options = options(folder.path(), 2000, 1 << 20);
            let (index, _writer, opened) = open_in_boot(options, boot).unwrap();
            let tally = model.compare(&index, KEYS, is_closed);
            let is_trusted = matches!(opened, Opened::Trusted { .. });
            assert_eq!((is_trusted, tally.hits > 0), (is_closed, is_closed), "{boot:?}");
        }
    }
}

#[test]
fn an_unknown_boot_is_like_no_other() {
    let folder = folder();
    let (_, mut writer, _) = open_in_boot(options(folder.path(), 100, 0), None).unwrap();
    writer.rebuilt();
    drop(writer);
    let (_, _writer, opened) = open_in_boot(options(folder.path(), 100, 0), None).unwrap();
    assert!(matches!(opened, Opened::Rebuild { .. }), "{opened:?}");
}

#[test]
fn a_generation_that_was_not_finished_is_dropped() {
    let folder = folder();
    let mut model = Model::default();
    let (_, mut writer, _) = open(options(folder.path(), 2000, 0));
    fill(&mut writer, &mut model, KEYS);
    writer.begin_generation(4000).unwrap();
    writer.carry_over(3);
    // As if killed here: nothing cleans up.
    std::mem::forget(writer);
    assert!(generation_path(folder.path(), 2).exists());
    let (index, mut writer, opened) = open(options(folder.path(), 2000, 0));
    assert!(matches!(opened, Opened::Trusted { clean: false, .. }), "{opened:?}");
    assert!(!generation_path(folder.path(), 2).exists());
    writer.rebuilt();
    model.small.clear();
    model.compare(&index, KEYS, true);
}

#[test]
fn the_newest_finished_generation_counts() {
    let folder = folder();
    let mut model = Model::default();
    let (_, mut writer, _) = open(options(folder.path(), 2000, 0));
    fill(&mut writer, &mut model, KEYS);
    let old = fs::read(generation_path(folder.path(), 1)).unwrap();
    writer.begin_generation(4000).unwrap();
    while !writer.carry_over(3) {}
    writer.finish_generation();
    assert!(!generation_path(folder.path(), 1).exists());
    let bound = TagEntry { digest: digest(1), checked_at: 77 };
    writer.put_tag(&scope(1), &tag(1), &bound);
    drop(writer);
    // As if killed before the old file was removed.
    fs::write(generation_path(folder.path(), 1), old).unwrap();
    let (index, _writer, _) = open(options(folder.path(), 2000, 0));
    assert_eq!(index.tag(&scope(1), &tag(1)), Lookup::Hit(bound));
    assert!(!generation_path(folder.path(), 1).exists());
}

/// What a slot of a killed writer looks like: its sequence is odd.
#[test]
fn a_slot_left_half_written_is_unsure_and_can_be_put_again() {
    use super::super::layout::{BODY_AT, LINE_BYTES, SEQUENCE_MASK};
    let folder = folder();
    let (_, mut writer, _) = open(options(folder.path(), 100, 0));
    writer.put_blob(&digest(1), &blob(1));
    writer.rebuilt();
    drop(writer);
    let path = generation_path(folder.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    for line in bytes[BODY_AT..].chunks_mut(LINE_BYTES).take(100) {
        let word = u64::from_le_bytes(line[..8].try_into().unwrap());
        if word & SEQUENCE_MASK == 2 {
            line[..8].copy_from_slice(&3_u64.to_le_bytes());
        }
    }
    fs::write(&path, bytes).unwrap();
    let (index, mut writer, opened) = open(options(folder.path(), 100, 0));
    assert!(matches!(opened, Opened::Trusted { clean: false, .. }));
    writer.rebuilt();
    assert_eq!(index.blob(&digest(1)), Lookup::Unsure);
    writer.put_blob(&digest(1), &blob(9));
    assert_eq!(index.blob(&digest(1)), Lookup::Hit(blob(9)));
    assert!(!index.may_miss());
}

#[test]
fn a_file_cut_short_under_the_map_poisons_and_the_process_goes_on() {
    let folder = folder();
    let mut model = Model::default();
    let (index, mut writer, _) = open(options(folder.path(), 3000, 1 << 20));
    fill(&mut writer, &mut model, KEYS);
    let path = generation_path(folder.path(), 1);
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();

    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| model.compare(&index, KEYS, false));
        }
    });
    assert!(index.is_poisoned() && index.may_miss() && writer.needs_growth());
    assert_eq!(index.blob(&digest(1)), Lookup::Unsure);
    writer.put_blob(&digest(1), &blob(1));
    writer.remove_blob(&digest(2));
    assert!(index.sample(0).is_none());
    assert_eq!(index.counts().blobs, 0);

    // A new generation, filled from the catalog, puts it right without a restart.
    writer.begin_generation(3000).unwrap();
    while !writer.carry_over(100) {}
    writer.finish_generation();
    assert!(!index.is_poisoned() && index.may_miss());
    fill(&mut writer, &mut model, KEYS);
    model.compare(&index, KEYS, true);
    writer.close().unwrap();
    let (index, _writer, opened) = open(options(folder.path(), 3000, 1 << 20));
    assert!(matches!(opened, Opened::Trusted { clean: true, .. }), "{opened:?}");
    model.compare(&index, KEYS, true);
}

#[test]
fn a_ring_cut_short_under_the_map_only_loses_small_contents() {
    let folder = folder();
    let mut model = Model::default();
    let (index, mut writer, _) = open(options(folder.path(), 3000, 1 << 20));
    fill(&mut writer, &mut model, KEYS);
    let ring = fs::File::options().write(true).open(folder.path().join("small")).unwrap();
    ring.set_len(0).unwrap();
    let mut out = Vec::new();
    assert!((0..KEYS).all(|n| !index.small(&digest(n), &mut out)));
    assert!(out.is_empty() && !index.is_poisoned());
    writer.put_small(&digest(1), b"");
    model.small.clear();
    model.compare(&index, KEYS, true);
}

/// The store's files need the space more than the index does.
#[test]
fn a_disk_with_little_space_gets_no_file() {
    use super::super::map::Map;
    let folder = folder();
    let stat = rustix::fs::statvfs(folder.path()).unwrap();
    if stat.f_blocks == 0 {
        println!("skipped: {} has no limit", folder.path().display());
        return;
    }
    let path = folder.path().join("x");
    // Other tests come and go on the same disk, so neither is near the bound.
    let bytes = |parts: u64| (stat.f_bavail * stat.f_frsize / parts).next_multiple_of(4096);
    let Err(error) = Map::create(&path, bytes(2)) else { panic!("half of the disk was taken") };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(error.to_string().contains(" bytes are free"), "{error}");
    assert!(!path.exists());
    Map::create(&path, bytes(64)).unwrap();
}

/// A SIGBUS that is not ours still ends the process: seen from outside, in a child.
#[test]
fn a_bus_error_elsewhere_ends_the_process() {
    use std::os::unix::process::ExitStatusExt as _;
    const CHILD: &str = "INDEX_TEST_BUS_ERROR";
    if let Ok(kind) = std::env::var(CHILD) {
        let folder = folder();
        let (_index, _writer, _) = open(options(folder.path(), 100, 0));
        if kind == "sent" {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::BUS)
                .unwrap();
            // Another thread may be the one that gets it.
            std::thread::sleep(std::time::Duration::from_secs(10));
        } else {
            let file = fs::File::create_new(folder.path().join("x")).unwrap();
            file.set_len(4096).unwrap();
            let file = fs::File::options().read(true).write(true).open(folder.path().join("x"));
            let map = memmap2::MmapOptions::new().len(4096).map_raw(&file.unwrap()).unwrap();
            fs::File::options()
                .write(true)
                .open(folder.path().join("x"))
                .unwrap()
                .set_len(0)
                .unwrap();
            // SAFETY: none; this is the fault that is to end the process.
            unsafe { map.as_ptr().read_volatile() };
        }
        std::process::exit(0);
    }
    for kind in ["sent", "fault"] {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "index::tests::crash::a_bus_error_elsewhere_ends_the_process"])
            .env(CHILD, kind)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{kind}: {status:?}");
    }
}

/// Really killed, while it writes without pause: every answer is one that was put.
#[test]
fn killed_while_writing_answers_only_what_was_put() {
    const CHILD: &str = "INDEX_TEST_KILLED";
    if let Ok(path) = std::env::var(CHILD) {
        let (_index, mut writer, _) =
            super::super::Index::open(options(path.as_ref(), 2000, 1 << 20)).unwrap();
        writer.rebuilt();
        for version in 0_u64.. {
            let n = version % 97;
            let bound = TagEntry { digest: digest(version % 16 * 16), checked_at: version % 16 };
            writer.put_tag(&scope(n), &tag(n), &bound);
            if version % 3 == 0 {
                writer.remove_tag(&scope(n + 1), &tag(n + 1));
            }
        }
    }
    let folder = folder();
    let mut answers = 0;
    for round in 0..40_u64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "index::tests::crash::killed_while_writing_answers_only_what_was_put",
            ])
            .env(CHILD, folder.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // When it is killed is what varies; that it is writing by then is asserted below.
        std::thread::sleep(std::time::Duration::from_millis(20 + round));
        child.kill().unwrap();
        child.wait().unwrap();
        let (index, _writer, _): (std::sync::Arc<Index>, _, _) =
            Index::open(options(folder.path(), 2000, 1 << 20)).unwrap();
        for n in 0..97 {
            if let Lookup::Hit(found) = index.tag(&scope(n), &tag(n)) {
                assert_eq!(found.digest, digest(found.checked_at * 16));
                answers += 1;
            }
        }
    }
    assert!(answers > 100, "the child hardly wrote: {answers}");
}
