//! One client connection: the keep-alive loop and all its bounds.

pub(super) mod at_once;

use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use super::certificates::Certificates;
use super::send::{self, Sent};
use super::state::Serving;
use crate::api::{Answer, Begun, Facts, Peer, Refusal};
use crate::http::{BodyFraming, ChunkedDecoder, HeadError, RequestHead, Step};
use crate::index::SmallAt;
use crate::limits::{
    DRAIN_BYTES_MAX, HEAD_BYTES_FIRST, HEAD_BYTES_MAX, REQUESTS_PER_CONNECTION_MAX,
};
use crate::oci::ErrorCode;
use crate::runtime::deadline::Deadline;
use crate::runtime::{
    ClientStream, HandshakeError, Pooled, catch_panic, clock, give_buffer, take_buffer,
};
use crate::telemetry::RouteKind;
use crate::transfer::Inlet;
use at_once::AtOnce;

/// A client whose next request came within this is expected to go on so: its connection keeps its
/// buffer and receives into it at once. The others cost one operation of the ring more, which at
/// their pace is nothing, and no buffer while they wait.
const QUICK: Duration = Duration::from_millis(100);
/// How long a closing connection waits for the client to close too.
const LINGER: Duration = Duration::from_secs(2);
/// Most bytes read from a client that is being closed on.
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What answers the requests of a connection.
pub(super) trait Handler {
    /// Whether its requests are in access log and request metrics.
    const IS_RECORDED: bool;

    /// Answers a request without a body that came at `now`, if that takes no wait; or goes as far as it
    /// can. May panic, as below.
    fn begin(&self, _head: &RequestHead, _peer: &Peer, _now: Instant) -> Begun {
        Begun::Untouched
    }

    /// Appends a body that lies in the index to `out`; `false`, and `out` as it was, when it is there no
    /// more.
    fn copy(&self, _content: &SmallAt, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// Answers one request, from where it has begun. It reads as much of the body as it wants. May panic:
    /// the request is then answered with 500.
    async fn answer(
        &self,
        head: &RequestHead,
        body: &mut Inlet<'_>,
        peer: &Peer,
        begun: Begun,
    ) -> Answer;
}

/// What came when a request was awaited.
enum Arrival {
    Request(Box<RequestHead>),
    /// The client is done, or never said anything.
    Closed,
    /// Not a request: status, code word for the log, sentence.
    Bad(u16, String),
    /// A TLS handshake on the plain port.
    Tls,
}

/// The connection; `deadline` stands before `stream`, which it must not outlive.
struct Connection<'a> {
    serving: &'a Serving,
    deadline: Deadline,
    stream: ClientStream,
    peer: Peer,
    /// What was read and not used yet: pipelined requests stay here.
    buffer: Vec<u8>,
    /// Answers to be sent before anything is waited for.
    pending: Vec<u8>,
    /// When the last request was answered, if nothing was waited for since.
    ended: Option<Instant>,
    /// Since when the next request is waited for; `None` for the first.
    waits_since: Option<Instant>,
    /// Whether the last one came within [`QUICK`].
    is_quick: bool,
    /// What [`Serving::answered`] said when this one had its last answer from memory.
    answered_at: u64,
}

/// Serves requests until either side wants no more, then closes without a reset. `over` is the
/// limit that is exceeded with this connection, if one is: it is then told so and closed.
pub(super) async fn serve<H: Handler>(
    serving: &Serving,
    handler: &H,
    stream: ClientStream,
    peer: SocketAddr,
    over: Option<usize>,
) {
    let _open = serving.counters.connection();
    let deadline = Deadline::watch(&stream);
    let mut connection = Connection {
        serving,
        deadline,
        stream,
        peer: Peer { address: peer.ip(), certificate: None },
        buffer: Vec::new(),
        pending: Vec::new(),
        ended: None,
        waits_since: None,
        is_quick: false,
        answered_at: 0,
    };
    // What is rare, or over soon, is boxed: it is the size of a connection that waits.
    if let Some(tls) = serving.tls.as_ref().filter(|_| connection.stream.is_tls()) {
        match Box::pin(connection.secure(tls)).await {
            Secured::Yes => {}
            Secured::Refused => return Box::pin(connection.linger()).await,
            Secured::Gone => return,
        }
    }
    if let Some(max) = over {
        let refusal = Refusal::new(
            503,
            ErrorCode::TooManyRequests,
            format!("this worker has all of its {max} connections open"),
        );
        connection.refuse(Refusal { retry_after: Some(1), ..refusal }).await;
    } else if connection.requests(handler).await.is_err() {
        // The client has gone: there is nobody to close in good order with.
        return;
    }
    Box::pin(connection.linger()).await;
}

/// How it went to make a connection what its port says.
enum Secured {
    Yes,
    /// The client has been told why not.
    Refused,
    /// There is nobody to tell.
    Gone,
}

/// The client has gone, or takes nothing any more.
struct Gone;

impl Connection<'_> {
    /// Runs the TLS handshake, on a port for TLS.
    async fn secure(&mut self, tls: &Certificates) -> Secured {
        let limits = &self.serving.limits;
        let outcome = {
            // The other half of the connections is for those that have done theirs.
            let _turn = self.deadline.handshake(limits.connections_max.div_ceil(2));
            self.stream.handshake(&self.deadline, limits.head_timeout).await
        };
        tls.count(&outcome);
        match outcome {
            Ok(_) => {
                self.peer.certificate = self.stream.peer_certificate();
                Secured::Yes
            }
            Err(HandshakeError::PlainHttp) => {
                let message = "this port speaks HTTPS; use https:// here";
                self.refuse(Refusal::new(400, ErrorCode::Unsupported, message)).await;
                Secured::Refused
            }
            Err(HandshakeError::Refused(error)) => {
                tracing::debug!(client = %self.peer.address, %error, "no TLS session");
                Secured::Refused
            }
            Err(HandshakeError::Gone | HandshakeError::TimedOut) => Secured::Gone,
        }
    }

    async fn requests<H: Handler>(&mut self, handler: &H) -> Result<(), Gone> {
        for served in 1..=REQUESTS_PER_CONNECTION_MAX {
            match self.next_request(served == 1).await {
                Arrival::Request(head) => {
                    let may_stay = served < REQUESTS_PER_CONNECTION_MAX;
                    let stays = match self.answer_at_once(handler, &head, may_stay) {
                        AtOnce::Done(stays) => stays,
                        AtOnce::ToSend(stays) => {
                            self.send_pending().await?;
                            stays
                        }
                        AtOnce::Together(stays) => {
                            self.send_together().await?;
                            stays
                        }
                        AtOnce::Sending(rest, stays) => {
                            let (this, head) = (&mut *self, &head);
                            Pooled::new(move || this.send_rest::<H>(head, rest, stays)).await?
                        }
                        AtOnce::Begun(begun) => {
                            self.send_pending().await?;
                            let (this, head) = (&mut *self, &head);
                            Pooled::new(move || this.answer(handler, head, may_stay, begun)).await?
                        }
                        AtOnce::Gone => return Err(Gone),
                    };
                    self.serving.spare.keep_head(head);
                    if !stays {
                        return Ok(());
                    }
                }
                Arrival::Closed => return Ok(()),
                Arrival::Bad(status, message) => {
                    self.refuse(Refusal::new(status, ErrorCode::Unsupported, message)).await;
                    return Ok(());
                }
                Arrival::Tls => {
                    self.serving.counters.tls_probe();
                    let message = "this port speaks plain HTTP; use http:// here";
                    self.refuse(Refusal::new(400, ErrorCode::Unsupported, message)).await;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Reads until a head is whole.
    async fn next_request(&mut self, is_first: bool) -> Arrival {
        let limits = &self.serving.limits;
        let now = self.ended.take().unwrap_or_else(clock::now);
        self.waits_since = (!is_first).then_some(now);
        if self.buffer.is_empty() && !is_first {
            if self.serving.lifecycle.is_draining() {
                return Arrival::Closed;
            }
            self.deadline.read_by(now + limits.idle_timeout, true);
            if !self.is_quick {
                give_buffer(std::mem::take(&mut self.buffer));
                if self.stream.readable().await.is_err() {
                    return Arrival::Closed;
                }
            }
        } else {
            self.deadline.read_by(now + limits.head_timeout, is_first);
        }
        let mut has_begun = false;
        loop {
            if !self.stream.is_tls() && crate::http::looks_like_tls(&self.buffer) {
                return Arrival::Tls;
            }
            match self.serving.spare.read_head(&self.buffer) {
                Ok(Some((head, len))) => {
                    self.buffer.drain(..len);
                    self.deadline.clear();
                    return Arrival::Request(head);
                }
                Ok(None) => {}
                Err(error) => return bad_head(&error),
            }
            // Sending may have to wait, and then has a deadline of its own.
            let has_sent = !self.pending.is_empty();
            if self.send_pending().await.is_err() {
                return Arrival::Closed;
            }
            if has_begun || has_sent {
                self.deadline.read_by(clock::now() + limits.head_timeout, false);
            }
            let was_empty = self.buffer.is_empty();
            match self.read_more(HEAD_BYTES_MAX).await {
                Ok(0) if self.deadline.expired() && !self.buffer.is_empty() => {
                    let message = format!("no whole request head within {:?}", limits.head_timeout);
                    return Arrival::Bad(408, message);
                }
                Ok(0) | Err(_) => return Arrival::Closed,
                // Its time begins with its first byte, if it has not come whole.
                Ok(_) => has_begun = was_empty,
            }
        }
    }

    /// Reads behind the buffer's content, which may grow to `max` bytes.
    async fn read_more(&mut self, max: usize) -> std::io::Result<usize> {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() == 0 {
            buffer = take_buffer();
        } else if buffer.len() == buffer.capacity() && buffer.len() < max {
            buffer.reserve_exact(max - buffer.len());
        }
        let (result, buffer) = self.stream.read_more(buffer).await;
        self.buffer = buffer;
        result
    }

    /// Answers one request; tells whether the connection may serve another.
    async fn answer<H: Handler>(
        &mut self,
        handler: &H,
        head: &RequestHead,
        may_stay: bool,
        begun: Begun,
    ) -> Result<bool, Gone> {
        let started = clock::now();
        self.answered_at = self.serving.answered.get();
        let Self { serving, deadline, stream, peer, buffer, .. } = self;
        let stall = serving.limits.stall_timeout;
        let mut body = Inlet::new(head, stream, deadline, stall, buffer);
        // Where it stays: what catches panics would else move all of it, more than once.
        let answered = {
            let answered = pin!(handler.answer(head, &mut body, peer, begun));
            catch_panic(answered).await
        };
        let unread = Unread::of(head, &body);
        let (answer, panicked) = answered.map_or_else(|_| (self.panicked(), true), |a| (a, false));
        let stays = may_stay
            && !panicked
            && head.keep_alive
            && !self.serving.lifecycle.is_draining()
            && unread != Unread::TooMuch;
        let mut exchange = self.exchange::<H>(head, started);
        let sent = exchange.send(answer, &mut self.stream, &self.deadline, stays).await;
        match sent {
            Sent::Whole if stays && unread == Unread::Nothing => Ok(true),
            Sent::Whole if stays => Ok(self.drain_body(head.body).await),
            Sent::Whole => Ok(false),
            Sent::CutShort => {
                self.stream.cut_short();
                Ok(false)
            }
            Sent::ClientGone => Err(Gone),
        }
    }

    /// Remembers at what pace this client asks.
    fn came(&mut self, at: Instant) {
        self.is_quick = self.waits_since.is_some_and(|since| at.duration_since(since) < QUICK);
    }

    fn panicked(&self) -> Answer {
        self.serving.counters.panicked();
        let message = "the request ran into a bug of ringport; see its log";
        Refusal::new(500, ErrorCode::Unknown, message).answer(Facts::of(RouteKind::Other))
    }

    /// An error before there is a request.
    async fn refuse(&mut self, refusal: Refusal) {
        if self.send_pending().await.is_err() {
            return;
        }
        let answer: Answer = refusal.answer(Facts::of(RouteKind::Other));
        let Self { serving, stream, deadline, .. } = self;
        Box::pin(send::without_request(serving, answer, stream, deadline)).await;
    }

    /// Reads away the body of an answered request, so that the next head is found behind it.
    async fn drain_body(&mut self, framing: BodyFraming) -> bool {
        self.deadline.read_by(clock::now() + self.serving.limits.head_timeout, false);
        match framing {
            BodyFraming::None => true,
            BodyFraming::Length(length) => self.drain_length(length).await,
            BodyFraming::Chunked => self.drain_chunked().await,
        }
    }

    async fn drain_length(&mut self, length: u64) -> bool {
        let mut rest = usize::try_from(length).unwrap_or(usize::MAX);
        loop {
            let taken = rest.min(self.buffer.len());
            self.buffer.drain(..taken);
            rest -= taken;
            if rest == 0 {
                return true;
            }
            if !matches!(self.read_more(HEAD_BYTES_MAX).await, Ok(1..)) {
                return false;
            }
        }
    }

    async fn drain_chunked(&mut self) -> bool {
        let mut decoder = ChunkedDecoder::new();
        let mut drained = 0_u64;
        loop {
            while !self.buffer.is_empty() {
                let Ok(step) = decoder.advance(&self.buffer) else { return false };
                let used = match step {
                    Step::Data { skip, len } => skip + len,
                    Step::More => self.buffer.len(),
                    Step::End { consumed } => consumed,
                };
                self.buffer.drain(..used.min(self.buffer.len()));
                drained += used as u64;
                if decoder.is_complete() {
                    return true;
                }
                if drained > DRAIN_BYTES_MAX {
                    return false;
                }
            }
            if !matches!(self.read_more(HEAD_BYTES_MAX).await, Ok(1..)) {
                return false;
            }
        }
    }

    /// Closes with FIN: what is still unread would turn the close into a reset that can destroy
    /// the answer on its way, so it is read away for a bounded while.
    async fn linger(mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        self.deadline.read_by(clock::now() + LINGER, true);
        let mut read = 0;
        while read < LINGER_BYTES_MAX {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            buffer.reserve(HEAD_BYTES_FIRST);
            let (result, buffer) = self.stream.read_away(buffer).await;
            self.buffer = buffer;
            match result {
                Ok(n @ 1..) => read += n,
                Ok(0) | Err(_) => break,
            }
        }
        give_buffer(self.buffer);
    }
}

/// What is left of a request's body when its answer is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unread {
    Nothing,
    /// All of it, to be read away after the answer.
    Whole,
    /// The connection cannot be used any more.
    TooMuch,
}

impl Unread {
    fn of(head: &RequestHead, body: &Inlet<'_>) -> Self {
        match head.body {
            _ if body.is_complete() => Self::Nothing,
            // Where the rest ends is not worth finding out.
            _ if body.has_begun() => Self::TooMuch,
            // A client that waits for "100 Continue" may or may not send its body after another
            // answer: nobody could tell where the next request begins.
            _ if head.expect_100 => Self::TooMuch,
            BodyFraming::Length(length) if length > DRAIN_BYTES_MAX => Self::TooMuch,
            BodyFraming::None | BodyFraming::Length(_) | BodyFraming::Chunked => Self::Whole,
        }
    }
}

fn bad_head(error: &HeadError) -> Arrival {
    Arrival::Bad(error.status(), error.to_string())
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
