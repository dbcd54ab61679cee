//! A process that waits for the comparison to end, and removes what is left of it then: that is nothing, unless it was killed
//! or has crashed.
//!
//! It holds the other end of a pipe of which nobody else has this one. It is no child of the comparison, since all of those
//! count as an instance's, and in a session of its own, so that what ends a terminal's processes does not end it.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{remains, tree};

/// The arguments of the process that starts the keeper, and of the keeper.
const VERB: &str = "keep";

/// How long the keeper waits for the comparison's lock.
const PATIENCE: Duration = Duration::from_secs(30);

/// Held while the comparison lives.
pub(crate) struct Keeper {
    _pipe: Option<ChildStdin>,
}

/// Starts a keeper of `folder`. To be called before this process adopts what its children leave behind.
///
/// # Errors
/// This program cannot be started once more.
pub(crate) fn start(folder: &Path) -> anyhow::Result<Keeper> {
    let program = std::env::current_exe().context("this program is not to be found")?;
    let mut command = Command::new(program);
    command
        .args([VERB, "--detach"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Where this process is itself in a comparison: its keeper stays to remove what it leaves.
    remains::unmark(&mut command);
    let mut child =
        command.process_group(0).spawn().context("what removes the rest after a crash cannot be started")?;
    let pipe = child.stdin.take();
    child.wait()?;
    Ok(Keeper { _pipe: pipe })
}

/// What the process does that [`start`] starts: it starts another one, and ends. The other one waits until its standard input
/// ends, and removes what is left of the comparison of `folder`.
///
/// # Errors
/// This program cannot be started once more.
pub(crate) fn run(folder: &Path, detach: bool) -> anyhow::Result<()> {
    if detach {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(VERB).arg(folder).spawn()?;
        return Ok(());
    }
    // The signals of whoever ends the comparison may be meant for all of its kind.
    super::interrupt::catch()?;
    nix::unistd::setsid().ok();
    tree::adopt_orphans()?;
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    // The pipe of a process that was killed can end before its lock does.
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(20);
    while folder.exists() && Instant::now() < deadline {
        remains::remove_abandoned(folder);
        // What removes may have started a daemon.
        tree::clear();
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    Ok(())
}
