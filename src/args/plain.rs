//! The shortest way through a command line: a plain run, read word by word.
//!
//! clap describes every option to itself, on the heap, before it looks at the first word: a third of the instructions of a
//! start. So the common options of a run are read here, by the same parsers of values. Whatever is not plain (another
//! option, a verb, a mistake, an option twice) is left to clap, which alone says what is wrong. The tests hold the two
//! together.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use clap::ValueEnum as _;

use super::{BalloonArg, ConsoleArg, DiskArg, NetArg, RunArgs, VsockArg, a_name, log, size, whole_number};

/// The run that `words`, without the program's name, describe; `None` unless it is a plain one without a mistake.
pub(super) fn parse(words: &[OsString]) -> Option<RunArgs> {
    let mut run = RunArgs::default();
    let mut console = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let option = word.as_bytes().strip_prefix(b"--")?;
        let flag = match option {
            b"detach" => Some(&mut run.control.detach),
            b"no-api" => Some(&mut run.control.no_api),
            b"track-dirty-pages" => Some(&mut run.track_dirty_pages),
            _ => None,
        };
        if let Some(flag) = flag {
            if std::mem::replace(flag, true) {
                return None;
            }
            continue;
        }
        let mut parts = option.splitn(2, |byte| *byte == b'=');
        let option = parts.next()?;
        // A value of its own word that begins with a dash may be an option whose value was forgotten.
        let value = match parts.next() {
            Some(value) => OsStr::from_bytes(value),
            None => words.next().filter(|value| !value.as_bytes().starts_with(b"-"))?,
        };
        let text = value.to_str();
        if value.is_empty() {
            return None;
        }
        match option {
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
            b"disk" => {
                run.disks.push(DiskArg::parse(value).ok()?);
                Some(())
            }
            b"net" => {
                run.nets.push(NetArg::parse(value).ok()?);
                Some(())
            }
            b"vsock" => once(&mut run.vsock, VsockArg::parse(value).ok()?),
            b"api-sock" => once(&mut run.control.api_sock, value.into()),
            b"metrics-path" => once(&mut run.control.metrics_path, value.into()),
            b"console" => once(&mut console, ConsoleArg::parse(value).ok()?),
            b"log-level" => once(&mut run.log.log_level, log::LogLevel::from_str(text?, true).ok()?),
            b"log-file" => once(&mut run.log.log_file, value.into()),
            _ => None,
        }?;
    }
    run.console = console.unwrap_or_default();
    let excluded =
        run.cmdline.is_some() && run.append.is_some() || run.control.no_api && run.control.api_sock.is_some();
    Some(run).filter(|run| run.names_a_guest() && !excluded)
}

/// Puts `value` in its place, if that is empty.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
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
        parse(&words(line)).map(|run| format!("{run:?}"))
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
            let run = here(line);
            assert!(run.is_some(), "{line} is plain");
            assert_eq!(run, by_clap(line), "{line}");
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
}
