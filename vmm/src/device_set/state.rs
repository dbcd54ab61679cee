//! Saving and restoring all devices of a VM.

#[cfg(test)]
mod tests;

use devices::legacy::acpi_power::AcpiPowerStateV1;
use devices::legacy::boot_timer::BootTimerStateV1;
use devices::legacy::i8042::I8042StateV1;
use devices::legacy::serial::SerialStateV1;
use devices::state::StateError;
use devices::virtio::state::VirtioStateV1;
use serde::{Deserialize, Serialize};

use super::DeviceSet;
use crate::snapshot::bounded;

/// Virtio devices that are read from a file: twice as many as a VM has at most.
const MAX_VIRTIO: usize = 64;

/// What a snapshot keeps of a VM's devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicesStateV1 {
    /// The serial port.
    pub serial: SerialStateV1,
    /// The keyboard controller.
    pub i8042: I8042StateV1,
    /// Sleep control.
    pub acpi_power: AcpiPowerStateV1,
    /// The boot timer, of a VM that has one.
    pub boot_timer: Option<BootTimerStateV1>,
    /// The virtio devices, in the order of their addresses.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_VIRTIO>")]
    pub virtio: Vec<SlotStateV1>,
}

/// A virtio device and which one it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStateV1 {
    /// Its kind, and its id if there can be several of that: `drive "rootfs"`.
    pub name: String,
    /// The device.
    pub virtio: VirtioStateV1,
}

impl DeviceSet {
    /// Has every device finish what it has in flight on the host, and says what a snapshot keeps of all. No vCPU runs, and
    /// nothing changes guest memory before [`go_on`](Self::go_on).
    ///
    /// # Errors
    /// When a device does not know how far it is; the error names it.
    pub fn save(&self) -> Result<DevicesStateV1, StateError> {
        // All of them first: what one of them still does may concern another.
        for slot in &self.virtio {
            slot.core.drain();
        }
        let virtio = self.virtio.iter().map(|slot| {
            let name = slot.name.clone();
            match slot.transport.save() {
                Ok(virtio) => Ok(SlotStateV1 { name, virtio }),
                Err(error) => Err(error.within(name)),
            }
        });
        Ok(DevicesStateV1 {
            serial: self.serial.save(),
            i8042: self.i8042.save(),
            acpi_power: self.acpi_power.save(),
            boot_timer: self.boot_timer.as_ref().map(|timer| timer.save()),
            virtio: virtio.collect::<Result<_, _>>()?,
        })
    }

    /// Has the devices go on with a guest that goes on, as if nothing had happened.
    pub fn go_on(&self) {
        for slot in &self.virtio {
            slot.core.go_on();
        }
    }

    /// Takes over what was saved, before a guest has touched the devices, with its memory and interrupt controllers as
    /// they were. Devices that were active are active again; [`kick`](Self::kick) has them go on.
    ///
    /// # Errors
    /// The first thing that is wrong with it, or does not go with the configuration; the error names the device. The
    /// devices are of no use then.
    pub fn restore(&self, state: &DevicesStateV1) -> Result<(), StateError> {
        let DevicesStateV1 { serial, i8042, acpi_power, boot_timer, virtio } = state;
        if virtio.iter().map(|slot| &slot.name).ne(self.virtio.iter().map(|slot| &slot.name)) {
            return Err(StateError::new(format!(
                "the snapshot is of a VM with {}, and this one has {}",
                list(&mut virtio.iter().map(|slot| &slot.name)),
                list(&mut self.virtio.iter().map(|slot| &slot.name)),
            )));
        }
        self.serial.restore(serial).map_err(|error| error.within("serial port"))?;
        self.i8042.restore(i8042).map_err(|error| error.within("keyboard controller"))?;
        self.acpi_power.restore(acpi_power).map_err(|error| error.within("power management"))?;
        if let (Some(timer), Some(state)) = (&self.boot_timer, boot_timer) {
            timer.restore(state);
        }
        for (slot, state) in self.virtio.iter().zip(virtio) {
            slot.transport.restore(&state.virtio).map_err(|error| error.within(&slot.name))?;
        }
        Ok(())
    }

    /// Has every active device, and its driver, look at all of their queues: both have missed what went on around a
    /// restore.
    pub fn kick(&self) {
        for slot in &self.virtio {
            slot.core.kick();
        }
    }
}

/// The names of devices, of which a hostile snapshot can have [`MAX_VIRTIO`], of any length.
fn list(slots: &mut dyn ExactSizeIterator<Item = &String>) -> String {
    const MOST: usize = 40;
    const LONGEST: usize = 100;
    match slots.len() {
        0 => "no virtio device".to_owned(),
        count if count > MOST => format!("{count} virtio devices"),
        _ => slots.map(|name| name.chars().take(LONGEST).collect()).collect::<Vec<String>>().join(", "),
    }
}
