//! The client of one worker: picks the endpoint.

use std::rc::Rc;
use std::sync::Arc;

use super::attempts;
use super::error::UpstreamError;
use super::health::Finding;
use super::message::{Request, Response};
use super::pool::Pool;
use super::set::UpstreamSet;
use super::shared::Shared;
use super::sign_in::SignIns;
use crate::oci::Namespace;

/// Asks upstreams on behalf of one worker, with connections of its own. Cloning shares it; it does
/// not leave its worker.
#[derive(Clone)]
pub struct Client(Rc<Inner>);

pub(super) struct Inner {
    pub(super) set: Arc<UpstreamSet>,
    pub(super) shared: Arc<Shared>,
    pub(super) pool: Rc<Pool>,
    pub(super) sign_ins: SignIns,
}

impl Client {
    /// A client for the upstreams of `set`, on the current worker.
    pub fn new(set: Arc<UpstreamSet>, shared: Arc<Shared>) -> Self {
        Self(Rc::new(Inner { set, shared, pool: Rc::default(), sign_ins: SignIns::default() }))
    }

    /// The upstreams this client can ask.
    pub fn upstreams(&self) -> &UpstreamSet {
        &self.0.set
    }

    /// Asks `upstream` (canonical namespace or alias) and returns when the response's head is there
    /// and checked. The endpoints are tried in order when one cannot be reached, times out, answers
    /// nonsense or with 5xx, the logins that take turns by what is left of their rate limits.
    /// Redirects, sign-in and its repeats happen inside.
    ///
    /// Takes at most, for each endpoint and hop: two connect timeouts and one first-byte timeout.
    ///
    /// # Errors
    /// [`UpstreamError`]; of the last endpoint, when several failed.
    pub async fn exchange(
        &self,
        upstream: &Namespace,
        request: Request,
    ) -> Result<Response, UpstreamError> {
        let inner = &self.0;
        let upstream = inner
            .set
            .find(upstream)
            .ok_or_else(|| UpstreamError::Undeclared { namespace: upstream.clone() })?;
        let logins = inner.set.turns(upstream);
        let mut failure = upstream.internal("it has no login");
        for at in inner.shared.governor.order(logins.iter().map(|login| &login.login)) {
            let Some(upstream) = logins.get(at) else { continue };
            match attempts::exchange_as(inner, upstream, &request).await {
                Err(error @ UpstreamError::RateLimited { .. }) => failure = error,
                outcome => return outcome,
            }
        }
        Err(failure)
    }

    /// An endpoint sent bytes that are not those of their digest: the others are asked before it for
    /// a while. `endpoint` is that of the [`Response`].
    pub fn note_wrong(&self, endpoint: &Arc<str>) {
        self.0.shared.health.note(endpoint, Finding::Trouble);
    }

    /// Whether `upstream` may be asked if a tag that is stored has moved. When not, so little is
    /// left of its rate limit that it is kept for what nobody has here.
    pub fn may_revalidate(&self, upstream: &Namespace) -> bool {
        let inner = &self.0;
        let Some(upstream) = inner.set.find(upstream) else { return true };
        let logins = inner.set.turns(upstream);
        inner.shared.governor.may_revalidate(logins.iter().map(|login| &login.login))
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    #[cfg(test)]
    pub(super) fn idle_connections(&self) -> usize {
        self.0.pool.idle_count()
    }
}
