//! The virtio console, driven by a bare guest: complete, in order, and in nobody's way.

use std::fs;
use std::io::Read;

use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, poll, process};

/// What the guest writes to the virtio console.
fn flood() -> String {
    format!("{}\n", "x".repeat(4095)).repeat(64)
}

/// All of the virtio console's output and the line of the serial port, which comes out byte by byte and anywhere.
#[track_caller]
fn assert_complete(text: &str) {
    let serial: String = text.chars().filter(|letter| "end".contains(*letter)).collect();
    assert_eq!(serial, "end");
    let flood = flood();
    for (letter, more) in [('x', 0), ('\n', 1)] {
        let expected = flood.matches(letter).count() + more;
        assert_eq!(text.matches(letter).count(), expected, "{letter:?} in {} bytes", text.len());
    }
    assert_eq!(text.len(), flood.len() + "end\n".len());
}

fn guest() -> Rvmm {
    Rvmm::guest("virtio-console")
}

#[test]
fn output_is_complete_when_the_guest_has_powered_off() {
    require_kvm!();
    let ended = guest().args(["--console", "virtio"]).run();
    ended.assert_clean();
    assert_complete(&ended.stdout);
}

#[test]
fn output_can_go_to_a_file_or_nowhere() {
    require_kvm!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.log");
    let file = format!("virtio,file={}", path.display());
    guest().args(["--console", &file]).run().assert_clean().assert_stdout("");
    assert_eq!(fs::read_to_string(&path).unwrap().len(), flood().len() + "end\n".len());

    guest().args(["--console", "virtio,none"]).run().assert_clean().assert_stdout("");
}

#[test]
fn a_reader_that_is_slow_loses_nothing() {
    require_kvm!();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let guest = guest().args(["--console", "virtio"]).stdout(writer.into()).launch();
    assert!(poll(|| process::readable(&reader) >= 60_000));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_complete(&text);
    guest.end().assert_clean();
}

#[test]
fn a_signal_ends_a_guest_whose_output_nobody_reads() {
    require_kvm!();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut guest = guest().args(["--console", "virtio"]).stdout(writer.into()).launch();
    assert!(poll(|| process::readable(&reader) >= 60_000));
    guest.signal(libc::SIGTERM);
    assert_eq!(guest.end().code(), 128 + libc::SIGTERM);
    drop(reader);
}

#[test]
fn a_guest_whose_reader_is_gone_runs_on() {
    require_kvm!();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = guest().args(["--console", "virtio"]).stdout(writer.into()).run();
    assert_eq!(ended.code(), 0, "{ended:#?}");
}

#[test]
fn a_guest_without_a_virtio_console_finds_none() {
    require_kvm!();
    guest().run().assert_clean().assert_stdout("no such device\n");
}
