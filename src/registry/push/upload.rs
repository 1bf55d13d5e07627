//! What the requests of an upload session do.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::PushError;
use super::limits::{refuse_if_full, within};
use super::place::{expect_catalog, place};
use super::receive::{Receiver, disk_error, lot};
use super::sessions::{Held, Session, Uploader};
use crate::catalog::{NO_OWNER, UploadId, Write};
use crate::oci::{Algorithm, Digest, Digester};
use crate::registry::space::Claim;
use crate::registry::state::{Registry, Shared};
use crate::runtime::blocking;
use crate::storage::Growing;
use crate::transfer::Inlet;

/// How far an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadStatus {
    /// Which.
    pub id: UploadId,
    /// Bytes received so far.
    pub received: u64,
}

/// The bytes that a request says it sends: the first and the last one.
pub type SentRange = (u64, u64);

impl Registry {
    /// Begins an upload. Its content is hashed by this algorithm as it comes; the digest may be of
    /// another one, which costs reading it again.
    ///
    /// # Errors
    /// [`PushError::TooMany`], or [`PushError::Denied`]: the repository is full.
    pub async fn begin_upload(
        &self,
        by: Uploader<'_>,
        algorithm: Algorithm,
    ) -> Result<UploadStatus, PushError> {
        let shared = self.shared();
        refuse_if_full(shared, by.scope).await?;
        let session = begin(shared, by, algorithm).await?;
        let mut held = session.hold().await?;
        // Not waited for: see `sessions`.
        shared.catalog.write_soon(held.note().into_iter().collect());
        Ok(UploadStatus { id: session.id, received: 0 })
    }

    /// How far an upload is. While a request for it is being served, that is what has come of it
    /// so far.
    ///
    /// # Errors
    /// [`PushError::UploadUnknown`].
    pub async fn upload_status(
        &self,
        by: Uploader<'_>,
        id: &str,
    ) -> Result<UploadStatus, PushError> {
        let session = self.shared().uploads.find(by, id)?;
        let received = match session.hold().await {
            Ok(held) => held.state.size,
            Err(PushError::UploadBusy { .. }) => session.received(),
            Err(error) => return Err(error),
        };
        Ok(UploadStatus { id: session.id, received })
    }

    /// Appends a body to an upload.
    ///
    /// # Errors
    /// [`PushError`]; what was received before a failure counts, except of a body that is not as
    /// long as its `range` says.
    pub async fn append_upload(
        &self,
        by: Uploader<'_>,
        id: &str,
        range: Option<SentRange>,
        body: &mut Inlet<'_>,
    ) -> Result<UploadStatus, PushError> {
        let shared = self.shared();
        let session = shared.uploads.find(by, id)?;
        let mut held = session.hold().await?;
        let algorithm = session.algorithm;
        let appended = append(shared, &mut held, range, body, algorithm).await;
        if let Some(write) = held.note_durably() {
            // Should that fail, less survives a kill; nobody was promised more.
            if let Err(error) = shared.catalog.write(vec![write], true).await {
                tracing::warn!(%id, %error, "an upload may be lost with this process");
            }
        } else {
            shared.catalog.write_soon(held.note().into_iter().collect());
        }
        appended?;
        Ok(UploadStatus { id: session.id, received: held.state.size })
    }

    /// Appends the last body, which may be empty, verifies all of it and stores it durably in the
    /// repository. Wrong content ends the upload: no further byte makes it right.
    ///
    /// # Errors
    /// [`PushError`]; the upload goes on only if its body did not come, or not in order.
    pub async fn finish_upload(
        &self,
        by: Uploader<'_>,
        id: &str,
        range: Option<SentRange>,
        digest: &Digest,
        body: &mut Inlet<'_>,
    ) -> Result<(), PushError> {
        let session = self.shared().uploads.find(by, id)?;
        self.finish(session.hold().await?, range, digest, body).await
    }

    /// Stores a blob that one request brings.
    ///
    /// # Errors
    /// [`PushError`]; nothing of it is kept then.
    pub async fn push_blob(
        &self,
        by: Uploader<'_>,
        digest: &Digest,
        body: &mut Inlet<'_>,
    ) -> Result<(), PushError> {
        let shared = self.shared();
        refuse_if_full(shared, by.scope).await?;
        let session = begin(shared, by, digest.algorithm()).await?;
        let pushed = self.finish(session.hold().await?, None, digest, body).await;
        if pushed.is_err()
            && let Ok(mut held) = session.hold().await
        {
            // Nobody knows its id.
            shared.give_up(&mut held).await;
        }
        pushed
    }

    /// Ends an upload and forgets its bytes.
    ///
    /// # Errors
    /// [`PushError::UploadUnknown`], or another request for it goes on.
    pub async fn cancel_upload(&self, by: Uploader<'_>, id: &str) -> Result<(), PushError> {
        let shared = self.shared();
        let session = shared.uploads.find(by, id)?;
        let mut held = session.hold().await?;
        shared.uploads.counts.cancelled.fetch_add(1, Ordering::Relaxed);
        shared.give_up(&mut held).await;
        Ok(())
    }

    async fn finish(
        &self,
        mut held: Held<'_>,
        range: Option<SentRange>,
        digest: &Digest,
        body: &mut Inlet<'_>,
    ) -> Result<(), PushError> {
        let shared = self.shared();
        let file = append(shared, &mut held, range, body, digest.algorithm()).await?;
        let (file, digester) = hashed(shared, &mut held, file, digest.algorithm()).await?;
        let found = digester.clone().finish();
        let size = held.state.size;
        if found != *digest {
            shared.uploads.counts.refused.fetch_add(1, Ordering::Relaxed);
            shared.give_up(&mut held).await;
            return Err(PushError::Digest(format!(
                "the {size} bytes received hash to {found}, expected {digest}; the upload is over, \
                 nothing was kept"
            )));
        }
        // While there is something to go on with.
        expect_catalog(shared)?;
        // Before anybody has to wait for this push to end.
        file.sync_data().await.map_err(|error| disk_error(shared, &held, &error))?;
        // From here on there is nothing to go on with: the file leaves the session.
        let (id, scope) = (held.session.id, held.session.scope.clone());
        let was_noted = held.is_noted();
        shared.uploads.end(&mut held);
        drop(held);
        let staged = file.into_staged(*digest, digester, size);
        let _pushing = shared.gate.pushing().await;
        let committed = async {
            let placed = place(shared, digest, staged).await?;
            // Not from when the request began: what a gc or somebody else has deleted since is
            // pushed anew by this, and nobody deletes it before it has its name.
            let since = shared.catalog.moment();
            let mut writes = vec![placed.link(&scope, None).await?];
            writes.extend(was_noted.then_some(Write::RemoveUpload(id)));
            let rule = shared.rules.of(&scope.repository);
            let conditions = within(&rule, &scope).into_iter().collect();
            placed.name((since, conditions), writes).await
        };
        let committed = committed.await;
        let counts = &shared.uploads.counts;
        let count = if committed.is_ok() { &counts.completed } else { &counts.refused };
        count.fetch_add(1, Ordering::Relaxed);
        if committed.is_err() && was_noted {
            shared.catalog.write_soon(vec![Write::RemoveUpload(id)]);
        }
        committed
    }
}

impl Shared {
    /// Removes the uploads that have been idle for too long. Blocks.
    pub fn expire_uploads(&self) {
        self.uploads.expire(&self.store, &self.catalog);
    }

    /// Ends a session, with its file and its record.
    async fn give_up(&self, held: &mut Held<'_>) {
        self.uploads.end(held);
        if held.is_noted() {
            self.catalog.write_soon(vec![Write::RemoveUpload(held.session.id)]);
        }
        if let Some(pool) = held.state.pool {
            self.remove_upload_file(pool, held.session.id.number()).await;
        }
    }

    pub(super) async fn remove_upload_file(&self, pool: u8, number: u128) {
        let store = self.store.clone();
        let removed = blocking(move || store.pool(pool)?.remove_upload(number)).await;
        if let Err(error) = removed.unwrap_or_else(|error| Err(error.into())) {
            tracing::warn!(%error, "the file of an upload stays; the next start removes it");
        }
    }

    /// A pool for a file without a byte.
    fn pool_for_nothing(&self, number: u128) -> Result<u8, PushError> {
        let claim = Claim { pool: 0, owner: NO_OWNER, is_hosted: true, bytes: 0 };
        let chosen = self.space.choose_pool(&claim, &lot(number), None, &[]);
        chosen.ok_or_else(|| PushError::Storage("no pool takes content".to_owned()))
    }
}

/// Begins a session; where there are too many of this client's, idle ones make room.
async fn begin(
    shared: &Arc<Shared>,
    by: Uploader<'_>,
    algorithm: Algorithm,
) -> Result<Arc<Session>, PushError> {
    match shared.uploads.begin(by, algorithm) {
        Err(PushError::TooMany(_)) => {
            let (all, owner) = (shared.clone(), by.name.to_owned());
            let freed = move || all.uploads.make_room(&all.store, &all.catalog, &owner);
            blocking(freed).await?;
            shared.uploads.begin(by, algorithm)
        }
        begun => begun,
    }
}

/// Appends a body where `range` says; gives back the file if it was opened for that.
async fn append(
    shared: &Shared,
    held: &mut Held<'_>,
    range: Option<SentRange>,
    body: &mut Inlet<'_>,
    algorithm: Algorithm,
) -> Result<Option<Growing>, PushError> {
    let before = held.state.size;
    let max = match range {
        None => u64::MAX,
        Some((first, last)) => {
            if first != before {
                let (id, found) = (held.session.id, first);
                return Err(PushError::OutOfOrder { id, received: before, found });
            }
            let Some(length) = last.checked_sub(first).map(|it| it.saturating_add(1)) else {
                let message = format!("Content-Range {first}-{last} ends before it begins");
                return Err(PushError::UploadInvalid(message));
            };
            if let Some(found) = body.length().filter(|found| *found != length) {
                return Err(PushError::Size(format!(
                    "Content-Range {first}-{last} tells {length} bytes, Content-Length {found}"
                )));
            }
            length
        }
    };
    let digester = held.state.digester.clone();
    let mut receiver = Receiver::new(shared, held);
    let appended = receiver.append(body, max, algorithm).await;
    let file = receiver.into_file();
    let received = held.state.size - before;
    let wrong = match &appended {
        Err(PushError::Size(_)) => true,
        Ok(()) => range.is_some() && received != max,
        // `0-0` would tell of it, and of nothing too: who goes on at 0 must be able to.
        Err(_) => held.state.size == 1,
    };
    if wrong {
        // As if it had not come.
        held.drop_behind(before);
        held.state.digester = digester;
        held.state.is_ragged = true;
        appended?;
        return Err(PushError::Size(format!(
            "the body has {received} bytes, Content-Range tells {max}"
        )));
    }
    appended.map(|()| file)
}

/// The file of a session, and the hash of all of it.
async fn hashed(
    shared: &Shared,
    held: &mut Held<'_>,
    file: Option<Growing>,
    algorithm: Algorithm,
) -> Result<(Growing, Digester), PushError> {
    let (size, number) = (held.state.size, held.session.id.number());
    let failed = |held: &Held<'_>, error: std::io::Error| disk_error(shared, held, &error);
    let file = match file {
        Some(file) => file,
        None => {
            let pool = match held.state.pool {
                Some(pool) => pool,
                None => shared.pool_for_nothing(number)?,
            };
            held.state.pool = Some(pool);
            let opened = Growing::open(&shared.store, pool, number).await;
            opened.map_err(|error| failed(held, error))?
        }
    };
    if held.state.is_ragged {
        file.cut(size).await.map_err(|error| failed(held, error))?;
        held.state.is_ragged = false;
    }
    let known = held
        .state
        .digester
        .take()
        .filter(|(digester, hashed)| *hashed == size && digester.algorithm() == algorithm);
    let digester = match known {
        Some((digester, _)) => digester,
        None if size == 0 => Digester::new(algorithm),
        None => file.hash(algorithm, size).await.map_err(|error| failed(held, error))?,
    };
    held.state.digester = Some((digester.clone(), size));
    Ok((file, digester))
}
