//! Answers that take no wait: made and sent without a future, those of pipelined requests together.
//! Stored files are begun so, and end so if the socket takes all of them.
//!
//! Sending costs more than all else. Where one request comes after the other, send(2) is the
//! cheapest; where many connections have theirs ready at once, what is sent by the ring goes out
//! in one call for all of them, and one after the other, which the caches like.

use std::time::{Duration, Instant};

use super::{Connection, Gone, Handler};
use crate::api::{Answer, Begun, Body};
use crate::http::{BodyFraming, RequestHead};
use crate::index::SmallAt;
use crate::limits::PENDING_BYTES_MAX;
use crate::runtime::{bulk_waits, catch_panic_now, clock, has_ring};
use crate::server::send::{self, Exchange, Rest, Sent};
use crate::transfer::{Outlet, Underway};

/// Answers are sent together when a connection finds that, since its last one, the worker gave so
/// many to others, no slower than [`TOGETHER_PACE`] each.
const TOGETHER_MIN: u64 = 4;
/// At this pace some others are ready most likely, and none waits long.
pub(in crate::server) const TOGETHER_PACE: Duration = Duration::from_micros(50);

/// What became of a request.
pub(super) enum AtOnce {
    /// Answered; whether the connection may serve another. The answer may still be pending.
    Done(bool),
    /// The same, but the socket has not taken all of what is pending.
    ToSend(bool),
    /// The same, and what is pending is to be sent with what others have.
    Together(bool),
    /// Answered with a stored file, of which some is to be sent behind what is pending.
    Sending(Rest, bool),
    /// Not answered, or not with what can be sent at once.
    Begun(Begun),
    /// The client has gone.
    Gone,
}

impl<'a> Connection<'a> {
    /// Answers a request, as far as that takes no wait.
    pub(super) fn answer_at_once<H: Handler>(
        &mut self,
        handler: &H,
        head: &RequestHead,
        may_stay: bool,
    ) -> AtOnce {
        let started = clock::now();
        self.came(started);
        if head.body != BodyFraming::None || head.expect_100 {
            return AtOnce::Begun(Begun::Untouched);
        }
        let begun = catch_panic_now(|| handler.begin(head, &self.peer, started));
        let (answer, panicked) = match begun {
            Ok(Begun::Answered(answer)) => (answer, false),
            Ok(begun) => return AtOnce::Begun(begun),
            Err(_) => (self.panicked(), true),
        };
        let is_file = matches!(answer.body, Body::File { .. }) && !self.stream.is_tls();
        if !is_file && !send::is_joinable(&answer) {
            return AtOnce::Begun(Begun::Answered(answer));
        }
        let stays =
            may_stay && !panicked && head.keep_alive && !self.serving.lifecycle.is_draining();
        if self.pending.capacity() == 0 {
            self.pending = self.serving.spare.take_buffer();
        }
        let exchange = self.exchange::<H>(head, started);
        if is_file {
            exchange.write_head(&answer, stays, &mut self.pending);
            return self.begin_file(&exchange, answer, stays);
        }
        let copy = |content: &SmallAt, out: &mut Vec<u8>| handler.copy(content, out);
        let Some(body_bytes) = exchange.write(&answer, stays, &mut self.pending, copy) else {
            if self.pending.is_empty() {
                self.give_back_pending();
            }
            return AtOnce::Begun(Begun::Untouched);
        };
        // The next request is there already: its answer goes with this one.
        let is_held = stays && !self.buffer.is_empty() && self.pending.len() < PENDING_BYTES_MAX;
        let others = self.count_answer(is_held);
        let sent = match () {
            () if is_held => AtOnce::Done(stays),
            () if self.is_among_many(others, started) => AtOnce::Together(stays),
            () => self.try_send_pending(stays, false),
        };
        let body_bytes = if matches!(sent, AtOnce::Gone) { 0 } else { body_bytes };
        let now = clock::now();
        self.ended = matches!(sent, AtOnce::Done(_)).then_some(now);
        exchange.record(answer, body_bytes, Some(now.duration_since(started)));
        sent
    }

    /// Counts an answer from memory; tells how many others had since this connection's last one, or
    /// since the last that was sent if this one is held.
    fn count_answer(&mut self, is_held: bool) -> u64 {
        let count = self.serving.answered.get().wrapping_add(1);
        self.serving.answered.set(count);
        let others = count.wrapping_sub(self.answered_at).saturating_sub(1);
        self.answered_at = if is_held { self.answered_at.wrapping_add(1) } else { count };
        others
    }

    /// Whether the ring has probably more to send than this answer, and soon. Large bodies that
    /// queue would go before it.
    fn is_among_many(&self, others: u64, now: Instant) -> bool {
        let Some(since) = self.waits_since else { return false };
        let pace = self.serving.limits.together_pace;
        let others_took = pace.saturating_mul(u32::try_from(others).unwrap_or(u32::MAX));
        others >= TOGETHER_MIN
            && !self.stream.is_tls()
            && now.duration_since(since) <= others_took
            && has_ring()
            && !bulk_waits()
    }

    /// A request of this connection with its answer.
    pub(super) fn exchange<'b, H: Handler>(
        &self,
        head: &'b RequestHead,
        started: Instant,
    ) -> Exchange<'b>
    where
        'a: 'b,
    {
        let client = self.peer.address;
        Exchange { serving: self.serving, is_recorded: H::IS_RECORDED, head, client, started }
    }

    /// Sends a stored file behind its head, which is pending, as far as the socket takes it now.
    fn begin_file(&mut self, exchange: &Exchange<'_>, answer: Answer, stays: bool) -> AtOnce {
        self.answered_at = self.serving.answered.get();
        let sent = self.try_send_pending(stays, true);
        let started = exchange.started;
        let now = clock::now();
        let first_byte = now.duration_since(started);
        let underway = match (&sent, &answer.body) {
            (AtOnce::Gone, _) => {
                exchange.record(answer, 0, None);
                return sent;
            }
            (AtOnce::Done(_), Body::File { file, first, length, .. }) => {
                let stall = self.serving.limits.stall_timeout;
                let mut outlet = Outlet::new(&mut self.stream, &self.deadline, stall);
                outlet.file_at_once(file, *first, *length, now)
            }
            _ => Underway::default(),
        };
        if answer.length != Some(underway.sent()) {
            return AtOnce::Sending(Rest { answer, underway, started, first_byte }, stays);
        }
        exchange.record(answer, underway.sent(), Some(first_byte));
        AtOnce::Done(stays)
    }

    /// Sends what is pending and the rest of a stored file; tells whether the connection may serve
    /// another request.
    pub(super) async fn send_rest<H: Handler>(
        &mut self,
        head: &RequestHead,
        mut rest: Rest,
        stays: bool,
    ) -> Result<bool, Gone> {
        let exchange = self.exchange::<H>(head, rest.started);
        if !self.pending.is_empty() {
            // Nothing of it has been sent before this.
            if self.send_pending().await.is_err() {
                exchange.record(rest.answer, 0, None);
                return Err(Gone);
            }
            rest.first_byte = clock::now().duration_since(rest.started);
        }
        match exchange.send_rest(rest, &mut self.stream, &self.deadline).await {
            Sent::Whole => Ok(stays),
            Sent::CutShort => {
                self.stream.cut_short();
                Ok(false)
            }
            Sent::ClientGone => Err(Gone),
        }
    }

    /// Sends what is pending, as far as the socket takes it now; with `more` when something follows.
    fn try_send_pending(&mut self, stays: bool, more: bool) -> AtOnce {
        if self.stream.is_tls() {
            return AtOnce::ToSend(stays);
        }
        match self.stream.try_write(&self.pending, more) {
            Ok(taken) if taken == self.pending.len() => {
                self.give_back_pending();
                AtOnce::Done(stays)
            }
            Ok(taken) => {
                self.pending.drain(..taken);
                AtOnce::ToSend(stays)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => AtOnce::ToSend(stays),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => AtOnce::ToSend(stays),
            Err(_) => AtOnce::Gone,
        }
    }

    /// Sends what is pending. To be called before every wait.
    pub(super) async fn send_pending(&mut self) -> Result<(), Gone> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let stall = self.serving.limits.stall_timeout;
        let mut outlet = Outlet::new(&mut self.stream, &self.deadline, stall);
        let sent = outlet.bytes(&self.pending, false).await;
        self.give_back_pending();
        sent.map_err(|_| Gone)
    }

    /// Sends what is pending by the ring, when the worker looks at it next.
    pub(super) async fn send_together(&mut self) -> Result<(), Gone> {
        self.deadline.write_by(clock::now() + self.serving.limits.stall_timeout);
        let (sent, pending) = self.stream.write_all(std::mem::take(&mut self.pending)).await;
        self.deadline.clear();
        self.pending = pending;
        self.give_back_pending();
        sent.map_err(|_| Gone)
    }

    fn give_back_pending(&mut self) {
        self.serving.spare.keep_buffer(std::mem::take(&mut self.pending));
    }
}
