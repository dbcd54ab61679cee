//! Streams between guest and host when the VM is saved, and in a VM that is restored.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Guest, require_linux_guests};
use crate::support::Rvmm;

const PATIENCE: Duration = Duration::from_mins(3);

/// A stream to a program of the guest that gives back what it gets, as soon as that listens.
#[track_caller]
fn connect_first(path: &Path) -> BufReader<UnixStream> {
    let began = Instant::now();
    loop {
        match ask(path) {
            (stream, answer) if answer.starts_with("OK ") => return stream,
            (_, answer) => assert!(began.elapsed() < PATIENCE, "{answer:?}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A stream to it, when it has been heard of.
#[track_caller]
fn connect(path: &Path) -> BufReader<UnixStream> {
    let (stream, answer) = ask(path);
    assert!(answer.starts_with("OK "), "{answer:?}");
    stream
}

fn ask(path: &Path) -> (BufReader<UnixStream>, String) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"CONNECT 80\n").unwrap();
    let mut stream = BufReader::new(stream);
    let mut answer = String::new();
    stream.read_line(&mut answer).unwrap();
    (stream, answer)
}

#[track_caller]
fn assert_echoes(stream: &mut BufReader<UnixStream>) {
    let data: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    stream.get_mut().write_all(&data).unwrap();
    let mut back = vec![0; data.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == data);
}

#[test]
fn connections_outlive_a_snapshot_and_are_reset_in_a_restored_guest_which_makes_new_ones() {
    require_linux_guests!();
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let vsock = |cid: u32, name: &str| format!("cid={cid},uds={}", at(name).display());
    let listener = UnixListener::bind(at("saved_52")).unwrap();
    let for_restored = UnixListener::bind(at("restored_53")).unwrap();
    // One that reads from the host, and is told when that ends; socat's exit status says whether by an error.
    let command = "socat VSOCK-LISTEN:80,fork,backlog=20 PIPE & echo listening; \
                   socat -u VSOCK-CONNECT:2:52 -; echo ended $?; \
                   echo news | socat -u - VSOCK-CONNECT:2:53; echo sent $?; wait";
    let id = format!("sockets-{}", std::process::id());
    let guest = Guest::small().tools_root().arg("--id").arg(&id).arg("--vsock").arg(vsock(7, "saved"));
    let mut saved = guest.running(command).launch();
    saved.wait_for("listening\r\n");
    let mut to_guest = listener.accept().unwrap().0;
    to_guest.write_all(b"before\n").unwrap();
    saved.wait_for("before\r\n");
    // The shell says that it listens when it has started the program that will.
    let mut echo = connect_first(&at("saved"));
    assert_echoes(&mut echo);
    // What a guest's program has not been given yet is under way in the snapshot.
    let mut unread = connect(&at("saved"));
    unread.get_mut().write_all(&vec![1; 50_000]).unwrap();
    Rvmm::new().args(["snapshot", &id]).arg(at("snapshot")).run().assert_clean();
    to_guest.write_all(b"after\n").unwrap();
    saved.wait_for("after\r\n");
    assert_echoes(&mut echo);

    let mut restored =
        Rvmm::new().arg("restore").arg(at("snapshot")).arg("--vsock").arg(vsock(9, "restored")).launch();
    restored.wait_for("ended 1\r\n").wait_for("sent 0\r\n");
    let mut news = String::new();
    for_restored.accept().unwrap().0.read_to_string(&mut news).unwrap();
    assert_eq!(news, "news\n");
    assert_echoes(&mut connect(&at("restored")));

    to_guest.write_all(b"still\n").unwrap();
    saved.wait_for("still\r\n");
    assert_echoes(&mut echo);
}
