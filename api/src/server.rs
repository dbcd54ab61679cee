//! The thread that speaks HTTP. Whatever its clients do, they can hold up nothing but each other, and take no more than a
//! bounded share of memory and descriptors.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use devices::unix_socket::{Descriptors, ListeningSocket, SocketError, SocketFile};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, SERVER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};
use vmm::console::Tape;
use vmm::controller::{Event, Refusal, Remote, Request, Response};
use vmm::thread::{self, ThreadKind};

use crate::console;
use crate::endpoints::events;
use crate::errors::Fault;
use crate::metrics::ApiMetrics;
use crate::patience::{OtherEnd, PatientStream};
use crate::reply::Reply;
use crate::routes::{Call, MAX_BODY};
use crate::stream::{Listeners, Payload, Place};

/// Connections at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// Those of them that may follow what happens, or what the guest writes; there is always place for the others.
const MAX_FOLLOWERS: usize = 48;
/// How long a client may take for the head of a request, the wait for the next request included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take for the body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may leave an answer unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a head.
const MAX_HEAD: usize = 16 << 10;

/// What a client, and the thread that serves it, may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a body.
    pub body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body: MAX_BODY }
    }
}

/// Bytes of a body that are read and thrown away, so that the client comes to read why it is refused.
const MAX_DISCARDED: usize = 1 << 20;
/// How long answers that are on their way may take when the VM has ended.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// How long no connection is accepted when the host has no descriptor for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no API.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The socket.
    #[error("cannot listen on {path}")]
    Socket {
        /// Its path.
        path: String,
        /// What is wrong.
        #[source]
        source: SocketError,
    },
    /// The thread.
    #[error("cannot start the API's thread")]
    Thread(#[source] io::Error),
}

/// The socket of an API that is not there yet: clients can connect, and wait. Dropping it removes the socket.
#[derive(Debug)]
pub struct Socket {
    listener: StdListener,
    file: SocketFile,
}

impl Socket {
    /// Makes it at `path`.
    ///
    /// # Errors
    /// [`ServerError::Socket`].
    pub fn bind(path: &Path) -> Result<Self, ServerError> {
        let named = |source| ServerError::Socket { path: path.display().to_string(), source };
        let (listener, file) = ListeningSocket::bind(path, Descriptors::Refuse).map_err(named)?.into_parts();
        Ok(Self { listener, file })
    }
}

/// The API of one VM. Dropping it gives the answers that are still due, and removes the socket.
#[derive(Debug)]
pub struct Server {
    thread: Option<JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
    metrics: Arc<ApiMetrics>,
    listeners: Listeners,
    console: Arc<Tape>,
    _file: SocketFile,
}

impl Server {
    /// Serves requests to the VM of `remote` that come to `socket`, in a thread of its own. Signals that the process handles
    /// have to be blocked already.
    ///
    /// # Errors
    /// [`ServerError::Thread`].
    pub fn start(socket: Socket, remote: Remote, limits: Limits) -> Result<Self, ServerError> {
        let Socket { listener, file } = socket;
        let metrics = Arc::new(ApiMetrics::default());
        let listeners = Listeners::default();
        let console = remote.console().clone();
        let service = Service {
            remote,
            metrics: metrics.clone(),
            listeners: listeners.clone(),
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            limits,
        };
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(ThreadKind::Api, move || run(listener, service, stopped))
            .map_err(ServerError::Thread)?;
        Ok(Self { thread: Some(thread), stop: Some(stop), metrics, listeners, console, _file: file })
    }

    /// What has to be told what happens to the VM, so that clients hear of it.
    pub fn listener(&self) -> impl Fn(&Event) + Send + Sync + 'static {
        let listeners = self.listeners.clone();
        move |event| listeners.send(&events::message(event))
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<ApiMetrics> {
        self.metrics.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing happens any more.
        self.listeners.close();
        self.console.close();
        // Fails when the thread has ended already.
        let _ = self.stop.take().map(|stop| stop.send(()));
        // A panic has ended the process.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(listener: StdListener, service: Service, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let served = runtime.and_then(|runtime| runtime.block_on(serve(listener, service, stopped)));
    if let Err(error) = served {
        log::error!("the API has ended: {error}");
    }
}

async fn serve(
    listener: StdListener,
    service: Service,
    mut stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (end, ends) = watch::channel(());
    loop {
        let next = async {
            // The semaphore is never closed.
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((place, listener.accept().await?.0))
        };
        tokio::select! {
            _ = &mut stopped => break,
            next = next => match next {
                Ok((place, stream)) => {
                    let connection = service.clone().connection(stream, ends.clone());
                    tokio::spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    log::warn!("no connection to the API can be accepted: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    drop(ends);
    // Fails when there are no connections.
    let _ = end.send(());
    // Connections that took longer are cut off.
    let _ = timeout(LAST_ANSWERS, places.acquire_many(MAX_CONNECTIONS as u32)).await;
    Ok(())
}

/// What a connection is served with.
#[derive(Clone)]
struct Service {
    remote: Remote,
    metrics: Arc<ApiMetrics>,
    listeners: Listeners,
    followers: Arc<Semaphore>,
    limits: Limits,
}

impl Service {
    /// Serves one connection until it ends, or until the VM has ended and the answer under way is given.
    async fn connection(self, stream: UnixStream, mut ends: watch::Receiver<()>) {
        self.metrics.connections.increment();
        let other_end = OtherEnd::of(&stream);
        let stream = PatientStream::new(stream, WRITE_TIMEOUT);
        let due = stream.due();
        let follows = Notify::new();
        let service = service_fn(|request| {
            due.store(true, Ordering::Relaxed);
            let (head, body) = hyper::Request::into_parts(request);
            async {
                let response = self.respond(head, body).await;
                if response.body().goes_on() {
                    follows.notify_one();
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(MAX_HEAD)
                .auto_date_header(false)
                .serve_connection(TokioIo::new(stream), service)
        );
        // Nobody reads from the client any more, so nobody would see that it has gone.
        let gone = async {
            follows.notified().await;
            other_end.gone().await;
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = gone => Ok(()),
            _ = ends.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            self.metrics.broken_connections.increment();
            log::debug!("a connection to the API broke: {error}");
        }
    }

    async fn respond(&self, head: hyper::http::request::Parts, body: Incoming) -> hyper::Response<Payload> {
        self.metrics.requests.increment();
        let (method, path) = (head.method.as_str(), head.uri.path());
        log::debug!("API: {method} {path}");
        let waits = head.headers.contains_key(hyper::header::EXPECT);
        let call = match read(body, self.limits.body, waits).await {
            Ok(body) => Call::parse(method, path, &body),
            Err(fault) => Err(fault),
        };
        let response = match call {
            Ok(Call::Answered(reply)) => Ok(whole(reply)),
            Ok(Call::Ask(request, to_reply)) => {
                ask(&self.remote, request).await.map(|response| whole(to_reply(response)))
            }
            Ok(Call::Events) => self.events().await,
            Ok(Call::Console) => console::read(self.remote.console(), head.uri.query(), || self.follower()),
            Ok(Call::Type(bytes)) => console::write(&self.remote, bytes).await.map(whole),
            Err(fault) => Err(fault),
        };
        response.unwrap_or_else(|fault| {
            self.metrics.refused_requests.increment();
            log::info!("API: {method} {path}: {fault}");
            whole(fault.into())
        })
    }

    /// What happens from now on, and first the state that the VM is in.
    async fn events(&self) -> Result<hyper::Response<Payload>, Fault> {
        let state = match ask(&self.remote, Request::GetInstance).await? {
            Response::Instance(instance) => instance.state,
            other => return Ok(whole(Reply::unexpected(&other))),
        };
        let place = self.follower()?;
        let follow = self.listeners.add(events::message(&Event::State { state }));
        Ok(response(StatusCode::OK, Some(events::CONTENT_TYPE), Payload::Follow { follow, _place: place }))
    }

    /// A place among those who follow.
    fn follower(&self) -> Result<Place, Fault> {
        let place = self.followers.clone().try_acquire_owned();
        place.map_err(|_| Fault::TooManyFollowers { max: MAX_FOLLOWERS })
    }
}

/// Asks the VM for something.
pub(crate) async fn ask(remote: &Remote, request: Request) -> Result<Response, Fault> {
    let (sender, answer) = oneshot::channel();
    // The client may be gone when the answer comes.
    remote.send(request, move |answer| drop(sender.send(answer)));
    answer.await.unwrap_or(Err(Refusal::Ended)).map_err(Fault::from)
}

/// Reads a body of a bounded length, in bounded time. `waits`: the client sends it once it is asked to.
async fn read(body: Incoming, limit: usize, waits: bool) -> Result<Vec<u8>, Fault> {
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        // The head says enough. A client that sends a body all the same comes to read the answer once all of it is taken.
        if !waits && announced <= (limit + MAX_DISCARDED) as u64 {
            tokio::spawn(timeout(BODY_TIMEOUT, collect(body, limit)));
        }
        return Err(Fault::TooLong { limit });
    }
    timeout(BODY_TIMEOUT, collect(body, limit)).await.unwrap_or(Err(Fault::BodyMissing))
}

async fn collect(mut body: Incoming, limit: usize) -> Result<Vec<u8>, Fault> {
    let (mut bytes, mut discarded) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::BodyMissing)?;
        let Ok(data) = frame.into_data() else { continue };
        if discarded == 0 && bytes.len() + data.len() <= limit {
            bytes.extend_from_slice(&data);
        } else {
            discarded += data.len();
        }
        if discarded > MAX_DISCARDED {
            break;
        }
    }
    if discarded > 0 { Err(Fault::TooLong { limit }) } else { Ok(bytes) }
}

fn whole(reply: Reply) -> hyper::Response<Payload> {
    let Reply { status, content_type, body } = reply;
    response(status, content_type, Payload::Whole((!body.is_empty()).then(|| Bytes::from(body))))
}

pub(crate) fn response(
    status: StatusCode,
    content_type: Option<&'static str>,
    payload: Payload,
) -> hyper::Response<Payload> {
    let mut response = hyper::Response::new(payload);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("rvmm"));
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}
