//! An answer becomes bytes on the socket.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::state::{Serving, WorkerState};
use crate::api::{Answer, Body, Value};
use crate::http::{RequestHead, ResponseHead, Version};
use crate::index::SmallAt;
use crate::limits::HOLD_BACK_BYTES;
use crate::registry::{Fill, Lease, Passing, PullError, SparseReader, Tail};
use crate::runtime::deadline::Deadline;
use crate::runtime::{ClientStream, clock};
use crate::telemetry::AccessEntry;
use crate::transfer::{Outlet, Underway};

/// Largest document that is copied behind its head to go out in one send, in bytes.
const JOINED_BYTES_MAX: usize = 16 * 1024;

/// Enough for the usual head.
const HEAD_BYTES_USUAL: usize = 512;

/// How sending ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Every byte that was announced.
    Whole,
    /// The content ended before what was announced: close with FIN.
    CutShort,
    /// The client took nothing any more.
    ClientGone,
}

/// What the head says about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Close,
    /// HTTP/1.0 has to be told.
    Explicit,
    /// HTTP/1.1 takes it for granted.
    Implied,
}

/// The answer whose stored file has been begun, or its head at least.
pub(super) struct Rest {
    pub(super) answer: Answer,
    pub(super) underway: Underway,
    pub(super) started: Instant,
    /// How long it took to begin.
    pub(super) first_byte: Duration,
}

/// One request with its answer, for the record.
pub(super) struct Exchange<'a> {
    pub(super) serving: &'a Serving,
    pub(super) is_recorded: bool,
    pub(super) head: &'a RequestHead,
    pub(super) client: IpAddr,
    pub(super) started: Instant,
}

impl Exchange<'_> {
    /// Sends the answer, then records it in metrics and access log.
    pub(super) async fn send(
        &mut self,
        answer: Answer,
        stream: &mut ClientStream,
        deadline: &Deadline,
        stays: bool,
    ) -> Sent {
        let mut outlet = Outlet::new(stream, deadline, self.serving.limits.stall_timeout);
        let keep = self.keep(stays);
        let head = head_bytes(self.serving, &answer, keep, clock::unix_seconds(), Vec::new());
        let head_length = head.len() as u64;
        let mut first_byte = None;
        let is_recorded = self.is_recorded;
        let body = Payload { serving: self.serving, is_recorded, answer: &answer };
        let sent = body.send(head, &mut outlet, || {
            first_byte.get_or_insert_with(|| clock::now().duration_since(self.started));
        });
        let sent = sent.await;
        let body_bytes = outlet.sent().saturating_sub(head_length);
        body.copied(outlet.copied());
        self.record(answer, body_bytes, first_byte);
        sent
    }

    /// Sends the rest of a stored file that was begun, then records the answer.
    pub(super) async fn send_rest(
        &self,
        rest: Rest,
        stream: &mut ClientStream,
        deadline: &Deadline,
    ) -> Sent {
        let Rest { answer, underway, first_byte, .. } = rest;
        let Body::File { file, first, length, lease } = &answer.body else {
            return Sent::CutShort;
        };
        let mut outlet = Outlet::new(stream, deadline, self.serving.limits.stall_timeout);
        let sent = underway.sent();
        let whole = stored(&mut outlet, file, (*first, *length), underway, lease).await;
        let body_bytes = sent.saturating_add(outlet.sent());
        self.record(answer, body_bytes, Some(first_byte));
        whole
    }

    /// Appends the head of an answer that takes no wait to `out`.
    pub(super) fn write_head(&self, answer: &Answer, stays: bool, out: &mut Vec<u8>) {
        let (keep, at) = (self.keep(stays), clock::unix_seconds_at(self.started));
        *out = head_bytes(self.serving, answer, keep, at, std::mem::take(out));
    }

    /// Appends an answer that is [`is_joinable`] to `out`; the bytes of its body. `None`, and `out` as it
    /// was, when `copy` has none.
    pub(super) fn write(
        &self,
        answer: &Answer,
        stays: bool,
        out: &mut Vec<u8>,
        copy: impl FnOnce(&SmallAt, &mut Vec<u8>) -> bool,
    ) -> Option<u64> {
        let start = out.len();
        self.write_head(answer, stays, out);
        let body = out.len();
        match &answer.body {
            Body::Memory(bytes) => out.extend_from_slice(bytes),
            Body::InIndex { content, first, length } => {
                let is_copied = copy(content, out);
                if !is_copied || !cut(out, body, *first, *length) {
                    out.truncate(start);
                    return None;
                }
            }
            _ => return Some(0),
        }
        let bytes = (out.len() - body) as u64;
        if self.is_recorded {
            self.serving.counters.copied(bytes);
        }
        Some(bytes)
    }

    fn keep(&self, stays: bool) -> Keep {
        match (stays, self.head.version) {
            (false, _) => Keep::Close,
            (true, Version::Http10) => Keep::Explicit,
            (true, Version::Http11) => Keep::Implied,
        }
    }

    /// Counts the answer and writes it to the access log.
    pub(super) fn record(&self, answer: Answer, body_bytes: u64, first_byte: Option<Duration>) {
        if !self.is_recorded {
            return;
        }
        let Answer { status, facts, .. } = answer;
        self.serving.counters.request(
            facts.route_kind,
            status,
            facts.cache,
            body_bytes,
            first_byte,
        );
        if !self.serving.access_log.is_on() {
            return;
        }
        let head = self.head;
        self.serving.access_log.record(AccessEntry {
            // When it began, as the log has it.
            unix_time: clock::unix_time().saturating_sub(self.started.elapsed()),
            request_id: self.serving.request_ids.next_id(),
            client: Some(self.client),
            user: facts.user,
            method: Cow::Borrowed(head.method.as_str()),
            path: head.path().to_owned(),
            query: head.query().map(str::to_owned),
            kind: facts.route_kind,
            upstream: facts.upstream,
            repository: facts.repository,
            reference: facts.reference,
            status,
            bytes_sent: body_bytes,
            duration: clock::now().duration_since(self.started),
            first_byte,
            cache: facts.cache,
            user_agent: head.user_agent().map(str::to_owned),
            worker: self.serving.worker,
            header_ns: facts.header_ns,
            decision: facts.decision,
        });
    }
}

/// Sends an answer to something that was no request, and says that the connection closes.
pub(super) async fn without_request(
    serving: &Serving,
    answer: Answer,
    stream: &mut ClientStream,
    deadline: &Deadline,
) {
    let mut outlet = Outlet::new(stream, deadline, serving.limits.stall_timeout);
    let head = head_bytes(serving, &answer, Keep::Close, clock::unix_seconds(), Vec::new());
    let head_length = head.len() as u64;
    let body = Payload { serving, is_recorded: true, answer: &answer };
    // Whether it arrives or not, the connection is closed next.
    let _ = body.send(head, &mut outlet, || ()).await;
    let body_bytes = outlet.sent().saturating_sub(head_length);
    let facts = &answer.facts;
    serving.counters.request(facts.route_kind, answer.status, facts.cache, body_bytes, None);
}

/// Whether the body, if there is one, goes behind the head in one buffer: one send, where two would
/// cost a fifth more.
pub(super) fn is_joinable(answer: &Answer) -> bool {
    match &answer.body {
        Body::Empty | Body::InIndex { .. } => true,
        Body::Memory(bytes) => bytes.len() <= JOINED_BYTES_MAX,
        _ => false,
    }
}

/// Leaves of what stands from `start` on these bytes; whether they are there.
fn cut(out: &mut Vec<u8>, start: usize, first: u64, length: u64) -> bool {
    let skipped = usize::try_from(first).unwrap_or(usize::MAX);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let end = start.saturating_add(skipped).saturating_add(length);
    if end > out.len() {
        return false;
    }
    out.truncate(end);
    out.drain(start..start + skipped);
    true
}

/// The response head of an answer at this Unix second, ready to send, behind what `out` holds.
fn head_bytes(
    serving: &Serving,
    answer: &Answer,
    keep: Keep,
    at: u64,
    mut out: Vec<u8>,
) -> Vec<u8> {
    if out.capacity() == 0 {
        // With a joined body it grows once more.
        out.reserve(HEAD_BYTES_USUAL);
    }
    let mut head = ResponseHead::append_to(out, answer.status);
    if let Some(digest) = &answer.content {
        head = head.content(digest.text().as_str());
    }
    for (name, value) in &answer.headers {
        head = match value {
            Value::Line(line) => head.line(line),
            Value::Text(text) => head.text(name, text),
            Value::Shared(text) => head.text(name, text),
            Value::Number(number) => head.number(name, *number),
        };
    }
    if let Some(length) = answer.length {
        head = head.content_length(length);
    }
    match keep {
        Keep::Close => head = head.connection_close(),
        Keep::Explicit => head = head.connection_keep_alive(),
        Keep::Implied => {}
    }
    head.finish(serving.date.borrow_mut().at(at))
}

struct Payload<'a> {
    serving: &'a Serving,
    is_recorded: bool,
    answer: &'a Answer,
}

impl Payload<'_> {
    /// Counts bytes of a body that passed user memory; not those of the operator's documents, which
    /// would hide that there are no others.
    fn copied(&self, bytes: u64) {
        if self.is_recorded {
            self.serving.counters.copied(bytes);
        }
    }

    async fn send(
        &self,
        mut head: Vec<u8>,
        outlet: &mut Outlet<'_>,
        mut first_byte: impl FnMut(),
    ) -> Sent {
        match &self.answer.body {
            Body::Empty => outlet.bytes(&head, false).await.map_or(Sent::ClientGone, |()| {
                first_byte();
                Sent::Whole
            }),
            Body::Memory(bytes) => {
                self.copied(bytes.len() as u64);
                let is_small = is_joinable(self.answer);
                if is_small {
                    head.extend_from_slice(bytes);
                }
                let mut sent = outlet.bytes(&head, !is_small).await;
                first_byte();
                if sent.is_ok() && !is_small {
                    // Shared with all who wait for the same: no copy for each of them.
                    sent = outlet.bytes(bytes, false).await;
                }
                sent.map_or(Sent::ClientGone, |()| Sent::Whole)
            }
            // Joined with its head always, and before this.
            Body::InIndex { .. } => Sent::CutShort,
            Body::File { file, first, length, lease } => {
                if outlet.bytes(&head, *length > 0).await.is_err() {
                    return Sent::ClientGone;
                }
                first_byte();
                stored(outlet, file, (*first, *length), Underway::default(), lease).await
            }
            Body::Passing(passing) => {
                if outlet.bytes(&head, false).await.is_err() {
                    return Sent::ClientGone;
                }
                first_byte();
                match passing.take() {
                    Some(passing) => self.pass(*passing, outlet).await,
                    None => Sent::CutShort,
                }
            }
            Body::Filling { fill, tail, first, length } => {
                let wanted = Followed::new(fill, *tail, (*first, *length));
                // What is there goes out with the head.
                let more = wanted.sendable() > *first;
                if outlet.bytes(&head, more).await.is_err() {
                    return Sent::ClientGone;
                }
                first_byte();
                follow(wanted, outlet).await
            }
            Body::Sparse { reader, first, length } => {
                if outlet.bytes(&head, false).await.is_err() {
                    return Sent::ClientGone;
                }
                first_byte();
                let before = outlet.sent();
                let sent = read(reader, outlet, (*first, *length)).await;
                self.serving.counters.extent_sent(outlet.sent() - before);
                sent
            }
        }
    }
}

impl Payload<'_> {
    /// Sends what passes by the store.
    async fn pass(&self, mut passing: Passing, outlet: &mut Outlet<'_>) -> Sent {
        loop {
            match passing.next_bytes().await {
                Ok(Some(bytes)) => {
                    self.copied(bytes.len() as u64);
                    if outlet.bytes(&bytes, false).await.is_err() {
                        return Sent::ClientGone;
                    }
                }
                Ok(None) => return Sent::Whole,
                Err(error) => {
                    tracing::warn!(%error, "an answer that was passed through was cut short");
                    return Sent::CutShort;
                }
            }
        }
    }
}

/// What a client wants of a fill. The end of the *answer* waits for the digest, not only the end of
/// the blob: a range that was completed from unverified bytes could be wrong and whole.
struct Followed<'a> {
    fill: &'a Fill,
    first: u64,
    end: u64,
    /// Up to where the answer may go before the digest has been compared.
    unverified_end: u64,
}

impl<'a> Followed<'a> {
    fn new(fill: &'a Fill, tail: Tail, (first, length): (u64, u64)) -> Self {
        let end = first.saturating_add(length);
        let held = if tail == Tail::Held { length.min(HOLD_BACK_BYTES) } else { 0 };
        Self { fill, first, end, unverified_end: end - held }
    }

    /// Up to where it may be sent by now.
    fn sendable(&self) -> u64 {
        // Looked at before the bytes, of which a verified fill has all.
        let end = if self.fill.is_verified() { self.end } else { self.unverified_end };
        self.fill.readable().min(end)
    }

    /// Waits until bytes behind `at` may be sent.
    async fn more_than(&self, at: u64) -> Result<(), PullError> {
        if at >= self.unverified_end {
            return self.fill.outcome().await.map(|_| ());
        }
        self.fill.readable_beyond(at).await.map(|_| ())
    }
}

/// Sends what a fill has, as it comes.
async fn follow(wanted: Followed<'_>, outlet: &mut Outlet<'_>) -> Sent {
    let (fill, mut at) = (wanted.fill, wanted.first);
    while at < wanted.end {
        if let Err(error) = wanted.more_than(at).await {
            tracing::debug!(digest = %fill.digest, %error, at, "an answer was cut short");
            return Sent::CutShort;
        }
        let Some(file) = fill.file() else { return Sent::CutShort };
        match outlet.growing(file, at, || wanted.sendable()).await {
            Ok(until) if until > at => at = until,
            // Verified content that is shorter than announced cannot be; treat it as broken off.
            Ok(_) => return Sent::CutShort,
            Err(error) => return of_file(Err(error)),
        }
    }
    Sent::Whole
}

/// Sends a part of a blob that arrives in parts, as it comes.
async fn read(reader: &SparseReader, outlet: &mut Outlet<'_>, (first, length): (u64, u64)) -> Sent {
    let (mut at, end) = (first, first.saturating_add(length));
    while at < end {
        let until = match reader.readable_beyond(at).await {
            Ok(until) => until.min(end),
            Err(error) => {
                tracing::debug!(digest = %reader.digest(), %error, at, "an answer was cut short");
                return Sent::CutShort;
            }
        };
        let Some(file) = reader.file().filter(|_| until > at) else { return Sent::CutShort };
        match of_file(outlet.file(file, at, until - at).await) {
            Sent::Whole => at = until,
            other => return other,
        }
    }
    Sent::Whole
}

/// Sends from a stored file. One that cannot be read is looked at before it is used again, or the
/// next client is cut short at the same place, for ever.
async fn stored(
    outlet: &mut Outlet<'_>,
    file: &Arc<std::fs::File>,
    (first, length): (u64, u64),
    underway: Underway,
    lease: &Lease,
) -> Sent {
    let sent = outlet.rest_of_file(file, first, length, underway).await;
    let is_doubtful = sent.as_ref().is_err_and(speaks_of_content);
    let sent = of_file(sent);
    if sent == Sent::CutShort
        && is_doubtful
        && let Some(worker) = WorkerState::current()
    {
        worker.shared.doubt(lease.digest());
    }
    sent
}

/// Whether it is the file that failed, and not that the machine is short of something just now.
fn speaks_of_content(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    match error.raw_os_error() {
        Some(errno) => !passing.iter().any(|passing| passing.raw_os_error() == errno),
        None => error.kind() == std::io::ErrorKind::UnexpectedEof,
    }
}

fn of_file(result: std::io::Result<()>) -> Sent {
    match result {
        Ok(()) => Sent::Whole,
        Err(error) => match error.kind() {
            std::io::ErrorKind::BrokenPipe
            | std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::ConnectionAborted
            | std::io::ErrorKind::HostUnreachable
            | std::io::ErrorKind::NetworkUnreachable
            | std::io::ErrorKind::TimedOut => Sent::ClientGone,
            _ => {
                tracing::warn!(%error, "an answer was cut short: the stored file could not be read");
                Sent::CutShort
            }
        },
    }
}
