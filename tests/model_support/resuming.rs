//! Uploads that one client leaves open between its operations, and goes on with.

use super::judge;
use super::machine::Machine;
use super::operation::Op;
use super::uploads::{self, Upload};
use super::wire::{Body, Told, expect, wrong};

/// Uploads that a client has under way at most.
const UPLOADS_MAX: usize = 6;

impl Machine<'_> {
    pub(super) fn upload(&mut self, op: &Op) -> Told<()> {
        if let Op::Open { repo, blob } = *op {
            if self.uploads.len() < UPLOADS_MAX {
                let target = uploads::open(&mut self.wire, &self.names[repo])?;
                let (offset, sent, is_uncertain) = (0, 0, false);
                let moved = self.model.now;
                self.uploads.push(Upload { repo, blob, target, offset, sent, moved, is_uncertain });
            }
            return Ok(());
        }
        let (Op::Append { upload, .. }
        | Op::AppendWrong { upload }
        | Op::Ask { upload }
        | Op::AskElsewhere { upload, .. }
        | Op::Finish { upload }
        | Op::Cancel { upload }) = op
        else {
            return Ok(());
        };
        if self.uploads.is_empty() {
            return Ok(());
        }
        let at = upload % self.uploads.len();
        if self.uploads[at].is_uncertain && !self.ask(at)? {
            return Ok(());
        }
        self.upload_known(op, at)
    }

    /// Asks how far an upload is; whether it is still there.
    fn ask(&mut self, at: usize) -> Told<bool> {
        let found = &mut self.uploads[at];
        let (target, is_uncertain) = (found.target.clone(), found.is_uncertain);
        let Some((offset, target)) = uploads::status(&mut self.wire, &target)? else {
            self.uploads.remove(at);
            if is_uncertain {
                return Ok(false);
            }
            return wrong(format!("{target}: this upload is lost"));
        };
        if offset > found.sent || !is_uncertain && offset != found.offset {
            return wrong(format!("{target}: {offset} bytes are there: {found:?}"));
        }
        (found.target, found.offset, found.is_uncertain) = (target, offset, false);
        Ok(true)
    }

    fn upload_known(&mut self, op: &Op, at: usize) -> Told<()> {
        let wire = &mut self.wire;
        let found = &mut self.uploads[at];
        let blob = &self.contents.blobs[found.blob];
        match *op {
            Op::Append { percent, is_streamed, .. } => {
                let rest = blob.bytes.len() - found.offset;
                let piece = &blob.bytes[found.offset..found.offset + rest * percent / 100];
                let end = found.offset + piece.len();
                // One byte is told with the same words as none.
                if piece.is_empty() || end == 1 {
                    return Ok(());
                }
                found.sent = found.sent.max(end);
                found.target =
                    uploads::append(wire, &found.target, found.offset, piece, is_streamed)?;
                found.offset = end;
                found.moved = self.model.now;
            }
            Op::AppendWrong { .. } if self.abilities.is_full => {
                let answer =
                    uploads::send(wire, &found.target, found.offset + 10, b"a gap", false)?;
                expect(&answer, &[416], "a piece that leaves a gap")?;
            }
            Op::Ask { .. } => drop(self.ask(at)?),
            Op::AskElsewhere { repo, .. } if self.abilities.is_full && repo != found.repo => {
                let own = format!("/v2/{}/", self.names[found.repo]);
                let target = found.target.replace(&own, &format!("/v2/{}/", self.names[repo]));
                let answer = wire.ask("GET", &target, &[], Body::None)?;
                expect(&answer, &[404], "an upload of another repository")?;
            }
            Op::Finish { .. } => {
                let (repo, number) = (found.repo, found.blob);
                let target = found.target.clone();
                let rest = &blob.bytes[found.offset..];
                found.sent = blob.bytes.len();
                let answer = uploads::finish(wire, &target, &blob.digest, rest)?;
                self.uploads.remove(at);
                expect(&answer, &[201], "the end of an upload")?;
                judge::created(&answer, &blob.digest, &target)?;
                self.model.put_blob(repo, number);
            }
            Op::Cancel { .. } => {
                let target = self.uploads.remove(at).target;
                let answer = self.wire.ask("DELETE", &target, &[], Body::None)?;
                expect(&answer, &[204], "cancelling an upload")?;
                if uploads::status(&mut self.wire, &target)?.is_some() {
                    return wrong(format!("{target}: cancelled, and still there"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
