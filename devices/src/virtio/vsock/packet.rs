//! Packet headers (virtio 1.3, 5.10.6). A packet is a header and, with [`Op::Rw`], data behind it; where one descriptor
//! ends and the next begins says nothing (virtio 1.3, 2.7.4).

/// Bytes of a header (`struct virtio_vsock_hdr`).
pub(super) const HEADER_LEN: usize = 44;
/// The host's context id, VMADDR_CID_HOST.
pub(super) const HOST_CID: u64 = 2;

/// VIRTIO_VSOCK_TYPE_STREAM, the one type of socket that there is here.
pub(super) const TYPE_STREAM: u16 = 1;

/// VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE: who sends it receives no more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1 << 0;
/// VIRTIO_VSOCK_SHUTDOWN_F_SEND: who sends it sends no more.
pub(super) const SHUTDOWN_SEND: u32 = 1 << 1;
/// Neither way anything comes any more.
pub(super) const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// What a packet wants (`enum virtio_vsock_op` of virtio 1.3, 5.10.6), named as there without VIRTIO_VSOCK_OP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Request,
    Response,
    Rst,
    Shutdown,
    Rw,
    CreditUpdate,
    CreditRequest,
    /// A number that means nothing.
    Invalid(u16),
}

impl Op {
    fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Rst,
            4 => Self::Shutdown,
            5 => Self::Rw,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            other => Self::Invalid(other),
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Rst => 3,
            Self::Shutdown => 4,
            Self::Rw => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
            Self::Invalid(number) => number,
        }
    }
}

/// The ports that tell one connection from all others: both ends' context ids are always the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    /// The host's.
    pub(super) host: u32,
    /// The guest's.
    pub(super) guest: u32,
}

/// The header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Context id that it comes from.
    pub(super) src_cid: u64,
    /// Context id that it goes to.
    pub(super) dst_cid: u64,
    /// Port that it comes from.
    pub(super) src_port: u32,
    /// Port that it goes to.
    pub(super) dst_port: u32,
    /// Bytes of data behind the header.
    pub(super) len: u32,
    /// Type of the socket.
    pub(super) socket_type: u16,
    /// What it wants.
    pub(super) op: Op,
    /// With [`Op::Shutdown`], which way is shut.
    pub(super) flags: u32,
    /// Bytes that the sender has room for in all.
    pub(super) buf_alloc: u32,
    /// Bytes that have left that room since the connection began, modulo 2^32.
    pub(super) fwd_cnt: u32,
}

impl Header {
    /// Reads a header as it lies in memory: packed, little-endian.
    pub(super) fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            src_cid: u64::from_le_bytes(take(&mut rest)),
            dst_cid: u64::from_le_bytes(take(&mut rest)),
            src_port: u32::from_le_bytes(take(&mut rest)),
            dst_port: u32::from_le_bytes(take(&mut rest)),
            len: u32::from_le_bytes(take(&mut rest)),
            socket_type: u16::from_le_bytes(take(&mut rest)),
            op: Op::from_number(u16::from_le_bytes(take(&mut rest))),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        }
    }

    /// The header as it lies in memory.
    pub(super) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let Self { src_cid, dst_cid, src_port, dst_port, len, socket_type, op, flags, buf_alloc, fwd_cnt } =
            self;
        let fields: [&[u8]; 10] = [
            &src_cid.to_le_bytes(),
            &dst_cid.to_le_bytes(),
            &src_port.to_le_bytes(),
            &dst_port.to_le_bytes(),
            &len.to_le_bytes(),
            &socket_type.to_le_bytes(),
            &op.number().to_le_bytes(),
            &flags.to_le_bytes(),
            &buf_alloc.to_le_bytes(),
            &fwd_cnt.to_le_bytes(),
        ];
        let mut bytes = [0; HEADER_LEN];
        for (place, byte) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *place = *byte;
        }
        bytes
    }

    /// The ports of the connection that a guest's packet belongs to.
    pub(super) fn ports(&self) -> Ports {
        Ports { host: self.dst_port, guest: self.src_port }
    }

    /// A RST that answers this packet: back to where it came from, of the same type.
    pub(super) fn reset(&self) -> Self {
        Self::rst(self.dst_cid, self.src_cid, self.dst_port, self.src_port, self.socket_type)
    }

    /// A RST that ends the connection with these ports to the guest with this context id.
    pub(super) fn reset_of(ports: Ports, guest_cid: u64) -> Self {
        Self::rst(HOST_CID, guest_cid, ports.host, ports.guest, TYPE_STREAM)
    }

    pub(super) fn rst(src_cid: u64, dst_cid: u64, src_port: u32, dst_port: u32, socket_type: u16) -> Self {
        Self {
            src_cid,
            dst_cid,
            src_port,
            dst_port,
            len: 0,
            socket_type,
            op: Op::Rst,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    match bytes.split_first_chunk() {
        Some((field, rest)) => {
            *bytes = rest;
            *field
        }
        None => [0; N],
    }
}
