//! Clients that push as fast as they can until the server goes away.

use super::ledger::{Doubt, Found, Ledger, Piece, Sent, Unfinished};
use super::operation::Way;
use super::uploads;
use super::wire::{Body, Life, Told, Trouble, Wire, expect};
use crate::support::chance::Chance;
use crate::support::images::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, random_bytes, sha256};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

const SIZES: [usize; 8] = [8, 100, 4096, 10_000, 65_537, 200_000, 300_000, 1 << 20];
/// Uploads that a client leaves open.
const OPEN_MAX: usize = 4;

/// One client, with a repository of its own.
pub struct Pusher {
    /// Its connection.
    pub wire: Wire,
    /// What it was told.
    pub ledger: Ledger,
    chance: Chance,
    count: u64,
    last: Option<Sent>,
    /// It ends after so many refusals for want of room; without this none is right.
    pub refusals_max: Option<u64>,
    /// What was acknowledged.
    pub acknowledged: u64,
    /// What was refused for want of room.
    pub refused: u64,
}

impl Pusher {
    /// One of them; `chance` is its own.
    pub fn new(addr: SocketAddr, life: &Arc<Life>, number: usize, chance: Chance) -> Pusher {
        Pusher {
            wire: Wire::new(addr, Arc::clone(life)),
            ledger: Ledger::new(format!("load/c{number}")),
            chance,
            count: 0,
            last: None,
            refusals_max: None,
            acknowledged: 0,
            refused: 0,
        }
    }

    /// Pushes on a thread of its own until the server goes or it is told to stop.
    pub fn start(mut self, stop: &Arc<AtomicBool>) -> JoinHandle<(Pusher, Option<String>)> {
        let stop = Arc::clone(stop);
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                match self.step() {
                    Ok(()) => {}
                    Err(Trouble::Wrong(_)) if self.was_refused() => {
                        if self.refusals_max.is_some_and(|most| self.refused >= most) {
                            return (self, None);
                        }
                    }
                    Err(Trouble::Gone(_)) => return (self, None),
                    // On a disk that is gone everything fails.
                    Err(Trouble::Wrong(_)) if !self.wire.life().is_multiple_of(2) => {
                        return (self, None);
                    }
                    Err(Trouble::Wrong(what)) => {
                        let log: Vec<String> = self.wire.log.iter().cloned().collect();
                        return (self, Some(format!("{}\n{what}", log.join("\n"))));
                    }
                }
            }
            (self, None)
        })
    }

    /// One push or deletion.
    pub fn step(&mut self) -> Told<()> {
        self.count += 1;
        match self.chance.below(20) {
            0 | 1 => self.delete(),
            2 => self.untag(),
            3 | 4 => self.leave_open(),
            _ => self.image(),
        }
    }

    /// All that was acknowledged is there, though nothing more can be written.
    #[track_caller]
    pub fn check_acknowledged(&mut self, found: &mut Found) {
        let checked = self.ledger.check_acknowledged(&mut self.wire, 1, found);
        assert!(checked.is_ok(), "{checked:?}");
    }

    /// Does what is in doubt until it is answered.
    fn during(&mut self, doubt: Doubt, act: impl FnOnce(&mut Pusher) -> Told<()>) -> Told<()> {
        self.ledger.doubt = Some(doubt);
        act(self)?;
        if let Some(doubt) = self.ledger.doubt.take() {
            self.ledger.happened(doubt);
            self.acknowledged += 1;
        }
        Ok(())
    }

    /// Whether there was no room, and that is allowed: nothing has happened then.
    fn was_refused(&mut self) -> bool {
        let is_refused = self.refusals_max.is_some() && matches!(self.wire.last_status, 503 | 507);
        if is_refused {
            self.refused += 1;
            self.ledger.doubt = None;
        }
        is_refused
    }

    fn new_piece(&mut self) -> Piece {
        let seed = format!("{} {} {}", self.ledger.name, self.count, self.chance.next());
        let size = *self.chance.of(&SIZES);
        let digest = sha256(&random_bytes(&seed, size));
        Piece { seed, size, digest }
    }

    fn blob(&mut self) -> Told<Piece> {
        let piece = self.new_piece();
        let way = match self.chance.below(4) {
            0 => Way::Single,
            1 => Way::Put,
            2 => Way::Chunks {
                count: 2 + self.chance.below(3),
                last_by_put: self.chance.percent(50),
            },
            _ => Way::Streamed,
        };
        self.wire.under_way = None;
        let sent = piece.clone();
        let done = self.during(Doubt::Blob(piece.clone()), |this| {
            let name = this.ledger.name.clone();
            let answer = uploads::push(&mut this.wire, &name, &sent.digest, &sent.bytes(), way)?;
            expect(&answer, &[201], "a blob")
        });
        if done.is_err()
            && let Some(under_way) = self.wire.under_way.take()
        {
            let (target, sent) = (under_way.target, under_way.sent);
            self.ledger.uploads.push(Unfinished { piece: piece.clone(), target, sent });
        }
        done.map(|()| piece)
    }

    fn image(&mut self) -> Told<()> {
        let mut blobs = Vec::new();
        for _ in 0..1 + self.chance.below(3) {
            blobs.push(self.blob()?);
        }
        let last = self.last.take().filter(|_| self.chance.percent(40));
        let sent = manifest(blobs, last.as_ref(), self.count);
        self.last = Some(sent.clone());
        let tag = match self.chance.percent(30) {
            true => "latest".to_owned(),
            false => format!("t{}", self.count),
        };
        let target = format!("/v2/{}/manifests/{tag}", self.ledger.name);
        let bytes = sent.bytes.clone();
        self.during(Doubt::Put(sent, tag), |this| {
            let headers = [("Content-Type", OCI_MANIFEST)];
            let answer = this.wire.ask("PUT", &target, &headers, Body::Bytes(&bytes))?;
            expect(&answer, &[201], &target)
        })
    }

    fn delete(&mut self) -> Told<()> {
        let all: Vec<String> = self.ledger.manifests.keys().cloned().collect();
        if all.is_empty() {
            return Ok(());
        }
        let digest = self.chance.of(&all).clone();
        let target = format!("/v2/{}/manifests/{digest}", self.ledger.name);
        self.remove(Doubt::Delete(digest), &target)
    }

    fn untag(&mut self) -> Told<()> {
        let all: Vec<String> = self.ledger.tags.keys().cloned().collect();
        if all.is_empty() {
            return Ok(());
        }
        let tag = self.chance.of(&all).clone();
        let target = format!("/v2/{}/manifests/{tag}", self.ledger.name);
        self.remove(Doubt::Untag(tag), &target)
    }

    fn remove(&mut self, doubt: Doubt, target: &str) -> Told<()> {
        self.during(doubt, |this| {
            let answer = this.wire.ask("DELETE", target, &[], Body::None)?;
            expect(&answer, &[202], target)
        })
    }

    /// Begins an upload, and sends some of it.
    fn leave_open(&mut self) -> Told<()> {
        if self.ledger.uploads.len() >= OPEN_MAX || self.refusals_max.is_some() {
            return Ok(());
        }
        let piece = self.new_piece();
        let bytes = piece.bytes();
        // One byte is told with the same words as none.
        let sent = (bytes.len() * (1 + self.chance.below(90)) / 100).max(2);
        let target = uploads::open(&mut self.wire, &self.ledger.name)?;
        let (at, open) = (self.ledger.uploads.len(), target.clone());
        self.ledger.uploads.push(Unfinished { piece, target, sent });
        let is_streamed = self.chance.percent(50);
        let target = uploads::append(&mut self.wire, &open, 0, &bytes[..sent], is_streamed)?;
        self.ledger.uploads[at].target = target;
        Ok(())
    }
}

fn manifest(blobs: Vec<Piece>, subject: Option<&Sent>, number: u64) -> Sent {
    let descriptor = |media_type: &str, piece: &Piece| json!({"mediaType": media_type, "digest": piece.digest, "size": piece.size});
    let layers: Vec<Value> = blobs[1..].iter().map(|piece| descriptor(OCI_LAYER, piece)).collect();
    let mut document = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, &blobs[0]), "layers": layers,
        "annotations": {"org.example.number": number.to_string()},
    });
    if let Some(Sent { digest, bytes, .. }) = subject {
        document["subject"] =
            json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": bytes.len()});
    }
    let bytes = document.to_string().into_bytes();
    let subject = subject.map(|sent| sent.digest.clone());
    Sent { digest: sha256(&bytes), bytes, blobs, subject }
}
