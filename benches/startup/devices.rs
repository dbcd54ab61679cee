//! `--devices`: what one more device adds to a start of rvmm.
//!
//! The guest is the one that writes its byte and powers off; it drives none of the devices, so that this is what their
//! mere presence costs: options, the device itself, its place on the bus, its description for the guest.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::contenders::{Contender, YARDSTICK};
use crate::run::Sample;
use crate::summary::Summary;
use crate::{Result, programs};

/// Those that the others are compared with, by transport.
const ALONE: [&str; 2] = ["rvmm", "rvmm, pci"];

/// A tap that is made for the time of the benchmark.
const TAP: &str = "rvmmstart0";

/// rvmm alone and with one device more, over each transport that it has.
pub(crate) fn all(folder: &Path) -> Vec<Contender> {
    let disk = folder.join("disk.img");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let socket = folder.join("vsock");
    let disk = |options: &str| vec!["--disk".into(), format!("path={}{options}", disk.display()).into()];
    let mut devices: Vec<(&str, [&'static str; 2], Vec<OsString>)> = vec![
        ("--disk", ["with a disk, io_uring", "with a disk, io_uring, pci"], disk(",engine=io_uring")),
        ("--disk", ["with a disk, sync", "with a disk, sync, pci"], disk(",engine=sync")),
        ("--balloon", ["with a balloon", "with a balloon, pci"], vec!["--balloon".into()]),
        (
            "--vsock",
            ["with vsock", "with vsock, pci"],
            vec!["--vsock".into(), format!("cid=3,uds={}", socket.display()).into()],
        ),
    ];
    if tap(&["tuntap", "add", TAP, "mode", "tap"]) {
        devices.push((
            "--net",
            ["with a tap", "with a tap, pci"],
            vec!["--net".into(), format!("tap={TAP}").into()],
        ));
    }

    let known = Command::new(programs::rvmm()).arg("--help").output().unwrap();
    let known = String::from_utf8_lossy(&known.stdout).into_owned();
    let has = |option: &str| known.split_whitespace().any(|word| word == option);
    let mut all = Vec::new();
    for (number, alone) in ALONE.into_iter().enumerate() {
        let transport: &[&str] = match (number, has("--transport")) {
            (0, false) => &[],
            (0, true) => &["--transport", "mmio"],
            (_, false) => continue,
            (_, true) => &["--transport", "pci"],
        };
        let transport: Vec<OsString> = transport.iter().map(Into::into).collect();
        all.push(Contender::rvmm(folder, alone, transport.clone(), None));
        for (option, names, args) in &devices {
            if has(option) {
                let args = [transport.clone(), args.clone()].concat();
                let left: Option<PathBuf> = (*option == "--vsock").then(|| socket.clone());
                all.push(Contender::rvmm(folder, names[number], args, left));
            }
        }
    }
    all
}

/// Removes what `all` has made outside of its folder.
pub(crate) fn end() {
    tap(&["link", "delete", TAP]);
}

fn tap(args: &[&str]) -> bool {
    Command::new("ip").args(args).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Prints by how much each start is longer than that of rvmm alone over the same transport.
pub(crate) fn print(results: &[Result]) {
    println!("\n{:<30} {:>24} {:>12}", "one device more, in us", "to the byte: median, p90", "CPU: median");
    let mut alone: &[Sample] = &[];
    for Result { contender, samples } in results {
        if ALONE.contains(&contender.name) {
            alone = samples;
            continue;
        }
        if contender.name == YARDSTICK {
            continue;
        }
        let more = |time: fn(&Sample) -> std::time::Duration| {
            let pairs = samples.iter().zip(alone);
            Summary::of(
                pairs.map(move |(own, base)| (time(own).as_secs_f64() - time(base).as_secs_f64()) * 1e6),
            )
        };
        let byte = more(|sample| sample.to_byte);
        let cpu = more(|sample| sample.cpu);
        println!("{:<30} {:>15.0} {:>8.0} {:>12.0}", contender.name, byte.median, byte.p90, cpu.median);
    }
}
