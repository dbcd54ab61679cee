//! The CPUID leaves of a vCPU, made from those that KVM supports (`KVM_GET_SUPPORTED_CPUID`).
//!
//! The guest sees one socket with one thread to a core, or two, the timers that let it skip calibration, and none of what KVM
//! passes through but a microVM does not have: MONITOR, performance counters, nested virtualization, SGX.
//! The host's own CPUID is never executed: on some hosts each costs tens of microseconds.
//!
//! Leaves and bits: Intel SDM 2A "CPUID"; AMD APM 3, appendix E; Linux, Documentation/virt/kvm/x86/cpuid.rst.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::template::TemplateError;

/// The leaves can't be put together.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// KVM takes a limited number of leaves.
    #[error("the vCPU has {0} CPUID leaves, more than KVM takes (256)")]
    TooManyLeaves(usize),
    /// A template cannot be kept to.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// Whether KVM's local APIC offers the guest a timer in TSC-deadline mode (`KVM_CAP_TSC_DEADLINE_TIMER`); KVM does not
/// say so among the supported leaves. Without it Linux has to calibrate the APIC timer at every boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TscDeadline {
    /// It does.
    Offered,
    /// It does not.
    Absent,
}

impl From<bool> for TscDeadline {
    fn from(offered: bool) -> Self {
        if offered { Self::Offered } else { Self::Absent }
    }
}

/// `KVM_CPUID_SIGNATURE`; its EAX is the highest hypervisor leaf.
const HYPERVISOR_BASE: u32 = 0x4000_0000;
/// TSC (EAX) and APIC bus (EBX) frequencies in kHz: VMware's leaf, which FreeBSD and others read under KVM, too.
const HYPERVISOR_FREQUENCIES: u32 = 0x4000_0010;
/// KVM's local APIC timer counts nanoseconds (`APIC_BUS_CYCLE_NS_DEFAULT`).
const APIC_BUS_KHZ: u32 = 1_000_000;

/// Extended topology, and its second version.
const TOPOLOGY: u32 = 0xb;
const TOPOLOGY_V2: u32 = 0x1f;
/// Level types of the topology leaves, in ECX bits 15:8.
const LEVEL_SMT: u32 = 1;
const LEVEL_CORE: u32 = 2;
/// AMD's "processor topology information".
const AMD_TOPOLOGY: u32 = 0x8000_001e;

/// Leaves that are left out, so that they read as zeroes.
const LEFT_OUT: &[u32] = &[
    0x5,  // MONITOR/MWAIT
    0xa,  // performance monitoring
    0x12, // SGX
    0x14, // processor trace
    // Frequencies of the host, which need not be the guest's. Linux takes its own from kvm-clock.
    0x15,
    0x16,
    0x1a,        // hybrid cores
    0x1c,        // last branch records
    0x23,        // performance monitoring, extended
    0x8000_000a, // SVM
    0x8000_001b, // instruction-based sampling
    0x8000_001c, // lightweight profiling
    0x8000_001f, // SEV
    0x8000_0020, // quality of service
    0x8000_0022, // performance monitoring, version 2
    0x8000_0026, // extended topology; the guest falls back to leaf 0xB
];

/// Leaf 1 ECX: 64-bit debug store, MONITOR, VMX, perf capabilities, x2APIC, TSC deadline, OSXSAVE (KVM follows CR4),
/// hypervisor present.
const L1_ECX_REMOVED: u32 = 1 << 2 | 1 << 3 | 1 << 5 | 1 << 15 | 1 << 24 | 1 << 27;
const L1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const L1_ECX_X2APIC: u32 = 1 << 21;
const L1_ECX_HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 EDX: debug store; more than one logical processor.
const L1_EDX_DS: u32 = 1 << 21;
const L1_EDX_HTT: u32 = 1 << 28;
/// Leaf 6 EAX: the APIC timer does not stop.
const L6_EAX_ARAT: u32 = 1 << 2;
/// Leaf 7.0 EBX: SGX, processor trace; ECX: SGX launch control; EDX: IA32_ARCH_CAPABILITIES.
const L7_EBX_REMOVED: u32 = 1 << 2 | 1 << 25;
const L7_ECX_SGX_LC: u32 = 1 << 30;
const L7_EDX_ARCH_CAPABILITIES: u32 = 1 << 29;
/// Leaf 0x80000001 ECX: legacy multi-core; topology extensions.
const L81_ECX_CMP_LEGACY: u32 = 1 << 1;
const L81_ECX_TOPOEXT: u32 = 1 << 22;
/// Leaf 0x80000001 ECX: SVM, IBS, SKINIT, watchdog, LWP, performance counter extensions (three), MONITORX.
const L81_ECX_REMOVED: u32 =
    1 << 2 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 15 | 1 << 23 | 1 << 24 | 1 << 28 | 1 << 29;

/// The vCPUs of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Every two of them, an even one and the next, are threads of one core. An only one has its core to itself.
    pub smt: bool,
}

impl Topology {
    fn threads_per_core(self) -> u32 {
        if self.smt && self.vcpus > 1 { 2 } else { 1 }
    }
}

/// The leaves of vCPU `vcpu_id` (also its APIC id) of those of `topology`.
///
/// `tsc_khz` is the guest's TSC frequency (`KVM_GET_TSC_KHZ`), where it is known.
pub fn guest_cpuid(
    supported: &CpuId,
    vcpu_id: u32,
    topology: Topology,
    tsc_khz: Option<u32>,
    tsc_deadline: TscDeadline,
) -> Result<CpuId, CpuError> {
    let supported = supported.as_slice();
    let vcpu = Vcpu {
        id: vcpu_id,
        count: topology.vcpus.max(1),
        threads: topology.threads_per_core(),
        tsc_khz,
        tsc_deadline,
        amd: supported.iter().any(|leaf| leaf.function == 0 && is_amd(leaf)),
    };
    let mut leaves: Vec<kvm_cpuid_entry2> = Vec::with_capacity(supported.len().saturating_add(8));
    for leaf in supported {
        let mut leaf = *leaf;
        vcpu.edit(&mut leaf);
        // A leaf that is not listed reads as zeroes anyway.
        if leaf.eax | leaf.ebx | leaf.ecx | leaf.edx != 0 {
            leaves.push(leaf);
        }
    }
    vcpu.add(&mut leaves);
    CpuId::from_entries(&leaves).map_err(|_| CpuError::TooManyLeaves(leaves.len()))
}

/// Whether leaf 0 names AMD or Hygon, whose CPUs share their extended leaves.
fn is_amd(leaf: &kvm_cpuid_entry2) -> bool {
    let vendor = vendor(leaf);
    vendor == *b"AuthenticAMD" || vendor == *b"HygonGenuine"
}

/// The maker's name in leaf 0.
pub(super) fn vendor(leaf: &kvm_cpuid_entry2) -> [u8; 12] {
    let name = u128::from(leaf.ebx) | u128::from(leaf.edx) << 32 | u128::from(leaf.ecx) << 64;
    let [name @ .., _, _, _, _] = name.to_le_bytes();
    name
}

/// `value` with the bits of `mask` (contiguous) replaced by `field`, as far as it fits.
fn with_field(value: u32, mask: u32, field: u32) -> u32 {
    let largest = mask >> mask.trailing_zeros();
    (value & !mask) | (field.min(largest) << mask.trailing_zeros())
}

fn set(value: &mut u32, bits: u32, on: bool) {
    *value = if on { *value | bits } else { *value & !bits };
}

/// Whether a leaf 4 (Intel) or 0x8000001D (AMD) describes a cache, by its type in EAX 4:0.
fn is_cache(leaf: &kvm_cpuid_entry2) -> bool {
    let kind = leaf.eax & 0x1f;
    kind != 0
}

/// Writes down who shares a cache, less one, in EAX 25:14: `everyone` the last level, a core's `threads` the others.
fn share_cache(leaf: &mut kvm_cpuid_entry2, everyone: u32, threads: u32) {
    let level = leaf.eax >> 5 & 7;
    let sharing = if level >= 3 { everyone } else { threads };
    leaf.eax = with_field(leaf.eax, 0x03ff_c000, sharing.saturating_sub(1));
}

struct Vcpu {
    id: u32,
    count: u32,
    /// Threads of a core, 1 or 2.
    threads: u32,
    tsc_khz: Option<u32>,
    tsc_deadline: TscDeadline,
    amd: bool,
}

impl Vcpu {
    /// Width of an APIC id's part below the socket, in bits.
    fn id_bits(&self) -> u32 {
        self.count.checked_next_power_of_two().map_or(u32::BITS, u32::trailing_zeros)
    }

    /// Width of an APIC id's part within a core, in bits.
    fn thread_bits(&self) -> u32 {
        self.threads.trailing_zeros()
    }

    /// Number of APIC ids set aside for the socket: a power of two.
    fn id_space(&self) -> u32 {
        self.count.checked_next_power_of_two().unwrap_or(u32::MAX)
    }

    /// Whether guests learn of threads by AMD's topology extensions: they are leaves and nothing else, so a guest can have
    /// them whatever the host has.
    fn tells_amd_threads(&self) -> bool {
        self.amd && self.threads > 1
    }

    /// Turns a leaf as KVM supports it into the guest's; all zeroes when the guest does without.
    fn edit(&self, leaf: &mut kvm_cpuid_entry2) {
        match leaf.function {
            0 => leaf.eax = leaf.eax.max(TOPOLOGY),
            1 => self.edit_features(leaf),
            4 if is_cache(leaf) => {
                share_cache(leaf, self.id_space(), self.threads);
                // APIC ids for cores in the socket, less one.
                let cores = self.id_space() >> self.thread_bits();
                leaf.eax = with_field(leaf.eax, 0xfc00_0000, cores.saturating_sub(1));
            }
            6 => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (L6_EAX_ARAT, 0, 0, 0),
            7 if leaf.index == 0 => {
                leaf.ebx &= !L7_EBX_REMOVED;
                leaf.ecx &= !L7_ECX_SGX_LC;
                // KVM makes the register up on AMD, and guests do not expect it there.
                if self.amd {
                    leaf.edx &= !L7_EDX_ARCH_CAPABILITIES;
                }
            }
            HYPERVISOR_BASE if self.tsc_khz.is_some() => leaf.eax = leaf.eax.max(HYPERVISOR_FREQUENCIES),
            0x8000_0000 if self.tells_amd_threads() => leaf.eax = leaf.eax.max(AMD_TOPOLOGY),
            0x8000_0001 => {
                leaf.ecx &= !L81_ECX_REMOVED;
                if self.tells_amd_threads() {
                    leaf.ecx |= L81_ECX_TOPOEXT;
                }
                set(&mut leaf.ecx, L81_ECX_CMP_LEGACY, self.amd && self.count > 1);
            }
            // Thread count less one, and the width of the part of the APIC id below the socket.
            0x8000_0008 if self.amd => {
                leaf.ecx = with_field(leaf.ecx, 0x0000_00ff, self.count.saturating_sub(1));
                leaf.ecx = with_field(leaf.ecx, 0x0000_f000, self.id_bits());
            }
            0x8000_001d if is_cache(leaf) => share_cache(leaf, self.count, self.threads),
            // Made anew in `add`.
            TOPOLOGY | TOPOLOGY_V2 | AMD_TOPOLOGY | HYPERVISOR_FREQUENCIES => clear(leaf),
            function if LEFT_OUT.contains(&function) => clear(leaf),
            _ => {}
        }
    }

    fn edit_features(&self, leaf: &mut kvm_cpuid_entry2) {
        leaf.ebx = with_field(leaf.ebx, 0xff00_0000, self.id & 0xff);
        leaf.ebx = with_field(leaf.ebx, 0x00ff_0000, self.id_space());
        leaf.ecx &= !L1_ECX_REMOVED;
        leaf.ecx |= L1_ECX_X2APIC | L1_ECX_HYPERVISOR;
        set(&mut leaf.ecx, L1_ECX_TSC_DEADLINE, self.tsc_deadline == TscDeadline::Offered);
        leaf.edx &= !L1_EDX_DS;
        set(&mut leaf.edx, L1_EDX_HTT, self.count > 1);
    }

    /// Adds the leaves that say which vCPU this is and how fast it ticks.
    fn add(&self, leaves: &mut Vec<kvm_cpuid_entry2>) {
        let value = |leaves: &[kvm_cpuid_entry2], function| {
            leaves.iter().find(|leaf| leaf.function == function).copied()
        };
        let highest = value(leaves, 0).map_or(0, |leaf| leaf.eax);
        for function in [TOPOLOGY, TOPOLOGY_V2].into_iter().filter(|function| *function <= highest) {
            leaves.push(self.topology(function, 0, LEVEL_SMT));
            leaves.push(self.topology(function, 1, LEVEL_CORE));
        }
        if let Some(khz) = self.tsc_khz
            && value(leaves, HYPERVISOR_BASE).is_some()
        {
            leaves.push(kvm_cpuid_entry2 {
                function: HYPERVISOR_FREQUENCIES,
                eax: khz,
                ebx: APIC_BUS_KHZ,
                ..kvm_cpuid_entry2::default()
            });
        }
        let topoext = value(leaves, 0x8000_0001).is_some_and(|leaf| leaf.ecx & L81_ECX_TOPOEXT != 0);
        if self.amd && topoext {
            // EBX: threads per core less one, and core id; ECX: node 0 of one.
            let core = self.id >> self.thread_bits();
            leaves.push(kvm_cpuid_entry2 {
                function: AMD_TOPOLOGY,
                eax: self.id,
                ebx: (self.threads - 1) << 8 | core & 0xff,
                ..kvm_cpuid_entry2::default()
            });
        }
    }

    /// A level of leaf 0xB or 0x1F: the threads of a core, all cores in one socket. Levels further up read as invalid.
    fn topology(&self, function: u32, index: u32, level: u32) -> kvm_cpuid_entry2 {
        let (shift, processors) = match level {
            LEVEL_SMT => (self.thread_bits(), self.threads),
            _ => (self.id_bits(), self.count),
        };
        kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax: shift,
            ebx: processors,
            ecx: level << 8 | index,
            edx: self.id,
            ..kvm_cpuid_entry2::default()
        }
    }
}

fn clear(leaf: &mut kvm_cpuid_entry2) {
    (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0, 0);
}
