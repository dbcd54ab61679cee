//! A Linux guest that is restored, against containers that are started: `--linux`.
//!
//! A program waits in the guest for a line on its standard input. In the containers the same shell runs from the start, and
//! finds the line there. It prints a line, reads another, writes 10 MiB of memory, and prints a second. One restore before, to the first
//! line, recorded which pages of memory it used; what a snapshot without that takes is told, too.
//!
//! Processor time is that of all that was started, up to the second line for rvmm, which is killed then, and to its end for a
//! container. With `--counted` the host's clock counts instructions: processor time is in millions of them, nothing else means
//! anything, and the program writes no memory.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{fresh, scratch};
use crate::args::RestoreArgs;
use crate::own::children::Killed;
use crate::own::container::{self, Container};
use crate::own::emulated::{self, How, Need};
use crate::own::summary::Summary;
use crate::own::{WARM_UP_RUNS, children, host, output, print, programs, progress};

/// Processors of the emulated host: with two it gets stuck at times. With one, the grace periods of its kernel, for which whoever makes
/// namespaces and control groups waits on a real host, cost nothing.
const CPUS: u32 = 1;

const RVMM: &str = "rvmm restore";
const NOT_RECORDED: &str = "  nothing recorded";
const FIRST_LINE: &str = "first";
const SECOND_LINE: &str = "second";
/// What the program does.
const WORKING: &str = "read word; echo first; read word; /bin/busybox dd if=/dev/zero of=/dev/shm/filled bs=1M count=10 2>/dev/null; echo second";

/// The same without the work, whose instructions would hide what is counted.
const ANSWERING: &str = "read word; echo first; read word; echo second";
/// One line of what it reads.
const LINE: &[u8] = b"go\n";

/// What is told of the samples.
const COLUMNS: [(usize, &str); 3] = [
    (0, "to the first line, ms"),
    (1, "to the line behind 10 MiB that were written, ms"),
    (2, "processor time, ms"),
];

/// One that brings the lines.
struct Contender {
    name: &'static str,
    argv: Vec<OsString>,
    is_restored: bool,
    /// What a run that was killed would leave.
    _container: Option<Container>,
}

/// What the guest boots: the kernel and the root disk.
pub(crate) type Needed = [PathBuf; 2];

/// Milliseconds to each of the two lines, and of processor time.
type Sample = [f64; 3];

/// Finds what the guest boots, and goes where Linux guests run.
///
/// # Errors
/// As of [`emulated::enter`].
pub(crate) fn enter(args: &RestoreArgs) -> anyhow::Result<Needed> {
    let kernel = Need {
        option: "--kernel",
        named: args.kernel.as_deref(),
        variable: "RVMM_KERNEL_SMALL",
        script: &["small-kernel"],
    };
    let rootfs = Need {
        option: "--rootfs",
        named: args.rootfs.as_deref(),
        variable: "RVMM_ROOTFS",
        script: &["busybox-rootfs"],
    };
    emulated::enter([kernel, rootfs], &How { counted: args.counted, cpus: CPUS, json: None })
}

/// Compares, and prints what was found.
///
/// # Errors
/// The guest or a container fails.
pub(crate) fn compare(needed: &Needed, args: &RestoreArgs) -> anyhow::Result<()> {
    let runs = args.runs as usize;
    print(&format!(
        "host: {}\nfigures: {runs} runs in turns after {WARM_UP_RUNS} to warm up; a guest with 128 MiB\n         from process start; \
         a ratio is that of medians, to the first row\n         {RVMM}: with what one restore before recorded of memory (--record); \
         {}: without\n\n",
        host::describe(),
        NOT_RECORDED.trim()
    ))?;
    let folder = scratch(None)?;
    let contenders = contenders(folder.path(), needed, if args.counted { ANSWERING } else { WORKING })?;
    let mut samples = vec![Vec::new(); contenders.len()];
    let bar = progress::bar("lines", WARM_UP_RUNS + runs);
    for run in 0..WARM_UP_RUNS + runs {
        let mut turns: Vec<_> = contenders.iter().zip(&mut samples).collect();
        // Nobody comes always behind the same one, whose end the host may still be busy with.
        let count = turns.len();
        turns.rotate_left(run / 2 % count);
        if run % 2 == 1 {
            turns.reverse();
        }
        for (contender, samples) in turns {
            let sample = once(contender, folder.path()).context(contender.name)?;
            if run >= WARM_UP_RUNS {
                samples.push(sample);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut text = String::new();
    for (column, name) in COLUMNS.iter().skip(if args.counted { 2 } else { 0 }) {
        let _ = writeln!(text, "{name}\n  {:<18} {:>10} {:>8} {:>8}", "", "median", "min", "ratio");
        let of_column = |samples: &Vec<Sample>| {
            Summary::of(samples.iter().filter_map(|sample| sample.get(*column).copied()))
        };
        let base = samples.first().map_or(f64::NAN, |samples| of_column(samples).median);
        for (contender, samples) in contenders.iter().zip(&samples) {
            let Summary { median, min, .. } = of_column(samples);
            let _ = write!(text, "  {:<18} {median:>10.1} {min:>8.1}", contender.name);
            if contenders.len() > 1 {
                let _ = write!(text, " {:>8.2}", median / base);
            }
            text.push('\n');
        }
    }
    print(&text)
}

fn contenders(folder: &Path, needed: &Needed, script: &str) -> anyhow::Result<Vec<Contender>> {
    let snapshot = snapshot(folder, needed, script)?;
    let program = programs::rvmm()?;
    let rvmm = |name, snapshot: &Path, option: Option<&str>| {
        let mut argv = vec![program.clone().into_os_string(), "restore".into(), snapshot.into()];
        argv.extend(option.map(OsString::from));
        Contender { name, argv, is_restored: true, _container: None }
    };
    let not_recorded = fresh(folder, "as-it-was");
    fs::create_dir(&not_recorded)?;
    for file in ["state", "memory"] {
        fs::hard_link(snapshot.join(file), not_recorded.join(file))?;
    }
    record(&rvmm(RVMM, &snapshot, Some("--record")), folder)?;
    ensure!(snapshot.join("working-set").is_file(), "rvmm did not record what a restored guest uses");
    let mut all = vec![rvmm(RVMM, &snapshot, None), rvmm(NOT_RECORDED, &not_recorded, None)];
    for (runtime, name) in [("crun", "crun run"), ("runc", "runc run")] {
        match container::of_busybox(folder, runtime, &["sh", "-c", script]) {
            Ok(container) => {
                let argv = container.argv().into();
                all.push(Contender { name, argv, is_restored: false, _container: Some(container) });
            }
            Err(error) => eprintln!("without {runtime}: {error:#}"),
        }
    }
    Ok(all)
}

/// Restores a guest up to its first line, by `recorder`, which records what of memory that takes when it is asked to end.
fn record(recorder: &Contender, folder: &Path) -> anyhow::Result<()> {
    let mut running = Running::start(recorder, folder, LINE)?;
    running.time_to(FIRST_LINE)?;
    kill(Pid::from_raw(running.child.id().cast_signed()), Signal::SIGTERM)?;
    running.child.wait()?;
    Ok(())
}

/// A snapshot of the guest whose program waits.
fn snapshot(folder: &Path, [kernel, rootfs]: &Needed, script: &str) -> anyhow::Result<PathBuf> {
    let snapshot = fresh(folder, "linux");
    let program = programs::rvmm()?;
    let rvmm = || {
        let mut command = Command::new(&program);
        command.env("XDG_RUNTIME_DIR", folder).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    };
    let mut command = rvmm();
    command.args(["--id", "waiting", "--kernel"]).arg(kernel).arg("--rootfs");
    command.arg(format!("{},readonly", rootfs.display()));
    command.arg("--append").arg(format!("rvmm.run=\"echo waits; {script}\"")).stdin(Stdio::piped());
    let mut guest = children::spawn(&mut command)?;
    let stdout = guest.stdout.as_mut().context("its output is not there")?;
    read_to(&mut BufReader::new(stdout), "waits").context("the Linux guest")?;
    // Until the shell waits for its line.
    std::thread::sleep(Duration::from_secs(1));
    let mut command = rvmm();
    command.args(["snapshot", "waiting"]).arg(&snapshot).arg("--stop");
    let mut saved = children::spawn(&mut command)?;
    output::read_to_end(saved.stdout.as_mut())?;
    let status = saved.wait()?;
    ensure!(status.success(), "{command:?}: {status}");
    guest.wait()?;
    Ok(snapshot)
}

/// Reads up to the line `wanted`.
fn read_to(stream: &mut impl BufRead, wanted: &str) -> anyhow::Result<()> {
    let mut line = String::new();
    while line.trim_end() != wanted {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            bail!("it ended without the line {wanted:?}");
        }
    }
    Ok(())
}

/// A contender that runs.
struct Running {
    child: Killed,
    stdout: BufReader<ChildStdout>,
    began: Instant,
    // Open, or the guest's console would hear that it is not.
    _stdin: ChildStdin,
}

impl Running {
    /// Starts `contender`, with `lines` for it to read.
    fn start(contender: &Contender, folder: &Path, lines: &[u8]) -> anyhow::Result<Self> {
        let mut words = contender.argv.iter();
        let mut command = Command::new(words.next().map(OsString::as_os_str).unwrap_or_default());
        command.args(words).env("XDG_RUNTIME_DIR", folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let began = Instant::now();
        let mut child = children::spawn(&mut command)?;
        let mut stdin = child.stdin.take().context("its input is not there")?;
        stdin.write_all(lines)?;
        let stdout = BufReader::new(child.stdout.take().context("its output is not there")?);
        Ok(Self { child, stdout, began, _stdin: stdin })
    }

    /// Milliseconds from its start to the line `wanted`.
    fn time_to(&mut self, wanted: &str) -> anyhow::Result<f64> {
        read_to(&mut self.stdout, wanted)?;
        Ok(millis(self.began.elapsed()))
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn once(contender: &Contender, folder: &Path) -> anyhow::Result<Sample> {
    let cpu = children::cpu();
    let mut running = Running::start(contender, folder, &LINE.repeat(2))?;
    let first = running.time_to(FIRST_LINE)?;
    let second = running.time_to(SECOND_LINE)?;
    if contender.is_restored {
        running.child.kill()?;
    }
    running.child.wait()?;
    Ok([first, second, millis(children::cpu().saturating_sub(cpu))])
}
