//! The client of one worker: picks the endpoint.

use std::rc::Rc;
use std::sync::Arc;

use super::error::UpstreamError;
use super::health::Health;
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
    health: Health,
}

impl Client {
    /// A client for the upstreams of `set`, on the current worker.
    pub fn new(set: Arc<UpstreamSet>, shared: Arc<Shared>) -> Self {
        Self(Rc::new(Inner {
            set,
            shared,
            pool: Rc::default(),
            sign_ins: SignIns::default(),
            health: Health::default(),
        }))
    }

    /// The upstreams this client can ask.
    pub fn upstreams(&self) -> &UpstreamSet {
        &self.0.set
    }

    /// Asks `upstream` (canonical namespace or alias) and returns when the response's head is there
    /// and checked. The endpoints are tried in order when one cannot be reached, times out, answers
    /// nonsense or with 5xx. Redirects, sign-in and its repeats happen inside.
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
        let mut failure = upstream.internal("it has no endpoint");
        for index in inner.health.order(upstream) {
            match inner.exchange_at(upstream, index, &request).await {
                Ok(response) => {
                    inner.health.note(upstream, index, false);
                    return Ok(response);
                }
                Err(error) if error.is_worth_next_endpoint() => {
                    inner.health.note(upstream, index, error.is_endpoint_down());
                    tracing::warn!(upstream = %upstream.namespace(), %error, "endpoint failed");
                    failure = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    #[cfg(test)]
    pub(super) fn idle_connections(&self) -> usize {
        self.0.pool.idle_count()
    }
}
