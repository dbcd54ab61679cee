//! The names of the benchmark's interfaces and namespaces, and what goes by them.

use std::path::Path;
use std::{fs, process};

use procfs::process::Process;

use super::ip;

/// What all names begin with; the number of the process follows, which has seven digits at most, then a letter and a number.
/// An interface's name has 15 bytes at most.
const BEGIN: &str = "rvb";

/// Where `ip` keeps network namespaces.
pub(super) const NAMESPACES: &str = "/run/netns";

/// This process's name that ends with `end`.
pub(super) fn own(end: &str) -> String {
    format!("{BEGIN}{}{end}", process::id())
}

/// The host's end of what connects an instance's namespace.
pub(super) fn device_of(space: &str) -> String {
    space.replacen('n', "d", 1)
}

/// The number of the process that has made what is called `name`.
pub(super) fn maker(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(BEGIN)?;
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let (number, end) = rest.split_at_checked(end)?;
    let mut end = end.chars();
    let ours =
        matches!(end.next(), None | Some('h' | 's' | 'n' | 'd')) && end.all(|digit| digit.is_ascii_digit());
    if ours { number.parse().ok() } else { None }
}

/// Whether `process` is a benchmark that runs.
pub(super) fn lives(process: u32) -> bool {
    let stat = i32::try_from(process).ok().and_then(|process| Process::new(process).ok()?.stat().ok());
    let own = Process::myself().and_then(|own| own.stat());
    stat.is_some_and(|stat| stat.state != 'Z' && own.is_ok_and(|own| own.comm == stat.comm))
}

/// The names of all interfaces.
fn interfaces() -> impl Iterator<Item = String> {
    let text = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let names: Vec<_> =
        text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect();
    names.into_iter()
}

/// Removes what processes have made that `whose` wants to be rid of.
pub(super) fn remove(whose: impl Fn(u32) -> bool) {
    let wanted = |name: &str| maker(name).is_some_and(&whose);
    // A namespace that goes takes its ends of pairs along, but only after a while.
    for name in interfaces().filter(|name| wanted(name)) {
        remove_interface(&name);
    }
    for entry in fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if wanted(&name) {
            remove_namespace(&name);
        }
    }
}

/// Removes an interface, if it is there.
pub(super) fn remove_interface(name: &str) {
    let _ = ip(None, &[format!("link delete {name}")]);
}

/// Removes a namespace, if it is there.
pub(super) fn remove_namespace(name: &str) {
    if ip(None, &[format!("netns delete {name}")]).is_err() {
        // One that was never mounted on.
        let _ = fs::remove_file(Path::new(NAMESPACES).join(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_is_one_that_an_interface_may_have() {
        let longest = format!("{BEGIN}{}d{}", 1 << 22, 9999);
        assert!(longest.len() <= 15, "{longest}");
        assert_eq!(maker(&longest), Some(1 << 22));
    }

    #[test]
    fn names_of_others_have_no_maker() {
        for name in ["rvb", "rvbx", "rvb12x", "rvb12n3x", "rvb-12", "eth0", "rvmm12", "rvb99999999999"] {
            assert_eq!(maker(name), None, "{name}");
        }
    }

    #[test]
    fn a_process_that_is_not_a_benchmark_is_none_that_lives() {
        assert!(lives(process::id()));
        assert!(!lives(u32::MAX));
        assert_eq!(maker(&own("n3")), Some(process::id()));
        assert_eq!(device_of(&own("n3")), own("d3"));
    }
}
