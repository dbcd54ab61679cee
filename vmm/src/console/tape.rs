//! The last of what the guest wrote to its consoles, for those who ask, and for those who follow.
//!
//! Whoever writes never waits for a reader: it holds the lock for as long as a copy of at most [`CAPACITY`] bytes takes,
//! and wakes those who wait. Each reader has a place of its own on the tape; one that is overtaken is let go.
//!
//! # Locks
//! The tape's lock is the last that is taken, and nothing is called with it held.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Bytes that are kept.
pub(super) const CAPACITY: usize = 64 << 10;

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    /// Bytes that were ever written.
    written: u64,
    /// Nothing more will be written.
    closed: bool,
    /// Followers that wait, by their number.
    waiting: Vec<(u64, Waker)>,
    /// Followers that there ever were.
    followers: u64,
}

impl State {
    /// What was written since `position`; nothing when some of that is gone.
    fn since(&self, position: u64) -> Option<Vec<u8>> {
        let behind = usize::try_from(self.written.checked_sub(position)?).ok()?;
        let skipped = self.bytes.len().checked_sub(behind)?;
        Some(self.bytes.range(skipped..).copied().collect())
    }
}

/// What the guest wrote to its consoles.
#[derive(Debug, Default)]
pub struct Tape(Mutex<State>);

impl Tape {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left bytes that are as good as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes down what was written.
    pub fn record(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.written = state.written.saturating_add(bytes.len() as u64);
        let kept = bytes.get(bytes.len().saturating_sub(CAPACITY)..).unwrap_or_default();
        let surplus = (state.bytes.len() + kept.len()).saturating_sub(CAPACITY);
        state.bytes.drain(..surplus);
        state.bytes.extend(kept);
        Self::wake(state);
    }

    /// Nothing more will be written. Followers get the rest, and their end.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        Self::wake(state);
    }

    fn wake(mut state: MutexGuard<'_, State>) {
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    /// The last 64 KiB.
    pub fn content(&self) -> Vec<u8> {
        self.lock().bytes.iter().copied().collect()
    }

    /// One who gets the last 64 KiB and what is written from now on.
    pub fn follow(self: &Arc<Self>) -> Follower {
        let mut state = self.lock();
        state.followers += 1;
        let number = state.followers;
        drop(state);
        Follower { tape: self.clone(), number, position: None }
    }
}

/// A reader with its place on the tape.
#[derive(Debug)]
pub struct Follower {
    tape: Arc<Tape>,
    number: u64,
    /// `None` before the first poll, which starts with the oldest byte: no follower is too slow before it is asked.
    position: Option<u64>,
}

/// What there is next for a follower.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing any more: it was too slow, and bytes have gone that it had not read.
    Overtaken,
    /// Nothing any more: the VM has ended.
    End,
}

impl Follower {
    /// What comes next; the task of `context` is woken when there is something.
    pub fn poll(&mut self, context: &Context<'_>) -> Poll<Piece> {
        let mut state = self.tape.lock();
        let position = self.position.unwrap_or(state.written - state.bytes.len() as u64);
        match state.since(position) {
            None => Poll::Ready(Piece::Overtaken),
            Some(bytes) if !bytes.is_empty() => {
                self.position = Some(state.written);
                Poll::Ready(Piece::Bytes(bytes))
            }
            Some(_) if state.closed => Poll::Ready(Piece::End),
            Some(_) => {
                state.waiting.retain(|(number, _)| *number != self.number);
                state.waiting.push((self.number, context.waker().clone()));
                self.position = Some(position);
                Poll::Pending
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // A follower that leaves takes along what would wake it: clients come and go while the guest is silent.
        self.tape.lock().waiting.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn poll(follower: &mut Follower) -> Poll<Piece> {
        follower.poll(&Context::from_waker(Waker::noop()))
    }

    fn bytes(text: &str) -> Poll<Piece> {
        Poll::Ready(Piece::Bytes(text.as_bytes().to_vec()))
    }

    #[test]
    fn the_last_bytes_are_kept_however_they_are_written() {
        let tape = Tape::default();
        assert_eq!(tape.content(), b"");
        tape.record(b"old");
        tape.record(&vec![b'a'; CAPACITY - 1]);
        assert_eq!((tape.content().len(), tape.content().first()), (CAPACITY, Some(&b'd')));
        tape.record(&[vec![b'b'; CAPACITY], b"end".to_vec()].concat());
        assert_eq!((tape.content().len(), tape.content().ends_with(b"bend")), (CAPACITY, true));
        assert!(tape.lock().bytes.capacity() <= 2 * CAPACITY);
    }

    #[test]
    fn a_follower_gets_what_was_what_comes_and_the_end() {
        let tape = Arc::new(Tape::default());
        tape.record(b"before");
        let mut follower = tape.follow();
        assert_eq!(poll(&mut follower), bytes("before"));
        assert_eq!(poll(&mut follower), Poll::Pending);
        tape.record(b"one ");
        tape.record(b"two");
        tape.close();
        assert_eq!(poll(&mut follower), bytes("one two"));
        assert_eq!(poll(&mut follower), Poll::Ready(Piece::End));
    }

    #[test]
    fn a_follower_is_woken_once_for_what_comes_while_it_waits() {
        let tape = Arc::new(Tape::default());
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut follower = tape.follow();
        for _ in 0..3 {
            assert_eq!(follower.poll(&Context::from_waker(&waker)), Poll::Pending);
        }
        assert_eq!(tape.lock().waiting.len(), 1);
        tape.record(b"a");
        tape.record(b"b");
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_follower_that_is_overtaken_is_let_go_and_the_writer_never_waits() {
        let tape = Arc::new(Tape::default());
        let mut follower = tape.follow();
        tape.record(&vec![b'x'; CAPACITY]);
        tape.record(b"y");
        let Poll::Ready(Piece::Bytes(first)) = poll(&mut follower) else { panic!() };
        assert!(first.len() == CAPACITY && first.ends_with(b"xy"), "the first poll is never too late");
        tape.record(&vec![b'x'; CAPACITY]);
        tape.record(b"y");
        assert_eq!(poll(&mut follower), Poll::Ready(Piece::Overtaken));
    }

    #[test]
    fn followers_that_leave_leave_nothing_behind() {
        let tape = Arc::new(Tape::default());
        for _ in 0..100 {
            assert_eq!(poll(&mut tape.follow()), Poll::Pending);
        }
        assert!(tape.lock().waiting.is_empty());
    }
}
