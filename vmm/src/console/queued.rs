//! Output that nobody has to wait for: a thread of its own writes it.
//!
//! The event loop must not write to a terminal or pipe by itself, for that blocks when nobody reads. Asking beforehand
//! does not help, as others can write to the same pipe in between, and O_NONBLOCK is a property that all who have the
//! pipe share. So bytes go to a buffer of a fixed size, and a thread, started when there is something to write, may block
//! as long as it likes. It outlives the VM that it wrote for, and ends with the process.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use devices::virtio::console::Sink;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::Output;
use crate::thread::{self, ThreadKind};

/// Bytes that wait for the thread. It has as many again in its hands.
const CAPACITY: usize = 64 << 10;

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    /// The thread has bytes that are not written yet.
    writing: bool,
    started: bool,
    /// Somebody waits for room.
    room_wanted: bool,
    room_notifier: Option<EventFd>,
    /// Somebody waits until all is written.
    written_notifier: Option<EventFd>,
}

/// What the thread and those that it writes for share.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked left bytes and flags behind, which are as good as before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes, for ever.
    fn write_to(&self, mut output: Output) {
        let mut chunk = Vec::with_capacity(CAPACITY);
        loop {
            let mut state = self.lock();
            state.writing = false;
            while state.bytes.is_empty() {
                if let Some(notifier) = state.written_notifier.take() {
                    let _ = notifier.write(1);
                }
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut state.bytes, &mut chunk);
            state.writing = true;
            if std::mem::take(&mut state.room_wanted)
                && let Some(notifier) = &state.room_notifier
            {
                let _ = notifier.write(1);
            }
            drop(state);
            if let Err(error) = output.write_all(&chunk) {
                log::debug!("console: output is lost: {error}");
            }
            chunk.clear();
        }
    }

    /// Waits until all is written, or until `interruption` is readable.
    pub(super) fn wait_written(&self, interruption: RawFd) -> io::Result<()> {
        let written = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let mut state = self.lock();
        if state.bytes.is_empty() && !state.writing {
            return Ok(());
        }
        state.written_notifier = Some(written.try_clone()?);
        drop(state);
        let epoll = Epoll::new()?;
        for fd in [written.as_raw_fd(), interruption] {
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, 0))?;
        }
        loop {
            match epoll.wait(-1, &mut [EpollEvent::default()]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(drop),
            }
        }
    }
}

/// One user of an output's queue; the latest is the one that is told of room.
pub struct Queued {
    output: Output,
}

impl Queued {
    pub(super) fn new(output: Output) -> Self {
        Self { output }
    }
}

impl Sink for Queued {
    fn room(&mut self) -> usize {
        let mut state = self.output.queue.lock();
        let room = CAPACITY.saturating_sub(state.bytes.len());
        state.room_wanted |= room == 0;
        room
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.output.queue.lock();
        if !state.started {
            let (queue, output) = (Arc::clone(&self.output.queue), self.output.clone());
            thread::spawn(ThreadKind::Console, move || queue.write_to(output))?;
            state.started = true;
        }
        state.bytes.extend_from_slice(bytes);
        drop(state);
        self.output.queue.filled.notify_one();
        Ok(())
    }

    fn set_room_notifier(&mut self, notifier: EventFd) {
        self.output.queue.lock().room_notifier = Some(notifier);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::ConsoleConfig;
    use std::io::{PipeReader, Read};
    use std::time::Duration;

    fn never() -> EventFd {
        EventFd::new(libc::EFD_NONBLOCK).unwrap()
    }

    /// An output into a pipe.
    fn piped() -> (Output, PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        let mut output = Output::open(&ConsoleConfig::None, &crate::config::VmConfig::default()).unwrap();
        output.file = Some(Arc::new(std::os::fd::OwnedFd::from(writer).into()));
        (output, reader)
    }

    #[test]
    fn what_is_written_comes_out_in_order_and_is_waited_for() {
        let (output, mut reader) = piped();
        let mut queued = output.queued();
        for part in [&b"one "[..], b"two ", b"three"] {
            queued.write(part).unwrap();
        }
        output.wait_written(never().as_raw_fd()).unwrap();
        let mut text = [0; 13];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"one two three");
    }

    #[test]
    fn nothing_written_is_not_waited_for() {
        piped().0.wait_written(never().as_raw_fd()).unwrap();
    }

    #[test]
    fn an_output_that_nobody_reads_gets_full_and_holds_nobody_up() {
        let (output, mut reader) = piped();
        let mut queued = output.queued();
        let room = EventFd::new(libc::EFD_CLOEXEC).unwrap();
        queued.set_room_notifier(room.try_clone().unwrap());
        let mut written = 0;
        let mut waits = 0;
        // The pipe and both buffers have 64 KiB each. The thread needs a moment to take the first chunk.
        while waits < 20 {
            let len = queued.room().min(1000);
            if len == 0 {
                waits += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            queued.write(&vec![b'x'; len]).unwrap();
            written += len;
        }
        assert!((128 << 10..=192 << 10).contains(&written), "{written}");
        // Whoever waits for the rest can be called away.
        let signal = EventFd::new(0).unwrap();
        signal.write(1).unwrap();
        output.wait_written(signal.as_raw_fd()).unwrap();
        // A reader makes room, and the one who waits for it is told.
        let mut text = vec![0; written];
        reader.read_exact(&mut text).unwrap();
        assert!(room.read().unwrap() > 0);
        assert!(queued.room() > 0);
    }
}
