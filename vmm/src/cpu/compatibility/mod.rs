//! Whether a guest that was saved on one host can go on on another: its CPU must not lack what the guest was told it has.
//!
//! Only what is missing counts. What a CPU has besides stays hidden, for the guest keeps the CPUID leaves it was saved with.
//! That the TSC's rate is right is looked at when the vCPUs are restored, for KVM says its own of a vCPU.

mod features;

#[cfg(test)]
mod tests;

use kvm_bindings::kvm_cpuid_entry2;

use self::features::{EAX, EBX, EDX, FEATURE_WORDS, state_component};
use super::cpuid::vendor;
use super::template::CpuTemplate;

/// Extended state: components in EAX and EDX of subleaf 0, their size and place in EAX and EBX of their own subleaf.
const XSTATE: u32 = 0xd;
/// The brand string, 16 bytes of it in each.
const BRAND: std::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0004;
/// Address sizes.
const ADDRESS_SIZES: u32 = 0x8000_0008;

/// Why a guest cannot go on on this host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CpuMismatch {
    /// Another maker's CPU.
    #[error(
        "the guest was saved on a CPU of {saved:?}, and this host's is of {host:?}: use a host of the same vendor"
    )]
    Vendor {
        /// The guest's, as CPUID says.
        saved: String,
        /// This host's.
        host: String,
    },
    /// A CPU, or a KVM, that has less.
    #[error("this host's CPU or KVM lacks what the guest uses: {}; use a host that has it, or save guests with a CPU template that hides it", .0.join(", "))]
    Missing(Vec<String>),
}

/// Checks that this host, whose KVM supports `supported`, has what a vCPU with the leaves `saved` was promised. What
/// `template` promises beyond any CPU is warned of only: the host that it was saved on need not have had it either.
///
/// # Errors
/// [`CpuMismatch`] with all that is missing.
pub fn check_compatible(
    saved: &[kvm_cpuid_entry2],
    supported: &[kvm_cpuid_entry2],
    template: Option<&CpuTemplate>,
) -> Result<(), CpuMismatch> {
    let [ours, theirs] = [saved, supported].map(|leaves| find(leaves, 0, 0).map(|leaf| vendor(&leaf)));
    if let (Some(saved), Some(host)) = (ours, theirs)
        && saved != host
    {
        let text = |vendor: [u8; 12]| String::from_utf8_lossy(&vendor).into_owned();
        return Err(CpuMismatch::Vendor { saved: text(saved), host: text(host) });
    }
    let mut missing = missing_features(saved, supported, template);
    missing.extend(missing_state(saved, supported));
    let width = |leaves| registers(leaves, ADDRESS_SIZES, 0)[EAX] & 0xff;
    if width(saved) > width(supported) {
        missing.push(format!("physical addresses of {} bits", width(saved)));
    }
    if missing.is_empty() { Ok(()) } else { Err(CpuMismatch::Missing(missing)) }
}

/// A CPU in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuDescription {
    /// Who made it: `GenuineIntel`.
    pub vendor: String,
    /// What its maker calls it; empty where CPUID does not tell.
    pub model: String,
    /// Its features, as /proc/cpuinfo calls them.
    pub features: Vec<String>,
}

/// What the CPUID leaves of a guest say.
pub fn describe(leaves: &[kvm_cpuid_entry2]) -> CpuDescription {
    let text = |bytes: &[u8]| {
        let printable = bytes.iter().copied().filter(|byte| (0x20..0x7f).contains(byte));
        String::from_utf8(printable.collect()).unwrap_or_default().trim().to_owned()
    };
    let vendor = find(leaves, 0, 0).map(|leaf| text(&vendor(&leaf))).unwrap_or_default();
    let brand = BRAND.flat_map(|leaf| registers(leaves, leaf, 0)).flat_map(u32::to_le_bytes);
    let mut features = Vec::new();
    for word in FEATURE_WORDS {
        let register = registers(leaves, word.leaf, word.subleaf).get(word.register).copied();
        for name in word.names(register.unwrap_or(0) & !word.not_features) {
            // AMD has some twice.
            if !features.contains(&name) {
                features.push(name);
            }
        }
    }
    CpuDescription { vendor, model: text(&brand.collect::<Vec<_>>()), features }
}

fn missing_features(
    saved: &[kvm_cpuid_entry2],
    supported: &[kvm_cpuid_entry2],
    template: Option<&CpuTemplate>,
) -> Vec<String> {
    let mut missing = Vec::new();
    for word in FEATURE_WORDS {
        let register = |leaves| registers(leaves, word.leaf, word.subleaf).get(word.register).copied();
        let bits = register(saved).unwrap_or(0) & !register(supported).unwrap_or(0) & !word.not_features;
        if bits == 0 {
            continue;
        }
        let asked = template.map_or([0; 4], |template| template.changed_bits(word.leaf, word.subleaf));
        let asked = bits & asked.get(word.register).copied().unwrap_or(0);
        if asked != 0 {
            let names: Vec<_> = word.names(asked).collect();
            log::warn!("the guest's CPU template promises what this host's KVM lacks: {}", names.join(", "));
        }
        for name in word.names(bits & !asked) {
            // AMD has some twice.
            if !missing.contains(&name) {
                missing.push(name);
            }
        }
    }
    missing
}

/// The state components that this host does not have, or keeps at another place: KVM hands them out as the CPU lays them down.
fn missing_state(saved: &[kvm_cpuid_entry2], supported: &[kvm_cpuid_entry2]) -> Vec<String> {
    let components = |leaves| {
        let registers = registers(leaves, XSTATE, 0);
        u64::from(registers[EDX]) << 32 | u64::from(registers[EAX])
    };
    let (ours, theirs) = (components(saved), components(supported));
    let place = |leaves, component| {
        let registers = registers(leaves, XSTATE, component);
        (registers[EAX], registers[EBX])
    };
    (0..u64::BITS)
        .filter(|component| ours >> component & 1 != 0)
        .filter_map(|component| {
            if theirs >> component & 1 == 0 {
                Some(state_component(component))
            } else if component >= 2 && place(saved, component) != place(supported, component) {
                Some(format!("{} where the guest has it", state_component(component)))
            } else {
                None
            }
        })
        .collect()
}

fn find(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> Option<kvm_cpuid_entry2> {
    leaves.iter().find(|leaf| (leaf.function, leaf.index) == (function, index)).copied()
}

/// EAX, EBX, ECX and EDX of a leaf; a leaf that is not there reads as zeroes.
fn registers(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> [u32; 4] {
    find(leaves, function, index).map_or([0; 4], |leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
}
