//! The console with a shell at its other end.

use std::fs;
use std::process::Stdio;

use super::{Guest, require_linux_guests};
use crate::support::terminal::Terminal;

/// What the shell prints when it waits for a line.
const PROMPT: &str = "# ";

#[test]
fn a_shell_answers_what_is_typed_through_a_pipe() {
    require_linux_guests!();
    let mut guest = Guest::small().shared_root().into_rvmm().stdin(Stdio::piped()).launch();
    guest.wait_for(PROMPT).send("echo $((6 * 7)) sevens\n").wait_for("42 sevens\r\n");
    // Sent at once, more than the port's FIFO holds. The shell's own line editor is not who reads it.
    let lines = "0123456789abcdef0123456789abcdef0123456789abcdef\n".repeat(40);
    guest.send("stty -echo; echo reading; cat >/tmp/lines; stty echo\n").wait_for("reading\r\n");
    guest.send(&lines).send("\x04").wait_for_times(3, PROMPT);
    guest.send("echo got $(wc -c </tmp/lines), $(sort -u /tmp/lines | wc -l) kind\n");
    guest.wait_for("got 1960, 1 kind\r\n");
    guest.send("exit\n");
    guest.end().assert_clean();
}

#[test]
fn a_shell_on_a_terminal_answers_and_is_interrupted_by_ctrl_c() {
    require_linux_guests!();
    let mut terminal = Terminal::open();
    let before = terminal.settings();
    let guest = terminal.launch(Guest::small().shared_root().into_rvmm());
    terminal.wait_for(PROMPT);
    // A shell of its own, so that whoever prints is the one to interrupt; and a prompt that is not what was typed.
    terminal.press("PS1='ne''xt> '; sh -c 'echo sleeping; sleep 1000'\r");
    terminal.wait_for("sleeping\r");
    terminal.press("\x03");
    terminal.wait_for("next> ");
    terminal.press("echo $((6 * 7)) sevens\r");
    terminal.wait_for("42 sevens\r");
    terminal.press("exit\r");
    assert_eq!(guest.end().code(), 0, "{}", terminal.screen());
    assert_eq!(terminal.settings(), before);
}

/// Debian's kernel, whose driver of the virtio console is a module.
fn virtio_console() -> Guest {
    Guest::debian("6_12").arg("--console").arg("virtio")
}

#[test]
fn a_shell_on_hvc0_answers_what_is_typed_through_a_pipe() {
    require_linux_guests!();
    let mut guest = virtio_console().into_rvmm().stdin(Stdio::piped()).launch();
    // Before the driver is there, the serial port speaks.
    guest.wait_for("rvmm-init\r\n").wait_for(PROMPT);
    guest.send("echo on $(tty) with $((6 * 7)) sevens\n").wait_for("on /dev/hvc0 with 42 sevens\r\n");
    let lines = "0123456789abcdef0123456789abcdef0123456789abcdef\n".repeat(400);
    guest.send("stty -echo; echo reading; cat >/lines; stty echo\n").wait_for("reading\r\n");
    guest.send(&lines).send("\x04").wait_for_times(3, PROMPT);
    guest.send("echo got $(wc -c </lines), $(sort -u /lines | wc -l) kind\n");
    guest.wait_for("got 19600, 1 kind\r\n");
    guest.send("exit\n");
    guest.end().assert_clean();
}

#[test]
fn a_shell_on_hvc0_is_interrupted_by_ctrl_c_and_knows_the_size_of_the_terminal() {
    require_linux_guests!();
    let mut terminal = Terminal::open();
    let before = terminal.settings();
    terminal.resize(101, 33);
    let guest = terminal.launch(virtio_console().into_rvmm());
    terminal.wait_for(PROMPT);
    terminal.press("echo size $(stty size)\r");
    terminal.wait_for("size 33 101\r");
    terminal.resize(90, 20);
    terminal.press("sleep 2; echo size $(stty size)\r");
    terminal.wait_for("size 20 90\r");
    terminal.press("PS1='ne''xt> '; sh -c 'echo sleeping; sleep 1000'\r");
    terminal.wait_for("sleeping\r");
    terminal.press("\x03");
    terminal.wait_for("next> ");
    terminal.press("exit\r");
    assert_eq!(guest.end().code(), 0, "{}", terminal.screen());
    assert_eq!(terminal.settings(), before);
}

#[test]
fn a_large_output_through_hvc0_is_complete_and_takes_fewer_exits_than_through_the_serial_port() {
    require_linux_guests!();
    let print = |console: &str, lines: u32| {
        let guest =
            Guest::debian("6_12").arg("--console").arg(console).args(["--log-level", "info", "--log-file"]);
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let command = format!("yes 0123456789abcdefghijklmnopqrstuvwxyz | head -n {lines}");
        let report = guest.arg(&log).run(&command);
        let printed = report.text().lines().filter(|line| *line == "0123456789abcdefghijklmnopqrstuvwxyz");
        assert_eq!(printed.count(), lines as usize, "{console}");
        // What all of it took: its time says more of the host.
        let log = fs::read_to_string(log).unwrap();
        let exits = log.split_once(" exits: ").unwrap().0.rsplit_once(' ').unwrap().1;
        exits.parse::<u32>().unwrap()
    };
    let (serial, more, virtio) = (print("stdio", 1), print("stdio", 301), print("virtio", 5000));
    // Each byte is an exit of the serial port, or more.
    assert!(more - serial >= 300 * 37, "{serial} and {more} exits");
    assert!(virtio < more, "{virtio} exits for 5000 lines, and {more} for 301");
}
