//! What one client pushes and deletes, and what the answers must be.

use super::judge;
use super::machine::{Machine, found};
use super::model::There;
use super::operation::{Op, TAGS};
use super::uploads;
use super::wire::{Body, Told, expect, expect_header, location, with_query};
use crate::support::http::Answer;

impl Machine<'_> {
    pub(super) fn push(&mut self, op: &Op) -> Told<()> {
        match *op {
            Op::Push { repo, blob, way } => {
                let (name, blob) = (&self.names[repo], &self.contents.blobs[blob]);
                let answer = uploads::push(&mut self.wire, name, &blob.digest, &blob.bytes, way)?;
                let what = format!("push {way:?} of {}", blob.digest);
                expect(&answer, &[201], &what)?;
                judge::created(&answer, &blob.digest, &what)?;
            }
            Op::PushWrong { repo, blob } => {
                let blobs = &self.contents.blobs;
                let other = &blobs[(blob + 1) % blobs.len()].digest;
                let target = uploads::open(&mut self.wire, &self.names[repo])?;
                let bytes = &blobs[blob].bytes;
                let answer = uploads::finish(&mut self.wire, &target, other, bytes)?;
                return expect(&answer, &[400], "a wrong digest");
            }
            Op::Mount { repo, from, blob } => {
                let (name, digest) = (&self.names[repo], &self.contents.blobs[blob].digest);
                let target = format!(
                    "/v2/{name}/blobs/uploads/?mount={digest}&from={}",
                    self.names[from].replace('/', "%2F")
                );
                let answer = self.wire.ask("POST", &target, &[], Body::Bytes(b""))?;
                let is_here = self.model.blob(repo, blob) != There::No;
                expect(&answer, mounted(self.model.blob(from, blob), is_here), &target)?;
                if answer.status() == 202 {
                    let target = location(&answer, &target)?;
                    let answer = self.wire.ask("DELETE", &target, &[], Body::None)?;
                    return expect(&answer, &[204], "cancelling what was not mounted");
                }
                judge::created(&answer, digest, &target)?;
            }
            _ => {}
        }
        self.effect(op);
        Ok(())
    }

    pub(super) fn put(&mut self, op: &Op) -> Told<()> {
        match op {
            Op::Put { repo, manifest, tags, by_digest } => {
                let there = self.model.named_by(self.contents, *repo, *manifest);
                let found = &self.contents.manifests[*manifest];
                let digest = &found.digest;
                let names: Vec<&str> = tags.iter().map(|&tag| TAGS[tag]).collect();
                let mut target = format!("/v2/{}/manifests/", self.names[*repo]);
                match by_digest {
                    true => target.push_str(digest),
                    false => target.push_str(names[0]),
                }
                if *by_digest {
                    for tag in &names {
                        target = with_query(&target, &format!("tag={tag}"));
                    }
                }
                let headers = [("Content-Type", found.media_type)];
                let answer = self.wire.ask("PUT", &target, &headers, Body::Bytes(&found.bytes))?;
                expect(&answer, put_statuses(there), &target)?;
                if answer.status() != 201 {
                    return Ok(());
                }
                judge::created(&answer, digest, &target)?;
                expect_header(&answer, "docker-content-digest", digest, &target)?;
                if self.abilities.is_full
                    && let Some(subject) = found.subject
                {
                    let subject = &self.contents.manifests[subject].digest;
                    expect_header(&answer, "oci-subject", subject, &target)?;
                }
                self.effect(op);
                Ok(())
            }
            Op::PutWrong { repo, manifest } => {
                let all = &self.contents.manifests;
                let (found, other) = (&all[*manifest], &all[(manifest + 1) % all.len()]);
                let name = &self.names[*repo];
                let answer = match manifest % 3 {
                    0 => self.put_raw(name, &other.digest, found.media_type, &found.bytes)?,
                    1 => {
                        let half = &found.bytes[..found.bytes.len() / 2];
                        self.put_raw(name, "latest", found.media_type, half)?
                    }
                    _ => self.put_raw(name, "latest", "text/plain", &found.bytes)?,
                };
                expect(&answer, &[400, 415], "a manifest that is wrong")
            }
            _ => Ok(()),
        }
    }

    fn put_raw(
        &mut self,
        name: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Told<Answer> {
        let target = format!("/v2/{name}/manifests/{reference}");
        self.wire.ask("PUT", &target, &[("Content-Type", media_type)], Body::Bytes(bytes))
    }

    pub(super) fn delete(&mut self, op: &Op) -> Told<()> {
        let (target, there) = match *op {
            Op::Untag { .. } if !self.abilities.is_full => return Ok(()),
            Op::Untag { repo, tag } => {
                let is_there = self.model.repo(repo).tags.contains_key(TAGS[tag]);
                let there = if is_there { There::Yes } else { There::No };
                (format!("/v2/{}/manifests/{}", self.names[repo], TAGS[tag]), there)
            }
            Op::DeleteManifest { repo, manifest } => {
                let digest = &self.contents.manifests[manifest].digest;
                let target = format!("/v2/{}/manifests/{digest}", self.names[repo]);
                (target, self.model.manifest(repo, manifest))
            }
            Op::DeleteBlob { repo, blob } => {
                let digest = &self.contents.blobs[blob].digest;
                let target = format!("/v2/{}/blobs/{digest}", self.names[repo]);
                (target, self.model.blob(repo, blob))
            }
            _ => return Ok(()),
        };
        let answer = self.wire.ask("DELETE", &target, &[], Body::None)?;
        expect(&answer, found(there, &[202], &[404], &[202, 404]), &target)?;
        if answer.status() == 202 {
            self.effect(op);
        }
        Ok(())
    }
}

fn put_statuses(there: There) -> &'static [u16] {
    found(there, &[201], &[400, 404], &[201, 400, 404])
}

/// Mounting what the source lacks may still find it in the target.
fn mounted(there: There, is_here: bool) -> &'static [u16] {
    match there {
        There::No if !is_here => &[202],
        There::Yes => &[201],
        _ => &[201, 202],
    }
}
