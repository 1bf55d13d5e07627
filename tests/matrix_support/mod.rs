//! One upstream of the matrix: it knows what is right, and for the first requests of a content it
//! behaves in one way that is not.

#![allow(unreachable_pub)]

pub mod behaviour;
mod wire;

use crate::support::chance::Chance;
use crate::support::images::{OCI_MANIFEST, random_bytes, sha256};
use crate::support::listener::{Listener, Received, read_request};
use crate::support::rig::manifest;
use behaviour::Behaviour;
use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use wire::Wire;

/// What it lies about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Blob,
    Manifest,
    Tag,
    /// The token that a blob needs; the blob itself is right.
    Token,
}

pub const TARGETS: [Target; 4] = [Target::Blob, Target::Manifest, Target::Tag, Target::Token];

/// What a path names.
#[derive(Clone)]
pub struct Thing {
    pub bytes: Arc<Vec<u8>>,
    pub content_type: &'static str,
    pub digest: Option<String>,
    /// The Authorization it takes to get it.
    pub authorization: Option<String>,
    pub lies: Option<Arc<Lies>>,
}

/// For how many more requests of a thing the upstream misbehaves, and by which choices.
pub struct Lies {
    left: AtomicUsize,
    told: AtomicUsize,
    chance: Mutex<Chance>,
}

impl Lies {
    fn new(count: usize, chance: Chance) -> Arc<Lies> {
        let (left, told) = (AtomicUsize::new(count), AtomicUsize::new(0));
        Arc::new(Lies { left, told, chance: Mutex::new(chance) })
    }

    /// From now on the upstream is right.
    pub fn end(&self) {
        self.left.store(0, Ordering::SeqCst);
    }

    /// How many requests it has misbehaved for.
    pub fn told(&self) -> usize {
        self.told.load(Ordering::SeqCst)
    }

    /// The choices for one more lie.
    fn next(&self) -> Option<Chance> {
        let fewer = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).ok()?;
        let number = self.told.fetch_add(1, Ordering::SeqCst) as u64;
        Some(self.chance.lock().unwrap().part(number + 1))
    }
}

/// The upstream of one cell.
pub struct Liar {
    listener: Listener,
    things: Arc<Mutex<HashMap<String, Thing>>>,
}

impl Liar {
    pub fn start(behaviour: Behaviour) -> Liar {
        let things: Arc<Mutex<HashMap<String, Thing>>> = Arc::default();
        let known = Arc::clone(&things);
        let listener = Listener::start(move |stream| {
            let _ = serve(behaviour, &known, stream);
        });
        Liar { listener, things }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listener.addr())
    }

    pub fn stop(&mut self) {
        self.listener.stop();
    }

    fn add(&self, path: String, thing: Thing) {
        self.things.lock().unwrap().insert(path, thing);
    }

    /// What one round pulls, and the lies about it: `count` requests are lied to.
    pub fn prepare(&self, target: Target, round: u64, count: usize, chance: &mut Chance) -> Round {
        let repository = format!("r/{round}");
        let lies = Lies::new(count, chance.part(7));
        let note = format!("{} {round} {}", self.url(), chance.next());
        let thing = |bytes: Vec<u8>, content_type| Thing {
            digest: Some(sha256(&bytes)),
            bytes: Arc::new(bytes),
            content_type,
            authorization: None,
            lies: None,
        };
        let right = match target {
            Target::Blob => random_bytes(&note, blob_size(chance)),
            Target::Token => random_bytes(&note, 100 + chance.below(2_000)),
            // Up to what lies in the index, and above.
            Target::Manifest | Target::Tag => manifest(&padded(&note, chance)),
        };
        let mut right = match target {
            Target::Blob | Target::Token => thing(right, "application/octet-stream"),
            Target::Manifest | Target::Tag => thing(right, OCI_MANIFEST),
        };
        let digest = right.digest.clone().unwrap_or_default();
        let by_digest = match target {
            Target::Blob | Target::Token => format!("/v2/{repository}/blobs/{digest}"),
            Target::Manifest | Target::Tag => format!("/v2/{repository}/manifests/{digest}"),
        };
        let by_tag = format!("/v2/{repository}/manifests/t");
        let (path, before) = match target {
            Target::Tag => {
                self.add(by_digest.clone(), right.clone());
                (by_tag, thing(manifest(&padded("before", chance)), OCI_MANIFEST))
            }
            _ => (by_digest.clone(), right.clone()),
        };
        if target == Target::Token {
            right.authorization = Some(format!("Bearer right-{round}"));
            let token = format!("{{\"token\":\"right-{round}\",\"expires_in\":300}}");
            let mut token = thing(token.into_bytes(), "application/json");
            (token.digest, token.lies) = (None, Some(lies.clone()));
            self.add(format!("/token {repository}"), token);
        } else {
            right.lies = Some(lies.clone());
        }
        self.add(path.clone(), right.clone());
        Round { path, by_digest, right: right.bytes.clone(), before, thing: right, lies }
    }

    /// Binds the round's tag to what it was before; afterwards `rebind` moves it.
    pub fn bind_before(&self, round: &Round) {
        self.add(round.path.clone(), round.before.clone());
    }

    /// The tag moves, and the lying begins.
    pub fn rebind(&self, round: &Round) {
        self.add(round.path.clone(), round.thing.clone());
    }
}

/// One pull under lies.
pub struct Round {
    /// What is asked for.
    pub path: String,
    /// The same content by its digest.
    pub by_digest: String,
    pub right: Arc<Vec<u8>>,
    /// What a tag was bound to before.
    pub before: Thing,
    thing: Thing,
    pub lies: Arc<Lies>,
}

/// Not below what a drip could bring in time; around the held-back end, and well above it.
fn blob_size(chance: &mut Chance) -> usize {
    const HELD: usize = 64 << 10;
    match chance.below(4) {
        0 => 100 + chance.below(2_000),
        1 => HELD - 2 + chance.below(5),
        2 => HELD + chance.below(HELD),
        _ => 2 * HELD + chance.below(400_000),
    }
}

fn padded(note: &str, chance: &mut Chance) -> String {
    let most = *chance.of(&[1, 1_000, 40_000, 200_000]);
    format!("{note} {}", "x".repeat(chance.below(most)))
}

fn serve(
    behaviour: Behaviour,
    things: &Mutex<HashMap<String, Thing>>,
    stream: &TcpStream,
) -> std::io::Result<()> {
    let _ = stream.set_nodelay(true);
    // A server that does not read its end of the bargain gets no thread for ever.
    stream.set_write_timeout(Some(crate::support::secs(30)))?;
    stream.set_read_timeout(Some(crate::support::secs(90)))?;
    while let Some(request) = read_request(stream)? {
        let thing = things.lock().unwrap().get(&key(&request)).cloned();
        let Some(thing) = thing else {
            Wire::new(stream, &request, None, Chance::new(0)).plain(404, &[], b"")?;
            continue;
        };
        let given = request.header("authorization");
        if thing.authorization.is_some() && given != thing.authorization.as_deref() {
            let realm = format!("http://{}/token", stream.local_addr()?);
            let challenge = format!("Bearer realm=\"{realm}\",service=\"liar\"");
            let challenge = [("WWW-Authenticate", challenge.as_str())];
            Wire::new(stream, &request, None, Chance::new(0)).plain(401, &challenge, b"")?;
            continue;
        }
        let lie = thing.lies.as_ref().and_then(|lies| lies.next());
        let is_lie = lie.is_some();
        let chance = lie.unwrap_or(Chance::new(0));
        let mut wire = Wire::new(stream, &request, Some(&thing), chance);
        let is_reusable = match is_lie {
            true => behaviour.answer(&mut wire)?,
            false => wire.right()?,
        };
        if !is_reusable || request.header("connection") == Some("close") {
            break;
        }
    }
    Ok(())
}

/// The path, and for a token the repository that it is for.
fn key(request: &Received) -> String {
    let Some(scope) = request.query_value("scope") else { return request.path.clone() };
    let scope = scope.replace("%3A", ":").replace("%2F", "/");
    let repository = scope.split(':').nth(1).unwrap_or_default();
    format!("{} {repository}", request.path)
}
