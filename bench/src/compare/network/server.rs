//! What listens on the other end: an echo service (RFC 862), and one that discards (RFC 863).

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

/// Where `ip` keeps network namespaces.
const NAMESPACES: &str = "/run/netns";

/// RFC 862.
const ECHO: u16 = 7;

/// RFC 863.
const DISCARD: u16 = 9;

/// How often the threads look whether it is over.
const GLANCE: Duration = Duration::from_millis(100);

/// What is read at a time, in bytes.
const PIECE: usize = 256 << 10;

/// A server, which ends with this.
pub(super) struct Server {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Clone, Copy)]
enum Service {
    Echo,
    Discard,
}

impl Server {
    /// Listens on `address` in the network namespace `space`.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the address not be had.
    pub(super) fn start(space: &str, address: Ipv4Addr) -> anyhow::Result<Self> {
        let path = Path::new(NAMESPACES).join(space);
        let space = File::open(&path).with_context(|| path.display().to_string())?;
        // Only this thread enters the namespace; its sockets stay there, whoever uses them.
        let listeners = thread::spawn(move || {
            setns(space, CloneFlags::CLONE_NEWNET).context("setns")?;
            let listen = |port| {
                let listener = TcpListener::bind(SocketAddrV4::new(address, port)).context("listen")?;
                // What came may have gone again, and who waits for the next hears of no end.
                listener.set_nonblocking(true).context("listen")?;
                anyhow::Ok(listener)
            };
            anyhow::Ok([(listen(ECHO)?, Service::Echo), (listen(DISCARD)?, Service::Discard)])
        });
        let listeners = listeners.join().map_err(|_| anyhow!("the server's thread panicked"))??;
        let over = Arc::new(AtomicBool::new(false));
        let threads = listeners.map(|(listener, service)| {
            let over = Arc::clone(&over);
            thread::spawn(move || accept(&listener, service, &over))
        });
        Ok(Self { over, threads: threads.into() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, service: Service, over: &AtomicBool) {
    let wait = PollTimeout::try_from(GLANCE).unwrap_or(PollTimeout::ZERO);
    thread::scope(|scope| {
        while !over.load(Ordering::Relaxed) {
            let came = poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], wait);
            if came.is_ok_and(|count| count > 0)
                && let Ok((stream, _)) = listener.accept()
            {
                // How it ends is the client's to tell.
                scope.spawn(move || serve(stream, service, over));
            }
        }
    });
}

fn serve(mut stream: TcpStream, service: Service, over: &AtomicBool) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(GLANCE))?;
    stream.set_write_timeout(Some(GLANCE * 10))?;
    let mut piece = vec![0; PIECE];
    // A client that was killed may never say that it has ended.
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                if let (Service::Echo, Some(had)) = (service, piece.get(..count)) {
                    stream.write_all(had)?;
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
