//! Bytes from a client, in pieces, to the server itself: what is HTTP and what is not.
//!
//! Holds: no panic; the server goes on to answer others; and what comes back begins as HTTP does. There is no VM behind it.
#![no_main]

use std::io::{Read, Write};
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
/// How long it is waited for an answer that may not come.
const A_MOMENT: Duration = Duration::from_millis(5);

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

fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let mut stream = UnixStream::connect(socket()).unwrap();
    stream.set_read_timeout(Some(A_MOMENT)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    for piece in &pieces {
        // It may be closed before all of it is sent.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    // A reset ends it, too, and what goes on without an end.
    let _ = (&stream).take(1 << 20).read_to_end(&mut answer);
    drop(stream);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answer));

    let mut other = UnixStream::connect(socket()).unwrap();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    other.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut status = [0; 12];
    other.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
});
