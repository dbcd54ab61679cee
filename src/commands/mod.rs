//! The verbs, one file each.

pub(crate) mod bench;
pub(crate) mod clone;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod console;
pub(crate) mod detach;
pub(crate) mod doctor;
pub(crate) mod events;
mod fit;
pub(crate) mod inspect;
pub(crate) mod kill;
mod launch;
mod lines;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod metrics;
pub(crate) mod pause;
pub(crate) mod ps;
pub(crate) mod restore;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod serve_memory;
pub(crate) mod snapshot;
pub(crate) mod stop;
mod table;

use std::error::Error;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::ExitCode;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// How a verb ends: the exit code, or an error for `main` to report.
pub(crate) type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Writes a verb's product to stdout. A reader that has gone (`rvmm man | head`) is no error.
pub(crate) fn print(text: &[u8]) -> Outcome {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}").into())
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Whether nobody can read any more what is written to stdout, a pipe: `rvmm logs -f web | head`.
pub(crate) fn reader_is_gone() -> bool {
    let watch = || {
        let epoll = Epoll::new()?;
        // What is asked for is nothing; that the other end has gone is told all the same.
        epoll.ctl(ControlOperation::Add, io::stdout().as_raw_fd(), EpollEvent::new(EventSet::empty(), 0))?;
        epoll.wait(0, &mut [EpollEvent::default()])
    };
    // A file cannot be watched, and does not go away.
    watch().is_ok_and(|found| found > 0)
}

/// Says that a follower was too slow, on a line of its own.
fn note_loss() {
    eprintln!("\nrvmm: some of it came too fast and is lost; here is the last of it again");
}
