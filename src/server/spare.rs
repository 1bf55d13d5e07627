//! Memory that one worker uses again for request after request, so that a small hit allocates none.

use std::cell::RefCell;

use crate::http::{HeadError, RequestHead};
use crate::limits::{PENDING_BYTES_MAX, SPARE_HEAD_BYTES_MAX, SPARE_HEADS_MAX};

/// What is not in use.
#[derive(Default)]
pub(super) struct Spare {
    // Boxed: they go from connection to connection as they are, and a connection that waits for a
    // request has no room for one.
    #[allow(clippy::vec_box)]
    heads: RefCell<Vec<Box<RequestHead>>>,
    buffer: RefCell<Vec<u8>>,
}

impl Spare {
    /// Reads a head, if it is whole; with it, its length. [`Spare::keep_head`] takes it back.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn read_head(
        &self,
        bytes: &[u8],
    ) -> Result<Option<(Box<RequestHead>, usize)>, HeadError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let spare = self.heads.borrow_mut().pop();
        let mut head = spare.unwrap_or_else(|| Box::new(RequestHead::none()));
        let read = head.read(bytes);
        match read {
            Ok(Some(length)) => Ok(Some((head, length))),
            Ok(None) => {
                self.keep_head(head);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a head back, unless there are enough or it is large.
    pub(super) fn keep_head(&self, head: Box<RequestHead>) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < SPARE_HEADS_MAX && head.allocated() <= SPARE_HEAD_BYTES_MAX {
            heads.push(head);
        }
    }

    /// An empty buffer for answers.
    pub(super) fn take_buffer(&self) -> Vec<u8> {
        self.buffer.take()
    }

    /// Takes a buffer back, unless it is large.
    pub(super) fn keep_buffer(&self, mut buffer: Vec<u8>) {
        // What is pending may be one answer longer than its limit.
        if buffer.capacity() <= 2 * PENDING_BYTES_MAX {
            buffer.clear();
            self.buffer.replace(buffer);
        }
    }
}
