//! Where things are in the guest's address spaces. Every fixed address of the machine is in this file.

/// `boot_params` ("zero page") of the Linux boot protocol, one page.
pub const ZERO_PAGE_START: u64 = 0x5000;
/// `hvm_start_info` of the PVH boot protocol; its memory map and module list follow, up to [`GDT_START`].
///
/// It shares its page with the descriptor table and the command line: every page that is touched before the guest's
/// first instruction costs a page fault on the way there.
pub const PVH_INFO_START: u64 = 0x6000;
/// Global descriptor table for the 64-bit entry, up to [`CMDLINE_START`].
pub const GDT_START: u64 = 0x67c0;
/// Kernel command line, NUL-terminated.
pub const CMDLINE_START: u64 = 0x6800;
/// Room for the command line, the NUL included, in bytes.
pub const CMDLINE_MAX_SIZE: usize = 0x1_0000;
/// Stack pointer at entry, growing down; neither boot protocol asks for one.
pub const BOOT_STACK_POINTER: u64 = 0x1_fff0;
/// First page table (PML4) for the 64-bit entry; the PDPT and up to four page directories follow it.
pub const PAGE_TABLES_START: u64 = 0x2_0000;
/// End of conventional memory: what lies from here to [`HIMEM_START`] is not given to the guest as RAM.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// ACPI tables, the RSDP first; within the area that ACPI 6.5, 5.2.5.1 names for it.
pub const ACPI_START: u64 = 0xe_0000;
/// End of the room for ACPI tables.
pub const ACPI_END: u64 = VMGENID_START;
/// The page of the VM generation ID: 16 bytes, and nothing else.
pub const VMGENID_START: u64 = 0xf_f000;
/// End of the page of the VM generation ID.
pub const VMGENID_END: u64 = 0x10_0000;
/// First byte above 1 MiB: kernels are loaded from here on.
pub const HIMEM_START: u64 = 0x10_0000;

/// Guest RAM stops here and goes on at [`HIGH_RAM_START`]: devices live in between.
pub const MMIO_GAP_START: u64 = 0xc000_0000;
/// Guest RAM goes on here.
pub const HIGH_RAM_START: u64 = 0x1_0000_0000;

/// First virtio-mmio device.
pub const VIRTIO_MMIO_START: u64 = MMIO_GAP_START;
/// Size of each virtio-mmio device's registers and configuration space, in bytes.
pub const VIRTIO_MMIO_SIZE: u64 = 0x1000;
/// The boot timer, where Firecracker has it; the virtio-mmio devices move up by one when there is one.
pub const BOOT_TIMER_START: u64 = MMIO_GAP_START;
/// Size of the boot timer's page, in bytes.
pub const BOOT_TIMER_SIZE: u64 = 0x1000;
/// First interrupt of the virtio-mmio devices (global system interrupt).
pub const VIRTIO_GSI_FIRST: u32 = 5;
/// Last interrupt of the virtio-mmio devices.
pub const VIRTIO_GSI_LAST: u32 = 22;
/// Interrupt of the ACPI events, the last of the 24 pins of the I/O APIC.
pub const ACPI_EVENTS_GSI: u32 = 23;

/// Window for BARs in memory.
pub const PCI_MEMORY_START: u32 = 0xd000_0000;
/// Size of the window for BARs in memory, in bytes.
pub const PCI_MEMORY_SIZE: u32 = 0x1000_0000;
/// First port of the window for BARs in I/O space.
pub const PCI_IO_START: u16 = 0x1000;
/// Number of ports in the window for BARs in I/O space.
pub const PCI_IO_SIZE: u16 = 0x1000;
/// Configuration space of PCI bus 0 (ECAM), the only bus there is.
pub const PCI_ECAM_START: u32 = 0xe000_0000;

/// I/O APIC registers.
pub const IOAPIC_ADDRESS: u32 = 0xfec0_0000;
/// Local APIC registers.
pub const LOCAL_APIC_ADDRESS: u32 = 0xfee0_0000;
/// Three pages for KVM's own use on Intel (`KVM_SET_TSS_ADDR`); outside of RAM.
pub const KVM_TSS_ADDRESS: u64 = 0xfffb_d000;

/// First port of the 16550 serial port COM1.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Number of the serial port's registers.
pub const SERIAL_PORT_SIZE: u16 = 8;
/// Interrupt of the serial port.
pub const SERIAL_GSI: u32 = 4;
/// Interrupt that says that the VM generation ID is another: of the second serial port, which there is not.
pub const VMGENID_GSI: u32 = 3;
/// First port of the i8042 keyboard controller (data); its command port is at + 4.
pub const I8042_PORT: u16 = 0x60;
/// Ports from the data port to the command port.
pub const I8042_PORT_SIZE: u16 = 5;
/// Interrupt of the keyboard.
pub const I8042_GSI: u32 = 1;
/// ACPI sleep control register; sleep status at + 1 and reset register at + 2 (hardware-reduced ACPI 6.5, 4.8.3.7).
pub const ACPI_POWER_PORT: u16 = 0x600;
/// Number of the ACPI power registers.
pub const ACPI_POWER_PORT_SIZE: u16 = 3;
/// The register of ACPI events.
pub const ACPI_EVENTS_PORT: u16 = 0x604;
/// Number of its ports.
pub const ACPI_EVENTS_PORT_SIZE: u16 = 1;
/// The panic notifier, where QEMU has it.
pub const PVPANIC_PORT: u16 = 0x505;
/// Its number of ports.
pub const PVPANIC_PORT_SIZE: u16 = 1;

// What is written for the kernel's start lies in this order, and nothing reaches into the next.
const _: () = {
    const PAGE_SIZE: u64 = 0x1000;
    assert!(ZERO_PAGE_START + PAGE_SIZE <= PVH_INFO_START);
    assert!(PVH_INFO_START < GDT_START && GDT_START < CMDLINE_START);
    assert!(CMDLINE_START + (CMDLINE_MAX_SIZE as u64) < BOOT_STACK_POINTER);
    assert!(BOOT_STACK_POINTER < PAGE_TABLES_START);
    // PML4, PDPT and a page directory for each GiB below the gap.
    assert!(PAGE_TABLES_START + (2 + MMIO_GAP_START.div_ceil(1 << 30)) * PAGE_SIZE <= LOW_RAM_END);
    assert!(LOW_RAM_END <= ACPI_START && ACPI_END < VMGENID_END && VMGENID_END <= HIMEM_START);
};
