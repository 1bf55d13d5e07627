//! Taking contents away: names first, then files.

use super::{RoomMaker, Victim};
use crate::catalog::{CatalogError, Write};
use crate::runtime::clock;

impl RoomMaker {
    /// The names go first, so that no new pull finds the content; whoever reads it goes on reading,
    /// and for so long its bytes are not free. Returns how many have gone; the others are as they
    /// were.
    pub(super) fn evict(&mut self, mut victims: Vec<Victim>) -> usize {
        let store = self.store.clone();
        let mut turns = store.turns();
        // What is just being committed anew is no victim any more.
        victims.retain(|victim| turns.try_take(&victim.record.digest));
        if victims.is_empty() {
            return 0;
        }
        for victim in &victims {
            self.space.leaves(&victim.claim());
        }
        let Some(forgotten) = self.forget(&victims) else {
            victims.iter().for_each(|victim| self.space.stays(&victim.claim()));
            return 0;
        };
        let count = forgotten.len();
        let mut kept: Vec<Victim> = Vec::new();
        for victim in forgotten {
            // One failure of a disk is enough to know.
            if kept.iter().any(|other| other.record.pool == victim.record.pool)
                || !self.remove(&victim)
            {
                kept.push(victim);
            }
        }
        self.put_back(&kept);
        count - kept.len()
    }

    /// Takes the names away; returns those that lost theirs by that, `None` when nobody takes any
    /// away any more.
    fn forget(&self, victims: &[Victim]) -> Option<Vec<Victim>> {
        let writes = victims.iter().map(|victim| Write::RemoveBlob(victim.record.at())).collect();
        let effects = match self.catalog.write_told_blocking(writes, false) {
            Ok(effects) => effects.iter().map(|effect| effect.is_applied).collect(),
            Err(CatalogError::Closed) => return None,
            Err(error) => {
                // What the index has forgotten is gone all the same; a catalog that still names a
                // file that is gone is set right when somebody asks for it.
                tracing::warn!(%error, victims = victims.len(), "evicted, but still in the catalog");
                let is_gone =
                    |victim: &Victim| self.index.blob(&victim.record.digest).hit().is_none();
                victims.iter().map(is_gone).collect::<Vec<bool>>()
            }
        };
        let mut forgotten = Vec::with_capacity(victims.len());
        for (victim, is_forgotten) in victims.iter().zip(effects) {
            if is_forgotten {
                forgotten.push(victim.clone());
            } else {
                // It has become hosted, or has moved.
                self.space.stays(&victim.claim());
            }
        }
        Some(forgotten)
    }

    /// Removes the file of what has no name any more; whether it could.
    fn remove(&mut self, victim: &Victim) -> bool {
        let (digest, claim) = (&victim.record.digest, victim.claim());
        let reader = self.leases.detach(digest);
        if let Err(error) = self.store.remove_blob(claim.pool, digest) {
            tracing::error!(%digest, %error, pool = claim.pool,
                "content cannot be removed: its pool is left alone for a while; check its disk");
            self.space.cannot_remove(claim.pool);
            return false;
        }
        match reader {
            Some(reader) => self.leaving.push((reader, claim)),
            None => self.space.has_left(&claim),
        }
        self.evicted_at.get_or_insert_with(clock::now);
        self.space.count_eviction(claim.bytes);
        tracing::debug!(%digest, ?claim, hits = victim.hits, "evicted");
        true
    }

    /// What is there has a name, and is counted by that.
    fn put_back(&self, victims: &[Victim]) {
        if victims.is_empty() {
            return;
        }
        // That it was synced is not known any more.
        let put =
            |victim: &Victim| Write::PutBlob { record: victim.record.clone(), is_synced: false };
        if let Err(error) = self.catalog.write_blocking(victims.iter().map(put).collect(), false) {
            tracing::warn!(%error, "content that stays has its name only until the process ends");
        }
        victims.iter().for_each(|victim| self.space.stays(&victim.claim()));
    }
}
