//! Least recently used, exactly; and the list that it shares with SIEVE.

use super::{Policy, Request};

/// No object.
pub(super) const NONE: u32 = u32::MAX;

/// A doubly linked list over object numbers.
#[derive(Debug)]
pub(super) struct List {
    /// (towards the newest, towards the oldest)
    links: Vec<(u32, u32)>,
    newest: u32,
    pub(super) oldest: u32,
}

impl List {
    pub(super) fn new(objects: usize) -> Self {
        Self { links: vec![(NONE, NONE); objects], newest: NONE, oldest: NONE }
    }

    /// The next object towards the newest, or `NONE`.
    pub(super) fn newer(&self, object: u32) -> u32 {
        self.links[object as usize].0
    }

    pub(super) fn push(&mut self, object: u32) {
        self.links[object as usize] = (NONE, self.newest);
        match self.newest {
            NONE => self.oldest = object,
            newest => self.links[newest as usize].0 = object,
        }
        self.newest = object;
    }

    pub(super) fn remove(&mut self, object: u32) {
        let (newer, older) = self.links[object as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.links[newer as usize].1 = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.links[older as usize].0 = newer,
        }
    }
}

#[derive(Debug)]
pub(super) struct Lru {
    list: List,
}

impl Lru {
    pub(super) fn new(objects: usize) -> Self {
        Self { list: List::new(objects) }
    }
}

impl Policy for Lru {
    fn hit(&mut self, request: Request) {
        self.list.remove(request.object);
        self.list.push(request.object);
    }

    fn insert(&mut self, request: Request) {
        self.list.push(request.object);
    }

    fn evict(&mut self, _minute: u32) -> Option<u32> {
        let victim = self.list.oldest;
        (victim != NONE).then(|| {
            self.list.remove(victim);
            victim
        })
    }
}
