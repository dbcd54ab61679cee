//! The ways in which a VM ends, and the exit codes.

use std::fs;

use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;
use crate::support::{Ended, Rvmm};

const RESETS: [&str; 3] = ["reset-i8042", "reset-acpi", "triple-fault"];
const RESET: &str = "rvmm: the guest reset itself\n";
const TRIPLE_FAULT: &str = "rvmm: the guest took a triple fault\n";
const PANIC: &str = "rvmm: the guest panicked (pvpanic)\n";

#[track_caller]
fn assert_ended(ended: &Ended, code: i32, stdout: &str, stderr: &str) {
    let Ended { stdout: printed, stderr: said, .. } = ended;
    assert_eq!((ended.code(), printed.as_str(), said.as_str()), (code, stdout, stderr), "{ended:#?}");
}

#[test]
fn every_way_to_reset_ends_the_vm_with_exit_code_0_and_a_line() {
    require_kvm!();
    for (guest, line) in RESETS.into_iter().zip([RESET, RESET, TRIPLE_FAULT]) {
        assert_ended(&Rvmm::guest(guest).run(), 0, "up\n", line);
    }
}

#[test]
fn a_reset_and_a_triple_fault_have_the_exit_codes_that_they_are_given() {
    require_kvm!();
    let run = |guest: &str, codes: &str| Rvmm::guest(guest).args(["--exit-on", codes]).run();
    assert_ended(&run("reset-acpi", "reset=7,triple-fault=8"), 7, "up\n", RESET);
    assert_ended(&run("reset-i8042", "reset=255"), 255, "up\n", RESET);
    assert_ended(&run("triple-fault", "reset=7,triple-fault=8"), 8, "up\n", TRIPLE_FAULT);
    assert_ended(&run("triple-fault", "reset=7"), 0, "up\n", TRIPLE_FAULT);
    // A triple fault that has a code ends the VM, whatever other resets do.
    let restart = Rvmm::guest("triple-fault").args(["--on-reset", "restart", "--exit-on", "triple-fault=9"]);
    assert_ended(&restart.run(), 9, "up\n", TRIPLE_FAULT);
    Rvmm::guest("hello").args(["--exit-on", "panic=3,triple-fault=4,reset=5"]).run().assert_clean();
}

#[test]
fn a_panic_ends_the_vm_if_it_has_an_exit_code_and_is_told_anyway() {
    require_kvm!();
    let mut guest = Rvmm::guest("panic").launch();
    guest.wait_for("goes on\n").signal(libc::SIGTERM);
    assert_ended(&guest.end(), 128 + libc::SIGTERM, "up\ngoes on\n", PANIC);
    let ended = Rvmm::guest("panic").args(["--exit-on", "panic=3"]).run();
    assert_eq!((ended.code(), ended.stderr.as_str()), (3, PANIC), "{ended:#?}");
    let ended = Rvmm::guest("panic").args(["--exit-on", "panic=3", "--on-reset", "restart"]).run();
    assert_eq!((ended.code(), ended.stderr.as_str()), (3, PANIC), "{ended:#?}");
}

#[test]
fn a_triple_fault_before_any_output_hints_at_its_causes() {
    require_kvm!();
    let ended = Rvmm::guest("triple-fault-early").run();
    assert_eq!((ended.code(), ended.stderr.lines().count()), (0, 1), "{ended:#?}");
    for words in ["triple fault before it wrote anything", "kernel", "alignment", "earlyprintk=serial"] {
        assert!(ended.stderr.contains(words), "{ended:#?}");
    }
}

#[test]
fn what_the_guest_does_is_told_on_stderr_and_in_the_log_if_that_is_a_file() {
    require_kvm!();
    let log = tempfile::NamedTempFile::new().unwrap();
    let ended = Rvmm::guest("reset-acpi").arg("--log-file").arg(log.path()).run();
    assert_ended(&ended, 0, "up\n", RESET);
    let log = fs::read_to_string(log.path()).unwrap();
    assert!(log.contains(" WARN ") && log.ends_with("the guest reset itself\n"), "{log}");
}

#[test]
fn exit_codes_that_cannot_be_are_refused() {
    for (codes, words) in [
        ("panic=256", &["panic=256", "0 to 255"][..]),
        ("reset=-1", &["reset=-1"]),
        ("oops=1", &["oops", "triple-fault=CODE"]),
        ("panic", &["panic=CODE"]),
    ] {
        Rvmm::guest("hello").args(["--exit-on", codes]).run().assert_refused(2, words);
    }
    let both = ["--exit-on", "reset=5", "--on-reset", "restart"];
    Rvmm::guest("hello").args(both).run().assert_refused(2, &["--exit-on reset", "--on-reset restart"]);
}

#[test]
fn every_way_to_reset_restarts_the_guest_when_asked_to() {
    require_kvm!();
    for guest in RESETS {
        let mut guest = Rvmm::guest(guest).args(["--on-reset", "restart"]).launch();
        guest.wait_for_times(3, "up\n").signal(libc::SIGTERM);
        let ended = guest.end();
        assert_eq!(ended.code(), 128 + libc::SIGTERM, "{ended:#?}");
        // The signal may come in the middle of a line.
        assert!("up\n".starts_with(&ended.stdout.replace("up\n", "")), "{ended:#?}");
    }
}

#[test]
fn a_restarted_guest_still_has_its_disk() {
    require_kvm!();
    let disk = Disk::new(8, "data");
    let mut guest = Rvmm::guest("reset-acpi").args(["--on-reset", "restart"]).disk(&disk.path(), "").launch();
    guest.wait_for_times(3, "up\n").signal(libc::SIGTERM);
    guest.end();
    assert_eq!(&disk.content()[..4], b"data");
}

#[test]
fn signals_end_a_guest_that_halts_and_one_that_spins() {
    require_kvm!();
    for (name, text) in [("hlt-forever", "halted\n"), ("spin-forever", "spinning\n")] {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            let mut guest = Rvmm::guest(name).launch();
            guest.wait_for(text).signal(signal);
            let ended = guest.end();
            assert_eq!((ended.code(), ended.stderr.as_str()), (128 + signal, ""), "{name}: {ended:#?}");
        }
    }
}

#[test]
fn a_signal_ends_all_cpus() {
    require_kvm!();
    let mut guest = Rvmm::guest("spin-forever").args(["--cpus", "4"]).launch();
    guest.wait_for("spinning\n").signal(libc::SIGTERM);
    assert_eq!(guest.end().code(), 128 + libc::SIGTERM);
}

#[test]
fn a_second_signal_does_no_harm() {
    require_kvm!();
    let mut guest = Rvmm::guest("spin-forever").launch();
    guest.wait_for("spinning\n").signal(libc::SIGTERM).signal(libc::SIGTERM).signal(libc::SIGINT);
    assert!(guest.end().code() > 128);
}

#[test]
fn nothing_is_left_behind() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let before = processes_in_session();
    for guest in ["hello", "reset-i8042"] {
        let mut rvmm = Rvmm::guest(guest);
        rvmm.command.current_dir(folder.path()).env("TMPDIR", folder.path());
        assert_eq!(rvmm.run().code(), 0);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(processes_in_session(), before);
}

/// How many processes named rvmm have no parent left but the system's.
fn processes_in_session() -> usize {
    let orphaned = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.rsplit_once(") ")?;
        let parent = rest.split(' ').nth(1)?;
        (name.ends_with("(rvmm") && parent == "1").then_some(())
    };
    fs::read_dir("/proc").unwrap().filter_map(|entry| orphaned(entry.unwrap().file_name().to_str()?)).count()
}
