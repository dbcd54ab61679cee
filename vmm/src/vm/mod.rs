//! A VM: memory, interrupt controllers, devices and vCPUs, put together in the order that starts fastest.

mod cpu_template;
mod saved;
mod shell;
pub mod state;
mod teardown;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::io;
use std::sync::Arc;

use devices::GuestMemory;
use devices::legacy::boot_timer::Moment;
use devices::mmds::MmdsStore;
use kvm_bindings::{CpuId, KVM_IRQCHIP_PIC_MASTER, Msrs, kvm_irqchip};
use kvm_ioctls::{Cap, VcpuFd, VmFd};

use crate::acpi::{self, AcpiError};
use crate::boot::{self, BootError, BootRegisters, BootSource};
use crate::config::{BootSourceConfig, ConfigError, Transport, VmConfig, cmdline};
use crate::console::Output;
use crate::cpu::template::{CpuConfig, CpuTemplate, TemplateFileError};
use crate::cpu::{self, CpuError, CpuMismatch, Topology, TscDeadline};
use crate::device_set::{DeviceSet, DeviceSetError};
use crate::kvm::{self, Host, KvmError};
use crate::memory::{self, MemoryError, Pager};
use crate::vcpu::{Begin, ExitCounters, GuestEvents, RestoreError, Vcpu, VcpuHandle, VcpuThread};
use crate::vmgenid::{self, GenerationError};

pub use saved::{SaveError, Saved};
use shell::{Devices, Shell};

/// Why a VM could not be made or started.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The configuration cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// KVM cannot be used, or refused something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// No guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A device cannot be.
    #[error(transparent)]
    Devices(#[from] DeviceSetError),
    /// The kernel cannot be booted.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The machine cannot be described.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// The guest cannot have an identifier.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The vCPUs cannot be described.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// KVM has fewer vCPUs to give.
    #[error("{asked} vCPUs: KVM on this host gives a guest {max} at most")]
    Vcpus {
        /// What was asked for.
        asked: u32,
        /// What there is.
        max: usize,
    },
    /// There is no such CPU template.
    #[error(transparent)]
    CpuTemplate(#[from] TemplateFileError),
    /// The snapshot's guest cannot run on this host.
    #[error(transparent)]
    OtherCpu(#[from] CpuMismatch),
    /// A vCPU of a snapshot.
    #[error(transparent)]
    Vcpu(#[from] RestoreError),
    /// A device of a snapshot.
    #[error(transparent)]
    DeviceState(devices::state::StateError),
    /// The host refused a thread, a descriptor or the like.
    #[error("cannot {what}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// A VM. Its vCPUs do not run before [`Vm::start`].
pub struct Vm {
    // Fields are dropped in this order: threads, then what they use.
    running: Vec<VcpuHandle>,
    /// Threads of vCPUs that have ended.
    idle: Vec<VcpuThread>,
    ready: Vec<Vcpu>,
    devices: DeviceSet,
    events: Arc<GuestEvents>,
    counters: Arc<ExitCounters>,
    memory: GuestMemory,
    /// What keeps memory served that another process serves.
    pager: Option<Pager>,
    /// The devices were restored, and have not been told to look at their queues.
    kick_is_due: Cell<bool>,
    fd: Arc<VmFd>,
}

impl Vm {
    /// Makes the VM that `config` describes and loads what it boots. Its metadata service, if it has one, gives out what is
    /// in `metadata`.
    ///
    /// # Errors
    /// [`VmError`]; nothing is left behind.
    pub fn create(config: &VmConfig, console: &Output, metadata: &Arc<MmdsStore>) -> Result<Self, VmError> {
        let start = Moment::now();
        config.validate()?;
        let source = config.boot_source.as_ref().ok_or(ConfigError::NoKernel)?;
        let machine = &config.machine_config;
        let template = config.cpu_config.as_ref().map(CpuConfig::template).transpose()?;
        let host = Host::open()?;
        let memory = memory::create(machine.mem_size_mib, machine.huge_pages, machine.track_dirty_pages)?;
        let shell = Shell::create(host.create_vm()?, config, console, metadata, memory, start)?;
        mask_pic(&shell.fd)?;
        let registers = load(config, source, &shell.memory, &shell.devices)?;
        let vcpus = VcpuPlan {
            host: &host,
            fd: &shell.fd,
            count: machine.vcpu_count,
            smt: machine.smt,
            registers: &registers,
            template: template.as_deref(),
        };
        let made = vcpus.create()?.into_iter().zip(0..);
        let ready = made.map(|((fd, cpuid), id)| shell.vcpu(id, fd, cpuid)).collect();
        Ok(shell.with_vcpus(ready, Devices::New))
    }

    /// Has the vCPUs run on these idle threads, as far as they go.
    pub fn reuse_threads(&mut self, threads: Vec<VcpuThread>) {
        self.idle = threads;
    }

    /// The threads of the vCPUs of a VM that is stopped.
    pub fn into_threads(mut self) -> Vec<VcpuThread> {
        self.stop();
        std::mem::take(&mut self.idle)
    }

    /// Starts the vCPUs, each on its thread, as `begin` says.
    ///
    /// # Errors
    /// What the host said when it had no thread to give; the VM is stopped then.
    pub fn start(&mut self, begin: Begin) -> Result<(), VmError> {
        crate::vcpu::install_kick_handler()
            .map_err(|source| VmError::Host { what: "install the vCPUs' signal handler", source })?;
        if begin == Begin::Running {
            self.kick_if_due();
        }
        let mut idle = std::mem::take(&mut self.idle).into_iter();
        for vcpu in self.ready.drain(..) {
            let handle = vcpu
                .start(begin, idle.next())
                .map_err(|source| VmError::Host { what: "start a vCPU's thread", source })?;
            self.running.push(handle);
        }
        Ok(())
    }

    /// Stops the guest between two instructions and keeps it there.
    pub fn pause(&self) {
        VcpuHandle::pause(&self.running);
    }

    /// Lets a paused guest go on.
    pub fn resume(&self) {
        self.devices.go_on();
        self.kick_if_due();
        self.running.iter().for_each(VcpuHandle::resume);
    }

    /// The process was stopped and goes on: has the guest told, so that its kernel reports no soft lockup.
    pub fn tell_of_stop(&self) {
        self.running.iter().for_each(VcpuHandle::tell_of_stop);
    }

    /// Has restored devices, and their drivers, look at their queues, when the guest is about to go on.
    fn kick_if_due(&self) {
        if self.kick_is_due.take() {
            self.devices.kick();
        }
    }

    /// Ends the vCPUs and finishes what the devices have in flight.
    pub fn stop(&mut self) {
        self.idle.extend(VcpuHandle::stop(std::mem::take(&mut self.running)));
        self.devices.quiesce();
    }

    /// Ends the VM as the last thing that this process does: what takes KVM long is left to the kernel.
    pub fn leave(mut self) {
        self.stop();
        teardown::close_after_exit(&*self.fd);
    }

    /// The guest's devices.
    pub fn devices(&self) -> &DeviceSet {
        &self.devices
    }

    /// Where the guest leaves its last word.
    pub fn events(&self) -> &Arc<GuestEvents> {
        &self.events
    }

    /// How often the guest left guest mode.
    pub fn exits(&self) -> crate::vcpu::ExitCounts {
        self.counters.get()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.stop();
        self.idle.drain(..).for_each(VcpuThread::join);
    }
}

/// Masks the master 8259, and with it the other, as firmware leaves them.
///
/// KVM has all of their inputs open, and the boot vCPU hears them until its kernel has set up its local APIC. Each line below
/// 16 is an input of theirs as well, and their vectors begin at 0: an interrupt of a device, which the I/O APIC does not let
/// through that early, would be an exception.
fn mask_pic(vm: &VmFd) -> Result<(), KvmError> {
    let mut master = kvm_irqchip { chip_id: KVM_IRQCHIP_PIC_MASTER, ..kvm_irqchip::default() };
    vm.get_irqchip(&mut master).map_err(kvm::failed("KVM_GET_IRQCHIP"))?;
    master.chip.pic.imr = u8::MAX;
    vm.set_irqchip(&master).map_err(kvm::failed("KVM_SET_IRQCHIP"))
}

/// Writes the ACPI tables and loads the kernel; where the boot vCPU starts.
fn load(
    config: &VmConfig,
    source: &BootSourceConfig,
    memory: &GuestMemory,
    devices: &DeviceSet,
) -> Result<BootRegisters, VmError> {
    let machine = acpi::Machine {
        vcpus: config.machine_config.vcpu_count,
        virtio_mmio: &devices.places(),
        pci: config.transport() == Transport::Pci,
        serial: true,
        keyboard: true,
    };
    let rsdp = acpi::write_tables(memory, &machine)?;
    vmgenid::renew(memory)?;
    let cmdline = config.cmdline();
    if cmdline::params(&cmdline).any(|param| param.name == "acpi" && param.value == Some("off")) {
        log::warn!(
            "acpi=off is on the kernel command line: a Linux guest finds no timer, no virtio device and no way to power \
             off without ACPI; remove it"
        );
    }
    let source = BootSource {
        kernel: &source.kernel_image_path,
        initrd: source.initrd_path.as_deref(),
        cmdline: &cmdline,
        rsdp,
    };
    Ok(boot::registers(boot::load(memory, &source)?))
}

/// What vCPUs are made from.
struct VcpuPlan<'a> {
    host: &'a Host,
    fd: &'a VmFd,
    count: u32,
    smt: bool,
    registers: &'a BootRegisters,
    template: Option<&'a CpuTemplate>,
}

impl VcpuPlan<'_> {
    fn create(&self) -> Result<Vec<(VcpuFd, CpuId)>, VmError> {
        // KVM is asked how many it has only when it may be too few: each question is a system call.
        let max = if self.count > 1 { self.host.max_vcpus() } else { 1 };
        if self.count as usize > max {
            return Err(VmError::Vcpus { asked: self.count, max });
        }
        if let Some(template) = self.template {
            cpu_template::check_capabilities(self.fd, template)?;
        }
        let supported = self.host.supported_cpuid()?;
        (0..self.count).map(|id| self.create_one(id, &supported)).collect()
    }

    fn create_one(&self, id: u32, supported: &CpuId) -> Result<(VcpuFd, CpuId), VmError> {
        let vcpu = self.fd.create_vcpu(u64::from(id)).map_err(kvm::failed("KVM_CREATE_VCPU"))?;
        let deadline = if self.fd.check_extension(Cap::TscDeadlineTimer) {
            TscDeadline::Offered
        } else {
            TscDeadline::Absent
        };
        let tsc_khz = vcpu.get_tsc_khz().ok();
        let mut cpuid = cpu::guest_cpuid(
            supported,
            id,
            Topology { vcpus: self.count, smt: self.smt },
            tsc_khz,
            deadline,
        )?;
        if let Some(template) = self.template {
            cpuid = template.apply_to_cpuid(&cpuid, supported)?;
        }
        vcpu.set_cpuid2(&cpuid).map_err(kvm::failed("KVM_SET_CPUID2"))?;
        set_msrs(&vcpu)?;
        if let Some(template) = self.template {
            if id == 0 {
                cpu_template::warn_of_overridden(&vcpu, template, &cpuid);
            }
            cpu_template::set_msrs(&vcpu, template)?;
        }
        if id == 0 {
            let mut sregs = vcpu.get_sregs().map_err(kvm::failed("KVM_GET_SREGS"))?;
            self.registers.apply(&mut sregs);
            vcpu.set_sregs(&sregs).map_err(kvm::failed("KVM_SET_SREGS"))?;
            vcpu.set_regs(&self.registers.regs).map_err(kvm::failed("KVM_SET_REGS"))?;
        }
        Ok((vcpu, cpuid))
    }
}

fn set_msrs(vcpu: &VcpuFd) -> Result<(), KvmError> {
    let entries = cpu::boot_msrs();
    let refused = |source| KvmError::Ioctl { what: "KVM_SET_MSRS", source };
    let msrs =
        Msrs::from_entries(&entries).map_err(|error| refused(io::Error::other(format!("{error:?}"))))?;
    let set = vcpu.set_msrs(&msrs).map_err(kvm::failed("KVM_SET_MSRS"))?;
    match entries.get(set) {
        None => Ok(()),
        Some(entry) => Err(refused(io::Error::other(format!("MSR {:#x} is refused", entry.index)))),
    }
}
