//! What many VMs of one snapshot cost.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::summary::Summary;
use crate::vmms::Vmm;
use crate::{fresh, programs};

/// How often all of them are started; the least says what it takes.
const ROUNDS: usize = 5;

/// What was found.
pub(crate) struct Clones {
    count: usize,
    /// For all of them, in milliseconds.
    all: Summary,
    /// Memory that a clone shares with nobody, in KiB.
    private_kib: Summary,
}

/// Starts `count` clones of a guest that halts, and ends them.
pub(crate) fn measure(folder: &Path, count: usize) -> Clones {
    let snapshot = fresh(folder, "clones");
    let mut machine = Vmm::Rvmm.guest(folder, "hlt-forever");
    machine.pause();
    machine.create(&snapshot, "Full");
    drop(machine);
    let rvmm = |words: &[&str]| {
        let mut command = Command::new(programs::rvmm());
        command.args(words).env("XDG_RUNTIME_DIR", folder).stdin(Stdio::null());
        command
    };
    let (mut all, mut private) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let words =
            ["clone", snapshot.to_str().unwrap(), "-n", &count.to_string(), "--id", "bench", "--json"];
        let output = rvmm(&words).output().unwrap();
        let time: Duration = begin.elapsed();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        all.push(time.as_secs_f64() * 1e3);
        let clones: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        for clone in clones {
            private.push(clone["memory"]["private"].as_f64().unwrap() / 1024.0);
            let killed = rvmm(&["kill", clone["id"].as_str().unwrap()]).status().unwrap();
            assert!(killed.success());
        }
    }
    Clones { count, all: Summary::of(all), private_kib: Summary::of(private) }
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
