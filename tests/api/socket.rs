//! The socket's file.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Instant;

use super::guest;
use crate::support::api::ApiSocket;
use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, poll, process};

#[test]
fn only_its_user_can_connect_and_it_is_gone_in_the_end() {
    require_kvm!();
    let socket = ApiSocket::new();
    let mut running = guest("hlt-forever", &socket).launch();
    socket.get("/").json();
    let metadata = fs::metadata(socket.path()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.mode() & 0o777, 0o600);
    running.signal(libc::SIGTERM);
    assert_eq!(running.end().code(), 128 + libc::SIGTERM);
    assert!(!socket.path().exists());
}

#[test]
fn what_a_killed_vm_left_is_replaced_and_what_a_live_one_has_is_not() {
    require_kvm!();
    let socket = ApiSocket::new();
    // A VM without a name is cleaned up after by any other that starts, such as that of a test beside this one.
    let id = format!("killed-{}", std::process::id());
    let mut killed = guest("hlt-forever", &socket).args(["--id", &id]).launch();
    socket.get("/").json();
    killed.signal(libc::SIGKILL);
    drop(killed);
    assert!(socket.path().exists());

    let mut running = guest("hlt-forever", &socket).args(["--id", &id]).launch();
    socket.get("/").json();
    let second = guest("hello", &socket).run();
    second.assert_refused(1, &["api.sock", "another process listens"]);
    // The first is still reached.
    socket.get("/").json();
    running.signal(libc::SIGTERM);
    running.end();
}

#[test]
fn whenever_a_vm_is_killed_the_next_one_takes_over() {
    require_kvm!();
    let socket = ApiSocket::new();
    let begin = Instant::now();
    guest("hlt-forever", &socket).launch().signal(libc::SIGKILL);
    let unit = begin.elapsed();
    for number in 0..24 {
        let mut killed = guest("hlt-forever", &socket).launch();
        // From before there is a socket until a guest halts behind it.
        thread::sleep(unit * number / 8);
        killed.signal(libc::SIGKILL);
        drop(killed);
        let mut next = guest("hlt-forever", &socket).launch();
        next.wait_for("halted");
        socket.get("/").json();
        next.signal(libc::SIGTERM);
        next.end();
        assert!(!socket.path().exists());
    }
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let socket = ApiSocket::new();
    fs::write(socket.path(), "precious").unwrap();
    guest("hello", &socket).run().assert_refused(1, &["api.sock", "no socket"]);
    assert_eq!(fs::read_to_string(socket.path()).unwrap(), "precious");
}

#[test]
fn paths_that_cannot_be_are_refused_by_their_name() {
    let long = format!("/tmp/{}", "x".repeat(103));
    let refused = Rvmm::guest("hello").args(["--api-sock", &long]).run();
    refused.assert_refused(1, &[&long, "108 bytes", "107 at most"]);
    let refused = Rvmm::guest("hello").args(["--api-sock", "/nowhere/at/all"]).run();
    refused.assert_refused(1, &["/nowhere/at/all"]);
}

#[test]
fn a_socket_that_somebody_else_put_there_meanwhile_stays() {
    require_kvm!();
    let socket = ApiSocket::new();
    let mut running = guest("hlt-forever", &socket).launch();
    socket.get("/").json();
    fs::remove_file(socket.path()).unwrap();
    let _other = UnixListener::bind(socket.path()).unwrap();
    running.signal(libc::SIGTERM);
    running.end();
    assert!(socket.path().exists());
}

#[test]
fn a_vm_that_cannot_be_made_leaves_no_socket() {
    let socket = ApiSocket::new();
    let refused = guest("hello", &socket).args(["--disk", "path=/nowhere/at/all"]).run();
    assert_eq!(refused.code(), 1);
    assert!(!socket.path().exists());
}

#[test]
fn there_is_a_thread_for_it_unless_it_is_not_wanted() {
    require_kvm!();
    let named_api = |pid| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks
            .filter(|task| {
                let name = task.as_ref().unwrap().path().join("comm");
                fs::read_to_string(name).unwrap() == "api\n"
            })
            .count()
    };
    let mut without = Rvmm::guest("spin-forever").arg("--no-api").launch();
    without.wait_for("spinning\n");
    assert_eq!(named_api(without.pid()), 0);
    let socket = ApiSocket::new();
    let mut plain = Rvmm::guest("spin-forever").launch();
    plain.wait_for("spinning\n");
    assert!(poll(|| named_api(plain.pid()) == 1));
    let mut with = guest("spin-forever", &socket).launch();
    with.wait_for("spinning\n");
    socket.get("/").json();
    assert_eq!(named_api(with.pid()), 1);
    assert_eq!(process::threads(with.pid()), process::threads(without.pid()) + 1);
}
