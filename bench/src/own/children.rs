//! Processes that a benchmark starts, and their end.

use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use crate::compare::instance::cpu_of_children;
use crate::compare::{interrupt, tree};

/// Held while a process is started, so that a signal finds all there are, and none is started after it.
static STARTING: Mutex<()> = Mutex::new(());

fn starting() -> MutexGuard<'static, ()> {
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills everything that was started: those who wait for it see its end. For when a signal has come.
pub(crate) fn kill_all() {
    let _starting = starting();
    tree::kill_all();
}

/// Runs `command` to its end, also when a signal has come or comes: it tidies, or is short.
///
/// # Errors
/// It cannot be started.
pub(crate) fn run_undisturbed(command: &mut Command) -> io::Result<Output> {
    let _starting = starting();
    // A group of its own: Ctrl-C is not for it.
    command.process_group(0).stdin(Stdio::null()).output()
}

/// A process that is killed, and waited for, when this is dropped.
pub(crate) struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Deref for Killed {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Killed {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

/// Starts `command`, unless a signal has come.
///
/// # Errors
/// It cannot be started, or a signal wants the benchmark to end.
pub(crate) fn spawn(command: &mut Command) -> anyhow::Result<Killed> {
    let starting = starting();
    interrupt::check()?;
    let child = command.spawn();
    drop(starting);
    child.map(Killed).with_context(|| command.get_program().to_string_lossy().into_owned())
}

/// Processor time of all processes that this one has waited for so far.
pub(crate) fn cpu() -> Duration {
    Duration::from_secs_f64(cpu_of_children() / 1e3)
}
