//! What KVM holds of one vCPU, as a snapshot keeps it, and reading it.
//!
//! The order of reading is not free:
//! - `KVM_GET_MP_STATE` comes first: it takes in a pending INIT or SIPI, which changes registers and the local APIC.
//! - The MSRs come before the local APIC. A timer that goes off in between is then in both, as a deadline that has passed
//!   and as a pending interrupt, and one interrupt too many does no harm; the other way round it would be in neither.
//! - The events come last: reading the rest can change them.

use kvm_bindings::{
    Xsave, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
    kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};
use vmm_sys_util::fam::FamStruct;

use super::msrs::{self, IA32_TSC, IA32_TSC_DEADLINE, MsrV1};
use super::tsc::TscStateV1;
use crate::kvm::{self, Host, KvmError, vcpu_ioctls};
use crate::snapshot::bounded;

/// Bits of CR0, CR4 and EFER that tell paging with PAE: PG, PAE, and LMA of long mode.
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LMA: u64 = 1 << 10;

// What is read of a file at most. A structure of KVM's can be made of a single byte there, so lists of them would grow.
const MAX_LEAVES: usize = 256;
const MAX_SAVED_MSRS: usize = 4096;
const MAX_XSAVE_WORDS: usize = 1 << 15;

/// A vCPU. Made by [`VcpuHandle::save`](super::VcpuHandle::save), used by [`restore`](super::restore()).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VcpuStateV1 {
    /// Its number, from 0.
    pub id: u32,
    /// The CPUID leaves that it was given.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_LEAVES>")]
    pub cpuid: Vec<kvm_cpuid_entry2>,
    /// Its time stamp counter.
    pub tsc: TscStateV1,
    /// `IA32_TSC_DEADLINE`, where KVM has it.
    pub tsc_deadline: Option<u64>,
    /// The other model-specific registers.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_SAVED_MSRS>")]
    pub msrs: Vec<MsrV1>,
    /// General registers.
    pub regs: kvm_regs,
    /// Segment and control registers.
    pub sregs: kvm_sregs,
    /// The page-directory pointers that it has loaded: only when it pages with PAE, and where KVM tells.
    pub pdptrs: Option<[u64; 4]>,
    /// The extended state in the form of XSAVE, as 32-bit words: 1024, or more with AMX.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_XSAVE_WORDS>")]
    pub xsave: Vec<u32>,
    /// Extended control registers.
    pub xcrs: kvm_xcrs,
    /// Debug registers.
    pub debug_regs: kvm_debugregs,
    /// The local APIC's registers.
    pub lapic: kvm_lapic_state,
    /// `KVM_MP_STATE_*`: whether it runs, halts, or was not started.
    pub mp_state: u32,
    /// Exceptions, interrupts and NMIs on their way into it.
    pub events: kvm_vcpu_events,
}

/// What KVM on this host keeps of every vCPU. To be asked when something is saved.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    msr_indices: Vec<u32>,
    /// In bytes.
    xsave_size: usize,
}

impl Extent {
    pub(super) fn of(host: &Host) -> Result<Self, KvmError> {
        Ok(Self { msr_indices: msrs::to_save(&host.msr_indices()?), xsave_size: host.xsave_size() })
    }
}

impl VcpuStateV1 {
    /// Reads vCPU `id`, which was given `cpuid`, is outside of `KVM_RUN` and has finished its last exit.
    pub(super) fn read(
        vcpu: &VcpuFd,
        id: u32,
        cpuid: &[kvm_cpuid_entry2],
        extent: &Extent,
    ) -> Result<Self, KvmError> {
        let mp_state = vcpu.get_mp_state().map_err(kvm::failed("KVM_GET_MP_STATE"))?.mp_state;
        let (mut msrs, at) = kvm::timed(|| msrs::read(vcpu, &extent.msr_indices))?;
        let mut take = |index| {
            let place = msrs.iter().position(|msr| msr.index == index)?;
            Some(msrs.remove(place).value)
        };
        let (value, tsc_deadline) = (take(IA32_TSC).unwrap_or_default(), take(IA32_TSC_DEADLINE));
        let sregs = vcpu.get_sregs().map_err(kvm::failed("KVM_GET_SREGS"))?;
        let pae = sregs.cr0 & CR0_PG != 0 && sregs.cr4 & CR4_PAE != 0 && sregs.efer & EFER_LMA == 0;
        Ok(Self {
            id,
            cpuid: cpuid.to_vec(),
            tsc: TscStateV1 {
                khz: vcpu.get_tsc_khz().ok(),
                value,
                at,
                offset: vcpu_ioctls::tsc_offset(vcpu),
            },
            tsc_deadline,
            msrs,
            regs: vcpu.get_regs().map_err(kvm::failed("KVM_GET_REGS"))?,
            sregs,
            pdptrs: if pae { vcpu_ioctls::pdptrs(vcpu) } else { None },
            xsave: read_xsave(vcpu, extent.xsave_size)?,
            xcrs: vcpu.get_xcrs().map_err(kvm::failed("KVM_GET_XCRS"))?,
            debug_regs: vcpu.get_debug_regs().map_err(kvm::failed("KVM_GET_DEBUGREGS"))?,
            lapic: vcpu.get_lapic().map_err(kvm::failed("KVM_GET_LAPIC"))?,
            mp_state,
            events: vcpu.get_vcpu_events().map_err(kvm::failed("KVM_GET_VCPU_EVENTS"))?,
        })
    }
}

/// Room for an extended state of `size` bytes.
pub(super) fn new_xsave(size: usize) -> Result<Xsave, KvmError> {
    let words = size.saturating_sub(size_of::<kvm_xsave>()).div_ceil(size_of::<u32>());
    Xsave::new(words).map_err(|error| KvmError::Ioctl {
        what: "an extended state",
        source: std::io::Error::other(format!("{error:?}")),
    })
}

fn read_xsave(vcpu: &VcpuFd, size: usize) -> Result<Vec<u32>, KvmError> {
    let mut xsave = new_xsave(size)?;
    if size == size_of::<kvm_xsave>() {
        let state = vcpu.get_xsave().map_err(kvm::failed("KVM_GET_XSAVE"))?;
        return Ok(state.region.to_vec());
    }
    #[expect(unsafe_code, reason = "KVM_GET_XSAVE2 writes as many bytes as it says elsewhere")]
    // SAFETY: `size` is what KVM_CAP_XSAVE2 says, and `xsave` has that much room.
    unsafe { vcpu.get_xsave2(&mut xsave) }.map_err(kvm::failed("KVM_GET_XSAVE2"))?;
    let state = xsave.as_fam_struct_ref();
    Ok(state.xsave.region.iter().chain(state.as_slice()).copied().collect())
}
