//! A terminal for rvmm to run on: a pseudoterminal whose other side is the test.

#![expect(unsafe_code, reason = "calls of the C library on terminals")]

use std::fs::File;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use super::output::Output;
use super::{Running, Rvmm, process};

/// A terminal with somebody in front of it.
pub(crate) struct Terminal {
    master: File,
    slave: OwnedFd,
    screen: Output,
}

/// The settings of a terminal that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) input: libc::tcflag_t,
    pub(crate) output: libc::tcflag_t,
    pub(crate) control: libc::tcflag_t,
    pub(crate) local: libc::tcflag_t,
}

impl Settings {
    /// Whether what is typed goes straight through: no lines, no echo, no signals.
    pub(crate) fn is_raw(&self) -> bool {
        self.local & (libc::ICANON | libc::ECHO | libc::ISIG) == 0
    }
}

impl Terminal {
    /// A terminal whose screen is watched.
    pub(crate) fn open() -> Self {
        let mut terminal = Self::unwatched();
        terminal.screen = Output::of(terminal.master.try_clone().unwrap());
        terminal
    }

    /// A terminal whose screen nobody reads, which can hang up.
    pub(crate) fn unwatched() -> Self {
        let (mut master, mut slave) = (-1, -1);
        // SAFETY: both descriptors are written on success; the null pointers ask for defaults.
        let result = unsafe {
            libc::openpty(&raw mut master, &raw mut slave, ptr::null_mut(), ptr::null(), ptr::null())
        };
        assert_eq!(result, 0, "openpty: {}", std::io::Error::last_os_error());
        for descriptor in [master, slave] {
            // SAFETY: takes no pointers. A program that is started must not inherit them.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // SAFETY: openpty just made both, and nothing else owns them.
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        Self { master, slave, screen: Output::none() }
    }

    /// Starts `rvmm` with this as its controlling terminal and its stdin, stdout and stderr.
    #[track_caller]
    pub(crate) fn launch(&self, mut rvmm: Rvmm) -> Running {
        let side = || self.slave.try_clone().unwrap();
        rvmm.command.stdin(side()).stdout(side()).stderr(side());
        process::own_session(&mut rvmm.command);
        rvmm.launch()
    }

    /// The settings as they are now.
    pub(crate) fn settings(&self) -> Settings {
        let mut termios = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: the pointer is good for one termios, which is written on success.
        let result = unsafe { libc::tcgetattr(self.slave.as_raw_fd(), termios.as_mut_ptr()) };
        assert_eq!(result, 0, "tcgetattr: {}", std::io::Error::last_os_error());
        // SAFETY: tcgetattr succeeded.
        let termios = unsafe { termios.assume_init() };
        Settings {
            input: termios.c_iflag,
            output: termios.c_oflag,
            control: termios.c_cflag,
            local: termios.c_lflag,
        }
    }

    /// Gives it another size, in characters.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads one `winsize` from the pointer.
        let result = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(result, 0, "TIOCSWINSZ: {}", std::io::Error::last_os_error());
    }

    /// Types `keys`.
    pub(crate) fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen has shown `text`.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        let seen = self.screen.wait(|shown| shown.contains(text));
        assert!(seen, "no {text:?} on the screen, which shows {:?}", self.screen.text());
    }

    /// Hangs up: the window is closed, the connection lost.
    pub(crate) fn hang_up(self) {
        drop(self);
    }

    /// All that the screen has shown.
    pub(crate) fn screen(&self) -> String {
        self.screen.text()
    }
}
