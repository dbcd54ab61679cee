//! Host programs that have connected and not said yet to which port: `CONNECT <port>\n` is the first thing that they
//! say.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::stream::Stream;

/// Clients that may be about to say where they want to go. One more, and the one that has been silent for longest is
/// sent away: nobody can keep others out by keeping silent.
pub(super) const MAX_CLIENTS: usize = 128;
/// Bytes in which a client must have come to the end of its line; `CONNECT 4294967295\r\n` has 20.
const MAX_LINE_LEN: usize = 64;

/// What a client said.
#[derive(Debug)]
pub(super) enum Said {
    /// It wants this port of the guest.
    Connect(u32),
    /// Not enough.
    Nothing,
    /// What nobody understands, or goodbye.
    Nonsense,
}

#[derive(Debug)]
struct Client {
    stream: Stream,
    line: Vec<u8>,
}

impl Client {
    /// Reads on up to the end of the line and no further: what follows is for the guest.
    fn listen(&mut self) -> Said {
        let mut bytes = [0; MAX_LINE_LEN];
        loop {
            let peeked = match self.stream.peek(&mut bytes) {
                Ok(count) => bytes.get(..count).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Said::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Said::Nonsense,
            };
            let end = peeked.iter().position(|byte| *byte == b'\n');
            let wanted = end.map_or(peeked.len(), |end| end + 1);
            if peeked.is_empty() || self.line.len() + wanted > MAX_LINE_LEN {
                return Said::Nonsense;
            }
            let Some(place) = bytes.get_mut(..wanted) else { return Said::Nonsense };
            // They are there, and nobody else reads here.
            if !self.stream.read(place).is_ok_and(|count| count == wanted) {
                return Said::Nonsense;
            }
            self.line.extend_from_slice(place);
            if end.is_some() {
                return port_of(&self.line).map_or(Said::Nonsense, Said::Connect);
            }
        }
    }
}

/// The port of `CONNECT <port>`, in upper or lower case and with any white space.
fn port_of(line: &[u8]) -> Option<u32> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let (verb, port) = (words.next()?, words.next()?);
    (verb.eq_ignore_ascii_case("connect") && words.next().is_none()).then(|| port.parse().ok())?
}

/// All clients that have not said yet where they want to go.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// By a number that grows, so the first has waited for longest.
    clients: BTreeMap<u64, Client>,
    next: u64,
}

impl Clients {
    /// Takes in a client, and says under which number, and whether another had to go for it.
    pub(super) fn add(&mut self, stream: Stream) -> (u64, Option<Stream>) {
        let gone = if self.clients.len() >= MAX_CLIENTS { self.clients.pop_first() } else { None };
        let number = self.next;
        self.next += 1;
        self.clients.insert(number, Client { stream, line: Vec::new() });
        (number, gone.map(|(_, client)| client.stream))
    }

    /// The descriptor of a client.
    pub(super) fn fd(&self, number: u64) -> Option<RawFd> {
        self.clients.get(&number).map(|client| client.stream.as_raw_fd())
    }

    /// What client `number` says, which has something to say. `None` when there is no such client.
    pub(super) fn listen(&mut self, number: u64) -> Option<Said> {
        self.clients.get_mut(&number).map(Client::listen)
    }

    /// Lets a client go.
    pub(super) fn remove(&mut self, number: u64) -> Option<Stream> {
        self.clients.remove(&number).map(|client| client.stream)
    }

    /// Sends all away.
    pub(super) fn clear(&mut self) {
        self.clients.clear();
    }
}
