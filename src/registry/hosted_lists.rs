//! Lists of what is hosted: repositories, tags, referrers. Each page is read from the catalog when
//! it is asked for, so it shows every push and delete that was answered before.

use serde::Serialize;
use serde_json::value::RawValue;

use super::PullError;
use super::state::Registry;
use crate::catalog::{Mark, Page, ReferrerRecord};
use crate::limits::{MANIFEST_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::oci::{Digest, RepositoryName, Scope, Tag, media_type};

/// Where a page begins and how much may be in it.
#[derive(Debug, Clone, Default)]
pub struct PageAsk {
    /// At most so many entries; `None`: [`PAGE_ENTRIES_MAX`].
    pub n: Option<u32>,
    /// Behind this one, which need not exist.
    pub last: Option<String>,
}

/// A page of referrers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferrersPage {
    /// An image index.
    pub document: Vec<u8>,
    /// There are more behind this one.
    pub next: Option<Digest>,
}

/// Bytes of a descriptor besides its text that the catalog weighs: names of fields, digest, size.
const DESCRIPTOR_BYTES: usize = 512;
/// Fewer records are not asked for, since a filter may let only some of them through.
const PIECE_MIN: usize = 64;
/// Records looked at for one page, whatever its filter lets through.
const LOOKED_AT_MAX: usize = 16 * PAGE_ENTRIES_MAX as usize;

impl PageAsk {
    fn max(&self) -> usize {
        self.n.unwrap_or(PAGE_ENTRIES_MAX).min(PAGE_ENTRIES_MAX) as usize
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferrersIndex<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReferrerDescriptor<'a> {
    media_type: &'a str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a RawValue>,
}

impl Registry {
    /// A page of the hosted repositories that `may_see` lets through.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn hosted_repositories(
        &self,
        ask: &PageAsk,
        may_see: impl Fn(&RepositoryName) -> bool,
    ) -> Result<Page<RepositoryName>, PullError> {
        let max = ask.max();
        let mut shown = Page { names: Vec::new(), has_more: false };
        let mut after = ask.last.clone();
        if max == 0 {
            return Ok(shown);
        }
        let mut wanted = (max + 1).clamp(PIECE_MIN, PAGE_ENTRIES_MAX as usize);
        loop {
            // One more than is shown tells whether there is one; those that are not shown tell
            // nobody that they exist, so all of them are passed over here.
            let page = self.shared().catalog.hosted_repositories(after, wanted).await?;
            after = page.names.last().map(|name| name.as_str().to_owned());
            let seen = page.names.into_iter().filter(|name| may_see(name));
            shown.names.extend(seen.take(max + 1 - shown.names.len()));
            if shown.names.len() > max {
                shown.names.truncate(max);
                shown.has_more = true;
                break;
            }
            if !page.has_more {
                break;
            }
            // Who sees little is not to cost a look-up for each few.
            wanted = PAGE_ENTRIES_MAX as usize;
        }
        Ok(shown)
    }

    /// A page of a hosted repository's tags.
    ///
    /// # Errors
    /// [`PullError::NameUnknown`], or the catalog cannot be read.
    pub async fn hosted_tags(&self, scope: &Scope, ask: &PageAsk) -> Result<Page<Tag>, PullError> {
        let catalog = &self.shared().catalog;
        let page = catalog.hosted_tags(&scope.repository, ask.last.clone(), ask.max()).await?;
        page.ok_or_else(|| PullError::NameUnknown(format!("the {scope} repository does not exist")))
    }

    /// A page of what refers to a manifest in a hosted repository, which need not be there. With
    /// an artifact type only what is of this type.
    ///
    /// # Errors
    /// The catalog or a record cannot be read.
    pub async fn hosted_referrers(
        &self,
        scope: &Scope,
        subject: &Digest,
        artifact_type: Option<&str>,
        ask: &PageAsk,
    ) -> Result<ReferrersPage, PullError> {
        let (max, mut looked_at, mut bytes) = (ask.max(), 0, 0);
        let mut after = ask.last.as_deref().map(Mark::behind);
        let (mut shown, mut last) = (Vec::new(), None);
        let mut next = None;
        'page: loop {
            if max == 0 {
                break;
            }
            let catalog = &self.shared().catalog;
            let piece = catalog.find_referrers(scope, subject, after, max.max(PIECE_MIN)).await?;
            if let Some(error) = piece.damaged.into_iter().next() {
                return Err(error.into());
            }
            for record in piece.records {
                let is_meant = artifact_type
                    .is_none_or(|wanted| record.artifact_type.as_deref() == Some(wanted));
                if is_meant {
                    let descriptor = descriptor(&record)?;
                    let size = descriptor.get().len() + 1;
                    let is_full = shown.len() == max
                        || (bytes + size > MANIFEST_BYTES_MAX - DESCRIPTOR_BYTES && bytes > 0);
                    if is_full {
                        next = last;
                        break 'page;
                    }
                    bytes += size;
                    shown.push(descriptor);
                }
                last = Some(record.referrer);
                looked_at += 1;
            }
            after = piece.next;
            if after.is_none() {
                break;
            }
            if looked_at >= LOOKED_AT_MAX {
                next = last;
                break;
            }
        }
        let manifests = shown.iter().map(AsRef::as_ref).collect();
        let media_type = media_type::OCI_INDEX;
        let index = ReferrersIndex { schema_version: 2, media_type, manifests };
        Ok(ReferrersPage { document: json(&index)?.into_bytes(), next })
    }
}

fn descriptor(record: &ReferrerRecord) -> Result<Box<RawValue>, PullError> {
    // Checked when it was read.
    let annotations = std::str::from_utf8(&record.annotations).ok().filter(|json| !json.is_empty());
    let annotations = annotations.map(serde_json::from_str::<&RawValue>).transpose();
    let descriptor = ReferrerDescriptor {
        media_type: &record.media_type,
        digest: record.referrer.to_string(),
        size: record.size,
        artifact_type: record.artifact_type.as_deref(),
        annotations: annotations.map_err(not_written)?,
    };
    RawValue::from_string(json(&descriptor)?).map_err(not_written)
}

fn json(value: &impl Serialize) -> Result<String, PullError> {
    serde_json::to_string(value).map_err(not_written)
}

fn not_written(error: serde_json::Error) -> PullError {
    PullError::Internal(format!("a list of referrers cannot be written: {error}"))
}
