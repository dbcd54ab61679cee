//! The console with a shell at its other end.

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
