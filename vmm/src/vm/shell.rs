//! What a VM is made of before it has vCPUs: the same for one that boots and one that is restored.

use std::cell::Cell;
use std::sync::Arc;

use devices::GuestMemory;
use devices::legacy::boot_timer::Moment;
use devices::mmds::MmdsStore;
use kvm_bindings::{CpuId, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuFd, VmFd};
use vm_memory::{Address as _, GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::{Vm, VmError};
use crate::config::VmConfig;
use crate::console::Output;
use crate::device_set::DeviceSet;
use crate::kvm::{self, KvmError};
use crate::layout;
use crate::vcpu::{Buses, ExitCounters, GuestEvents, Vcpu};

/// Whether the devices of a new VM have to be told to look at their queues.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Devices {
    /// No driver has seen them.
    New,
    /// They were restored, and both sides have missed what went on in between.
    Restored,
}

/// Memory, interrupt controllers and devices, and what the vCPUs will share.
pub(super) struct Shell {
    // Fields are dropped in this order: devices, then what they use.
    pub(super) devices: DeviceSet,
    buses: Arc<Buses>,
    events: Arc<GuestEvents>,
    counters: Arc<ExitCounters>,
    pub(super) memory: GuestMemory,
    pub(super) fd: Arc<VmFd>,
}

impl Shell {
    /// Makes it of `fd`, a VM without anything, as `config` says and with this `memory`. A boot timer runs since `start`.
    ///
    /// # Errors
    /// [`VmError`] when KVM or the host refuses something, or a device cannot be.
    pub(super) fn create(
        fd: VmFd,
        config: &VmConfig,
        console: &Output,
        metadata: &Arc<MmdsStore>,
        memory: GuestMemory,
        start: Moment,
    ) -> Result<Self, VmError> {
        let fd = Arc::new(fd);
        // Slots first: behind the interrupt controllers or an ioeventfd, each waits for a grace period of the host's kernel.
        register_memory(&fd, &memory, config.machine_config.track_dirty_pages)?;
        fd.set_tss_address(layout::KVM_TSS_ADDRESS as usize).map_err(kvm::failed("KVM_SET_TSS_ADDR"))?;
        fd.create_irq_chip().map_err(kvm::failed("KVM_CREATE_IRQCHIP"))?;
        let mut buses = Buses::default();
        let mut devices = DeviceSet::create(config, &fd, &memory, console, metadata, &mut buses)?;
        if config.boot_timer {
            devices.add_boot_timer(&mut buses, start)?;
        }
        let events =
            GuestEvents::new().map_err(|source| VmError::Host { what: "make an eventfd", source })?;
        let (events, buses, counters) =
            (Arc::new(events), Arc::new(buses), Arc::new(ExitCounters::default()));
        devices.metrics.add("vcpu", counters.clone());
        Ok(Self { devices, buses, events, counters, memory, fd })
    }

    /// The vCPU `id`, which KVM knows as `fd` and which shows the guest `cpuid`.
    pub(super) fn vcpu(&self, id: u32, fd: VcpuFd, cpuid: CpuId) -> Vcpu {
        Vcpu {
            id,
            fd,
            cpuid,
            buses: Arc::clone(&self.buses),
            events: Arc::clone(&self.events),
            counters: Arc::clone(&self.counters),
        }
    }

    /// The VM with these vCPUs, which do not run yet.
    pub(super) fn with_vcpus(self, ready: Vec<Vcpu>, state: Devices) -> Vm {
        let Self { devices, buses: _, events, counters, memory, fd } = self;
        let kick_is_due = Cell::new(state == Devices::Restored);
        Vm {
            running: Vec::new(),
            idle: Vec::new(),
            ready,
            devices,
            events,
            counters,
            memory,
            pager: None,
            kick_is_due,
            fd,
        }
    }
}

/// Gives KVM each part of guest memory as a slot of its own.
#[expect(unsafe_code, reason = "KVM_SET_USER_MEMORY_REGION takes a host address")]
fn register_memory(vm: &VmFd, memory: &GuestMemory, track_dirty: bool) -> Result<(), KvmError> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let kvm_region = kvm_userspace_memory_region {
            slot,
            flags: if track_dirty { kvm_bindings::KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the address and size are those of a mapping that `Shell`, and then `Vm`, keeps for as long as it keeps `vm`.
        unsafe { vm.set_user_memory_region(kvm_region) }
            .map_err(kvm::failed("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}
