//! Programs of the host that the benchmark uses: run to their end, for what they print. None outlives its time, or a signal.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::contender::words;
use super::{interrupt, remains, tree};

/// How long a program has that makes something.
pub(crate) const LIMIT: Duration = Duration::from_mins(5);

/// How long a program has that removes something.
const TIDY: Duration = Duration::from_secs(20);

/// The most that a program may print, in bytes.
const MOST_OUTPUT: u64 = 8 << 20;

/// How much of what a program says an error shows, in bytes.
const SHOWN: usize = 400;

/// Runs `command` to its end, which is near: what it prints.
///
/// # Errors
/// It cannot be started, does not succeed, takes more than `limit`, or a signal wants the benchmark to end.
pub(crate) fn output(command: Command, limit: Duration) -> anyhow::Result<Vec<u8>> {
    run(command, limit, interrupt::check)
}

/// Runs `command`, which removes what it can, whatever signal has come. Failures are of no interest.
pub(crate) fn tidy(command: Command) {
    let _ = run(command, TIDY, || Ok(()));
}

fn run(
    mut command: Command,
    limit: Duration,
    may_go_on: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    // Files, not pipes: a daemon that it leaves behind may keep them open.
    let (mut printed, mut said) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(printed.try_clone()?).stderr(said.try_clone()?).process_group(0);
    remains::mark(&mut command);
    let mut child = Owned(command.spawn().with_context(|| format!("{name} cannot be started"))?);
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(500);
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        may_go_on()?;
        if Instant::now() > deadline {
            bail!("{name} was given up after {} s", limit.as_secs());
        }
        for file in [&printed, &said] {
            if file.metadata()?.len() > MOST_OUTPUT {
                bail!("{name} was given up: it printed more than {MOST_OUTPUT} bytes");
            }
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    };
    let printed = content(&mut printed)?;
    if !status.success() {
        let said = content(&mut said)?;
        let words_of_it = if said.trim_ascii().is_empty() { &printed } else { &said };
        bail!("{}: {status}: {}", words(&command).join(" "), excerpt(words_of_it));
    }
    Ok(printed)
}

/// A process that ends with this, and its descendants.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            tree::kill_with_descendants(&mut self.0);
        }
    }
}

/// The end of what a program has said, on one line.
pub(crate) fn excerpt(said: &[u8]) -> String {
    let said = said.trim_ascii();
    let end = said.get(said.len().saturating_sub(SHOWN)..).unwrap_or_default();
    String::from_utf8_lossy(end).replace('\r', "").replace('\n', " | ")
}

fn content(file: &mut File) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.rewind()?;
    file.take(MOST_OUTPUT).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_it_prints_comes_back() {
        assert_eq!(output(shell("echo one; echo two"), LIMIT).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn an_error_says_what_was_run_and_what_it_said() {
        let error = output(shell("echo no such thing >&2; exit 4"), LIMIT).unwrap_err().to_string();
        assert!(error.contains("exit 4") && error.contains("exit status: 4: no such thing"), "{error}");
    }

    #[test]
    fn one_that_takes_too_long_is_given_up_with_its_children() {
        let line = format!("sleep {}.25", 20_000_000 + std::process::id());
        let began = Instant::now();
        let error =
            output(shell(&format!("{line}; true")), Duration::from_millis(300)).unwrap_err().to_string();
        assert!(error.contains("given up") && began.elapsed() < Duration::from_secs(20), "{error}");
        let gone = || {
            let processes = procfs::process::all_processes().unwrap().flatten();
            !processes.filter_map(|process| process.cmdline().ok()).any(|words| words.join(" ") == line)
        };
        while !gone() {
            assert!(began.elapsed() < Duration::from_secs(20), "{line} goes on");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
