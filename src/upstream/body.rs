//! The bytes of a response: bounded frames, time limits, and the connection's way back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as _, Incoming};

use super::connection::Sender;
use super::dial::with_causes;
use super::error::{Site, UpstreamError};
use super::health::{Finding, Health};
use super::observer::Observer;
use super::pool::{Pool, PoolKey};
use crate::limits::{BODY_RATE_FLOOR_BYTES_PER_SECOND, DRAIN_BYTES_MAX, FRAME_BYTES_MAX};
use crate::runtime::{clock, timeout};

/// How long reading an unwanted body may take before its connection is closed instead.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A response body. Read to its end it returns its connection to the pool; dropped before, it
/// closes it.
pub struct Body {
    incoming: Incoming,
    lease: Option<Lease>,
    /// Received and not handed out: the rest of a frame that was larger than allowed.
    pending: Bytes,
    at: Box<Site>,
    expected: Option<u64>,
    received: u64,
    stall: Duration,
    window: Window,
    is_over: bool,
    observer: Arc<dyn Observer>,
    /// The endpoint it is from, and who is told when it breaks off.
    endpoint: Option<(Arc<Health>, Arc<str>)>,
}

/// A connection in use and where it belongs.
pub(super) struct Lease {
    pub(super) sender: Sender,
    pub(super) key: PoolKey,
    /// `None`: closed after use.
    pub(super) pool: Option<Rc<Pool>>,
}

/// Time spent waiting for bytes (not for whoever takes them) and what came meanwhile.
#[derive(Default)]
struct Window {
    since: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

impl Body {
    /// `expected` is the number of bytes the head promised, `None` for a HEAD's reply and when it
    /// is not told; `stall` the longest silence.
    pub(super) fn new(
        incoming: Incoming,
        lease: Lease,
        at: Box<Site>,
        expected: Option<u64>,
        stall: Duration,
        observer: Arc<dyn Observer>,
        endpoint: Option<(Arc<Health>, Arc<str>)>,
    ) -> Self {
        let mut body = Self {
            incoming,
            lease: Some(lease),
            pending: Bytes::new(),
            at,
            expected,
            received: 0,
            stall,
            window: Window::default(),
            is_over: false,
            observer,
            endpoint,
        };
        // Whether the head is acceptable is not known yet: the connection stays until that is.
        body.is_over = body.is_whole();
        body
    }

    /// The next bytes: 1 to 256 KiB of them; `None` once the body is complete, or after an error.
    ///
    /// # Errors
    /// [`UpstreamError::Interrupted`] when the connection broke, the body is shorter than promised,
    /// nothing came for `stall_timeout`, or less than 1 KiB a second over that time.
    pub async fn frame(&mut self) -> Option<Result<Bytes, UpstreamError>> {
        self.frame_of(FRAME_BYTES_MAX).await
    }

    /// The same, of at most `most` bytes: what has come besides is the next one. May be dropped
    /// before it is ready: nothing is lost by that.
    ///
    /// # Errors
    /// As [`frame`](Self::frame).
    pub async fn frame_of(&mut self, most: usize) -> Option<Result<Bytes, UpstreamError>> {
        loop {
            if !self.pending.is_empty() {
                let size = self.pending.len().min(most);
                return Some(Ok(self.pending.split_to(size)));
            }
            if self.is_over {
                self.release();
                return None;
            }
            match self.receive().await {
                Ok(Some(data)) => self.pending = data,
                Ok(None) => return None,
                Err(reason) => {
                    if let Some((health, endpoint)) = &self.endpoint {
                        health.note(endpoint, Finding::Trouble);
                    }
                    self.abandon();
                    return Some(Err(self.interrupted(reason)));
                }
            }
        }
    }

    /// The rest of the body in one piece.
    ///
    /// # Errors
    /// As [`frame`](Self::frame); [`UpstreamError::Protocol`] when it is larger than `limit` bytes.
    pub async fn collect(&mut self, limit: usize) -> Result<Bytes, UpstreamError> {
        let mut whole = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let frame = frame?;
            if frame.len() > limit - whole.len() {
                self.abandon();
                return Err(UpstreamError::Protocol {
                    at: self.at.clone(),
                    expected: "a body within the limit for its kind",
                    found: format!("more than {limit} bytes"),
                });
            }
            whole.extend_from_slice(&frame);
        }
        Ok(whole.freeze())
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Ends the body and its connection: whoever sent this gets no other request on it.
    pub(super) fn abandon(&mut self) {
        self.is_over = true;
        self.pending = Bytes::new();
        self.lease = None;
    }

    /// Reads an unwanted body if it is short, so that its connection can be used again.
    pub(super) async fn drain(mut self) {
        let rest = async {
            while let Some(Ok(_)) = self.frame().await {
                if self.received > DRAIN_BYTES_MAX {
                    return;
                }
            }
        };
        // A body that does not end in time costs its connection, nothing else.
        let _ = timeout(DRAIN_TIMEOUT, rest).await;
    }

    /// The next non-empty data; `None` at the proper end.
    async fn receive(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            // Who gave up waiting in between has waited, too.
            let began = *self.window.since.get_or_insert_with(clock::now);
            let next = timeout(self.stall, next_frame(&mut self.incoming)).await;
            self.window.since = None;
            self.window.waited += clock::now().saturating_duration_since(began);
            let data = match next {
                Err(_) => return Err(format!("nothing came for {:?}", self.stall)),
                Ok(Some(Err(error))) => return Err(with_causes(&error)),
                Ok(None) => return self.end(),
                // Trailers are of no use to us.
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            let bytes = data.len() as u64;
            self.received += bytes;
            self.window.bytes += bytes;
            self.observer.upstream_bytes(&self.at.upstream, bytes);
            if self.is_whole() {
                self.release();
            } else {
                self.check_rate()?;
            }
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }

    /// hyper finds a short body itself; that a cut one never counts as whole does not rest on it.
    fn end(&mut self) -> Result<Option<Bytes>, String> {
        match self.expected {
            Some(expected) if expected != self.received => Err("the connection ended".to_owned()),
            _ => {
                self.release();
                Ok(None)
            }
        }
    }

    /// hyper knows the end of a body with a length as soon as its last byte is there.
    fn is_whole(&self) -> bool {
        self.expected.is_none_or(|expected| expected == self.received)
            && self.incoming.is_end_stream()
    }

    fn release(&mut self) {
        self.is_over = true;
        if let Some(Lease { sender, key, pool: Some(pool) }) = self.lease.take() {
            pool.put(key, sender);
        }
    }

    fn check_rate(&mut self) -> Result<(), String> {
        if self.window.waited < self.stall {
            return Ok(());
        }
        let Window { waited, bytes, .. } = std::mem::take(&mut self.window);
        let needed = u128::from(BODY_RATE_FLOOR_BYTES_PER_SECOND) * waited.as_millis() / 1000;
        match u128::from(bytes) < needed {
            true => Err(format!("only {bytes} bytes came in {waited:?}")),
            false => Ok(()),
        }
    }

    fn interrupted(&self, reason: String) -> UpstreamError {
        UpstreamError::Interrupted {
            at: self.at.clone(),
            received: self.received,
            expected: self.expected,
            reason,
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.is_over {
            self.release();
        }
    }
}

async fn next_frame(
    incoming: &mut Incoming,
) -> Option<Result<hyper::body::Frame<Bytes>, hyper::Error>> {
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *incoming).poll_frame(cx)).await
}
