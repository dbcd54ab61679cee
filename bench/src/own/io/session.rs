//! One boot of a guest, and what it says.
//!
//! The guest prints `io-begin NAME` before a measurement, and after it `io-stop NAME`, if it can, and `io-end NAME FIGURES`. The host's counters are read
//! when these lines come.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::counters::{Counters, Syscalls};
use super::metric;
use super::vmms::{Machine, Vmm};
use crate::args::{Group, IoArgs};
use crate::own::children;

/// A guest that has said nothing for so long is lost; an emulated host on a busy machine takes its time.
const SILENCE: Duration = Duration::from_mins(5);

/// Defines two functions of the guest's shell, `m NAME COMMAND…` and `marked NAME COMMAND…`: one measurement, of a command
/// that prints its figures, and in the latter case the marks as well. The pauses keep the console's interrupts out of it.
pub(crate) const MEASURE: &str = "marked() { export MARK=$1; shift; r=$(eval $*); echo io-end $MARK $r; sleep 0.3; }; \
     m() { echo io-begin $1; sleep 0.3; marked $*; }; ";

/// A measurement.
pub(crate) struct Sample {
    pub(crate) name: String,
    /// What the load generator has said.
    pub(crate) figures: Value,
    /// By how much the host's counters have grown.
    pub(crate) counters: Counters,
    /// System calls of the VMM by name.
    pub(crate) syscalls: BTreeMap<String, u64>,
}

impl Sample {
    /// For those who watch.
    pub(crate) fn line(&self, round: u32, group: Group, vmm: &str) -> String {
        format!("round {round}, {}, {vmm}, {}: {}", metric::name(group), self.name, self.figures)
    }
}

/// What is counted while a measurement goes on.
struct Count {
    pid: u32,
    before: Counters,
    syscalls: Option<Syscalls>,
}

impl Count {
    fn start(pid: u32, with_syscalls: bool) -> Self {
        Self { pid, syscalls: with_syscalls.then(|| Syscalls::start(pid)), before: Counters::read(pid) }
    }

    fn stop(self) -> (Counters, BTreeMap<String, u64>) {
        let counters = Counters::read(self.pid).since(&self.before);
        (counters, self.syscalls.map(Syscalls::finish).unwrap_or_default())
    }
}

/// Boots a guest on `vmm`, which runs `script`.
///
/// # Errors
/// The guest is lost, or its script has not come to its end; with what it has said last.
pub(crate) fn run(vmm: &Vmm, machine: &Machine, script: &str, args: &IoArgs) -> anyhow::Result<Vec<Sample>> {
    if let Some(socket) = &machine.devices.vsock {
        let _ = fs::remove_file(socket);
    }
    let mut command = vmm.command(machine, script)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = children::spawn(&mut command)?;
    let pid = child.id();
    let lines = lines(child.stdout.take().context("its output is not there")?);

    let mut said = Vec::new();
    let mut samples = Vec::new();
    // A clock that counts instructions jumps where there is nothing to do, and no time is long then.
    let silence = if args.counted { SILENCE * 1000 } else { SILENCE };
    let mut begin = None;
    let mut counted = None;
    loop {
        let line = match lines.recv_timeout(silence) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => bail!("silent for {silence:?} after {said:#?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("it has ended after {said:#?}"),
        };
        let mut words = line.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("io-begin"), Some(_), None) => begin = Some(Count::start(pid, args.syscalls)),
            (Some("io-stop"), Some(_), None) => counted = begin.take().map(Count::stop),
            (Some("io-end"), Some(name), Some(figures)) => {
                let count = counted.take().or_else(|| begin.take().map(Count::stop));
                let (counters, syscalls) = count.context("a measurement ends that has not begun")?;
                let figures = parse(figures).with_context(|| format!("{name}: {figures}"))?;
                samples.push(Sample { name: name.to_owned(), figures, counters, syscalls });
            }
            (Some("rvmm-exit:"), ..) => break,
            _ => {}
        }
        said.push(line);
    }
    if samples.is_empty() {
        bail!("no measurement: {said:#?}");
    }
    Ok(samples)
}

/// What a load generator says: a JSON object, or `KEY=NUMBER` words.
fn parse(figures: &str) -> Option<Value> {
    if figures.starts_with('{') {
        return serde_json::from_str(figures).ok();
    }
    let pairs = figures.split(' ').map(|word| {
        let (key, number) = word.split_once('=')?;
        Some((key.to_owned(), Value::from(number.parse::<f64>().ok()?)))
    });
    pairs.collect::<Option<serde_json::Map<_, _>>>().map(Value::Object)
}

/// The lines of the guest's console, without what terminals add.
fn lines(stdout: ChildStdout) -> mpsc::Receiver<String> {
    let stdout = BufReader::new(stdout);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in stdout.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
