//! Bytes from a client, in pieces, to the server itself: what is HTTP and what is not.
//!
//! Holds: no panic; the server goes on to answer others; and what comes back begins as HTTP does. There is no VM behind it.
#![no_main]

use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use api::{Limits, Server, Socket};
use libfuzzer_sys::fuzz_target;
use vmm::config::VmConfig;
use vmm::controller::{Controller, Options};

/// Longer than the server takes to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are read of an answer: that of a stream has no end.
const MAX_ANSWER: usize = 1 << 20;

/// Where the server listens. Its VM has ended, so that it answers everything by itself.
fn socket() -> &'static Path {
    // Kept: it serves to the end of the process.
    static SERVER: OnceLock<(PathBuf, Server)> = OnceLock::new();
    let (path, _) = SERVER.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("rvmm-fuzz-{}.sock", std::process::id()));
        let mut controller = Controller::new(VmConfig::default(), Options::default()).unwrap();
        let remote = controller.remote().unwrap();
        drop(controller);
        let server = Server::start(Socket::bind(&path).unwrap(), remote, Limits::default()).unwrap();
        (path, server)
    });
    path
}

/// Asks for something else on `other`, which the server comes to after it has read what was sent before.
fn ask(other: &mut UnixStream) {
    other.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // To the end of its JSON. A signal may interrupt it, which this bears.
    BufReader::new(other).read_until(b'}', &mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let mut stream = UnixStream::connect(socket()).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut other = UnixStream::connect(socket()).unwrap();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    for piece in &pieces {
        // It may be closed before all of it is sent.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    // The server has one thread: what it answers to the first of these it does after it has read what was sent, and the
    // second one after it has answered.
    ask(&mut other);
    ask(&mut other);

    stream.set_nonblocking(true).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // Nothing more, the end, or a reset.
    while let Ok(count @ 1..) = stream.read(&mut buffer)
        && answer.len() < MAX_ANSWER
    {
        answer.extend_from_slice(&buffer[..count]);
    }
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answer));
});
