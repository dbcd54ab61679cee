mod snapshots;

use std::ffi::OsString;

use vmm::config::{LoadSnapshot, MemBackendType};

use super::*;

fn argv(words: &[&str]) -> Vec<OsString> {
    std::iter::once("rvmm").chain(words.iter().copied()).map(OsString::from).collect()
}

fn run_of(words: &[&str]) -> RunArgs {
    match parse(&argv(words)) {
        Ok(Invocation::Run(run)) => *run,
        other => panic!("{words:?} is not a run: {other:?}"),
    }
}

fn usage_of(words: &[&str]) -> String {
    match parse(&argv(words)) {
        Err(Stop::Usage(message)) => message,
        other => panic!("{words:?} is not refused: {other:?}"),
    }
}

#[test]
fn clap_finds_no_contradiction_in_the_definitions() {
    command().debug_assert();
}

#[test]
fn a_kernel_is_enough_and_the_rest_has_defaults() {
    let run = run_of(&["--kernel", "vmlinux"]);
    assert_eq!(run.kernel, Some("vmlinux".into()));
    assert_eq!(run.console, ConsoleArg { virtio: false, end: ConsoleEnd::Stdio });
    assert_eq!(run.on_reset, OnReset::Exit);
    assert_eq!(run.log.log_level, None);
    assert_eq!((run.cpus, run.memory), (None, None));
}

#[test]
fn every_option_of_a_run_is_understood() {
    let run = run_of(&[
        "--kernel=k",
        "--initrd=i",
        "--append=-v quiet",
        "--cpus=4",
        "--memory=2G",
        "--rootfs=r,readonly",
        "--disk=path=a,engine=sync",
        "--disk",
        "path=b,readonly,id=data",
        "--console=file=log",
        "--on-reset=restart",
        "--id=web",
        "--config-file=c",
        "--log-level=debug",
        "--log-file=l",
    ]);
    assert_eq!(run.append.as_deref(), Some("-v quiet"));
    assert_eq!((run.cpus, run.memory), (Some(4), Some(2 << 30)));
    assert_eq!(run.rootfs, Some(DiskArg { path: "r".into(), readonly: true, ..DiskArg::default() }));
    assert_eq!(
        run.disks,
        [
            DiskArg { path: "a".into(), engine: Some(Engine::Sync), ..DiskArg::default() },
            DiskArg { path: "b".into(), readonly: true, id: Some("data".to_owned()), ..DiskArg::default() },
        ]
    );
    assert_eq!(run.console, ConsoleArg { virtio: false, end: ConsoleEnd::File("log".into()) });
    assert_eq!(run.on_reset, OnReset::Restart);
    assert_eq!(run.log.log_level, Some(log::LogLevel::Debug));
}

#[test]
fn the_short_way_and_the_whole_command_line_agree() {
    for words in [
        &["--kernel", "k"][..],
        &["--config-file=c", "--cpus", "3", "--disk", "path=x"],
        &["--kernel", "k", "--cmdline", "--not-an-option", "--memory=1K"],
    ] {
        let short = parse_run(&argv(words)).expect("the short way");
        let whole = CommandLine::try_parse_from(argv(words)).expect("the whole command line").run;
        assert_eq!(format!("{short:?}"), format!("{whole:?}"));
    }
}

#[test]
fn nothing_to_run_is_answered_with_an_example() {
    for words in [&[][..], &["--cpus", "2"]] {
        assert!(usage_of(words).contains("rvmm --kernel vmlinux --rootfs"), "{words:?}");
    }
}

#[test]
fn a_mistake_is_told_in_one_line_with_the_mend() {
    for (words, finding) in [
        (&["--kernel", "k", "--bogus"][..], "unexpected argument '--bogus'"),
        (&["--kernel", "k", "--cpu", "2"], "'--cpus'"),
        (&["--kernel"], "a value is required for '--kernel"),
        (&["--kernel", "k", "--cpus", "many"], "'--cpus <N>': expected a whole number"),
        (&["--kernel", "k", "--memory", "2X"], "512M or 2G"),
        (&["--kernel", "k", "--append", "a", "--cmdline", "b"], "cannot be used with"),
        (
            &["--kernel", "k", "--disk", "path=x,speed=9"],
            "path=FILE, id=NAME, readonly, engine=sync|io_uring",
        ),
        (&["--kernel", "k", "--console", "tty"], "[virtio,]stdio, [virtio,]none, [virtio,]file=PATH"),
        (&["--kernel", "k", "--on-reset", "explode"], "exit, restart"),
        (&["--kernel", "k", "--kernel", "l"], "cannot be used multiple times"),
        (&["--kernel", "k", "doctor"], "doctor"),
        (&["dokter"], "doctor"),
        (&["completions"], "SHELL"),
        (&["completions", "tcsh"], "bash"),
    ] {
        let message = usage_of(words);
        assert!(message.contains(finding), "{words:?}: {message}");
        assert!(message.ends_with("(see rvmm --help)"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn help_shows_options_verbs_examples_and_exit_codes() {
    let Err(Stop::Text(help)) = parse(&argv(&["--help"])) else { panic!("no help") };
    for part in ["--kernel <FILE>", "doctor", "completions", "Examples:", "Exit codes:"] {
        assert!(help.contains(part), "{part} is missing:\n{help}");
    }
}

#[test]
fn the_version_is_one_line() {
    let version = concat!("rvmm ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(parse(&argv(&["--version"])).unwrap_err(), Stop::Text(version.to_owned()));
}

#[test]
fn verbs_are_understood() {
    assert!(matches!(
        parse(&argv(&["doctor", "--json"])),
        Ok(Invocation::Verb(Verb::Doctor(DoctorArgs { json: true })))
    ));
    assert!(matches!(parse(&argv(&["man"])), Ok(Invocation::Verb(Verb::Man))));
}

#[test]
fn sizes_are_binary() {
    for (text, bytes) in [
        ("512M", 512 << 20),
        ("2G", 2 << 30),
        ("1024K", 1 << 20),
        ("1k", 1 << 10),
        ("128MiB", 128 << 20),
        ("1T", 1 << 40),
        ("3", 3),
        ("0", 0),
        ("134217728", 128 << 20),
    ] {
        assert_eq!(size::parse(text), Ok(bytes), "{text}");
    }
}

#[test]
fn what_is_no_size_is_refused() {
    for text in [
        "",
        "M",
        "-1",
        "+1G",
        "1.5G",
        "1 G",
        "2MB",
        "2X",
        "0x10",
        "99999999999999999999",
        "18446744073709551615K",
    ] {
        assert!(size::parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_doubled_comma_belongs_to_the_path() {
    let disk = DiskArg::parse(OsStr::new("path=a,,b=c,readonly")).unwrap();
    assert_eq!(disk, DiskArg { path: "a,b=c".into(), readonly: true, ..DiskArg::default() });
    let rootfs = DiskArg::parse_rootfs(OsStr::new("a,,,readonly")).unwrap();
    assert_eq!(rootfs, DiskArg { path: "a,".into(), readonly: true, ..DiskArg::default() });
}

#[test]
fn a_path_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt as _;
    let disk = DiskArg::parse(OsStr::from_bytes(b"path=\xff,id=x")).unwrap();
    assert_eq!(disk.path.as_os_str().as_bytes(), b"\xff");
}

#[test]
fn caches_and_limits_are_for_every_disk() {
    let expected = DiskArg {
        path: "a".into(),
        cache: Cache::Unsafe,
        direct: true,
        bandwidth: std::num::NonZeroU64::new(10 << 20),
        ops: std::num::NonZeroU64::new(500),
        ..DiskArg::default()
    };
    let fields = "cache=unsafe,direct,bandwidth=10M,ops=500";
    assert_eq!(DiskArg::parse(OsStr::new(&format!("path=a,{fields}"))).unwrap(), expected);
    assert_eq!(DiskArg::parse_rootfs(OsStr::new(&format!("a,{fields}"))).unwrap(), expected);
}

#[test]
fn a_wrong_disk_says_what_is_wrong() {
    for (value, finding) in [
        ("", "unknown field ''"),
        ("readonly", "path=FILE is missing"),
        ("path=", "path=FILE is missing"),
        ("path", "path wants a value"),
        ("a.img", "unknown field 'a.img'; known are path=FILE"),
        ("path=a,engine=fast", "known are sync and io_uring"),
        ("path=a,readonly=yes", "readonly takes no value"),
        ("path=a,direct=on", "direct takes no value"),
        ("path=a,cache", "cache wants a value"),
        ("path=a,cache=none", "known are writeback and unsafe"),
        ("path=a,bandwidth=0", "bandwidth=0: nothing would pass"),
        ("path=a,bandwidth=fast", "bandwidth=fast: expected a number and K, M or G"),
        ("path=a,ops=1K", "ops=1K: expected a whole number"),
        ("path=a,ops=-1", "ops=-1: expected a whole number"),
        ("path=a,path=b", "path is given twice"),
        ("path=a,", "unknown field ''"),
    ] {
        let error = DiskArg::parse(OsStr::new(value)).unwrap_err();
        assert!(error.contains(finding), "{value}: {error}");
    }
}

#[test]
fn a_wrong_rootfs_says_what_is_wrong() {
    for (value, finding) in [
        ("", "a file is missing"),
        ("a,ro", "unknown field 'ro'; after the file readonly"),
        ("a,id=x", "unknown field 'id'"),
        ("a,", "unknown field ''"),
    ] {
        let error = DiskArg::parse_rootfs(OsStr::new(value)).unwrap_err();
        assert!(error.contains(finding), "{value}: {error}");
    }
}

#[test]
fn the_virtio_console_comes_before_its_end() {
    for (value, virtio, end) in [
        ("stdio", false, ConsoleEnd::Stdio),
        ("virtio", true, ConsoleEnd::Stdio),
        ("virtio,stdio", true, ConsoleEnd::Stdio),
        ("virtio,none", true, ConsoleEnd::None),
        ("virtio,file=a,b", true, ConsoleEnd::File("a,b".into())),
    ] {
        assert_eq!(ConsoleArg::parse(OsStr::new(value)), Ok(ConsoleArg { virtio, end }), "{value}");
    }
    for value in ["virtio,", "virtiofile=a", "none,virtio", ""] {
        assert!(ConsoleArg::parse(OsStr::new(value)).is_err(), "{value}");
    }
}
