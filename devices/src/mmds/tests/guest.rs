//! A guest: a TCP/IP stack of its own at the other end of the frames.

use std::collections::VecDeque;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, HardwareAddress, IpAddress, IpCidr,
    IpProtocol, Ipv4Cidr, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use crate::mmds::{DEFAULT_ADDRESS, MAC_ADDRESS};
use crate::rate_limiter::timer::Nanos;

pub(crate) const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
pub(crate) const GUEST_ADDRESS: [u8; 4] = [192, 0, 2, 7];

#[derive(Default)]
struct Link {
    inbox: VecDeque<Vec<u8>>,
    outbox: Vec<Vec<u8>>,
}

struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Outgoing<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        self.0.push(vec![0; len]);
        write(self.0.last_mut().unwrap())
    }
}

impl Device for Link {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        self.inbox.pop_front().map(|frame| (Incoming(frame), Outgoing(&mut self.outbox)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outbox))
    }

    /// Sends checksums, and looks at those that come.
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// The guest's end.
pub(crate) struct Guest {
    interface: Interface,
    sockets: SocketSet<'static>,
    link: Link,
    next_port: u16,
}

impl Guest {
    pub(crate) fn new() -> Self {
        let mut link = Link::default();
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC)));
        let mut interface = Interface::new(config, &mut link, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(GUEST_ADDRESS.into(), 0))).unwrap();
        });
        Self { interface, sockets: SocketSet::new(Vec::new()), link, next_port: 40_000 }
    }

    /// Begins a connection to the service.
    pub(crate) fn connect(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 60_000]);
        let handle = self.sockets.add(Socket::new(buffer(), buffer()));
        self.next_port += 1;
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        let service = (IpAddress::Ipv4(DEFAULT_ADDRESS), 80);
        socket.connect(self.interface.context(), service, self.next_port).unwrap();
        handle
    }

    pub(crate) fn send(&mut self, handle: SocketHandle, data: &[u8]) {
        assert_eq!(self.sockets.get_mut::<Socket<'_>>(handle).send_slice(data), Ok(data.len()));
    }

    pub(crate) fn close(&mut self, handle: SocketHandle) {
        self.sockets.get_mut::<Socket<'_>>(handle).close();
    }

    pub(crate) fn receive(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut data = Vec::new();
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        while socket.can_recv() {
            socket
                .recv(|part| {
                    data.extend_from_slice(part);
                    (part.len(), ())
                })
                .unwrap();
        }
        data
    }

    pub(crate) fn state(&self, handle: SocketHandle) -> State {
        self.sockets.get::<Socket<'_>>(handle).state()
    }

    /// Sees to its connections, and gives the frames that it sends.
    pub(crate) fn poll(&mut self, now: Nanos) -> Vec<Vec<u8>> {
        let now = Instant::from_micros((now / 1000).cast_signed());
        self.interface.poll(now, &mut self.link, &mut self.sockets);
        std::mem::take(&mut self.link.outbox)
    }

    /// Gets a frame.
    pub(crate) fn give(&mut self, frame: Vec<u8>) {
        self.link.inbox.push_back(frame);
    }
}

/// A segment by hand, to port 80 of the service.
#[derive(Clone)]
pub(crate) struct Segment<'a> {
    pub(crate) source: ([u8; 4], u16),
    pub(crate) control: TcpControl,
    pub(crate) seq: i32,
    pub(crate) ack: Option<i32>,
    pub(crate) payload: &'a [u8],
}

impl Segment<'_> {
    pub(crate) fn syn(address: [u8; 4], port: u16) -> Self {
        Segment { source: (address, port), control: TcpControl::Syn, seq: 1000, ack: None, payload: &[] }
    }

    /// The frame, whose checksums are wrong, as those of a driver that leaves them to the device.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let tcp = TcpRepr {
            src_port: self.source.1,
            dst_port: 80,
            control: self.control,
            seq_number: TcpSeqNumber(self.seq),
            ack_number: self.ack.map(TcpSeqNumber),
            window_len: u16::MAX,
            window_scale: None,
            max_seg_size: (self.control == TcpControl::Syn).then_some(1460),
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: self.payload,
        };
        let ip = Ipv4Repr {
            src_addr: self.source.0.into(),
            dst_addr: DEFAULT_ADDRESS,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let ethernet = EthernetRepr {
            src_addr: EthernetAddress(GUEST_MAC),
            dst_addr: EthernetAddress(MAC_ADDRESS),
            ethertype: EthernetProtocol::Ipv4,
        };
        let mut bytes = vec![0; ethernet.buffer_len() + ip.buffer_len() + tcp.buffer_len()];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        ethernet.emit(&mut frame);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &ChecksumCapabilities::ignored());
        packet.set_checksum(0x1234);
        let (source, destination) = (IpAddress::Ipv4(ip.src_addr), IpAddress::Ipv4(ip.dst_addr));
        let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
        tcp.emit(&mut segment, &source, &destination, &ChecksumCapabilities::ignored());
        segment.set_checksum(0x5678);
        bytes
    }
}

/// What a frame of the service says: control, sequence number, acknowledgement and payload.
pub(crate) fn parse(frame: &[u8]) -> (TcpControl, i32, Option<i32>, Vec<u8>) {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    let packet = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
    assert!(packet.verify_checksum());
    let segment = TcpPacket::new_checked(packet.payload()).unwrap();
    let (source, destination) = (IpAddress::Ipv4(packet.src_addr()), IpAddress::Ipv4(packet.dst_addr()));
    // Looks at the checksum as well.
    let tcp = TcpRepr::parse(&segment, &source, &destination, &ChecksumCapabilities::default()).unwrap();
    (tcp.control, tcp.seq_number.0, tcp.ack_number.map(|ack| ack.0), tcp.payload.to_vec())
}
