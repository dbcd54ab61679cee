//! Two things of a vCPU that the `kvm-ioctls` crate has no call for: its page-directory pointers (`KVM_GET_SREGS2`) and
//! the offset of its TSC (`KVM_VCPU_TSC_CTRL`).

use std::io;

use kvm_bindings::{KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr, kvm_sregs, kvm_sregs2};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::{ioctl_ior_nr, ioctl_iow_nr};

ioctl_ior_nr!(KVM_GET_SREGS2, KVMIO, 0xcc, kvm_sregs2);
ioctl_iow_nr!(KVM_SET_SREGS2, KVMIO, 0xcd, kvm_sregs2);
ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);

/// `KVM_SREGS2_FLAGS_PDPTRS_VALID` of `asm/kvm.h`.
const PDPTRS_VALID: u64 = 1 << 0;

/// The four page-directory pointers that the vCPU has loaded, where it pages with PAE and this KVM tells.
pub(crate) fn pdptrs(vcpu: &VcpuFd) -> Option<[u64; 4]> {
    let mut sregs = kvm_sregs2::default();
    #[expect(unsafe_code, reason = "an ioctl")]
    // SAFETY: KVM fills in a structure of exactly this type.
    let result = unsafe { ioctl_with_mut_ref(vcpu, KVM_GET_SREGS2(), &mut sregs) };
    (result == 0 && sregs.flags & PDPTRS_VALID != 0).then_some(sregs.pdptrs)
}

/// Sets `sregs` and the page-directory pointers, which KVM would read from guest memory otherwise.
///
/// # Errors
/// What KVM said; ENOTTY when it has no such call.
pub(crate) fn set_sregs_with_pdptrs(vcpu: &VcpuFd, sregs: &kvm_sregs, pdptrs: [u64; 4]) -> io::Result<()> {
    let kvm_sregs {
        cs,
        ds,
        es,
        fs,
        gs,
        ss,
        tr,
        ldt,
        gdt,
        idt,
        cr0,
        cr2,
        cr3,
        cr4,
        cr8,
        efer,
        apic_base,
        // A pending interrupt comes with the events.
        interrupt_bitmap: _,
    } = *sregs;
    let sregs = kvm_sregs2 {
        cs,
        ds,
        es,
        fs,
        gs,
        ss,
        tr,
        ldt,
        gdt,
        idt,
        cr0,
        cr2,
        cr3,
        cr4,
        cr8,
        efer,
        apic_base,
        flags: PDPTRS_VALID,
        pdptrs,
    };
    #[expect(unsafe_code, reason = "an ioctl")]
    // SAFETY: KVM reads a structure of exactly this type.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_SET_SREGS2(), &sregs) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What KVM adds to the host's TSC, once scaled, for this vCPU (modulo 2^64); `None` where it does not tell.
pub(crate) fn tsc_offset(vcpu: &VcpuFd) -> Option<u64> {
    let mut offset = 0_u64;
    let attribute = tsc_offset_attribute(&raw mut offset);
    #[expect(unsafe_code, reason = "an ioctl")]
    // SAFETY: for this attribute KVM writes the eight bytes at `addr`, which is `offset`.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_GET_DEVICE_ATTR(), &attribute) };
    (result == 0).then_some(offset)
}

/// Sets the [offset](tsc_offset).
///
/// # Errors
/// What KVM said.
pub(crate) fn set_tsc_offset(vcpu: &VcpuFd, mut offset: u64) -> io::Result<()> {
    let attribute = tsc_offset_attribute(&raw mut offset);
    #[expect(unsafe_code, reason = "an ioctl")]
    // SAFETY: for this attribute KVM reads the eight bytes at `addr`, which is `offset`.
    let result = unsafe { ioctl_with_ref(vcpu, KVM_SET_DEVICE_ATTR(), &attribute) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn tsc_offset_attribute(offset: *mut u64) -> kvm_device_attr {
    kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: offset as u64,
    }
}
