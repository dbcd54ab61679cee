//! The console on pipes, files and nothing.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, poll, process};

#[test]
fn what_is_piped_in_reaches_the_guest_and_its_answer_comes_out() {
    require_kvm!();
    let mut guest = Rvmm::guest("serial-echo").stdin(Stdio::piped()).launch();
    guest.wait_for("ready\n").send("one ").wait_for("one ").send("two").wait_for("two").send("q");
    guest.end().assert_clean().assert_stdout("ready\none two");
}

#[test]
fn input_that_is_there_before_the_guest_listens_is_not_lost() {
    require_kvm!();
    let mut guest = Rvmm::guest("serial-echo").stdin(Stdio::piped()).launch();
    guest.send("earlyq").close_stdin();
    guest.end().assert_clean().assert_stdout("ready\nearly");
}

#[test]
fn more_input_than_the_port_holds_is_not_lost() {
    require_kvm!();
    let text = "0123456789".repeat(2000);
    let mut guest = Rvmm::guest("serial-echo").stdin(Stdio::piped()).launch();
    guest.wait_for("ready\n").send(&text).send("q");
    let ended = guest.end();
    ended.assert_clean();
    assert_eq!(ended.stdout.len(), "ready\n".len() + text.len());
    assert!(ended.stdout.ends_with(&text));
}

#[test]
fn rvmm_listens_to_signals_after_the_port_was_full() {
    require_kvm!();
    let full = "x".repeat(64);
    let mut guest = Rvmm::guest("serial-echo").stdin(Stdio::piped()).launch();
    guest.wait_for("ready\n").send(&full).wait_for(&full).signal(libc::SIGTERM);
    assert_eq!(guest.end().code(), 128 + libc::SIGTERM);
}

#[test]
fn input_from_a_file_reaches_the_guest() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("input");
    fs::write(&path, "from a file q").unwrap();
    let file = fs::File::open(&path).unwrap();
    Rvmm::guest("serial-echo").stdin(file.into()).run().assert_clean().assert_stdout("ready\nfrom a file ");
}

#[test]
fn every_byte_goes_through_unchanged() {
    require_kvm!();
    // Ctrl-A, Ctrl-C and the like are only special on a terminal.
    let bytes: String = (1..0x80_u8).map(char::from).filter(|byte| *byte != 'q').collect();
    let mut guest = Rvmm::guest("serial-echo").stdin(Stdio::piped()).launch();
    guest.wait_for("ready\n").send(&bytes).send("q");
    guest.end().assert_clean().assert_stdout(&format!("ready\n{bytes}"));
}

#[test]
fn the_end_of_the_input_does_not_end_the_guest() {
    require_kvm!();
    let mut guest = Rvmm::guest("serial-echo").stdin(Stdio::piped()).launch();
    guest.close_stdin().wait_for("ready\n").signal(libc::SIGTERM);
    assert_eq!(guest.end().code(), 128 + libc::SIGTERM);

    let mut guest = Rvmm::guest("serial-echo").stdin(Stdio::null()).launch();
    guest.wait_for("ready\n").signal(libc::SIGTERM);
    assert_eq!(guest.end().code(), 128 + libc::SIGTERM);
}

#[test]
fn a_flood_of_output_is_complete() {
    require_kvm!();
    let alphabet: String = ('a'..='z').collect();
    let expected = format!("{}\nend\n", alphabet.repeat(128 * 20));
    let ended = Rvmm::guest("serial-flood").run();
    ended.assert_clean();
    assert_eq!(ended.stdout.len(), expected.len());
    assert!(ended.stdout == expected, "the right length, but not the right bytes");
}

#[test]
fn a_reader_that_is_slow_loses_nothing() {
    require_kvm!();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let guest = Rvmm::guest("serial-flood").stdout(writer.into()).launch();
    let mut first = [0; 1];
    reader.read_exact(&mut first).unwrap();
    // By now, or soon, the pipe is full and the guest waits.
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.len(), rest.ends_with("\nend\n")), (26 * 128 * 20 + 4, true));
    guest.end().assert_clean();
}

#[test]
fn a_signal_ends_a_guest_whose_output_nobody_reads() {
    require_kvm!();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut guest = Rvmm::guest("serial-flood").stdout(writer.into()).launch();
    // The pipe holds 64 KiB, the guest writes more.
    assert!(poll(|| process::readable(&reader) >= 60_000));
    guest.signal(libc::SIGTERM);
    assert_eq!(guest.end().code(), 128 + libc::SIGTERM);
    drop(reader);
}

#[test]
fn input_does_not_keep_a_signal_from_a_guest_whose_output_nobody_reads() {
    require_kvm!();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut guest = Rvmm::guest("serial-flood").stdin(Stdio::piped()).stdout(writer.into()).launch();
    assert!(poll(|| process::readable(&reader) >= 60_000));
    guest.send("typed").signal(libc::SIGTERM);
    assert_eq!(guest.end().code(), 128 + libc::SIGTERM);
    drop(reader);
}

#[test]
fn a_guest_whose_output_nobody_reads_ends_when_kvm_cannot_run_it_any_further() {
    require_kvm!();
    let (_reader, writer) = std::io::pipe().unwrap();
    let ended =
        Rvmm::guest("smp-flood").args(["--cpus", "2", "--cmdline", "fault"]).stdout(writer.into()).run();
    assert_eq!(ended.code(), 1, "{ended:#?}");
    ended.assert_complaint(&["KVM", "vCPU 0"]);
}

#[test]
fn a_signal_ends_two_vcpus_whose_output_nobody_reads() {
    require_kvm!();
    let (reader, writer) = std::io::pipe().unwrap();
    let flood = Rvmm::guest("serial-flood-smp").args(["--cpus", "2", "--cmdline", ""]);
    let mut guest = flood.stdout(writer.into()).launch();
    assert!(poll(|| process::readable(&reader) >= 60_000));
    guest.signal(libc::SIGTERM);
    assert_eq!(guest.end().code(), 128 + libc::SIGTERM);
    drop(reader);
}

#[test]
fn a_restart_does_not_wait_for_output_that_nobody_reads() {
    require_kvm!();
    let (reader, writer) = std::io::pipe().unwrap();
    let flood = Rvmm::guest("serial-flood-smp").args(["--cpus", "2", "--cmdline", "reset"]);
    let flood = flood.args(["--on-reset", "restart", "--log-level", "debug"]);
    let mut guest = flood.stdout(writer.into()).launch();
    // Twice: the first of them has been replaced.
    guest.wait_for_log("restarts").signal(libc::SIGTERM);
    assert_eq!(guest.end().code(), 128 + libc::SIGTERM);
    drop(reader);
}

#[test]
fn a_signal_ends_an_rvmm_whose_complaint_nobody_reads() {
    require_kvm!();
    let (reader, writer) = std::io::pipe().unwrap();
    let (stdout, stderr) = (writer.try_clone().unwrap(), writer);
    let mut guest =
        Rvmm::guest("smp-flood").args(["--cpus", "2", "--cmdline", "fault"]).stdout(stdout.into());
    guest.command.stderr(stderr);
    let mut guest = guest.launch();
    // One thread is left, which writes what it has to say.
    assert!(poll(|| process::threads(guest.pid()) > 1));
    assert!(poll(|| process::threads(guest.pid()) == 1));
    guest.signal(libc::SIGTERM);
    assert_eq!(guest.end().status.signal(), Some(libc::SIGTERM));
    drop(reader);
}

#[test]
fn a_guest_whose_reader_is_gone_runs_on() {
    require_kvm!();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = Rvmm::guest("hello").stdout(writer.into()).run();
    assert_eq!(ended.code(), 0, "{ended:#?}");
}

#[test]
fn the_console_can_be_a_file_or_nothing() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.log");
    let file = format!("file={}", path.display());
    Rvmm::guest("hello").args(["--console", &file]).run().assert_clean().assert_stdout("");
    assert_eq!(fs::read_to_string(&path).unwrap(), "hello, world\n");

    Rvmm::guest("hello").args(["--console", "none"]).run().assert_clean().assert_stdout("");
}
