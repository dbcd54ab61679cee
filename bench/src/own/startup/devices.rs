//! `--devices`: what one more device adds to a start of rvmm.
//!
//! The guest is the one that writes its byte and powers off; it drives none of the devices, so that this is what their
//! mere presence costs: options, the device itself, its place on the bus, its description for the guest.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::Series;
use super::contenders::{Contender, RVMM, YARDSTICK};
use super::run::Sample;
use crate::own::programs;
use crate::own::summary::Summary;
use crate::own::tap::Tap;

/// Those that the others are compared with, by transport.
const ALONE: [&str; 2] = [RVMM, "rvmm, pci"];

/// A tap that is made for the time of the benchmark.
const TAP: &str = "rvmmstart0";

/// rvmm alone and with one device more, over each transport that it has. A tap, where one can be made, is in `tap`.
pub(crate) fn all(folder: &Path, tap: &mut Option<Tap>) -> anyhow::Result<Vec<Contender>> {
    let disk = folder.join("disk.img");
    fs::write(&disk, vec![0; 1 << 20])?;
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
    match Tap::new(TAP) {
        Ok(made) => {
            let tap = tap.insert(made).name();
            devices.push((
                "--net",
                ["with a tap", "with a tap, pci"],
                vec!["--net".into(), format!("tap={tap}").into()],
            ));
        }
        Err(error) => eprintln!("without a tap: {error:#}"),
    }

    let help = programs::rvmm_help()?;
    let has = |option: &str| programs::has(&help, option);
    let mut all = Vec::new();
    for alone in ALONE {
        let is_pci = alone != RVMM;
        let name = |[mmio, pci]: &[&'static str; 2]| if is_pci { *pci } else { *mmio };
        let transport: Vec<OsString> = match (is_pci, has("--transport")) {
            (false, false) => Vec::new(),
            (true, false) => continue,
            (_, true) => vec!["--transport".into(), name(&["mmio", "pci"]).into()],
        };
        all.push(Contender::rvmm(folder, alone, transport.clone(), None)?);
        for (option, names, args) in &devices {
            if has(option) {
                let args = [transport.clone(), args.clone()].concat();
                let left: Option<PathBuf> = (*option == "--vsock").then(|| socket.clone());
                all.push(Contender::rvmm(folder, name(names), args, left)?);
            }
        }
    }
    Ok(all)
}

/// By how much each start is longer than that of rvmm alone over the same transport.
pub(crate) fn table(all: &[Series]) -> String {
    let mut text = format!(
        "\n{:<30} {:>24} {:>12}\n",
        "one device more, in us", "to the byte: median, p90", "CPU: median"
    );
    let mut alone: &[Sample] = &[];
    for Series { contender, samples } in all {
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
        let _ = writeln!(
            text,
            "{:<30} {:>15.0} {:>8.0} {:>12.0}",
            contender.name, byte.median, byte.p90, cpu.median
        );
    }
    text
}
