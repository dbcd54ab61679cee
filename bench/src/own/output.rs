//! What a guest writes to its serial port, as it comes out of a pipe.

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::process::ChildStdout;
use std::time::{Duration, Instant};

use anyhow::bail;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Reads all that comes.
///
/// # Errors
/// It cannot be read.
pub(crate) fn read_to_end(stdout: Option<&mut ChildStdout>) -> anyhow::Result<Vec<u8>> {
    let mut output = Vec::new();
    stdout.map(|stdout| stdout.read_to_end(&mut output)).transpose()?;
    Ok(output)
}

/// Waits for a byte that is `wanted`; some VMMs have something to say before it.
///
/// # Errors
/// The output ends before, or [`PATIENCE`] does.
pub(crate) fn wait_for(stdout: Option<&mut ChildStdout>, wanted: impl Fn(u8) -> bool) -> anyhow::Result<()> {
    let Some(stdout) = stdout else { bail!("its output is not there") };
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 512];
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        let mut streams = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        match poll(&mut streams, PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => bail!("no byte of the guest within {PATIENCE:?}"),
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let count = stdout.read(&mut buffer)?;
        if count == 0 {
            bail!("it ended without the guest's byte");
        }
        if buffer.iter().take(count).copied().any(&wanted) {
            return Ok(());
        }
    }
}
