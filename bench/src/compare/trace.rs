//! Which system calls of the host an instance's processes make: events of the kernel's tracing, in a tracing instance of our
//! own, so that what others trace is not disturbed; strace where the kernel doesn't trace.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use nix::unistd::gettid;
use syscalls::Sysno;

use super::contender::{Entry, Launch, Order};
use super::instance::Instance;
use super::remains;
use super::stage::{self, Stage};
use super::task::Task;

/// Where tracefs is mounted.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The event, below a tracing instance.
const EVENT: &str = "events/raw_syscalls/sys_enter";

/// Room for events that were not read yet, of all processors together, in KiB.
const ROOM_KIB: usize = 16 << 10;

/// How often events are read.
const READ: Duration = Duration::from_millis(1);

/// How a trace is taken.
pub(super) enum Tracer {
    /// By the kernel's tracing.
    Kernel(TracingInstance),
    /// By this strace.
    Strace(PathBuf),
}

/// What was traced.
pub(super) struct Calls {
    /// Names of the system calls, sorted.
    pub(super) names: Vec<String>,
    /// Why there may be more.
    pub(super) doubt: Option<String>,
}

impl Tracer {
    /// What this host has.
    ///
    /// # Errors
    /// Neither the kernel's tracing can be used, nor is there strace.
    pub(super) fn find() -> anyhow::Result<Self> {
        match (TracingInstance::new(), stage::on_path("strace")) {
            (Ok(instance), _) => Ok(Self::Kernel(instance)),
            (Err(_), Some(strace)) => Ok(Self::Strace(strace)),
            (Err(error), None) => {
                Err(error.context("neither does the kernel trace, nor is strace installed"))
            }
        }
    }

    /// Traces one start to its end, from just before the process is created: the few calls between fork and exec are in it.
    ///
    /// # Errors
    /// The instance fails.
    pub(super) fn trace(&self, stage: &Stage, entry: &Entry) -> anyhow::Result<Calls> {
        let id = format!("{}-trace", stage.id());
        let mut launch = entry.contender.launch(stage, &Order::new(&id, &Task::start()))?;
        match self {
            Self::Kernel(instance) => instance.record(|| to_end(launch, stage.timeout)),
            Self::Strace(strace) => {
                let file = stage.path("strace");
                launch.command = under_strace(strace, &file, &launch.command);
                to_end(launch, stage.timeout)?;
                let lines = BufReader::new(File::open(&file)?).lines();
                let names: BTreeSet<String> =
                    lines.map_while(Result::ok).filter_map(|line| strace_name(&line)).collect();
                fs::remove_file(&file)?;
                Ok(Calls { names: names.into_iter().collect(), doubt: None })
            }
        }
    }
}

fn to_end(launch: Launch, timeout: Duration) -> anyhow::Result<()> {
    Instance::spawn(launch, timeout)?.end()?;
    Ok(())
}

/// A tracing instance, removed when this is dropped.
pub(super) struct TracingInstance {
    folder: PathBuf,
}

impl TracingInstance {
    fn new() -> anyhow::Result<Self> {
        let tracefs = TRACEFS.map(Path::new).into_iter().find(|path| path.join("instances").is_dir());
        let instances = tracefs.context("tracefs is not mounted")?.join("instances");
        let (_, comparison) = remains::marked().context("there is no comparison")?;
        let folder = instances.join(comparison.file_name().unwrap_or_default());
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        let instance = Self { folder };
        instance.write("options/event-fork", "1")?;
        let processors = thread::available_parallelism().map_or(1, usize::from);
        instance.write("buffer_size_kb", &(ROOM_KIB / processors).clamp(128, ROOM_KIB / 2).to_string())?;
        // Not what this thread does itself: it is in the list so that its children are.
        instance.write(&format!("{EVENT}/filter"), &format!("common_pid != {}", gettid()))?;
        Ok(instance)
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// Calls `act`, and tells the system calls of all processes that were created by this thread and what it created.
    fn record(&self, act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Calls> {
        self.write("trace", "")?;
        let pipe = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(self.folder.join("trace_pipe"))?;
        let ended = AtomicBool::new(false);
        let (acted, seen) = thread::scope(|scope| {
            // Before this thread is in the list: its threads would be from then on.
            let reader = scope.spawn(|| read_events(pipe, &ended));
            let acted = self.only_own().and_then(|()| {
                self.write(&format!("{EVENT}/enable"), "1")?;
                act()
            });
            let _ = self.write(&format!("{EVENT}/enable"), "0");
            let _ = self.write("set_event_pid", "");
            ended.store(true, Ordering::Release);
            (acted, reader.join().map_err(|_| anyhow!("the reader of events has failed")))
        });
        acted?;
        let (numbers, lost) = seen?;
        let mut names: Vec<String> = numbers.into_iter().map(name).collect();
        names.sort();
        if names.is_empty() {
            bail!("no event came");
        }
        let doubt =
            lost.then(|| "some events of its system calls were lost; there may be more of them".to_owned());
        Ok(Calls { names, doubt })
    }

    fn only_own(&self) -> anyhow::Result<()> {
        self.write("set_event_pid", &gettid().to_string())
    }
}

impl Drop for TracingInstance {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// Removes the tracing instance of the comparison of `folder`, which has that name. Returns what is there still.
pub(super) fn remove_of(folder: &Path) -> Vec<String> {
    let Some(name) = folder.file_name() else { return Vec::new() };
    // Often one file system, mounted twice.
    let mut instances: Vec<PathBuf> =
        TRACEFS.iter().map(|tracefs| Path::new(tracefs).join("instances").join(name)).collect();
    instances.retain(|instance| {
        if instance.is_dir() {
            remove(instance);
        }
        instance.exists()
    });
    instances.iter().map(|instance| format!("tracing instance {}", instance.display())).collect()
}

fn remove(folder: &Path) {
    let _ = fs::write(folder.join(EVENT).join("enable"), "0");
    for _ in 0..50 {
        // It is busy while a reader has it open.
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => thread::sleep(READ),
            _ => return,
        }
    }
}

/// Numbers of system calls in the events until `ended`, and whether some were lost.
fn read_events(mut pipe: File, ended: &AtomicBool) -> (BTreeSet<u32>, bool) {
    let (mut numbers, mut lost) = (BTreeSet::new(), false);
    let (mut piece, mut rest) = (vec![0; 64 << 10], Vec::new());
    loop {
        let was_all = ended.load(Ordering::Acquire);
        match pipe.read(&mut piece) {
            Ok(count) if count > 0 => {
                rest.extend_from_slice(piece.get(..count).unwrap_or_default());
                let end = rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
                for line in rest.drain(..end).collect::<Vec<_>>().split(|&byte| byte == b'\n') {
                    let line = String::from_utf8_lossy(line);
                    numbers.extend(event_number(&line));
                    lost |= line.starts_with("CPU:") && line.contains("[LOST ");
                }
            }
            _ if was_all => return (numbers, lost),
            _ => thread::sleep(READ),
        }
    }
}

/// The system call of a line such as `sh-129  [000] ..... 52.48: sys_enter: NR 3 (3, 0, 0, 8, 0, 0)`. The name in front is the
/// process's own choice.
fn event_number(line: &str) -> Option<u32> {
    let (_, event) = line.rsplit_once(": sys_enter: NR ")?;
    event.split_once(" (")?.0.parse().ok()
}

fn name(number: u32) -> String {
    Sysno::new(number as usize).map_or_else(|| format!("number {number}"), |call| call.name().to_owned())
}

/// `command` and all that it starts, traced into `file`.
fn under_strace(strace: &Path, file: &Path, command: &Command) -> Command {
    let mut traced = Command::new(strace);
    traced
        .args(["-f", "-qq", "-s", "0", "-o"])
        .arg(file)
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(key, value),
            None => traced.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        traced.current_dir(folder);
    }
    traced
}

/// The system call of a line such as `129 close(3) = 0`.
fn strace_name(line: &str) -> Option<String> {
    let (name, _) =
        line.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ' ').split_once('(')?;
    let is_name = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    is_name.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_its_system_call_whatever_the_process_calls_itself() {
        let line = "              sh-12979   [000] ..... 52598.485854: sys_enter: NR 3 (3, 7efef7c9fa10, 0, 8, ffffffff, ffffffff)";
        assert_eq!(event_number(line).map(name).as_deref(), Some("close"));
        let line = " : sys_enter: NR 9 (-12   [000] ..... 52598.485854: sys_enter: NR 1 (3, 0, 0, 8, f, f)";
        assert_eq!(event_number(line).map(name).as_deref(), Some("write"));
        assert_eq!(event_number("CPU:1 [LOST 17 EVENTS]"), None);
        assert_eq!(event_number(": sys_enter: NR -1 (0"), None);
        assert_eq!(name(9999), "number 9999");
    }

    #[test]
    fn a_line_of_strace_names_its_system_call() {
        assert_eq!(strace_name("129   close(3)                          = 0").as_deref(), Some("close"));
        assert_eq!(strace_name("129   pread64(3,  <unfinished ...>").as_deref(), Some("pread64"));
        for other in [
            "129   <... futex resumed>)  = 0",
            "129   --- SIGCHLD {si_signo=SIGCHLD(…)} ---",
            "129   +++ exited with 0 +++",
            "",
        ] {
            assert_eq!(strace_name(other), None, "{other}");
        }
    }

    #[test]
    fn strace_leaves_the_environment_of_a_command_as_it_is() {
        let mut command = Command::new("/bin/x");
        command.arg("y").env("A", "b").env_remove("C").current_dir("/tmp");
        let traced = under_strace(Path::new("/usr/bin/strace"), Path::new("/tmp/f"), &command);
        assert!(
            traced
                .get_args()
                .map(|word| word.to_string_lossy())
                .eq(["-f", "-qq", "-s", "0", "-o", "/tmp/f", "--", "/bin/x", "y"])
        );
        assert!(traced.get_envs().eq(command.get_envs()));
        assert_eq!(traced.get_current_dir(), command.get_current_dir());
    }
}
