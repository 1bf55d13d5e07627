//! S3-FIFO (Yang et al., SOSP 2023): a small queue for newcomers (10 % of the bytes), a main queue,
//! and a ghost queue that remembers what the small one dropped (as many bytes as main has). Two
//! bits an object count hits.

use std::collections::VecDeque;

use super::{Policy, Request};

const HITS_MAX: u8 = 3;

#[derive(Debug, Default)]
struct Queue {
    objects: VecDeque<u32>,
    bytes: u64,
}

impl Queue {
    fn push(&mut self, object: u32, size: u64) {
        self.objects.push_back(object);
        self.bytes += size;
    }

    fn pop(&mut self, sizes: &[u64]) -> Option<u32> {
        let object = self.objects.pop_front()?;
        self.bytes -= sizes[object as usize];
        Some(object)
    }
}

#[derive(Debug)]
pub(super) struct S3Fifo {
    sizes: Vec<u64>,
    hits: Vec<u8>,
    /// How often the object stands in the ghost queue; it can again, after it came back and went.
    ghosts: Vec<u8>,
    small: Queue,
    main: Queue,
    ghost: Queue,
    small_bytes_max: u64,
    ghost_bytes_max: u64,
}

impl S3Fifo {
    pub(super) fn new(objects: usize, capacity: u64) -> Self {
        Self {
            sizes: vec![0; objects],
            hits: vec![0; objects],
            ghosts: vec![0; objects],
            small: Queue::default(),
            main: Queue::default(),
            ghost: Queue::default(),
            small_bytes_max: capacity / 10,
            ghost_bytes_max: capacity / 10 * 9,
        }
    }

    /// Takes one from the small queue, unless all that are over its share deserve the main one.
    fn evict_small(&mut self) -> Option<u32> {
        while let Some(object) = self.small.pop(&self.sizes) {
            let size = self.sizes[object as usize];
            if self.hits[object as usize] > 1 {
                self.hits[object as usize] = 0;
                self.main.push(object, size);
                if self.small.bytes <= self.small_bytes_max && !self.main.objects.is_empty() {
                    return None;
                }
            } else {
                self.remember(object, size);
                return Some(object);
            }
        }
        None
    }

    fn remember(&mut self, object: u32, size: u64) {
        self.ghost.push(object, size);
        self.ghosts[object as usize] += 1;
        while self.ghost.bytes > self.ghost_bytes_max {
            let Some(forgotten) = self.ghost.pop(&self.sizes) else { break };
            self.ghosts[forgotten as usize] -= 1;
        }
    }

    fn evict_main(&mut self) -> Option<u32> {
        while let Some(object) = self.main.pop(&self.sizes) {
            match &mut self.hits[object as usize] {
                0 => return Some(object),
                hits => *hits -= 1,
            }
            self.main.push(object, self.sizes[object as usize]);
        }
        None
    }
}

impl Policy for S3Fifo {
    fn hit(&mut self, request: Request) {
        let hits = &mut self.hits[request.object as usize];
        *hits = (*hits + 1).min(HITS_MAX);
    }

    fn insert(&mut self, request: Request) {
        let object = request.object as usize;
        self.sizes[object] = request.size;
        self.hits[object] = 0;
        match self.ghosts[object] {
            0 => self.small.push(request.object, request.size),
            _ => self.main.push(request.object, request.size),
        }
    }

    fn evict(&mut self, _minute: u32) -> Option<u32> {
        let small_first = self.small.bytes > self.small_bytes_max || self.main.objects.is_empty();
        let victim = if small_first { self.evict_small() } else { None };
        victim.or_else(|| self.evict_main()).or_else(|| self.evict_small())
    }
}
