//! What rvmm needs beside the guest: resident memory while a guest halts, and the size of the binary.

#![allow(clippy::cast_precision_loss, reason = "a program's size, for reading")]

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::bare::Guest;
use super::{children, output, programs};

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

/// Starts a guest that halts for ever with further options, does `first`, and looks. What rvmm needs is put into `folder`.
///
/// # Errors
/// rvmm, its guest or `first` fails.
pub(crate) fn measure(
    folder: &Path,
    options: &[&OsStr],
    first: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Footprint> {
    let rvmm = programs::rvmm()?;
    let mut command = Command::new(&rvmm);
    command.arg("--kernel").arg(Guest::HltForever.file(folder)?).args(options);
    command.env("XDG_RUNTIME_DIR", folder.join("kept")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = children::spawn(&mut command)?;
    // The last byte of what it says.
    output::wait_for(child.stdout.as_mut(), |byte| byte == b'\n')?;
    first()?;
    // What others reach the VM by is made when the guest has run for a moment.
    thread::sleep(Duration::from_millis(100));
    let process = format!("/proc/{}", child.id());
    let mut footprint = Footprint {
        anonymous_kib: 0,
        file_kib: 0,
        guest_kib: 0,
        threads: fs::read_dir(format!("{process}/task"))?.count(),
        binary_bytes: fs::metadata(&rvmm)?.len(),
    };
    footprint.add_mappings(&fs::read_to_string(format!("{process}/smaps")).context("memory of rvmm")?);
    ensure!(footprint.guest_kib > 0, "no mapping of rvmm has the size of guest memory");
    Ok(footprint)
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
