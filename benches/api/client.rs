//! A client that keeps its connection, and does no more for each request than it must.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it is left alone between two tries.
const PAUSE: Duration = Duration::from_micros(20);

/// A connection to a server.
pub(crate) struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects as soon as somebody listens at `path`.
    pub(crate) fn connect(path: &Path) -> Self {
        let begin = Instant::now();
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Self { stream, buffer: vec![0; 64 << 10] },
                Err(error) => assert!(begin.elapsed() < PATIENCE, "{}: {error}", path.display()),
            }
            thread::sleep(PAUSE);
        }
    }

    /// Asks, and reads the answer, whose status has to be `status`: its length.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str, status: u16) -> usize {
        self.send(&request(method, path, body));
        self.answer(status)
    }

    pub(crate) fn send(&mut self, request: &[u8]) {
        self.stream.write_all(request).unwrap();
    }

    pub(crate) fn answer(&mut self, status: u16) -> usize {
        let mut len = 0;
        loop {
            let count = self.stream.read(&mut self.buffer[len..]).unwrap();
            assert!(count > 0, "the server closed the connection");
            len += count;
            if let Some(expected) = length(&self.buffer[..len]) {
                if len < expected {
                    continue;
                }
                let text = String::from_utf8_lossy(&self.buffer[..len]);
                assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
                return len;
            }
        }
    }
}

/// The bytes of a request.
pub(crate) fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let len = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n");
    let of_body = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Type: application/json\r\nContent-Length: {len}\r\n")
    };
    format!("{head}{of_body}\r\n{body}").into_bytes()
}

/// How long an answer is, once its head is there.
fn length(answer: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, _) = text.split_once("\r\n\r\n")?;
    let of_body = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Some(head.len() + 4 + of_body.unwrap_or(0))
}
