//! What a snapshot keeps of a VM beside its memory, and making a VM from that.

use std::sync::Arc;

use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use devices::GuestMemory;
use devices::legacy::boot_timer::Moment;
use devices::mmds::MmdsStore;
use devices::state::StateError as DeviceStateError;

use super::shell::{Devices, Shell};
use super::state::MachineStateV1;
use super::{Vm, VmError};
use crate::config::{MAX_VCPUS, VmConfig};
use crate::console::Output;
use crate::cpu::{self, CpuDescription};
use crate::device_set::state::DevicesStateV1;
use crate::kvm::{self, Elapsed, Host, KvmError};
use crate::memory::{DirtyPages, Pager};
use crate::snapshot::{SectionV2, StateError, StateV2, bounded};
use crate::vcpu::{self, SaveError as VcpuSaveError, VcpuHandle, VcpuStateV1};
use crate::vmgenid;
use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::VmFd;
use serde::Deserialize;

/// Why a VM cannot be saved. It goes on all the same.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// KVM refused something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// A vCPU.
    #[error(transparent)]
    Vcpu(#[from] VcpuSaveError),
    /// A device.
    #[error(transparent)]
    Devices(#[from] DeviceStateError),
    /// What cannot be written.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A VM without its memory and configuration.
pub struct Saved {
    machine: MachineStateV1,
    vcpus: Vec<VcpuStateV1>,
    devices: DevicesStateV1,
}

// Names and versions of the sections.
const MACHINE: (&str, u16) = ("machine", 1);
const VCPUS: (&str, u16) = ("vcpus", 1);
const DEVICES: (&str, u16) = ("devices", 1);

/// The vCPUs in their section.
#[derive(Deserialize)]
#[serde(transparent)]
struct Vcpus(#[serde(deserialize_with = "bounded::list::<_, _, { MAX_VCPUS as usize }>")] Vec<VcpuStateV1>);

impl Saved {
    /// The sections of a snapshot's state.
    ///
    /// # Errors
    /// What cannot be encoded.
    pub fn sections(&self) -> Result<Vec<SectionV2>, StateError> {
        let Self { machine, vcpus, devices } = self;
        Ok(vec![
            SectionV2::of(MACHINE.0, MACHINE.1, machine)?,
            SectionV2::of(VCPUS.0, VCPUS.1, vcpus)?,
            SectionV2::of(DEVICES.0, DEVICES.1, devices)?,
        ])
    }

    /// What is in the sections of `state`. Whether it can be is seen when a VM is made from it.
    ///
    /// # Errors
    /// A section that is missing, from a later rvmm, or damaged.
    pub fn read(state: &StateV2) -> Result<Self, StateError> {
        state.check_required(&[MACHINE.0, VCPUS.0, DEVICES.0])?;
        Ok(Self {
            machine: state.section(MACHINE.0, MACHINE.1)?,
            vcpus: state.section::<Vcpus>(VCPUS.0, VCPUS.1)?.0,
            devices: state.section(DEVICES.0, DEVICES.1)?,
        })
    }

    /// Whether the VM has a boot timer, which its configuration does not tell.
    pub fn has_boot_timer(&self) -> bool {
        self.devices.boot_timer.is_some()
    }

    /// The CPU that the guest was shown.
    pub fn cpu(&self) -> CpuDescription {
        cpu::describe(self.leaves())
    }

    fn leaves(&self) -> &[kvm_cpuid_entry2] {
        self.vcpus.first().map(|vcpu| vcpu.cpuid.as_slice()).unwrap_or_default()
    }

    /// Checks that the VM can be made on `host` as `config` has it, before anything is made.
    ///
    /// # Errors
    /// A list of vCPUs that cannot be; or what this host lacks of what the guest was shown.
    pub fn check(&self, host: &Host, config: &VmConfig) -> Result<(), VmError> {
        vcpu::validate(&self.vcpus, config.machine_config.vcpu_count as usize)?;
        // A template that is not there any more promises nothing.
        let template = config.cpu_config.as_ref().filter(|config| !config.is_special_file());
        let template = template.and_then(|config| config.template().ok());
        let supported = host.supported_cpuid()?;
        Ok(cpu::check_compatible(self.leaves(), supported.as_slice(), template.as_deref())?)
    }
}

impl Vm {
    /// Reads the VM, which is [paused](Vm::pause), and has its devices finish what is in flight. It stays as it is.
    ///
    /// # Errors
    /// [`SaveError`]; the guest can go on.
    pub fn save(&self) -> Result<Saved, SaveError> {
        let host = Host::open()?;
        // The devices first: what they finish raises interrupts, which wait in the vCPUs' local APICs.
        let devices = self.devices.save()?;
        let vcpus = VcpuHandle::save(&self.running, &host)?;
        Ok(Saved { machine: MachineStateV1::save(&self.fd)?, vcpus, devices })
    }

    /// Guest memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Another process serves the VM's memory, if there is a `pager`.
    pub(crate) fn is_served_by(&mut self, pager: Option<Pager>) {
        self.pager = pager;
    }

    /// What keeps memory served, if another process does.
    pub(crate) fn pager(&self) -> Option<&Pager> {
        self.pager.as_ref()
    }

    /// Whether the files that memory is mapped from, if there are such, are as long as they have to be.
    pub(crate) fn memory_is_whole(&self) -> bool {
        self.memory.iter().all(|region| {
            let end = region.file_offset().map(|backing| (backing.file(), backing.start() + region.len()));
            end.is_none_or(|(file, end)| file.metadata().is_ok_and(|metadata| metadata.len() >= end))
        })
    }

    /// The pages that were written since the last call, or since the VM was made. Its memory is tracked, no vCPU runs and
    /// no device has anything in flight.
    ///
    /// # Errors
    /// What KVM said.
    pub(crate) fn take_dirty_pages(&self) -> Result<DirtyPages, KvmError> {
        DirtyPages::take(&self.fd, &self.memory)
    }

    /// Makes of `fd`, a VM without anything, the one that `config` describes, with what was `saved` of it and its `memory`.
    /// Its vCPUs go on where they were when they are [started](Vm::start). What was saved has to be
    /// [checked](Saved::check) before.
    ///
    /// # Errors
    /// [`VmError`]; nothing is left behind.
    pub fn restore(
        fd: VmFd,
        config: &VmConfig,
        console: &Output,
        metadata: &Arc<MmdsStore>,
        memory: GuestMemory,
        saved: &Saved,
        elapsed: Elapsed,
    ) -> Result<Self, VmError> {
        let Saved { machine, vcpus: states, devices: device_states } = saved;
        let shell = Shell::create(fd, config, console, metadata, memory, Moment::now())?;
        let mut ready = Vec::with_capacity(states.len());
        for (id, state) in (0..).zip(states) {
            let fd = shell.fd.create_vcpu(u64::from(id)).map_err(kvm::failed("KVM_CREATE_VCPU"))?;
            ready.push(shell.vcpu(id, fd, state.cpuid()?));
        }
        let fds: Vec<_> = ready.iter().map(|vcpu| &vcpu.fd).collect();
        vcpu::restore(&shell.fd, &fds, states, elapsed)?;
        shell.devices.restore(device_states).map_err(VmError::DeviceState)?;
        vmgenid::renew(&shell.memory)?;
        // What the devices' and the generation's interrupts are delivered by comes before them.
        machine.restore(&shell.fd, elapsed)?;
        vmgenid::notify(&shell.fd)?;
        Ok(shell.with_vcpus(ready, Devices::Restored))
    }
}
