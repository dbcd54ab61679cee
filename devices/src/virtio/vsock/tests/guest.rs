//! A guest's driver and the host around it: packets one way, unix sockets the other.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_STATUS;

use crate::metrics::VsockMetrics;
use crate::virtio::queue_harness::{Buffer, Harness, VERSION_1};
use crate::virtio::vsock::packet::{HEADER_LEN, HOST_CID, Header, Op, TYPE_STREAM};
use crate::virtio::vsock::{VsockConfig, VsockDevice};

pub(super) const CID: u64 = 42;
/// Room that a connection of these tests has for what the host sends, unless a test says otherwise.
pub(super) const BUF_ALLOC: u32 = 64 << 10;
const RX: u32 = 0;
const TX: u32 = 1;
const EVENTS: u32 = 2;
const QUEUE_SIZE: u16 = 256;

/// A packet that the guest received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) header: Header,
    pub(super) data: Vec<u8>,
}

/// The guest's end of a connection, as a driver keeps it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    pub(super) guest: u32,
    pub(super) host: u32,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

/// A guest with a socket device.
pub(super) struct Guest {
    pub(super) harness: Harness,
    pub(super) metrics: Arc<VsockMetrics>,
    folder: TempDir,
    /// Receive buffers by the heads of their chains: address and length.
    buffers: Vec<Option<(u64, u32)>>,
    received: Vec<Packet>,
    scratch: u64,
}

impl Guest {
    /// One whose driver has set DRIVER_OK and given no receive buffers yet.
    pub(super) fn without_buffers() -> Self {
        let folder = TempDir::new().unwrap();
        let config = VsockConfig { vsock_id: None, guest_cid: CID, uds_path: folder.path().join("v") };
        let device = VsockDevice::new(&config).unwrap();
        let metrics = device.metrics();
        let mut harness = Harness::new(device);
        harness.negotiate(VERSION_1);
        for (queue, size) in [(RX, QUEUE_SIZE), (TX, QUEUE_SIZE), (EVENTS, 16)] {
            assert!(harness.set_up_queue(queue, size));
        }
        harness.write(VIRTIO_MMIO_STATUS, harness.status() | VIRTIO_CONFIG_S_DRIVER_OK);
        let scratch = harness.allocate(128 << 10, 0);
        let buffers = vec![None; usize::from(QUEUE_SIZE)];
        Self { harness, metrics, folder, buffers, received: Vec::new(), scratch }
    }

    /// One with 32 receive buffers of 4 KiB, each used again at once.
    pub(super) fn new() -> Self {
        let mut guest = Self::without_buffers();
        guest.add_buffers(32, 4096 + HEADER_LEN as u32);
        guest
    }

    /// This guest once more, as it is restored from a snapshot of it, with a socket of its own and the context id `cid`.
    /// Its queues have not been kicked yet.
    pub(super) fn restored(&self, cid: u64) -> Self {
        let folder = TempDir::new().unwrap();
        let config = VsockConfig { vsock_id: None, guest_cid: cid, uds_path: folder.path().join("v") };
        let device = VsockDevice::new(&config).unwrap();
        let metrics = device.metrics();
        let harness = self.harness.restored(Arc::new(Mutex::new(device)), &self.harness.save()).unwrap();
        let buffers = self.buffers.clone();
        Self { harness, metrics, folder, buffers, received: Vec::new(), scratch: self.scratch }
    }

    /// Gives the device a buffer for an event, and says where it is.
    pub(super) fn add_event_buffer(&mut self) -> u64 {
        let address = self.harness.allocate(4, 0xff);
        self.harness.add_chain(EVENTS, &[Buffer::writable(address, 4)]);
        self.harness.kick(EVENTS);
        address
    }

    /// Takes the event that the transport was reset, which is at `address`, and gives the buffer back as Linux does.
    pub(super) fn take_reset(&mut self, address: u64) {
        let used = self.harness.take_used(EVENTS);
        assert_eq!((used.len(), used[0].len), (1, 4));
        assert_eq!(self.harness.fetch(address, 4), [0; 4], "VIRTIO_VSOCK_EVENT_TRANSPORT_RESET");
        self.add_event_buffer();
    }

    /// Where host programs connect to.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("v")
    }

    /// A host program that listens for the guest at `port`.
    pub(super) fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.folder.path().join(format!("v_{port}"))).unwrap()
    }

    /// Gives the device `count` receive buffers of `len` bytes.
    pub(super) fn add_buffers(&mut self, count: usize, len: u32) {
        for _ in 0..count {
            let address = self.harness.allocate(len, 0);
            self.add_buffer(address, len);
        }
        self.harness.kick(RX);
    }

    fn add_buffer(&mut self, address: u64, len: u32) {
        let head = self.harness.add_chain(RX, &[Buffer::writable(address, len)]);
        self.buffers[usize::from(head)] = Some((address, len));
    }

    /// Sends a packet as it is.
    pub(super) fn send(&mut self, header: Header, data: &[u8]) {
        self.send_together(&[(header, data)]);
    }

    /// Sends packets of which the device hears all at once.
    pub(super) fn send_together(&mut self, packets: &[(Header, &[u8])]) {
        let taken = self.offer(packets);
        assert!(taken >= packets.len(), "the device did not take {packets:?}");
    }

    /// The same, and says how many packets the device took of those that were there.
    pub(super) fn offer(&mut self, packets: &[(Header, &[u8])]) -> usize {
        let mut address = self.scratch;
        for (header, data) in packets {
            let bytes = [&header.to_bytes(), *data].concat();
            let place = vm_memory::GuestAddress(address);
            vm_memory::Bytes::write_slice(self.harness.memory(), &bytes, place).unwrap();
            self.harness.add_chain(TX, &[Buffer::readable(address, bytes.len() as u32)]);
            address += bytes.len() as u64;
        }
        self.harness.kick(TX);
        self.taken()
    }

    /// How many packets the device took since they were last counted.
    pub(super) fn taken(&mut self) -> usize {
        self.harness.take_used(TX).len()
    }

    /// Has the device work until nothing more happens, and takes in what it sent.
    pub(super) fn run(&mut self) {
        while self.harness.run_once(Duration::ZERO) || self.collect() {
            self.collect();
        }
    }

    /// Takes in what the device sent and gives the buffers back to it. False when it sent nothing.
    fn collect(&mut self) -> bool {
        let used = self.harness.take_used(RX);
        for used in &used {
            let (address, len) = self.buffers[used.head as usize].take().expect("a buffer that was given");
            if used.len == 0 {
                continue;
            }
            assert!(used.len >= HEADER_LEN as u32 && used.len <= len, "{used:?}");
            let bytes = self.harness.fetch(address, used.len as usize);
            let (header, data) = bytes.split_first_chunk().unwrap();
            let header = Header::from_bytes(header);
            assert_eq!(header.len as usize, data.len(), "{header:?}");
            self.received.push(Packet { header, data: data.to_vec() });
            self.add_buffer(address, len);
        }
        if !used.is_empty() {
            self.harness.kick(RX);
        }
        !used.is_empty()
    }

    /// What the guest received since the last call, once nothing more comes.
    pub(super) fn received(&mut self) -> Vec<Packet> {
        self.run();
        std::mem::take(&mut self.received)
    }

    /// The operations of what the guest received since the last call.
    pub(super) fn ops(&mut self) -> Vec<Op> {
        self.received().iter().map(|packet| packet.header.op).collect()
    }

    /// What the guest received since the last call is one packet.
    #[track_caller]
    pub(super) fn one(&mut self) -> Packet {
        let received = self.received();
        assert_eq!(received.len(), 1, "{received:?}");
        received.into_iter().next().unwrap()
    }

    /// Sends `op` for `socket`, with `data`.
    pub(super) fn say(&mut self, socket: Socket, op: Op, data: &[u8]) {
        self.send(socket.header(op, data.len() as u32), data);
    }

    /// Connects to who listens at the host's port, from the guest's.
    #[track_caller]
    pub(super) fn connect(&mut self, listener: &UnixListener, guest: u32, host: u32) -> (Socket, UnixStream) {
        let socket = Socket { guest, host, buf_alloc: BUF_ALLOC, fwd_cnt: 0 };
        self.say(socket, Op::Request, &[]);
        let response = self.one().header;
        assert_eq!((response.op, response.src_port, response.dst_port), (Op::Response, host, guest));
        assert_eq!((response.src_cid, response.dst_cid), (HOST_CID, CID));
        let stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (socket, stream)
    }

    /// A host program that has connected and said `line`.
    pub(super) fn client(&self, line: &[u8]) -> UnixStream {
        let mut client = UnixStream::connect(self.path()).unwrap();
        client.write_all(line).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }

    /// A host program that is connected to the guest's port.
    #[track_caller]
    pub(super) fn accept(&mut self, guest: u32) -> (Socket, UnixStream) {
        let mut client = self.client(format!("CONNECT {guest}\n").as_bytes());
        let request = self.one().header;
        assert_eq!((request.op, request.dst_port), (Op::Request, guest));
        let socket = Socket { guest, host: request.src_port, buf_alloc: BUF_ALLOC, fwd_cnt: 0 };
        self.say(socket, Op::Response, &[]);
        self.run();
        let answer = format!("OK {}\n", socket.host);
        let mut read = vec![0; answer.len()];
        client.read_exact(&mut read).unwrap();
        assert_eq!(String::from_utf8_lossy(&read), answer);
        (socket, client)
    }
}

impl Socket {
    pub(super) fn header(&self, op: Op, len: u32) -> Header {
        Header {
            src_cid: CID,
            dst_cid: HOST_CID,
            src_port: self.guest,
            dst_port: self.host,
            len,
            socket_type: TYPE_STREAM,
            op,
            flags: 0,
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.fwd_cnt,
        }
    }

    pub(super) fn shutdown(&self, flags: u32) -> Header {
        Header { flags, ..self.header(Op::Shutdown, 0) }
    }
}

/// What a host program can read now.
pub(super) fn read_now(mut stream: &UnixStream) -> Vec<u8> {
    stream.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    // Ends with an error when there is no more, unless it is the end.
    let _ = stream.read_to_end(&mut bytes);
    stream.set_nonblocking(false).unwrap();
    bytes
}

/// Whether a host program finds its connection closed, with nothing to read.
pub(super) fn is_closed(mut stream: &UnixStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    !matches!(stream.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
