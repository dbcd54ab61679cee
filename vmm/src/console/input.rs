//! What is typed, or piped in, on its way to the guest's serial port or virtio console.
//!
//! A port takes so much at a time, the serial one 64 bytes. What does not fit stays in the pipe: it is not watched while the guest has not read,
//! so a guest that never reads costs nothing. A terminal is always read, because `Ctrl-A x` must work.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use devices::legacy::serial::Serial;
use devices::virtio::console::ConsoleDevice;
use event_manager::{EventOps, EventSet, Events};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use super::escape::{Command, Escape, HELP};
use super::terminal::Terminal;

/// How often a process in the background looks whether it was brought to the foreground.
const FOREGROUND_CHECK: Duration = Duration::from_millis(300);

/// What the console asks of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The user typed `Ctrl-A x`.
    Quit,
}

/// Bytes read at once.
const READ_SIZE: usize = 64;
/// Most bytes that are typed ahead of the guest.
const MAX_PENDING: usize = 4096;

/// A device of the guest that takes input.
pub trait Port {
    /// Sends `bytes` to the guest, as many as there is room for, and says how many that were.
    fn enqueue(&self, bytes: &[u8]) -> usize;
    /// Names an eventfd that is written once there is room again, after `enqueue` found too little.
    fn set_drain_notifier(&self, notifier: EventFd);
    /// Tells the guest the size of its terminal in characters. A serial port cannot.
    fn set_size(&self, _columns: u16, _rows: u16) {}
}

impl Port for Serial {
    fn enqueue(&self, bytes: &[u8]) -> usize {
        self.enqueue(bytes)
    }

    fn set_drain_notifier(&self, notifier: EventFd) {
        self.set_drain_notifier(notifier);
    }
}

impl Port for Mutex<ConsoleDevice> {
    fn enqueue(&self, bytes: &[u8]) -> usize {
        self.lock().unwrap_or_else(PoisonError::into_inner).enqueue(bytes)
    }

    fn set_drain_notifier(&self, notifier: EventFd) {
        self.lock().unwrap_or_else(PoisonError::into_inner).set_drain_notifier(notifier);
    }

    fn set_size(&self, columns: u16, rows: u16) {
        self.lock().unwrap_or_else(PoisonError::into_inner).set_size(columns, rows);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// epoll tells when there is something to read.
    Polled,
    /// A file or the like, which epoll does not take: there is always something to read, until its end.
    AlwaysReady,
    /// Not watched: the guest has no room, or the terminal belongs to somebody else.
    Waiting,
    /// At its end.
    Ended,
}

/// Standard input, feeding a port of the guest.
pub struct Input {
    stdin: std::fs::File,
    terminal: Option<Terminal>,
    escape: Escape,
    port: Arc<dyn Port>,
    /// Written by the port when the guest has made room.
    drained: EventFd,
    /// Runs while rvmm is in the background of its terminal.
    foreground_timer: Option<TimerFd>,
    /// Bytes for the guest that its port had no room for.
    pending: Vec<u8>,
    watch: Watch,
}

impl Input {
    /// Standard input for `port`; a terminal is made raw when rvmm is in its foreground.
    ///
    /// # Errors
    /// What the host said when it had no descriptor to give.
    pub fn new(port: Arc<dyn Port>, terminal: Option<Terminal>) -> io::Result<Self> {
        let drained = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        port.set_drain_notifier(drained.try_clone()?);
        let foreground_timer = match &terminal {
            Some(_) => Some(TimerFd::new().map_err(|error| io::Error::from_raw_os_error(error.errno()))?),
            None => None,
        };
        let stdin = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self {
            stdin,
            terminal,
            escape: Escape::default(),
            port,
            drained,
            foreground_timer,
            pending: Vec::new(),
            watch: Watch::Waiting,
        })
    }

    /// Starts watching.
    pub fn init(&mut self, ops: &mut EventOps<'_>) {
        let mut add = |events| ops.add(events).map_err(|error| log::warn!("console input: {error:?}"));
        let _ = add(Events::new(&self.drained, EventSet::IN));
        if let Some(timer) = &self.foreground_timer {
            let _ = add(Events::new(timer, EventSet::IN));
        }
        self.take_terminal(ops);
    }

    /// Tells the guest how large the terminal is now.
    pub fn resize(&self) {
        if let Some((columns, rows)) = self.terminal.as_ref().and_then(Terminal::size) {
            self.port.set_size(columns, rows);
        }
    }

    /// Makes the terminal raw and watches it, or waits for the foreground. For other inputs, just watches.
    pub fn take_terminal(&mut self, ops: &mut EventOps<'_>) {
        let mine = self.terminal.as_ref().is_none_or(Terminal::make_raw);
        if let Some(timer) = &mut self.foreground_timer {
            let _ = if mine { timer.clear() } else { timer.reset(FOREGROUND_CHECK, Some(FOREGROUND_CHECK)) };
        }
        if mine {
            self.resume(ops);
        } else {
            self.suspend(ops);
        }
    }

    /// Takes an event of one of the watched descriptors.
    pub fn process(&mut self, events: Events, ops: &mut EventOps<'_>) -> Option<Request> {
        let fd = events.fd();
        if fd == self.drained.as_raw_fd() {
            let _ = self.drained.read();
            return self.refill(ops);
        }
        if self.foreground_timer.as_ref().is_some_and(|timer| timer.as_raw_fd() == fd) {
            if let Some(timer) = &mut self.foreground_timer {
                let _ = timer.wait();
            }
            self.take_terminal(ops);
            return None;
        }
        self.readable(ops)
    }

    /// The port has room again.
    fn refill(&mut self, ops: &mut EventOps<'_>) -> Option<Request> {
        self.give();
        loop {
            match self.watch {
                Watch::AlwaysReady if self.may_read() => {}
                Watch::Waiting if self.may_read() && self.is_mine() => {
                    self.resume(ops);
                    return None;
                }
                // Reading what epoll has not announced could block.
                _ => return None,
            }
            if let Some(request) = self.read(ops) {
                return Some(request);
            }
        }
    }

    /// Standard input has something to read.
    fn readable(&mut self, ops: &mut EventOps<'_>) -> Option<Request> {
        self.give();
        if self.may_read() {
            return self.read(ops);
        }
        self.suspend(ops);
        None
    }

    /// Reads once, and passes on what is for the guest.
    fn read(&mut self, ops: &mut EventOps<'_>) -> Option<Request> {
        let mut buffer = [0; READ_SIZE];
        match self.stdin.read(&mut buffer) {
            Ok(0) => {
                self.suspend(ops);
                self.watch = Watch::Ended;
                None
            }
            Ok(len) => {
                let request = self.take(buffer.get(..len).unwrap_or_default());
                self.give();
                request
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                None
            }
            Err(error) => {
                log::debug!("console input: {error}");
                self.lose_terminal(ops);
                None
            }
        }
    }

    /// Puts into the port what it has room for.
    fn give(&mut self) {
        let taken = self.port.enqueue(&self.pending);
        self.pending.drain(..taken.min(self.pending.len()));
    }

    /// A pipe waits until the guest has taken everything; a terminal is always read, for the keys that are for rvmm.
    fn may_read(&self) -> bool {
        self.terminal.is_some() || self.pending.is_empty()
    }

    fn is_mine(&self) -> bool {
        self.terminal.as_ref().is_none_or(Terminal::is_foreground)
    }

    /// Reading failed. EIO: the terminal has passed to another process group, or is gone.
    fn lose_terminal(&mut self, ops: &mut EventOps<'_>) {
        self.suspend(ops);
        match &mut self.foreground_timer {
            Some(timer) => drop(timer.reset(FOREGROUND_CHECK, Some(FOREGROUND_CHECK))),
            None => self.watch = Watch::Ended,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Option<Request> {
        if self.terminal.is_none() {
            self.pending.extend_from_slice(bytes);
            return None;
        }
        let mut quit = None;
        let commands = self.escape.filter(bytes, &mut self.pending);
        // What a guest that reads nothing was typed is lost from here on, as on a real serial line.
        self.pending.truncate(MAX_PENDING);
        for command in commands {
            match command {
                Command::Quit => quit = Some(Request::Quit),
                Command::Help => drop(io::stderr().write_all(HELP)),
            }
        }
        quit
    }

    fn resume(&mut self, ops: &mut EventOps<'_>) {
        if self.watch != Watch::Waiting {
            return;
        }
        // What cannot be polled (a file, /dev/null) is read when the guest first has room, and whenever it has again.
        if let Ok(()) = ops.add(Events::new(&self.stdin, EventSet::IN)) {
            self.watch = Watch::Polled;
        } else {
            self.watch = Watch::AlwaysReady;
            let _ = self.drained.write(1);
        }
    }

    fn suspend(&mut self, ops: &mut EventOps<'_>) {
        if self.watch == Watch::Polled {
            let _ = ops.remove(Events::new(&self.stdin, EventSet::IN));
        }
        if self.watch != Watch::Ended {
            self.watch = Watch::Waiting;
        }
    }
}
