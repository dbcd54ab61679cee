//! The tables as a guest reads them, from the root pointer on.

use std::collections::BTreeMap;
use std::process::Command;

use devices::GuestMemory;
use skip::Capability;
use vm_memory::{Bytes, GuestAddress};

use super::{AcpiError, Machine, VirtioMmio, write_tables};
use crate::boot::fixture::memory;
use crate::layout;

fn virtio(count: u32) -> Vec<VirtioMmio> {
    (0..count)
        .map(|number| VirtioMmio {
            base: layout::VIRTIO_MMIO_START + u64::from(number) * layout::VIRTIO_MMIO_SIZE,
            size: layout::VIRTIO_MMIO_SIZE,
            gsi: layout::VIRTIO_GSI_FIRST + number,
        })
        .collect()
}

fn machine(vcpus: u32, virtio_mmio: &[VirtioMmio]) -> Machine<'_> {
    Machine { vcpus, virtio_mmio, pci: false, serial: true, keyboard: true }
}

fn bytes_at(memory: &GuestMemory, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

fn assert_checksum(bytes: &[u8]) {
    assert_eq!(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
}

/// Reads the table at `address` by the length in its header, and checks its sum.
fn table(memory: &GuestMemory, address: u64) -> (String, Vec<u8>) {
    let length = u32_at(&bytes_at(memory, address, 8), 4);
    let bytes = bytes_at(memory, address, length as usize);
    assert_checksum(&bytes);
    (String::from_utf8(bytes[..4].to_vec()).unwrap(), bytes)
}

/// Writes the tables and follows every pointer in them.
fn read_back(machine: &Machine) -> BTreeMap<String, Vec<u8>> {
    let memory = memory(2 << 20);
    let address = write_tables(&memory, machine).unwrap();
    assert_eq!(address % 16, 0);
    let rsdp = bytes_at(&memory, address, 36);
    assert_eq!((&rsdp[..8], rsdp[15]), (&b"RSD PTR "[..], 2));
    assert_checksum(&rsdp[..20]);
    assert_checksum(&rsdp);

    let (name, xsdt) = table(&memory, u64_at(&rsdp, 24));
    assert_eq!(name, "XSDT");
    let mut tables: BTreeMap<_, _> =
        xsdt[36..].chunks(8).map(|entry| table(&memory, u64_at(entry, 0))).collect();
    let (name, dsdt) = table(&memory, u64_at(&tables["FACP"], 140));
    tables.insert(name, dsdt);
    tables
}

#[test]
fn tables_are_found_from_the_root_pointer() {
    let tables = read_back(&machine(1, &virtio(1)));
    assert_eq!(tables.keys().map(String::as_str).collect::<Vec<_>>(), ["APIC", "DSDT", "FACP"]);
}

#[test]
fn tables_of_a_small_machine_fit_in_one_page() {
    let memory = memory(2 << 20);
    write_tables(&memory, &machine(4, &virtio(4))).unwrap();
    assert!(bytes_at(&memory, layout::ACPI_START + 4096, 4096).iter().all(|byte| *byte == 0));
}

#[test]
fn fadt_is_hardware_reduced_with_sleep_and_reset_registers() {
    let fadt = &read_back(&machine(1, &[]))["FACP"];
    assert_eq!((fadt.len(), fadt[8]), (276, 6));
    let flags = u32_at(fadt, 112);
    assert_eq!((flags >> 20 & 1, flags >> 10 & 1), (1, 1), "HW_REDUCED_ACPI, RESET_REG_SUP");
    let register = |offset: usize| (fadt[offset..offset + 4].to_vec(), u64_at(fadt, offset + 4));
    assert_eq!(register(116), (vec![1, 8, 0, 1], 0x602), "RESET_REG");
    assert_eq!(fadt[128], 1, "RESET_VALUE");
    assert_eq!(register(244), (vec![1, 8, 0, 1], 0x600), "SLEEP_CONTROL_REG");
    assert_eq!(register(256), (vec![1, 8, 0, 1], 0x601), "SLEEP_STATUS_REG");
}

#[test]
fn fadt_says_which_legacy_devices_there_are() {
    let boot_arch = |serial, keyboard| {
        let fadt = &read_back(&Machine { serial, keyboard, ..machine(1, &[]) })["FACP"];
        u16::from_le_bytes([fadt[109], fadt[110]])
    };
    // Legacy devices, 8042, no VGA, no PCIe ASPM, no CMOS clock.
    assert_eq!(boot_arch(true, true), 0b11_0111);
    assert_eq!(boot_arch(true, false), 0b11_0101);
    assert_eq!(boot_arch(false, false), 0b11_0100);
}

#[test]
fn madt_lists_every_vcpu_and_the_io_apic() {
    let madt = &read_back(&machine(32, &[]))["APIC"];
    assert_eq!((u32_at(madt, 36), u32_at(madt, 40)), (0xfee0_0000, 0), "address, no PCAT_COMPAT");
    let mut structures = &madt[44..];
    let mut ids = Vec::new();
    while let [kind, length, ..] = *structures {
        let (this, rest) = structures.split_at(length.into());
        match kind {
            0 => {
                assert_eq!((this[2], u32_at(this, 4)), (this[3], 1), "same UID as APIC id, enabled");
                ids.push(this[3]);
            }
            1 => assert_eq!((u32_at(this, 4), u32_at(this, 8)), (0xfec0_0000, 0)),
            other => panic!("structure of type {other}"),
        }
        structures = rest;
    }
    assert_eq!(ids, (0..32).collect::<Vec<_>>());
}

#[test]
fn machines_that_tables_cannot_name_are_refused() {
    let memory = memory(2 << 20);
    for vcpus in [0, 256, u32::MAX] {
        let error = write_tables(&memory, &machine(vcpus, &[])).unwrap_err();
        assert!(matches!(error, AcpiError::Vcpus(_)), "{error}");
    }
    for (base, size) in [(1 << 32, 0x1000), (0xffff_f000, 0x1000), (u64::MAX, 1), (0, u64::MAX)] {
        let error = write_tables(&memory, &machine(1, &[VirtioMmio { base, size, gsi: 5 }])).unwrap_err();
        assert!(matches!(error, AcpiError::DeviceAddress { .. }), "{error}");
    }
    let many = vec![virtio(1)[0]; 4096];
    let error = write_tables(&memory, &machine(1, &many)).unwrap_err();
    assert!(matches!(error, AcpiError::TooLarge { .. }), "{error}");
}

#[test]
fn memory_without_room_for_tables_is_refused() {
    let error = write_tables(&memory(0xe_0000), &machine(1, &[])).unwrap_err();
    assert!(error.to_string().contains("1M or more"), "{error}");
}

/// Disassembles the DSDT with ACPICA's `iasl`, assembles the result again, and returns the source.
fn disassemble(dsdt: &[u8]) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let iasl = |arguments: &[&str]| Command::new("iasl").args(arguments).current_dir(&dir).output();
    std::fs::write(dir.path().join("dsdt.aml"), dsdt).unwrap();
    if !skip::has_program(Capability::Programs, "iasl") {
        return None;
    }
    let output = iasl(&["-d", "dsdt.aml"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let source = std::fs::read_to_string(dir.path().join("dsdt.dsl")).unwrap();
    let output = iasl(&["-p", "again", "dsdt.dsl"]).unwrap();
    let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    assert!(report.contains("0 Errors, 0 Warnings"), "{report}");
    Some(source)
}

#[test]
fn dsdt_names_all_devices() {
    let devices = virtio(18);
    let tables = read_back(&machine(2, &devices));
    let Some(source) = disassemble(&tables["DSDT"]) else { return };
    for expected in [
        "EisaId (\"PNP0501\")",
        "0x03F8,             // Range Minimum",
        "EisaId (\"PNP0303\")",
        "QEMU0001",
        "\"RVMM0001\"",
        "\"VMGENCTR\"",
        "\"VM_Gen_Counter\"",
        "0x000FF000,",
        "\"ACPI0013\"",
        "OperationRegion (EVTR, SystemIO, 0x0604, One)",
        "Method (_EVT, 1, Serialized)",
        "Notify (VGEN, 0x80)",
        "Notify (PWRB, 0x80)",
        "Device (PWRB)",
        "EisaId (\"PNP0C0C\")",
        "Device (V000)",
        "Device (V011)",
        "\"LNRO0005\"",
        "0xC0011000,         // Address Base",
        "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, )",
        "0x00000016,",
        "0x00000017,",
        "_CCA",
        "_S5",
    ] {
        assert!(source.contains(expected), "{expected} is not in\n{source}");
    }
    assert_eq!(source.matches("LNRO0005").count(), 18);
}

#[test]
fn dsdt_leaves_out_what_is_not_there() {
    let tables = read_back(&Machine { serial: false, keyboard: false, ..machine(1, &[]) });
    let Some(source) = disassemble(&tables["DSDT"]) else { return };
    let devices: Vec<&str> = source.lines().filter_map(|line| line.trim().strip_prefix("Device ")).collect();
    // What every VM has: pvpanic, the generation ID, the power button, and their event device.
    assert_eq!(devices, ["(PEVT)", "(VGEN)", "(PWRB)", "(GED)"], "{source}");
    assert!(source.contains("_S5"), "{source}");
}
