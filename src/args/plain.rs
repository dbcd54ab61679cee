//! The shortest way through a command line: a plain run or restore, read word by word.
//!
//! clap describes every option to itself, on the heap, before it looks at the first word: a third of the instructions of a
//! start. So the common options are read here, by the same parsers of values. Whatever is not plain (another option, another
//! verb, a mistake, an option twice) is left to clap, which alone says what is wrong. The tests hold the two together.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::slice::Iter;

use clap::ValueEnum as _;

use super::{
    BalloonArg, ConsoleArg, ConsoleEnd, ControlArgs, DiskArg, LogArgs, NetArg, RestoreArgs, RunArgs,
    VsockArg, a_folder_at, a_name, disk_override, log, net_override, size, vsock_override, whole_number,
};

/// The run that `words`, without the program's name, describe; `None` unless it is a plain one without a mistake.
pub(super) fn run(words: &[OsString]) -> Option<RunArgs> {
    let mut run = RunArgs::default();
    let mut console = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let word = Word::option(word)?;
        let flag = match word.flag() {
            Some(b"detach") => Some(&mut run.control.detach),
            Some(b"no-api") => Some(&mut run.control.no_api),
            Some(b"track-dirty-pages") => Some(&mut run.track_dirty_pages),
            _ => None,
        };
        if let Some(flag) = flag {
            set(flag)?;
            continue;
        }
        let value = word.value(&mut words)?;
        let text = value.to_str();
        match word.name {
            b"kernel" => once(&mut run.kernel, value.into()),
            b"initrd" => once(&mut run.initrd, value.into()),
            b"cmdline" => once(&mut run.cmdline, text?.to_owned()),
            b"append" => once(&mut run.append, text?.to_owned()),
            b"config-file" => once(&mut run.config_file, value.into()),
            b"cpus" => once(&mut run.cpus, whole_number(text?).ok()?),
            b"memory" => once(&mut run.memory, size::parse(text?).ok()?),
            b"balloon" => once(&mut run.balloon, BalloonArg::parse(value).ok()?),
            b"id" => once(&mut run.id, a_name(text?).ok()?),
            b"rootfs" => once(&mut run.rootfs, DiskArg::parse_rootfs(value).ok()?),
            b"disk" => add(&mut run.disks, DiskArg::parse(value)),
            b"net" => add(&mut run.nets, NetArg::parse(value)),
            b"vsock" => once(&mut run.vsock, VsockArg::parse(value).ok()?),
            b"console" => once(&mut console, ConsoleArg::parse(value).ok()?),
            name => in_common(name, value, &mut run.control, &mut run.log),
        }?;
    }
    run.console = console.unwrap_or_default();
    let excluded = run.cmdline.is_some() && run.append.is_some() || is_contrary(&run.control);
    Some(run).filter(|run| run.names_a_guest() && !excluded)
}

/// The restore that `words`, behind the verb, describe; `None` unless it is a plain one without a mistake.
pub(super) fn restore(words: &[OsString]) -> Option<RestoreArgs> {
    let mut restore = RestoreArgs::default();
    let (mut dir, mut console) = (None, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if !word.is_empty() && !word.as_bytes().starts_with(b"-") {
            once(&mut dir, a_folder_at(Path::new(word)))?;
            continue;
        }
        let word = Word::option(word)?;
        let flag = match word.flag() {
            Some(b"paused") => Some(&mut restore.paused),
            Some(b"keep-clock") => Some(&mut restore.keep_clock),
            Some(b"track-dirty-pages") => Some(&mut restore.track_dirty_pages),
            Some(b"prefault") => Some(&mut restore.prefault),
            Some(b"accept-changed-disks") => Some(&mut restore.accept_changed_disks),
            Some(b"detach") => Some(&mut restore.control.detach),
            Some(b"no-api") => Some(&mut restore.control.no_api),
            _ => None,
        };
        if let Some(flag) = flag {
            set(flag)?;
            continue;
        }
        let value = word.value(&mut words)?;
        match word.name {
            b"id" => once(&mut restore.id, a_name(value.to_str()?).ok()?),
            b"disk" => add(&mut restore.disks, disk_override(value)),
            b"net" => add(&mut restore.nets, net_override(value)),
            b"vsock" => once(&mut restore.vsock, vsock_override(value).ok()?),
            b"console" => once(&mut console, ConsoleEnd::of(value).ok()?),
            name => in_common(name, value, &mut restore.control, &mut restore.log),
        }?;
    }
    restore.dir = dir?;
    restore.console = console.unwrap_or_default();
    if is_contrary(&restore.control) { None } else { restore.checked().ok() }
}

/// An option that runs and restores have alike.
fn in_common(name: &[u8], value: &OsStr, control: &mut ControlArgs, log: &mut LogArgs) -> Option<()> {
    match name {
        b"api-sock" => once(&mut control.api_sock, value.into()),
        b"metrics-path" => once(&mut control.metrics_path, value.into()),
        b"log-level" => once(&mut log.log_level, log::LogLevel::from_str(value.to_str()?, true).ok()?),
        b"log-file" => once(&mut log.log_file, value.into()),
        _ => None,
    }
}

/// One option excludes the other.
fn is_contrary(control: &ControlArgs) -> bool {
    control.no_api && control.api_sock.is_some()
}

/// A long option.
struct Word<'a> {
    name: &'a [u8],
    /// What is behind its equals sign, if it has one.
    value: Option<&'a [u8]>,
}

impl<'a> Word<'a> {
    fn option(word: &'a OsStr) -> Option<Self> {
        let mut parts = word.as_bytes().strip_prefix(b"--")?.splitn(2, |byte| *byte == b'=');
        Some(Self { name: parts.next()?, value: parts.next() })
    }

    /// Its name, unless it has a value with it.
    fn flag(&self) -> Option<&'a [u8]> {
        self.value.is_none().then_some(self.name)
    }

    /// Its value, which may be the next of `words`.
    fn value(&self, words: &mut Iter<'a, OsString>) -> Option<&'a OsStr> {
        let value = match self.value {
            Some(value) => OsStr::from_bytes(value),
            // One that begins with a dash may be an option, whose predecessor's value was forgotten.
            None => words.next().filter(|value| !value.as_bytes().starts_with(b"-"))?,
        };
        Some(value).filter(|value| !value.is_empty())
    }
}

/// Puts `value` in its place, if that is empty.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// Adds one to those that were given.
fn add<T, E>(list: &mut Vec<T>, value: Result<T, E>) -> Option<()> {
    list.push(value.ok()?);
    Some(())
}

/// Sets what was not set.
fn set(flag: &mut bool) -> Option<()> {
    (!std::mem::replace(flag, true)).then_some(())
}

#[cfg(test)]
mod tests {
    use super::super::parse_run;
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn by_clap(line: &str) -> Option<String> {
        let argv: Vec<_> = std::iter::once("rvmm".into()).chain(words(line)).collect();
        parse_run(&argv).map(|run| format!("{run:?}"))
    }

    fn here(line: &str) -> Option<String> {
        run(&words(line)).map(|run| format!("{run:?}"))
    }

    fn restore_by_clap(line: &str) -> Option<String> {
        super::super::restore(&words(line)).ok().map(|restore| format!("{restore:?}"))
    }

    fn restore_here(line: &str) -> Option<String> {
        restore(words(line).get(1..)?).map(|restore| format!("{restore:?}"))
    }

    #[track_caller]
    fn assert_alike(line: &str, here: Option<&str>, by_clap: Option<&str>) {
        assert!(here.is_some(), "{line} is plain");
        assert_eq!(here, by_clap, "{line}");
    }

    #[test]
    fn a_plain_run_is_what_clap_makes_of_it() {
        for line in [
            "--kernel k",
            "--kernel=k --initrd=i --cmdline=console=ttyS0 --cpus=2 --memory=1G",
            "--kernel k --initrd i --append quiet --cpus 2 --memory 512M",
            "--kernel k --append=-v",
            "--config-file c --id web --detach --track-dirty-pages",
            "--kernel k --rootfs r,readonly --disk path=a,engine=sync --disk=path=b,,c,id=data",
            "--kernel k --net user,publish=8080:80 --net tap=tap0,id=net7 --vsock cid=3,uds=v.sock",
            "--kernel k --balloon size=16M,reporting --metrics-path m",
            "--api-sock s",
            "--kernel k --no-api --console none --log-level WARNING --log-file l",
            "--kernel k --console virtio,file=log --log-level=debug",
            "--console stdio --kernel k",
        ] {
            assert_alike(line, here(line).as_deref(), by_clap(line).as_deref());
        }
    }

    #[test]
    fn what_clap_refuses_is_not_plain() {
        for line in [
            "--cpus 2",
            "--kernel",
            "--kernel ",
            "--kernel=",
            "--kernel --detach",
            "--kernel k --kernel l",
            "--kernel k --console stdio --console stdio",
            "--kernel k --no-api --no-api",
            "--kernel k --no-api=yes",
            "--kernel k --append a --cmdline b",
            "--no-api --api-sock s",
            "--kernel k --cpus many",
            "--kernel k --memory 2X",
            "--kernel k --disk speed=9",
            "--kernel k --console tty",
            "--kernel k --log-level loud",
            "--kernel k --id ",
            "--kernel k --cpu 2",
            "--kernel k word",
            "-d",
            "doctor",
        ] {
            assert_eq!(here(line), None, "{line}");
            assert_eq!(by_clap(line), None, "{line}");
        }
    }

    #[test]
    fn other_options_are_left_to_clap() {
        for line in [
            "--kernel k -d",
            "--kernel k --on-reset restart",
            "--kernel k --",
            "--kernel k --net",
            "--kernel k --level info",
        ] {
            assert_eq!(here(line), None, "{line}");
            assert!(by_clap(line).is_some(), "{line}");
        }
    }

    #[test]
    fn a_plain_restore_is_what_clap_makes_of_it() {
        for line in [
            "restore web.snap",
            "restore ./web.snap//",
            "restore --id web-2 web.snap --detach --no-api --paused --keep-clock",
            "restore web.snap --disk id=rootfs,path=a.img --disk=id=data,path=b,,c --accept-changed-disks",
            "restore web.snap --net id=net0,tap=tap1 --vsock uds=v.sock --api-sock=s --track-dirty-pages",
            "restore web.snap --prefault --console none --log-level INFO --log-file l --metrics-path m",
            "restore web.snap --console=file=c",
        ] {
            assert_alike(line, restore_here(line).as_deref(), restore_by_clap(line).as_deref());
        }
    }

    #[test]
    fn a_restore_that_clap_refuses_is_not_plain() {
        for line in [
            "restore",
            "restore ",
            "restore --id web",
            "restore a b",
            "restore a --id",
            "restore a --id=",
            "restore a --id b --id c",
            "restore a --paused --paused",
            "restore a --paused=no",
            "restore a --no-api --api-sock s",
            "restore a --disk path=b",
            "restore a --disk id=b,path=c --disk id=b,path=d",
            "restore a --net tap=b",
            "restore a --vsock speed=3",
            "restore a --console virtio",
            "restore a --console stdio --console stdio",
            "restore a --kernel k",
        ] {
            assert_eq!(restore_here(line), None, "{line}");
            assert_eq!(restore_by_clap(line), None, "{line}");
        }
    }

    #[test]
    fn other_options_of_a_restore_are_left_to_clap() {
        for line in ["restore a -d", "restore a --uffd b", "restore a --on-reset restart", "restore -- a"] {
            assert_eq!(restore_here(line), None, "{line}");
            assert!(restore_by_clap(line).is_some(), "{line}");
        }
    }
}
