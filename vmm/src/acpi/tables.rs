//! The fixed tables: RSDP, XSDT, FADT, MADT and, with PCI, MCFG (ACPI 6.5, 5.2).

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;

use super::Machine;
use crate::layout;

/// Who made the tables; `OEM_TABLE_ID` is the same in all of them.
pub(super) const OEM_ID: [u8; 6] = *b"RVMM  ";
pub(super) const OEM_TABLE_ID: [u8; 8] = *b"RVMMTBLS";
pub(super) const OEM_REVISION: u32 = 1;

/// Bits of `IAPC_BOOT_ARCH` (ACPI 6.5, table 5.11).
const LEGACY_DEVICES: u16 = 1 << 0;
const HAS_8042: u16 = 1 << 1;
const VGA_NOT_PRESENT: u16 = 1 << 2;
const NO_PCIE_ASPM: u16 = 1 << 4;
/// Without this bit Linux waits for a clock that never answers.
const CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;

/// What is to be written to the reset register.
const RESET_VALUE: u8 = 1;
/// Tables begin on multiples of this (the RSDP has to; for the others it is custom).
const ALIGNMENT: usize = 16;

/// All tables as they lie in guest memory from `start` on, the RSDP first and `dsdt` with them.
pub(super) fn build(machine: &Machine, dsdt: &[u8], start: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4096);
    // The RSDP comes first and is filled in last, when it is known where the XSDT is.
    bytes.resize(Rsdp::len(), 0);
    let dsdt_address = append(&mut bytes, start, |out| out.extend_from_slice(dsdt));
    let fadt_address = append(&mut bytes, start, |out| fadt(machine, dsdt_address).to_aml_bytes(out));
    let madt_address = append(&mut bytes, start, |out| madt(machine).to_aml_bytes(out));
    let mcfg_address =
        machine.pci.then(|| append(&mut bytes, start, |out| super::pci::mcfg().to_aml_bytes(out)));
    let xsdt_address = append(&mut bytes, start, |out| {
        let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        xsdt.add_entry(fadt_address);
        xsdt.add_entry(madt_address);
        if let Some(address) = mcfg_address {
            xsdt.add_entry(address);
        }
        xsdt.to_aml_bytes(out);
    });
    let mut rsdp = Vec::with_capacity(Rsdp::len());
    Rsdp::new(OEM_ID, xsdt_address).to_aml_bytes(&mut rsdp);
    for (to, from) in bytes.iter_mut().zip(rsdp) {
        *to = from;
    }
    bytes
}

/// Appends a table at the next aligned address and returns that address.
fn append(bytes: &mut Vec<u8>, start: u64, table: impl FnOnce(&mut Vec<u8>)) -> u64 {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    let address = start.saturating_add(bytes.len() as u64);
    table(bytes);
    address
}

/// A one-byte register in I/O space, `offset` behind the first of the ACPI power registers.
fn power_register(offset: u16) -> GAS {
    let port = layout::ACPI_POWER_PORT.saturating_add(offset);
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into())
}

fn fadt(machine: &Machine, dsdt: u64) -> impl Aml {
    let mut boot_arch = VGA_NOT_PRESENT | NO_PCIE_ASPM | CMOS_RTC_NOT_PRESENT;
    if machine.serial || machine.keyboard {
        boot_arch |= LEGACY_DEVICES;
    }
    if machine.keyboard {
        boot_arch |= HAS_8042;
    }
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        // Write-back instructions work, and there are neither fixed power and sleep buttons nor a screen.
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = boot_arch.into();
    fadt.sleep_control_reg = power_register(0);
    fadt.sleep_status_reg = power_register(1);
    fadt.reset_reg = power_register(2);
    fadt.reset_value = RESET_VALUE;
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"RVMM\0\0\0\0").into();
    fadt.finalize()
}

fn madt(machine: &Machine) -> impl Aml {
    let controller = LocalInterruptController::Address(layout::LOCAL_APIC_ADDRESS);
    let mut madt = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, controller);
    for id in (0..machine.vcpus).filter_map(|id| u8::try_from(id).ok()) {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IOAPIC_ADDRESS, 0));
    madt
}
