//! A Linux guest that is restored, against containers that are started: `--linux`.
//!
//! A program waits in the guest for a line on its standard input. In the containers the same shell runs from the start, and
//! finds the line there. It prints a line, writes 10 MiB of memory, and prints another.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::summary::Summary;
use crate::{container, emulated, fresh, programs};

/// What the guest boots, and the script that makes it.
pub(crate) const MADE_BY: [(&str, &[&str]); 2] =
    [("RVMM_KERNEL_SMALL", &["small-kernel"]), ("RVMM_ROOTFS", &["busybox-rootfs"])];

const FIRST_LINE: &str = "first";
const SECOND_LINE: &str = "second";
const SCRIPT: &str =
    "read word; echo first; /bin/busybox head -c 10485760 /dev/zero >/dev/shm/filled; echo second";

/// One that brings the lines.
struct Contender {
    name: &'static str,
    argv: Vec<OsString>,
}

/// Milliseconds to each of the two lines.
type Sample = [f64; 2];

/// Compares, on the emulated host where Linux guests do not run here, and prints what was found.
pub(crate) fn compare(runs: usize) {
    let how = emulated::How { counted: false, cpus: 1, json: None };
    let [kernel, rootfs] = emulated::enter(MADE_BY, &how);
    println!("host: {}", crate::host::describe());
    println!("figures: {runs} runs in turns after {} to warm up; a guest with 128 MiB", crate::WARM_UP_RUNS);
    println!(
        "         first: process start to the line; second: to the line behind 10 MiB that were written\n"
    );
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let contenders = contenders(folder.path(), &kernel, &rootfs);
    let mut samples = vec![Vec::new(); contenders.len()];
    for run in 0..crate::WARM_UP_RUNS + runs {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            let sample = once(contender, folder.path());
            if run >= crate::WARM_UP_RUNS {
                samples.push(sample);
            }
        }
    }
    println!(
        "{:<18} {:>12} {:>8} {:>8} {:>14} {:>8}",
        "", "first, ms", "min", "ratio", "second, ms", "ratio"
    );
    let summaries: Vec<[Summary; 2]> = samples
        .iter()
        .map(|samples: &Vec<Sample>| {
            [0, 1].map(|line| Summary::of(samples.iter().map(|sample| sample[line])))
        })
        .collect();
    for (contender, [first, second]) in contenders.iter().zip(&summaries) {
        println!(
            "{:<18} {:>12.1} {:>8.1} {:>8.2} {:>14.1} {:>8.2}",
            contender.name,
            first.median,
            first.min,
            first.median / summaries[0][0].median,
            second.median,
            second.median / summaries[0][1].median
        );
    }
}

fn contenders(folder: &Path, kernel: &Path, rootfs: &Path) -> Vec<Contender> {
    let snapshot = snapshot(folder, kernel, rootfs);
    let restore = [programs::rvmm().into(), "restore".into(), snapshot.into_os_string()];
    let mut all = vec![Contender { name: "rvmm restore", argv: restore.into() }];
    for (runtime, name) in [("crun", "crun run"), ("runc", "runc run")] {
        match container::of_busybox(folder, runtime, &["sh", "-c", SCRIPT]) {
            Some(argv) => all.push(Contender { name, argv: argv.into() }),
            None => println!("without {runtime}: it is not installed, or busybox is not"),
        }
    }
    all
}

/// A snapshot of the guest whose program waits.
fn snapshot(folder: &Path, kernel: &Path, rootfs: &Path) -> PathBuf {
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
        .arg(format!("rvmm.run=\"echo waits; {SCRIPT}\""))
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
    let times = [FIRST_LINE, SECOND_LINE].map(|line| {
        read_to(&mut stdout, line);
        begin.elapsed().as_secs_f64() * 1e3
    });
    // The guest powers off when its program has ended.
    child.wait().unwrap();
    times
}
