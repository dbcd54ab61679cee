//! The part of a CPU template that KVM is asked about: capabilities, and model-specific registers.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_msr_entry};
use kvm_ioctls::{VcpuFd, VmFd};

use super::VmError;
use crate::cpu::CpuError;
use crate::cpu::template::{CpuTemplate, KvmCapability, TemplateError};
use crate::kvm;

/// Checks that KVM has what `template` needs; the last word on a capability counts.
pub(super) fn check_capabilities(vm: &VmFd, template: &CpuTemplate) -> Result<(), CpuError> {
    let capabilities = &template.kvm_capabilities;
    for (position, capability) in (1..).zip(capabilities) {
        let KvmCapability::Required(number) = *capability else { continue };
        let removed =
            capabilities.iter().skip(position).any(|later| *later == KvmCapability::Removed(number));
        if !removed && vm.check_extension_raw(number.into()) <= 0 {
            return Err(TemplateError::NoCapability { number }.into());
        }
    }
    Ok(())
}

/// Says of which leaves KVM does not keep to what was set, `wanted`. (A KVM without hardware virtualization may have to
/// show the guest what the host's CPU has.)
pub(super) fn warn_of_overridden(vcpu: &VcpuFd, template: &CpuTemplate, wanted: &CpuId) {
    // Where KVM does not say, nothing is known.
    let Ok(shown) = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES) else { return };
    for (leaf, subleaf) in template.overridden(wanted, &shown) {
        log::warn!(
            "KVM on this host shows the guest CPUID leaf {leaf:#x}, subleaf {subleaf:#x}, otherwise than the CPU \
             template says"
        );
    }
}

/// Gives the registers of `vcpu` that `template` changes their values, each from what it has now. To be called when
/// the CPUID leaves are set, on which some registers depend.
pub(super) fn set_msrs(vcpu: &VcpuFd, template: &CpuTemplate) -> Result<(), VmError> {
    let indices = template.msr_indices();
    if indices.is_empty() {
        return Ok(());
    }
    let entries: Vec<_> =
        indices.iter().map(|index| kvm_msr_entry { index: *index, ..kvm_msr_entry::default() }).collect();
    // `CpuTemplate::validate` has bounded their number far below what a list can have.
    let too_many = |_| CpuError::from(TemplateError::TooMany { what: "MSR modifiers", count: indices.len() });
    let mut msrs = Msrs::from_entries(&entries).map_err(too_many)?;

    // Both calls stop at the first register that KVM does not take, and say how many came before it.
    let read = vcpu.get_msrs(&mut msrs).map_err(kvm::failed("KVM_GET_MSRS"))?;
    if let Some(index) = indices.get(read) {
        return Err(CpuError::from(TemplateError::NoMsr { index: *index }).into());
    }
    for entry in msrs.as_mut_slice() {
        entry.data = template.msr_value(entry.index, entry.data);
    }
    let written = vcpu.set_msrs(&msrs).map_err(kvm::failed("KVM_SET_MSRS"))?;
    if let Some(entry) = msrs.as_slice().get(written) {
        let (index, value) = (entry.index, entry.data);
        return Err(CpuError::from(TemplateError::MsrRefused { index, value }).into());
    }
    Ok(())
}
