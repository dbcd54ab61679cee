//! How other threads ask: a bounded queue, and an eventfd that wakes the main thread.
//!
//! Each request is answered exactly once: by the controller, or with [`Refusal::Ended`] when nobody is left to.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};

use vmm_sys_util::eventfd::EventFd;

use super::request::{Answer, Refusal, Request};
use crate::console::Tape;

/// Requests that wait at most.
const QUEUE_LEN: usize = 128;

/// What is called with the answer, in the thread that answers: it must neither block nor take long.
type Reply = Box<dyn FnOnce(Answer) + Send>;

/// A request on its way, with who waits for the answer.
pub(super) struct Envelope {
    request: Request,
    asker: Asker,
}

impl Envelope {
    /// The request, and who is to be answered.
    pub(super) fn open(self) -> (Request, Asker) {
        (self.request, self.asker)
    }

    /// Has `answer` answer the request.
    pub(super) fn answer(self, answer: impl FnOnce(Request) -> Answer) {
        let (request, asker) = self.open();
        asker.answer(answer(request));
    }
}

/// Who waits for an answer, which is [`Refusal::Ended`] if nobody gives another.
pub(super) struct Asker(Option<Reply>);

impl Asker {
    /// Gives the answer.
    pub(super) fn answer(mut self, answer: Answer) {
        if let Some(reply) = self.0.take() {
            reply(answer);
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply(Err(Refusal::Ended));
        }
    }
}

/// A handle on a VM for other threads.
#[derive(Clone)]
pub struct Remote {
    queue: SyncSender<Envelope>,
    wake: Arc<EventFd>,
    console: Arc<Tape>,
}

impl Remote {
    /// What the guest writes to its consoles. There is no need to ask the VM.
    pub fn console(&self) -> &Arc<Tape> {
        &self.console
    }

    /// Asks for `request`, and has `reply` called with the answer, once. Does not wait; `reply` may be called before
    /// this returns, in this thread, or later in the VM's main thread, where it must neither block nor take long.
    pub fn send(&self, request: Request, reply: impl FnOnce(Answer) + Send + 'static) {
        let envelope = Envelope { request, asker: Asker(Some(Box::new(reply))) };
        match self.queue.try_send(envelope) {
            // Fails only when the counter is full, and then the reader is awake.
            Ok(()) => drop(self.wake.write(1)),
            Err(TrySendError::Full(envelope)) => envelope.answer(|_| Err(Refusal::Busy)),
            Err(TrySendError::Disconnected(envelope)) => drop(envelope),
        }
    }

    /// Asks for `request` and waits for the answer. Not from the VM's main thread.
    ///
    /// # Errors
    /// Why the VM refuses.
    pub fn ask(&self, request: Request) -> Answer {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(request, move |answer| {
            // The receiver waits below.
            let _ = reply.send(answer);
        });
        answer.recv().unwrap_or(Err(Refusal::Ended))
    }
}

/// The other end of all [`Remote`]s of a VM.
pub(super) struct Inbox {
    queue: Receiver<Envelope>,
    wake: Arc<EventFd>,
}

impl Inbox {
    /// The next request that waits.
    pub(super) fn next(&self) -> Option<Envelope> {
        self.queue.try_recv().ok()
    }

    /// Readable when requests have come since it was read.
    pub(super) fn wake(&self) -> &Arc<EventFd> {
        &self.wake
    }
}

/// A queue and its two ends, of a VM that writes to `console`.
///
/// # Errors
/// What eventfd(2) said.
pub(super) fn pair(console: Arc<Tape>) -> io::Result<(Remote, Inbox)> {
    let wake = Arc::new(EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?);
    let (sender, receiver) = mpsc::sync_channel(QUEUE_LEN);
    Ok((Remote { queue: sender, wake: wake.clone(), console }, Inbox { queue: receiver, wake }))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::super::request::Response;
    use super::*;

    #[test]
    fn a_request_is_answered_where_it_was_asked() {
        let (remote, inbox) = pair(Arc::default()).unwrap();
        let asker = thread::spawn(move || remote.ask(Request::Pause));
        while inbox.wake().read().is_err() {
            thread::yield_now();
        }
        inbox.next().unwrap().answer(|request| {
            assert_eq!(request, Request::Pause);
            Ok(Response::Done)
        });
        assert_eq!(asker.join().unwrap().unwrap(), Response::Done);
        assert!(inbox.next().is_none());
    }

    #[test]
    fn what_waits_when_the_vm_ends_and_what_comes_after_is_answered_once() {
        let (remote, inbox) = pair(Arc::default()).unwrap();
        let answers = Arc::new(AtomicUsize::new(0));
        let count = || {
            let answers = answers.clone();
            move |answer: Answer| {
                assert!(matches!(answer, Err(Refusal::Ended)), "{answer:?}");
                answers.fetch_add(1, Ordering::SeqCst);
            }
        };
        for _ in 0..3 {
            remote.send(Request::GetInstance, count());
        }
        drop(inbox.next());
        assert_eq!(answers.load(Ordering::SeqCst), 1);
        drop(inbox);
        assert_eq!(answers.load(Ordering::SeqCst), 3);
        remote.send(Request::GetInstance, count());
        assert_eq!(answers.load(Ordering::SeqCst), 4);
        assert!(matches!(remote.ask(Request::Pause), Err(Refusal::Ended)));
    }

    #[test]
    fn the_queue_is_bounded() {
        let (remote, inbox) = pair(Arc::default()).unwrap();
        let busy = Arc::new(AtomicUsize::new(0));
        for _ in 0..QUEUE_LEN + 5 {
            let busy = busy.clone();
            remote.send(Request::GetInstance, move |answer| {
                busy.fetch_add(usize::from(matches!(answer, Err(Refusal::Busy))), Ordering::SeqCst);
            });
        }
        assert_eq!(busy.load(Ordering::SeqCst), 5);
        drop(inbox);
        assert_eq!(busy.load(Ordering::SeqCst), 5);
    }
}
