//! What the guest sends: to which connection a packet goes, and what happens to one that goes to none.

use std::ffi::OsString;
use std::path::PathBuf;

use log::debug;
use vmm_sys_util::epoll::ControlOperation;

use super::Muxer;
use super::from_host::warn_of_limit;
use crate::virtio::device::DeviceError;
use crate::virtio::queue::{Chain, VirtQueue};
use crate::virtio::segments::Segments;
use crate::virtio::vsock::connection::{Connection, Violation};
use crate::virtio::vsock::packet::{HEADER_LEN, HOST_CID, Header, Op, TYPE_STREAM};
use crate::virtio::vsock::stream::Stream;

/// Packets that one call takes before other devices get their turn.
const MAX_PACKETS_PER_CALL: usize = 128;
/// Bytes of data after which it takes no more.
const MAX_BYTES_PER_CALL: u64 = 4 << 20;
/// Bytes of data for one connection that are written by one system call at most.
const MAX_BATCH_BYTES: u64 = 512 << 10;
/// Pieces of guest memory likewise (IOV_MAX).
const MAX_BATCH_PIECES: usize = 1024;

/// Why the device stopped taking packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Turn {
    /// There are no more for now.
    Done,
    /// It did its share, and is called again.
    Share,
    /// The guest has to take its RSTs first.
    Blocked,
}

/// Data packets in a row of one connection, written as one.
#[derive(Default)]
struct Batch {
    index: u16,
    heads: Vec<u16>,
    data: Segments,
    len: u64,
}

impl Batch {
    fn takes(&self, index: u16, data: &Segments, len: u64) -> bool {
        self.heads.is_empty()
            || self.index == index
                && self.len + len <= MAX_BATCH_BYTES
                && self.data.count() + data.count() <= MAX_BATCH_PIECES
    }
}

impl Muxer {
    /// Takes packets from the transmit virtqueue.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub(in super::super) fn take_from_guest(&mut self, tx: &mut VirtQueue) -> Result<Turn, DeviceError> {
        tx.disable_notifications()?;
        let mut batch = Batch::default();
        let (mut packets, mut bytes) = (0, 0);
        let turn = loop {
            if !self.can_take_packets() {
                break Turn::Blocked;
            }
            if packets >= MAX_PACKETS_PER_CALL || bytes >= MAX_BYTES_PER_CALL {
                break Turn::Share;
            }
            packets += 1;
            if let Some(chain) = tx.pop()? {
                bytes += self.take_chain(chain, tx, &mut batch)?;
                continue;
            }
            self.write_batch(tx, &mut batch)?;
            if !tx.enable_notifications()? {
                break Turn::Done;
            }
        };
        self.write_batch(tx, &mut batch)?;
        if turn == Turn::Share {
            tx.continue_later();
        }
        tx.notify_driver()?;
        Ok(turn)
    }

    /// Takes one packet, and says how many bytes of data it has.
    fn take_chain(
        &mut self,
        chain: Chain,
        tx: &mut VirtQueue,
        batch: &mut Batch,
    ) -> Result<u64, DeviceError> {
        let Chain { head, readable: mut data, writable: _ } = chain;
        self.metrics.tx_packets.increment();
        let start = data.take_front(HEADER_LEN as u64);
        let mut bytes = [0; HEADER_LEN];
        if start.len() < HEADER_LEN as u64 || start.read(tx.memory(), &mut bytes).is_err() {
            self.metrics.invalid_packets.increment();
            self.write_batch(tx, batch)?;
            tx.add_used(head, 0)?;
            return Ok(0);
        }
        let header = Header::from_bytes(&bytes);
        let continues = header.op == Op::Rw
            && !batch.heads.is_empty()
            && self.table.find(header.ports()) == Some(batch.index);
        if !continues {
            // What came before counts before: a SHUTDOWN would cut it off.
            self.write_batch(tx, batch)?;
        }
        let Some(index) = self.take_header(&header, data.len()) else {
            self.write_batch(tx, batch)?;
            tx.add_used(head, 0)?;
            return Ok(0);
        };
        let len = u64::from(header.len);
        let data = data.take_front(len);
        if !batch.takes(index, &data, len) {
            self.write_batch(tx, batch)?;
        }
        batch.index = index;
        batch.heads.push(head);
        batch.data.append(data);
        batch.len += len;
        Ok(len)
    }

    /// Acts on a header with `room` bytes behind it. The connection that its data goes to, if it has any.
    fn take_header(&mut self, header: &Header, room: u64) -> Option<u16> {
        let is_stream = header.socket_type == TYPE_STREAM;
        if header.src_cid != self.guest_cid {
            // Whom an answer would reach is anybody's guess.
            self.metrics.invalid_packets.increment();
            if Some(header.src_cid) == self.former_cid && header.op != Op::Rst {
                // On its way since before the guest was saved, or since before it read its new context id.
                self.resets.push_back(header.reset());
            }
            return None;
        }
        if header.op == Op::Rst {
            self.metrics.resets_received.increment();
        }
        let index =
            if is_stream && header.dst_cid == HOST_CID { self.table.find(header.ports()) } else { None };
        let Some(index) = index else {
            match header.op {
                Op::Rst => {}
                Op::Request if is_stream && header.dst_cid == HOST_CID => self.connect_to_host(header),
                _ => {
                    self.metrics.invalid_packets.increment();
                    self.resets.push_back(header.reset());
                }
            }
            return None;
        };
        let connection = self.table.get_mut(index)?;
        let has_data = header.op == Op::Rw;
        let taken = if has_data && u64::from(header.len) > room {
            Err(Violation::Packet)
        } else {
            connection.take_packet(header)
        };
        match taken {
            // Its data comes next, and then it is settled.
            Ok(()) if has_data => return Some(index),
            Ok(()) => {}
            Err(violation) => self.punish(index, violation, header),
        }
        self.settle(index);
        None
    }

    /// Resets the connection of a guest that broke the protocol by `header`.
    fn punish(&mut self, index: u16, violation: Violation, header: &Header) {
        match violation {
            Violation::Credit => self.metrics.credit_violations.increment(),
            Violation::Packet => self.metrics.invalid_packets.increment(),
        }
        let Some(connection) = self.table.get_mut(index) else { return };
        debug!("vsock: {violation:?} violated by {header:?}");
        connection.kill();
        if connection.is_over() {
            // The guest had not been told of the connection yet, so what it said was for another.
            self.resets.push_back(header.reset());
        }
    }

    /// The guest wants to connect to a host program: the one that listens at the socket's path with the port behind it.
    fn connect_to_host(&mut self, request: &Header) {
        if self.table.is_full() {
            warn_of_limit();
        } else {
            let path = self.path_of_port(request.dst_port);
            match Stream::connect(&path) {
                Ok(stream) => {
                    let connection = Connection::from_guest(request, stream, self.table.window());
                    self.insert(connection, ControlOperation::Add);
                    return;
                }
                Err(error) => debug!("vsock: cannot connect the guest to {}: {error}", path.display()),
            }
        }
        self.metrics.refused_requests.increment();
        self.resets.push_back(request.reset());
    }

    fn path_of_port(&self, port: u32) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        path.into()
    }

    /// Passes on what was gathered, and gives its buffers back.
    fn write_batch(&mut self, tx: &mut VirtQueue, batch: &mut Batch) -> Result<(), DeviceError> {
        let Batch { index, heads, data, len } = std::mem::take(batch);
        if heads.is_empty() {
            return Ok(());
        }
        if let Some(connection) = self.table.get_mut(index) {
            self.metrics.tx_bytes.add(len);
            if connection.take_data(tx.memory(), data).is_err() {
                self.metrics.invalid_packets.increment();
                connection.kill();
            }
            self.settle(index);
        }
        for head in heads {
            tx.add_used(head, 0)?;
        }
        Ok(())
    }
}
