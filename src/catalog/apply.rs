//! What a write does to the tables.

use redb::{ReadableTable, Table, WriteTransaction};

use super::conditions::{Condition, Judging, TAGGED, rebind};
use super::hosted::{
    REFERRERS, ReferrerKey, ReferrerRecord, ReferrerValue, TOMBSTONES, TombstoneRecord, UPLOADS,
    UploadRecord, UploadValue,
};
use super::lists::{LIST_AGES, LISTS, LISTS_WEIGHT, ListAge, ListValue};
use super::record::{BLOBS, BlobValue, LINKS, SUSPECTS, ScopedKey, TAGS, TagRecord, UNSYNCED};
use super::usage::Accounts;
use super::{BlobRecord, CatalogError, Effect, LinkRecord, Moment, Write, failed};
use crate::oci::Digest;
use crate::runtime::clock;

/// Writes that are applied all together or not at all.
pub(super) struct Batch<'a> {
    pub(super) writes: &'a [Write],
    /// Refused if a name that it puts was deleted after this.
    pub(super) since: Option<Moment>,
    /// Refused unless all of them hold.
    pub(super) conditions: &'a [Condition],
}

/// The tables of one transaction.
pub(super) struct Tables<'t> {
    commit: u64,
    blobs: Table<'t, &'static str, BlobValue>,
    unsynced: Table<'t, &'static str, u64>,
    suspects: Table<'t, &'static str, ()>,
    tags: Table<'t, ScopedKey, (&'static str, u64)>,
    tagged: Table<'t, ReferrerKey, ()>,
    links: Table<'t, ScopedKey, (&'static str, u64)>,
    accounts: Accounts<'t>,
    referrers: Table<'t, ReferrerKey, ReferrerValue>,
    uploads: Table<'t, &'static str, UploadValue>,
    tombstones: Table<'t, ScopedKey, (u64, u64)>,
    pub(super) lists: Table<'t, ScopedKey, ListValue>,
    pub(super) list_ages: Table<'t, ListAge, u64>,
    pub(super) lists_weight: Table<'t, (), u64>,
}

impl<'t> Tables<'t> {
    /// Opens them, and creates those that are missing, for the commit of this number.
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        commit: u64,
    ) -> Result<Self, CatalogError> {
        Ok(Self {
            commit,
            blobs: transaction.open_table(BLOBS).map_err(failed)?,
            unsynced: transaction.open_table(UNSYNCED).map_err(failed)?,
            suspects: transaction.open_table(SUSPECTS).map_err(failed)?,
            tags: transaction.open_table(TAGS).map_err(failed)?,
            tagged: transaction.open_table(TAGGED).map_err(failed)?,
            links: transaction.open_table(LINKS).map_err(failed)?,
            accounts: Accounts::open(transaction)?,
            referrers: transaction.open_table(REFERRERS).map_err(failed)?,
            uploads: transaction.open_table(UPLOADS).map_err(failed)?,
            tombstones: transaction.open_table(TOMBSTONES).map_err(failed)?,
            lists: transaction.open_table(LISTS).map_err(failed)?,
            list_ages: transaction.open_table(LIST_AGES).map_err(failed)?,
            lists_weight: transaction.open_table(LISTS_WEIGHT).map_err(failed)?,
        })
    }

    /// Applies a batch and tells what became of each write, or why it was refused: nothing of it
    /// has been applied then.
    pub(super) fn apply(
        &mut self,
        batch: &Batch<'_>,
    ) -> Result<Result<Vec<Effect>, CatalogError>, CatalogError> {
        if let Some(since) = batch.since
            && let Some(key) = self.deleted_since(batch.writes, since)?
        {
            return Ok(Err(CatalogError::Deleted { key }));
        }
        let Self { blobs, tags, tagged, accounts, .. } = &*self;
        let judging = Judging { blobs, tags, tagged, accounts, writes: batch.writes };
        if let Some(unmet) = judging.first_unmet(batch.conditions)? {
            return Ok(Err(CatalogError::Unmet(unmet)));
        }
        let effects: Result<_, _> =
            batch.writes.iter().map(|write| self.effect_of(write)).collect();
        Ok(Ok(effects?))
    }

    /// Applies a write of content if the record that it meets is one it is meant for, any other one
    /// in any case.
    fn effect_of(&mut self, write: &Write) -> Result<Effect, CatalogError> {
        let digest = match write {
            Write::PutBlob { record, .. } => record.digest,
            Write::RemoveBlob(at) | Write::HandToCache(at) => at.digest,
            other => {
                self.write(other)?;
                return Ok(Effect { is_applied: true, before: None });
            }
        };
        let key = digest.to_string();
        let found = self.blobs.get(key.as_str()).map_err(failed)?.map(|value| value.value());
        let before = found.map(|value| BlobRecord::read(&key, value)).transpose()?;
        let is_applied = match (write, &before) {
            (Write::PutBlob { record, .. }, Some(before)) => record.is_hosted || !before.is_hosted,
            (Write::RemoveBlob(at) | Write::HandToCache(at), Some(before)) => before.at() == *at,
            (Write::RemoveBlob(_) | Write::HandToCache(_), None) => false,
            _ => true,
        };
        match (write, &before) {
            _ if !is_applied => {}
            (Write::HandToCache(_), Some(before)) => {
                let cached = BlobRecord { is_hosted: false, ..before.clone() };
                self.put_blob(&cached, true)?;
            }
            _ => self.write(write)?,
        }
        Ok(Effect { is_applied, before })
    }

    fn write(&mut self, write: &Write) -> Result<(), CatalogError> {
        match write {
            Write::PutBlob { record, is_synced } => self.put_blob(record, *is_synced),
            Write::RemoveBlob(at) => {
                self.blobs.remove(at.digest.to_string().as_str()).map_err(failed)?;
                self.not_doubtful(&at.digest)
            }
            // It needs the record that it changes.
            Write::HandToCache(_) => Ok(()),
            Write::Synced { digest, until } => self.synced(digest, *until),
            Write::PutTag(record) => {
                let digest = record.digest.to_string();
                let value = (digest.as_str(), record.checked_at);
                let before = self.tags.insert(tag_key(record), value).map_err(failed)?;
                let before = before.map(|value| value.value().0.to_owned());
                let now = Some(digest.as_str());
                rebind(&mut self.tagged, tag_key(record), before.as_deref(), now)?;
                if before.is_none() {
                    self.accounts.tagged(tag_key(record))?;
                }
                self.alive(tag_key(record))
            }
            Write::RemoveTag(record) => {
                let before = self.tags.remove(tag_key(record)).map_err(failed)?;
                let Some(before) = before.map(|value| value.value().0.to_owned()) else {
                    return Ok(());
                };
                rebind(&mut self.tagged, tag_key(record), Some(&before), None)?;
                self.accounts.untagged(tag_key(record))?;
                self.deleted(tag_key(record))
            }
            Write::PutLink(record) => {
                let digest = record.digest.to_string();
                let key = link_key(record, &digest);
                let media_type = record.media_type.as_deref().unwrap_or("");
                self.links.insert(key, (media_type, record.linked_at)).map_err(failed)?;
                self.accounts.linked(key, &self.blobs)?;
                self.alive(key)
            }
            Write::TouchLink(record) => self.touch_link(record),
            Write::RemoveLink(record) => {
                let digest = record.digest.to_string();
                let key = link_key(record, &digest);
                let was_there = self.links.remove(key).map_err(failed)?.is_some();
                self.accounts.unlinked(key)?;
                if was_there { self.deleted(key) } else { Ok(()) }
            }
            Write::PutReferrer(record) => self.put_referrer(record),
            Write::RemoveReferrer(record) => {
                let (subject, referrer) = (record.subject.to_string(), record.referrer.to_string());
                let key = referrer_key(record, &subject, &referrer);
                self.referrers.remove(key).map_err(failed)?;
                Ok(())
            }
            Write::PutUpload(record) => self.put_upload(record),
            Write::RemoveUpload(id) => {
                self.uploads.remove(id.to_string().as_str()).map_err(failed)?;
                Ok(())
            }
            Write::RemoveTombstone(record) => self.remove_tombstone(record),
            Write::PutList(record) => self.put_list(record),
            Write::RemoveList { scope, name, checked_at } => {
                self.remove_list(scope, name, *checked_at)
            }
        }
    }

    fn put_blob(&mut self, record: &BlobRecord, is_synced: bool) -> Result<(), CatalogError> {
        let digest = record.digest.to_string();
        self.blobs.insert(digest.as_str(), record.value()).map_err(failed)?;
        // Just verified, whatever was there before.
        self.suspects.remove(digest.as_str()).map_err(failed)?;
        if is_synced {
            self.unsynced.remove(digest.as_str()).map_err(failed)?;
        } else {
            self.unsynced.insert(digest.as_str(), self.commit).map_err(failed)?;
        }
        Ok(())
    }

    fn not_doubtful(&mut self, digest: &Digest) -> Result<(), CatalogError> {
        let digest = digest.to_string();
        self.suspects.remove(digest.as_str()).map_err(failed)?;
        self.unsynced.remove(digest.as_str()).map_err(failed)?;
        Ok(())
    }

    /// What was put later may not have been there when the disk was synced.
    fn synced(&mut self, digest: &Digest, Moment(until): Moment) -> Result<(), CatalogError> {
        let key = digest.to_string();
        let noted = self.unsynced.get(key.as_str()).map_err(failed)?.map(|value| value.value());
        if noted.is_none_or(|commit| commit <= until) { self.not_doubtful(digest) } else { Ok(()) }
    }

    fn touch_link(&mut self, record: &LinkRecord) -> Result<(), CatalogError> {
        let digest = record.digest.to_string();
        let key = link_key(record, &digest);
        let found = self.links.get(key).map_err(failed)?;
        let Some(media_type) = found.map(|value| value.value().0.to_owned()) else {
            return Ok(());
        };
        self.links.insert(key, (media_type.as_str(), record.linked_at)).map_err(failed)?;
        self.accounts.linked(key, &self.blobs)
    }

    fn put_referrer(&mut self, record: &ReferrerRecord) -> Result<(), CatalogError> {
        let (subject, referrer) = (record.subject.to_string(), record.referrer.to_string());
        let artifact_type = record.artifact_type.as_deref().unwrap_or("");
        let value = (artifact_type, record.size, record.media_type.as_str(), &*record.annotations);
        let key = referrer_key(record, &subject, &referrer);
        self.referrers.insert(key, value).map_err(failed)?;
        Ok(())
    }

    fn put_upload(&mut self, record: &UploadRecord) -> Result<(), CatalogError> {
        let UploadRecord { id, scope, owner, started_at, last_active_at, confirmed, pool } = record;
        let value = (
            scope.upstream_str(),
            scope.repository.as_str(),
            owner.as_str(),
            *started_at,
            *last_active_at,
            *confirmed,
            *pool,
        );
        self.uploads.insert(id.to_string().as_str(), value).map_err(failed)?;
        Ok(())
    }

    /// Only hosted names leave a tombstone: an upstream's are its own to bring back.
    fn deleted(&mut self, key: (&str, &str, &str)) -> Result<(), CatalogError> {
        if key.0.is_empty() {
            let value = (clock::unix_seconds(), self.commit);
            self.tombstones.insert(key, value).map_err(failed)?;
        }
        Ok(())
    }

    fn alive(&mut self, key: (&str, &str, &str)) -> Result<(), CatalogError> {
        if key.0.is_empty() {
            self.tombstones.remove(key).map_err(failed)?;
        }
        Ok(())
    }

    /// Unless the name has been deleted once more since the record was read.
    fn remove_tombstone(&mut self, record: &TombstoneRecord) -> Result<(), CatalogError> {
        let name = record.name.to_string();
        let scope = &record.scope;
        let key = (scope.upstream_str(), scope.repository.as_str(), name.as_str());
        let found = self.tombstones.get(key).map_err(failed)?.map(|value| value.value());
        if found.is_some_and(|(_, commit)| commit == record.commit) {
            self.tombstones.remove(key).map_err(failed)?;
        }
        Ok(())
    }

    /// The first hosted name that `writes` would put and that was deleted after `since`.
    fn deleted_since(
        &self,
        writes: &[Write],
        Moment(since): Moment,
    ) -> Result<Option<String>, CatalogError> {
        for write in writes {
            let (scope, name) = match write {
                Write::PutTag(record) => (&record.scope, record.tag.to_string()),
                Write::PutLink(record) | Write::TouchLink(record) => {
                    (&record.scope, record.digest.to_string())
                }
                _ => continue,
            };
            let key = (scope.upstream_str(), scope.repository.as_str(), name.as_str());
            let found = self.tombstones.get(key).map_err(failed)?.map(|value| value.value());
            if found.is_some_and(|(_, commit)| commit > since) {
                return Ok(Some(format!("{name} of {scope}")));
            }
        }
        Ok(None)
    }
}

fn tag_key(record: &TagRecord) -> (&str, &str, &str) {
    (record.scope.upstream_str(), record.scope.repository.as_str(), record.tag.as_str())
}

fn link_key<'a>(record: &'a LinkRecord, digest: &'a str) -> (&'a str, &'a str, &'a str) {
    (record.scope.upstream_str(), record.scope.repository.as_str(), digest)
}

fn referrer_key<'a>(
    record: &'a ReferrerRecord,
    subject: &'a str,
    referrer: &'a str,
) -> (&'a str, &'a str, &'a str, &'a str) {
    (record.scope.upstream_str(), record.scope.repository.as_str(), subject, referrer)
}
