//! `rvmm doctor`: what this host can do, what it lacks, and how to mend that.

mod cpu;
mod device_file;
mod devices;
mod isolation;
mod kvm;
mod memory;
mod report;
mod syscalls;

use std::fs;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use super::{Outcome, print};
use crate::args::DoctorArgs;
use report::{Check, Colour, Report};

/// Prints the report; exits with 0 when a VM can be started at all, with 1 otherwise.
pub(crate) fn run(args: &DoctorArgs) -> Outcome {
    let report = Report::new(checks());
    if args.json {
        let mut json = serde_json::to_vec_pretty(&report)?;
        json.push(b'\n');
        print(&json)?;
    } else {
        print(report.table(colour()).as_bytes())?;
    }
    Ok(if report.can_start_a_vm { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn checks() -> Vec<Check> {
    let mut checks = vec![kernel_release()];
    let cpu = vmm::kvm::host::HostCpu::read();
    let server = vmm::kvm::host::served_by();
    checks.extend(cpu::checks(&cpu, &server));
    checks.extend(kvm::checks(&cpu, &server));
    checks.extend(memory::checks());
    checks.extend(devices::checks());
    checks.extend(isolation::checks());
    checks
}

fn kernel_release() -> Check {
    Check::ok("kernel", format!("Linux {}", read("/proc/sys/kernel/osrelease").unwrap_or_default()))
}

/// A file of /proc or /sys, without the white space around its text.
fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Colour is for a terminal, unless its user asks for none (<https://no-color.org>).
fn colour() -> Colour {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    if std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb { Colour::Ansi } else { Colour::None }
}
