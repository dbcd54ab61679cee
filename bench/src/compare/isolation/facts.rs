//! What of the host the probe has seen: two looks at machines, compared.
//!
//! Results are handed on. What could identify a host, or help who attacks it, is told by its shape only: how long an id is, how
//! many devices were seen, never which. What the results say of the host anyway, as its processor, is told as it is.

use std::collections::BTreeSet;

use crate::probe::Sight;
use crate::results::{Answer, Leak, Means};

/// How far two accounts of the start of one kernel may be apart, in seconds.
const SAME_BOOT: f64 = 2.0;

/// How far the load of 15 minutes may be apart if it is that of one kernel: it was read some seconds later.
const SAME_LOAD: f64 = 0.1;

/// Types of file systems that have files, and no device of this kernel.
const FILES: [&str; 9] = ["9p", "bcachefs", "btrfs", "ceph", "cifs", "nfs4", "overlay", "virtiofs", "zfs"];

/// How long an excerpt may be, in characters.
const EXCERPT: usize = 120;

/// Whether `seen` is of the host's kernel.
pub(super) fn host_kernel(host: &Sight, seen: &Sight) -> Answer {
    let alike = host.release == seen.release && host.version == seen.version;
    let id = "/proc/sys/kernel/random/boot_id";
    let (own, other) = (file(host, id), file(seen, id));
    let unknown = own.is_empty() || other.is_empty();
    let yes = alike && (unknown || own == other);
    let words = match () {
        () if !alike => format!("{}, the host has {}", seen.release, host.release),
        () if unknown => "the release and version of the host; no boot id".to_owned(),
        () if yes => "the release, version and boot id of the host".to_owned(),
        () => "the release of the host, but another boot id".to_owned(),
    };
    Answer { yes, by: Means::Compared, seen: excerpt(&words) }
}

/// Which facts of the host show in `seen`; `shared` is whether both have one kernel.
pub(super) fn compare(host: &Sight, seen: &Sight, shared: bool) -> Vec<Leak> {
    let boots = (host.booted - seen.booted).abs() <= SAME_BOOT && seen.booted > 0.0;
    let up =
        if seen.booted > 0.0 { format!("up for {:.0} s", seen.now - seen.booted) } else { String::new() };
    vec![
        leak("time since boot", boots, &up),
        secret(
            "boot id",
            file(host, "/proc/sys/kernel/random/boot_id"),
            file(seen, "/proc/sys/kernel/random/boot_id"),
        ),
        secret("machine id", file(host, "/etc/machine-id"), file(seen, "/etc/machine-id")),
        secret("host name", &host.host_name, &seen.host_name),
        equal(
            "model of the processor",
            value(host, "/proc/cpuinfo", "model name"),
            value(seen, "/proc/cpuinfo", "model name"),
        ),
        equal(
            "size of memory",
            value(host, "/proc/meminfo", "MemTotal"),
            value(seen, "/proc/meminfo", "MemTotal"),
        ),
        load(host, seen, shared),
        secret("kernel command line", file(host, "/proc/cmdline"), file(seen, "/proc/cmdline")),
        of_kernel("kernel log", seen.log.as_deref(), shared, "a line of the log"),
        of_kernel("kernel addresses", seen.symbol.as_deref(), shared, "an address of the kernel"),
        of_kernel("kernel modules", first_line(seen, "/proc/modules"), shared, "modules by name"),
        of_kernel("interrupt counters", first_line(seen, "/proc/interrupts"), shared, "counters"),
        equal(
            "limit of threads (/proc/sys)",
            file(host, "/proc/sys/kernel/threads-max"),
            file(seen, "/proc/sys/kernel/threads-max"),
        ),
        common("other processes", "programs", &host.processes, &seen.processes),
        common("mounts", "file systems", &mounts(host, shared), &mounts(seen, shared)),
        common("disks and their sizes", "disks and partitions", &partitions(host), &partitions(seen)),
        common("PCI devices", "devices", &host.pci, &seen.pci),
        common("addresses of network interfaces", "addresses", &host.interfaces, &seen.interfaces),
        secret("firmware (DMI)", &firmware(host), &firmware(seen)),
    ]
}

/// A file that the probe has read; empty where it could not.
pub(super) fn file<'a>(sight: &'a Sight, path: &str) -> &'a str {
    sight.files.get(path).map_or("", |text| text.trim())
}

/// The words of a file, with one space between them.
pub(super) fn words(sight: &Sight, path: &str) -> String {
    excerpt(&file(sight, path).split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The beginning of `text`, on one line.
pub(super) fn excerpt(text: &str) -> String {
    let line = text.trim().replace(['\r', '\n', '\t'], " ");
    if line.chars().count() <= EXCERPT {
        return line;
    }
    line.chars().take(EXCERPT - 1).chain(['…']).collect()
}

fn first_line<'a>(sight: &'a Sight, path: &str) -> Option<&'a str> {
    file(sight, path).lines().next()
}

/// The value of a line "key : value".
fn value<'a>(sight: &'a Sight, path: &str, key: &str) -> &'a str {
    let lines = file(sight, path).lines();
    lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map_or("", |(_, value)| value.trim())
}

fn leak(fact: &str, leaks: bool, seen: &str) -> Leak {
    let seen = if seen.trim().is_empty() { "nothing".to_owned() } else { excerpt(seen) };
    Leak { fact: fact.to_owned(), leaks, seen }
}

/// Tells the host from what is the same there. What is empty tells nothing.
fn equal(fact: &str, host: &str, seen: &str) -> Leak {
    leak(fact, !seen.is_empty() && host == seen, seen)
}

/// The same for a value that is nobody else's business.
fn secret(fact: &str, host: &str, seen: &str) -> Leak {
    let whose = if host == seen { "the host's" } else { "another than the host's" };
    let length = seen.chars().count();
    let words = if seen.is_empty() { String::new() } else { format!("{whose}, {length} characters") };
    leak(fact, !seen.is_empty() && host == seen, &words)
}

/// What any kernel shows of itself is the host's if the kernel is; `shape` is what that looks like.
fn of_kernel(fact: &str, seen: Option<&str>, shared: bool, shape: &str) -> Leak {
    leak(fact, shared && seen.is_some(), seen.map_or("", |_| shape))
}

/// Leaks if something of the host is among what was seen.
fn common(fact: &str, what: &str, host: &[String], seen: &[String]) -> Leak {
    let host: BTreeSet<_> = host.iter().collect();
    let shared = seen.iter().filter(|one| host.contains(one)).count();
    let words = match (shared, seen.len()) {
        (_, 0) => String::new(),
        (0, count) => format!("{count} {what}, none of the host"),
        (shared, count) => format!("{shared} of {count} {what} are the host's"),
    };
    leak(fact, shared > 0, &words)
}

/// The load of the last 15 minutes changes slowly. One near 0 tells nothing of another kernel's.
fn load(host: &Sight, seen: &Sight, shared: bool) -> Leak {
    let quarter =
        |sight| file(sight, "/proc/loadavg").split(' ').nth(2).and_then(|word| word.parse::<f64>().ok());
    let same = quarter(host).zip(quarter(seen)).is_some_and(|(host, seen)| {
        (host - seen).abs() <= SAME_LOAD && (shared || (host > SAME_LOAD && seen > SAME_LOAD))
    });
    leak("load", same, file(seen, "/proc/loadavg"))
}

/// Disks: name and size. Two kernels may well give the same name to disks that are not the same.
fn partitions(sight: &Sight) -> Vec<String> {
    let lines = file(sight, "/proc/partitions").lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, _, blocks, name] = words.as_slice() else { return None };
        blocks.parse::<u64>().ok().map(|blocks| format!("{name}, {blocks} KiB"))
    });
    lines.collect()
}

/// File systems that are mounted from a device, with its size where it is known; if both sights are of one kernel, also those
/// that have files without a device.
fn mounts(sight: &Sight, shared: bool) -> Vec<String> {
    let disks = partitions(sight);
    let disk =
        |name: &str| disks.iter().find(|disk| disk.split_once(',').is_some_and(|(disk, _)| disk == name));
    // 22 1 254:1 /inner /mnt rw,relatime shared:1 - ext4 /dev/vda1 rw
    let sources = file(sight, "/proc/self/mountinfo").lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let mut source = source.split(' ');
        let (kind, source) = (source.next()?, source.next()?);
        match source.strip_prefix("/dev/") {
            Some(name) => Some(disk(name).map_or_else(|| source.to_owned(), |disk| format!("/dev/{disk}"))),
            None if shared && FILES.contains(&kind) => Some(format!("{kind} {}", mount.split(' ').nth(2)?)),
            None => None,
        }
    });
    sources.collect::<BTreeSet<_>>().into_iter().collect()
}

/// All that the firmware says of the machine. A serial number or UUID is read by root only.
fn firmware(sight: &Sight) -> String {
    let values: Vec<_> = sight
        .files
        .iter()
        .filter(|(path, text)| path.starts_with("/sys/class/dmi/") && !text.is_empty())
        .map(|(_, text)| text.as_str())
        .collect();
    values.join(", ")
}

#[cfg(test)]
mod tests;
