//! A Linux guest: which kernel, which root, what it runs; and what came of it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, str};

use tempfile::TempDir;

use super::resource;
use crate::support::{Ended, Rvmm};

/// A Linux guest that has not started yet.
pub(super) struct Guest {
    pub(super) rvmm: Rvmm,
    parameters: Vec<String>,
}

impl Guest {
    /// The small kernel, which has all its drivers built in.
    pub(super) fn small() -> Self {
        Self::kernel(&resource("RVMM_KERNEL_SMALL"))
    }

    /// Debian's kernel of `series`, `6_1` or `6_12`, with the initramfs that has its modules.
    pub(super) fn debian(series: &str) -> Self {
        Self::debian_from(Rvmm::new(), series)
    }

    /// The same with an rvmm that is started in some way of its own.
    pub(super) fn debian_from(rvmm: Rvmm, series: &str) -> Self {
        let kernel = resource(&format!("RVMM_KERNEL_{series}"));
        let initrd = resource(&format!("RVMM_INITRD_{series}"));
        Self { rvmm: rvmm.arg("--kernel").arg(kernel), parameters: Vec::new() }.arg("--initrd").arg(initrd)
    }

    pub(super) fn kernel(path: &Path) -> Self {
        Self { rvmm: Rvmm::new().arg("--kernel").arg(path), parameters: Vec::new() }
    }

    pub(super) fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.rvmm = self.rvmm.arg(arg);
        self
    }

    pub(super) fn args<A: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.rvmm = self.rvmm.args(args);
        self
    }

    /// The root file system that everybody shares, which nobody can write.
    pub(super) fn shared_root(self) -> Self {
        let image = resource("RVMM_ROOTFS");
        self.arg("--rootfs").arg(format!("{},readonly", image.display()))
    }

    /// The shared root file system with further tools: iperf3, socat, `blockload`, `vsockload`.
    pub(super) fn tools_root(self) -> Self {
        let image = resource("RVMM_TOOLS_ROOTFS");
        self.arg("--rootfs").arg(format!("{},readonly", image.display()))
    }

    /// A root file system of its own.
    pub(super) fn root(self, image: &RootImage, options: &str) -> Self {
        self.arg("--rootfs").arg(format!("{}{options}", image.path().display()))
    }

    pub(super) fn disk(mut self, path: &Path, options: &str) -> Self {
        self.rvmm = self.rvmm.disk(path, options);
        self
    }

    pub(super) fn cpus(self, count: u32) -> Self {
        self.arg("--cpus").arg(count.to_string())
    }

    pub(super) fn memory(self, size: &str) -> Self {
        self.arg("--memory").arg(size)
    }

    /// A parameter at the end of the kernel command line.
    pub(super) fn parameter(mut self, parameter: &str) -> Self {
        self.parameters.push(parameter.to_owned());
        self
    }

    /// The guest is to run `command`, a line for its shell without double quotes, and to power off.
    pub(super) fn running(self, command: &str) -> Rvmm {
        assert!(!command.contains(['"', '\n']), "{command} does not fit on a kernel command line");
        self.parameter(&format!("rvmm.run=\"{command}\"")).into_rvmm()
    }

    /// As it is: with a shell on its console, unless a parameter says otherwise.
    pub(super) fn into_rvmm(self) -> Rvmm {
        let append = self.parameters.join(" ");
        if append.is_empty() { self.rvmm } else { self.rvmm.arg("--append").arg(append) }
    }

    /// Runs `command` in the guest, which succeeds, and then powers off.
    #[track_caller]
    pub(super) fn run(self, command: &str) -> Report {
        Report::of(&self.running(command).run())
    }
}

/// What a guest has printed until it powered off.
#[derive(Debug)]
pub(super) struct Report {
    /// Its console without carriage returns.
    text: String,
}

impl Report {
    /// rvmm ended cleanly, and the guest's command had succeeded.
    #[track_caller]
    pub(super) fn of(ended: &Ended) -> Self {
        ended.assert_clean();
        let report = Self { text: ended.stdout.replace('\r', "") };
        assert!(report.has_line("rvmm-exit: 0"), "{}", report.text);
        report
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn has_line(&self, line: &str) -> bool {
        self.text.lines().any(|printed| printed == line)
    }

    /// What follows `key` and a space on the line that begins so.
    #[track_caller]
    pub(super) fn value(&self, key: &str) -> &str {
        let rest = self.text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        rest.unwrap_or_else(|| panic!("no line with {key:?}: {}", self.text))
    }

    #[track_caller]
    pub(super) fn assert_line(&self, line: &str) -> &Self {
        assert!(self.has_line(line), "no line {line:?}: {}", self.text);
        self
    }

    /// The kernel had nothing to complain about, as [`COMPLAINTS`] has printed.
    #[track_caller]
    pub(super) fn assert_no_complaints(&self) -> &Self {
        let begin = self.text.find("complaints-begin\n").unwrap_or_else(|| panic!("{}", self.text));
        let (_, rest) = self.text.split_at(begin);
        let complaints: Vec<&str> = rest
            .lines()
            .skip(1)
            .take_while(|line| *line != "complaints-end")
            .filter(|line| !KNOWN.iter().any(|known| line.contains(known)))
            .collect();
        assert!(rest.contains("\ncomplaints-end\n"), "{}", self.text);
        assert!(complaints.is_empty(), "{complaints:#?}");
        self
    }
}

/// A guest's command that prints what its kernel has logged as an error or worse, or as a failure of a device.
pub(super) const COMPLAINTS: &str = "echo complaints-begin; \
    dmesg -r | grep -v 'ommand line:' | grep -iE '^<[0-3]>|nobody cared|i8042.*(timeout|fail|error)|virtio.*(fail|error)|I/O error'; \
    echo complaints-end";

/// What kernels with PCI say of a machine without it.
const KNOWN: [&str; 1] = ["PCI: Fatal: No config space access function found"];

/// A writable copy of the root file system in a folder of its own, gone when the test ends.
pub(super) struct RootImage {
    folder: TempDir,
}

impl RootImage {
    /// A copy in which what is zero takes no space.
    pub(super) fn new() -> Self {
        Self::copy("--sparse=always")
    }

    /// A copy that takes space for all of its size.
    pub(super) fn allocated() -> Self {
        Self::copy("--sparse=never")
    }

    fn copy(option: &str) -> Self {
        let image = Self { folder: tempfile::tempdir().unwrap() };
        let mut command = Command::new("cp");
        command.args([option, "--reflink=never", "--no-preserve=mode"]).arg(resource("RVMM_ROOTFS"));
        succeed(command.arg(image.path()));
        image
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("root.ext4")
    }

    /// The bytes that the host has set aside for it.
    pub(super) fn allocation(&self) -> u64 {
        fs::metadata(self.path()).unwrap().blocks() * 512
    }

    /// `e2fsck` finds nothing to mend, not even a journal to replay.
    #[track_caller]
    pub(super) fn assert_clean(&self) {
        let report = succeed(Command::new("e2fsck").arg("-fn").arg(self.path()));
        assert!(!report.contains("recover"), "{report}");
    }

    /// What is in the file at `path`, read without mounting it.
    #[track_caller]
    pub(super) fn file(&self, path: &str) -> String {
        succeed(Command::new("debugfs").arg("-R").arg(format!("cat {path}")).arg(self.path()))
    }
}

/// Runs a program of the host, which succeeds; its standard output.
#[track_caller]
fn succeed(command: &mut Command) -> String {
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:#?}");
    str::from_utf8(&output.stdout).unwrap().to_owned()
}
