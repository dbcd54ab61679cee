//! A Linux guest that is restored, against containers that are started: `--linux`.
//!
//! A program waits in the guest for a line on its standard input. In the containers the same shell runs from the start, and
//! finds the line there. It prints a line, writes 10 MiB of memory, and prints another.
//!
//! Processor time is that of all that was started, up to the second line for rvmm, which is killed then, and to its end for a
//! container. With `--counted` the host's clock counts instructions: processor time is in millions of them, nothing else means
//! anything, and the program writes no memory.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::summary::Summary;
use crate::{container, cpu, emulated, fresh, programs};

/// What the guest boots, and the script that makes it.
pub(crate) const MADE_BY: [(&str, &[&str]); 2] =
    [("RVMM_KERNEL_SMALL", &["small-kernel"]), ("RVMM_ROOTFS", &["busybox-rootfs"])];

const RVMM: &str = "rvmm restore";
const FIRST_LINE: &str = "first";
const SECOND_LINE: &str = "second";
/// What the program does.
const WORKING: &str = "read word; echo first; /bin/busybox dd if=/dev/zero of=/dev/shm/filled bs=1M count=10 2>/dev/null; echo second";

/// The same without the work, whose instructions would hide what is counted.
const ANSWERING: &str = "read word; echo first; echo second";

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
}

/// Milliseconds to each of the two lines, and of processor time.
type Sample = [f64; 3];

/// Compares, on the emulated host where Linux guests do not run here, and prints what was found.
pub(crate) fn compare(runs: usize, counted: bool) {
    let how = emulated::How { counted, cpus: 1, json: None };
    let [kernel, rootfs] = emulated::enter(MADE_BY, &how);
    println!("host: {}", crate::host::describe());
    println!("figures: {runs} runs in turns after {} to warm up; a guest with 128 MiB", crate::WARM_UP_RUNS);
    println!("         from process start\n");
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let contenders = contenders(folder.path(), &kernel, &rootfs, if counted { ANSWERING } else { WORKING });
    let mut samples = vec![Vec::new(); contenders.len()];
    for run in 0..crate::WARM_UP_RUNS + runs {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            let sample = once(contender, folder.path());
            if run >= crate::WARM_UP_RUNS {
                samples.push(sample);
            }
        }
    }
    let columns = if counted { &COLUMNS[2..] } else { &COLUMNS[..] };
    for (column, name) in columns {
        println!("{name}: {:>22} {:>8} {:>8}", "median", "min", "ratio");
        let of_column = |samples: &Vec<Sample>| Summary::of(samples.iter().map(|sample| sample[*column]));
        let base = of_column(&samples[0]).median;
        for (contender, samples) in contenders.iter().zip(&samples) {
            let Summary { median, min, .. } = of_column(samples);
            println!("  {:<18} {median:>10.1} {min:>8.1} {:>8.2}", contender.name, median / base);
        }
    }
}

fn contenders(folder: &Path, kernel: &Path, rootfs: &Path, script: &str) -> Vec<Contender> {
    let snapshot = snapshot(folder, kernel, rootfs, script);
    let restore = [programs::rvmm().into(), "restore".into(), snapshot.into_os_string()];
    let mut all = vec![Contender { name: RVMM, argv: restore.into() }];
    for (runtime, name) in [("crun", "crun run"), ("runc", "runc run")] {
        match container::of_busybox(folder, runtime, &["sh", "-c", script]) {
            Some(argv) => all.push(Contender { name, argv: argv.into() }),
            None => println!("without {runtime}: it is not installed, or busybox is not"),
        }
    }
    all
}

/// A snapshot of the guest whose program waits.
fn snapshot(folder: &Path, kernel: &Path, rootfs: &Path, script: &str) -> PathBuf {
    let snapshot = fresh(folder, "linux");
    let rvmm = || {
        let mut command = Command::new(programs::rvmm());
        command.env("XDG_RUNTIME_DIR", folder).stdin(Stdio::null());
        command
    };
    let mut guest = rvmm()
        .args(["--id", "waiting", "--kernel"])
        .arg(kernel)
        .arg("--rootfs")
        .arg(format!("{},readonly", rootfs.display()))
        .arg("--append")
        .arg(format!("rvmm.run=\"echo waits; {script}\""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    read_to(&mut BufReader::new(guest.stdout.as_mut().unwrap()), "waits");
    // Until the shell waits for its line.
    std::thread::sleep(Duration::from_secs(1));
    let saved = rvmm().args(["snapshot", "waiting"]).arg(&snapshot).arg("--stop").output().unwrap();
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    guest.wait().unwrap();
    snapshot
}

/// Reads up to the line `wanted`.
fn read_to(stream: &mut impl BufRead, wanted: &str) {
    let mut line = String::new();
    while line.trim_end() != wanted {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "no line {wanted:?}");
    }
}

fn once(contender: &Contender, folder: &Path) -> Sample {
    let cpu = cpu::of_children();
    let begin = Instant::now();
    let mut child = Command::new(&contender.argv[0])
        .args(&contender.argv[1..])
        .env("XDG_RUNTIME_DIR", folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"go\n").unwrap();
    let mut stdout = BufReader::new(child.stdout.as_mut().unwrap());
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let [first, second] = [FIRST_LINE, SECOND_LINE].map(|line| {
        read_to(&mut stdout, line);
        millis(begin.elapsed())
    });
    if contender.name == RVMM {
        child.kill().unwrap();
    }
    child.wait().unwrap();
    [first, second, millis(cpu::of_children().saturating_sub(cpu))]
}
