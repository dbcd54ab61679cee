//! A client of the REST socket: as simple as a client can be, so that what it sees is what is on the wire.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::{poll, timeout};

/// A place for a socket, gone when the test ends.
pub(crate) struct ApiSocket {
    folder: TempDir,
}

impl ApiSocket {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    /// A connection, once the socket is there.
    #[track_caller]
    pub(crate) fn connect(&self) -> Connection {
        let mut stream = None;
        assert!(
            poll(|| {
                stream = UnixStream::connect(self.path()).ok();
                stream.is_some()
            }),
            "nobody listens at {}",
            self.path().display()
        );
        Connection::over(stream.unwrap())
    }

    /// Asks over a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.connect().ask("GET", path, "")
    }

    #[track_caller]
    pub(crate) fn patch(&self, path: &str, body: &Value) -> Answer {
        self.connect().ask("PATCH", path, &body.to_string())
    }

    #[track_caller]
    pub(crate) fn put(&self, path: &str, body: &Value) -> Answer {
        self.connect().ask("PUT", path, &body.to_string())
    }
}

/// A connection that is kept.
pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    pub(crate) fn to(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).unwrap())
    }

    fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(timeout())).unwrap();
        stream.set_write_timeout(Some(timeout())).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).unwrap();
        self
    }

    /// Sends bytes that may be too many for the other side.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Sends nothing more.
    pub(crate) fn end(&mut self) {
        self.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        self.send(request(method, path, body)).answer()
    }

    /// Reads the next answer.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_or_end().expect("the connection was closed")
    }

    /// Reads the next answer, unless the other side closes the connection.
    pub(crate) fn answer_or_end(&mut self) -> Option<Answer> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => return None,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
            other => other.unwrap(),
        };
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status line: {line:?}"));
        let status = status.parse().unwrap();
        let (mut length, mut content_type) = (0, None);
        loop {
            let mut header = String::new();
            self.stream.read_line(&mut header).unwrap();
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if let Some(value) = header.strip_prefix("content-type:") {
                content_type = Some(value.trim().to_owned());
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        Some(Answer { status, content_type, body: String::from_utf8(body).unwrap() })
    }

    /// Whether the other side closes it, whatever it had to say before.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read_to_end(&mut Vec::new()) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// The bytes of a request.
pub(crate) fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: Option<String>,
    pub(crate) body: String,
}

impl Answer {
    /// The value that was asked for.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    /// It is done.
    #[track_caller]
    pub(crate) fn assert_done(&self) {
        assert_eq!((self.status, self.body.as_str()), (204, ""));
    }

    /// It is refused, in a message that has `part`.
    #[track_caller]
    pub(crate) fn assert_refused(&self, part: &str) {
        assert_eq!(self.status, 400, "{self:?}");
        let body: Value = serde_json::from_str(&self.body).unwrap();
        let message = body["fault_message"].as_str().unwrap();
        assert!(message.contains(part), "{part:?} is missing: {message}");
    }
}

/// What happens to the VM, as the socket tells it.
pub(crate) struct EventStream {
    stream: BufReader<UnixStream>,
}

impl EventStream {
    #[track_caller]
    pub(crate) fn open(socket: &ApiSocket) -> Self {
        let mut connection = socket.connect();
        connection.send(request("GET", "/rvmm/events", ""));
        Self::over(connection)
    }

    /// What comes over a connection that asked for it.
    pub(crate) fn over(connection: Connection) -> Self {
        Self { stream: connection.stream }
    }

    /// The next event, unless the other side closes the stream.
    pub(crate) fn next_or_end(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }

    #[track_caller]
    pub(crate) fn next(&mut self) -> Value {
        self.next_or_end().expect("the stream has ended")
    }
}
