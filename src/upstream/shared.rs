//! What the clients of all workers have in common.

use std::sync::Arc;

use super::dns::{Dns, LookUp, system_look_up};
use super::governor::Governor;
use super::health::Health;
use super::issued::IssuedStore;
use super::observer::Observer;
use super::token::TokenStore;
use crate::runtime::Workers;

/// What goes on when the upstreams are set up anew.
#[derive(Clone, Default)]
pub struct Lasting {
    /// What is left of their rate limits.
    pub governor: Arc<Governor>,
    /// How their endpoints were found.
    pub health: Arc<Health>,
}

/// Resolved names, tokens, the observer, and what lasts. One for the process; a new set of upstreams
/// (a reload) gets a new one, so that refusals of old credentials are forgotten.
pub struct Shared {
    pub(super) dns: Arc<Dns>,
    pub(super) tokens: TokenStore,
    pub(super) issued: IssuedStore,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) governor: Arc<Governor>,
    pub(super) health: Arc<Health>,
}

impl Shared {
    /// Empty caches over `workers`, beside what lasts.
    pub fn new(workers: &Workers, observer: Arc<dyn Observer>, lasting: Lasting) -> Self {
        let Lasting { governor, health } = lasting;
        let fresh = Self::with_look_up(workers, observer, Box::new(system_look_up));
        Self { governor, health, ..fresh }
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
            issued: IssuedStore::new(workers),
            observer,
            governor: Arc::default(),
            health: Arc::default(),
        }
    }
}
