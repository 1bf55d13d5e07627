//! The index's files damaged, truncated, zeroed, exchanged and removed, between two processes and
//! under a running one: no crash, no wrong answer, and a complete index again (reliability plan B).
//!
//! `RINGPORT_INDEX_DAMAGES` damages, 12 by itself; the 10,000 of the module's own test do without
//! a server. `RINGPORT_INDEX_SEED` replays a run; its seed is printed first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod support;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use support::chance::Chance;
use support::load::World;
use support::server::{Server, Setup};
use support::{ms, number_from, secs, tell, wait_until};

const PAGE: u64 = 4096;

#[test]
fn a_damaged_index_is_never_wrong() {
    let rounds = number_from("RINGPORT_INDEX_DAMAGES", 12);
    let seed = Chance::seed_from("RINGPORT_INDEX_SEED");
    tell(&format!("index_damage: {rounds} damages, RINGPORT_INDEX_SEED={seed}"));
    let chance = Chance::new(seed);
    let world = World::new(seed);
    let mut server = Setup::new("index-damage").upstream(world.declared()).start();
    world.warm_up(&server);
    // Another store's index is as good in form, and wrong in every entry.
    let stranger_world = World::new(seed ^ 1);
    let mut stranger = Setup::new("index-stranger").upstream(stranger_world.declared()).start();
    stranger_world.warm_up(&stranger);
    stranger.terminate(secs(20));
    for round in 0..rounds {
        let mut chance = chance.part(round);
        let load = world.start_load(server.addr, &chance);
        std::thread::sleep(chance.milliseconds(5, 100));
        let what = if chance.percent(25) {
            // Under the running server and its clients.
            let what = damage(&server, &stranger, &mut chance);
            std::thread::sleep(ms(20));
            load.stop();
            what
        } else {
            load.stop();
            if chance.percent(50) {
                server.kill();
            } else {
                server.terminate(secs(20));
            }
            let what = damage(&server, &stranger, &mut chance);
            server.start_again();
            what
        };
        for blob in &world.warm {
            let answer = server.get(&blob.target());
            assert_eq!(answer.status(), 200, "round {round}, {what}: {}", answer.text());
            assert!(answer.body == blob.bytes, "round {round}, {what}: wrong bytes");
        }
        world.check_all(server.addr, &mut chance, 10);
        world.expect_no_wrong();
        server.assert_alive();
        assert_eq!(server.metric("ringport_task_panics_total", &[]), 0.0, "{what}: panics");
    }
    // Whatever the last damage was: the next start has a whole index, and needs no upstream.
    server.terminate(secs(20));
    server.start_again();
    wait_until("a complete index", secs(30), || server.metric("ringport_index_cold", &[]) == 0.0);
    for blob in &world.warm {
        assert_eq!(world.is_hit(server.addr, blob), Ok(()));
    }
}

fn index_files(server: &Server) -> Vec<PathBuf> {
    let folder = server.root().join("index");
    let entries = std::fs::read_dir(folder).expect("the index folder");
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Does something to one of the files; says what.
fn damage(server: &Server, stranger: &Server, chance: &mut Chance) -> String {
    let path = chance.of(&index_files(server)).clone();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let open = || OpenOptions::new().write(true).open(&path).expect("an index file");
    let length = std::fs::metadata(&path).map_or(0, |found| found.len());
    let pages = (length / PAGE).max(1) as usize;
    match chance.below(7) {
        0 => {
            let kept = chance.below(pages) as u64 * PAGE;
            open().set_len(kept).unwrap();
            format!("{name} truncated to {kept} bytes")
        }
        1 => {
            let at = zero_a_page(&open(), pages, chance);
            format!("page {at} of {name} zeroed")
        }
        2 => {
            for _ in 0..100 {
                flip_a_bit(&path, length, chance);
            }
            format!("100 bits of {name} flipped")
        }
        3 => {
            flip_a_bit(&path, PAGE.min(length), chance);
            format!("a bit in the header of {name} flipped")
        }
        4 => {
            let noise: Vec<u8> = (0..PAGE / 8).flat_map(|_| chance.next().to_le_bytes()).collect();
            let at = chance.below(pages);
            open().write_all_at(&noise, at as u64 * PAGE).unwrap();
            format!("page {at} of {name} is noise")
        }
        5 => {
            let theirs = chance.of(&index_files(stranger)).clone();
            std::fs::copy(theirs, &path).unwrap();
            format!("{name} is another store's")
        }
        _ => {
            std::fs::remove_file(&path).unwrap();
            format!("{name} removed")
        }
    }
}

fn zero_a_page(file: &File, pages: usize, chance: &mut Chance) -> usize {
    let at = chance.below(pages);
    file.write_all_at(&[0; PAGE as usize], at as u64 * PAGE).unwrap();
    at
}

fn flip_a_bit(path: &PathBuf, length: u64, chance: &mut Chance) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let at = chance.below(length.max(1) as usize) as u64;
    let mut byte = [0];
    if file.read_at(&mut byte, at).unwrap() == 1 {
        byte[0] ^= 1 << chance.below(8);
        file.write_all_at(&byte, at).unwrap();
    }
}
