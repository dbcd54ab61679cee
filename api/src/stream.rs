//! Answers that do not end by themselves: what happens is sent to whoever listens, for as long as both are there.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, Receiver, Sender};
use vmm::console::{Follower, Piece};

/// Pieces that wait for a slow listener. One that is further behind is let go, and has to come again.
const MAX_BEHIND: usize = 256;

/// Those who listen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listeners(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    listeners: Mutex<Vec<Sender<Bytes>>>,
    /// Nothing happens any more.
    ended: AtomicBool,
}

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, Vec<Sender<Bytes>>> {
        // Whoever panicked left a list that is as good as before.
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, to whom `first` is said first.
    pub(crate) fn add(&self, first: Bytes) -> Follow {
        let (sender, receiver) = mpsc::channel(MAX_BEHIND);
        // There is room in an empty channel.
        let _ = sender.try_send(first);
        let mut listeners = self.lock();
        // Nothing need happen for those to go who have gone.
        listeners.retain(|listener| !listener.is_closed());
        listeners.push(sender);
        drop(listeners);
        Follow { pieces: receiver, of: self.0.clone() }
    }

    /// Sends `piece` to all of them. Does not wait.
    pub(crate) fn send(&self, piece: &Bytes) {
        self.lock().retain(|listener| listener.try_send(piece.clone()).is_ok());
    }

    /// Lets all of them go, once they have what was sent.
    pub(crate) fn close(&self) {
        self.0.ended.store(true, Ordering::SeqCst);
        self.lock().clear();
    }
}

/// What one listener gets.
#[derive(Debug)]
pub(crate) struct Follow {
    pieces: Receiver<Bytes>,
    of: Arc<Shared>,
}

/// A place among those who follow, for as long as this is there.
pub(crate) type Place = OwnedSemaphorePermit;

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Payload {
    /// It is all there.
    Whole(Option<Bytes>),
    /// It goes on; an error when the client was too slow for that.
    Follow { follow: Follow, _place: Place },
    /// It goes on with what the guest writes; an error when the client was too slow for that.
    Console { follower: Follower, _place: Place },
}

impl Payload {
    /// Whether it goes on for as long as the VM is there.
    pub(crate) fn goes_on(&self) -> bool {
        !matches!(self, Self::Whole(_))
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Follow { follow: Follow { pieces, of }, .. } => {
                pieces.poll_recv(context).map(|piece| match piece {
                    Some(piece) => Some(Ok(Frame::data(piece))),
                    None if of.ended.load(Ordering::SeqCst) => None,
                    None => Some(Err(io::Error::other("the client is too slow for the events"))),
                })
            }
            Self::Console { follower, .. } => follower.poll(context).map(|piece| match piece {
                Piece::Bytes(bytes) => Some(Ok(Frame::data(Bytes::from(bytes)))),
                Piece::Overtaken => Some(Err(io::Error::other("the client is too slow for the console"))),
                Piece::End => None,
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Follow { .. } | Self::Console { .. } => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_have_gone_take_no_room_though_nothing_happens() {
        let listeners = Listeners::default();
        for _ in 0..1000 {
            drop(listeners.add(Bytes::new()));
        }
        assert!(listeners.lock().len() <= 1);
    }

    #[test]
    fn a_listener_that_is_too_far_behind_is_let_go_and_the_others_stay() {
        let listeners = Listeners::default();
        let mut slow = listeners.add(Bytes::from_static(b"first"));
        for number in 0..MAX_BEHIND {
            listeners.send(&Bytes::from(number.to_string()));
        }
        let mut other = listeners.add(Bytes::from_static(b"hello"));
        listeners.send(&Bytes::from_static(b"last"));
        let mut heard = 0;
        while let Ok(piece) = slow.pieces.try_recv() {
            assert_ne!(piece, "last");
            heard += 1;
        }
        assert_eq!(heard, MAX_BEHIND);
        assert!(matches!(slow.pieces.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
        assert_eq!(other.pieces.try_recv().unwrap(), "hello");
        assert_eq!(other.pieces.try_recv().unwrap(), "last");
    }
}
