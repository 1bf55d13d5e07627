//! Memory that a worker keeps for its connections, so that those that wait hold none: buffers for
//! what comes in, and blocks for the state of requests under way. Both are taken when there is
//! something to do and given back after it; what is given back beyond the bounds is freed, and what
//! is asked for beyond what is kept comes from the allocator. The sums stand in `limits`.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use crate::limits::{HEAD_BUFFERS_MAX, HEAD_BYTES_FIRST, REQUEST_BLOCK_BYTES, REQUEST_BLOCKS_MAX};

thread_local! {
    static HEADS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer of [`HEAD_BYTES_FIRST`] bytes.
pub fn take_buffer() -> Vec<u8> {
    let kept = HEADS.with_borrow_mut(Vec::pop);
    kept.unwrap_or_else(|| Vec::with_capacity(HEAD_BYTES_FIRST))
}

/// Takes a buffer that is not needed any more. One of another size is freed.
pub fn give_buffer(mut buffer: Vec<u8>) {
    if buffer.capacity() != HEAD_BYTES_FIRST {
        return;
    }
    buffer.clear();
    HEADS.with_borrow_mut(|heads| {
        if heads.len() < HEAD_BUFFERS_MAX {
            heads.push(buffer);
        }
    });
}

/// Memory of [`BLOCK`], of nobody.
struct Block(NonNull<u8>);

/// On a line of its own, and aligned for whatever a future holds.
const BLOCK: Layout = match Layout::from_size_align(REQUEST_BLOCK_BYTES, 128) {
    Ok(layout) => layout,
    Err(_) => Layout::new::<u8>(),
};

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: a block is made by `alloc` with this layout only (see `Pooled::new`).
        unsafe { dealloc(self.0.as_ptr(), BLOCK) };
    }
}

/// A future in a block that the worker keeps: boxed without an allocation.
pub struct Pooled<F: Future> {
    future: NonNull<F>,
    // Owned, and it may borrow; `NonNull` keeps it on its thread.
    owns: PhantomData<F>,
}

impl<F: Future> Pooled<F> {
    /// The future that `make` makes, in a block. One that does not fit into a block does not compile:
    /// box what is rare in it, or raise `limits::REQUEST_BLOCK_BYTES`.
    pub fn new(make: impl FnOnce() -> F) -> Self {
        const {
            assert!(size_of::<F>() <= BLOCK.size() && align_of::<F>() <= BLOCK.align());
        }
        let block = BLOCKS.with_borrow_mut(Vec::pop).unwrap_or_else(|| {
            // SAFETY: the layout has a size.
            let memory = unsafe { alloc(BLOCK) };
            Block(NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(BLOCK)))
        });
        let future = block.0.cast::<F>();
        // SAFETY: the block is ours alone, and the assertion says that it is large and aligned enough.
        unsafe { future.write(make()) };
        std::mem::forget(block);
        Self { future, owns: PhantomData }
    }
}

// What it points to is pinned, whatever becomes of the pointer.
impl<F: Future> Unpin for Pooled<F> {}

impl<F: Future> Future for Pooled<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `future` was written by `new` and lives until `drop`; it never moves before that,
        // however `self` does.
        let future = unsafe { Pin::new_unchecked(self.get_mut().future.as_mut()) };
        future.poll(cx)
    }
}

impl<F: Future> Drop for Pooled<F> {
    fn drop(&mut self) {
        // From here on the block is freed or kept, even if the future panics when it ends.
        let block = Block(self.future.cast());
        // SAFETY: written by `new`, dropped only here, and not used afterwards.
        unsafe { self.future.drop_in_place() };
        // When the thread ends, its blocks may have gone before.
        let _ = BLOCKS.try_with(|blocks| {
            let mut blocks = blocks.borrow_mut();
            if blocks.len() < REQUEST_BLOCKS_MAX {
                blocks.push(block);
            }
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    /// Tells when it goes.
    struct Told(Rc<Cell<usize>>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    fn kept() -> usize {
        BLOCKS.with_borrow(Vec::len)
    }

    #[test]
    fn blocks_are_used_again_and_what_they_held_is_dropped_once() {
        let gone = Rc::new(Cell::new(0));
        let word = String::from("borrowed");
        for round in 0..3 {
            let told = Told(gone.clone());
            let mut future = Pooled::new(|| async {
                let _told = told;
                std::future::ready(word.len()).await
            });
            assert_eq!(kept(), 0, "in use");
            assert_eq!(pollster::block_on(&mut future), 8);
            drop(future);
            assert_eq!((kept(), gone.get()), (1, round + 1));
        }
        // Never polled, and given up half-way.
        let told = Told(gone.clone());
        drop(Pooled::new(|| async move { drop(told) }));
        let told = Told(gone.clone());
        let mut waits = Pooled::new(|| async move {
            let _told = told;
            std::future::pending::<()>().await;
        });
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut waits).poll(&mut context).is_pending());
        drop(waits);
        assert_eq!((kept(), gone.get()), (1, 5));
    }

    #[test]
    fn no_more_is_kept_than_the_sum() {
        let all: Vec<_> =
            (0..REQUEST_BLOCKS_MAX + 9).map(|n| Pooled::new(move || async move { n })).collect();
        let came: Vec<usize> = all.into_iter().map(pollster::block_on).collect();
        assert_eq!(came, (0..REQUEST_BLOCKS_MAX + 9).collect::<Vec<_>>());
        assert_eq!(kept(), REQUEST_BLOCKS_MAX);
    }

    #[test]
    fn a_future_that_panics_gives_its_block_back() {
        let future = Pooled::new(|| async { panic!("a bug") });
        let run = std::panic::AssertUnwindSafe(|| pollster::block_on(future));
        assert!(std::panic::catch_unwind(run).is_err());
        assert_eq!(kept(), 1);
    }

    #[test]
    fn buffers_of_the_usual_size_are_kept_up_to_the_sum() {
        let taken: Vec<_> = (0..HEAD_BUFFERS_MAX + 5).map(|_| take_buffer()).collect();
        for mut buffer in taken {
            buffer.extend_from_slice(b"what was read");
            give_buffer(buffer);
        }
        give_buffer(Vec::with_capacity(HEAD_BYTES_FIRST * 2));
        assert_eq!(HEADS.with_borrow(Vec::len), HEAD_BUFFERS_MAX);
        let again = take_buffer();
        assert_eq!((again.len(), again.capacity()), (0, HEAD_BYTES_FIRST));
    }
}
