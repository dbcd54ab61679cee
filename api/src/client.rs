//! The other side of the socket: what the command line asks a VM with.
//!
//! Whoever answers may be anything, a process that has put its socket there for one: answers are bounded in time and
//! length, and their text is for whoever prints it to escape.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// Bytes of an answer: metrics of the largest VM take a few hundred thousand.
const MAX_ANSWER: usize = 4 << 20;
/// Bytes of one that says what a VM is: its configuration takes less than a configuration file may.
const MAX_DESCRIPTION: usize = 1 << 20;
/// How long nothing comes before it is asked whether somebody still wants it.
const LULL: Duration = Duration::from_millis(500);
/// Bytes of an answer's head.
const MAX_HEAD: usize = 16 << 10;

/// Why there is no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Somebody listens, and says nothing.
    #[error("it does not answer within {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// It is refused, for this reason.
    #[error("{0}")]
    Refused(String),
    /// What comes back is no answer, or breaks off.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// The answer is too long.
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer is none of this API.
    #[error("its answer is not understood: status {0}")]
    Unknown(StatusCode),
    /// What came cannot be passed on.
    #[error(transparent)]
    Output(io::Error),
    /// The host refuses something that every process has.
    #[error("cannot ask")]
    Host(#[source] io::Error),
}

/// A request that is refused.
#[derive(Deserialize)]
struct FaultMessage {
    fault_message: String,
}

/// What asks one VM. Each request has a connection of its own.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
    runtime: Runtime,
}

impl Client {
    /// Asks who listens at `socket`, and waits for `patience` for each answer to begin and, but for those that go on, to
    /// end.
    ///
    /// # Errors
    /// [`ClientError::Host`].
    pub fn new(socket: &Path, patience: Duration) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        Ok(Self { socket: socket.to_owned(), patience, runtime: runtime.map_err(ClientError::Host)? })
    }

    /// Asks for what is at `path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get(&self, path: &'static str) -> Result<Vec<u8>, ClientError> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// Puts `body` to `path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn put(&self, path: &'static str, body: impl Into<Bytes>) -> Result<(), ClientError> {
        self.ask(Method::PUT, path, body.into()).map(drop)
    }

    /// Changes what is at `path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn patch(&self, path: &'static str, body: impl Into<Bytes>) -> Result<(), ClientError> {
        self.ask(Method::PATCH, path, body.into()).map(drop)
    }

    fn ask(&self, method: Method, path: &'static str, body: Bytes) -> Result<Vec<u8>, ClientError> {
        let answer = async {
            let (status, body) = self.send(method, path, body).await?;
            let body = collect(body, max_answer(path)).await?;
            match status {
                StatusCode::OK | StatusCode::NO_CONTENT => Ok(body),
                status => Err(refusal(status, &body)),
            }
        };
        self.runtime.block_on(async {
            timeout(self.patience, answer).await.unwrap_or(Err(ClientError::Silent(self.patience)))
        })
    }

    /// Asks for what is at `path` and goes on, and has `take` called with nothing when that has been granted and then with
    /// what comes, until there is no more or, while nothing comes, `enough` says so.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Broken`] for one who was too slow.
    pub fn follow(
        &self,
        path: &'static str,
        enough: impl Fn() -> bool,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let begun = async {
                let (status, body) = self.send(Method::GET, path, Bytes::new()).await?;
                match status {
                    StatusCode::OK => Ok(body),
                    status => Err(refusal(status, &collect(body, max_answer(path)).await?)),
                }
            };
            let begun = timeout(self.patience, begun).await;
            let mut body = begun.unwrap_or(Err(ClientError::Silent(self.patience)))?;
            take(&[]).map_err(ClientError::Output)?;
            loop {
                let frame = match timeout(LULL, body.frame()).await {
                    Ok(Some(frame)) => frame,
                    Ok(None) => return Ok(()),
                    Err(_) if enough() => return Ok(()),
                    Err(_) => continue,
                };
                if let Ok(data) = frame.map_err(ClientError::Broken)?.into_data() {
                    take(&data).map_err(ClientError::Output)?;
                }
            }
        })
    }

    /// Sends a request; the status that comes back, and the body that follows.
    async fn send(
        &self,
        method: Method,
        path: &'static str,
        body: Bytes,
    ) -> Result<(StatusCode, Incoming), ClientError> {
        let failed = |source| ClientError::Connect { path: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(failed)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ClientError::Broken)?;
        // Ends with the answer.
        tokio::spawn(connection);
        let mut request = hyper::Request::new(Full::<Bytes>::new(body).map_err(|error: Infallible| error));
        *request.method_mut() = method;
        *request.uri_mut() = hyper::Uri::from_static(path);
        request
            .headers_mut()
            .insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("localhost"));
        let response = sender.send_request(request).await.map_err(ClientError::Broken)?;
        Ok((response.status(), response.into_body()))
    }
}

/// Bytes that what is at `path` takes at most.
fn max_answer(path: &str) -> usize {
    if matches!(path, "/" | "/vm/config") { MAX_DESCRIPTION } else { MAX_ANSWER }
}

/// Reads a body of no more than `max` bytes.
async fn collect(mut body: Incoming, max: usize) -> Result<Vec<u8>, ClientError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ClientError::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > max {
            return Err(ClientError::TooLong(max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<FaultMessage>(body) {
        Ok(fault) => ClientError::Refused(fault.fault_message),
        Err(_) => ClientError::Unknown(status),
    }
}

#[cfg(test)]
mod tests;
