//! Content on its way through, for when the store cannot take it: checked like everything else,
//! kept by nobody.

use std::collections::VecDeque;

use bytes::Bytes;

use super::PullError;
use super::state::Registry;
use crate::limits::HOLD_BACK_BYTES;
use crate::oci::{Digest, Digester, Scope};
use crate::upstream::{Body, Method, Request};

/// A blob that is being received for one client. Gives out the bytes of a range as they come, but
/// its last [`HOLD_BACK_BYTES`] only when the digest of the whole blob has been compared: what
/// cannot be verified is never completed.
pub struct Passing {
    scope: Scope,
    digest: Digest,
    size: u64,
    body: Body,
    digester: Option<Digester>,
    received: u64,
    first: u64,
    end: u64,
    held: VecDeque<Bytes>,
    held_bytes: u64,
}

impl Registry {
    /// Asks the upstream for a blob that is not to be stored.
    ///
    /// # Errors
    /// As [`PullError`] says; a blob without an announced length cannot be passed through.
    pub(super) async fn pass_through(
        &self,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Passing, PullError> {
        let Some(upstream) = &scope.upstream else {
            return Err(PullError::BlobUnknown(format!("{scope} has no blob {digest}")));
        };
        let request = Request::new(
            Method::Get,
            format!("/v2/{}/blobs/{digest}", scope.repository),
            scope.repository.clone(),
        );
        let response =
            self.client().exchange(upstream, request).await.map_err(|e| PullError::from(&e))?;
        match (response.status, response.content_length) {
            (200, Some(size)) => Ok(Passing {
                scope: scope.clone(),
                digest: *digest,
                size,
                body: response.body,
                digester: Some(Digester::new(digest.algorithm())),
                received: 0,
                first: 0,
                end: size,
                held: VecDeque::new(),
                held_bytes: 0,
            }),
            (404, _) => Err(self.shared().note_absent_blob(scope, digest)),
            (200, None) => Err(PullError::NoRoom(format!(
                "{scope}@{digest}: the store is full, and a body without a length cannot be \
                 passed through; free some space"
            ))),
            (status, _) => {
                let what = format!("unexpected status {status} for a blob");
                Err(PullError::wrong_content(digest, scope, &what))
            }
        }
    }
}

impl Passing {
    /// The whole size in bytes, as the upstream announced it.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Gives out only `length` bytes from `first`. Before the first [`Passing::next_bytes`].
    pub fn limit(&mut self, first: u64, length: u64) {
        self.first = first;
        self.end = first.saturating_add(length);
    }

    /// The next bytes of the range; `None` when all have been given out.
    ///
    /// # Errors
    /// The upstream broke off or sent something else: the answer must be cut short.
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>, PullError> {
        loop {
            let withheld = if self.digester.is_none() { 0 } else { HOLD_BACK_BYTES };
            if let Some(bytes) = self.give_out(self.held_bytes.saturating_sub(withheld)) {
                return Ok(Some(bytes));
            }
            if self.digester.is_none() {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(frame) => self.take(frame.map_err(|error| PullError::from(&error))?),
                None => self.verify()?,
            }
        }
    }

    /// Up to `most` of the held bytes, if there are any.
    fn give_out(&mut self, most: u64) -> Option<Bytes> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let front = self.held.front_mut().filter(|_| most > 0)?;
        let bytes = front.split_to(most.min(front.len()));
        if front.is_empty() {
            self.held.pop_front();
        }
        self.held_bytes -= bytes.len() as u64;
        Some(bytes)
    }

    /// Hashes a frame and keeps what of it lies in the range.
    fn take(&mut self, frame: Bytes) {
        if let Some(digester) = &mut self.digester {
            digester.update(&frame);
        }
        let begin = self.received;
        self.received += frame.len() as u64;
        let within = |offset: u64| {
            let cut = offset.clamp(begin, self.received) - begin;
            usize::try_from(cut).unwrap_or(usize::MAX).min(frame.len())
        };
        let wanted = frame.slice(within(self.first)..within(self.end));
        if !wanted.is_empty() {
            self.held_bytes += wanted.len() as u64;
            self.held.push_back(wanted);
        }
    }

    fn verify(&mut self) -> Result<(), PullError> {
        let Some(digester) = self.digester.take() else { return Ok(()) };
        let found = digester.finish();
        if found == self.digest && self.received == self.size {
            return Ok(());
        }
        self.held.clear();
        let what = format!("{} bytes that hash to {found}", self.received);
        Err(PullError::wrong_content(&self.digest, &self.scope, &what))
    }
}

impl std::fmt::Debug for Passing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passing")
            .field("scope", &self.scope)
            .field("digest", &self.digest)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}
