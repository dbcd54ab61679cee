//! Streams between programs in the guest and on the host.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::guest::COMPLAINTS;
use super::{Guest, Report, require_linux_guests};

/// What each of them sends and gets back, in bytes.
const EACH: usize = 20_000;
/// What one of them sends and gets back by itself.
const BIG: usize = 8 << 20;
const PATIENCE: Duration = Duration::from_mins(2);

/// Takes `count` connections at `path`, so that all are there at a time, then gives each back what it sends, once it has
/// said that no more comes.
fn echo_server(path: &Path, count: usize) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let streams: Vec<UnixStream> = (0..count).map(|_| listener.accept().unwrap().0).collect();
        for mut stream in streams {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            let mut data = Vec::new();
            stream.read_to_end(&mut data).unwrap();
            stream.write_all(&data).unwrap();
        }
    })
}

/// Connects to `port` of the guest.
fn connect(path: &Path, port: u32) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, "CONNECT {port}").unwrap();
    let mut stream = BufReader::new(stream);
    let mut answer = String::new();
    stream.read_line(&mut answer).unwrap();
    assert!(answer.starts_with("OK "), "{answer:?}");
    stream
}

/// Bytes that tell one connection from another.
fn data_of(connection: usize) -> Vec<u8> {
    (0..EACH).map(|at| (at * 7 + connection * 13 + at / 251) as u8).collect()
}

/// `count` connections that the guest makes, one large one, and `count` that the host makes.
fn connections_each_way(series: &str, count: usize) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("v");
    let crowd = echo_server(&folder.path().join("v_52"), count);
    let single = echo_server(&folder.path().join("v_53"), 1);
    // Of the guest's programs, `socat PIPE` gives back what it gets, and passes the end of it on.
    let command = format!(
        "for i in $(seq {count}); do head -c {EACH} /dev/urandom >/tmp/$i; \
         (socat -t 100 - VSOCK-CONNECT:2:52 </tmp/$i >/tmp/$i.back && cmp /tmp/$i /tmp/$i.back && echo same-$i) & done; \
         wait; rm /tmp/*; echo crowd done; \
         head -c {BIG} /dev/urandom >/tmp/big; socat -t 100 - VSOCK-CONNECT:2:53 </tmp/big >/tmp/back; \
         cmp /tmp/big /tmp/back && echo big-same; rm /tmp/*; \
         socat - VSOCK-CONNECT:2:54 </dev/null || echo refused; \
         socat -t 100 VSOCK-LISTEN:80,fork,backlog=200 PIPE & \
         socat -u VSOCK-LISTEN:81 - & sleep 1; echo listening; wait $!; {COMPLAINTS}"
    );
    let mut guest = Guest::debian(series)
        .tools_root()
        .memory("512M")
        .arg("--vsock")
        .arg(format!("cid=7,uds={}", path.display()))
        .running(&command)
        .launch();
    guest.wait_for("listening\r\n");
    crowd.join().unwrap();
    single.join().unwrap();

    let mut streams: Vec<_> = (0..count).map(|_| connect(&path, 80)).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        let stream = stream.get_mut();
        stream.write_all(&data_of(number)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(back == data_of(number), "connection {number}: {} bytes came back", back.len());
    }
    // Nobody listens there.
    let mut refused = UnixStream::connect(&path).unwrap();
    refused.write_all(b"CONNECT 82\n").unwrap();
    assert_eq!(refused.read(&mut [0; 8]).unwrap_or_default(), 0);
    // Tells the guest that this is all.
    connect(&path, 81).get_mut().write_all(b"all").unwrap();

    let report = Report::of(&guest.end());
    report.assert_line("big-same").assert_line("refused").assert_no_complaints();
    for number in 1..=count {
        report.assert_line(&format!("same-{number}"));
    }
    assert!(!path.exists(), "the socket went with the VM");
}

#[test]
fn a_hundred_connections_each_way_carry_their_data_with_debian_6_12() {
    require_linux_guests!();
    connections_each_way("6_12", 100);
}

#[test]
fn connections_each_way_carry_their_data_with_debian_6_1() {
    require_linux_guests!();
    connections_each_way("6_1", 20);
}
