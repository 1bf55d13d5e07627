//! One worker's resolvers, and what it remembers of their answers.

use std::cell::RefCell;
use std::sync::Arc;

use super::declared::Declared;
use super::explain::{Explanation, Step};
use super::instance::{Outcome, WorkerInstance};
use super::memo::Memo;
use super::stats::Counter;
use super::view::View;
use super::{PlaceRequest, Placement, Resolution, ResolveError, ResolveRequest, ResolveStatus};
use crate::oci::Namespace;

/// One worker's resolvers: `Send`, but used by one thread at a time and never shared.
#[derive(Debug)]
pub struct WorkerChain {
    links: Vec<WorkerInstance>,
    declared: Arc<Declared>,
    /// Names of the headers that any of the resolvers gets.
    wanted_headers: Vec<String>,
    memo: RefCell<Memo>,
    remembered: Arc<Counter>,
}

/// One resolver of one worker, on its way into a [`WorkerChain`] or out of it. Dropping it calls
/// the plugin, which may take a moment: not on a worker.
#[derive(Debug)]
pub struct WorkerLink {
    pub(super) index: usize,
    pub(super) link: WorkerInstance,
}

impl WorkerChain {
    pub(super) fn new(
        links: Vec<WorkerInstance>,
        declared: &Arc<Declared>,
        remembered: Arc<Counter>,
    ) -> WorkerChain {
        let mut wanted_headers: Vec<String> = Vec::new();
        for name in links.iter().flat_map(WorkerInstance::wanted_headers) {
            if !wanted_headers.contains(name) {
                wanted_headers.push(name.clone());
            }
        }
        WorkerChain {
            links,
            declared: Arc::clone(declared),
            wanted_headers,
            memo: RefCell::default(),
            remembered,
        }
    }

    /// Decides where a request goes. Doesn't block (as far as the plugins keep their word); takes
    /// microseconds at most, and allocates only for refusals and for names not seen lately.
    ///
    /// # Errors
    /// The refusal of the first resolver that did not decline; `NotFound` if all declined.
    pub fn resolve(
        &self,
        request: &ResolveRequest<'_>,
    ) -> Result<Arc<Resolution>, Arc<ResolveError>> {
        self.check_headers(request)?;
        if let Some(outcome) = self.memo.borrow_mut().find(request, &self.wanted_headers) {
            self.remembered.add(1);
            return outcome.clone();
        }
        let (outcome, cacheable) = self.ask(request, |_| {});
        let outcome = outcome.map_err(Arc::new);
        if let Some(depends_on) = cacheable {
            let mut memo = self.memo.borrow_mut();
            memo.remember(request, &self.wanted_headers, depends_on, &outcome);
        }
        outcome
    }

    /// The same decision without what is remembered; nothing is added to that either.
    ///
    /// # Errors
    /// As for [`WorkerChain::resolve`].
    pub fn resolve_anew(
        &self,
        request: &ResolveRequest<'_>,
    ) -> Result<Arc<Resolution>, ResolveError> {
        self.check_headers(request)?;
        self.ask(request, |_| {}).0
    }

    /// The same decision, with each resolver's part in it and where the content would go. Nothing
    /// remembered is used.
    pub fn explain(&self, request: &ResolveRequest<'_>) -> Explanation {
        let mut steps = Vec::new();
        let outcome = self.check_headers(request).and_then(|()| {
            let declined = |name: &str| steps.push(Step { declined_by: name.to_owned() });
            self.ask(request, declined).0
        });
        let outcome = outcome.map(|resolution| (*resolution).clone());
        let placement = match &outcome {
            Ok(resolution) => self.explain_placement(request, resolution),
            Err(_) => None,
        };
        Explanation { steps, outcome, placement }
    }

    /// Asks where content goes; `None` when no plugin says anything, so that the defaults hold.
    /// Like [`WorkerChain::resolve`] it doesn't block. Nor is anybody asked about an upstream that
    /// this chain was not told of: one that was routed to before a reload took it out.
    ///
    /// # Errors
    /// A plugin failed or refused: what was to be stored is passed through instead, or a push is
    /// answered with this.
    pub fn place(&self, request: &PlaceRequest<'_>) -> Result<Option<Placement>, ResolveError> {
        let is_declared = |upstream: &Namespace| {
            let found = self.declared.find(upstream.base());
            found.is_some_and(|found| found.canonical_name.as_str() == upstream.base())
        };
        if !request.upstream.is_none_or(is_declared) {
            return Ok(None);
        }
        for link in &self.links {
            match link.place(request) {
                None => {}
                Some(Ok(placement)) => return Ok(Some(placement)),
                Some(Err(error)) => {
                    self.forget_if_failed(link, &error);
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// Whether [`WorkerChain::place`] would ask anybody.
    pub fn can_place(&self) -> bool {
        self.links.iter().any(WorkerInstance::can_place)
    }

    /// Another chain answers from now on: what failed in this one no longer counts.
    pub fn retire(&self) {
        self.links.iter().for_each(WorkerInstance::retire);
    }

    /// Puts a refreshed link in the place of the one before, and forgets what was remembered. What
    /// comes back is to be dropped elsewhere: the one before, or `link` if it does not belong here.
    pub fn replace_link(&mut self, link: WorkerLink) -> WorkerLink {
        let WorkerLink { index, link } = link;
        let belongs = |before: &&mut WorkerInstance| before.name() == link.name();
        let before = match self.links.get_mut(index).filter(belongs) {
            Some(before) => std::mem::replace(before, link),
            None => link,
        };
        before.retire();
        self.memo.get_mut().clear();
        WorkerLink { index, link: before }
    }

    /// Before anything is remembered or asked: that a request is refused must not depend on what
    /// was asked before it.
    fn check_headers(&self, request: &ResolveRequest<'_>) -> Result<(), ResolveError> {
        match self.wanted_headers.is_empty() {
            true => Ok(()),
            false => self.links.iter().try_for_each(|link| link.check_headers(request)),
        }
    }

    /// The first answer that is not a decline, and what it and the declines before it depend on,
    /// if all of them may be remembered.
    fn ask(
        &self,
        request: &ResolveRequest<'_>,
        mut declined: impl FnMut(&str),
    ) -> (Result<Arc<Resolution>, ResolveError>, Option<u64>) {
        let view = View::of(request, &self.declared);
        let mut depends_on = Some(0);
        for link in &self.links {
            let asked = link.resolve(request, &view);
            depends_on = depends_on.zip(asked.cacheable).map(|(all, one)| all | one);
            match asked.outcome {
                Outcome::Answered(resolution) => return (Ok(resolution), depends_on),
                Outcome::Refused(error) => {
                    self.forget_if_failed(link, &error);
                    return (Err(error), depends_on);
                }
                Outcome::Declined => declined(link.name()),
            }
        }
        (Err(self.nobody_knows(request)), depends_on)
    }

    /// Fails closed: what a plugin said before it failed is not repeated. Calls after the
    /// one that it failed in end with `Unavailable`, so this happens once.
    fn forget_if_failed(&self, link: &WorkerInstance, error: &ResolveError) {
        if error.status == ResolveStatus::Internal && link.is_poisoned() {
            self.memo.borrow_mut().clear();
        }
    }

    fn nobody_knows(&self, request: &ResolveRequest<'_>) -> ResolveError {
        let names: Vec<&str> = self.links.iter().map(|link| &**link.name()).collect();
        ResolveError {
            status: ResolveStatus::NotFound,
            message: format!(
                "no resolver knows {} (asked: {}); \"standard\" as the last of \
                 routing.resolvers answers what others decline",
                request.name,
                names.join(", ")
            ),
            plugin: names.last().copied().unwrap_or_default().to_owned(),
        }
    }

    fn explain_placement(
        &self,
        request: &ResolveRequest<'_>,
        resolution: &Resolution,
    ) -> Option<Result<Placement, ResolveError>> {
        let (upstream, repository) = resolution.first()?;
        let digest = crate::oci::Digest::parse(request.reference).ok();
        let request = PlaceRequest {
            is_manifest: match request.kind {
                super::RequestKind::Manifest => true,
                super::RequestKind::Blob => false,
                // Lists are not stored.
                super::RequestKind::Tags | super::RequestKind::Referrers => return None,
            },
            is_stored: false,
            upstream,
            repository: repository.as_str(),
            digest: digest.as_ref(),
            media_type: None,
            size: None,
        };
        self.place(&request).transpose()
    }
}
