//! vsock: streams between the guest and programs of the host.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context as _;

use super::HostSide;
use super::session::MEASURE;
use super::vmms::Devices;
use crate::args::IoArgs;

/// The ports on which the host listens: one takes all and answers the last byte, one gives without end, one sends back
/// what it gets.
const SINK: u32 = 5001;
const SOURCE: u32 = 5002;
const ECHO: u32 = 5003;

/// What a stream to the first of them ends in, and has nowhere else.
const LAST: u8 = 0xa5;

const CHUNK: usize = 256 << 10;

/// The host's ends.
pub(crate) struct Peers {
    socket: PathBuf,
}

impl Peers {
    /// Listens at sockets in `folder`.
    ///
    /// # Errors
    /// That is not possible.
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        let socket = folder.join("vsock");
        listen(&socket, SINK, |mut stream| {
            let mut buffer = vec![0; CHUNK];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if buffer.get(count - 1) == Some(&LAST) && stream.write_all(&[LAST]).is_err() {
                    break;
                }
            }
        })?;
        listen(&socket, SOURCE, |mut stream| {
            let buffer = vec![0x5a; CHUNK];
            while stream.write_all(&buffer).is_ok() {}
        })?;
        listen(&socket, ECHO, |mut stream| {
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(buffer.get(..count).unwrap_or_default()).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { socket })
    }
}

/// Serves the guest's connections to `port` of the host, one after the other, until the program ends.
fn listen(socket: &Path, port: u32, serve: fn(UnixStream)) -> anyhow::Result<()> {
    let path = PathBuf::from(format!("{}_{port}", socket.display()));
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
    Ok(())
}

impl HostSide for Peers {
    fn devices(&self) -> Devices {
        Devices { vsock: Some(self.socket.clone()), ..Devices::default() }
    }

    fn script(&self, args: &IoArgs) -> String {
        let seconds = args.seconds;
        format!(
            "{MEASURE}marked vsock-out vsockload send 2 {SINK} {seconds}; marked vsock-in vsockload receive 2 {SOURCE} {seconds}; \
             marked vsock-echo vsockload echo 2 {ECHO} {seconds}"
        )
    }
}
