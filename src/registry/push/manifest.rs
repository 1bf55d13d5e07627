//! Manifests: checked whole, then put in place and named together with their tags.

use std::collections::HashSet;

use bytes::Bytes;

use super::PushError;
use super::limits;
use super::place::{place, take_room};
use crate::catalog::{Holding, LinkRecord, ReferrerRecord, TagRecord, Write};
use crate::config::{HostedRule, MissingReferences};
use crate::index::SMALL_BYTES_MAX;
use crate::oci::{Algorithm, Descriptor, Digest, Manifest, Reference, Scope, Tag, media_type};
use crate::registry::state::{Registry, Shared};
use crate::runtime::clock;

/// How often a push begins again when something that it names was deleted in between.
const TRIES_MAX: usize = 4;
/// Missing contents that a refusal names one by one.
const TOLD_MAX: usize = 16;

/// A manifest as a client sends it.
#[derive(Debug, Clone)]
pub struct ManifestPut<'a> {
    /// Under what.
    pub reference: &'a Reference,
    /// Tags that it gets besides.
    pub tags: Vec<Tag>,
    /// What the client says that it is.
    pub content_type: Option<&'a str>,
    /// The manifest, at most [`MANIFEST_BYTES_MAX`](crate::limits::MANIFEST_BYTES_MAX).
    pub bytes: Bytes,
}

/// A manifest that is stored and named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestStored {
    /// Its digest.
    pub digest: Digest,
    /// The manifest that it refers to.
    pub subject: Option<Digest>,
}

/// A manifest that is one.
struct Checked {
    digest: Digest,
    manifest: Manifest,
    bytes: Bytes,
    tags: Vec<Tag>,
}

impl Registry {
    /// Stores a manifest in a hosted repository. When this returns it is durable, and every worker
    /// finds it by its digest and by its tags.
    ///
    /// # Errors
    /// [`PushError`]; nothing has a name then that it had not before.
    pub async fn push_manifest(
        &self,
        scope: &Scope,
        put: ManifestPut<'_>,
    ) -> Result<ManifestStored, PushError> {
        let checked = check(put)?;
        let mut tries = 1;
        loop {
            match commit(self.shared(), scope, &checked).await {
                // A delete came in between. What it took away is looked for anew.
                Err(PushError::Deleted(_)) if tries < TRIES_MAX => tries += 1,
                outcome => break outcome?,
            }
        }
        let subject = checked.manifest.subject.map(|subject| subject.digest);
        Ok(ManifestStored { digest: checked.digest, subject })
    }
}

/// Whether it is a manifest, and the one that it is pushed as.
fn check(put: ManifestPut<'_>) -> Result<Checked, PushError> {
    let ManifestPut { reference, mut tags, content_type, bytes } = put;
    let digest = match reference {
        Reference::Digest(expected) => {
            let found = Digest::of(expected.algorithm(), &bytes);
            if found != *expected {
                let size = bytes.len();
                let message = format!(
                    "the manifest of {size} bytes hashes to {found}, expected {expected}; it was \
                     not stored"
                );
                return Err(PushError::Digest(message));
            }
            found
        }
        Reference::Tag(tag) => {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
            Digest::of(Algorithm::Sha256, &bytes)
        }
    };
    let content_type = content_type.map(media_type::without_parameters);
    let content_type = content_type.filter(|text| !text.is_empty()).map(str::to_owned);
    let content_type = content_type.unwrap_or_else(|| Manifest::likely_media_type(&bytes));
    let manifest = Manifest::check(&bytes, &content_type)
        .map_err(|error| PushError::ManifestInvalid(format!("{error}; it was not stored")))?;
    if media_type::is_schema1_type(&manifest.media_type) {
        return Err(PushError::ManifestInvalid(
            "images of schema 1 are not stored: they do not tell which layers they need; push it \
             with schema 2 or as an OCI image"
                .to_owned(),
        ));
    }
    Ok(Checked { digest, manifest, bytes, tags })
}

async fn commit(shared: &Shared, scope: &Scope, checked: &Checked) -> Result<(), PushError> {
    let _pushing = shared.gate.pushing().await;
    let since = shared.catalog.moment();
    let rule = shared.rules.of(&scope.repository);
    let names = names(shared, (scope, &rule), checked).await?;
    let Checked { digest, bytes, tags, .. } = checked;
    let mut conditions = limits::bound(&rule, scope, tags, digest);
    conditions.extend(limits::within(&rule, scope));
    if is_stored(shared, digest, bytes).await? {
        // Whoever uploads it as a blob meanwhile must see that it is a manifest.
        let _turn = shared.store.turn(digest).await;
        shared.catalog.write_if(since, conditions, names).await?;
    } else {
        let (mut staged, _room) = take_room(shared, digest, bytes.len() as u64).await?;
        staged.append(bytes.clone()).await?;
        place(shared, digest, staged).await?.name((since, conditions), names).await?;
    }
    if bytes.len() <= SMALL_BYTES_MAX {
        shared.catalog.offer(*digest, bytes.clone());
    }
    Ok(())
}

/// Whether it is here as content of ours, so durable, and its file is what it must be. It is read
/// for that: what is pushed again may be meant to mend what is damaged.
async fn is_stored(shared: &Shared, digest: &Digest, bytes: &Bytes) -> Result<bool, PushError> {
    let found = shared.catalog.find_blob(digest).await?;
    let Some(record) = found.filter(|record| record.is_hosted) else { return Ok(false) };
    let read = shared.store.read_small(record.pool, digest, record.size).await;
    Ok(read.is_ok_and(|found| found.as_ref() == Some(bytes)))
}

/// All that makes a manifest findable, if the repository has what it names.
async fn names(
    shared: &Shared,
    (scope, rule): (&Scope, &HostedRule),
    checked: &Checked,
) -> Result<Vec<Write>, PushError> {
    let Checked { digest, manifest, bytes, tags } = checked;
    let mut known = HashSet::new();
    let named = manifest.descriptors.iter().map(|descriptor| descriptor.digest);
    let named = named.filter(|digest| known.insert(*digest)).collect();
    let holdings = shared.catalog.find_holdings(scope, named).await?;
    refuse_missing((scope, rule), manifest, &holdings)?;
    let now = clock::unix_seconds();
    // So that gc finds it in use, and so that a delete that comes in between is noticed.
    let linked = holdings.into_iter().filter_map(|held| held.link);
    let linked = linked.map(|link| Write::TouchLink(LinkRecord { linked_at: now, ..link }));
    let mut writes: Vec<Write> = linked.collect();
    writes.push(Write::PutLink(LinkRecord {
        scope: scope.clone(),
        digest: *digest,
        media_type: Some(manifest.media_type.clone()),
        linked_at: now,
    }));
    writes.extend(tags.iter().map(|tag| {
        let (scope, tag) = (scope.clone(), tag.clone());
        Write::PutTag(TagRecord { scope, tag, digest: *digest, checked_at: now })
    }));
    if let Some(subject) = &manifest.subject {
        let annotations = manifest.annotations.as_deref().unwrap_or_default();
        writes.push(Write::PutReferrer(ReferrerRecord {
            artifact_type: manifest.artifact_type.clone(),
            size: bytes.len() as u64,
            media_type: manifest.media_type.clone(),
            annotations: Bytes::copy_from_slice(annotations.as_bytes()),
            ..ReferrerRecord::key(scope.clone(), subject.digest, *digest)
        }));
    }
    Ok(writes)
}

/// Refuses a manifest that names what the repository lacks, as far as its rule says so.
fn refuse_missing(
    (scope, rule): (&Scope, &HostedRule),
    manifest: &Manifest,
    holdings: &[Holding],
) -> Result<(), PushError> {
    let is_index = media_type::is_index_type(&manifest.media_type);
    match rule.missing_references {
        MissingReferences::Allowed => return Ok(()),
        MissingReferences::InIndexes if is_index => return Ok(()),
        MissingReferences::InIndexes | MissingReferences::Refused => {}
    }
    let mut excused = HashSet::new();
    let mut manifests = HashSet::new();
    for descriptor in &manifest.descriptors {
        if is_elsewhere(descriptor) {
            excused.insert(descriptor.digest);
        }
        // What an index names by another type is no manifest: caches of layers are kept so.
        if is_index && media_type::is_manifest_type(&descriptor.media_type) {
            manifests.insert(descriptor.digest);
        }
    }
    let is_here = |held: &Holding| match &held.link {
        Some(link) => link.media_type.is_some() || !manifests.contains(&held.digest),
        None => excused.contains(&held.digest),
    };
    let missing: Vec<Digest> =
        holdings.iter().filter(|held| !is_here(held)).map(|held| held.digest).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = missing.iter().take(TOLD_MAX).map(ToString::to_string).collect();
    let more = match missing.len() - told.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = if is_index { "manifests" } else { "blobs" };
    Err(PushError::ManifestBlobUnknown(format!(
        "the manifest names {what} that {scope} does not have: {}{more}; push them first",
        told.join(", ")
    )))
}

/// Whether a layer may be had elsewhere only (image-spec, "Non-Distributable Layers").
fn is_elsewhere(descriptor: &Descriptor) -> bool {
    descriptor.has_urls || media_type::is_nondistributable(&descriptor.media_type)
}
