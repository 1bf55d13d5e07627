//! SIEVE (Zhang et al., NSDI 2024): one queue in the order of arrival, one bit an object, and a
//! hand that walks from the oldest to the newest, clears bits and takes the first without one.

use super::lru::{List, NONE};
use super::{Policy, Request};

#[derive(Debug)]
pub(super) struct Sieve {
    list: List,
    is_visited: Vec<bool>,
    hand: u32,
}

impl Sieve {
    pub(super) fn new(objects: usize) -> Self {
        Self { list: List::new(objects), is_visited: vec![false; objects], hand: NONE }
    }
}

impl Policy for Sieve {
    fn hit(&mut self, request: Request) {
        self.is_visited[request.object as usize] = true;
    }

    fn insert(&mut self, request: Request) {
        self.is_visited[request.object as usize] = false;
        self.list.push(request.object);
    }

    fn evict(&mut self, _minute: u32) -> Option<u32> {
        let mut at = if self.hand == NONE { self.list.oldest } else { self.hand };
        if at == NONE {
            return None;
        }
        while std::mem::take(&mut self.is_visited[at as usize]) {
            at = match self.list.newer(at) {
                NONE => self.list.oldest,
                newer => newer,
            };
        }
        self.hand = self.list.newer(at);
        self.list.remove(at);
        Some(at)
    }
}
