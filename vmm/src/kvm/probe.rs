//! Asks KVM what it can do, without keeping anything of it.

use std::io;

use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::{Cap, Kvm};

/// What `/dev/kvm` answers.
#[derive(Debug)]
pub struct KvmProbe {
    /// `KVM_GET_API_VERSION`.
    pub api_version: i32,
    /// Whether an empty VM could be made, or why not: a KVM that answers may still be taken by another hypervisor.
    pub vm: Result<(), io::Error>,
    /// The most vCPUs that a VM can have.
    pub max_vcpus: usize,
    /// The capabilities that rvmm uses.
    pub capabilities: Vec<Capability>,
}

/// A `KVM_CAP_*` that rvmm uses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Capability {
    /// The constant's name in `linux/kvm.h`.
    pub name: &'static str,
    /// What is lost without it; `None` when no VM runs without it.
    pub loss: Option<&'static str>,
    /// Whether this KVM has it.
    pub available: bool,
}

/// The version of the API since Linux 2.6.22; KVM's documentation says to refuse any other.
pub const API_VERSION: i32 = KVM_API_VERSION.cast_signed();

const CAPABILITIES: [(&str, Cap, Option<&str>); 11] = [
    ("KVM_CAP_USER_MEMORY", Cap::UserMemory, None),
    ("KVM_CAP_EXT_CPUID", Cap::ExtCpuid, None),
    ("KVM_CAP_IRQCHIP", Cap::Irqchip, None),
    ("KVM_CAP_IRQFD", Cap::Irqfd, None),
    ("KVM_CAP_IOEVENTFD", Cap::Ioeventfd, None),
    ("KVM_CAP_IMMEDIATE_EXIT", Cap::ImmediateExit, None),
    ("KVM_CAP_SIGNAL_MSI", Cap::SignalMsi, Some("no devices on PCI, whose interrupts are MSI-X")),
    ("KVM_CAP_TSC_DEADLINE_TIMER", Cap::TscDeadlineTimer, Some("guest timers cost more exits")),
    ("KVM_CAP_TSC_CONTROL", Cap::TscControl, Some("no restore on a host whose TSC runs at another rate")),
    ("KVM_CAP_ADJUST_CLOCK", Cap::AdjustClock, Some("a restored guest's kvm-clock is set less exactly")),
    ("KVM_CAP_KVMCLOCK_CTRL", Cap::KvmclockCtrl, Some("a guest may report soft lockups after a pause")),
];

/// Opens `/dev/kvm`, asks, makes an empty VM and closes both. The error is that of opening.
pub fn probe() -> io::Result<KvmProbe> {
    let kvm = Kvm::new().map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
    Ok(KvmProbe {
        api_version: kvm.get_api_version(),
        vm: kvm.create_vm().map(drop).map_err(|error| io::Error::from_raw_os_error(error.errno())),
        max_vcpus: kvm.get_max_vcpus(),
        capabilities: CAPABILITIES
            .into_iter()
            .map(|(name, cap, loss)| Capability { name, loss, available: kvm.check_extension(cap) })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// What the code that needs a capability has in it.
    const USES: [(&str, &str); 11] = [
        ("KVM_CAP_USER_MEMORY", ".set_user_memory_region("),
        ("KVM_CAP_EXT_CPUID", ".get_supported_cpuid("),
        ("KVM_CAP_IRQCHIP", ".create_irq_chip("),
        ("KVM_CAP_IRQFD", ".register_irqfd("),
        ("KVM_CAP_IOEVENTFD", ".register_ioevent("),
        ("KVM_CAP_IMMEDIATE_EXIT", ".set_kvm_immediate_exit("),
        ("KVM_CAP_SIGNAL_MSI", ".signal_msi("),
        ("KVM_CAP_TSC_DEADLINE_TIMER", "Cap::TscDeadlineTimer"),
        ("KVM_CAP_TSC_CONTROL", "Cap::TscControl"),
        ("KVM_CAP_ADJUST_CLOCK", "Cap::AdjustClock"),
        ("KVM_CAP_KVMCLOCK_CTRL", ".kvmclock_ctrl("),
    ];

    /// The sources below `folder`, without this file.
    fn sources(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, text);
            } else if path.extension().is_some_and(|kind| kind == "rs") && !path.ends_with("kvm/probe.rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn every_capability_that_is_asked_for_is_used() {
        let mut text = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        assert_eq!(CAPABILITIES.map(|(name, _, _)| name), USES.map(|(name, _)| name));
        for (name, call) in USES {
            assert!(text.contains(call), "{name}");
        }
    }
}
