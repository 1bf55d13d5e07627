//! What the clients of all workers have in common.

use std::sync::Arc;

use super::dns::{Dns, LookUp, system_look_up};
use super::governor::Governor;
use super::observer::Observer;
use super::token::TokenStore;
use crate::runtime::Workers;

/// Resolved names, tokens, the observer and the budgets. One for the process; a new set of upstreams
/// (a reload) gets a new one, so that refusals of old credentials are forgotten; the budgets go on.
pub struct Shared {
    pub(super) dns: Arc<Dns>,
    pub(super) tokens: TokenStore,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) governor: Arc<Governor>,
}

impl Shared {
    /// Empty caches over `workers`.
    pub fn new(workers: &Workers, observer: Arc<dyn Observer>, governor: Arc<Governor>) -> Self {
        Self { governor, ..Self::with_look_up(workers, observer, Box::new(system_look_up)) }
    }

    /// As [`new`](Self::new), with names resolved by `look_up` (on the blocking pool).
    pub(super) fn with_look_up(
        workers: &Workers,
        observer: Arc<dyn Observer>,
        look_up: Box<LookUp>,
    ) -> Self {
        Self {
            dns: Arc::new(Dns::new(workers, look_up)),
            tokens: TokenStore::new(workers),
            observer,
            governor: Arc::default(),
        }
    }
}
