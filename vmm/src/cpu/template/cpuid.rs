//! A template's CPUID modifiers, applied to the leaves that a vCPU would have without them.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::kept::{kept_bits, running_bits};
use super::{CpuTemplate, CpuidRegister, LeafModifier, RegisterModifier, TemplateError};
use crate::cpu::CpuError;

impl CpuTemplate {
    /// `guest`, the leaves of a vCPU, as this template wants them. A leaf that is only among those that KVM supports
    /// (`supported`) is one that rvmm leaves out: it begins with zeroes.
    ///
    /// # Errors
    /// A leaf that KVM does not have, or more leaves than it takes.
    pub fn apply_to_cpuid(&self, guest: &CpuId, supported: &CpuId) -> Result<CpuId, CpuError> {
        let mut leaves = guest.as_slice().to_vec();
        for modifier in &self.cpuid_modifiers {
            modifier.apply(&mut leaves, supported.as_slice())?;
        }
        CpuId::from_entries(&leaves).map_err(|_| CpuError::TooManyLeaves(leaves.len()))
    }

    /// The leaves that this template changed to `wanted` and that KVM shows otherwise, as `shown`, each once.
    pub fn overridden(&self, wanted: &CpuId, shown: &CpuId) -> Vec<(u32, u32)> {
        let find = |cpuid: &CpuId, (leaf, subleaf)| {
            let here = |entry: &&kvm_cpuid_entry2| (entry.function, entry.index) == (leaf, subleaf);
            cpuid.as_slice().iter().find(here).map_or([0; 4], registers)
        };
        let mut places = Vec::new();
        for modifier in &self.cpuid_modifiers {
            let place = (modifier.leaf, modifier.subleaf);
            let pairs = find(wanted, place).into_iter().zip(find(shown, place));
            let held = pairs.zip(modifier.bits()).all(|((wanted, shown), bits)| (wanted ^ shown) & bits == 0);
            if !held && !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }
}

impl CpuTemplate {
    /// The bits of EAX, EBX, ECX and EDX of a leaf that this template gives a value.
    pub(in crate::cpu) fn changed_bits(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let here = |modifier: &&LeafModifier| (modifier.leaf, modifier.subleaf) == (leaf, subleaf);
        self.cpuid_modifiers.iter().filter(here).fold([0; 4], |mut all, modifier| {
            all.iter_mut().zip(modifier.bits()).for_each(|(all, bits)| *all |= bits);
            all
        })
    }
}

fn registers(entry: &kvm_cpuid_entry2) -> [u32; 4] {
    [entry.eax, entry.ebx, entry.ecx, entry.edx]
}

impl LeafModifier {
    fn apply(
        &self,
        leaves: &mut Vec<kvm_cpuid_entry2>,
        supported: &[kvm_cpuid_entry2],
    ) -> Result<(), TemplateError> {
        let here = |entry: &kvm_cpuid_entry2| (entry.function, entry.index) == (self.leaf, self.subleaf);
        if let Some(entry) = leaves.iter_mut().find(|entry| here(entry)) {
            self.change(entry);
        } else if let Some(left_out) = supported.iter().find(|entry| here(entry)) {
            let mut entry = kvm_cpuid_entry2 { eax: 0, ebx: 0, ecx: 0, edx: 0, ..*left_out };
            self.change(&mut entry);
            leaves.push(entry);
        } else {
            return Err(TemplateError::NoLeaf { leaf: self.leaf, subleaf: self.subleaf });
        }
        Ok(())
    }

    /// The bits of EAX, EBX, ECX and EDX that are this template's for as long as the guest runs.
    fn bits(&self) -> [u32; 4] {
        let mut bits = [0; 4];
        for RegisterModifier { register, bitmap } in &self.modifiers {
            let [eax, ebx, ecx, edx] = &mut bits;
            *match register {
                CpuidRegister::Eax => eax,
                CpuidRegister::Ebx => ebx,
                CpuidRegister::Ecx => ecx,
                CpuidRegister::Edx => edx,
            } |= bitmap.changed() as u32;
        }
        let not_ours = kept_bits(self.leaf).into_iter().zip(running_bits(self.leaf));
        for (bits, (kept, running)) in bits.iter_mut().zip(not_ours) {
            *bits &= !(kept | running);
        }
        bits
    }

    fn change(&self, entry: &mut kvm_cpuid_entry2) {
        // Whether a subleaf counts is for KVM to say: a guest would be answered from another one.
        let index = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        entry.flags = (self.flags & !index) | (entry.flags & index);
        let [eax, ebx, ecx, edx] = kept_bits(self.leaf);
        for modifier in &self.modifiers {
            let (register, kept) = match modifier.register {
                CpuidRegister::Eax => (&mut entry.eax, eax),
                CpuidRegister::Ebx => (&mut entry.ebx, ebx),
                CpuidRegister::Ecx => (&mut entry.ecx, ecx),
                CpuidRegister::Edx => (&mut entry.edx, edx),
            };
            let changed = modifier.bitmap.apply(u64::from(*register)) as u32;
            *register = (*register & kept) | (changed & !kept);
        }
    }
}
