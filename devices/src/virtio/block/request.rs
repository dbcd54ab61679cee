//! One block request (virtio 1.3, 5.2.6): a header that the device reads, data, and a status byte that it writes.
//!
//! Nothing is assumed about descriptors (2.7.4): the header is the first 16 readable bytes, the status the last
//! writable one. A request that is wrong gets S_IOERR, one of an unknown kind S_UNSUPP. A chain without a byte for
//! the status is an error of the device: there is no other way to tell the driver.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use vm_memory::GuestAddress;

use super::image::{Access, Unmap};
use crate::GuestMemory;
use crate::virtio::queue::{Chain, MAX_CHAIN_LEN};
use crate::virtio::ring_memory::in_one_region;
use crate::virtio::segments::Segments;

/// Bytes per sector, the unit of every request whatever the disk's block size (5.2.4).
pub const SECTOR_SIZE: u64 = 512;
/// Bytes of a device's id (5.2.6, VIRTIO_BLK_T_GET_ID).
pub(super) const ID_LEN: usize = 20;

/// Sectors that one discard may have: 1 GiB, which the host frees in one go.
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 21;
/// Sectors that one zeroing may have: 16 MiB, which the host may have to write.
pub(super) const MAX_WRITE_ZEROES_SECTORS: u32 = 1 << 15;

/// Descriptors that the data of one request may have (`seg_max`): the pages of Linux's largest request, 1280 KiB, so that
/// it need not cut one of 1 MiB whose pages lie apart. The ring has room for three such requests.
pub(super) const MAX_SEGMENTS: u32 = 320;
/// Bytes of data that one request may have, far more than drivers send. A chain can name 4 GiB, which would keep the event
/// loop, and so a signal that is to end the VM, waiting for seconds. `size_max` is not offered: FreeBSD's driver refuses a
/// device whose descriptors have less than 1 MiB, and Linux sends up to 1280 KiB without it.
pub(super) const MAX_DATA_BYTES: u64 = 20 << 20;

/// Length of `struct virtio_blk_req` up to its data.
const HEADER_LEN: usize = 16;
/// Length of `struct virtio_blk_discard_write_zeroes`.
const RANGE_LEN: usize = 16;

/// What a request asks for. Offsets and lengths are bytes, and inside of the disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Fill `data` from the disk.
    Read {
        /// Where on the disk.
        offset: u64,
        /// Where to.
        data: Segments,
    },
    /// Write `data` to the disk.
    Write {
        /// Where on the disk.
        offset: u64,
        /// From where.
        data: Segments,
    },
    /// Make durable what was written before.
    Flush,
    /// Fill `data` with the device's id.
    GetId {
        /// Where to.
        data: Segments,
    },
    /// Give storage back.
    Discard {
        /// Where on the disk.
        offset: u64,
        /// How much.
        len: u64,
    },
    /// Make a part of the disk read as zeroes.
    WriteZeroes {
        /// Where on the disk.
        offset: u64,
        /// How much.
        len: u64,
        /// Whether storage may be given back.
        unmap: Unmap,
    },
}

/// Why a request is refused; its value is the status that the driver gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request is wrong.
    IoError,
    /// The device does not know the request.
    Unsupported,
}

impl Refusal {
    /// The status byte.
    pub(super) fn status(self) -> u8 {
        match self {
            Self::IoError => VIRTIO_BLK_S_IOERR as u8,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP as u8,
        }
    }
}

/// Where the answer to a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// Index by which the chain is returned.
    pub head: u16,
    /// Address of the status byte, which is in guest memory.
    pub status: GuestAddress,
    /// Length in bytes of the writable part before the status.
    pub data_len: u32,
}

/// What requests are checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Size of the disk in sectors.
    pub sectors: u64,
    /// Whether the guest may write.
    pub access: Access,
    /// The device offers flush.
    pub flush: Flush,
    /// Bytes that offsets and lengths of reads, writes and zeroings are a multiple of; the guest knows it as `blk_size`.
    pub block_size: u32,
}

/// Whether a flush is among what the device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// It is.
    Offered,
    /// It is not.
    NotOffered,
}

/// Finds the status byte of `chain` and takes it off. None when there is no such byte in guest memory.
pub(super) fn reply_to(chain: &mut Chain, memory: &GuestMemory) -> Option<Reply> {
    let status = chain.writable.take_last_byte()?;
    let inside = in_one_region(memory, status, 1).is_some();
    let data_len = u32::try_from(chain.writable.len()).ok()?;
    inside.then_some(Reply { head: chain.head, status, data_len })
}

/// What `chain`, without its status byte, asks for.
///
/// # Errors
/// The status that the driver gets instead.
pub(super) fn parse(chain: Chain, memory: &GuestMemory, limits: &Limits) -> Result<Operation, Refusal> {
    let Chain { head: _, mut readable, writable } = chain;
    let header: [u8; HEADER_LEN] = readable.take_array(memory).ok_or(Refusal::IoError)?;
    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
    let sector = u64::from_le_bytes(sector);

    match u32::from_le_bytes([t0, t1, t2, t3]) {
        VIRTIO_BLK_T_IN => {
            let offset = limits.transfer(sector, &writable, &readable)?;
            Ok(Operation::Read { offset, data: writable })
        }
        VIRTIO_BLK_T_OUT => {
            limits.writable()?;
            let offset = limits.transfer(sector, &readable, &writable)?;
            Ok(Operation::Write { offset, data: readable })
        }
        VIRTIO_BLK_T_FLUSH if limits.flush == Flush::Offered => Ok(Operation::Flush),
        VIRTIO_BLK_T_GET_ID if writable.len() < ID_LEN as u64 => Err(Refusal::IoError),
        VIRTIO_BLK_T_GET_ID => Ok(Operation::GetId { data: writable }),
        VIRTIO_BLK_T_DISCARD => {
            limits.writable()?;
            let range = Range::read(readable, memory)?;
            if range.flags != 0 {
                return Err(Refusal::Unsupported);
            }
            let (offset, len) = limits.range(&range, MAX_DISCARD_SECTORS)?;
            Ok(Operation::Discard { offset, len })
        }
        VIRTIO_BLK_T_WRITE_ZEROES => {
            limits.writable()?;
            let range = Range::read(readable, memory)?;
            let unmap = match range.flags {
                0 => Unmap::Forbidden,
                VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP => Unmap::Allowed,
                _ => return Err(Refusal::Unsupported),
            };
            limits.whole_blocks(range.sector, u64::from(range.sectors))?;
            let (offset, len) = limits.range(&range, MAX_WRITE_ZEROES_SECTORS)?;
            Ok(Operation::WriteZeroes { offset, len, unmap })
        }
        _ => Err(Refusal::Unsupported),
    }
}

/// `struct virtio_blk_discard_write_zeroes`.
struct Range {
    sector: u64,
    sectors: u32,
    flags: u32,
}

impl Range {
    /// The one range that the data of a request has: the configuration space says that more are not taken.
    fn read(mut data: Segments, memory: &GuestMemory) -> Result<Self, Refusal> {
        let range: [u8; RANGE_LEN] = data.take_array(memory).ok_or(Refusal::IoError)?;
        if !data.is_empty() {
            return Err(Refusal::IoError);
        }
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = range;
        Ok(Self {
            sector: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            sectors: u32::from_le_bytes([n0, n1, n2, n3]),
            flags: u32::from_le_bytes(flags),
        })
    }
}

impl Limits {
    fn writable(&self) -> Result<(), Refusal> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Refusal::IoError),
        }
    }

    /// Where on the disk `data` goes from or to. `other`, the part of the opposite direction, must be empty.
    fn transfer(&self, sector: u64, data: &Segments, other: &Segments) -> Result<u64, Refusal> {
        let whole_sectors = data.len().is_multiple_of(SECTOR_SIZE);
        let too_large = data.len() > MAX_DATA_BYTES || data.count() > MAX_CHAIN_LEN;
        if !whole_sectors || !other.is_empty() || too_large {
            return Err(Refusal::IoError);
        }
        self.whole_blocks(sector, data.len() / SECTOR_SIZE)
    }

    /// As [`check`](Self::check), for what has to be whole blocks.
    fn whole_blocks(&self, sector: u64, sectors: u64) -> Result<u64, Refusal> {
        let sectors_per_block = u64::from(self.block_size) / SECTOR_SIZE;
        if (sector | sectors) & sectors_per_block.saturating_sub(1) != 0 {
            return Err(Refusal::IoError);
        }
        self.check(sector, sectors)
    }

    fn range(&self, range: &Range, max_sectors: u32) -> Result<(u64, u64), Refusal> {
        if range.sectors > max_sectors {
            return Err(Refusal::IoError);
        }
        let offset = self.check(range.sector, u64::from(range.sectors))?;
        Ok((offset, u64::from(range.sectors) * SECTOR_SIZE))
    }

    /// The offset in bytes of `sector`, when that and the sectors after it are on the disk.
    fn check(&self, sector: u64, sectors: u64) -> Result<u64, Refusal> {
        let end = sector.checked_add(sectors).ok_or(Refusal::IoError)?;
        if end > self.sectors {
            return Err(Refusal::IoError);
        }
        sector.checked_mul(SECTOR_SIZE).ok_or(Refusal::IoError)
    }
}
