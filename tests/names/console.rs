//! A VM's console by name: looked at, followed, sat down at.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use super::{Host, input};
use crate::support::api::request;
use crate::support::kvm::require_kvm;
use crate::support::poll;
use crate::support::terminal::Terminal;

const CTRL_A: &str = "\x01";
/// Bytes of the console that are kept.
const KEPT: usize = 64 << 10;

#[test]
fn what_a_guest_wrote_is_kept_and_followed() {
    require_kvm!();
    let host = Host::new();
    host.detach("serial-echo", "web");
    host.wait_for_output("web", "ready\n");
    let mut follower = host.verb(["logs", "-f", "web"]).launch();
    follower.wait_for("ready\n");
    let typing = host.verb(["console", "web"]).stdin(Stdio::piped()).launch();
    let mut typing = typing;
    typing.wait_for("ready\n").send("one");
    follower.wait_for("one");
    assert_eq!(host.ask(["logs", "web"]), "ready\none");
    typing.send("q");
    follower.end().assert_clean().assert_stdout("ready\none");
    typing.end().assert_clean().assert_stdout("ready\none");
}

#[test]
fn a_console_on_stdout_is_kept_as_well() {
    require_kvm!();
    let host = Host::new();
    let mut running = host.guest("serial-echo", "web").stdin(Stdio::piped()).launch();
    running.wait_for("ready\n").send("by hand ").wait_for("by hand ");
    host.wait_for_output("web", "ready\nby hand ");
    let attached = host.verb(["console", "web"]).stdin(input("from afar q")).run();
    attached.assert_clean().assert_stdout("ready\nby hand from afar ");
    running.end().assert_clean().assert_stdout("ready\nby hand from afar ");
}

#[test]
fn much_that_is_typed_at_once_arrives_whole() {
    require_kvm!();
    let host = Host::new();
    host.detach("serial-echo", "web");
    host.wait_for_output("web", "ready\n");
    let text = "0123456789".repeat(500);
    let attached = host.verb(["console", "web"]).stdin(input(&format!("{text}q"))).run();
    attached.assert_clean().assert_stdout(&format!("ready\n{text}"));
}

#[test]
fn a_terminal_is_raw_while_it_is_the_vm_s_console_and_left_by_ctrl_a_d() {
    require_kvm!();
    let host = Host::new();
    host.detach("serial-echo", "web");
    for leave in ["d", "x"] {
        let mut terminal = Terminal::open();
        let before = terminal.settings();
        let attached = terminal.launch(host.verb(["console", "web"]));
        terminal.wait_for("ready");
        assert!(poll(|| terminal.settings().is_raw()));
        terminal.press("[\x03");
        terminal.press(CTRL_A);
        terminal.press("h");
        terminal.wait_for("leave the console");
        terminal.press(CTRL_A);
        terminal.press(CTRL_A);
        terminal.press("]");
        terminal.wait_for("\x01]");
        terminal.press(CTRL_A);
        terminal.press(leave);
        assert_eq!(attached.end().code(), 0, "{}", terminal.screen());
        assert_eq!(terminal.settings(), before);
        assert_eq!(host.listed("web").unwrap()["state"], "Running");
    }
    assert_eq!(host.ask(["logs", "web"]), "ready\n[\x03\x01][\x03\x01]");
}

#[test]
fn several_sit_at_a_console_and_its_end_is_theirs() {
    require_kvm!();
    let host = Host::new();
    host.detach("serial-echo", "web");
    let mut terminals: Vec<Terminal> = (0..3).map(|_| Terminal::open()).collect();
    let before = terminals[0].settings();
    let attached: Vec<_> =
        terminals.iter().map(|terminal| terminal.launch(host.verb(["console", "web"]))).collect();
    for terminal in &terminals {
        terminal.wait_for("ready");
    }
    terminals[1].press("to all");
    for terminal in &terminals {
        terminal.wait_for("to all");
    }
    terminals[2].press("q");
    for (attached, terminal) in attached.into_iter().zip(&terminals) {
        assert_eq!(attached.end().code(), 0, "{}", terminal.screen());
        terminal.wait_for("web has ended");
        assert_eq!(terminal.settings(), before);
    }
}

#[test]
fn a_terminal_is_as_before_when_its_client_is_ended() {
    require_kvm!();
    let host = Host::new();
    host.detach("serial-echo", "web");
    let terminal = Terminal::open();
    let before = terminal.settings();
    let mut attached = terminal.launch(host.verb(["console", "web"]));
    terminal.wait_for("ready");
    assert!(poll(|| terminal.settings().is_raw()));
    attached.signal(libc::SIGTERM);
    assert!(!attached.end().status.success());
    assert_eq!(terminal.settings(), before);
}

#[test]
fn a_follower_that_does_not_read_holds_nobody_up_and_is_let_go() {
    require_kvm!();
    let host = Host::new();
    let socket = host.runtime.path().join("api.sock");
    let flood =
        host.guest("console-flood", "web").args(["--console", "virtio,none", "--api-sock"]).arg(&socket);
    let running = flood.launch();
    assert!(poll(|| socket.exists()));
    let mut idle = UnixStream::connect(&socket).unwrap();
    idle.write_all(request("GET", "/rvmm/console?follow=true", "").as_bytes()).unwrap();
    host.wait_for_output("web", "\nend\n");
    assert_eq!(host.verb(["logs", "web"]).run().stdout.len(), KEPT);
    // 10 MiB went by. What waits for the idle client is bounded, and then it is cut off without an end.
    let resident = resident_kib(running.pid());
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest);
    assert!(rest.len() < 2 << 20, "{}", rest.len());
    assert!(!rest.ends_with(b"0\r\n\r\n"));
    assert!(resident < 64 << 10, "{resident} KiB");
}

/// Memory that the process `pid` has, its guest's included, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_follower_that_reads_comes_to_the_end_of_a_flood() {
    require_kvm!();
    let host = Host::new();
    let flood = host.guest("console-flood", "web").args(["--detach", "--console", "virtio"]);
    flood.run().assert_clean();
    let mut follower = host.verb(["logs", "-f", "web"]).launch();
    follower.wait_for("\nend\n");
    host.ask(["kill", "--signal", "TERM", "web"]);
    let ended = follower.end();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stdout.ends_with("\nend\n") && ended.stdout.len() >= KEPT, "{}", ended.stdout.len());
}

#[test]
fn who_follows_for_a_reader_that_has_gone_goes_too_though_the_guest_is_quiet() {
    require_kvm!();
    let host = Host::new();
    host.detach("hlt-forever", "web");
    for verb in [["logs", "-f", "web"].as_slice(), &["events", "web"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        let following = host.verb(verb.iter().copied()).stdout(writer.into()).launch();
        drop(reader);
        assert_eq!(following.end().code(), 0, "{verb:?}");
    }
}
