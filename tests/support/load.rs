//! Mixed load with a memory: many clients pull blobs of many sizes, ranges, manifests and moving
//! tags through a mirror whose upstream is slow, breaks off and lies, and every answer is held
//! against what is true. What the mirror may never do is collected as sentences.

use super::chance::Chance;
use super::http::{Answer, Connection, Ending};
use super::images::{OCI_MANIFEST, random_bytes, sha256};
use super::lying::{self, End, LyingUpstream};
use super::ms;
use super::rig::{NS, REPOSITORY, declared, manifest};
use super::server::{Server, Upstream};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Clients at a time.
pub const CLIENTS: u64 = 16;
/// Blobs that every round adds.
const BLOBS_A_ROUND: usize = 10;
/// Around the hold-back (64 KiB), pages, and what is more than one read.
const SIZES: [usize; 11] =
    [0, 1, 100, 4095, 4096, 65_535, 65_536, 65_537, 200_000, 1 << 20, (2 << 20) + 3];
const TAGS: [&str; 6] = ["latest", "v1", "v1.2", "nightly", "edge", "stable"];

/// Content of the upstream.
pub struct Blob {
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether the upstream never sends other bytes for it.
    honest: bool,
}

impl Blob {
    /// What the mirror is asked for.
    pub fn target(&self) -> String {
        format!("/v2/{REPOSITORY}/blobs/{}?ns={NS}", self.digest)
    }

    fn path(&self) -> String {
        format!("/v2/{REPOSITORY}/blobs/{}", self.digest)
    }
}

/// The upstream and everything that was ever true of it.
pub struct World {
    /// The upstream.
    pub upstream: LyingUpstream,
    /// Blobs and the first binding of each tag, pulled before the first fault.
    pub warm: Vec<Arc<Blob>>,
    seed: u64,
    blobs: Mutex<Vec<Arc<Blob>>>,
    /// Each tag's digests, written down before the upstream can say them.
    history: Mutex<HashMap<&'static str, HashSet<String>>>,
    /// Digests of blobs that some client has got to the last byte.
    served: Mutex<BTreeSet<String>>,
    wrong: Mutex<Vec<String>>,
    refusals_allowed: AtomicBool,
}

/// What the clients of a round got.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Whole and right.
    pub whole: usize,
    /// Broken off.
    pub cut: usize,
    /// 5xx.
    pub refused: usize,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.whole += other.whole;
        self.cut += other.cut;
        self.refused += other.refused;
    }
}

impl World {
    /// An upstream with a first set of content, the same for the same seed.
    pub fn new(seed: u64) -> Arc<World> {
        let upstream = LyingUpstream::start();
        let mut world = World {
            upstream,
            warm: Vec::new(),
            seed,
            blobs: Mutex::default(),
            history: Mutex::default(),
            served: Mutex::default(),
            wrong: Mutex::default(),
            refusals_allowed: AtomicBool::new(false),
        };
        world.warm = SIZES.iter().map(|&size| world.add_blob("warm", size, true)).collect();
        for tag in TAGS {
            world.move_tag(tag, "first");
        }
        Arc::new(world)
    }

    /// How the mirror is to declare it: tags are asked for again and again.
    pub fn declared(&self) -> Upstream {
        declared(&self.upstream).set("tag_ttl = \"20ms\"").set("stale_max = \"1h\"")
    }

    /// From now on the mirror may answer 5xx, with an OCI body, for what it could give: its disk
    /// has been taken away.
    pub fn allow_refusals(&self, allowed: bool) {
        self.refusals_allowed.store(allowed, Ordering::SeqCst);
    }

    /// Adds a round's fresh blobs, some of which the upstream gives only slowly, in pieces, or
    /// after a lie.
    pub fn add_round(&self, chance: &mut Chance, round: u64) {
        for n in 0..BLOBS_A_ROUND {
            let size = *chance.of(&SIZES);
            let conduct = chance.below(10);
            let blob = self.add_blob(&format!("{round}-{n}"), size, conduct != 9 || size == 0);
            if size == 0 {
                continue;
            }
            let slow = || lying::Answer::right().paced(size / 20 + 1, ms(4));
            let script = match conduct {
                0..=3 => continue,
                4..=6 => vec![slow()],
                7 => vec![slow().ending(End::Fin(chance.below(size))), slow()],
                8 => vec![slow().chunked()],
                _ => vec![slow().bytes(random_bytes("a lie", size)), lying::Answer::right()],
            };
            self.upstream.script("GET", &blob.path(), script);
        }
    }

    /// Starts the clients and the mover of tags.
    pub fn start_load(self: &Arc<World>, addr: SocketAddr, chance: &Chance) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS)
            .map(|n| {
                let (world, stop, chance) = (Arc::clone(self), Arc::clone(&stop), chance.part(n));
                std::thread::spawn(move || world.pull_until(&stop, addr, chance))
            })
            .collect();
        let (world, stop_moving, mut chance) =
            (Arc::clone(self), Arc::clone(&stop), chance.part(CLIENTS));
        let mover = std::thread::spawn(move || {
            while !stop_moving.load(Ordering::SeqCst) {
                world.move_tag(TAGS[chance.below(TAGS.len())], &format!("{:x}", chance.next()));
                std::thread::sleep(chance.milliseconds(5, 30));
            }
        });
        Load { stop, clients, mover }
    }

    /// Pulls the first set of content, so that it is stored.
    #[track_caller]
    pub fn warm_up(&self, server: &Server) {
        for blob in &self.warm {
            assert_eq!(self.pull_again(server.addr, blob), Ok(()));
            server.await_blob(&blob.digest);
        }
        self.check_tags(server.addr);
        self.expect_no_wrong();
    }

    /// A warm blob, asked for once: whether it came whole, right, and without the upstream.
    pub fn is_hit(&self, addr: SocketAddr, blob: &Blob) -> Result<(), String> {
        let asked = self.upstream.count("GET", &blob.path());
        let answer = Connection::try_open(addr)
            .and_then(|mut connection| exchange(&mut connection, "GET", &blob.target(), &[]))
            .map_err(|error| error.to_string())?;
        if answer.status() != 200 || answer.ending != Ending::Complete || answer.body != blob.bytes
        {
            return Err(format!("{}: {:?} {:?}", blob.digest, answer.head.line, answer.ending));
        }
        match self.upstream.count("GET", &blob.path()) - asked {
            0 => Ok(()),
            n => Err(format!("{}: was fetched again, {n} times", blob.digest)),
        }
    }

    /// Everything that was ever served whole, as far as `most` allow, and every tag, asked for
    /// again: right from the store or right from the upstream.
    pub fn check_all(&self, addr: SocketAddr, chance: &mut Chance, most: usize) {
        let served: BTreeSet<String> = self.served.lock().unwrap().clone();
        let blobs = self.blobs.lock().unwrap().clone();
        let mut known: Vec<_> = blobs.iter().filter(|b| served.contains(&b.digest)).collect();
        while known.len() > most {
            known.swap_remove(chance.below(known.len()));
        }
        for blob in known {
            if let Err(reason) = self.pull_again(addr, blob) {
                self.is_wrong(format!("served before and lost now: {reason}"));
            }
        }
        self.check_tags(addr);
    }

    /// Everything that the mirror has a file of, asked for: it must be right, whatever the file.
    pub fn check_stored(&self, server: &Server) {
        // The guards must not live as long as the loops: what is asked for looks things up, too.
        let history = self.history.lock().unwrap().clone();
        for (tag, digests) in history {
            for digest in digests.iter().filter(|digest| server.has_blob(digest)) {
                self.check_manifest(server.addr, tag, digest);
            }
        }
        let blobs = self.blobs.lock().unwrap().clone();
        for blob in blobs {
            if server.has_blob(&blob.digest)
                && let Err(reason) = self.pull_again(server.addr, &blob)
            {
                self.is_wrong(format!("stored and not to be had: {reason}"));
            }
        }
    }

    /// Panics with what was wrong, if anything was.
    #[track_caller]
    pub fn expect_no_wrong(&self) {
        let wrong = self.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{} wrong answers:\n{}", wrong.len(), wrong.join("\n"));
    }

    /// How many blobs were served whole so far.
    pub fn served(&self) -> usize {
        self.served.lock().unwrap().len()
    }

    fn add_blob(&self, name: &str, size: usize, honest: bool) -> Arc<Blob> {
        let bytes = random_bytes(&format!("{:x}-{name}-{size}", self.seed), size);
        let digest = self.upstream.add_blob(REPOSITORY, &bytes);
        let blob = Arc::new(Blob { digest, bytes, honest });
        self.blobs.lock().unwrap().push(Arc::clone(&blob));
        blob
    }

    fn move_tag(&self, tag: &'static str, note: &str) {
        let bytes = manifest(&format!("{tag} {note}"));
        self.history.lock().unwrap().entry(tag).or_default().insert(sha256(&bytes));
        self.upstream.add_manifest(REPOSITORY, tag, OCI_MANIFEST, &bytes);
    }

    fn is_wrong(&self, what: String) {
        let mut wrong = self.wrong.lock().unwrap();
        // The first few tell it all.
        if wrong.len() < 20 {
            wrong.push(what);
        }
    }

    /// One client's life: requests over a connection until it breaks, then over the next one.
    fn pull_until(&self, stop: &AtomicBool, addr: SocketAddr, mut chance: Chance) -> Tally {
        let mut tally = Tally::default();
        while !stop.load(Ordering::SeqCst) {
            let Ok(mut connection) = Connection::try_open(addr) else {
                std::thread::sleep(ms(1));
                continue;
            };
            while !stop.load(Ordering::SeqCst) {
                let outcome = match chance.below(10) {
                    0..=6 => self.pull_blob(&mut connection, &mut chance),
                    _ => self.pull_manifest(&mut connection, &mut chance),
                };
                let Ok(outcome) = outcome else { break };
                tally.add(outcome);
                if outcome.cut > 0 {
                    break;
                }
            }
        }
        tally
    }

    fn pull_blob(&self, connection: &mut Connection, chance: &mut Chance) -> io::Result<Tally> {
        let blob = {
            let blobs = self.blobs.lock().unwrap();
            // Half of them are this round's, so that fills are running at any time.
            let from =
                if chance.percent(50) { blobs.len().saturating_sub(BLOBS_A_ROUND) } else { 0 };
            Arc::clone(&blobs[from + chance.below(blobs.len() - from)])
        };
        let size = blob.bytes.len();
        match chance.below(10) {
            0 => {
                let answer = exchange(connection, "HEAD", &blob.target(), &[])?;
                if answer.status() == 200 && answer.header("content-length") != size.to_string() {
                    self.is_wrong(format!("HEAD of {}: {:?}", blob.digest, answer.head));
                }
                Ok(self.judge(&blob, &answer, b""))
            }
            1 if size > 1 => {
                let first = chance.below(size - 1);
                let range = format!("bytes={first}-");
                let answer = exchange(connection, "GET", &blob.target(), &[("Range", &range)])?;
                let part = if answer.status() == 206 { &blob.bytes[first..] } else { &blob.bytes };
                Ok(self.judge(&blob, &answer, part))
            }
            _ => {
                let answer = exchange(connection, "GET", &blob.target(), &[])?;
                if answer.status() == 200 && answer.ending == Ending::Complete {
                    self.served.lock().unwrap().insert(blob.digest.clone());
                }
                Ok(self.judge(&blob, &answer, &blob.bytes))
            }
        }
    }

    fn judge(&self, blob: &Blob, answer: &Answer, expected: &[u8]) -> Tally {
        let what = || format!("{} of {} bytes: {:?}", blob.digest, blob.bytes.len(), answer.head);
        match (answer.status(), answer.ending) {
            (200 | 206, Ending::Complete) => {
                if answer.body != expected {
                    self.is_wrong(format!("{}: completed with wrong bytes", what()));
                }
                Tally { whole: 1, ..Tally::default() }
            }
            (200 | 206, _) => {
                if blob.honest && !expected.starts_with(&answer.body) {
                    self.is_wrong(format!("{}: a wrong beginning", what()));
                }
                Tally { cut: 1, ..Tally::default() }
            }
            (status, _) => self.judge_refusal(status, answer, &what()),
        }
    }

    fn judge_refusal(&self, status: u16, answer: &Answer, what: &str) -> Tally {
        let allowed = matches!(status, 502..=504)
            || (500..600).contains(&status) && self.refusals_allowed.load(Ordering::SeqCst);
        // HEAD has no body to tell it in.
        let told = answer.body.is_empty() || !answer.error_code().is_empty();
        let whole = answer.ending == Ending::Complete;
        if whole && !(allowed && told) {
            self.is_wrong(format!("{what}: {}", answer.text()));
        }
        Tally { refused: 1, cut: usize::from(!whole), ..Tally::default() }
    }

    fn pull_manifest(&self, connection: &mut Connection, chance: &mut Chance) -> io::Result<Tally> {
        let tag = *chance.of(&TAGS);
        let by_digest = chance.percent(30);
        let known = || self.history.lock().unwrap()[tag].iter().next().cloned();
        let reference = if by_digest { known().unwrap_or_default() } else { tag.to_owned() };
        let target = format!("/v2/{REPOSITORY}/manifests/{reference}?ns={NS}");
        let answer = exchange(connection, "GET", &target, &[])?;
        Ok(self.judge_manifest(tag, &reference, &answer))
    }

    fn judge_manifest(&self, tag: &str, reference: &str, answer: &Answer) -> Tally {
        let what = || format!("manifest {reference} of tag {tag}: {:?}", answer.head);
        if answer.status() != 200 {
            return self.judge_refusal(answer.status(), answer, &what());
        }
        if answer.ending != Ending::Complete {
            return Tally { cut: 1, ..Tally::default() };
        }
        let digest = answer.header("docker-content-digest");
        let was_true = self.history.lock().unwrap()[tag].contains(digest);
        let is_asked = !reference.starts_with("sha256:") || reference == digest;
        if sha256(&answer.body) != digest || !was_true || !is_asked {
            let body = answer.text();
            self.is_wrong(format!("{}, known before: {was_true}: {body}", what()));
        }
        Tally { whole: 1, ..Tally::default() }
    }

    /// Asks until it comes, for as long as the upstream may have lies left.
    fn pull_again(&self, addr: SocketAddr, blob: &Blob) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..4 {
            let answer = Connection::try_open(addr)
                .and_then(|mut connection| exchange(&mut connection, "GET", &blob.target(), &[]));
            match answer {
                Ok(answer) => {
                    let tally = self.judge(blob, &answer, &blob.bytes);
                    if tally.whole == 1 {
                        self.served.lock().unwrap().insert(blob.digest.clone());
                        return Ok(());
                    }
                    last = format!("{}: {:?} {:?}", blob.digest, answer.head, answer.ending);
                }
                Err(error) => last = format!("{}: {error}", blob.digest),
            }
        }
        Err(last)
    }

    /// Every tag, asked for: a digest that it once had, and the bytes of that digest.
    pub fn check_tags(&self, addr: SocketAddr) {
        for tag in TAGS {
            self.check_manifest(addr, tag, tag);
        }
    }

    fn check_manifest(&self, addr: SocketAddr, tag: &str, reference: &str) {
        let target = format!("/v2/{REPOSITORY}/manifests/{reference}?ns={NS}");
        let answer = Connection::try_open(addr)
            .and_then(|mut connection| exchange(&mut connection, "GET", &target, &[]));
        match answer {
            Ok(answer) if self.judge_manifest(tag, reference, &answer).whole == 1 => {}
            Ok(answer) => self.is_wrong(format!("{reference} of tag {tag}: {:?}", answer.head)),
            Err(error) => self.is_wrong(format!("{reference} of tag {tag}: {error}")),
        }
    }
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
    mover: JoinHandle<()>,
}

impl Load {
    /// Ends it after what each client is just doing.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        let mut sum = Tally::default();
        for client in self.clients {
            sum.add(client.join().expect("a client that does not panic"));
        }
        self.mover.join().expect("a mover of tags that does not panic");
        sum
    }
}

fn exchange(
    connection: &mut Connection,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> io::Result<Answer> {
    connection.request(method, target, headers);
    connection.read_answer(method)
}
