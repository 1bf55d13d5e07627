//! One client: does operations, judges each answer by its model, and after a crash finds out
//! whether what was under way has happened, wholly or not at all.

use super::contents::Contents;
use super::model::{Model, There};
use super::observed::look;
use super::operation::{Op, TAGS, Way};
use super::subject::{Abilities, Subject};
use super::uploads::Upload;
use super::wire::{Told, Trouble, Wire, wrong};
use std::time::Duration;

/// An upload that nobody goes on with expires after so long.
const UPLOAD_HOURS: u64 = 24;

/// One client.
pub struct Machine<'a> {
    /// What it can push.
    pub contents: &'a Contents,
    /// The names of all repositories, its own and others'.
    pub names: &'a [String],
    /// What the server can do.
    pub abilities: Abilities,
    /// Its connection.
    pub wire: Wire,
    /// What there must be.
    pub model: Model,
    /// A gc goes on.
    pub is_collecting: bool,
    pub(super) uploads: Vec<Upload>,
}

impl<'a> Machine<'a> {
    /// One that has the repositories `own` to itself.
    pub fn new(
        contents: &'a Contents,
        names: &'a [String],
        own: std::ops::Range<usize>,
        subject: &Subject,
    ) -> Machine<'a> {
        Machine {
            contents,
            names,
            abilities: subject.abilities(),
            wire: Wire::new(subject.addr(), subject.life()),
            model: Model::new(own),
            is_collecting: false,
            uploads: Vec::new(),
        }
    }

    /// Does one operation that may end or move the server, too.
    pub fn run_alone(&mut self, op: &Op, subject: &mut Subject) -> Told<()> {
        match op {
            Op::Gc => {
                subject.collect().or_else(wrong)?;
                self.collected();
                Ok(())
            }
            Op::Advance { hours } => {
                subject.advance(*hours);
                self.advanced(*hours);
                Ok(())
            }
            Op::Restart => {
                subject.restart();
                // Only that a piece has come is written down.
                let expired = |upload: &&mut Upload| upload.moved + UPLOAD_HOURS <= self.model.now;
                for upload in self.uploads.iter_mut().filter(|upload| expired(upload)) {
                    upload.is_uncertain = true;
                }
                self.check()
            }
            Op::Kill => {
                subject.kill();
                subject.start_again();
                self.has_ended();
                self.check()
            }
            // It leaves manifests without their tags, and tags that are listed and not there.
            Op::KillDuring { op, .. } if !self.abilities.is_full => {
                self.run(op)?;
                self.run_alone(&Op::Kill, subject)
            }
            Op::KillDuring { op, after } => self.killed_during(op, *after, subject),
            Op::Check => {
                subject.check();
                self.check()
            }
            op => self.run(op),
        }
    }

    fn killed_during(&mut self, op: &Op, after: u64, subject: &mut Subject) -> Told<()> {
        let done = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_micros(after));
                subject.kill();
            });
            self.run(op)
        });
        subject.start_again();
        self.has_ended();
        match done {
            Err(Trouble::Gone(_)) | Ok(()) => self.check(),
            wrong => wrong,
        }
    }

    /// Does one operation of a client's own. When the server goes away meanwhile, the model holds
    /// what was acknowledged, and `pending` what else may have happened.
    pub fn run(&mut self, op: &Op) -> Told<()> {
        for op in self.expand(op) {
            let before = self.model.clone();
            self.wire.note(format!("-- {op:?}"));
            match self.simple(&op) {
                Ok(()) => {}
                Err(Trouble::Gone(why)) => {
                    self.model = before.clone();
                    self.effect(&op);
                    let after = std::mem::replace(&mut self.model, before);
                    self.model.pending = Some(Box::new(after));
                    return Err(Trouble::Gone(why));
                }
                wrong => return wrong,
            }
            if self.is_collecting {
                self.model.doubt(self.contents);
            }
        }
        Ok(())
    }

    /// A push of a whole image is several operations; what a server can not do is none.
    fn expand(&self, op: &Op) -> Vec<Op> {
        match op.clone() {
            Op::PutWhole { repo, manifest, tags, by_digest } => {
                let mut all = Vec::new();
                self.missing(repo, manifest, &mut all);
                all.push(self.normal(Op::Put { repo, manifest, tags, by_digest }));
                all
            }
            op => vec![self.normal(op)],
        }
    }

    fn missing(&self, repo: usize, manifest: usize, all: &mut Vec<Op>) {
        let found = &self.contents.manifests[manifest];
        for &blob in &found.blobs {
            if self.model.blob(repo, blob) != There::Yes {
                all.push(Op::Push { repo, blob, way: Way::Put });
            }
        }
        for &child in &found.children {
            if self.model.manifest(repo, child) != There::Yes {
                self.missing(repo, child, all);
                all.push(Op::Put { repo, manifest: child, tags: Vec::new(), by_digest: true });
            }
        }
    }

    fn normal(&self, op: Op) -> Op {
        match op {
            Op::Put { repo, manifest, mut tags, by_digest } => {
                // By a tag alone it would get another digest.
                let by_digest = by_digest || !self.contents.is_sha256(manifest);
                if by_digest && !self.abilities.is_full {
                    tags.clear();
                }
                Op::Put { repo, manifest, tags, by_digest }
            }
            // It forgets an upload whose connection ended.
            Op::Push { repo, blob, way: Way::Cut { .. } } if !self.abilities.is_full => {
                Op::Push { repo, blob, way: Way::Streamed }
            }
            op => op,
        }
    }

    /// What an operation that was acknowledged has changed.
    pub(super) fn effect(&mut self, op: &Op) {
        let model = &mut self.model;
        match op {
            Op::Push { repo, blob, .. } | Op::Mount { repo, blob, .. } => {
                model.put_blob(*repo, *blob);
            }
            Op::Finish { upload } if !self.uploads.is_empty() => {
                let Upload { repo, blob, .. } = self.uploads[upload % self.uploads.len()];
                model.put_blob(repo, blob);
            }
            Op::Put { repo, manifest, tags, .. } => {
                let tags: Vec<&str> = tags.iter().map(|&tag| TAGS[tag]).collect();
                model.put_manifest(self.contents, *repo, *manifest, &tags);
            }
            Op::Untag { repo, tag } => model.remove_tag(*repo, TAGS[*tag]),
            Op::DeleteManifest { repo, manifest } => model.remove_manifest(*repo, *manifest),
            Op::DeleteBlob { repo, blob } => model.remove_blob(*repo, *blob),
            _ => {}
        }
    }

    fn simple(&mut self, op: &Op) -> Told<()> {
        match op {
            Op::Push { .. } | Op::PushWrong { .. } | Op::Mount { .. } => self.push(op),
            Op::Put { .. } | Op::PutWrong { .. } => self.put(op),
            Op::Untag { .. } | Op::DeleteManifest { .. } | Op::DeleteBlob { .. } => self.delete(op),
            Op::Tag { .. } | Op::Manifest { .. } | Op::Blob { .. } => self.get(op),
            Op::Tags { .. } | Op::Catalog { .. } | Op::Referrers { .. } => self.list(op),
            _ => self.upload(op),
        }
    }

    /// The clock has moved; uploads may have expired.
    pub fn advanced(&mut self, hours: u64) {
        self.model.now += hours;
        if let Some(pending) = &mut self.model.pending {
            pending.now += hours;
        }
        self.has_ended();
    }

    /// A gc has run while nobody did anything.
    pub fn collected(&mut self) {
        if !self.abilities.is_full {
            return;
        }
        if let Some(pending) = &mut self.model.pending {
            pending.collect(self.contents);
        }
        self.model.collect(self.contents);
    }

    /// A gc begins to run beside this, or has ended.
    pub fn collecting(&mut self, is_collecting: bool) {
        if !self.abilities.is_full {
            return;
        }
        self.is_collecting = is_collecting;
        self.model.doubt(self.contents);
        if let Some(pending) = &mut self.model.pending {
            pending.doubt(self.contents);
        }
    }

    /// The server was ended: how far uploads are must be asked.
    pub fn has_ended(&mut self) {
        self.uploads.iter_mut().for_each(|upload| upload.is_uncertain = true);
    }

    /// Everything is there that must be, and nothing else. What was under way when the server
    /// ended has happened wholly or not at all.
    pub fn check(&mut self) -> Told<()> {
        self.wire.is_quiet = true;
        let checked = self.check_all();
        self.wire.is_quiet = false;
        checked
    }

    fn check_all(&mut self) -> Told<()> {
        let is_full = self.abilities.is_full;
        let repos: Vec<usize> = self.model.repos.keys().copied().collect();
        let mut seen = Vec::new();
        for &repo in &repos {
            seen.push(look(&mut self.wire, self.contents, &self.names[repo], is_full)?);
        }
        let differences = |model: &Model| -> Vec<String> {
            let all = repos.iter().zip(&seen);
            all.flat_map(|(&repo, seen)| {
                let found = seen.differences(self.contents, model, repo, is_full);
                found.into_iter().map(move |one| (repo, one))
            })
            .map(|(repo, one)| format!("{}: {one}", self.names[repo]))
            .collect()
        };
        let before = differences(&self.model);
        // Not earlier: the server may have gone again meanwhile.
        let pending = self.model.pending.take();
        let after = pending.as_ref().map(|after| differences(after));
        match (before.is_empty(), pending, after) {
            (true, Some(after), Some(still)) if still.is_empty() => self.model.or(&after),
            (true, _, _) => {}
            (false, Some(after), Some(still)) if still.is_empty() => self.model = *after,
            (false, _, Some(still)) => {
                let (before, still) = (before.join("\n"), still.join("\n"));
                return wrong(format!("half done. As it was before:\n{before}\nafter:\n{still}"));
            }
            (false, _, None) => return wrong(before.join("\n")),
        }
        if !self.is_collecting {
            for (&repo, seen) in repos.iter().zip(&seen) {
                seen.settle(&mut self.model, repo);
            }
        }
        Ok(())
    }
}

/// The statuses that are right for what is there, is not, or may be.
pub(super) fn found<'a>(
    there: There,
    yes: &'a [u16],
    no: &'a [u16],
    maybe: &'a [u16],
) -> &'a [u16] {
    match there {
        There::Yes => yes,
        There::No => no,
        There::Maybe => maybe,
    }
}
