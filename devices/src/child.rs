//! Starting a program: the one place where rvmm makes a child process.
//!
//! rvmm blocks the signals that it handles and ignores others, and both are inherited. The standard library resets neither
//! unless it forks, which copies the page tables of guest memory; posix_spawn(3) does both without.
#![expect(unsafe_code, reason = "posix_spawn(3) has no wrapper in the standard library")]

use std::ffi::{CString, OsStr, OsString, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::{env, io};

/// A child process that has not been waited for, or whose status is known.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts `program` in a process group of its own, with no signal blocked or ignored. `stdin` is its standard input,
    /// `stderr` its standard error; what it writes to its standard output is lost.
    ///
    /// # Errors
    /// What the host said.
    pub fn spawn(
        program: &Path,
        arguments: &[OsString],
        stdin: &impl AsFd,
        stderr: &impl AsFd,
    ) -> io::Result<Self> {
        let program = c_string(program.as_os_str())?;
        let mut argv = vec![program.clone()];
        for argument in arguments {
            argv.push(c_string(argument)?);
        }
        let mut environment = Vec::new();
        for (mut variable, value) in env::vars_os() {
            variable.push("=");
            variable.push(value);
            environment.push(c_string(&variable)?);
        }
        let (actions, attributes) = (FileActions::new(stdin, stderr)?, Attributes::new()?);
        let mut pid = 0;
        // SAFETY: all pointers are to values that live across the call; both arrays end with a null pointer.
        let result = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                program.as_ptr(),
                &raw const actions.0,
                &raw const attributes.0,
                pointers(&argv).as_ptr(),
                pointers(&environment).as_ptr(),
            )
        };
        check(result)?;
        Ok(Self { pid, status: None })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// What the host said.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.wait_with(libc::WNOHANG)
    }

    /// Waits for its end; how it ended.
    ///
    /// # Errors
    /// What the host said.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            match self.wait_with(0) {
                Ok(Some(status)) => return Ok(status),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    /// Kills it, unless it is known to have ended.
    ///
    /// # Errors
    /// What the host said.
    pub fn kill(&self) -> io::Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        // SAFETY: takes two numbers. The process has not been waited for, so its id is nobody else's.
        match unsafe { libc::kill(self.pid, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn wait_with(&mut self, options: libc::c_int) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let mut status = 0;
            // SAFETY: `status` is a valid place for an integer.
            match unsafe { libc::waitpid(self.pid, &raw mut status, options) } {
                0 => {}
                -1 => return Err(io::Error::last_os_error()),
                _ => self.status = Some(ExitStatus::from_raw(status)),
            }
        }
        Ok(self.status)
    }
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.to_owned().into_vec())?)
}

/// The strings as execve(2) takes them.
fn pointers(strings: &[CString]) -> Vec<*mut c_char> {
    strings.iter().map(|string| string.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect()
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// What becomes of descriptors.
struct FileActions(libc::posix_spawn_file_actions_t);

impl FileActions {
    fn new(stdin: &impl AsFd, stderr: &impl AsFd) -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: `actions` is a valid place for the structure, which the call fills in if it succeeds.
        let mut actions = unsafe {
            check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
            Self(actions.assume_init())
        };
        let (stdin, stderr) = (stdin.as_fd().as_raw_fd(), stderr.as_fd().as_raw_fd());
        // SAFETY: `actions` is initialized, and the path is a string that is copied.
        unsafe {
            check(libc::posix_spawn_file_actions_adddup2(&raw mut actions.0, stdin, libc::STDIN_FILENO))?;
            check(libc::posix_spawn_file_actions_addopen(
                &raw mut actions.0,
                libc::STDOUT_FILENO,
                c"/dev/null".as_ptr(),
                libc::O_WRONLY,
                0,
            ))?;
            check(libc::posix_spawn_file_actions_adddup2(&raw mut actions.0, stderr, libc::STDERR_FILENO))?;
        }
        Ok(actions)
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: initialized by `new`, and not used after this.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

/// Signals and process group.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        const FLAGS: libc::c_int =
            libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETPGROUP;
        let mut attributes = MaybeUninit::uninit();
        let (mut none, mut all) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: each call initializes the structure that it is given, or fails; the sets are copied.
        unsafe {
            check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            let mut attributes = Self(attributes.assume_init());
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigfillset(all.as_mut_ptr());
            check(libc::posix_spawnattr_setsigmask(&raw mut attributes.0, none.as_ptr()))?;
            check(libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, all.as_ptr()))?;
            check(libc::posix_spawnattr_setpgroup(&raw mut attributes.0, 0))?;
            check(libc::posix_spawnattr_setflags(&raw mut attributes.0, FLAGS as libc::c_short))?;
            Ok(attributes)
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialized by `new`, and not used after this.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn shell(script: &str) -> (Child, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let arguments = ["-c".into(), script.into()];
        (Child::spawn(Path::new("/bin/sh"), &arguments, &theirs, &theirs).unwrap(), ours)
    }

    fn said(mut stream: UnixStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_child_has_no_signal_blocked_or_ignored() {
        // The threads of the other tests are left alone: a mask is that of this thread.
        let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the set is initialized before it is read; SIGXFSZ is ignored by rvmm itself as well.
        unsafe {
            libc::sigfillset(mask.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_BLOCK, mask.as_ptr(), std::ptr::null_mut());
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        }
        let (mut child, stream) = shell("grep -E 'Sig(Blk|Ign)' /proc/self/status >&2");
        let text = said(stream);
        let sets: Vec<_> =
            text.split_ascii_whitespace().filter_map(|word| u64::from_str_radix(word, 16).ok()).collect();
        assert_eq!(sets.len(), 2, "{text}");
        // 32 and 33 are the C library's own, which it ignores in a child.
        assert!(sets.iter().all(|set| set << 33 == 0), "{text}");
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn a_child_leads_a_process_group_and_is_waited_for_once() {
        let (mut child, stream) = shell("cat /proc/$$/stat >&2; exit 3");
        let group: u32 = said(stream).split(' ').nth(4).unwrap().parse().unwrap();
        assert_eq!(group, child.id());
        assert_eq!(child.wait().unwrap().code(), Some(3));
        assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(3));
        child.kill().unwrap();
    }

    #[test]
    fn a_child_that_does_not_end_can_be_killed() {
        let (mut child, _stream) = shell("while :; do sleep 60; done");
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let (stream, _) = UnixStream::pair().unwrap();
        let error = Child::spawn(Path::new("/nowhere/at/all"), &[], &stream, &stream).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
