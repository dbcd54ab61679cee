//! Running rvmm: configure, launch, wait for what the guest prints, look at the end.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::output::Output;
use super::{Ended, bare, poll, process};

/// The runtime folder of all VMs of this test program, unless a test has one of its own. What tests left behind there
/// that were stopped goes when there is a next time.
fn runtime_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    const PREFIX: &str = "rvmm-tests-";
    FOLDER.get_or_init(|| {
        let parent = std::env::temp_dir();
        for entry in fs::read_dir(&parent).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let pid = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let folder = parent.join(format!("{PREFIX}{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        folder
    })
}

/// A run of rvmm that has not started yet.
pub(crate) struct Rvmm {
    pub(crate) command: Command,
}

impl Rvmm {
    /// rvmm without any arguments; stdin is `/dev/null`.
    pub(crate) fn new() -> Self {
        Self::within(Command::new(env!("CARGO_BIN_EXE_rvmm")))
    }

    /// rvmm started by another program: `wrapper` with its arguments, to which those of rvmm are added.
    pub(crate) fn within(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("XDG_RUNTIME_DIR", runtime_folder());
        Self { command }
    }

    /// `rvmm --kernel` with the bare guest `name`, which drives its devices over virtio-mmio if it has any.
    pub(crate) fn guest(name: &str) -> Self {
        Self::pci_guest(name).args(["--transport", "mmio"])
    }

    /// `rvmm --kernel` with the bare guest `name`, which drives its devices over virtio-pci.
    pub(crate) fn pci_guest(name: &str) -> Self {
        Self::new().arg("--kernel").arg(bare::path(name))
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// A disk with these options, after its path.
    pub(crate) fn disk(self, path: &std::path::Path, options: &str) -> Self {
        self.arg("--disk").arg(format!("path={}{options}", path.display()))
    }

    pub(crate) fn stdin(mut self, stdin: Stdio) -> Self {
        self.command.stdin(stdin);
        self
    }

    pub(crate) fn stdout(mut self, stdout: Stdio) -> Self {
        self.command.stdout(stdout);
        self
    }

    #[track_caller]
    pub(crate) fn launch(mut self) -> Running {
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        let stdout = child.stdout.take().map_or_else(Output::none, Output::of);
        let stderr = child.stderr.take().map_or_else(Output::none, Output::of);
        Running { child, stdout, stderr }
    }

    /// Launches it and waits for its end.
    #[track_caller]
    pub(crate) fn run(self) -> Ended {
        self.launch().end()
    }
}

/// A run of rvmm. It is killed when the test ends before it.
pub(crate) struct Running {
    child: Child,
    stdout: Output,
    stderr: Output,
}

impl Running {
    /// Waits until the guest has printed `text`.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) -> &mut Self {
        self.wait_for_times(1, text)
    }

    /// Waits until the guest has printed `text` at least `times` times.
    #[track_caller]
    pub(crate) fn wait_for_times(&mut self, times: usize, text: &str) -> &mut Self {
        let seen = self.stdout.wait(|printed| printed.matches(text).count() >= times);
        let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
        assert!(seen, "no {text:?} in what was printed, {stdout:?}; stderr: {stderr:?}");
        self
    }

    /// Waits until rvmm has written `text` to stderr.
    #[track_caller]
    pub(crate) fn wait_for_log(&mut self, text: &str) -> &mut Self {
        let seen = self.stderr.wait(|written| written.contains(text));
        assert!(seen, "no {text:?} on stderr: {:?}", self.stderr.text());
        self
    }

    /// What the guest has printed so far.
    pub(crate) fn printed(&self) -> String {
        self.stdout.text()
    }

    /// Sends `input` to the guest.
    #[track_caller]
    pub(crate) fn send(&mut self, input: &str) -> &mut Self {
        self.child.stdin.as_mut().expect("stdin is a pipe").write_all(input.as_bytes()).unwrap();
        self
    }

    /// Closes the pipe that is its stdin.
    pub(crate) fn close_stdin(&mut self) -> &mut Self {
        self.child.stdin = None;
        self
    }

    /// Sends a signal.
    pub(crate) fn signal(&mut self, signal: libc::c_int) -> &mut Self {
        process::kill(self.child.id(), signal);
        self
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        let mut status = None;
        let ended = poll(|| {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
        assert!(ended, "rvmm does not end; it has printed {stdout:?} and, on stderr, {stderr:?}");
        Ended { status: status.unwrap(), stdout: self.stdout.finish(), stderr: self.stderr.finish() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
