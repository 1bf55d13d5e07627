//! Tags that the rule of their repository keeps no longer.

use std::cmp::Reverse;

use super::{GcReport, PIECE};
use crate::catalog::{CatalogError, TagRecord, Write};
use crate::config::HostedRule;
use crate::oci::Scope;
use crate::registry::upkeep::Upkeep;

/// Tags that a report spells out.
const TOLD_MAX: usize = 1000;

/// Of the tags of a repository those that its rule keeps no longer at `now`, in Unix seconds. A tag
/// is as old as its last push; of two pushed in the same second, the one whose name sorts later
/// counts as newer. Tags that stay what they are stay, and do not count.
pub(super) fn expired(rule: &HostedRule, tags: &[TagRecord], now: u64) -> Vec<TagRecord> {
    if rule.keep_last.is_none() && rule.keep_newer.is_none() {
        return Vec::new();
    }
    let may_go = |tag: &&TagRecord| rule.immutable_pattern_for(&tag.tag).is_none();
    let mut tags: Vec<&TagRecord> = tags.iter().filter(may_go).collect();
    tags.sort_by_key(|tag| Reverse((tag.checked_at, tag.tag.clone())));
    let is_new = |tag: &TagRecord| {
        rule.keep_newer.is_some_and(|time| tag.checked_at.saturating_add(time.as_secs()) > now)
    };
    let older = tags.into_iter().skip(rule.keep_last.unwrap_or(0));
    older.filter(|tag| !is_new(tag)).cloned().collect()
}

impl Upkeep {
    /// Removes the tags that the rules of hosted repositories keep no longer at `now`, in Unix
    /// seconds; how many. What they led to goes with the next gc. `go_on` is asked before each
    /// repository. Blocks.
    ///
    /// # Errors
    /// The catalog cannot be read or written. What was removed until then is removed.
    pub fn expire_tags(&self, now: u64, go_on: impl Fn() -> bool) -> Result<u64, CatalogError> {
        let (mut removed, mut after) = (0, None);
        loop {
            let page = self.catalog.hosted_repositories_now(after, PIECE)?;
            after = page.names.last().map(|name| name.as_str().to_owned());
            for repository in page.names {
                let rule = self.rules.of(&repository);
                let has_any = rule.keep_last.is_some() || rule.keep_newer.is_some();
                if !has_any {
                    continue;
                }
                if !go_on() {
                    return Ok(removed);
                }
                let scope = Scope { upstream: None, repository };
                // First without keeping pushes waiting: most of the time there is nothing.
                if !expired(&rule, &self.tags_of(&scope)?, now).is_empty() {
                    let _removing = self.gate.removing();
                    let over = expired(&rule, &self.tags_of(&scope)?, now);
                    removed += over.len() as u64;
                    self.remove_tags(over)?;
                }
            }
            if !page.has_more {
                return Ok(removed);
            }
        }
    }

    fn tags_of(&self, scope: &Scope) -> Result<Vec<TagRecord>, CatalogError> {
        let (mut tags, mut after) = (Vec::new(), None);
        loop {
            let piece = self.catalog.scan_tags_of(scope, after.as_ref(), PIECE)?;
            tags.extend(piece.records);
            after = piece.next;
            if after.is_none() {
                return Ok(tags);
            }
        }
    }

    /// While nobody pushes.
    pub(super) fn remove_tags(&self, tags: Vec<TagRecord>) -> Result<(), CatalogError> {
        for tag in &tags {
            tracing::info!(repository = %tag.scope.repository, tag = %tag.tag, digest = %tag.digest,
                pushed_at = tag.checked_at, "a tag is kept no longer by its rule");
        }
        let mut writes = tags.into_iter().map(Write::RemoveTag).peekable();
        while writes.peek().is_some() {
            self.catalog.write_blocking(writes.by_ref().take(PIECE).collect(), true)?;
        }
        Ok(())
    }
}

impl GcReport {
    /// Notes tags that are over.
    pub(super) fn add_expired(&mut self, tags: &[TagRecord]) {
        self.expired_tags.add_many(tags.len() as u64);
        let room = TOLD_MAX.saturating_sub(self.expired.len());
        let told = tags.iter().take(room);
        self.expired.extend(told.map(|tag| format!("{}:{}", tag.scope.repository, tag.tag)));
    }
}
