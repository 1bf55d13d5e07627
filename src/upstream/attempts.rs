//! One request with one login, at as many endpoints as it takes: the next one when one fails, and
//! beside it when it is late. docs/UPSTREAMS.md has the table of what moves on and what is final.

use std::future::Future;
use std::iter::Peekable;
use std::pin::Pin;
use std::sync::Arc;
use std::vec::IntoIter;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::client::Inner;
use super::error::{Site, UpstreamError};
use super::governor::Permit;
use super::health::Finding;
use super::message::{Request, Response};
use super::set::Upstream;
use crate::runtime::timeout;

type Outcome = (usize, Result<Response, UpstreamError>);

/// Attempts under way. Dropping it ends those that are late, and their connections.
struct Attempts<'a> {
    inner: &'a Inner,
    upstream: &'a Arc<Upstream>,
    request: &'a Request,
    /// Endpoints that were not asked yet, by their health.
    rest: Peekable<IntoIter<usize>>,
    running: FuturesUnordered<Pin<Box<dyn Future<Output = Outcome> + 'a>>>,
    /// Which endpoints they ask, in the order in which they were asked.
    asked: Vec<usize>,
    permits: Vec<Permit>,
}

/// Asks with this login, if its rate limit allows.
///
/// # Errors
/// Of the last endpoint, when several failed.
pub(super) async fn exchange_as(
    inner: &Inner,
    upstream: &Arc<Upstream>,
    request: &Request,
) -> Result<Response, UpstreamError> {
    let rest = inner.shared.health.order(upstream.endpoint_names());
    let mut attempts = Attempts {
        inner,
        upstream,
        request,
        rest: rest.into_iter().peekable(),
        running: FuturesUnordered::new(),
        asked: Vec::new(),
        permits: Vec::new(),
    };
    let mut failure = upstream.internal("it has no endpoint");
    loop {
        while attempts.running.is_empty() {
            let Some(index) = attempts.rest.next() else { return Err(failure) };
            if let Err(error) = attempts.start(index) {
                match error {
                    UpstreamError::RateLimited { .. } => return Err(error),
                    error => failure = error,
                }
            }
        }
        let Some(((index, outcome), older)) = attempts.next().await else { continue };
        attempts.note(index, |endpoint| match &outcome {
            Ok(_) => Some(Finding::Well),
            Err(error) => error.finding(endpoint),
        });
        match outcome {
            Ok(response) => {
                // Those asked after it had no time to answer.
                for late in attempts.asked.drain(..).take(older).collect::<Vec<_>>() {
                    attempts.note(late, |_| Some(Finding::Late));
                }
                return Ok(response);
            }
            Err(error) if error.is_worth_next_endpoint() => {
                tracing::warn!(upstream = %upstream.namespace(), %error, "endpoint failed");
                failure = error;
            }
            Err(error) => return Err(error),
        }
    }
}

impl<'a> Attempts<'a> {
    /// Asks one more endpoint.
    fn start(&mut self, index: usize) -> Result<(), UpstreamError> {
        let (inner, upstream, request) = (self.inner, self.upstream, self.request);
        if self.permits.len() <= self.asked.len() {
            let permit = inner.shared.governor.admit(&upstream.login, request.counts());
            self.permits.push(permit.map_err(|wait| UpstreamError::RateLimited {
                at: self.site("no endpoint, its rate limit being used up"),
                retry_after: Some(wait),
            })?);
        }
        if let Some(name) = upstream.endpoint_names().nth(index) {
            inner.shared.health.admit(name).map_err(|wait| UpstreamError::Unreachable {
                at: self.site(name),
                reason: format!("it could not be reached several times; not asked for {wait:.1?}"),
            })?;
        }
        self.asked.push(index);
        self.running.push(Box::pin(async move {
            (index, inner.exchange_at(upstream, index, request).await)
        }));
        Ok(())
    }

    /// The next attempt to end, and how many of those still under way are older. One that is late
    /// is not waited for alone; `None` when another one was started instead.
    async fn next(&mut self) -> Option<(Outcome, usize)> {
        let may_hedge = self.asked.len() == 1 && self.rest.peek().is_some();
        let outcome = match self.upstream.hedge_after.filter(|_| may_hedge) {
            None => self.running.next().await,
            Some(after) => match timeout(after, self.running.next()).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    let index = self.rest.next()?;
                    // What is not to be asked, or not to be paid for, is left out.
                    if self.start(index).is_ok() {
                        self.inner.shared.health.hedged();
                    }
                    return None;
                }
            },
        }?;
        let older = self.asked.iter().take_while(|&&asked| asked != outcome.0).count();
        self.asked.retain(|&asked| asked != outcome.0);
        Some((outcome, older))
    }

    fn note(&self, index: usize, finding: impl FnOnce(&str) -> Option<Finding>) {
        if let Some(name) = self.upstream.endpoint_names().nth(index)
            && let Some(finding) = finding(name)
        {
            self.inner.shared.health.note(name, finding);
        }
    }

    fn site(&self, address: &str) -> Box<Site> {
        Box::new(Site {
            upstream: self.upstream.namespace().clone(),
            address: address.into(),
            is_tier: false,
        })
    }
}
