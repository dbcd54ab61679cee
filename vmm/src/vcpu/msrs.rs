//! Reading and writing many model-specific registers with few calls to KVM.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

use crate::kvm::{self, KvmError};

/// `IA32_TIME_STAMP_COUNTER` (Intel SDM 4, table 2-2).
pub(super) const IA32_TSC: u32 = 0x10;
/// `IA32_TSC_DEADLINE`.
pub(super) const IA32_TSC_DEADLINE: u32 = 0x6e0;
/// The memory type range registers, which KVM keeps but does not list: default, fixed and variable (Intel SDM 3A, 12.11).
const MTRRS: [u32; 28] = [
    0x2ff, 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f, 0x200, 0x201, 0x202,
    0x203, 0x204, 0x205, 0x206, 0x207, 0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f,
];
/// Hyper-V's registers, which guests of rvmm are not offered; some of those that KVM lists can only be read.
const HYPER_V: std::ops::Range<u32> = 0x4000_0000..0x4000_0200;

/// KVM takes fewer than 256 registers at a time (`MAX_IO_MSRS`).
const MAX_AT_ONCE: usize = 255;
/// More registers than any KVM has of one vCPU.
pub(super) const MAX_MSRS: usize = 1024;

/// A model-specific register and what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsrV1 {
    /// Its number.
    pub index: u32,
    /// Its content.
    pub value: u64,
}

/// What to save of the registers that KVM `lists`: the TSC first, so that it is read next to the time, and each once.
pub(super) fn to_save(lists: &[u32]) -> Vec<u32> {
    let mut indices = vec![IA32_TSC, IA32_TSC_DEADLINE];
    for index in lists.iter().chain(&MTRRS) {
        if !HYPER_V.contains(index) && !indices.contains(index) {
            indices.push(*index);
        }
    }
    indices
}

/// Reads the registers `indices`; those that KVM does not have for this vCPU are left out.
pub(super) fn read(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<MsrV1>, KvmError> {
    let mut found = Vec::with_capacity(indices.len());
    let mut rest = indices;
    while !rest.is_empty() {
        let now = rest.get(..MAX_AT_ONCE).unwrap_or(rest);
        let mut msrs = list(now.iter().map(|index| MsrV1 { index: *index, value: 0 }))?;
        let count = vcpu.get_msrs(&mut msrs).map_err(kvm::failed("KVM_GET_MSRS"))?;
        let read = msrs.as_slice().iter().take(count);
        found.extend(read.map(|entry| MsrV1 { index: entry.index, value: entry.data }));
        // KVM stops at the first that it does not have.
        let done = if count < now.len() { count.saturating_add(1) } else { count };
        rest = rest.get(done..).unwrap_or_default();
    }
    Ok(found)
}

/// Writes `msrs` in their order. The answer is the first that KVM refuses, if there is one: those behind it are not
/// written then. What KVM does not have but was 0 is no loss, and passed over.
pub(super) fn write(vcpu: &VcpuFd, msrs: &[MsrV1]) -> Result<Option<MsrV1>, KvmError> {
    let mut rest = msrs;
    while !rest.is_empty() {
        let now = rest.get(..MAX_AT_ONCE).unwrap_or(rest);
        let count = vcpu.set_msrs(&list(now.iter().copied())?).map_err(kvm::failed("KVM_SET_MSRS"))?;
        let done = match now.get(count) {
            None => now.len(),
            Some(MsrV1 { index, value: 0 }) => {
                log::debug!("KVM on this host has no MSR {index:#x}, which was 0");
                count.saturating_add(1)
            }
            Some(refused) => return Ok(Some(*refused)),
        };
        rest = rest.get(done..).unwrap_or_default();
    }
    Ok(None)
}

fn list(msrs: impl Iterator<Item = MsrV1>) -> Result<Msrs, KvmError> {
    let entries: Vec<_> = msrs
        .map(|msr| kvm_msr_entry { index: msr.index, data: msr.value, ..kvm_msr_entry::default() })
        .collect();
    Msrs::from_entries(&entries).map_err(|error| KvmError::Ioctl {
        what: "a list of MSRs",
        source: std::io::Error::other(format!("{error:?}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tsc_is_read_first_each_register_once_and_none_of_hyper_v() {
        let indices = to_save(&[0x174, 0x10, 0x2ff, 0x174, 0x6e0, 0x4000_0020, 0x4b56_4d01]);
        assert_eq!(indices.first(), Some(&IA32_TSC));
        for index in [0x10, 0x174, 0x2ff, 0x6e0, 0x4b56_4d01, 0x20f] {
            assert_eq!(indices.iter().filter(|other| **other == index).count(), 1, "{index:#x}");
        }
        assert!(!indices.contains(&0x4000_0020));
    }
}
