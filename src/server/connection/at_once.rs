//! Answers that take no wait: made and sent without a future, those of pipelined requests together.

use super::{Connection, Gone, Handler};
use crate::api::Begun;
use crate::http::{BodyFraming, RequestHead};
use crate::limits::PENDING_BYTES_MAX;
use crate::runtime::{catch_panic_now, clock};
use crate::server::send::{self, Exchange};
use crate::transfer::Outlet;

/// What became of a request.
// The large one is on its way to a future in any case.
#[expect(clippy::large_enum_variant)]
pub(super) enum AtOnce {
    /// Answered; whether the connection may serve another. The answer may still be pending.
    Done(bool),
    /// The same, but the socket has not taken all of what is pending.
    ToSend(bool),
    /// Not answered, or not with what can be sent at once.
    Begun(Begun),
    /// The client has gone.
    Gone,
}

impl Connection<'_> {
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
        let begun = catch_panic_now(|| handler.begin(head, &self.peer));
        let (answer, panicked) = match begun {
            Ok(Begun::Answered(answer)) => (answer, false),
            Ok(begun) => return AtOnce::Begun(begun),
            Err(_) => (self.panicked(), true),
        };
        if !send::is_joinable(&answer) {
            return AtOnce::Begun(Begun::Answered(answer));
        }
        let stays =
            may_stay && !panicked && head.keep_alive && !self.serving.lifecycle.is_draining();
        if self.pending.capacity() == 0 {
            self.pending = self.serving.spare.take_buffer();
        }
        let exchange = Exchange {
            serving: self.serving,
            is_recorded: H::IS_RECORDED,
            head,
            client: self.peer.address,
            started,
        };
        let body_bytes = exchange.write(&answer, stays, &mut self.pending);
        // The next request is there already: its answer goes with this one.
        let is_held = stays && !self.buffer.is_empty() && self.pending.len() < PENDING_BYTES_MAX;
        let sent = if is_held { AtOnce::Done(stays) } else { self.try_send_pending(stays) };
        let body_bytes = if matches!(sent, AtOnce::Gone) { 0 } else { body_bytes };
        exchange.record(answer, body_bytes, Some(clock::now().duration_since(started)));
        sent
    }

    /// Sends what is pending, as far as the socket takes it now.
    fn try_send_pending(&mut self, stays: bool) -> AtOnce {
        if self.stream.is_tls() {
            return AtOnce::ToSend(stays);
        }
        match self.stream.try_write(&self.pending, false) {
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

    fn give_back_pending(&mut self) {
        self.serving.spare.keep_buffer(std::mem::take(&mut self.pending));
    }
}
