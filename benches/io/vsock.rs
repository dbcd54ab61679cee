//! vsock: streams between the guest and programs of the host.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use crate::HostSide;
use crate::options::Options;
use crate::session::MEASURE;
use crate::vmms::Devices;

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
    pub(crate) fn new(folder: &Path) -> Self {
        let socket = folder.join("vsock");
        listen(&socket, SINK, |mut stream| {
            let mut buffer = vec![0; CHUNK];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if buffer[count - 1] == LAST && stream.write_all(&[LAST]).is_err() {
                    break;
                }
            }
        });
        listen(&socket, SOURCE, |mut stream| {
            let buffer = vec![0x5a; CHUNK];
            while stream.write_all(&buffer).is_ok() {}
        });
        listen(&socket, ECHO, |mut stream| {
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        });
        Self { socket }
    }
}

/// Serves the guest's connections to `port` of the host, one after the other, until the program ends.
fn listen(socket: &Path, port: u32, serve: fn(UnixStream)) {
    let path = PathBuf::from(format!("{}_{port}", socket.display()));
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
}

impl HostSide for Peers {
    fn devices(&self) -> Devices {
        Devices { vsock: Some(self.socket.clone()), ..Devices::default() }
    }

    fn script(&self, options: &Options) -> String {
        let seconds = options.seconds;
        format!(
            "{MEASURE}marked vsock-out vsockload send 2 {SINK} {seconds}; marked vsock-in vsockload receive 2 {SOURCE} {seconds}; \
             marked vsock-echo vsockload echo 2 {ECHO} {seconds}"
        )
    }
}
