//! Content that comes in pieces of any size, cut into those that the page cache likes.
//!
//! The kernel keeps what is written in units (folios) no larger than the piece and its place in the
//! file allow, and every hit pays for small ones. So bytes are gathered until [`PIECE_BYTES`] that
//! begin at a multiple of it are there.

use std::cell::RefCell;
use std::io;

use bytes::Bytes;

use crate::limits::{FRAME_BYTES_MAX, SPARE_PIECES_MAX};
use crate::runtime::File;

/// What is written at once, at a multiple of it.
const PIECE_BYTES: usize = FRAME_BYTES_MAX;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes on their way to the end of a file.
pub struct Pieces {
    /// Bytes that were taken, with those that the file had before.
    size: u64,
    /// The last of them, which nobody was given to write yet.
    gathered: Vec<u8>,
}

/// What is to be written now.
pub enum Piece {
    /// What came, as it came.
    Shared(Bytes),
    /// What was gathered. [`Pieces::give_back`] takes the memory when it has been written.
    Gathered(Vec<u8>),
}

impl Piece {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Gathered(bytes) => bytes,
        }
    }

    /// Writes it at `at`, and returns it.
    ///
    /// # Errors
    /// As pwrite(2).
    pub(super) async fn write(self, file: &File, at: u64) -> (io::Result<()>, Self) {
        match self {
            Self::Shared(bytes) => {
                (file.write_all_at(bytes.clone(), at).await, Self::Shared(bytes))
            }
            Self::Gathered(bytes) => {
                let (written, bytes) = file.write_buffer_at(bytes, at).await;
                (written, Self::Gathered(bytes))
            }
        }
    }
}

impl Pieces {
    /// Of a file that has so many bytes.
    pub fn behind(size: u64) -> Self {
        Self { size, gathered: Vec::new() }
    }

    /// Bytes of the file when all that was taken is written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the file when all that was given out is written.
    pub fn written(&self) -> u64 {
        self.size - self.gathered.len() as u64
    }

    /// Takes of `bytes`; returns what is to be written at [`Pieces::written`] of before. To be called
    /// until it returns `None`: then `bytes` is empty. If the content `ends` with them, nothing is
    /// gathered that need not be.
    pub fn take(&mut self, bytes: &mut Bytes, ends: bool) -> Option<Piece> {
        let before = bytes.len();
        let piece = self.cut(bytes, ends);
        self.size += (before - bytes.len()) as u64;
        piece
    }

    fn cut(&mut self, bytes: &mut Bytes, ends: bool) -> Option<Piece> {
        if bytes.is_empty() {
            return None;
        }
        let behind = usize::try_from(self.size % PIECE_BYTES as u64).unwrap_or(0);
        if self.gathered.is_empty() && (behind == 0 || ends) {
            let whole = if ends { bytes.len() } else { bytes.len() / PIECE_BYTES * PIECE_BYTES };
            if whole > 0 {
                return Some(Piece::Shared(bytes.split_to(whole)));
            }
        }
        let piece = bytes.split_to(bytes.len().min(PIECE_BYTES - behind));
        if self.gathered.capacity() == 0 {
            self.gathered = spare();
        }
        self.gathered.extend_from_slice(&piece);
        if behind + piece.len() == PIECE_BYTES { self.rest() } else { None }
    }

    /// What is gathered, to be written at [`Pieces::written`] of before.
    pub fn rest(&mut self) -> Option<Piece> {
        (!self.gathered.is_empty()).then(|| Piece::Gathered(std::mem::take(&mut self.gathered)))
    }

    /// Takes the memory of what was written back.
    pub fn give_back(&mut self, piece: Piece) {
        let Piece::Gathered(mut piece) = piece else { return };
        piece.clear();
        if self.gathered.capacity() == 0 && piece.capacity() == PIECE_BYTES {
            self.gathered = piece;
        }
    }
}

fn spare() -> Vec<u8> {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| Vec::with_capacity(PIECE_BYTES))
}

impl Drop for Pieces {
    fn drop(&mut self) {
        let mut piece = std::mem::take(&mut self.gathered);
        if piece.capacity() != PIECE_BYTES {
            return;
        }
        piece.clear();
        // When the thread ends nobody needs it.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_PIECES_MAX {
                spare.push(piece);
            }
        });
    }
}
