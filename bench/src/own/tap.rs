//! A tap for the time of a benchmark.

use std::process::Command;

use anyhow::{Context as _, ensure};

use super::children;

/// A tap, which is removed with this.
pub(crate) struct Tap(&'static str);

impl Tap {
    /// Makes one. One that an earlier run has left is as good.
    ///
    /// # Errors
    /// There is no `ip`, or no right to make a tap.
    pub(crate) fn new(name: &'static str) -> anyhow::Result<Self> {
        let made = ip(&["tuntap", "add", name, "mode", "tap"]);
        if made.is_err() {
            ip(&["link", "show", name]).and(made)?;
        }
        Ok(Self(name))
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.0
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = ip(&["link", "delete", self.0]);
    }
}

/// Runs `ip`.
///
/// # Errors
/// There is none, or it fails; with what it says.
pub(crate) fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output = children::run_undisturbed(Command::new("ip").args(args));
    let output = output.context("ip is not there; Debian's package iproute2 brings it")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", args.join(" "), complaint.trim());
    Ok(())
}
