//! The names of CPU features, as `/proc/cpuinfo` has them (Linux, arch/x86/include/asm/cpufeatures.h) or, where Linux hides or
//! renames one, as that file's comments and KVM's documentation do.

/// A register of CPUID whose bits are features.
pub(super) struct FeatureWord {
    /// EAX when CPUID is executed.
    pub(super) leaf: u32,
    /// ECX when CPUID is executed.
    pub(super) subleaf: u32,
    /// Which of EAX, EBX, ECX and EDX, from 0.
    pub(super) register: usize,
    /// Bits that say what is emulated whatever the CPU has, how many vCPUs there are, or what the guest has switched on.
    pub(super) not_features: u32,
    /// The names of bits 0 to 31; `-` has none, and bits behind the last name have none.
    names: &'static str,
}

pub(super) const EAX: usize = 0;
pub(super) const EBX: usize = 1;
pub(super) const ECX: usize = 2;
pub(super) const EDX: usize = 3;
const REGISTERS: [&str; 4] = ["EAX", "EBX", "ECX", "EDX"];

/// All that are compared.
pub(super) const FEATURE_WORDS: &[FeatureWord] = &[
    FeatureWord {
        leaf: 1,
        subleaf: 0,
        register: EDX,
        // APIC (switched on by the guest), HT.
        not_features: 1 << 9 | 1 << 28,
        names: "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts acpi mmx fxsr sse \
                sse2 ss ht tm ia64 pbe",
    },
    FeatureWord {
        leaf: 1,
        subleaf: 0,
        register: ECX,
        // MONITOR and OSXSAVE (switched on by the guest); x2APIC, TSC deadline, hypervisor (rvmm and KVM make them).
        not_features: 1 << 3 | 1 << 21 | 1 << 24 | 1 << 27 | 1 << 31,
        names: "pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid dca sse4_1 \
                sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand hypervisor",
    },
    FeatureWord {
        leaf: 7,
        subleaf: 0,
        register: EBX,
        not_features: 0,
        names: "fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm zero_fcs_fds mpx rdt_a \
                avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb intel_pt avx512pf avx512er avx512cd \
                sha_ni avx512bw avx512vl",
    },
    FeatureWord {
        leaf: 7,
        subleaf: 0,
        register: ECX,
        // OSPKE (switched on by the guest).
        not_features: 1 << 4,
        names: "prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq avx512_vnni \
                avx512_bitalg tme avx512_vpopcntdq - la57 - - - - - rdpid - bus_lock_detect cldemote - movdiri \
                movdir64b enqcmd sgx_lc pks",
    },
    FeatureWord {
        leaf: 7,
        subleaf: 0,
        register: EDX,
        not_features: 0,
        names: "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect srbds_ctrl md_clear rtm_always_abort - \
                tsx_force_abort serialize hybrid_cpu tsxldtrk - pconfig arch_lbr ibt - amx_bf16 avx512_fp16 amx_tile \
                amx_int8 spec_ctrl stibp flush_l1d arch_capabilities core_capabilities ssbd",
    },
    FeatureWord {
        leaf: 7,
        subleaf: 1,
        register: EAX,
        not_features: 0,
        names: "sha512 sm3 sm4 - avx_vnni avx512_bf16 lass cmpccxadd arch_perfmon_ext - fzrm fsrs fsrc - - - - fred lkgs \
                wrmsrns nmi_src amx_fp16 hreset avx_ifma - - lam msrlist - - - movrs",
    },
    FeatureWord {
        leaf: 7,
        subleaf: 1,
        register: EDX,
        not_features: 0,
        names: "- - - - avx_vnni_int8 avx_ne_convert - - amx_complex - avx_vnni_int16 - - - prefetchiti - - - - avx10",
    },
    FeatureWord {
        leaf: 7,
        subleaf: 2,
        register: EDX,
        not_features: 0,
        names: "intel_psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no",
    },
    FeatureWord {
        leaf: 0xd,
        subleaf: 1,
        register: EAX,
        not_features: 0,
        names: "xsaveopt xsavec xgetbv1 xsaves xfd",
    },
    FeatureWord {
        leaf: 0x4000_0001,
        subleaf: 0,
        register: EAX,
        not_features: 0,
        names: "kvm_clocksource kvm_nop_io_delay kvm_mmu_op kvm_clocksource2 kvm_async_pf kvm_steal_time kvm_pv_eoi \
                kvm_pv_unhalt - kvm_pv_tlb_flush kvm_async_pf_vmexit kvm_pv_send_ipi kvm_poll_control \
                kvm_pv_sched_yield kvm_async_pf_int kvm_msi_ext_dest_id kvm_hc_map_gpa_range \
                kvm_migration_control - - - - - - kvm_clocksource_stable",
    },
    FeatureWord {
        leaf: 0x8000_0001,
        subleaf: 0,
        register: EDX,
        // AMD repeats the APIC bit of leaf 1 here; SYSCALL is there in 64-bit mode, which it goes with.
        not_features: 1 << 9 | 1 << 11,
        names: "fpu vme de pse tsc msr pae mce cx8 apic - syscall mtrr pge mca cmov pat pse36 - mp nx - mmxext mmx fxsr \
                fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow",
    },
    FeatureWord {
        leaf: 0x8000_0001,
        subleaf: 0,
        register: ECX,
        // Legacy multi-core and topology extensions (rvmm makes them).
        not_features: 1 << 1 | 1 << 22,
        names: "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp \
                fma4 tce - nodeid_msr - tbm topoext perfctr_core perfctr_nb - bpext ptsc perfctr_llc mwaitx",
    },
    FeatureWord {
        leaf: 0x8000_0007,
        subleaf: 0,
        register: EDX,
        not_features: 0,
        names: "- - - - - - - hw_pstate nonstop_tsc cpb",
    },
    FeatureWord {
        leaf: 0x8000_0008,
        subleaf: 0,
        register: EBX,
        not_features: 0,
        names: "clzero irperf xsaveerptr - rdpru - - - - wbnoinvd - - ibpb - ibrs stibp - stibp_always_on - - - - - ppin \
                ssbd virt_ssbd ssb_no cppc psfd btc_no ibpb_ret brs",
    },
    FeatureWord {
        leaf: 0x8000_0021,
        subleaf: 0,
        register: EAX,
        not_features: 0,
        names: "no_nested_data_bp - lfence_rdtsc - - verw_clear null_sel_clr_base - autoibrs no_smm_ctl_msr - - - - - - - - \
                - - - - - - - - - sbpb ibpb_brtype srso_no",
    },
];

impl FeatureWord {
    /// The names of `bits`, the lowest first; where one has none, its place.
    pub(super) fn names(&self, bits: u32) -> impl Iterator<Item = String> {
        (0..u32::BITS).filter(move |bit| bits >> bit & 1 != 0).map(|bit| self.name(bit))
    }

    fn name(&self, bit: u32) -> String {
        match self.names.split_ascii_whitespace().nth(bit as usize) {
            Some(name) if name != "-" => name.to_owned(),
            _ => {
                let register = REGISTERS.get(self.register).unwrap_or(&"");
                format!("CPUID {:#x}.{} {register} bit {bit}", self.leaf, self.subleaf)
            }
        }
    }
}

/// State components of XSAVE, by their bits in XCR0 (Intel SDM 1, 13.1).
const STATE_COMPONENTS: &[(u32, &str)] = &[
    (0, "x87"),
    (1, "SSE"),
    (2, "AVX"),
    (3, "MPX bound registers"),
    (4, "MPX bound configuration"),
    (5, "AVX-512 opmask"),
    (6, "AVX-512 high 256 bits"),
    (7, "AVX-512 registers 16 to 31"),
    (8, "processor trace"),
    (9, "protection keys"),
    (11, "CET user"),
    (12, "CET supervisor"),
    (17, "AMX tile configuration"),
    (18, "AMX tile data"),
    (19, "APX"),
];

/// The name of state component `number`.
pub(super) fn state_component(number: u32) -> String {
    let name = STATE_COMPONENTS.iter().find(|(known, _)| *known == number).map_or("", |(_, name)| name);
    format!(
        "XSAVE state component {number}{}{name}{}",
        if name.is_empty() { "" } else { " (" },
        if name.is_empty() { "" } else { ")" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(leaf: u32, subleaf: u32, register: usize, bits: u32) -> Vec<String> {
        let here =
            |word: &&FeatureWord| (word.leaf, word.subleaf, word.register) == (leaf, subleaf, register);
        FEATURE_WORDS.iter().find(here).unwrap().names(bits).collect()
    }

    #[test]
    fn no_word_has_more_names_than_bits_and_none_is_there_twice() {
        for (at, word) in FEATURE_WORDS.iter().enumerate() {
            assert!(word.names.split_ascii_whitespace().count() <= 32, "{:#x}.{}", word.leaf, word.subleaf);
            let same = |other: &&FeatureWord| {
                (other.leaf, other.subleaf, other.register) == (word.leaf, word.subleaf, word.register)
            };
            assert_eq!(FEATURE_WORDS.iter().position(|other| same(&other)), Some(at));
        }
    }

    #[test]
    fn features_are_where_the_manuals_have_them() {
        for (leaf, subleaf, register, bit, name) in [
            (1, 0, EDX, 31, "pbe"),
            (1, 0, EDX, 26, "sse2"),
            (1, 0, ECX, 13, "cx16"),
            (1, 0, ECX, 31, "hypervisor"),
            (7, 0, EBX, 5, "avx2"),
            (7, 0, EBX, 20, "smap"),
            (7, 0, EBX, 31, "avx512vl"),
            (7, 0, ECX, 22, "rdpid"),
            (7, 0, ECX, 31, "pks"),
            (7, 0, EDX, 4, "fsrm"),
            (7, 0, EDX, 23, "avx512_fp16"),
            (7, 0, EDX, 31, "ssbd"),
            (7, 1, EAX, 5, "avx512_bf16"),
            (7, 1, EAX, 26, "lam"),
            (7, 1, EDX, 19, "avx10"),
            (7, 2, EDX, 4, "bhi_ctrl"),
            (0xd, 1, EAX, 3, "xsaves"),
            (0x4000_0001, 0, EAX, 24, "kvm_clocksource_stable"),
            (0x8000_0001, 0, EDX, 29, "lm"),
            (0x8000_0001, 0, EDX, 20, "nx"),
            (0x8000_0001, 0, EDX, 31, "3dnow"),
            (0x8000_0001, 0, ECX, 22, "topoext"),
            (0x8000_0001, 0, ECX, 29, "mwaitx"),
            (0x8000_0007, 0, EDX, 8, "nonstop_tsc"),
            (0x8000_0008, 0, EBX, 9, "wbnoinvd"),
            (0x8000_0008, 0, EBX, 24, "ssbd"),
            (0x8000_0008, 0, EBX, 31, "brs"),
            (0x8000_0021, 0, EAX, 29, "srso_no"),
        ] {
            assert_eq!(names(leaf, subleaf, register, 1 << bit), [name]);
        }
        assert_eq!(names(7, 0, EDX, 1 << 1), ["CPUID 0x7.0 EDX bit 1"]);
        assert_eq!(names(0x8000_0007, 0, EDX, 1 << 30), ["CPUID 0x80000007.0 EDX bit 30"]);
    }

    #[test]
    fn state_components_have_names_or_numbers() {
        assert_eq!(state_component(9), "XSAVE state component 9 (protection keys)");
        assert_eq!(state_component(62), "XSAVE state component 62");
    }
}
