//! What a process can see of the machine that it runs on. Everything is only read.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::ifaddrs::getifaddrs;
use nix::sys::utsname::uname;
use procfs::process::all_processes;
use serde::{Deserialize, Serialize};

use super::kernel_log;

/// The most entries of any list. What is cut off may hide a leak, never make one up.
const MOST: usize = 512;

/// How much of `/proc/kallsyms` is read, in bytes: a symbol with an address comes after those of per-CPU variables.
const SYMBOLS: u64 = 256 << 10;

/// Files of which the beginning is taken, and how many bytes of it.
const FILES: [(&str, u64); 21] = [
    ("/etc/machine-id", 64),
    ("/proc/cmdline", 1024),
    ("/proc/cpuinfo", 256),
    ("/proc/interrupts", 128),
    ("/proc/loadavg", 64),
    ("/proc/meminfo", 64),
    ("/proc/modules", 128),
    ("/proc/partitions", 2048),
    ("/proc/self/gid_map", 512),
    ("/proc/self/mountinfo", 4096),
    ("/proc/self/status", 4096),
    ("/proc/self/uid_map", 512),
    ("/proc/sys/kernel/modules_disabled", 16),
    ("/proc/sys/kernel/random/boot_id", 64),
    ("/proc/sys/kernel/threads-max", 64),
    ("/sys/class/dmi/id/bios_date", 64),
    ("/sys/class/dmi/id/bios_version", 64),
    ("/sys/class/dmi/id/product_name", 64),
    ("/sys/class/dmi/id/product_serial", 64),
    ("/sys/class/dmi/id/product_uuid", 64),
    ("/sys/class/dmi/id/sys_vendor", 64),
];

/// Device nodes that are terminals.
const TERMINALS: [&str; 7] = ["tty", "pts/", "ptmx", "console", "vcs", "hvc", "ttyS"];

/// What was seen.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Sight {
    /// Release of the kernel.
    pub(crate) release: String,
    /// Its version: when, and with which options, it was built.
    pub(crate) version: String,
    /// The host name.
    pub(crate) host_name: String,
    /// When the kernel was started by its own account, in seconds since 1970; 0 where it doesn't say.
    pub(crate) booted: f64,
    /// The time by its clock, in seconds since 1970.
    pub(crate) now: f64,
    /// The beginnings of files, by path. Those that can't be read aren't there.
    pub(crate) files: BTreeMap<String, String>,
    /// Programs that run: process id, start time, name.
    pub(crate) processes: Vec<String>,
    /// Addresses of network interfaces: name, MAC.
    pub(crate) interfaces: Vec<String>,
    /// PCI devices: address, ids, first region.
    pub(crate) pci: Vec<String>,
    /// Device nodes, outside of terminals.
    pub(crate) devices: Vec<String>,
    /// A line of the kernel's log.
    pub(crate) log: Option<String>,
    /// A symbol of the kernel with its address.
    pub(crate) symbol: Option<String>,
    /// `/proc/sysrq-trigger` can be opened for writing.
    pub(crate) sysrq: bool,
}

impl Sight {
    /// Looks around.
    pub(crate) fn look() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
        let names = uname().ok();
        let name = |of: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            names.as_ref().map(|names| of(names).to_string_lossy().into_owned()).unwrap_or_default()
        };
        let files = FILES.iter().filter_map(|&(path, most)| Some((path.to_owned(), head(path, most)?)));
        let mut devices = Vec::new();
        device_nodes(Path::new("/dev"), 3, &mut devices);
        devices.sort();
        Self {
            release: name(|names| names.release()),
            version: name(|names| names.version()),
            host_name: name(|names| names.nodename()),
            booted: uptime().map_or(0.0, |uptime| now - uptime),
            now,
            files: files.collect(),
            processes: processes(),
            interfaces: interfaces(),
            pci: pci(),
            devices,
            log: kernel_log::line().map(|line| line.chars().take(200).collect()),
            symbol: symbol(),
            // Opening does nothing. Nothing is written, here or anywhere.
            sysrq: OpenOptions::new().write(true).open("/proc/sysrq-trigger").is_ok(),
        }
    }
}

/// The kernel's boot id, which no namespace changes.
pub(crate) fn boot_id() -> Option<String> {
    head("/proc/sys/kernel/random/boot_id", 64).filter(|id| !id.is_empty())
}

/// At most `most` bytes of a file.
fn head(path: &str, most: u64) -> Option<String> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(most).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).trim().to_owned())
}

fn uptime() -> Option<f64> {
    head("/proc/uptime", 64)?.split(' ').next()?.parse().ok()
}

/// Kernel threads are left out: the first ones are alike on all kernels.
fn processes() -> Vec<String> {
    let processes = all_processes().into_iter().flatten().filter_map(|process| {
        let process = process.ok()?;
        let stat = process.stat().ok()?;
        let program = process.cmdline().is_ok_and(|words| !words.is_empty());
        program.then(|| format!("{} {} {}", stat.pid, stat.starttime, stat.comm))
    });
    processes.take(MOST).collect()
}

/// Without the loopback interface, which has no address.
fn interfaces() -> Vec<String> {
    let addresses = getifaddrs().into_iter().flatten().filter_map(|interface| {
        let mac = interface.address?.as_link_addr()?.addr()?;
        let text = mac.map(|byte| format!("{byte:02x}")).join(":");
        (mac != [0; 6]).then(|| format!("{} {text}", interface.interface_name))
    });
    addresses.take(MOST).collect()
}

/// Only those with memory or ports of their own: without, those of two machines may be alike.
fn pci() -> Vec<String> {
    let folder = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    let mut devices: Vec<String> = folder
        .filter_map(|entry| {
            let value =
                |name: &str| head(&entry.path().join(name).to_string_lossy(), 256).unwrap_or_default();
            let resources = value("resource");
            let bar = resources
                .lines()
                .find(|line| line.split(' ').any(|word| !word.trim_matches(['0', 'x']).is_empty()))?;
            let address = entry.file_name().to_string_lossy().into_owned();
            Some(format!("{address} {}:{} {bar}", value("vendor"), value("device")))
        })
        .take(MOST)
        .collect();
    devices.sort();
    devices
}

fn device_nodes(folder: &Path, depth: u32, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        let name = path.strip_prefix("/dev").unwrap_or(&path).to_string_lossy().into_owned();
        let terminal = TERMINALS.iter().any(|prefix| name.starts_with(prefix));
        if kind.is_dir() && depth > 0 {
            device_nodes(&path, depth - 1, found);
        } else if (kind.is_char_device() || kind.is_block_device()) && !terminal && found.len() < MOST {
            found.push(path.to_string_lossy().into_owned());
        }
    }
}

/// The first function whose address isn't hidden.
fn symbol() -> Option<String> {
    let lines = BufReader::new(File::open("/proc/kallsyms").ok()?.take(SYMBOLS)).lines();
    lines.map_while(Result::ok).find_map(|line| {
        let mut words = line.split_whitespace();
        let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
        let shown = u64::from_str_radix(address, 16).is_ok_and(|address| address != 0);
        (shown && kind.eq_ignore_ascii_case("t")).then(|| format!("{address} {name}"))
    })
}
