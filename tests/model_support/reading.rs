//! What one client reads and lists, and what the answers must be.

use super::judge;
use super::machine::{Machine, found};
use super::model::There;
use super::operation::{Op, TAGS, TYPES};
use super::wire::{Body, Told, expect, expect_header, with_query, wrong};
use crate::support::images::ACCEPT;

impl Machine<'_> {
    pub(super) fn get(&mut self, op: &Op) -> Told<()> {
        let (repo, reference, named, there, head) = match *op {
            Op::Tag { repo, tag, head } => {
                let named = self.model.repo(repo).tags.get(TAGS[tag]).copied();
                let there = if named.is_some() { There::Yes } else { There::No };
                (repo, TAGS[tag], named, there, head)
            }
            Op::Manifest { repo, manifest, head } => {
                let digest = self.contents.manifests[manifest].digest.as_str();
                (repo, digest, Some(manifest), self.model.manifest(repo, manifest), head)
            }
            Op::Blob { repo, blob, head, range } => return self.get_blob(repo, blob, head, range),
            _ => return Ok(()),
        };
        let target = format!("/v2/{}/manifests/{reference}", self.names[repo]);
        let method = if head { "HEAD" } else { "GET" };
        let answer = self.wire.ask(method, &target, &[("Accept", ACCEPT)], Body::None)?;
        expect(&answer, found(there, &[200], &[404], &[200, 404]), &target)?;
        match named {
            Some(named) if answer.status() == 200 => {
                judge::manifest(&answer, &self.contents.manifests[named], head, &target)
            }
            _ => Ok(()),
        }
    }

    fn get_blob(
        &mut self,
        repo: usize,
        blob: usize,
        head: bool,
        range: Option<(usize, usize)>,
    ) -> Told<()> {
        let there = self.model.blob(repo, blob);
        let blob = &self.contents.blobs[blob];
        let target = format!("/v2/{}/blobs/{}", self.names[repo], blob.digest);
        let range = range.filter(|_| !head);
        let header = range.map(|(first, last)| format!("bytes={first}-{last}"));
        let headers: Vec<_> = header.as_deref().map(|range| ("Range", range)).into_iter().collect();
        let method = if head { "HEAD" } else { "GET" };
        let answer = self.wire.ask(method, &target, &headers, Body::None)?;
        let (whole, size) = ([206, 404], blob.bytes.len());
        let (yes, maybe): (&[u16], &[u16]) =
            if range.is_some() { (&whole[..1], &whole) } else { (&[200], &[200, 404]) };
        expect(&answer, found(there, yes, &[404], maybe), &target)?;
        if answer.status() == 404 {
            return Ok(());
        }
        let (first, behind) = range.map_or((0, size), |(first, last)| (first, last + 1));
        expect_header(&answer, "content-length", &(behind - first).to_string(), &target)?;
        if !head && answer.body != blob.bytes[first..behind] {
            return wrong(format!("{target} {range:?}: {} wrong bytes", answer.body.len()));
        }
        Ok(())
    }

    pub(super) fn list(&mut self, op: &Op) -> Told<()> {
        match *op {
            Op::Tags { repo, page, last } => self.list_tags(repo, page, last),
            Op::Catalog { page } => self.list_catalog(page),
            Op::Referrers { repo, manifest, filter } if self.abilities.is_full => {
                let filter = filter.map(|filter| TYPES[filter]);
                let digest = &self.contents.manifests[manifest].digest;
                let name = &self.names[repo];
                let listed = judge::referrers(&mut self.wire, name, digest, filter)?;
                let mut missing = listed.clone();
                for (one, there) in self.model.referrers(self.contents, repo, manifest, filter) {
                    let expected = &self.contents.manifests[one].listed;
                    match missing.iter().position(|found| found == expected) {
                        Some(at) => drop(missing.swap_remove(at)),
                        None if there == There::Maybe => {}
                        None => {
                            return wrong(format!(
                                "{digest} {filter:?}: {expected} is not in {listed:?}"
                            ));
                        }
                    }
                }
                match missing.first() {
                    Some(more) => {
                        wrong(format!("{digest} {filter:?}: {more} does not refer to it"))
                    }
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn list_tags(&mut self, repo: usize, page: usize, last: Option<usize>) -> Told<()> {
        let known = self.model.repo(repo);
        let mut target = format!("/v2/{}/tags/list", self.names[repo]);
        let (page, last) = if self.abilities.is_full { (page, last) } else { (0, None) };
        if page > 0 {
            target = with_query(&target, &format!("n={page}"));
        }
        if let Some(last) = last {
            target = with_query(&target, &format!("last={}", TAGS[last]));
        }
        let answer = self.wire.ask("GET", &target, &[], Body::None)?;
        // What the yardstick lists for ever depends on what was ever there.
        let there = match self.abilities.is_full {
            true => self.model.exists(repo),
            false if known.tags.is_empty() => There::Maybe,
            false => There::Yes,
        };
        let statuses = found(there, &[200], &[404], &[200, 404]);
        expect(&answer, statuses, &target)?;
        if answer.status() == 404 {
            return Ok(());
        }
        let behind = |tag: &&str| last.is_none_or(|last| *tag > TAGS[last]);
        let mut expected: Vec<&str> = known.tags.keys().copied().filter(behind).collect();
        let is_more = page > 0 && expected.len() > page;
        if is_more {
            expected.truncate(page);
        }
        let mut listed = judge::strings(&answer, "tags", &target)?;
        if !self.abilities.is_full {
            listed.sort();
        }
        let next = judge::next_page(&answer, &target)?;
        if listed != expected || next.is_some() != is_more {
            return wrong(format!("{target}: {listed:?} then {next:?}, not {expected:?}"));
        }
        Ok(())
    }

    fn list_catalog(&mut self, page: usize) -> Told<()> {
        let target = match page {
            0 => "/v2/_catalog".to_owned(),
            page => format!("/v2/_catalog?n={page}"),
        };
        let mut listed = Vec::new();
        judge::pages(&mut self.wire, &target, |answer| {
            let names = judge::strings(answer, "repositories", &target)?;
            if page > 0 && names.len() > page {
                return wrong(format!("{target}: {names:?}"));
            }
            listed.extend(names);
            Ok(())
        })?;
        if !self.abilities.is_full {
            listed.sort();
        }
        if !listed.is_sorted() || listed.windows(2).any(|two| two[0] == two[1]) {
            return wrong(format!("{target}: not in order: {listed:?}"));
        }
        for (&repo, found) in &self.model.repos {
            let is_listed = listed.contains(&self.names[repo]);
            let there = match self.abilities.is_full {
                true => self.model.exists(repo),
                false if found.tags.is_empty() => There::Maybe,
                false => There::Yes,
            };
            let is_right = match there {
                There::Yes => is_listed,
                There::No => !is_listed,
                There::Maybe => true,
            };
            if !is_right {
                return wrong(format!("{target}: {listed:?}, {}: {found:?}", self.names[repo]));
            }
        }
        Ok(())
    }
}
