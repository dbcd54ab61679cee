//! The console on a terminal: raw while the guest runs, and as it was however rvmm ends.

use std::process::Command;

use crate::support::kvm::require_kvm;
use crate::support::terminal::Terminal;
use crate::support::{Rvmm, bare, poll, process};

const CTRL_A: &str = "\x01";
const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";

#[test]
fn keys_go_to_the_guest_as_they_are_typed() {
    require_kvm!();
    let mut terminal = Terminal::open();
    let guest = terminal.launch(Rvmm::guest("serial-echo"));
    terminal.wait_for("ready");
    // Without a line's end, and with what would otherwise be signals: the echo is the guest's.
    terminal.press(CTRL_C);
    terminal.press(CTRL_Z);
    terminal.press("abc");
    terminal.wait_for("\x03\x1aabc");
    assert!(terminal.settings().is_raw());
    terminal.press("q");
    assert_eq!(guest.end().code(), 0);
    assert!(!terminal.screen().contains("abcq"), "{:?}", terminal.screen());
}

#[test]
fn the_terminal_is_as_before_after_every_end() {
    require_kvm!();
    for (guest, text, signal, code) in [
        ("hello", "hello", None, 0),
        ("reset-acpi", "up", None, 0),
        ("execute-device", "jumping", None, 1),
        ("hlt-forever", "halted", Some(libc::SIGTERM), 128 + libc::SIGTERM),
        ("spin-forever", "spinning", Some(libc::SIGINT), 128 + libc::SIGINT),
        ("spin-forever", "spinning", Some(libc::SIGHUP), 128 + libc::SIGHUP),
    ] {
        let terminal = Terminal::open();
        let before = terminal.settings();
        assert!(!before.is_raw());
        let mut running = terminal.launch(Rvmm::guest(guest));
        terminal.wait_for(text);
        if let Some(signal) = signal {
            assert!(poll(|| terminal.settings().is_raw()), "{guest}");
            running.signal(signal);
        }
        assert_eq!(running.end().code(), code, "{guest}: {:?}", terminal.screen());
        assert_eq!(terminal.settings(), before, "{guest}");
    }
}

#[test]
fn the_terminal_is_as_before_after_a_crash() {
    require_kvm!();
    let terminal = Terminal::open();
    let before = terminal.settings();
    let mut guest = terminal.launch(Rvmm::guest("hlt-forever"));
    terminal.wait_for("halted");
    assert!(poll(|| terminal.settings().is_raw()));
    guest.signal(libc::SIGSEGV);
    assert!(!guest.end().status.success());
    assert_eq!(terminal.settings(), before);
}

#[test]
fn a_mistake_at_the_start_leaves_the_terminal_alone() {
    let terminal = Terminal::open();
    let before = terminal.settings();
    let ended = terminal.launch(Rvmm::new().args(["--kernel", "/does/not/exist"])).end();
    assert_eq!(ended.code(), 1);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn ctrl_a_x_quits() {
    require_kvm!();
    let mut terminal = Terminal::open();
    let before = terminal.settings();
    let guest = terminal.launch(Rvmm::guest("spin-forever"));
    terminal.wait_for("spinning");
    assert!(poll(|| terminal.settings().is_raw()));
    terminal.press(CTRL_A);
    terminal.press("x");
    assert_eq!(guest.end().code(), 0);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn ctrl_a_x_quits_when_the_guest_takes_no_input() {
    require_kvm!();
    let mut terminal = Terminal::open();
    let guest = terminal.launch(Rvmm::guest("hlt-forever"));
    terminal.wait_for("halted");
    assert!(poll(|| terminal.settings().is_raw()));
    // Far more than the port and any buffer behind it hold; then somebody wants out.
    for _ in 0..40 {
        terminal.press(&"typed in vain ".repeat(10));
    }
    terminal.press(CTRL_A);
    terminal.press("x");
    assert_eq!(guest.end().code(), 0);
}

#[test]
fn ctrl_a_h_helps_and_the_guest_gets_neither_key() {
    require_kvm!();
    let mut terminal = Terminal::open();
    let guest = terminal.launch(Rvmm::guest("serial-echo"));
    terminal.wait_for("ready");
    assert!(poll(|| terminal.settings().is_raw()));
    terminal.press(CTRL_A);
    terminal.press("h");
    terminal.wait_for("Ctrl-A x");
    terminal.press("[");
    terminal.press(CTRL_A);
    terminal.press(CTRL_A);
    terminal.press("]");
    // Pressed twice, Ctrl-A goes to the guest, once.
    terminal.wait_for("[\x01]");
    terminal.press("q");
    assert_eq!(guest.end().code(), 0);
}

/// A shell on `terminal` that starts rvmm in the background and prints its exit code.
fn in_background(guest: &str) -> Rvmm {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"set -m; "$@" & wait $!; echo "exit code $?""#, "sh"]);
    shell.arg(env!("CARGO_BIN_EXE_rvmm"));
    Rvmm::within(shell).arg("--kernel").arg(bare::path(guest))
}

#[test]
fn a_background_job_runs_to_its_end() {
    require_kvm!();
    let terminal = Terminal::open();
    let before = terminal.settings();
    let shell = terminal.launch(in_background("hello"));
    terminal.wait_for("hello, world");
    terminal.wait_for("exit code 0");
    assert_eq!(shell.end().code(), 0);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn a_background_job_leaves_the_terminal_and_its_keys_alone() {
    require_kvm!();
    let mut terminal = Terminal::open();
    let before = terminal.settings();
    let shell = terminal.launch(in_background("serial-echo"));
    terminal.wait_for("ready");
    terminal.press("not for the guest\n");
    let job = child_of(shell.pid());
    assert_eq!(terminal.settings(), before);
    assert_ne!(process::state(job), 'T', "stopped");
    process::kill(job, libc::SIGTERM);
    terminal.wait_for("exit code 143");
    // The terminal echoes what is typed; the guest would have sent it back a second time.
    assert_eq!(terminal.screen().matches("not for the guest").count(), 1, "{:?}", terminal.screen());
    assert_eq!(shell.end().code(), 0);
}

#[test]
fn a_terminal_that_goes_away_ends_the_vm() {
    require_kvm!();
    let terminal = Terminal::unwatched();
    let guest = terminal.launch(Rvmm::guest("hlt-forever"));
    assert!(poll(|| terminal.settings().is_raw()));
    terminal.hang_up();
    assert_eq!(guest.end().code(), 128 + libc::SIGHUP);
}

/// The only child of the process `pid`.
fn child_of(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap_or_else(|_| panic!("children of {pid}: {children:?}"))
}
