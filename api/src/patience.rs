//! A connection whose client has to read its answers: one that does not, for as long as we have patience, is an error.
//!
//! A client that has said all it has to say, and has closed its half, is still answered.

use std::future::{Future, pending};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Sleep, sleep};

/// A stream whose writes wait no longer than a given time.
pub(crate) struct PatientStream {
    stream: UnixStream,
    patience: Duration,
    /// When the write that waits has waited too long.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Whether an answer is due, of which nothing is written yet.
    due: Arc<AtomicBool>,
}

impl PatientStream {
    pub(crate) fn new(stream: UnixStream, patience: Duration) -> Self {
        Self { stream, patience, deadline: None, due: Arc::default() }
    }

    /// To be set when an answer is due.
    pub(crate) fn due(&self) -> Arc<AtomicBool> {
        self.due.clone()
    }
}

/// Tells when the client has gone, without reading from it.
pub(crate) struct OtherEnd(Option<OwnedFd>);

impl OtherEnd {
    /// The other end of `stream`.
    pub(crate) fn of(stream: &UnixStream) -> Self {
        // Where the host has no descriptor for it, it is seen when something is written.
        Self(stream.as_fd().try_clone_to_owned().ok())
    }

    /// Waits until it has gone altogether; a client that only has nothing more to say is still there.
    pub(crate) async fn gone(self) {
        let stream = self.0.map(StdStream::from).and_then(|stream| UnixStream::from_std(stream).ok());
        let Some(stream) = stream else { return pending().await };
        while let Ok(ready) = stream.ready(Interest::WRITABLE).await {
            if ready.is_write_closed() {
                return;
            }
            // That there is room to write is no news, and is not to be told again.
            let _ =
                stream.try_io(Interest::WRITABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into()));
        }
        pending::<()>().await;
    }
}

impl AsyncRead for PatientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let ended = buffer.filled().len() == before && buffer.remaining() > 0;
        // Nothing can be written, not even nothing, to one who is gone altogether.
        if ended && self.due.load(Ordering::Relaxed) && self.stream.try_write(&[]).is_ok() {
            // hyper would take it for such a one. It looks again when it has written the answer.
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PatientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(context, bytes) {
            self.deadline = None;
            self.due.store(false, Ordering::Relaxed);
            return Poll::Ready(written);
        }
        let patience = self.patience;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
