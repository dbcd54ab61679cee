//! Asks KVM what it can do, without keeping anything of it.

use std::io;

use kvm_bindings::{KVM_API_VERSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2};
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

const CAPABILITIES: [(&str, u32, Option<&str>); 13] = [
    ("KVM_CAP_USER_MEMORY", Cap::UserMemory as u32, None),
    ("KVM_CAP_EXT_CPUID", Cap::ExtCpuid as u32, None),
    ("KVM_CAP_IRQCHIP", Cap::Irqchip as u32, None),
    ("KVM_CAP_IRQFD", Cap::Irqfd as u32, None),
    ("KVM_CAP_IOEVENTFD", Cap::Ioeventfd as u32, None),
    ("KVM_CAP_IMMEDIATE_EXIT", Cap::ImmediateExit as u32, None),
    ("KVM_CAP_SPLIT_IRQCHIP", Cap::SplitIrqchip as u32, Some("the end of a VM takes longer")),
    ("KVM_CAP_SIGNAL_MSI", Cap::SignalMsi as u32, Some("no devices on PCI, whose interrupts are MSI-X")),
    ("KVM_CAP_TSC_DEADLINE_TIMER", Cap::TscDeadlineTimer as u32, Some("guest timers cost more exits")),
    (
        "KVM_CAP_TSC_CONTROL",
        Cap::TscControl as u32,
        Some("no restore on a host whose TSC runs at another rate"),
    ),
    ("KVM_CAP_NESTED_STATE", Cap::NestedState as u32, Some("no snapshot of a guest that runs VMs itself")),
    (
        "KVM_CAP_DIRTY_LOG_RING",
        Cap::DirtyLogRing as u32,
        Some("incremental snapshots use the slower dirty bitmap"),
    ),
    (
        "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
        KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        Some("incremental snapshots slow the guest down more"),
    ),
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
            .map(|(name, number, loss)| Capability {
                name,
                loss,
                available: kvm.check_extension_raw(number.into()) > 0,
            })
            .collect(),
    })
}
