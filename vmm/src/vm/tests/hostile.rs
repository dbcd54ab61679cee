//! States that no VM was saved with: an error that names what is wrong, and nothing else.

use kvm_bindings::{kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_sregs, kvm_vcpu_events, kvm_xcrs};

use super::{Machine, encoded};
use crate::kvm::Elapsed;
use crate::vcpu::{MsrV1, VcpuStateV1};

/// A structure of KVM's in which all bits are set.
fn all_ones<T: serde::Serialize + serde::de::DeserializeOwned + Default>() -> T {
    let mut bytes = postcard::to_stdvec(&T::default()).unwrap();
    let size = size_of::<T>();
    let content = bytes.len() - size;
    bytes[content..].fill(0xff);
    postcard::from_bytes(&bytes).unwrap()
}

/// A way to spoil a state.
type Change = fn(&mut VcpuStateV1);

#[test]
fn what_is_wrong_with_a_state_is_named() {
    let Some(machine) = Machine::boot(&[0xeb, 0xfe]) else { return };
    machine.pause();
    let (vcpus, state) = machine.save().unwrap();
    let msr = |index, value| MsrV1 { index, value };
    let wrong: [(Change, &str); 17] = [
        (|vcpu| vcpu.id = 7, "vCPU 7 where vCPU 0"),
        (|vcpu| vcpu.id = u32::MAX, "vCPU 4294967295"),
        (|vcpu| vcpu.cpuid = vec![kvm_cpuid_entry2::default(); 257], "257 CPUID leaves"),
        (|vcpu| vcpu.msrs = (0..5000).map(|index| MsrV1 { index, value: 0 }).collect(), "5000 MSRs"),
        (|vcpu| vcpu.msrs.push(vcpu.msrs[0]), "twice"),
        (|vcpu| vcpu.msrs.push(MsrV1 { index: 0x10, value: 0 }), "MSR 0x10 among"),
        (|vcpu| vcpu.msrs.push(MsrV1 { index: 0xdead_beef, value: 1 }), "MSR 0xdeadbeef to the saved 0x1"),
        (|vcpu| vcpu.xsave.clear(), "0 words"),
        (|vcpu| vcpu.xsave = vec![0; 1 << 20], "1048576 words"),
        (|vcpu| vcpu.xsave.resize(16384, u32::MAX), "XSAVE"),
        (|vcpu| vcpu.tsc.khz = Some(1), "TSC"),
        (|vcpu| vcpu.sregs = all_ones::<kvm_sregs>(), "KVM_SET_SREGS"),
        (|vcpu| vcpu.xcrs = all_ones::<kvm_xcrs>(), "KVM_SET_XCRS"),
        (|vcpu| vcpu.debug_regs = all_ones::<kvm_debugregs>(), "KVM_SET_DEBUGREGS"),
        (|vcpu| vcpu.events = all_ones::<kvm_vcpu_events>(), "KVM_SET_VCPU_EVENTS"),
        (|vcpu| vcpu.pdptrs = Some([u64::MAX; 4]), "KVM_SET_SREGS2"),
        (|vcpu| vcpu.mp_state = 99, "KVM_SET_MP_STATE"),
    ];
    for (change, expected) in wrong {
        let mut spoilt = encoded(&vcpus);
        change(&mut spoilt[0]);
        let error = machine.twin_of(&spoilt, &state, Elapsed::Counted).err().expect(expected);
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
    // A register that KVM does not have is none's loss when nothing was in it.
    let mut older = encoded(&vcpus);
    older[0].msrs.insert(0, msr(0xdead_beef, 0));
    machine.twin_of(&older, &state, Elapsed::Counted).unwrap();
    machine.leave();
}

#[test]
fn a_strange_state_that_kvm_takes_makes_a_vm_that_runs_and_stops() {
    let Some(machine) = Machine::boot(&[0xeb, 0xfe]) else { return };
    machine.pause();
    let (vcpus, state) = machine.save().unwrap();
    let strange: [Change; 3] = [
        |vcpu| vcpu.lapic = all_ones::<kvm_lapic_state>(),
        |vcpu| vcpu.tsc.value = u64::MAX,
        |vcpu| vcpu.tsc_deadline = Some(u64::MAX),
    ];
    for (change, number) in strange.into_iter().zip(0..) {
        let mut vcpus = encoded(&vcpus);
        change(&mut vcpus[0]);
        let twin = machine.twin_of(&vcpus, &state, Elapsed::Counted);
        let twin = twin.unwrap_or_else(|error| panic!("{number}: {error}")).start();
        twin.pause();
        let (saved, _) = twin.save().unwrap();
        assert_eq!(saved[0].regs, vcpus[0].regs, "{number}");
        twin.leave();
    }
    machine.leave();
}

#[test]
fn a_state_of_more_or_fewer_vcpus_is_refused() {
    let Some(machine) = Machine::boot(&[0xeb, 0xfe]) else { return };
    machine.pause();
    let (vcpus, _) = machine.save().unwrap();
    for states in [vec![], vec![vcpus[0].clone(), vcpus[0].clone()]] {
        let error = crate::vcpu::validate(&states, 1).unwrap_err().to_string();
        assert!(error.contains(&format!("{} vCPUs", states.len())), "{error}");
    }
    machine.leave();
}
