//! A snapshot's state of the devices with registers of their own that anybody may have changed, and what a driver then
//! does to them.
//!
//! Holds: no panic, no hang, no growth, whether it is refused or not; and what a device says of itself afterwards is taken
//! by another.
#![no_main]

mod in_file;

use std::io::Write;
use std::sync::Arc;

use arbitrary::Arbitrary;
use devices::bus::BusDevice;
use devices::interrupt::FakeInterrupt;
use devices::legacy::acpi_power::{AcpiPower, AcpiPowerStateV1};
use devices::legacy::i8042::{I8042, I8042StateV1};
use devices::legacy::serial::{Serial, SerialOutput, SerialStateV1};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    /// What the driver does before.
    before: Vec<Access>,
    file: in_file::InFile,
    after: Vec<Access>,
}

#[derive(Arbitrary, Debug)]
enum Access {
    Read { device: u8, offset: u8 },
    Write { device: u8, offset: u8, value: u8 },
    Type(Vec<u8>),
    CtrlAltDel,
}

/// Holds back some of what it is given.
#[derive(Default)]
struct Slow(Vec<u8>);

impl SerialOutput for Slow {
    fn held_back(&self) -> &[u8] {
        &self.0
    }
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() < 100 {
            self.0.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Devices {
    serial: Serial,
    i8042: I8042,
    acpi_power: AcpiPower,
}

type States = (SerialStateV1, I8042StateV1, AcpiPowerStateV1);

impl Devices {
    fn new() -> Self {
        Self {
            serial: Serial::new(Arc::new(FakeInterrupt::default()), Box::new(Slow::default())),
            i8042: I8042::new(Arc::new(FakeInterrupt::default())),
            acpi_power: AcpiPower::new(),
        }
    }

    fn access(&self, access: &Access) {
        let device = |device: u8| -> &dyn BusDevice {
            match device % 3 {
                0 => &self.serial,
                1 => &self.i8042,
                _ => &self.acpi_power,
            }
        };
        match access {
            Access::Read { device: which, offset } => device(*which).read(u64::from(offset % 9), &mut [0]),
            Access::Write { device: which, offset, value } => {
                let _ = device(*which).write(u64::from(offset % 9), &[*value]);
            }
            Access::Type(text) => drop(self.serial.enqueue(text)),
            Access::CtrlAltDel => drop(self.i8042.send_ctrl_alt_del()),
        }
    }

    fn save(&self) -> States {
        (self.serial.save(), self.i8042.save(), self.acpi_power.save())
    }

    fn restore(&self, (serial, i8042, acpi_power): &States) -> bool {
        let refused = [
            self.serial.restore(serial).is_err(),
            self.i8042.restore(i8042).is_err(),
            self.acpi_power.restore(acpi_power).is_err(),
        ];
        !refused.contains(&true)
    }
}

fuzz_target!(|input: Input| {
    let saved = Devices::new();
    input.before.iter().take(64).for_each(|access| saved.access(access));
    let state = saved.save();
    let bytes = input.file.changed(postcard::to_stdvec(&state).unwrap());
    let Ok(changed) = postcard::from_bytes::<States>(&bytes) else { return };
    let restored = Devices::new();
    let taken = restored.restore(&changed);
    assert!(taken || changed != state, "what was saved is refused");
    // A part that was refused is as it was, so it works all the same.
    input.after.iter().take(64).for_each(|access| restored.access(access));
    assert!(Devices::new().restore(&restored.save()), "what was saved is refused");
});
