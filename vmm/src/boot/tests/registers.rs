//! The boot vCPU's state at the kernel's entry.

use kvm_bindings::kvm_sregs;

use crate::boot::{EntryPoint, registers};
use crate::layout;

fn sregs(entry: EntryPoint) -> kvm_sregs {
    let mut sregs = kvm_sregs { apic_base: 0xfee0_0900, cr2: 7, ..kvm_sregs::default() };
    registers(entry).apply(&mut sregs);
    sregs
}

#[test]
fn pvh_enters_32_bit_code_without_paging() {
    let regs = registers(EntryPoint::Pvh(0x10_0000)).regs;
    assert_eq!((regs.rip, regs.rbx, regs.rflags), (0x10_0000, layout::PVH_INFO_START, 2));

    let sregs = sregs(EntryPoint::Pvh(0x10_0000));
    assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (0x11, 0, 0));
    assert_eq!((sregs.cs.base, sregs.cs.limit, sregs.cs.type_), (0, u32::MAX, 0xb));
    assert_eq!((sregs.cs.db, sregs.cs.l, sregs.cs.g, sregs.cs.s), (1, 0, 1, 1));
    for data in [sregs.ds, sregs.es, sregs.ss] {
        assert_eq!((data.base, data.limit, data.type_, data.db, data.present), (0, u32::MAX, 3, 1, 1));
    }
    assert_eq!((sregs.tr.base, sregs.tr.limit, sregs.tr.type_, sregs.tr.s), (0, 0x67, 0xb, 0));
}

#[test]
fn linux_enters_64_bit_code_with_the_zero_page_in_rsi() {
    let regs = registers(EntryPoint::Linux64(0x100_0200)).regs;
    assert_eq!((regs.rip, regs.rsi, regs.rflags), (0x100_0200, layout::ZERO_PAGE_START, 2));

    let sregs = sregs(EntryPoint::Linux64(0x100_0200));
    assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (0x8000_0011, 0x20, 0x500));
    assert_eq!(sregs.cr3, layout::PAGE_TABLES_START);
    assert_eq!((sregs.cs.selector, sregs.cs.l, sregs.cs.db), (0x10, 1, 0));
    assert_eq!((sregs.ds.selector, sregs.ds.l, sregs.ds.db), (0x18, 0, 1));
    assert_eq!((sregs.gdt.base, sregs.gdt.limit), (layout::GDT_START, 31));
}

#[test]
fn what_the_entry_does_not_need_stays() {
    for entry in [EntryPoint::Pvh(0), EntryPoint::Linux64(0)] {
        assert_eq!((sregs(entry).apic_base, sregs(entry).cr2), (0xfee0_0900, 7));
    }
}
