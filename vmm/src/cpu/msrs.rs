//! Model-specific registers that a vCPU does not have right after its creation.

use kvm_bindings::kvm_msr_entry;

/// `IA32_MISC_ENABLE` (Intel SDM 4, table 2-2); bit 0 is "fast-strings enable".
const IA32_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1 << 0;
/// `IA32_MTRR_DEF_TYPE` (Intel SDM 3A, 12.11.2.1): bit 11 enables the MTRRs; type 6 is write-back.
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const MTRR_WRITE_BACK: u64 = 6;

/// What to set on every vCPU before it first runs. All other registers are right as KVM resets them, and each entry
/// costs time.
///
/// - Without fast strings Linux takes an Intel CPU's `rep movs` for slow and copies in other ways.
/// - Without a default memory type Linux gives up both MTRRs and the page attribute table.
pub fn boot_msrs() -> [kvm_msr_entry; 2] {
    let msr = |index, data| kvm_msr_entry { index, data, ..kvm_msr_entry::default() };
    [msr(IA32_MISC_ENABLE, FAST_STRINGS), msr(IA32_MTRR_DEF_TYPE, MTRR_ENABLE | MTRR_WRITE_BACK)]
}
