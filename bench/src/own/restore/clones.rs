//! What many VMs of one snapshot cost.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::fresh;
use super::vmms::Vmm;
use crate::own::bare::Guest;
use crate::own::summary::Summary;
use crate::own::{children, output, programs, progress};

/// How often all of them are started; the least says what it takes.
const ROUNDS: usize = 5;

/// What `rvmm clone --json` says of a clone, as far as it matters here.
#[derive(Deserialize)]
struct Clone {
    id: String,
    memory: Memory,
}

#[derive(Deserialize)]
struct Memory {
    /// In bytes.
    private: f64,
}

/// What was found.
pub(crate) struct Clones {
    count: u32,
    /// For all of them, in milliseconds.
    all: Summary,
    /// Memory that a clone shares with nobody, in KiB.
    private_kib: Summary,
}

/// Starts `count` clones of a guest that halts, and ends them.
///
/// # Errors
/// rvmm cannot clone.
pub(crate) fn measure(folder: &Path, count: u32) -> anyhow::Result<Clones> {
    let snapshot = fresh(folder, "clones");
    let mut machine = Vmm::Rvmm.guest(folder, Guest::HltForever)?;
    machine.pause()?;
    machine.create(&snapshot, "Full")?;
    drop(machine);
    let program = programs::rvmm()?;
    // What it prints.
    let rvmm = |words: &[&OsStr]| {
        let mut command = Command::new(&program);
        command.args(words).env("XDG_RUNTIME_DIR", folder).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = children::spawn(&mut command)?;
        let text = output::read_to_end(child.stdout.as_mut())?;
        let status = child.wait()?;
        ensure!(status.success(), "{command:?}: {status}");
        Ok(text)
    };
    let (mut all, mut private) = (Vec::new(), Vec::new());
    let bar = progress::bar("clones", ROUNDS);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let number = count.to_string();
        let words = ["-n", number.as_str(), "--id", "bench", "--json"].map(OsStr::new);
        let output = rvmm(&[&[OsStr::new("clone"), snapshot.as_os_str()], &words[..]].concat())?;
        all.push(begin.elapsed().as_secs_f64() * 1e3);
        let clones: Vec<Clone> = serde_json::from_slice(&output).context("what rvmm clone says")?;
        for clone in clones {
            private.push(clone.memory.private / 1024.0);
            rvmm(&["kill", &clone.id].map(OsStr::new))?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Clones { count, all: Summary::of(all), private_kib: Summary::of(private) })
}

impl Clones {
    pub(crate) fn json(&self) -> Value {
        let Self { count, all, private_kib } = self;
        json!({"count": count, "all_ms": all.json(), "private_kib": private_kib.json()})
    }
}

impl fmt::Display for Clones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, all, private_kib } = self;
        write!(
            f,
            "clones: {count} of a guest that halts in {:.0} ms (median of {ROUNDS}; least {:.0}), the report of their memory \
             included; each has {:.0} KiB of its own (median; p90 {:.0})",
            all.median, all.min, private_kib.median, private_kib.p90
        )
    }
}
