//! What rvmm needs beside the guest: resident memory while a guest halts, and the size of the binary.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::{bare, programs};

/// Guest memory of the VM that is looked at, in KiB.
const GUEST_KIB: u64 = 128 << 10;

/// What was found, in KiB but for the binary, which is in bytes.
#[derive(Serialize)]
pub(crate) struct Footprint {
    /// Resident outside of guest memory, rvmm's own.
    anonymous_kib: u64,
    /// Resident outside of guest memory, of the binary's file and so shared by all VMs.
    file_kib: u64,
    /// Resident guest memory: what the guest touched, and what rvmm put there for it.
    guest_kib: u64,
    threads: usize,
    binary_bytes: u64,
}

/// Starts a guest that halts for ever with further options, does `first`, and looks.
pub(crate) fn measure(folder: &Path, options: &[&OsStr], first: impl FnOnce()) -> Footprint {
    let rvmm = programs::rvmm();
    let mut child = Command::new(&rvmm)
        .arg("--kernel")
        .arg(bare::path("hlt-forever"))
        .args(options)
        .env("XDG_RUNTIME_DIR", folder.join("kept"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = [0; 7];
    child.stdout.as_mut().unwrap().read_exact(&mut text).unwrap();
    first();
    // What others reach the VM by is made when the guest has run for a moment.
    thread::sleep(Duration::from_millis(100));
    let process = format!("/proc/{}", child.id());
    let mut footprint = Footprint {
        anonymous_kib: 0,
        file_kib: 0,
        guest_kib: 0,
        threads: fs::read_dir(format!("{process}/task")).unwrap().count(),
        binary_bytes: fs::metadata(&rvmm).unwrap().len(),
    };
    footprint.add_mappings(&fs::read_to_string(format!("{process}/smaps")).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    footprint
}

impl Footprint {
    /// Resident outside of guest memory, in KiB.
    pub(crate) fn own_kib(&self) -> u64 {
        self.anonymous_kib + self.file_kib
    }

    /// Sorts the mappings in the text of `/proc/PID/smaps`. That of guest memory is as large as it.
    fn add_mappings(&mut self, smaps: &str) {
        let mut is_guest = false;
        for line in smaps.lines() {
            let (key, value) = line.split_once(':').unwrap_or((line, ""));
            let kib = || value.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
            match key {
                "Size" => is_guest = kib() >= GUEST_KIB,
                "Rss" if is_guest => self.guest_kib += kib(),
                "Rss" => self.file_kib += kib(),
                // Follows the mapping's Rss, of which it is a part.
                "Anonymous" if !is_guest => {
                    self.anonymous_kib += kib();
                    self.file_kib -= kib();
                }
                _ => {}
            }
        }
        assert!(self.guest_kib > 0, "no mapping has the size of guest memory");
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { anonymous_kib, file_kib, guest_kib, threads, binary_bytes } = self;
        write!(
            f,
            "memory: rvmm with a halted guest has {} KiB resident outside of guest memory ({anonymous_kib} KiB of its \
             own, {file_kib} KiB of its file), and {guest_kib} KiB of guest memory; {threads} threads\n\
             binary: {:.2} MiB",
            self.own_kib(),
            *binary_bytes as f64 / f64::from(1 << 20)
        )
    }
}
