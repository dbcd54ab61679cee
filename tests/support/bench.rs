//! Running `rvmm-bench`, and looking for what it has left on the host.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use super::{poll, process};

/// How the folder of a comparison is called.
const PREFIX: &str = "rvmm-bench-";

/// The program, which belongs to another package: built as this one is, unless that was done before where there is no compiler.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let rvmm = Path::new(env!("CARGO_BIN_EXE_rvmm"));
        let program = rvmm.with_file_name("rvmm-bench");
        if std::env::var_os("RVMM_EMULATED_HOST").is_none() {
            let profile = if rvmm.parent().is_some_and(|folder| folder.ends_with("release")) {
                "release"
            } else {
                "dev"
            };
            let mut cargo = Command::new(env!("CARGO"));
            cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args([
                "build",
                "-q",
                "-p",
                "rvmm-bench",
                "--profile",
                profile,
            ]);
            let built = cargo.stdin(Stdio::null()).status();
            assert!(built.is_ok_and(|status| status.success()), "{cargo:?}");
        }
        assert!(program.is_file(), "there is no {}; cargo build -p rvmm-bench makes it", program.display());
        program
    })
}

/// Comparisons in a folder of their own.
pub(crate) struct Bench {
    home: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    /// Where comparisons make their folders.
    pub(crate) fn folder(&self) -> PathBuf {
        let folder = self.home.path().join("f");
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// A program, a script of a shell, which a comparison may be given to start.
    pub(crate) fn script(&self, text: &str) -> PathBuf {
        let path = self.home.path().join("script");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        path
    }

    /// `rvmm-bench compare` with `args`, a word each between blanks.
    pub(crate) fn compare(&self, args: &str) -> Command {
        let mut command = Command::new(program());
        command.arg("compare").args(args.split_whitespace());
        command.arg("--folder").arg(self.folder()).arg("--json").arg(self.json());
        command.env("RVMM_PROGRAM", env!("CARGO_BIN_EXE_rvmm"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn json(&self) -> PathBuf {
        self.home.path().join("result.json")
    }

    /// Starts a comparison, and waits until its folder is there.
    #[track_caller]
    pub(crate) fn launch(&self, mut command: Command) -> Comparison {
        let before = self.folders();
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut name = None;
        let made = poll(|| {
            name = self.folders().difference(&before).next().cloned();
            name.is_some()
        });
        assert!(made, "{command:?} makes no folder");
        Comparison { child, folder: self.folder().join(name.unwrap_or_default()), kill: true }
    }

    /// Runs a comparison to its end; its results.
    #[track_caller]
    pub(crate) fn run(&self, command: Command) -> Value {
        let comparison = self.launch(command);
        let folder = comparison.folder.clone();
        let ended = comparison.end();
        // 1 where nothing could be measured: the results say why.
        assert!(matches!(ended.code(), Some(0 | 1)), "{ended}");
        self.assert_nothing_left(&folder);
        self.results()
    }

    /// What it has written with `--json`.
    #[track_caller]
    pub(crate) fn results(&self) -> Value {
        let text = fs::read(self.json()).unwrap_or_else(|error| panic!("{}: {error}", self.json().display()));
        serde_json::from_slice(&text).unwrap()
    }

    fn folders(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.folder()).unwrap().flatten();
        entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| name.starts_with(PREFIX))
            .collect()
    }

    /// Nothing on the host is of the comparison of `folder` any more.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self, folder: &Path) {
        let left = traces(folder);
        assert!(left.is_empty(), "{left:#?}");
        assert_eq!(fs::read_dir(self.folder()).unwrap().count(), 0, "{} is empty", self.folder().display());
    }
}

/// A comparison that runs.
pub(crate) struct Comparison {
    child: Child,
    pub(crate) folder: PathBuf,
    kill: bool,
}

impl Comparison {
    /// Waits until it has a process whose command line is as `wanted` says.
    #[track_caller]
    pub(crate) fn wait_for_process(&self, wanted: impl Fn(&str) -> bool) -> &Self {
        let seen = poll(|| processes(&self.folder).iter().any(|(_, line)| wanted(line)));
        assert!(seen, "it is not among {:#?}", processes(&self.folder));
        self
    }

    pub(crate) fn signal(&self, signal: libc::c_int) -> &Self {
        process::kill(self.child.id(), signal);
        self
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> ExitStatus {
        let mut status = None;
        let ended = poll(|| {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(ended, "it does not end; there are {:#?}", traces(&self.folder));
        self.kill = false;
        status.unwrap()
    }
}

impl Drop for Comparison {
    fn drop(&mut self) {
        if self.kill {
            process::kill(self.child.id(), libc::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

/// Process ids and command lines of those that have `folder` in their environment or command line, or that run a file below it.
pub(crate) fn processes(folder: &Path) -> Vec<(u32, String)> {
    let needle = folder.to_str().unwrap();
    let pids = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let with_lines = pids.filter(|&pid| pid != std::process::id()).filter_map(|pid| {
        let read = |name: &str| {
            fs::read(format!("/proc/{pid}/{name}"))
                .map(|text| String::from_utf8_lossy(&text).replace('\0', " "))
        };
        let line = read("cmdline").ok()?;
        let own = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.starts_with(folder));
        (own || line.contains(needle) || read("environ").is_ok_and(|environ| environ.contains(needle)))
            .then(|| (pid, line.trim_end().to_owned()))
    });
    // Who watches over it is no part of it, and ends by itself.
    with_lines
        .filter(|(_, line)| !line.contains(" --folder ") && !line.contains("rvmm-bench keep "))
        .collect()
}

/// Everything on the host that is of the comparison of `folder`.
pub(crate) fn traces(folder: &Path) -> Vec<String> {
    let name = folder.file_name().and_then(OsStr::to_str).unwrap();
    let mut traces: Vec<String> =
        processes(folder).iter().map(|(pid, line)| format!("process {pid}: {line}")).collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    traces.extend(mounts.lines().filter(|line| line.contains(name)).map(|line| format!("mount {line}")));
    let groups = below(Path::new("/sys/fs/cgroup"), 3)
        .into_iter()
        .filter(|path| path.to_string_lossy().contains(name));
    traces.extend(groups.map(|path| format!("control group {}", path.display())));
    let network = format!("rb{}", name.trim_start_matches(PREFIX));
    for place in ["/sys/class/net", "/run/netns"] {
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&network));
        traces.extend(named.map(|entry| format!("network {}", entry.path().display())));
    }
    if folder.exists() {
        traces.push(format!("folder {}", folder.display()));
    }
    traces
}

/// Folders below `folder`, so many levels deep.
fn below(folder: &Path, levels: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if levels > 1 {
                found.extend(below(&entry.path(), levels - 1));
            }
            found.push(entry.path());
        }
    }
    found
}
