//! Guest memory as rings use it: few bytes at a time, and for every request.
//!
//! vm-memory's general accesses take apart what may cross from one region to the next, which costs some hundred
//! instructions each time. What lies in one region, as rings do, is reached here in a few dozen; what does not takes the
//! general way.

use std::sync::atomic::Ordering;

use vm_memory::bitmap::BS;
use vm_memory::{
    Address as _, ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError,
    GuestMemoryRegion as _, MemoryRegionAddress, VolatileMemory as _, VolatileSlice,
};

use crate::GuestMemory;

type Bitmap = Option<vm_memory::bitmap::AtomicBitmap>;

/// `len` bytes at `address`, when they lie in one region.
pub(super) fn in_one_region(
    memory: &GuestMemory,
    address: GuestAddress,
    len: usize,
) -> Option<VolatileSlice<'_, BS<'_, Bitmap>>> {
    // Memory is one region or two, and the first has nearly everything: a search by halves would cost more.
    memory.iter().find_map(|region| {
        let offset =
            address.checked_offset_from(region.start_addr()).filter(|offset| *offset < region.len())?;
        region.get_slice(MemoryRegionAddress(offset), len).ok()
    })
}

/// Reads a value that the guest may be writing; one that is torn is the guest's own loss.
pub(super) fn read<T: ByteValued>(
    memory: &GuestMemory,
    address: GuestAddress,
) -> Result<T, GuestMemoryError> {
    if let Some(slice) = in_one_region(memory, address, size_of::<T>())
        && let Ok(value) = slice.get_ref::<T>(0)
    {
        return Ok(value.load());
    }
    memory.read_obj(address)
}

/// Writes a value that the guest may be reading.
pub(super) fn write<T: ByteValued>(
    memory: &GuestMemory,
    address: GuestAddress,
    value: T,
) -> Result<(), GuestMemoryError> {
    if let Some(slice) = in_one_region(memory, address, size_of::<T>())
        && let Ok(place) = slice.get_ref::<T>(0)
    {
        place.store(value);
        return Ok(());
    }
    memory.write_obj(value, address)
}

/// Loads a little-endian field that both sides share.
pub(super) fn load(
    memory: &GuestMemory,
    address: GuestAddress,
    order: Ordering,
) -> Result<u16, GuestMemoryError> {
    if let Some(slice) = in_one_region(memory, address, size_of::<u16>())
        && let Ok(value) = slice.load::<u16>(0, order)
    {
        return Ok(u16::from_le(value));
    }
    memory.load(address, order).map(u16::from_le)
}

/// Stores a little-endian field that both sides share.
pub(super) fn store(
    memory: &GuestMemory,
    address: GuestAddress,
    value: u16,
    order: Ordering,
) -> Result<(), GuestMemoryError> {
    if let Some(slice) = in_one_region(memory, address, size_of::<u16>())
        && slice.store(value.to_le(), 0, order).is_ok()
    {
        return Ok(());
    }
    memory.store(value.to_le(), address, order)
}
