//! One connection of the guest: requests in, answers out, one after the other.

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};

use super::{Mmds, http};
use crate::rate_limiter::timer::Nanos;

/// Bytes that a request's head may have.
const MAX_REQUEST: usize = 8192;
/// How long the guest may take for a request, or leave an answer unread.
pub(super) const PATIENCE: Nanos = 30_000_000_000;
/// Requests that are answered in one go; there may be more after the next frame, or the timer.
const MAX_ANSWERS: usize = 4;

/// What has come of a look at a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing to do before something comes from the guest.
    Idle,
    /// There is something to send.
    Busy,
    /// It is over.
    Ended,
}

/// A connection.
pub(super) struct Connection {
    pub(super) handle: SocketHandle,
    /// When it has taken too long.
    pub(super) deadline: Nanos,
    /// What has come of a request.
    request: Vec<u8>,
    /// Bytes of a body that are still to come, and to be thrown away.
    skip: usize,
    answer: Vec<u8>,
    sent: usize,
    /// It ends with this answer.
    closing: bool,
}

impl Connection {
    /// One that began at `now`.
    pub(super) fn new(handle: SocketHandle, now: Nanos) -> Self {
        Self {
            handle,
            deadline: now + PATIENCE,
            request: Vec::new(),
            skip: 0,
            answer: Vec::new(),
            sent: 0,
            closing: false,
        }
    }

    /// Reads, answers and writes as far as that goes.
    pub(super) fn serve(&mut self, socket: &mut Socket<'_>, mmds: &Mmds, now: Nanos) -> Outcome {
        if matches!(socket.state(), State::Closed | State::TimeWait | State::Listen) {
            return Outcome::Ended;
        }
        let mut outcome = Outcome::Idle;
        for _ in 0..MAX_ANSWERS {
            if self.write(socket, now) {
                outcome = Outcome::Busy;
            }
            if self.sent < self.answer.len() {
                break;
            }
            if self.closing {
                // What comes after the last request is of no interest.
                let _ = socket.recv(|data| (data.len(), ()));
                break;
            }
            self.read(socket);
            let full = self.request.len() >= MAX_REQUEST;
            let answer = if self.request.is_empty() { None } else { http::answer(mmds, &self.request, full) };
            let Some(answer) = answer else {
                // The guest has nothing more to ask.
                if matches!(socket.state(), State::CloseWait) && socket.recv_queue() == 0 {
                    self.close(socket);
                    outcome = Outcome::Busy;
                }
                break;
            };
            let read = answer.consumed.min(self.request.len());
            self.request.drain(..read);
            self.skip = answer.consumed - read;
            self.closing = !answer.keep_alive;
            self.answer = answer.bytes;
            self.sent = 0;
            outcome = Outcome::Busy;
        }
        outcome
    }

    /// Sends what there is to send. Whether that was anything.
    fn write(&mut self, socket: &mut Socket<'_>, now: Nanos) -> bool {
        let rest = self.answer.get(self.sent..).unwrap_or_default();
        if rest.is_empty() {
            return false;
        }
        let Ok(count) = socket.send_slice(rest) else {
            // Nobody is there any more.
            self.close(socket);
            return true;
        };
        self.sent += count;
        if count > 0 {
            self.deadline = now + PATIENCE;
        }
        if self.sent == self.answer.len() {
            self.answer = Vec::new();
            self.sent = 0;
            if self.closing {
                socket.close();
            }
        }
        count > 0
    }

    fn read(&mut self, socket: &mut Socket<'_>) {
        // A ring in memory is read in two parts.
        for _ in 0..2 {
            let room = MAX_REQUEST.saturating_sub(self.request.len());
            let _ = socket.recv(|data| {
                let skipped = self.skip.min(data.len());
                self.skip -= skipped;
                let data = data.get(skipped..).unwrap_or_default();
                let data = data.get(..room).unwrap_or(data);
                self.request.extend_from_slice(data);
                (skipped + data.len(), ())
            });
        }
    }

    fn close(&mut self, socket: &mut Socket<'_>) {
        self.answer = Vec::new();
        self.sent = 0;
        self.closing = true;
        socket.close();
    }
}
