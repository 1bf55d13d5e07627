//! Where a blob may be taken from instead of being sent.

use super::push::Change;
use super::router::Api;
use crate::oci::{Digest, PathName, RepositoryName, Scope};
use crate::plugin::{RequestKind, ResolveRequest, Route};
use crate::registry::PushError;

impl Api {
    /// The hosted repository that a mount of `digest` takes it from, if the client may pull it
    /// there. `from` is what the client wrote, resolved as if it pulled from there; without it any
    /// repository is meant, if the rule of the one that is pushed to says so.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub(super) async fn mount_source(
        &self,
        change: &Change<'_>,
        from: Option<&PathName>,
        digest: &Digest,
    ) -> Result<Option<Scope>, PushError> {
        let Some(from) = from else {
            let may_pull = |repository: &RepositoryName| {
                change.may_pull_from(self, repository.as_str(), repository)
            };
            return self.registry.find_mountable(change.scope, digest, may_pull).await;
        };
        let reference = digest.to_string();
        let resolved = self.resolve(&ResolveRequest {
            method: "HEAD",
            kind: RequestKind::Blob,
            ns: change.endpoint.ns.as_ref(),
            header: None,
            name: from.as_str(),
            reference: &reference,
            client: Some(change.peer.address),
            principal: change.principal.name(),
            head: Some(change.head),
        });
        let Ok(resolution) = resolved else { return Ok(None) };
        let Route::Hosted { repository } = &resolution.route else { return Ok(None) };
        let may_pull = change.may_pull_from(self, from.as_str(), repository);
        Ok(may_pull.then(|| Scope { upstream: None, repository: repository.clone() }))
    }
}
