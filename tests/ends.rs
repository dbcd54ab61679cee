//! The ways in which a VM ends, and the exit codes.

use std::fs;

use crate::support::Rvmm;
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;

const RESETS: [&str; 3] = ["reset-i8042", "reset-acpi", "triple-fault"];

#[test]
fn every_way_to_reset_ends_the_vm_with_exit_code_0() {
    require_kvm!();
    for guest in RESETS {
        Rvmm::guest(guest).run().assert_clean().assert_stdout("up\n");
    }
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
        rvmm.run().assert_clean();
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
