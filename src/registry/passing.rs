//! Content on its way through, for when the store cannot take it: checked like everything else,
//! kept by nobody.

use std::collections::VecDeque;

use bytes::Bytes;

use super::PullError;
use super::state::Registry;
use crate::http::ByteRange;
use crate::limits::HOLD_BACK_BYTES;
use crate::oci::{Digest, Digester, Scope};
use crate::upstream::{Body, ContentRange, Method, Request, Response};

/// A blob, or a range of one, that is being received for one client. Of a blob it gives out the bytes of a range as they come, but
/// its last [`HOLD_BACK_BYTES`] only when the digest of the whole blob has been compared: what
/// cannot be verified is never completed.
pub struct Passing {
    scope: Scope,
    digest: Digest,
    size: u64,
    body: Body,
    check: Check,
    received: u64,
    first: u64,
    end: u64,
    held: VecDeque<Bytes>,
    held_bytes: u64,
}

/// What is compared before the end is given out.
enum Check {
    /// The digest of the whole blob.
    Digest(Box<Digester>),
    /// The length of a range, which may be had unverified.
    Length,
    /// It has been.
    Done,
}

impl Registry {
    /// Asks the upstream for a range of a blob that may be given out unverified. `None`: it does
    /// not say which bytes of what it would send.
    ///
    /// # Errors
    /// As [`PullError`] says.
    pub(super) async fn pass_range(
        &self,
        scope: &Scope,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Option<Passing>, PullError> {
        let response = self.ask_blob(scope, digest, Some(range)).await?;
        let Some(ContentRange { first, last, total }) = response.content_range else {
            return match response.status {
                416 => Ok(None),
                _ => self.passing_whole(scope, digest, response).map(Some),
            };
        };
        let Some(size) = total else { return Ok(None) };
        Ok(Some(Passing {
            scope: scope.clone(),
            digest: *digest,
            size,
            body: response.body,
            check: Check::Length,
            received: first,
            first,
            end: last + 1,
            held: VecDeque::new(),
            held_bytes: 0,
        }))
    }

    /// Asks the upstream for a blob that is not to be stored.
    ///
    /// # Errors
    /// As [`PullError`] says; a blob without an announced length cannot be passed through.
    pub(super) async fn pass_through(
        &self,
        scope: &Scope,
        digest: &Digest,
    ) -> Result<Passing, PullError> {
        let response = self.ask_blob(scope, digest, None).await?;
        self.passing_whole(scope, digest, response)
    }

    async fn ask_blob(
        &self,
        scope: &Scope,
        digest: &Digest,
        range: Option<ByteRange>,
    ) -> Result<Response, PullError> {
        let Some(upstream) = &scope.upstream else {
            return Err(PullError::BlobUnknown(format!("{scope} has no blob {digest}")));
        };
        let path = format!("/v2/{}/blobs/{digest}", scope.repository);
        let request = Request::new(Method::Get, path, scope.repository.clone());
        let response = self.client().exchange(upstream, Request { range, ..request }).await;
        response.map_err(|error| PullError::from(&error))
    }

    fn passing_whole(
        &self,
        scope: &Scope,
        digest: &Digest,
        response: Response,
    ) -> Result<Passing, PullError> {
        match (response.status, response.content_length) {
            (200, Some(size)) => Ok(Passing {
                scope: scope.clone(),
                digest: *digest,
                size,
                body: response.body,
                check: Check::Digest(Box::new(Digester::new(digest.algorithm()))),
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
            let withheld = if matches!(self.check, Check::Digest(_)) { HOLD_BACK_BYTES } else { 0 };
            if let Some(bytes) = self.give_out(self.held_bytes.saturating_sub(withheld)) {
                return Ok(Some(bytes));
            }
            if matches!(self.check, Check::Done) {
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
        if let Check::Digest(digester) = &mut self.check {
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
        let what = match std::mem::replace(&mut self.check, Check::Done) {
            Check::Done => return Ok(()),
            Check::Length if self.received >= self.end => return Ok(()),
            Check::Length => format!("a range that ends at byte {}", self.received),
            Check::Digest(digester) => {
                let found = digester.finish();
                if found == self.digest && self.received == self.size {
                    return Ok(());
                }
                format!("{} bytes that hash to {found}", self.received)
            }
        };
        self.held.clear();
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
