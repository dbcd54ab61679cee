//! One instance, from just before its process is created until nothing is left of it.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use super::contender::{Entry, Launch, Order};
use super::stage::Stage;
use super::{helper, interrupt, remains, tree};

/// How often a signal is looked for while an instance is waited for.
const GLANCE: Duration = Duration::from_millis(200);

/// The most that an instance may print, in bytes: one that never stops is given up.
const MOST_OUTPUT: usize = 8 << 20;

/// How much of what it printed an error shows, in bytes.
const SHOWN: usize = 300;

/// A running instance. What is left of it when this is dropped is killed and removed.
pub(crate) struct Instance {
    child: Child,
    /// Held open: a VM whose standard input ends may stop reading it, or end.
    _input: Option<ChildStdin>,
    /// What it complains of.
    complaints: fs::File,
    tidy: Vec<Command>,
    began: Instant,
    deadline: Instant,
    /// What it has printed, and when the pieces came: the offset of each, and its time.
    output: Vec<u8>,
    pieces: Vec<(usize, Instant)>,
}

impl Instance {
    /// Starts what `entry` has for `order`.
    pub(crate) fn start(stage: &Stage, entry: &Entry, order: &Order) -> anyhow::Result<Self> {
        let launch = entry.contender.launch(stage, order)?;
        Self::spawn(launch, stage.timeout)
    }

    /// Starts the command of `launch`, which is given up `timeout` later.
    pub(crate) fn spawn(launch: Launch, timeout: Duration) -> anyhow::Result<Self> {
        let Launch { mut command, input, tidy } = launch;
        let complaints = tempfile::tempfile()?;
        // A group of its own: Ctrl-C on the terminal is for the benchmark, which stops it in its own time.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(complaints.try_clone()?);
        remains::mark(&mut command);
        let began = Instant::now();
        let spawned = command.spawn();
        let mut child = spawned.with_context(|| command.get_program().to_string_lossy().into_owned())?;
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            // It may have ended without reading.
            let _ = stdin.write_all(&input);
        }
        if input.is_empty() {
            stdin = None;
        }
        let deadline = began + timeout;
        Ok(Self {
            child,
            _input: stdin,
            complaints,
            tidy,
            began,
            deadline,
            output: Vec::new(),
            pieces: Vec::new(),
        })
    }

    /// Waits until it has printed a line that begins with `text`. The time is from just before the process was created to the
    /// line's first byte, in ms; the text is the rest of the line.
    ///
    /// # Errors
    /// It ends, prints too much, or takes too long; a signal wants the benchmark to end.
    pub(crate) fn line(&mut self, text: &[u8]) -> anyhow::Result<(f64, String)> {
        loop {
            if let Some((at, rest)) = find_line(&self.output, text) {
                let time = self
                    .pieces
                    .iter()
                    .rev()
                    .find(|(offset, _)| *offset <= at)
                    .map_or(self.began, |piece| piece.1);
                return Ok((millis(time - self.began), rest));
            }
            if !self.read()? {
                bail!("it ended without {:?}{}", String::from_utf8_lossy(text), self.last_words());
            }
        }
    }

    /// The time of a line that has come already, and the rest of it.
    pub(crate) fn seen(&self, text: &[u8]) -> Option<(f64, String)> {
        let (at, rest) = find_line(&self.output, text)?;
        let time = self.pieces.iter().rev().find(|(offset, _)| *offset <= at)?.1;
        Some((millis(time - self.began), rest))
    }

    /// All that it has printed until now.
    pub(crate) fn output(&self) -> &[u8] {
        &self.output
    }

    /// Time since just before its process was created, in ms.
    pub(crate) fn age(&self) -> f64 {
        millis(self.began.elapsed())
    }

    /// Waits until it has ended by itself. Of a runtime's helpers some may go on for a moment: [`tree::settle`].
    ///
    /// # Errors
    /// As of [`line`](Self::line).
    pub(crate) fn end(&mut self) -> anyhow::Result<()> {
        while self.read()? {}
        while self.child.try_wait()?.is_none() {
            self.in_time()?;
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Reads what is there, or waits for it. False at the end.
    fn read(&mut self) -> anyhow::Result<bool> {
        loop {
            self.in_time()?;
            let Some(stdout) = &mut self.child.stdout else { return Ok(false) };
            let mut wanted = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
            let wait = PollTimeout::try_from(GLANCE).unwrap_or(PollTimeout::ZERO);
            match poll(&mut wanted, wait) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            let came = Instant::now();
            let mut piece = [0; 4096];
            let count = stdout.read(&mut piece)?;
            if count == 0 {
                return Ok(false);
            }
            if self.output.len() + count > MOST_OUTPUT {
                bail!("it printed more than {MOST_OUTPUT} bytes");
            }
            self.pieces.push((self.output.len(), came));
            self.output.extend(piece.iter().take(count));
            return Ok(true);
        }
    }

    fn in_time(&self) -> anyhow::Result<()> {
        interrupt::check()?;
        if Instant::now() > self.deadline {
            bail!("given up after {:.0} s{}", (self.deadline - self.began).as_secs_f64(), self.last_words());
        }
        if self.complaints.metadata()?.len() > MOST_OUTPUT as u64 {
            bail!("it complained with more than {MOST_OUTPUT} bytes{}", self.last_words());
        }
        Ok(())
    }

    /// The end of what it said, for an error.
    pub(crate) fn last_words(&self) -> String {
        use std::os::unix::fs::FileExt as _;
        let mut complaints = vec![0; SHOWN];
        let size = self.complaints.metadata().map_or(0, |file| file.len());
        let count = self.complaints.read_at(&mut complaints, size.saturating_sub(SHOWN as u64)).unwrap_or(0);
        complaints.truncate(count);
        let printed = self.output.get(self.output.len().saturating_sub(SHOWN)..).unwrap_or_default();
        let words = if complaints.trim_ascii().is_empty() { printed } else { &complaints };
        let text = helper::excerpt(words);
        if text.is_empty() { text } else { format!("; it said last: {text}") }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(status)) if status.success()) {
            return;
        }
        tree::kill_with_descendants(&mut self.child);
        self.tidy.drain(..).for_each(helper::tidy);
    }
}

/// Processor time of all children that have ended, user and system, in ms.
#[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
pub(crate) fn cpu_of_children() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN);
    usage.map_or(0.0, |usage| (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e3)
}

/// Where the first line is that begins with `text`, and what follows in it, if it is complete. The marker of a guest may follow what
/// its console printed before on the same line, so a line begins where the text does.
fn find_line(output: &[u8], text: &[u8]) -> Option<(usize, String)> {
    let at = output.windows(text.len()).position(|window| window == text)?;
    let rest = output.get(at + text.len()..)?;
    let end = rest.iter().position(|&byte| byte == b'\n')?;
    Some((at, String::from_utf8_lossy(rest.get(..end)?).trim().to_owned()))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
