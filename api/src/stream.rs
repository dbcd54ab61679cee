//! Answers that do not end by themselves: what happens is sent to whoever listens, for as long as both are there.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::mpsc::{self, Receiver, Sender};
use vmm::console::{Follower, Piece};

/// Pieces that wait for a slow listener. One that is further behind is let go, and has to come again.
const MAX_BEHIND: usize = 256;

/// Those who listen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listeners(Arc<Mutex<Vec<Sender<Bytes>>>>);

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, Vec<Sender<Bytes>>> {
        // Whoever panicked left a list that is as good as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, to whom `first` is said first.
    pub(crate) fn add(&self, first: Bytes) -> Follow {
        let (sender, receiver) = mpsc::channel(MAX_BEHIND);
        // There is room in an empty channel.
        let _ = sender.try_send(first);
        self.lock().push(sender);
        Follow(receiver)
    }

    /// Sends `piece` to all of them. Does not wait.
    pub(crate) fn send(&self, piece: &Bytes) {
        self.lock().retain(|listener| listener.try_send(piece.clone()).is_ok());
    }

    /// Lets all of them go, once they have what was sent.
    pub(crate) fn close(&self) {
        self.lock().clear();
    }
}

/// What one listener gets.
#[derive(Debug)]
pub(crate) struct Follow(Receiver<Bytes>);

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Payload {
    /// It is all there.
    Whole(Option<Bytes>),
    /// It goes on.
    Follow(Follow),
    /// It goes on with what the guest writes; an error when the client was too slow for that.
    Console(Follower),
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
            Self::Follow(Follow(pieces)) => {
                pieces.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
            }
            Self::Console(follower) => follower.poll(context).map(|piece| match piece {
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
            Self::Follow(_) | Self::Console(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        while let Ok(piece) = slow.0.try_recv() {
            assert_ne!(piece, "last");
            heard += 1;
        }
        assert_eq!(heard, MAX_BEHIND);
        assert!(matches!(slow.0.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
        assert_eq!(other.0.try_recv().unwrap(), "hello");
        assert_eq!(other.0.try_recv().unwrap(), "last");
    }
}
