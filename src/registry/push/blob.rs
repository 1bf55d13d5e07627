//! Blobs of hosted repositories that need no upload: taken from another repository, or deleted.

use std::sync::atomic::Ordering;

use super::PushError;
use super::limits::within;
use super::place::link;
use crate::catalog::{LinkRecord, Write};
use crate::oci::{Digest, RepositoryName, Scope};
use crate::registry::state::Registry;

/// Repositories that are asked for a blob to be mounted from somewhere.
const SOURCES_MAX: usize = 10_000;
/// Of these, how many are read from the catalog in one go.
const SOURCES_AT_ONCE: usize = 500;

impl Registry {
    /// Links a blob that the hosted repository `source` has into `scope`, durably; `false` when it
    /// has it not. The caller has made sure that the client may pull it there.
    ///
    /// # Errors
    /// The catalog cannot be read or written, or the blob was deleted meanwhile.
    pub async fn mount_blob(
        &self,
        scope: &Scope,
        source: &Scope,
        digest: &Digest,
    ) -> Result<bool, PushError> {
        let shared = self.shared();
        if source.upstream.is_some() {
            return Ok(false);
        }
        // Before anybody has to wait for the gate.
        if shared.find_link(source, digest).await?.is_none() {
            return Ok(false);
        }
        let _pushing = shared.gate.pushing().await;
        // A push of the same content as a manifest must not be linked as a blob by this.
        let _turn = shared.store.turn(digest).await;
        // Behind the gate: a gc that has just removed an older link does not count.
        let since = shared.catalog.moment();
        let stored = shared.find_blob(source, digest).await?;
        let is_there = stored.is_some_and(|entry| entry.is_hosted)
            && shared.find_link(source, digest).await?.is_some();
        if !is_there {
            return Ok(false);
        }
        let write = link(shared, scope, digest, None).await?;
        let rule = shared.rules.of(&scope.repository);
        let conditions = within(&rule, scope).into_iter().collect();
        shared.catalog.write_if(since, conditions, vec![write]).await?;
        shared.uploads.counts.mounted.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// A hosted repository that has this blob, where the rule of `scope` lets one be looked for. The
    /// index is asked, one repository after the other, and the first `SOURCES_MAX` of them only:
    /// a client that is told of none sends the blob.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn find_mountable(
        &self,
        scope: &Scope,
        digest: &Digest,
        may_pull: impl Fn(&RepositoryName) -> bool,
    ) -> Result<Option<Scope>, PushError> {
        let shared = self.shared();
        let is_hosted = shared.index.blob(digest).hit().is_some_and(|entry| entry.is_hosted);
        if !is_hosted || !shared.rules.of(&scope.repository).anonymous_mount {
            return Ok(None);
        }
        let mut after = None;
        for _ in 0..SOURCES_MAX / SOURCES_AT_ONCE {
            let page = shared.catalog.hosted_repositories(after, SOURCES_AT_ONCE).await?;
            after = page.names.last().map(|name| name.as_str().to_owned());
            for repository in page.names {
                let source = Scope { upstream: None, repository };
                let has_it = shared.index.link(&source, digest).hit().is_some();
                if has_it && may_pull(&source.repository) {
                    return Ok(Some(source));
                }
            }
            if !page.has_more {
                break;
            }
        }
        Ok(None)
    }

    /// Deletes a blob from its repository, durably. Its bytes go with the next `ringport gc`, if
    /// no other repository has it.
    ///
    /// # Errors
    /// [`PushError::BlobUnknown`]: it is not there, or there as a manifest; or the catalog failed.
    pub async fn delete_blob(&self, scope: &Scope, digest: &Digest) -> Result<(), PushError> {
        let shared = self.shared();
        let _pushing = shared.gate.pushing().await;
        // The turn keeps a push of the same content from linking it as a manifest meanwhile.
        let _turn = shared.store.turn(digest).await;
        let known = shared.find_link(scope, digest).await?;
        let Some(known) = known else {
            let message = format!("the {scope} repository has no blob {digest}");
            return Err(PushError::BlobUnknown(message));
        };
        if known.media_type.is_some() {
            return Err(PushError::BlobUnknown(format!(
                "the {scope} repository has {digest} as a manifest, not as a blob; delete it as \
                 one"
            )));
        }
        let record = LinkRecord {
            scope: scope.clone(),
            digest: *digest,
            media_type: None,
            linked_at: known.linked_at,
        };
        shared.catalog.write(vec![Write::RemoveLink(record)], true).await?;
        Ok(())
    }
}
