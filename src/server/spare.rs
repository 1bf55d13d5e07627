//! Memory that one worker uses again for request after request, so that a small hit allocates none.

use std::cell::RefCell;

use crate::http::{HeadError, RequestHead};
use crate::limits::{
    ANSWER_BUFFER_BYTES_MAX, ANSWER_BUFFERS_MAX, PENDING_BYTES_MAX, SPARE_HEAD_BYTES_MAX,
    SPARE_HEADS_MAX,
};

/// What is not in use.
#[derive(Default)]
pub(super) struct Spare {
    // Boxed: they go from connection to connection as they are, and a connection that waits for a
    // request has no room for one.
    #[allow(clippy::vec_box)]
    heads: RefCell<Vec<Box<RequestHead>>>,
    /// Of the usual size.
    buffers: RefCell<Vec<Vec<u8>>>,
    /// What pipelined requests need.
    large: RefCell<Vec<u8>>,
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
        let large = self.large.take();
        if large.capacity() > 0 {
            return large;
        }
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a buffer back, unless it is large.
    pub(super) fn keep_buffer(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut buffers = self.buffers.borrow_mut();
        match buffer.capacity() {
            0 => {}
            ..=ANSWER_BUFFER_BYTES_MAX if buffers.len() < ANSWER_BUFFERS_MAX => {
                buffers.push(buffer)
            }
            // What is pending may be one answer longer than its limit.
            larger if larger <= 2 * PENDING_BYTES_MAX => drop(self.large.replace(buffer)),
            _ => {}
        }
    }
}
