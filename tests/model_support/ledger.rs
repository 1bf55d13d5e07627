//! What one client of the crash tests was told, and what it was about to do when the server went
//! away: checked after the start.

use super::judge;
use super::uploads;
use super::wire::{Body, Told, Wire, expect, expect_header, wrong};
use crate::support::images::{ACCEPT, OCI_MANIFEST, random_bytes};
use std::collections::{BTreeMap, BTreeSet};

/// A blob that can be made again.
#[derive(Clone, Debug)]
pub struct Piece {
    /// What its bytes come from.
    pub seed: String,
    /// How many.
    pub size: usize,
    /// Their digest.
    pub digest: String,
}

impl Piece {
    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        random_bytes(&self.seed, self.size)
    }
}

/// A manifest that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The blobs that it names.
    pub blobs: Vec<Piece>,
    /// What it refers to.
    pub subject: Option<String>,
}

/// What was under way when the server went.
#[derive(Clone, Debug)]
pub enum Doubt {
    /// A blob, or nothing that anybody sees.
    Blob(Piece),
    /// A manifest with a tag.
    Put(Sent, String),
    /// The deletion of a manifest, with all tags that name it.
    Delete(String),
    /// The deletion of a tag.
    Untag(String),
}

/// An upload that may go on.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// What it is to become.
    pub piece: Piece,
    /// Where it goes on.
    pub target: String,
    /// Bytes that may be there.
    pub sent: usize,
}

/// What one client knows of its repository.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The repository.
    pub name: String,
    /// Blobs by digest.
    pub blobs: BTreeMap<String, Piece>,
    /// Manifests by digest.
    pub manifests: BTreeMap<String, Sent>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Manifests that were deleted.
    pub gone: BTreeSet<String>,
    /// Uploads under way.
    pub uploads: Vec<Unfinished>,
    /// What was under way.
    pub doubt: Option<Doubt>,
    /// Blobs and manifests that were checked at the last start already.
    checked: BTreeSet<String>,
}

/// What checks have found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Blobs, manifests and tags that were acknowledged, and asked for.
    pub asked: u64,
    /// Uploads that went on.
    pub resumed: u64,
    /// Uploads that were gone.
    pub ended: u64,
    /// What was under way and had happened.
    pub happened: u64,
    /// What was under way and had not.
    pub had_not: u64,
}

impl Found {
    /// Adds another one's.
    pub fn add(&mut self, other: Found) {
        self.asked += other.asked;
        self.resumed += other.resumed;
        self.ended += other.ended;
        self.happened += other.happened;
        self.had_not += other.had_not;
    }
}

impl Ledger {
    /// Of a client that knows nothing yet.
    pub fn new(name: String) -> Ledger {
        Ledger { name, ..Ledger::default() }
    }

    /// Everything that was acknowledged is there; of what was checked before only as much as
    /// `sample` says, by their place.
    pub fn check(&mut self, wire: &mut Wire, sample: usize, found: &mut Found) -> Told<()> {
        self.resolve(wire, found)?;
        self.check_uploads(wire, found)?;
        self.check_acknowledged(wire, sample, found)
    }

    /// The same without going on with uploads: nothing is written.
    pub fn check_acknowledged(
        &mut self,
        wire: &mut Wire,
        sample: usize,
        found: &mut Found,
    ) -> Told<()> {
        let is_due =
            |n: usize, digest: &String| n.is_multiple_of(sample) || !self.checked.contains(digest);
        let blobs = self.blobs.iter().enumerate().filter(|(n, (digest, _))| is_due(*n, digest));
        for (_, (_, piece)) in blobs {
            self.check_blob(wire, piece)?;
            found.asked += 1;
        }
        let manifests = self.manifests.iter().enumerate();
        for (_, (_, sent)) in manifests.filter(|(n, (digest, _))| is_due(*n, digest)) {
            if !self.manifest_is_there(wire, sent)? {
                return wrong(format!("{}: manifest {} is lost", self.name, sent.digest));
            }
            found.asked += 1;
        }
        self.check_tags(wire)?;
        found.asked += self.tags.len() as u64;
        for digest in self.gone.iter().filter(|digest| is_due(1, digest)) {
            let target = format!("/v2/{}/manifests/{digest}", self.name);
            expect(&wire.ask("GET", &target, &[], Body::None)?, &[404], "a deleted manifest")?;
        }
        self.check_referrers(wire)?;
        let all = self.blobs.keys().chain(self.manifests.keys()).chain(&self.gone);
        self.checked = all.cloned().collect();
        Ok(())
    }

    fn check_blob(&self, wire: &mut Wire, piece: &Piece) -> Told<()> {
        let target = format!("/v2/{}/blobs/{}", self.name, piece.digest);
        let answer = wire.ask("GET", &target, &[], Body::None)?;
        expect(&answer, &[200], &target)?;
        if answer.body != piece.bytes() {
            return wrong(format!("{target}: {} wrong bytes", answer.body.len()));
        }
        Ok(())
    }

    fn manifest_is_there(&self, wire: &mut Wire, sent: &Sent) -> Told<bool> {
        let target = format!("/v2/{}/manifests/{}", self.name, sent.digest);
        let answer = wire.ask("GET", &target, &[("Accept", ACCEPT)], Body::None)?;
        expect(&answer, &[200, 404], &target)?;
        if answer.status() == 404 {
            return Ok(false);
        }
        expect_header(&answer, "content-type", OCI_MANIFEST, &target)?;
        if answer.body != sent.bytes {
            return wrong(format!("{target}: {} wrong bytes", answer.body.len()));
        }
        Ok(true)
    }

    fn tag(&self, wire: &mut Wire, tag: &str) -> Told<Option<String>> {
        let target = format!("/v2/{}/manifests/{tag}", self.name);
        let answer = wire.ask("HEAD", &target, &[("Accept", ACCEPT)], Body::None)?;
        expect(&answer, &[200, 404], &target)?;
        let digest = answer.header("docker-content-digest").to_owned();
        Ok((answer.status() == 200).then_some(digest))
    }

    /// What was under way has happened wholly or not at all.
    fn resolve(&mut self, wire: &mut Wire, found: &mut Found) -> Told<()> {
        let Some(doubt) = self.doubt.take() else { return Ok(()) };
        let has_happened = match &doubt {
            Doubt::Blob(piece) => {
                let target = format!("/v2/{}/blobs/{}", self.name, piece.digest);
                let answer = wire.ask("HEAD", &target, &[], Body::None)?;
                expect(&answer, &[200, 404], &target)?;
                answer.status() == 200
            }
            Doubt::Put(sent, tag) => {
                // Pushed before, it was there already, and the tag tells.
                let was_there = self.manifests.contains_key(&sent.digest);
                let is_there = self.manifest_is_there(wire, sent)?;
                let is_tagged = self.tag(wire, tag)?.as_deref() == Some(&*sent.digest);
                if is_tagged != is_there && !(was_there && is_there) {
                    return wrong(format!(
                        "{}: half a push: manifest {} {is_there}, tag {tag} {is_tagged}",
                        self.name, sent.digest
                    ));
                }
                is_tagged
            }
            Doubt::Delete(digest) => {
                let sent = &self.manifests[digest];
                !self.manifest_is_there(wire, sent)?
            }
            Doubt::Untag(tag) => self.tag(wire, tag)?.is_none(),
        };
        if has_happened {
            found.happened += 1;
            self.happened(doubt);
        } else {
            found.had_not += 1;
        }
        Ok(())
    }

    /// It was acknowledged, or seen to have happened.
    pub fn happened(&mut self, done: Doubt) {
        match done {
            Doubt::Blob(piece) => {
                self.blobs.insert(piece.digest.clone(), piece);
            }
            Doubt::Put(sent, tag) => {
                self.tags.insert(tag, sent.digest.clone());
                self.gone.remove(&sent.digest);
                self.manifests.insert(sent.digest.clone(), sent);
            }
            Doubt::Delete(digest) => {
                self.tags.retain(|_, named| *named != digest);
                self.manifests.remove(&digest);
                self.gone.insert(digest);
            }
            Doubt::Untag(tag) => {
                self.tags.remove(&tag);
            }
        }
    }

    /// Each upload goes on where the server says, or is gone.
    fn check_uploads(&mut self, wire: &mut Wire, found: &mut Found) -> Told<()> {
        for Unfinished { piece, target, sent } in std::mem::take(&mut self.uploads) {
            let Some((offset, target)) = uploads::status(wire, &target)? else {
                found.ended += 1;
                continue;
            };
            let bytes = piece.bytes();
            if offset > sent {
                return wrong(format!("{target}: {offset} bytes are there of {sent} sent"));
            }
            let target = uploads::append(wire, &target, offset, &bytes[offset..], true)?;
            let answer = uploads::finish(wire, &target, &piece.digest, b"")?;
            expect(&answer, &[201], "the end of an upload that went on")?;
            found.resumed += 1;
            self.blobs.insert(piece.digest.clone(), piece);
        }
        Ok(())
    }

    /// The tags are those that there must be, and lead to what they must.
    fn check_tags(&self, wire: &mut Wire) -> Told<()> {
        let listed = judge::all_tags(wire, &self.name)?;
        let expected: BTreeSet<String> = self.tags.keys().cloned().collect();
        if listed != expected {
            let name = &self.name;
            let lost: Vec<_> = expected.difference(&listed).collect();
            let back: Vec<_> = listed.difference(&expected).collect();
            return wrong(format!("{name}: tags lost: {lost:?}, tags too many: {back:?}"));
        }
        for (tag, digest) in &self.tags {
            let named = self.tag(wire, tag)?;
            if named.as_deref() != Some(digest) {
                return wrong(format!("{}: tag {tag} names {named:?}, not {digest}", self.name));
            }
        }
        Ok(())
    }

    fn check_referrers(&self, wire: &mut Wire) -> Told<()> {
        let mut expected: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for sent in self.manifests.values() {
            let subject = sent.subject.as_deref().map(|subject| expected.entry(subject));
            subject.map(|all| all.or_default().insert(&sent.digest));
        }
        for (subject, expected) in expected {
            let listed = judge::referrers(wire, &self.name, subject, None)?;
            let listed = listed.iter().map(|one| one["digest"].as_str().unwrap_or_default());
            let listed: BTreeSet<&str> = listed.collect();
            if listed != expected {
                let name = &self.name;
                return wrong(format!("{name}: {subject}: {listed:?}, not {expected:?}"));
            }
        }
        Ok(())
    }
}
