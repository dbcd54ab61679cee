//! What KVM holds of a machine besides its vCPUs, as a snapshot keeps it: interrupt controllers and kvm-clock.
//!
//! It is saved behind the vCPUs and restored behind them: an interrupt that waits in the I/O APIC is delivered as its state
//! is set, to local APICs that have to be there.

use kvm_bindings::{
    KVM_CLOCK_REALTIME, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data,
    kvm_irqchip,
};
use kvm_ioctls::{Cap, VmFd};
use serde::{Deserialize, Serialize};

use crate::kvm::{self, Elapsed, KvmError, WallTime};

/// The interrupt controllers, in the order in which they are kept.
const IRQCHIPS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// Interrupt controllers and kvm-clock.
#[derive(Clone, Serialize, Deserialize)]
pub struct MachineStateV1 {
    /// The two 8259 and the I/O APIC.
    irqchips: [kvm_irqchip; 3],
    pub(super) clock: ClockStateV1,
}

/// kvm-clock at one moment. What else its guests read of it lies in their memory and comes from KVM at each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClockStateV1 {
    /// Nanoseconds since the guest's start.
    pub(super) nanoseconds: u64,
    /// When it showed this.
    pub(super) at: WallTime,
    /// The host's TSC at that moment, where KVM told.
    host_tsc: Option<u64>,
}

impl MachineStateV1 {
    /// Reads the machine. Its vCPUs are paused, and its devices have nothing in flight.
    ///
    /// # Errors
    /// What KVM said.
    pub fn save(vm: &VmFd) -> Result<Self, KvmError> {
        let mut irqchips = IRQCHIPS.map(|chip_id| kvm_irqchip { chip_id, ..kvm_irqchip::default() });
        for chip in &mut irqchips {
            vm.get_irqchip(chip).map_err(kvm::failed("KVM_GET_IRQCHIP"))?;
        }
        Ok(Self { irqchips, clock: ClockStateV1::save(vm)? })
    }

    /// Makes `vm`, whose vCPUs are restored and do not run yet, what this says.
    ///
    /// # Errors
    /// What KVM said.
    pub fn restore(&self, vm: &VmFd, elapsed: Elapsed) -> Result<(), KvmError> {
        for (chip, chip_id) in self.irqchips.iter().zip(IRQCHIPS) {
            let chip = kvm_irqchip { chip_id, ..*chip };
            vm.set_irqchip(&chip).map_err(kvm::failed("KVM_SET_IRQCHIP"))?;
        }
        self.clock.restore(vm, elapsed)
    }

    /// When the machine was saved.
    pub fn saved_at(&self) -> WallTime {
        self.clock.at
    }
}

impl ClockStateV1 {
    fn save(vm: &VmFd) -> Result<Self, KvmError> {
        let (clock, at) = kvm::timed(|| vm.get_clock().map_err(kvm::failed("KVM_GET_CLOCK")))?;
        let told = |flag| clock.flags & flag != 0;
        Ok(Self {
            nanoseconds: clock.clock,
            // Newer KVMs tell both of one moment, when the host's clock is its TSC.
            at: if told(KVM_CLOCK_REALTIME) { WallTime(clock.realtime) } else { at },
            host_tsc: told(kvm_bindings::KVM_CLOCK_HOST_TSC).then_some(clock.host_tsc),
        })
    }

    fn restore(&self, vm: &VmFd, elapsed: Elapsed) -> Result<(), KvmError> {
        let mut clock = kvm_clock_data { clock: self.nanoseconds, ..kvm_clock_data::default() };
        if elapsed == Elapsed::Counted {
            // `KVM_CAP_ADJUST_CLOCK` answers with the flags that can be used.
            let flags = vm.check_extension_int(Cap::AdjustClock).cast_unsigned();
            if flags & KVM_CLOCK_REALTIME != 0 {
                // KVM adds what has passed since, and nothing when the wall clock went back.
                clock.flags = KVM_CLOCK_REALTIME;
                clock.realtime = self.at.0;
            } else {
                let away = WallTime::now().counted_since(self.at, elapsed);
                clock.clock = self.nanoseconds.saturating_add(away);
            }
        }
        vm.set_clock(&clock).map_err(kvm::failed("KVM_SET_CLOCK"))
    }
}
