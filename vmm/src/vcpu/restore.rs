//! Giving fresh vCPUs what a snapshot kept of others.
//!
//! The order of writing is not free:
//! - CPUID comes first: KVM checks control registers, XCR0 and MSRs by it.
//! - The TSC's rate and offset come before what is timed by it: the local APIC's timer and its deadline.
//! - The segment and control registers come before XCR0 (CR4), and before the local APIC (its base has its mode).
//! - The local APIC comes before `IA32_TSC_DEADLINE`, which KVM ignores unless the timer's mode takes one.
//! - The events come behind the control registers, which bring a pending interrupt of their own.
//!
//! All model-specific registers are set in one call, also those with the value that KVM resets them to: a call costs 6 µs
//! and more where it was measured, and each register within one 0.1 µs.

use kvm_bindings::{CpuId, KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, kvm_mp_state};
use kvm_ioctls::{Cap, VcpuFd, VmFd};
use vmm_sys_util::fam::FamStruct;

use super::msrs::{self, IA32_TSC, IA32_TSC_DEADLINE, MAX_MSRS, MsrV1};
use super::state::{VcpuStateV1, new_xsave};
use super::tsc::{Plan, Rate};
use crate::kvm::{self, Elapsed, KvmError, vcpu_ioctls};

/// `MSR_KVM_SYSTEM_TIME` and `MSR_KVM_SYSTEM_TIME_NEW`: bit 0 says that the guest reads kvm-clock.
const KVM_SYSTEM_TIME: [u32; 2] = [0x12, 0x4b56_4d01];

/// Words of the smallest extended state, and of the largest that a vCPU can have.
const XSAVE_WORDS: std::ops::RangeInclusive<usize> = 1024..=16384;

/// Why a vCPU is not what was saved.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// KVM refused something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The state is of another number of vCPUs.
    #[error("the saved state has {saved} vCPUs, and the VM {vcpus}")]
    Count {
        /// In the state.
        saved: usize,
        /// In the VM.
        vcpus: usize,
    },
    /// The vCPUs are not in order.
    #[error("the saved state has vCPU {found} where vCPU {expected} should be")]
    Id {
        /// Its number.
        found: u32,
        /// What it should be.
        expected: u32,
    },
    /// A list that KVM cannot take.
    #[error("the saved state has {count} {what}, and {most} is the most")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The most that there can be.
        most: usize,
    },
    /// A register that is there twice.
    #[error("the saved state has MSR {0:#x} twice")]
    Repeated(u32),
    /// A register that is kept elsewhere.
    #[error("the saved state has MSR {0:#x} among those that it is not one of")]
    Misplaced(u32),
    /// A register that KVM refuses.
    #[error("KVM on this host refuses to set MSR {index:#x} to the saved {value:#x}")]
    Msr {
        /// Its number.
        index: u32,
        /// What it should have had.
        value: u64,
    },
    /// An extended state that cannot be one.
    #[error("the saved extended state (XSAVE) has {0} words: 1024 to 16384 are possible")]
    XsaveSize(usize),
    /// An extended state that this host has no room for.
    #[error("the saved extended state (XSAVE) uses more than the {host} bytes that KVM on this host keeps")]
    Xsave {
        /// In bytes.
        host: usize,
    },
    /// The guest's TSC ran at another rate.
    #[error(
        "the guest's TSC runs at {wanted} kHz, this host's at {now} kHz, and KVM here cannot scale it: use a host with TSC scaling"
    )]
    TscRate {
        /// The guest's, in kHz.
        wanted: u32,
        /// This host's, in kHz.
        now: u32,
    },
}

/// Makes the fresh `vcpus` of `vm`, in their order, what `states` say. Guest memory is in its slots by now, for some registers
/// name places in it; the interrupt controllers' state is set afterwards.
///
/// # Errors
/// [`RestoreError`]; the vCPUs cannot be used then.
pub fn restore(
    vm: &VmFd,
    vcpus: &[&VcpuFd],
    states: &[VcpuStateV1],
    elapsed: Elapsed,
) -> Result<(), RestoreError> {
    validate(states, vcpus.len())?;
    let (Some(first), Some(saved)) = (vcpus.first(), states.first()) else { return Ok(()) };
    let rate = Rate::of(vm, first);
    for (vcpu, state) in vcpus.iter().zip(states) {
        state.apply_cpuid(vcpu)?;
        rate.apply(vcpu, &state.tsc)?;
    }
    let all_have_offsets = states.iter().all(|state| state.tsc.offset.is_some());
    let plan = Plan::new(first, &saved.tsc, all_have_offsets, elapsed)?;
    let xsave_size = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or_default();
    for (vcpu, state) in vcpus.iter().zip(states) {
        plan.apply(vcpu, &state.tsc)?;
        state.apply(vcpu, xsave_size)?;
    }
    Ok(())
}

/// Checks of `states` what can be checked without KVM: that they are of `vcpus` vCPUs in their order, and that no list is longer
/// than it can be or has something twice.
///
/// # Errors
/// [`RestoreError`] with what is wrong.
pub fn validate(states: &[VcpuStateV1], vcpus: usize) -> Result<(), RestoreError> {
    if states.len() != vcpus {
        return Err(RestoreError::Count { saved: states.len(), vcpus });
    }
    states.iter().zip(0..).try_for_each(|(state, expected)| state.check(expected))
}

impl VcpuStateV1 {
    /// Checks what KVM does not: that it is vCPU `expected`, and that nothing is longer than it can be.
    fn check(&self, expected: u32) -> Result<(), RestoreError> {
        if self.id != expected {
            return Err(RestoreError::Id { found: self.id, expected });
        }
        let count = self.msrs.len();
        if count > MAX_MSRS {
            return Err(RestoreError::TooMany { what: "MSRs", count, most: MAX_MSRS });
        }
        let mut indices: Vec<u32> = self.msrs.iter().map(|msr| msr.index).collect();
        indices.sort_unstable();
        if let Some([index, ..]) = indices.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(RestoreError::Repeated(*index));
        }
        if let Some(index) = indices.iter().find(|index| [IA32_TSC, IA32_TSC_DEADLINE].contains(index)) {
            return Err(RestoreError::Misplaced(*index));
        }
        if !XSAVE_WORDS.contains(&self.xsave.len()) {
            return Err(RestoreError::XsaveSize(self.xsave.len()));
        }
        Ok(())
    }

    /// The CPUID leaves, as KVM takes them.
    ///
    /// # Errors
    /// When there are more than that.
    pub fn cpuid(&self) -> Result<CpuId, RestoreError> {
        CpuId::from_entries(&self.cpuid).map_err(|_| RestoreError::TooMany {
            what: "CPUID leaves",
            count: self.cpuid.len(),
            most: kvm_bindings::KVM_MAX_CPUID_ENTRIES,
        })
    }

    fn apply_cpuid(&self, vcpu: &VcpuFd) -> Result<(), RestoreError> {
        Ok(vcpu.set_cpuid2(&self.cpuid()?).map_err(kvm::failed("KVM_SET_CPUID2"))?)
    }

    fn apply(&self, vcpu: &VcpuFd, xsave_size: usize) -> Result<(), RestoreError> {
        self.apply_sregs(vcpu)?;
        vcpu.set_xcrs(&self.xcrs).map_err(kvm::failed("KVM_SET_XCRS"))?;
        write_xsave(vcpu, &self.xsave, xsave_size)?;
        vcpu.set_debug_regs(&self.debug_regs).map_err(kvm::failed("KVM_SET_DEBUGREGS"))?;
        if let Some(MsrV1 { index, value }) = msrs::write(vcpu, &self.msrs)? {
            return Err(RestoreError::Msr { index, value });
        }
        vcpu.set_lapic(&self.lapic).map_err(kvm::failed("KVM_SET_LAPIC"))?;
        // None is set as long as it is 0, and that is how the register begins.
        if let Some(value) = self.tsc_deadline.filter(|deadline| *deadline != 0) {
            let deadline = MsrV1 { index: IA32_TSC_DEADLINE, value };
            if let Some(MsrV1 { index, value }) = msrs::write(vcpu, &[deadline])? {
                return Err(RestoreError::Msr { index, value });
            }
        }
        let fresh = if self.id == 0 { KVM_MP_STATE_RUNNABLE } else { KVM_MP_STATE_UNINITIALIZED };
        if self.mp_state != fresh {
            let state = kvm_mp_state { mp_state: self.mp_state };
            vcpu.set_mp_state(state).map_err(kvm::failed("KVM_SET_MP_STATE"))?;
        }
        vcpu.set_vcpu_events(&self.events).map_err(kvm::failed("KVM_SET_VCPU_EVENTS"))?;
        vcpu.set_regs(&self.regs).map_err(kvm::failed("KVM_SET_REGS"))?;
        if self.msrs.iter().any(|msr| KVM_SYSTEM_TIME.contains(&msr.index) && msr.value & 1 != 0) {
            // Its watchdogs are not to bark at the time that it was away. Where it cannot be told, they may.
            let _ = vcpu.kvmclock_ctrl();
        }
        Ok(())
    }

    fn apply_sregs(&self, vcpu: &VcpuFd) -> Result<(), KvmError> {
        if let Some(pdptrs) = self.pdptrs {
            match vcpu_ioctls::set_sregs_with_pdptrs(vcpu, &self.sregs, pdptrs) {
                // An older KVM reads them from guest memory, where they are, too, unless the guest is about to change them.
                Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {}
                other => {
                    return other.map_err(|source| KvmError::Ioctl { what: "KVM_SET_SREGS2", source });
                }
            }
        }
        vcpu.set_sregs(&self.sregs).map_err(kvm::failed("KVM_SET_SREGS"))
    }
}

/// Gives `vcpu` the extended state `words`. KVM on this host keeps `size` bytes of it.
fn write_xsave(vcpu: &VcpuFd, words: &[u32], size: usize) -> Result<(), RestoreError> {
    let mut xsave = new_xsave(size)?;
    #[expect(unsafe_code, reason = "the wrapper hands out its structure, whose length must stay as it is")]
    // SAFETY: only the words within the length that the structure has are changed.
    let state = unsafe { xsave.as_mut_fam_struct() };
    let (region, extra) = words.split_at_checked(state.xsave.region.len()).unwrap_or_default();
    for (to, from) in state.xsave.region.iter_mut().zip(region) {
        *to = *from;
    }
    let room = state.as_mut_slice();
    if extra.iter().skip(room.len()).any(|word| *word != 0) {
        return Err(RestoreError::Xsave { host: size });
    }
    for (to, from) in room.iter_mut().zip(extra) {
        *to = *from;
    }
    #[expect(unsafe_code, reason = "KVM_SET_XSAVE reads as many bytes as it says elsewhere")]
    // SAFETY: `xsave` has at least the room that KVM_CAP_XSAVE2 says.
    unsafe { vcpu.set_xsave2(&xsave) }.map_err(kvm::failed("KVM_SET_XSAVE"))?;
    Ok(())
}
