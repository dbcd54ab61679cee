//! Uncompressed kernels.

use vm_memory::{Bytes, GuestAddress};

use crate::boot::fixture::{Elf, MIB, load, note};
use crate::boot::{EntryPoint, ImageError};

fn refusal(elf: &Elf) -> String {
    load(&elf.build()).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn code_is_loaded_and_bss_is_left_alone() {
    let (memory, kernel) = load(&Elf::new().build()).unwrap();
    assert_eq!(kernel.entry, EntryPoint::Linux64(MIB));
    assert_eq!(kernel.occupied, [(MIB, MIB + 32 + 4096)]);
    assert_eq!(memory.read_obj::<[u8; 2]>(GuestAddress(MIB + 31)).unwrap(), [0xf4, 0]);
}

#[test]
fn pvh_entry_wins_over_the_elf_entry() {
    let (_, kernel) = load(&Elf::new().pvh(MIB + 16).build()).unwrap();
    assert_eq!(kernel.entry, EntryPoint::Pvh(MIB + 16));
}

#[test]
fn pvh_entry_may_be_4_bytes_as_xen_specifies_it() {
    let elf = Elf::new().notes(&note(b"Xen\0", 18, &(MIB as u32 + 1).to_le_bytes()));
    assert_eq!(load(&elf.build()).unwrap().1.entry, EntryPoint::Pvh(MIB + 1));
}

#[test]
fn pvh_entry_is_found_whatever_note_segment_it_is_in() {
    let elf = Elf::new().notes(&note(b"GNU\0", 3, b"id")).pvh(MIB).notes(&note(b"Foo\0", 18, b"none"));
    assert_eq!(load(&elf.build()).unwrap().1.entry, EntryPoint::Pvh(MIB));
}

#[test]
fn notes_of_other_owners_or_kinds_are_no_entry() {
    let notes = [note(b"Xen\0", 17, &[0; 8]), note(b"Yen\0", 18, &[0; 8]), note(b"", 18, b"")].concat();
    assert_eq!(load(&Elf::new().notes(&notes).build()).unwrap().1.entry, EntryPoint::Linux64(MIB));
}

#[test]
fn program_headers_may_be_at_the_end_of_the_file() {
    let mut bytes = Elf::new().build();
    let table = bytes[64..120].to_vec();
    bytes[64..120].fill(0);
    bytes.resize(8000, 0);
    bytes[32..40].copy_from_slice(&8000_u64.to_le_bytes());
    bytes.extend_from_slice(&table);
    assert_eq!(load(&bytes).unwrap().1.entry, EntryPoint::Linux64(MIB));
}

#[test]
fn other_machines_are_named() {
    let machine = |machine| refusal(&Elf::new().header(|header| header.e_machine = machine));
    assert!(machine(183).contains("for AArch64"));
    assert!(machine(3).contains("for 32-bit x86"));
    assert!(machine(0x1234).contains("e_machine 4660"));
    assert!(refusal(&Elf::new().header(|header| header.e_ident[4] = 1)).contains("for a 32-bit machine"));
    assert!(refusal(&Elf::new().header(|header| header.e_ident[5] = 2)).contains("big-endian"));
}

#[test]
fn other_kinds_of_elf_files_are_named() {
    let kind = |kind| refusal(&Elf::new().header(|header| header.e_type = kind));
    assert!(kind(1).contains("an object file or kernel module (ET_REL), not a kernel"));
    assert!(kind(4).contains("a core dump"));
    assert!(kind(9).contains("e_type is 0x9"));
    let program =
        Elf::new().load(2 * MIB, b"/lib64/ld-linux-x86-64.so.2", 0).last(|segment| segment.p_type = 3);
    assert!(refusal(&program).contains("dynamically linked"));
}

#[test]
fn header_fields_are_checked_before_they_are_used() {
    for (elf, field) in [
        (Elf::new().header(|header| header.e_ident[4] = 7), "EI_CLASS"),
        (Elf::new().header(|header| header.e_ident[5] = 7), "EI_DATA"),
        (Elf::new().header(|header| header.e_ident[6] = 7), "EI_VERSION"),
        (Elf::new().header(|header| header.e_version = 7), "e_version"),
        (Elf::new().header(|header| header.e_phentsize = 32), "e_phentsize"),
        (Elf::new().header(|header| header.e_phoff = 63), "e_phoff"),
        (Elf::new().header(|header| header.e_phnum = 129), "e_phnum"),
        (Elf::new().header(|header| header.e_entry = MIB + 32), "e_entry"),
        (Elf::new().header(|header| header.e_entry = u64::MAX), "e_entry"),
        (Elf::new().last(|segment| segment.p_memsz = 31), "p_filesz"),
        (Elf::new().pvh(0), "XEN_ELFNOTE_PHYS32_ENTRY"),
        (Elf::new().pvh((1 << 32) + MIB), "XEN_ELFNOTE_PHYS32_ENTRY"),
        (Elf::new().notes(&note(b"Xen\0", 18, b"abc")), "n_descsz"),
    ] {
        let refusal = refusal(&elf);
        assert!(refusal.contains(field), "{field}: {refusal:?}");
    }
}

#[test]
fn segments_have_to_be_in_memory() {
    let at = |address, bss| refusal(&Elf::new().load(address, b"data", bss));
    for outside in [
        at(MIB - 1, 0),
        at(0x1000, 0),
        at(32 * MIB - 3, 0),
        at(2 * MIB, 30 * MIB),
        at(u64::MAX - 2, 0),
        at(2 * MIB, u64::MAX - 4),
        at(0xd000_0000, 0),
    ] {
        assert!(outside.contains("not in the guest's RAM"), "{outside:?}");
    }
    assert!(at(MIB - 1, 0).ends_with("link the kernel at 1 MiB or above"));
    assert!(at(32 * MIB - 3, 0).ends_with("give the guest at least 33M of memory"));
    assert!(at(0xd000_0000, 0).ends_with("link the kernel below 0xc0000000"));
}

#[test]
fn segments_may_touch_but_not_overlap() {
    let end = MIB + 32 + 4096;
    assert!(load(&Elf::new().load(end, b"data", 0).build()).is_ok());
    assert!(refusal(&Elf::new().load(end - 1, b"data", 0)).contains("overlap in memory: 0x100000..0x101020"));
    assert!(refusal(&Elf::new().load(MIB, b"data", 0)).contains("overlap"));
}

#[test]
fn segments_have_to_be_in_the_file() {
    for elf in [
        Elf::new().last(|segment| segment.p_offset = u64::MAX),
        Elf::new().last(|segment| segment.p_offset = 1 << 20),
        Elf::new().last(|segment| segment.p_filesz = 33),
        Elf::new().pvh(MIB).last(|segment| segment.p_filesz = 1 << 15),
        Elf::new().pvh(MIB).last(|segment| segment.p_offset = u64::MAX - 3),
        Elf::new().header(|header| header.e_phoff = u64::MAX),
        Elf::new().header(|header| header.e_phnum = 128),
    ] {
        assert!(refusal(&elf).contains("truncated"), "{}", refusal(&elf));
    }
}

#[test]
fn notes_may_be_padded_to_4_bytes_whatever_their_segment_is_aligned_to() {
    for align in [0, 1, 4, 8, 16] {
        let notes = [note(b"Xen\0", 6, b"v1.0"), note(b"Xen\0", 18, &(MIB as u32).to_le_bytes())].concat();
        let elf = Elf::new().notes(&notes).last(|segment| segment.p_align = align);
        assert_eq!(load(&elf.build()).unwrap().1.entry, EntryPoint::Pvh(MIB), "p_align {align}");
    }
    // Name and descriptor padded to 8.
    let padded = [&[4_u32, 4, 6, 0x006e_6558].map(u32::to_le_bytes).concat()[..], &[0; 8]].concat();
    let elf = Elf::new().notes(&[padded, note(b"Xen\0", 18, &MIB.to_le_bytes())].concat());
    let elf = elf.last(|segment| segment.p_align = 8);
    assert_eq!(load(&elf.build()).unwrap().1.entry, EntryPoint::Pvh(MIB));
}

#[test]
fn a_broken_note_is_no_entry_and_no_error() {
    let whole = note(b"Xen\0", 18, &MIB.to_le_bytes());
    let entry = |notes: &[u8]| load(&Elf::new().notes(notes).build()).unwrap().1.entry;
    for length in 1..whole.len() {
        assert_eq!(entry(&whole[..length]), EntryPoint::Linux64(MIB), "{length}");
    }
    let huge = [u32::MAX, u32::MAX, 18].map(u32::to_le_bytes).concat();
    assert_eq!(entry(&huge), EntryPoint::Linux64(MIB));
    // Only the first 64 KiB of a segment are read.
    let large = [whole, vec![0; 64 << 10]].concat();
    assert_eq!(entry(&large), EntryPoint::Pvh(MIB));
    assert_eq!(load(&Elf::new().notes(&huge).pvh(MIB).build()).unwrap().1.entry, EntryPoint::Pvh(MIB));
}

#[test]
fn a_kernel_without_segments_is_refused() {
    let elf = Elf::new().last(|segment| segment.p_type = 6);
    assert!(refusal(&elf).contains("without loadable segments"));
}

#[test]
fn every_truncation_is_refused() {
    let whole = Elf::new().pvh(MIB).build();
    for length in 5..whole.len() {
        let error = load(&whole[..length]).err().unwrap();
        assert!(matches!(error, ImageError::Truncated { .. }), "{length}: {error}");
    }
}
