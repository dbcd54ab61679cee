//! What a VM tells the process that serves its memory: one message on a unix stream socket, a JSON array that says where
//! in the VM's address space which part of the memory file belongs, and with it the userfaultfd. Nothing is answered. The
//! connection stays as long as both live. It is Firecracker's form.

use std::ops::Range;

use devices::GuestMemory;
use serde::{Deserialize, Serialize};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::{HugePages, MIB};

/// Parts that a VM's memory may have. rvmm's has two at most, Firecracker's a few more with memory that is plugged in.
const MAX_PARTS: usize = 64;
/// Bytes that a message may have.
pub(crate) const MAX_MESSAGE: usize = 64 << 10;

/// A part of guest memory in the VM's address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Its address.
    pub base_host_virt_addr: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Where in the memory file it is, in bytes.
    pub offset: u64,
    /// Bytes of a page of the host: 4 KiB, or 2 MiB of hugetlbfs.
    pub page_size: u64,
    /// The same number, whatever its name; some handlers read it.
    #[serde(default)]
    pub page_size_kib: u64,
}

/// Why a message says nothing that can be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// Not the form.
    #[error("the message is not that of a VM")]
    Form(#[source] serde_json::Error),
    /// There is more than a VM has.
    #[error("the VM names {0} parts of memory; {MAX_PARTS} are served at most")]
    Parts(usize),
    /// A part that cannot be.
    #[error(
        "a part of {size} bytes at offset {offset}, address {address:#x}, in pages of {page_size}, cannot be"
    )]
    Part {
        /// Its length.
        size: u64,
        /// Where it is in the file.
        offset: u64,
        /// Where it is in the VM.
        address: u64,
        /// Bytes of its pages.
        page_size: u64,
    },
    /// Parts that are in the same place.
    #[error("parts of the VM's memory overlap")]
    Overlap,
    /// Another snapshot's.
    #[error("the VM has {vm} bytes of memory and the snapshot {snapshot}; restore it from this one")]
    Size {
        /// Bytes that the VM has.
        vm: u64,
        /// Bytes that there are.
        snapshot: u64,
    },
}

impl Part {
    /// What is said of `memory`, whose parts follow one another in the file.
    pub(crate) fn all(memory: &GuestMemory, huge_pages: HugePages) -> Vec<Self> {
        let page_size = match huge_pages {
            HugePages::Hugetlb2M => 2 * MIB,
            HugePages::None | HugePages::Transparent => 4096,
        };
        let mut offset = 0;
        let part = |region: &vm_memory::GuestRegionMmap<_>| {
            let (size, start) = (region.len(), offset);
            offset += size;
            let base_host_virt_addr = region.as_ptr() as u64;
            Self { base_host_virt_addr, size, offset: start, page_size, page_size_kib: page_size }
        };
        memory.iter().map(part).collect()
    }

    /// The addresses of it.
    pub(crate) const fn addresses(&self) -> Range<u64> {
        self.base_host_virt_addr..self.base_host_virt_addr + self.size
    }

    /// The offsets of it in the memory file.
    pub(crate) const fn offsets(&self) -> Range<u64> {
        self.offset..self.offset + self.size
    }

    /// Whether it lies in a memory file of `len` bytes, in whole pages of a size that there is, at addresses that there are.
    fn is_sound(&self, len: u64) -> bool {
        let whole = [self.base_host_virt_addr, self.size, self.offset]
            .iter()
            .all(|n| n.is_multiple_of(self.page_size));
        matches!(self.page_size, 4096 | 0x20_0000)
            && whole
            && self.size > 0
            && self.base_host_virt_addr.checked_add(self.size).is_some()
            && self.offset.checked_add(self.size).is_some_and(|end| end <= len)
    }
}

/// The parts that `message` names, of a memory file of `len` bytes; `None` if it has not come to its end.
///
/// # Errors
/// It names what cannot be, or not all of the file.
pub(crate) fn parse(message: &[u8], len: u64) -> Result<Option<Vec<Part>>, HandshakeError> {
    let parts: Vec<Part> = match serde_json::from_slice(message) {
        Err(error) if error.is_eof() && message.len() < MAX_MESSAGE => return Ok(None),
        other => other.map_err(HandshakeError::Form)?,
    };
    if parts.len() > MAX_PARTS {
        return Err(HandshakeError::Parts(parts.len()));
    }
    if let Some(part) = parts.iter().find(|part| !part.is_sound(len)) {
        let Part { base_host_virt_addr: address, size, offset, page_size, .. } = *part;
        return Err(HandshakeError::Part { size, offset, address, page_size });
    }
    for (part, number) in parts.iter().zip(1..) {
        let meets = |one: &Range<u64>, other: &Range<u64>| one.start < other.end && other.start < one.end;
        if parts.iter().skip(number).any(|other| {
            meets(&part.addresses(), &other.addresses()) || meets(&part.offsets(), &other.offsets())
        }) {
            return Err(HandshakeError::Overlap);
        }
    }
    // None overlap and each lies in the file, so the sum is no more than its length.
    match parts.iter().map(|part| part.size).sum() {
        vm if vm == len => Ok(Some(parts)),
        vm => Err(HandshakeError::Size { vm, snapshot: len }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::create;

    fn part(address: u64, size: u64, offset: u64) -> Part {
        Part { base_host_virt_addr: address, size, offset, page_size: 4096, page_size_kib: 4096 }
    }

    fn parsed(parts: &[Part], len: u64) -> Result<Option<Vec<Part>>, String> {
        parse(&serde_json::to_vec(parts).unwrap(), len).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_vm_says_of_its_memory_is_understood() {
        let memory = create(3072 + 16, HugePages::None, false).unwrap();
        let parts = Part::all(&memory, HugePages::None);
        assert_eq!(parts.iter().map(|part| part.offset).collect::<Vec<_>>(), [0, 0xc000_0000]);
        assert_eq!(parsed(&parts, 3088 * MIB).unwrap().unwrap(), parts);
    }

    #[test]
    fn what_older_and_newer_vms_say_is_understood() {
        for keys in ["", r#","page_size_kib":4096"#, r#","page_size_kib":4,"later":[1]"#] {
            let text = format!(
                r#"[{{"base_host_virt_addr":140737353875456,"size":4096,"offset":0,"page_size":4096{keys}}}]"#
            );
            assert_eq!(parse(text.as_bytes(), 4096).unwrap().unwrap().len(), 1, "{text}");
        }
    }

    #[test]
    fn a_message_may_come_in_pieces() {
        let text = serde_json::to_vec(&[part(0x10_0000, MIB, 0)]).unwrap();
        for cut in 0..text.len() {
            assert!(parse(&text[..cut], MIB).unwrap().is_none());
        }
        assert!(parse(&text, MIB).unwrap().is_some());
        let error = parse(&vec![b' '; MAX_MESSAGE], MIB).unwrap_err();
        assert!(matches!(error, HandshakeError::Form(_)), "and not for ever: {error}");
    }

    /// The error that one part of its own, which cannot be, leads to.
    fn refused_part(part: &Part) -> String {
        let Part { base_host_virt_addr: address, size, offset, page_size, .. } = part;
        format!(
            "a part of {size} bytes at offset {offset}, address {address:#x}, in pages of {page_size}, cannot be"
        )
    }

    #[test]
    fn a_part_that_cannot_be_is_named() {
        let top = u64::MAX - 4095;
        for wrong in [
            part(0x1000, MIB, 4096),
            part(0x1001, MIB, 0),
            part(0x1000, MIB, 1),
            part(0x1000, MIB - 1, 0),
            part(0x1000, 0, 0),
            part(top, MIB, 0),
            part(0x1000, MIB, top),
            Part { page_size: 0, ..part(0x1000, MIB, 0) },
            Part { page_size: 0x20_0000, ..part(0x1000, MIB, 0) },
            Part { page_size: MIB, ..part(MIB, MIB, 0) },
        ] {
            assert_eq!(parsed(std::slice::from_ref(&wrong), MIB).unwrap_err(), refused_part(&wrong));
            // Also behind one that is right.
            let parts = [part(MIB, MIB, 0), wrong];
            assert_eq!(parsed(&parts, MIB).unwrap_err(), refused_part(&parts[1]));
        }
    }

    #[test]
    fn parts_that_are_not_the_snapshots_memory_are_refused() {
        let half = MIB / 2;
        let other = |vm: u64| {
            format!("the VM has {vm} bytes of memory and the snapshot {MIB}; restore it from this one")
        };
        for (parts, error) in [
            (vec![], other(0)),
            (vec![part(0x1000, MIB - 4096, 0)], other(MIB - 4096)),
            (
                vec![part(0x1000, MIB, 0); MAX_PARTS + 1],
                "the VM names 65 parts of memory; 64 are served at most".to_owned(),
            ),
            // At the same addresses, and from the same place in the file.
            (
                vec![part(0x1000, half, 0), part(0x1000, half, half)],
                "parts of the VM's memory overlap".to_owned(),
            ),
            (vec![part(0x1000, half, 0), part(MIB, half, 0)], "parts of the VM's memory overlap".to_owned()),
        ] {
            assert_eq!(parsed(&parts, MIB).unwrap_err(), error);
        }
    }

    #[test]
    fn a_message_of_another_form_is_refused() {
        for text in ["{}", "[1]", "[]x", "\0", "[{\"size\":-1}]"] {
            let error = parse(text.as_bytes(), MIB).unwrap_err();
            assert!(matches!(error, HandshakeError::Form(_)), "{text}: {error}");
        }
    }
}
