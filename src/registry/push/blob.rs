//! Blobs of hosted repositories that need no upload: taken from another repository, or deleted.

use std::sync::atomic::Ordering;

use super::PushError;
use super::limits::within;
use super::place::link;
use crate::catalog::{LinkRecord, Write};
use crate::oci::{Digest, Scope};
use crate::registry::state::Registry;

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
