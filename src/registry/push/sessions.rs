//! The upload sessions there are.
//!
//! A session is made by POST and ends by PUT, DELETE, or [`IDLE_SECONDS`] without a request. It is
//! seen only by who began it, in the repository that it was begun for; to everybody else it does
//! not exist. Requests for one session may come to any worker: each holds the session's lock for as
//! long as it is served, waits for it at most [`TURN_TIMEOUT`] (a client that comes back right
//! after its connection broke is faster than the news of that), and is refused after that.
//!
//! What survives:
//!
//! | after | what is left of a session |
//! |---|---|
//! | the client has gone | all that was received |
//! | SIGTERM, kill -9 | all that was written, which is all that was acknowledged: the file's length tells. One that has less than [`DURABLE_BYTES`] and was begun less than a second before a kill may be gone |
//! | a power cut | what was synced and noted in the catalog: at most [`SYNC_BYTES`] are sent again for each sync that was under way |
//!
//! The record is written without waiting for the disk until the session holds [`DURABLE_BYTES`]:
//! what is lost with it is a session that its client begins anew at little cost. A file without a record and a record without
//! its bytes are removed at start. The hash is not kept: it is computed again when it is needed.
//!
//! [`SYNC_BYTES`]: super::receive::SYNC_BYTES

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_lock::{Mutex, MutexGuard};

use super::PushError;
use crate::catalog::{Catalog, UploadId, UploadRecord, Write};
use crate::limits::{UPLOADS_MAX, UPLOADS_PER_OWNER_MAX};
use crate::oci::{Algorithm, Digester, Scope};
use crate::runtime::{clock, timeout};
use crate::storage::{ROOT_POOL, Store};

/// How long a request waits for the one before it.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);
/// A session that no request came for in this time is removed.
pub(super) const IDLE_SECONDS: u64 = 24 * 3600;
/// After this long a record is made anew when a piece comes: the next start tells by it how long a
/// session has been idle.
const NOTED_SECONDS: u64 = 3600;
/// Where there are too many, one that is idle for so long makes room for a new one.
const IDLE_ENOUGH_SECONDS: u64 = 600;
/// A session that holds so much after a request has a durable record before that is answered.
pub(super) const DURABLE_BYTES: u64 = 1 << 20;

/// All sessions of this process.
#[derive(Default)]
pub struct Uploads {
    sessions: papaya::HashMap<UploadId, Arc<Session>>,
    open: AtomicUsize,
    pub(super) counts: Counts,
}

/// What became of uploads since the start.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) completed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) mounted: AtomicU64,
    pub(super) received_bytes: AtomicU64,
}

/// One upload under way.
pub(super) struct Session {
    pub(super) id: UploadId,
    pub(super) scope: Scope,
    owner: Box<str>,
    /// What its bytes are hashed by as they come.
    pub(super) algorithm: Algorithm,
    started_at: u64,
    pub(super) last_active: AtomicU64,
    /// Bytes received so far, for who does not wait.
    received: AtomicU64,
    /// Bytes that are on the disk for sure.
    pub(super) confirmed: AtomicU64,
    /// How often bytes were dropped: what a sync that began before says is of other bytes.
    pub(super) drops: AtomicU64,
    /// A sync is under way.
    pub(super) is_syncing: AtomicBool,
    state: Mutex<State>,
}

/// What the request that is being served may change.
pub(super) struct State {
    /// Bytes received.
    pub(super) size: u64,
    /// Where its file is; `None` before the first byte.
    pub(super) pool: Option<u8>,
    /// What has hashed so many bytes; `None` when it has to be done again.
    pub(super) digester: Option<(Digester, u64)>,
    /// Something may stand in the file behind these bytes, or be kept there for more.
    pub(super) is_ragged: bool,
    /// What its record says of the bytes that are on the disk; `None` without a record.
    noted: Option<u64>,
    /// When that record was made, Unix seconds; 0 if by an earlier process.
    noted_at: u64,
    /// Whether that was written to the disk before it was answered.
    is_durable: bool,
    /// It has been finished, cancelled, or has expired.
    is_over: bool,
}

/// Who asks for a session, and where.
#[derive(Debug, Clone, Copy)]
pub struct Uploader<'a> {
    /// The repository.
    pub scope: &'a Scope,
    /// What the access check calls them; empty for nobody in particular.
    pub name: &'a str,
}

/// A session that belongs to the request that holds this.
pub(super) struct Held<'a> {
    pub(super) session: &'a Arc<Session>,
    pub(super) state: MutexGuard<'a, State>,
}

impl Uploads {
    /// Sessions open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Uploads since the start, by what became of them.
    pub fn results(&self) -> [(&'static str, u64); 5] {
        let Counts { completed, refused, cancelled, expired, mounted, .. } = &self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("completed", read(completed)),
            ("refused", read(refused)),
            ("cancelled", read(cancelled)),
            ("expired", read(expired)),
            ("mounted", read(mounted)),
        ]
    }

    /// Bytes of blobs received since the start.
    pub fn received_bytes(&self) -> u64 {
        self.counts.received_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn insert(&self, session: Session) {
        self.sessions.pin().insert(session.id, Arc::new(session));
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins a session.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub(super) fn begin(
        &self,
        by: Uploader<'_>,
        algorithm: Algorithm,
    ) -> Result<Arc<Session>, PushError> {
        let id = UploadId::random()
            .map_err(|error| PushError::Internal(format!("no random number: {error}")))?;
        if self.open() >= UPLOADS_PER_OWNER_MAX {
            let pin = self.sessions.pin();
            let owned = pin.values().filter(|session| *session.owner == *by.name).count();
            if owned >= UPLOADS_PER_OWNER_MAX || self.open() >= UPLOADS_MAX {
                return Err(PushError::TooMany(format!(
                    "you have {owned} uploads open, all have {}; finish or cancel some, they end \
                     by themselves after a day",
                    self.open()
                )));
            }
        }
        let now = clock::unix_seconds();
        let state = State::new(0, None, None);
        let session = Session { algorithm, ..Session::new(id, by, now, state) };
        self.insert(session);
        let found = self.sessions.pin().get(&id).cloned();
        found.ok_or_else(|| PushError::Internal("a session vanished".to_owned()))
    }

    /// The session of this id, if this client has it here.
    ///
    /// # Errors
    /// [`PushError::UploadUnknown`].
    pub(super) fn find(&self, by: Uploader<'_>, id: &str) -> Result<Arc<Session>, PushError> {
        let parsed = UploadId::parse(id);
        let found = parsed.and_then(|id| self.sessions.pin().get(&id).cloned());
        let is_theirs = |found: &Arc<Session>| *found.owner == *by.name && found.scope == *by.scope;
        // Cut short, for it is the client's text.
        let unknown = || PushError::UploadUnknown(id.chars().take(64).collect());
        found.filter(is_theirs).ok_or_else(unknown)
    }

    /// Ends a session; its file and its record are for the caller to remove.
    pub(super) fn end(&self, held: &mut Held<'_>) {
        if !std::mem::replace(&mut held.state.is_over, true) {
            self.sessions.pin().remove(&held.session.id);
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Removes the sessions that have been idle for too long, and what they hold. Blocks.
    pub(super) fn expire(&self, store: &Store, catalog: &Catalog) {
        let before = clock::unix_seconds().saturating_sub(IDLE_SECONDS);
        self.remove_idle(store, catalog, |session| session.idle_since() <= before);
    }

    /// Where there are too many for this client to begin another one: removes those of theirs that
    /// are idle for a while. Blocks.
    pub(super) fn make_room(&self, store: &Store, catalog: &Catalog, owner: &str) {
        let before = clock::unix_seconds().saturating_sub(IDLE_ENOUGH_SECONDS);
        let is_idle =
            |session: &Session| *session.owner == *owner && session.idle_since() <= before;
        self.remove_idle(store, catalog, is_idle);
    }

    fn remove_idle(&self, store: &Store, catalog: &Catalog, is_idle: impl Fn(&Session) -> bool) {
        let idle: Vec<Arc<Session>> =
            self.sessions.pin().values().filter(|session| is_idle(session)).cloned().collect();
        for session in idle {
            // Whoever holds it is being served.
            let Some(state) = session.state.try_lock() else { continue };
            let mut held = Held { session: &session, state };
            self.end(&mut held);
            self.counts.expired.fetch_add(1, Ordering::Relaxed);
            tracing::info!(id = %session.id, scope = %session.scope, "an idle upload was removed");
            catalog.write_soon(vec![Write::RemoveUpload(session.id)]);
            let Some(pool) = held.state.pool else { continue };
            let removed = store.pool(pool).and_then(|pool| pool.remove_upload(session.id.number()));
            if let Err(error) = removed {
                tracing::warn!(id = %session.id, %error,
                    "the file of an upload stays; the next start removes it");
            }
        }
    }
}

impl Session {
    pub(super) fn new(id: UploadId, by: Uploader<'_>, started_at: u64, state: State) -> Self {
        Self {
            id,
            scope: by.scope.clone(),
            owner: by.name.into(),
            algorithm: Algorithm::Sha256,
            started_at,
            last_active: AtomicU64::new(started_at),
            received: AtomicU64::new(state.size),
            confirmed: AtomicU64::new(state.noted.unwrap_or(0)),
            drops: AtomicU64::new(0),
            is_syncing: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    /// Waits for the request that is being served, if there is one, for a short while.
    ///
    /// # Errors
    /// It goes on, or has ended the session.
    pub(super) async fn hold(self: &Arc<Self>) -> Result<Held<'_>, PushError> {
        self.touch();
        let state = match self.state.try_lock() {
            Some(state) => state,
            None => timeout(TURN_TIMEOUT, self.state.lock())
                .await
                .map_err(|_| PushError::UploadBusy { id: self.id })?,
        };
        if state.is_over {
            return Err(PushError::UploadUnknown(self.id.to_string()));
        }
        Ok(Held { session: self, state })
    }

    /// Bytes received so far, by a request that may go on.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn touch(&self) {
        self.last_active.store(clock::unix_seconds(), Ordering::Relaxed);
    }

    fn idle_since(&self) -> u64 {
        self.last_active.load(Ordering::Relaxed)
    }
}

impl State {
    pub(super) fn new(size: u64, pool: Option<u8>, noted: Option<u64>) -> Self {
        Self {
            size,
            pool,
            digester: None,
            is_ragged: false,
            noted,
            noted_at: 0,
            is_durable: noted.is_some(),
            is_over: false,
        }
    }
}

impl Held<'_> {
    /// So many bytes have been received now.
    pub(super) fn set_size(&mut self, size: u64) {
        self.state.size = size;
        self.session.received.store(size, Ordering::Relaxed);
    }

    /// What has come behind the first `size` bytes does not count, and is not on the disk either.
    pub(super) fn drop_behind(&mut self, size: u64) {
        self.set_size(size);
        self.session.drops.fetch_add(1, Ordering::AcqRel);
        self.session.confirmed.fetch_min(size, Ordering::AcqRel);
    }

    /// The record of the session, if the catalog has not got it or there is news: more bytes that
    /// are on the disk for sure, or that its client is still there.
    pub(super) fn note(&mut self) -> Option<Write> {
        let confirmed = self.session.confirmed.load(Ordering::Acquire).min(self.state.size);
        let is_recent = self.session.idle_since() < self.state.noted_at + NOTED_SECONDS;
        if self.state.noted == Some(confirmed) && is_recent {
            return None;
        }
        Some(self.record(confirmed))
    }

    /// The same of a session that has much to lose, to be written durably; once.
    pub(super) fn note_durably(&mut self) -> Option<Write> {
        if self.state.size < DURABLE_BYTES || std::mem::replace(&mut self.state.is_durable, true) {
            return None;
        }
        let confirmed = self.session.confirmed.load(Ordering::Acquire).min(self.state.size);
        Some(self.record(confirmed))
    }

    fn record(&mut self, confirmed: u64) -> Write {
        self.state.noted = Some(confirmed);
        self.state.noted_at = self.session.idle_since();
        let Session { id, scope, owner, started_at, .. } = &**self.session;
        Write::PutUpload(UploadRecord {
            id: *id,
            scope: scope.clone(),
            owner: owner.to_string(),
            started_at: *started_at,
            last_active_at: self.session.idle_since(),
            confirmed,
            pool: self.state.pool.unwrap_or(ROOT_POOL),
        })
    }

    /// Whether the catalog has a record of it.
    pub(super) fn is_noted(&self) -> bool {
        self.state.noted.is_some()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::oci::RepositoryName;
    use crate::registry::upkeep::tests::Scratch;

    #[test]
    fn one_client_has_so_many_sessions_and_leaves_room_for_others() {
        let scratch = Scratch::new();
        let (store, catalog) = (&scratch.upkeep.store, &scratch.upkeep.catalog);
        let repository = RepositoryName::parse("team/app").unwrap();
        let scope = Scope { upstream: None, repository };
        let by = |name| Uploader { scope: &scope, name };
        let uploads = Uploads::default();
        let first = uploads.begin(by("alice"), Algorithm::Sha256).unwrap();
        for _ in 1..UPLOADS_PER_OWNER_MAX {
            uploads.begin(by("alice"), Algorithm::Sha256).unwrap();
        }
        let refused = uploads.begin(by("alice"), Algorithm::Sha256);
        assert!(matches!(refused, Err(PushError::TooMany(_))));
        uploads.begin(by("bob"), Algorithm::Sha256).unwrap();
        // Only what is idle makes room, and only for its own user.
        uploads.make_room(store, catalog, "alice");
        assert_eq!(uploads.open(), UPLOADS_PER_OWNER_MAX + 1);
        first.last_active.store(1, Ordering::Relaxed);
        uploads.make_room(store, catalog, "bob");
        assert!(uploads.begin(by("alice"), Algorithm::Sha256).is_err());
        uploads.make_room(store, catalog, "alice");
        uploads.begin(by("alice"), Algorithm::Sha256).unwrap();
        let id = first.id.to_string();
        assert!(matches!(uploads.find(by("alice"), &id), Err(PushError::UploadUnknown(_))));
        // All of them together have a limit, too.
        while uploads.open() < UPLOADS_MAX {
            let id = UploadId::random().unwrap();
            uploads.insert(Session::new(id, by("many"), 1, State::new(0, None, None)));
        }
        let refused = uploads.begin(by("carol"), Algorithm::Sha256);
        assert!(matches!(refused, Err(PushError::TooMany(_))));
    }

    #[test]
    fn a_session_that_goes_on_is_noted_again() {
        let repository = RepositoryName::parse("team/app").unwrap();
        let scope = Scope { upstream: None, repository };
        let uploads = Uploads::default();
        let by = Uploader { scope: &scope, name: "alice" };
        let session = uploads.begin(by, Algorithm::Sha256).unwrap();
        let noted = |idle_since| {
            let mut held = pollster::block_on(session.hold()).unwrap();
            session.last_active.store(idle_since, Ordering::Relaxed);
            let Some(Write::PutUpload(record)) = held.note() else { return None };
            Some(record.last_active_at)
        };
        let begun = 1_000_000;
        assert_eq!(noted(begun), Some(begun));
        assert_eq!(noted(begun + NOTED_SECONDS - 1), None, "nothing new");
        let later = begun + IDLE_SECONDS;
        assert_eq!(noted(later), Some(later), "or the next start takes it for idle since it began");
    }
}
