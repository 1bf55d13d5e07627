//! Endpoints that were down a moment ago are asked last.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::set::Upstream;
use crate::oci::Namespace;
use crate::runtime::clock;

/// How long an endpoint that could not be reached is asked after the others. Without this every
/// blob of a pull would wait for the same dead endpoint's connect timeout again.
const LAST_FOR: Duration = Duration::from_secs(10);

/// One worker's memory of endpoints that were down: at most one entry an endpoint.
#[derive(Default)]
pub(super) struct Health {
    down_since: RefCell<HashMap<(Namespace, usize), Instant>>,
}

impl Health {
    /// The endpoints of `upstream` by index, in the order to ask them.
    pub(super) fn order(&self, upstream: &Upstream) -> Vec<usize> {
        let down = self.down_since.borrow();
        let now = clock::now();
        let is_down = |index: &usize| {
            let since = down.get(&(upstream.namespace.clone(), *index));
            since.is_some_and(|&since| now.saturating_duration_since(since) < LAST_FOR)
        };
        let mut order: Vec<usize> = (0..upstream.endpoints.len()).collect();
        if order.len() > 1 {
            order.sort_by_key(is_down);
        }
        order
    }

    /// Remembers how an endpoint was found.
    pub(super) fn note(&self, upstream: &Upstream, index: usize, is_down: bool) {
        let key = (upstream.namespace.clone(), index);
        let mut down = self.down_since.borrow_mut();
        if is_down {
            down.insert(key, clock::now());
        } else {
            down.remove(&key);
        }
    }
}
