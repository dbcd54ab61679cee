//! The socket's file, and clients that are not what they should be.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::guest::{Guest, is_closed};
use crate::virtio::vsock::packet::Op;
use crate::virtio::vsock::{MAX_SOCKET_PATH_LEN, VsockConfig, VsockDevice};

fn config(path: impl Into<std::path::PathBuf>) -> VsockConfig {
    VsockConfig { vsock_id: None, guest_cid: 3, uds_path: path.into() }
}

fn error_of(config: &VsockConfig) -> String {
    let error = VsockDevice::new(config).map(|_| ()).unwrap_err();
    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

#[test]
fn the_socket_is_its_user_s_alone_and_goes_with_the_device() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("v");
    let device = VsockDevice::new(&config(&path)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(device);
    assert!(!path.exists());
}

#[test]
fn a_socket_that_nobody_listens_at_is_replaced_and_one_in_use_is_not() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("v");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a stale one");
    let device = VsockDevice::new(&config(&path)).unwrap();
    let error = error_of(&config(&path));
    assert!(error.contains("v: another process listens on it"), "{error}");
    assert!(UnixStream::connect(&path).is_ok(), "the first one still listens");
    drop(device);
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("v");
    for make in [
        |path: &std::path::Path| fs::write(path, "precious"),
        |path: &std::path::Path| fs::create_dir(path),
        |path: &std::path::Path| std::os::unix::fs::symlink("/nowhere", path),
    ] {
        make(&path).unwrap();
        let before = fs::symlink_metadata(&path).unwrap().ino();
        let error = error_of(&config(&path));
        assert!(error.contains("v: there is a file that is no socket"), "{error}");
        assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), before);
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
    }
}

#[test]
fn a_socket_that_took_the_place_of_ours_stays() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("v");
    let device = VsockDevice::new(&config(&path)).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(device);
    assert!(path.exists());
}

#[test]
fn connections_go_on_when_the_socket_s_file_is_removed_and_nothing_spins() {
    let mut guest = Guest::new();
    let (socket, mut client) = guest.accept(80);
    fs::remove_file(guest.path()).unwrap();
    assert!(guest.harness.run_once(Duration::from_secs(1)), "it is noticed");
    let wakeups = (0..20).filter(|_| guest.harness.run_once(Duration::from_millis(5))).count();
    assert!(wakeups == 0, "{wakeups} wake-ups for nothing");
    guest.say(socket, Op::Rw, b"still here");
    assert_eq!(super::guest::read_now(&client), b"still here");
    client.write_all(b"so am I").unwrap();
    assert_eq!(guest.one().data, b"so am I");
}

#[test]
fn a_removed_file_is_noticed_after_a_reset_and_the_host_does_not_wait_for_resets() {
    let mut guest = Guest::new();
    let start = Instant::now();
    for _ in 0..100 {
        guest.harness.start(0, 16);
    }
    // A descriptor of inotify takes some 10 ms to close.
    assert!(start.elapsed() < Duration::from_millis(700), "{:?}", start.elapsed());
    assert!(!guest.harness.run_once(Duration::from_millis(5)), "the end of a watch is no event");
    fs::remove_file(guest.path()).unwrap();
    assert!(guest.harness.run_once(Duration::from_secs(1)), "it is noticed");
    let wakeups = (0..20).filter(|_| guest.harness.run_once(Duration::from_millis(5))).count();
    assert!(wakeups == 0, "{wakeups} wake-ups for nothing");
}

#[test]
fn configurations_that_cannot_be_are_refused_with_the_reason() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing/v");
    let error = error_of(&config(&missing));
    assert!(error.contains("missing/v: No such file or directory"), "{error}");
    let long = "x".repeat(MAX_SOCKET_PATH_LEN + 1);
    for (config, part) in [
        (config(&long), "has 108 bytes: a unix socket's path has 107 at most"),
        (config(""), "uds_path is empty"),
        (config("a\0b"), "zero byte"),
        (VsockConfig { guest_cid: 2, ..config("v") }, "guest_cid 2: a guest's context id is 3 to 4294967294"),
        (VsockConfig { guest_cid: 0xffff_ffff, ..config("v") }, "guest_cid 4294967295"),
        (VsockConfig { guest_cid: u64::MAX, ..config("v") }, "guest_cid 18446744073709551615"),
    ] {
        let error = error_of(&config);
        assert!(error.contains(part), "{error}");
    }
    let text = r#"{"vsock_id": "old", "guest_cid": 3, "uds_path": "/v"}"#;
    let parsed: VsockConfig = serde_json::from_str(text).unwrap();
    assert_eq!(parsed, VsockConfig { vsock_id: Some("old".into()), ..config("/v") });
    let unknown = r#"{"guest_cid": 3, "uds_path": "/v", "x": 1}"#;
    let error = serde_json::from_str::<VsockConfig>(unknown).unwrap_err().to_string();
    assert!(error.contains("unknown field `x`"), "{error}");
}

#[test]
fn a_client_that_talks_nonsense_is_sent_away() {
    let mut guest = Guest::new();
    for line in [
        "CONNECT\n",
        "CONNECT x\n",
        "CONNECT -1\n",
        "CONNECT 4294967296\n",
        "CONNECT 80 81\n",
        "GET / HTTP/1.1\r\n",
        "\n",
        "\u{fffd}\n",
        &"x".repeat(10_000),
    ] {
        let client = guest.client(line.as_bytes());
        guest.run();
        assert!(is_closed(&client), "{line:?}");
    }
    assert_eq!(guest.ops(), [], "the guest hears nothing of it");
    assert_eq!(guest.metrics.rejected_clients.get(), 9);
    for line in ["connect 80\n", "  Connect\t80\r\n"] {
        let client = guest.client(line.as_bytes());
        assert_eq!(guest.ops(), [Op::Request], "{line:?}");
        drop(client);
        assert_eq!(guest.ops(), [Op::Rst]);
    }
}

#[test]
fn a_line_may_come_in_pieces() {
    let mut guest = Guest::new();
    let mut client = guest.client(b"CON");
    guest.run();
    for piece in ["NECT ", "8", "0"] {
        client.write_all(piece.as_bytes()).unwrap();
        guest.run();
    }
    assert!(!is_closed(&client));
    client.write_all(b"\n").unwrap();
    let request = guest.one().header;
    assert_eq!((request.op, request.dst_port), (Op::Request, 80));
}

#[test]
fn silent_clients_keep_nobody_out() {
    let mut guest = Guest::new();
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(guest.client(b""));
        guest.run();
    }
    let _gone: Vec<_> = silent.drain(200..).collect();
    let (_, mut client) = guest.accept(80);
    client.write_all(b"heard").unwrap();
    assert_eq!(guest.one().data, b"heard");
    let wakeups = (0..20).filter(|_| guest.harness.run_once(Duration::from_millis(5))).count();
    assert!(wakeups <= 2, "{wakeups} wake-ups for nothing");
}

#[test]
fn five_thousand_clients_that_come_and_go_leave_nothing_behind() {
    let mut guest = Guest::new();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    for round in 0..5000 {
        let line: &[u8] = match round % 3 {
            0 => b"",
            1 => b"CONN",
            _ => b"nonsense\n",
        };
        drop(guest.client(line));
        if round % 50 == 0 {
            guest.run();
        }
    }
    guest.run();
    let before = descriptors();
    let (_, mut client) = guest.accept(80);
    client.write_all(b"heard").unwrap();
    assert_eq!(guest.one().data, b"heard");
    assert!(before < 900, "{before} descriptors, those of other tests included");
}

#[test]
fn a_client_that_leaves_before_the_guest_answers_is_taken_back() {
    let mut guest = Guest::new();
    let client = guest.client(b"CONNECT 80\n");
    assert_eq!(guest.ops(), [Op::Request]);
    drop(client);
    assert_eq!(guest.ops(), [Op::Rst]);
}

#[test]
fn clients_wait_for_the_guest_s_driver() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("v");
    let device = VsockDevice::new(&config(&path)).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"CONNECT 80\n").unwrap();
    let mut harness = crate::virtio::queue_harness::Harness::new(device);
    assert!(!harness.run_once(Duration::from_millis(5)), "nothing wakes the event loop before the driver");
    harness.start(0, 16);
    let buffer = harness.allocate(4096, 0);
    harness.add_chain(0, &[crate::virtio::queue_harness::Buffer::writable(buffer, 4096)]);
    assert_eq!(harness.wait_used(0, 1)[0].len, 44);
    drop(harness);
    assert_eq!(client.read(&mut [0]).unwrap_or_default(), 0);
}
