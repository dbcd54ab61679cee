//! A client that keeps its connection, and does no more for each request than it must.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::output::PATIENCE;
use crate::compare::interrupt;

/// How long a server that comes up is left alone between two tries.
const PAUSE: Duration = Duration::from_micros(20);

/// A connection to a server.
pub(crate) struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects as soon as somebody listens at `path`.
    ///
    /// # Errors
    /// Nobody does within 20 s, or a signal wants the benchmark to end.
    pub(crate) fn connect(path: &Path) -> anyhow::Result<Self> {
        let begin = Instant::now();
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    return Ok(Self { stream, buffer: vec![0; 64 << 10] });
                }
                Err(error) if begin.elapsed() > PATIENCE => {
                    return Err(error).with_context(|| format!("{}: nobody listens", path.display()));
                }
                Err(_) => interrupt::check()?,
            }
            thread::sleep(PAUSE);
        }
    }

    /// Asks, and reads the answer, whose status has to be `status`.
    ///
    /// # Errors
    /// The answer does not come within 20 s, or is another one.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str, status: u16) -> anyhow::Result<()> {
        self.send(&request(method, path, body))?;
        self.answer(status).with_context(|| format!("{method} {path}"))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The server has gone.
    pub(crate) fn send(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).context("the request cannot be sent")
    }

    /// Reads an answer, whose status has to be `status`.
    ///
    /// # Errors
    /// As of [`ask`](Self::ask).
    pub(crate) fn answer(&mut self, status: u16) -> anyhow::Result<()> {
        let mut len = 0;
        loop {
            let rest = self.buffer.get_mut(len..).unwrap_or_default();
            let count = self.stream.read(rest).context("no answer")?;
            ensure!(count > 0, "the server closed the connection, or its answer is too long");
            len += count;
            let answer = self.buffer.get(..len).unwrap_or_default();
            if expected(answer).is_some_and(|expected| len >= expected) {
                let text = String::from_utf8_lossy(answer);
                ensure!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
                return Ok(());
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
fn expected(answer: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, _) = text.split_once("\r\n\r\n")?;
    let of_body = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Some(head.len() + 4 + of_body.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_head_says() {
        assert_eq!(expected(b"HTTP/1.1 200 OK\r\nConte"), None);
        assert_eq!(expected(b"HTTP/1.1 204 No Content\r\n\r\n"), Some(27));
        assert_eq!(expected(b"HTTP/1.1 200 OK\r\nContent-LENGTH: 12\r\n\r\n{"), Some(39 + 12));
    }
}
