//! The state in which the boot vCPU enters the kernel.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

use crate::layout;

/// Where and how the boot vCPU enters the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryPoint {
    /// 32-bit protected mode without paging at this guest-physical address: Xen, "x86/HVM direct boot ABI".
    Pvh(u64),
    /// 64-bit mode at this guest-physical address: Linux, Documentation/arch/x86/boot.rst, "64-bit boot protocol".
    Linux64(u64),
}

/// The boot vCPU's registers at the kernel's entry. Made by [`registers`].
#[derive(Clone, Copy, Debug)]
pub struct BootRegisters {
    /// All of the general registers.
    pub regs: kvm_regs,
    entry: EntryPoint,
}

/// Bits of `RFLAGS`: number 1 is always set, interrupts are off.
const RFLAGS_RESERVED: u64 = 1 << 1;
/// Bits of `CR0`: protection, the numeric coprocessor's type (always set), paging.
const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
/// Bit of `CR4`: physical address extension.
const CR4_PAE: u64 = 1 << 5;
/// Bits of `IA32_EFER`: long mode enabled and active.
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Selectors that the Linux 64-bit boot protocol asks for, `__BOOT_CS` and `__BOOT_DS`.
pub(super) const BOOT_CS: u16 = 0x10;
pub(super) const BOOT_DS: u16 = 0x18;
/// Selector of the task state segment; it is in no table, as nothing loads it.
const BOOT_TSS: u16 = 0x20;
/// Descriptor table of the 64-bit entry: two empty entries, flat 64-bit code, flat data (Intel SDM 3A, 3.4.5).
pub(super) const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Segment types (Intel SDM 3A, 3.4.5.1 and 3.5).
const TYPE_DATA_WRITE_ACCESSED: u8 = 0x3;
const TYPE_CODE_READ_ACCESSED: u8 = 0xb;
const TYPE_TSS_BUSY: u8 = 0xb;

/// The registers for `entry`, which [`load`](super::load) has returned.
pub fn registers(entry: EntryPoint) -> BootRegisters {
    let base = kvm_regs {
        rflags: RFLAGS_RESERVED,
        rsp: layout::BOOT_STACK_POINTER,
        rbp: layout::BOOT_STACK_POINTER,
        ..kvm_regs::default()
    };
    let regs = match entry {
        EntryPoint::Pvh(rip) => kvm_regs { rip, rbx: layout::PVH_INFO_START, ..base },
        EntryPoint::Linux64(rip) => kvm_regs { rip, rsi: layout::ZERO_PAGE_START, ..base },
    };
    BootRegisters { regs, entry }
}

impl BootRegisters {
    /// Sets in `sregs` what the entry needs and leaves the rest, such as the local APIC's address.
    pub fn apply(&self, sregs: &mut kvm_sregs) {
        let long = matches!(self.entry, EntryPoint::Linux64(_));
        let code = kvm_segment {
            base: 0,
            limit: u32::MAX,
            selector: BOOT_CS,
            type_: TYPE_CODE_READ_ACCESSED,
            present: 1,
            dpl: 0,
            db: u8::from(!long),
            s: 1,
            l: u8::from(long),
            g: 1,
            ..kvm_segment::default()
        };
        let data = kvm_segment { selector: BOOT_DS, type_: TYPE_DATA_WRITE_ACCESSED, db: 1, l: 0, ..code };
        sregs.cs = code;
        sregs.ds = data;
        sregs.es = data;
        sregs.fs = data;
        sregs.gs = data;
        sregs.ss = data;
        sregs.tr = kvm_segment {
            selector: BOOT_TSS,
            limit: 0x67,
            type_: TYPE_TSS_BUSY,
            present: 1,
            ..kvm_segment::default()
        };
        // No handlers yet: an exception before the kernel has set its own up is a triple fault, not a wild jump.
        sregs.idt.base = 0;
        sregs.idt.limit = 0;
        sregs.gdt.base = 0;
        sregs.gdt.limit = 0;
        sregs.cr0 = CR0_PE | CR0_ET;
        sregs.cr3 = 0;
        sregs.cr4 = 0;
        sregs.efer = 0;
        if long {
            sregs.gdt.base = layout::GDT_START;
            sregs.gdt.limit = (size_of_val(&GDT) - 1) as u16;
            sregs.cr0 |= CR0_PG;
            sregs.cr3 = layout::PAGE_TABLES_START;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME | EFER_LMA;
        }
    }
}
