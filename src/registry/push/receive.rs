//! Takes the body of a request into the file of an upload: room first, then bytes, hashed on the
//! way, and synced behind them.
//!
//! Syncing goes on beside receiving: after each [`SYNC_BYTES`] one sync is begun for what is
//! written so far, unless one is under way. That bounds what a power cut costs, and leaves the
//! last sync, for which the client waits, little to do. Small uploads are synced once, when they
//! are committed.
//!
//! Room is taken from the disk before bytes are written, all of it where the client says how much
//! it sends: so what does not fit is refused before it has evicted anything for nothing.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::{Either, select};

use super::PushError;
use super::sessions::{Held, Session};
use crate::catalog::NO_OWNER;
use crate::limits::GATHERED_FOR;
use crate::oci::{Algorithm, Digest, Digester};
use crate::registry::space::{Claim, Reservation};
use crate::registry::state::Shared;
use crate::runtime::{sleep, spawn};
use crate::storage::{Growing, Piece, Pieces};
use crate::transfer::Inlet;

/// Bytes that may be written before the ones before them are synced.
pub(super) const SYNC_BYTES: u64 = 64 << 20;
/// Room that is taken at once for a body whose length is not told: from the first to the last.
const STEP_FIRST: u64 = 1 << 20;
const STEP_LAST: u64 = 64 << 20;
/// So little is not taken from the disk before it is written.
const ALLOCATED_MIN: u64 = 1 << 20;

/// The file of a session, as one request writes to it.
pub(super) struct Receiver<'a, 'h> {
    shared: &'a Shared,
    held: &'a mut Held<'h>,
    file: Option<Growing>,
    /// Bytes of the file that there is room for.
    room_to: u64,
    /// What was promised and not taken from the disk yet.
    promise: Option<Reservation>,
    synced_to: u64,
}

impl<'a, 'h> Receiver<'a, 'h> {
    pub(super) fn new(shared: &'a Shared, held: &'a mut Held<'h>) -> Self {
        let size = held.state.size;
        Self { shared, held, file: None, room_to: size, promise: None, synced_to: size }
    }

    /// Appends the body, at most `max` bytes of it, hashing with `algorithm` if nothing was hashed
    /// before. What was received before a failure counts.
    ///
    /// # Errors
    /// The client has gone, sends more than `max`, or the disk has no room or fails.
    pub(super) async fn append(
        &mut self,
        body: &mut Inlet<'_>,
        max: u64,
        algorithm: Algorithm,
    ) -> Result<(), PushError> {
        let limit = self.shared.blob_bytes_max;
        let most = self.held.state.size.saturating_add(body.length().unwrap_or(0));
        if most > limit {
            return Err(too_large(limit));
        }
        if body.length().is_some_and(|length| length > max) {
            return Err(longer_than_said(max));
        }
        if body.length() == Some(0) {
            return Ok(());
        }
        let appended = self.append_pieces(body, (max, limit), algorithm).await;
        if let Some(mut promise) = self.promise.take() {
            // What was written of it is on the disk, and the rest is given back.
            promise.allocated();
        }
        self.tidy().await;
        appended
    }

    async fn append_pieces(
        &mut self,
        body: &mut Inlet<'_>,
        (max, limit): (u64, u64),
        algorithm: Algorithm,
    ) -> Result<(), PushError> {
        if let Some(length) = body.length() {
            // Before a client that asks whether to go on is told to.
            self.make_room(length).await?;
        }
        let mut pieces = Pieces::behind(self.held.state.size);
        let received = self.receive(body, (max, limit), &mut pieces, algorithm).await;
        // What was received before a failure counts.
        let settled = self.settle(&mut pieces, algorithm).await;
        received.and(settled)
    }

    /// The next bytes of the body. What came before them counts soon, whether they come or not.
    async fn next(
        &mut self,
        body: &mut Inlet<'_>,
        pieces: &mut Pieces,
        algorithm: Algorithm,
    ) -> Result<Option<Bytes>, PushError> {
        // Never given up half-way: what was read would be lost.
        let mut next = pin!(body.next());
        if pieces.written() < pieces.size() {
            match select(next.as_mut(), pin!(sleep(GATHERED_FOR))).await {
                Either::Left((bytes, _)) => return Ok(bytes?),
                Either::Right(_) => self.settle(pieces, algorithm).await?,
            }
        }
        Ok(next.await?)
    }

    /// Writes what was gathered.
    async fn settle(&mut self, pieces: &mut Pieces, algorithm: Algorithm) -> Result<(), PushError> {
        let at = pieces.written();
        match pieces.rest() {
            Some(piece) => self.put(piece, at, pieces, algorithm).await,
            None => Ok(()),
        }
    }

    async fn receive(
        &mut self,
        body: &mut Inlet<'_>,
        (max, limit): (u64, u64),
        pieces: &mut Pieces,
        algorithm: Algorithm,
    ) -> Result<(), PushError> {
        let mut received = 0_u64;
        while let Some(mut bytes) = self.next(body, pieces, algorithm).await? {
            let length = bytes.len() as u64;
            received += length;
            self.shared.uploads.counts.received_bytes.fetch_add(length, Ordering::Relaxed);
            self.held.session.touch();
            if received > max {
                return Err(longer_than_said(max));
            }
            let end = pieces.size().saturating_add(length);
            if end > limit {
                return Err(too_large(limit));
            }
            if end > self.room_to {
                let step = received.clamp(STEP_FIRST, STEP_LAST);
                self.make_room(step.max(end - self.held.state.size)).await?;
            }
            loop {
                let at = pieces.written();
                let Some(piece) = pieces.take(&mut bytes, body.is_complete()) else { break };
                self.put(piece, at, pieces, algorithm).await?;
            }
        }
        Ok(())
    }

    /// Writes what counts from then on.
    async fn put(
        &mut self,
        piece: Piece,
        at: u64,
        pieces: &mut Pieces,
        algorithm: Algorithm,
    ) -> Result<(), PushError> {
        let Some(file) = &self.file else {
            return Err(PushError::Internal("an upload has no file".to_owned()));
        };
        let (written, piece) = file.write_at(piece, at).await;
        if let Err(error) = written {
            self.held.state.is_ragged = true;
            return Err(self.disk_error(&error));
        }
        if at == 0 {
            self.held.state.digester = Some((Digester::new(algorithm), 0));
        }
        let length = piece.bytes().len() as u64;
        if let Some((digester, hashed)) = &mut self.held.state.digester {
            digester.update(piece.bytes());
            *hashed += length;
        }
        pieces.give_back(piece);
        self.held.set_size(at + length);
        self.sync_behind();
        Ok(())
    }

    /// Takes room for so many bytes more, and opens the file when it is the first.
    async fn make_room(&mut self, bytes: u64) -> Result<(), PushError> {
        let claim = |pool| Claim { pool, owner: NO_OWNER, is_hosted: true, bytes };
        let space = &self.shared.space;
        if let Some(mut promise) = self.promise.take() {
            promise.allocated();
        }
        let Some(pool) = self.held.state.pool else { return self.choose_pool(bytes).await };
        if self.file.is_none() {
            let number = self.held.session.id.number();
            let opened = Growing::open(&self.shared.store, pool, number).await;
            self.file = Some(opened.map_err(|error| self.disk_error(&error))?);
        }
        let promised = space.reserve(claim(pool)).await;
        let mut promise = promised.map_err(|_| self.no_room(bytes))?;
        self.allocate(bytes).await?;
        if bytes > ALLOCATED_MIN {
            promise.allocated();
        }
        self.promise = Some(promise);
        self.room_to = self.held.state.size.saturating_add(bytes);
        Ok(())
    }

    /// The same for the first byte: what one pool refuses is offered to the others.
    async fn choose_pool(&mut self, bytes: u64) -> Result<(), PushError> {
        let space = self.shared.space.clone();
        let number = self.held.session.id.number();
        let lot = lot(number);
        let mut claim = Claim { pool: 0, owner: NO_OWNER, is_hosted: true, bytes };
        let mut why = self.no_room(bytes);
        let mut tried = Vec::new();
        while let Some(pool) = space.choose_pool(&claim, &lot, None, &tried) {
            claim.pool = pool;
            let promise = match tried.is_empty() {
                true => space.reserve(claim).await.ok(),
                false => space.try_reserve(claim),
            };
            tried.push(pool);
            let Some(mut promise) = promise else { continue };
            match Growing::open(&self.shared.store, pool, number).await {
                Ok(file) => self.file = Some(file),
                Err(error) => {
                    tracing::warn!(pool, %error, "a pool does not take an upload");
                    space.refused(pool);
                    why = self.disk_error(&error);
                    continue;
                }
            }
            self.held.state.pool = Some(pool);
            if let Err(error) = self.allocate(bytes).await {
                why = error;
                self.held.state.pool = None;
                self.file = None;
                self.shared.remove_upload_file(pool, number).await;
                continue;
            }
            if bytes > ALLOCATED_MIN {
                promise.allocated();
            }
            self.promise = Some(promise);
            self.room_to = self.held.state.size.saturating_add(bytes);
            return Ok(());
        }
        Err(why)
    }

    async fn allocate(&mut self, bytes: u64) -> Result<(), PushError> {
        let (Some(file), true) = (&self.file, bytes > ALLOCATED_MIN) else { return Ok(()) };
        self.held.state.is_ragged = true;
        let allocated = file.allocate_behind(self.held.state.size, bytes).await;
        allocated.map_err(|error| self.disk_error(&error))
    }

    /// Begins a sync of what is written, when enough is.
    fn sync_behind(&mut self) {
        let size = self.held.state.size;
        let session = self.held.session;
        if size - self.synced_to < SYNC_BYTES || session.is_syncing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.synced_to = size;
        if let Some(file) = self.file.clone() {
            spawn(sync(session.clone(), file, size));
        }
        if let Some(write) = self.held.note() {
            self.shared.catalog.write_soon(vec![write]);
        }
    }

    /// Drops what stands behind the bytes that count.
    async fn tidy(&mut self) {
        let (Some(file), true) = (&self.file, self.held.state.is_ragged) else { return };
        match file.cut(self.held.state.size).await {
            Ok(()) => self.held.state.is_ragged = false,
            Err(error) => tracing::warn!(id = %self.held.session.id, %error,
                "the file of an upload is longer than what counts of it"),
        }
    }

    /// The file that was written to, if there is one.
    pub(super) fn into_file(self) -> Option<Growing> {
        self.file
    }

    fn no_room(&self, bytes: u64) -> PushError {
        PushError::NoRoom(format!(
            "no disk has room for {bytes} bytes more of upload {}; what was received is kept: go \
             on when there is room",
            self.held.session.id
        ))
    }

    /// What to tell of a disk that refused.
    fn disk_error(&self, error: &io::Error) -> PushError {
        disk_error(self.shared, self.held, error)
    }
}

/// By what the pool of an upload is drawn: any digest does as well as that of the content, which
/// nobody knows yet.
pub(super) fn lot(number: u128) -> Digest {
    Digest::of(Algorithm::Sha256, &number.to_be_bytes())
}

/// What to tell of a disk that refused something to the file of an upload.
pub(super) fn disk_error(shared: &Shared, held: &Held<'_>, error: &io::Error) -> PushError {
    let is_full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    );
    let id = held.session.id;
    if is_full {
        if let Some(pool) = held.state.pool {
            shared.space.refused(pool);
        }
        return PushError::NoRoom(format!(
            "the disk has no room for upload {id}: {error}; what was received is kept"
        ));
    }
    tracing::error!(%id, %error, "the disk failed an upload");
    PushError::Storage(format!("upload {id}: {error}; check the disk"))
}

/// Makes the first `size` bytes durable. A failure is not told to this session's client: it ends
/// all writing to the pool, so the commit fails too.
async fn sync(session: Arc<Session>, file: Growing, size: u64) {
    let drops = session.drops.load(Ordering::Acquire);
    match file.sync().await {
        Ok(()) if session.drops.load(Ordering::Acquire) == drops => {
            session.confirmed.fetch_max(size, Ordering::AcqRel);
        }
        Ok(()) => {}
        Err(error) => tracing::error!(id = %session.id, %error, "an upload could not be synced"),
    }
    session.is_syncing.store(false, Ordering::Release);
}

fn too_large(limit: u64) -> PushError {
    PushError::TooLarge(format!("a blob has at most {limit} bytes"))
}

fn longer_than_said(max: u64) -> PushError {
    PushError::Size(format!("the body is longer than the {max} bytes that Content-Range tells"))
}
