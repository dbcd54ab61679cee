//! One run of a contender, with a clock beside it.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::contenders::Contender;
use crate::own::{children, output};

/// The byte that the guest writes.
const BYTE: u8 = b'!';

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
    let cpu = children::cpu();
    let begin = Instant::now();
    let mut child = children::spawn(&mut command)?;
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
