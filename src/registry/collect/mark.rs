//! Finding out what the tags of a hosted repository lead to.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

use super::retention::expired;
use super::{Collection, PIECE};
use crate::catalog::{BlobRecord, CatalogError, LinkRecord, TagRecord};
use crate::config::HostedRule;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::oci::{Digest, Manifest, Scope, Tag, media_type};
use crate::registry::upkeep::Upkeep;
use crate::runtime::File;

/// One repository, as gc sees it.
#[derive(Default)]
pub(super) struct Repository {
    pub(super) links: Vec<LinkRecord>,
    /// What its manifests point to.
    children: HashMap<Digest, Vec<Digest>>,
    /// The manifests that have this one as their subject.
    referrers: HashMap<Digest, Vec<Digest>>,
    tagged: Vec<Digest>,
    /// Tags that count no more.
    pub(super) expired: Vec<TagRecord>,
}

impl Collection<'_> {
    /// Reads a repository: links, tags, and what its manifests point to. `None` when it cannot be
    /// known; the reason is in the report then.
    pub(super) fn read_repository(
        &mut self,
        scope: &Scope,
    ) -> Result<Option<Repository>, CatalogError> {
        let mut repository = Repository::default();
        let mut damaged = Vec::new();
        let catalog = &self.upkeep.catalog;
        let mut after = None;
        loop {
            let piece = catalog.scan_links_of(scope, after.as_ref(), PIECE)?;
            damaged.extend(piece.damaged);
            repository.links.extend(piece.records);
            after = piece.next;
            if after.is_none() {
                break;
            }
        }
        let mut tags = Vec::new();
        loop {
            let piece = catalog.scan_tags_of(scope, after.as_ref(), PIECE)?;
            damaged.extend(piece.damaged);
            tags.extend(piece.records);
            after = piece.next;
            if after.is_none() {
                break;
            }
        }
        repository.take_tags(tags, &self.upkeep.rules.of(&scope.repository), self.began);
        let mut unknown: Vec<String> = damaged.iter().map(ToString::to_string).collect();
        let Repository { links, children, referrers, .. } = &mut repository;
        for link in links {
            let Some(media_type) = &link.media_type else { continue };
            match self.upkeep.read_manifest(&link.digest, media_type) {
                Ok(manifest) if media_type::is_schema1_type(&manifest.media_type) => unknown
                    .push(format!("manifest {}: schema 1 does not tell its layers", link.digest)),
                Ok(manifest) => {
                    let found = manifest.descriptors.iter().map(|descriptor| descriptor.digest);
                    children.insert(link.digest, found.collect());
                    if let Some(subject) = manifest.subject {
                        referrers.entry(subject.digest).or_default().push(link.digest);
                    }
                }
                Err(why) => unknown.push(format!("manifest {}: {why}", link.digest)),
            }
        }
        for why in &unknown {
            let problem = format!("the {scope} repository is kept whole: {why}");
            self.report.problems.add(problem);
        }
        Ok(unknown.is_empty().then_some(repository))
    }
}

impl Repository {
    fn take_tags(&mut self, tags: Vec<TagRecord>, rule: &HostedRule, now: u64) {
        self.expired = expired(rule, &tags, now);
        let over: HashSet<&Tag> = self.expired.iter().map(|tag| &tag.tag).collect();
        let kept = tags.iter().filter(|tag| !over.contains(&tag.tag));
        self.tagged.extend(kept.map(|tag| tag.digest));
    }

    /// What each manifest that refers to one refers to.
    pub(super) fn subjects(&self) -> HashMap<Digest, Digest> {
        let all = self.referrers.iter();
        all.flat_map(|(subject, all)| all.iter().map(|referrer| (*referrer, *subject))).collect()
    }

    /// All that the tags lead to, and all that was linked at `recent` or later, with what that
    /// leads to.
    pub(super) fn reached(&self, recent: u64) -> HashSet<Digest> {
        let linked = self.links.iter().filter(|link| link.linked_at >= recent);
        let mut waiting: Vec<Digest> = linked.map(|link| link.digest).collect();
        waiting.extend(&self.tagged);
        let mut reached = HashSet::new();
        while let Some(digest) = waiting.pop() {
            if reached.insert(digest) {
                for next in [&self.children, &self.referrers] {
                    waiting.extend(next.get(&digest).into_iter().flatten());
                }
            }
        }
        reached
    }
}

impl Upkeep {
    /// Reads a stored manifest; the error says why it cannot be used.
    fn read_manifest(&self, digest: &Digest, media_type: &str) -> Result<Manifest, String> {
        let record = self.catalog.blob_now(digest).map_err(|error| error.to_string())?;
        let Some(record) = record else { return Err("it is not stored".to_owned()) };
        let bytes = self.read_file(&record).map_err(|error| error.to_string())?;
        let found = Digest::of(digest.algorithm(), &bytes);
        if found != *digest {
            return Err(format!("its file hashes to {found}; run `ringport verify`"));
        }
        Manifest::check(&bytes, media_type).map_err(|error| error.to_string())
    }

    fn read_file(&self, record: &BlobRecord) -> io::Result<Vec<u8>> {
        let path = self.store.pool(record.pool)?.blob_path(&record.digest);
        let mut bytes = Vec::new();
        // One more than allowed, to notice what is too large.
        let (file, _) = File::open_regular(&path)?;
        file.take(MANIFEST_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
