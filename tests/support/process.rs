//! What the standard library has no safe call for: signals, a controlling terminal, what is in a pipe.

#![expect(unsafe_code, reason = "calls of the C library on processes and pipes")]

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Sends `signal` to the process `pid`.
#[track_caller]
pub(crate) fn kill(pid: u32, signal: libc::c_int) {
    // SAFETY: takes no pointers.
    let result = unsafe { libc::kill(pid.cast_signed(), signal) };
    assert_eq!(result, 0, "kill {pid}: {}", io::Error::last_os_error());
}

/// Makes `command` the leader of a session of its own, whose controlling terminal is its stdin.
pub(crate) fn own_session(command: &mut Command) {
    // SAFETY: what runs between fork and exec are two system calls that touch no memory.
    unsafe {
        command.pre_exec(|| {
            if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Whether the tests run as root, who may open every file.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// How many bytes can be read from `pipe` now.
pub(crate) fn readable(pipe: &impl AsFd) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: the pointer is good for the integer that FIONREAD writes.
    let result = unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) };
    assert_eq!(result, 0, "FIONREAD: {}", io::Error::last_os_error());
    usize::try_from(count).unwrap()
}

/// Has `pipe` hold no more than a page.
pub(crate) fn shrink_pipe(pipe: &impl AsFd) {
    // SAFETY: F_SETPIPE_SZ takes an integer.
    let size = unsafe { libc::fcntl(pipe.as_fd().as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    assert!(size >= 4096, "F_SETPIPE_SZ: {}", io::Error::last_os_error());
}

/// The state of the process `pid` as in `/proc/PID/stat`: `R`, `S`, `T` (stopped), `Z`….
pub(crate) fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    after_name.chars().next().unwrap()
}

/// Processor time that the process `pid` has used, in ticks of 10 ms.
pub(crate) fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    // proc_pid_stat(5): utime and stime, the 14th and 15th field, of which the state is the third.
    after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Makes a named pipe.
pub(crate) fn make_fifo(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path ends in a NUL.
    let result = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    assert_eq!(result, 0, "mkfifo: {}", io::Error::last_os_error());
}

/// How many threads the process `pid` has, KVM's own included.
pub(crate) fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

/// How many descriptors the process `pid` has.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// How much memory the process `pid` has resident, in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Copies a program. Another process does it: a test that starts one at the same moment would give it our descriptor,
/// open for writing, and nobody could run the copy ("Text file busy").
#[track_caller]
pub(crate) fn install(from: &Path, to: &Path) {
    let installed = Command::new("install").args(["-m", "755"]).args([from, to]).status();
    assert!(installed.is_ok_and(|status| status.success()), "install {}", to.display());
}

/// Has each of the system calls `calls` fail with EPERM in `command`, as under somebody else's filter.
pub(crate) fn without_calls(command: &mut Command, calls: &[libc::c_long]) {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::x86_64).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    // SAFETY: what runs between fork and exec are system calls that touch no memory but the program's.
    unsafe {
        command
            .pre_exec(move || seccompiler::apply_filter(&program).map_err(|_| io::ErrorKind::Other.into()));
    }
}

/// Has the process `pid` open no more than `count` descriptors.
pub(crate) fn limit_descriptors(pid: u32, count: u64) {
    let limit = libc::rlimit { rlim_cur: count, rlim_max: 4096 };
    // SAFETY: the new limit is a valid structure, and the old one is not asked for.
    let result = unsafe {
        libc::prlimit(pid.cast_signed(), libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut())
    };
    assert_eq!(result, 0, "prlimit: {}", io::Error::last_os_error());
}
