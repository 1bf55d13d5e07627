//! The body of a request of ours: none, or stored content read in windows as it is sent.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use hyper::body::{Frame, SizeHint};

use crate::limits::FRAME_BYTES_MAX;
use crate::runtime::{Elapsed, clock, timeout};

/// Reads up to so many bytes (the second number) at an offset (the first).
type ReadAt = Rc<dyn Fn(u64, usize) -> LocalBoxFuture<'static, io::Result<Bytes>>>;

/// Content to be sent, which may be sent again from its beginning.
#[derive(Clone)]
pub struct Upload {
    bytes: u64,
    read: ReadAt,
}

impl Upload {
    /// `bytes` bytes that `read` gives: up to a length at an offset, and nothing only at the end.
    /// Never more than one window of 256 KiB is asked for at a time.
    pub fn new(
        bytes: u64,
        read: impl Fn(u64, usize) -> LocalBoxFuture<'static, io::Result<Bytes>> + 'static,
    ) -> Self {
        Self { bytes, read: Rc::new(read) }
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// When a request last moved on, and how long it may stand still.
#[derive(Clone)]
pub(super) struct Progress {
    last: Rc<Cell<Instant>>,
    limit: Duration,
}

impl Progress {
    pub(super) fn within(limit: Duration) -> Self {
        Self { last: Rc::new(Cell::new(clock::now())), limit }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// The request moves on now.
    pub(super) fn note(&self) {
        self.last.set(clock::now());
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(clock::now().saturating_duration_since(self.last.get()))
    }

    /// Awaits `future` for as long as the request does not stand still for longer.
    pub(super) async fn bound<F: Future>(&self, future: F) -> Result<F::Output, Elapsed> {
        let mut future = std::pin::pin!(future);
        loop {
            match timeout(self.left(), future.as_mut()).await {
                Ok(output) => return Ok(output),
                Err(Elapsed) if self.left().is_zero() => return Err(Elapsed),
                Err(Elapsed) => {}
            }
        }
    }
}

/// What goes out behind a head.
pub(super) struct Outgoing {
    upload: Option<(Upload, Progress)>,
    sent: u64,
    window: Option<LocalBoxFuture<'static, io::Result<Bytes>>>,
}

impl Outgoing {
    /// No body.
    pub(super) fn none() -> Self {
        Self { upload: None, sent: 0, window: None }
    }

    /// This content from its beginning; tells `progress` of each window that is on its way.
    pub(super) fn of(upload: &Upload, progress: &Progress) -> Self {
        Self { upload: Some((upload.clone(), progress.clone())), sent: 0, window: None }
    }

    fn left(&self) -> u64 {
        self.upload.as_ref().map_or(0, |(upload, _)| upload.bytes.saturating_sub(self.sent))
    }
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        let left = this.left();
        let Some((upload, progress)) = this.upload.as_ref().filter(|_| left > 0) else {
            return Poll::Ready(None);
        };
        let window = this.window.get_or_insert_with(|| {
            // Asked for the next one: the last one has left for the socket.
            progress.note();
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(FRAME_BYTES_MAX);
            (upload.read)(this.sent, most)
        });
        let read = ready!(window.as_mut().poll(context));
        this.window = None;
        Poll::Ready(Some(match read {
            Ok(bytes) if bytes.is_empty() || bytes.len() as u64 > left => {
                let found = this.sent + bytes.len() as u64;
                let what = format!("expected {} stored bytes, found {found}", this.sent + left);
                Err(io::Error::other(what))
            }
            Ok(bytes) => {
                this.sent += bytes.len() as u64;
                Ok(Frame::data(bytes))
            }
            Err(error) => Err(error),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}
