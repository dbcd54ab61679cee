//! The kernel's log.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

/// `SYSLOG_ACTION_READ_ALL` of syslog(2): the end of the log, which stays as it is.
const READ_ALL: libc::c_int = 3;

/// A line of it, if this process may read it, and how.
pub(super) fn line() -> Option<String> {
    device()
        .map(|line| format!("/dev/kmsg: {line}"))
        .or_else(|| call().map(|line| format!("syslog(2): {line}")))
}

fn device() -> Option<String> {
    let mut log = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").ok()?;
    let mut record = [0; 8192];
    let count = log.read(&mut record).ok()?;
    // "6,0,0,-;Linux version …"
    let text = String::from_utf8_lossy(record.get(..count)?).into_owned();
    Some(text.split_once(';')?.1.lines().next()?.to_owned())
}

#[expect(unsafe_code, reason = "syslog(2) has no wrapper")]
fn call() -> Option<String> {
    let mut text = [0_u8; 4096];
    let room = libc::c_int::try_from(text.len()).ok()?;
    // SAFETY: the kernel writes at most `room` bytes, which is the size of `text`.
    let count = unsafe { libc::klogctl(READ_ALL, text.as_mut_ptr().cast(), room) };
    let text = String::from_utf8_lossy(text.get(..usize::try_from(count).ok()?)?).into_owned();
    text.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned)
}
