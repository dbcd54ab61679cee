//! One run of a contender, with a clock beside it.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::contenders::Contender;
use crate::own::{children, output};

/// The byte that the guest writes.
const BYTE: u8 = b'!';

/// How much of what a contender complains of is read, in bytes.
const MOST_COMPLAINTS: u64 = 1 << 16;

/// How long a run took.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) to_byte: Duration,
    pub(crate) to_end: Duration,
    /// Processor time of the process and those that it waited for, the kernel's work for them included.
    pub(crate) cpu: Duration,
}

/// How a run is to end.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Try {
    /// It may hang: nothing is known of the contender yet.
    First,
    /// It has ended by itself before, and is waited for without looking up, which is exact.
    Timed,
}

/// One run.
///
/// # Errors
/// It cannot be started, or ends without the guest's byte, or the byte or its end do not come within 20 s.
pub(crate) fn once(contender: &Contender, kind: Try) -> anyhow::Result<Sample> {
    contender.prepare()?;
    let mut command = contender.command();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut complaints = None;
    if kind == Try::First {
        let file = tempfile::tempfile()?;
        command.stderr(file.try_clone()?);
        complaints = Some(file);
    }
    timed(&mut command, kind).map_err(|error| match complaints.as_ref().and_then(last_line) {
        Some(line) => error.context(line),
        None => error,
    })
}

fn timed(command: &mut Command, kind: Try) -> anyhow::Result<Sample> {
    let cpu = children::cpu();
    let begin = Instant::now();
    let mut child = children::spawn(command)?;
    let mut stdout = child.stdout.take();
    output::wait_for(stdout.as_mut(), |byte| byte == BYTE)?;
    let byte = Instant::now();
    while kind == Try::First && child.try_wait()?.is_none() {
        if byte.elapsed() > output::PATIENCE {
            bail!("it does not end within {:?}", output::PATIENCE);
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait()?;
    let end = Instant::now();
    Ok(Sample { to_byte: byte - begin, to_end: end - byte, cpu: children::cpu().saturating_sub(cpu) })
}

/// The last line that was written to `complaints`.
fn last_line(mut complaints: &File) -> Option<String> {
    let mut text = Vec::new();
    complaints.rewind().ok()?;
    complaints.take(MOST_COMPLAINTS).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().rfind(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
}
