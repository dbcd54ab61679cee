//! Files made to do harm: whatever they say, the answer is a kernel or a one-line error.

use crate::boot::fixture::{BzImage, EHDR, Elf, MIB, PHDR, load, note};
use crate::boot::{ImageError, Kernel, MemoryMap};
use std::io::Cursor;

/// Parses every variant of `image` in which one byte of `range` has another value.
fn flip_each_byte(image: &[u8], range: std::ops::Range<usize>) {
    let memory = crate::boot::fixture::memory(32 * MIB);
    let map = MemoryMap::new(&memory);
    let mut hostile = image.to_vec();
    for offset in range {
        for value in 0..=u8::MAX {
            hostile[offset] = value;
            let mut file = Cursor::new(&hostile);
            match Kernel::parse(&mut file, &map) {
                // The whole way, wherever the value is one that a header often has.
                Ok(kernel) if value.is_power_of_two() || value == u8::MAX => {
                    kernel
                        .load(&memory, &mut file)
                        .unwrap_or_else(|error| panic!("{offset}: {value}: {error}"));
                }
                Ok(_) => {}
                Err(error) => one_line(&error),
            }
        }
        hostile[offset] = image[offset];
    }
}

fn one_line(error: &ImageError) {
    let message = error.to_string();
    assert!(!message.contains('\n') && message.len() < 300, "{message:?}");
}

#[test]
fn any_byte_of_an_elf_header_may_be_anything() {
    let image = Elf::new().pvh(MIB).build();
    flip_each_byte(&image, 0..EHDR + 2 * PHDR);
}

#[test]
fn any_byte_of_a_note_may_be_anything() {
    let image = Elf::new().pvh(MIB).build();
    let notes = note(b"GNU\0", 3, b"build").len() + note(b"Xen\0", 18, &[0; 8]).len();
    flip_each_byte(&image, image.len() - notes..image.len());
}

#[test]
fn any_byte_of_a_setup_header_may_be_anything() {
    flip_each_byte(&BzImage::new().build(), 0x1f0..0x270);
}

#[test]
fn any_byte_may_be_missing_from_the_middle() {
    for image in [Elf::new().pvh(MIB).build(), BzImage::new().build()] {
        for offset in 0..image.len() {
            let mut hostile = image.clone();
            hostile.remove(offset);
            if let Err(error) = load_quietly(&hostile) {
                one_line(&error);
            }
        }
    }
}

/// Parses without guest memory of its own, which would make thousands of rounds slow.
fn load_quietly(image: &[u8]) -> Result<Kernel, ImageError> {
    thread_local! {
        static MAP: MemoryMap = MemoryMap::new(&crate::boot::fixture::memory(32 * MIB));
    }
    MAP.with(|map| Kernel::parse(&mut Cursor::new(image), map))
}

#[test]
fn other_formats_are_named() {
    let mut arm = vec![0; 64];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    let mut ext4 = vec![0; 4096];
    ext4[0x438..0x43a].copy_from_slice(b"\x53\xef");
    for (bytes, what) in [
        (&b"\x1f\x8b\x08\0"[..], "compressed with gzip"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (b"\xfd7zXZ\0", "compressed with xz"),
        (b"BZh9", "compressed with bzip2"),
        (b"\x02\x21\x4c\x18", "compressed with lz4"),
        (b"070701", "cpio archive"),
        (b"MZ\0\0", "PE file"),
        (b"#!/bin/sh", "a script"),
        (b"QFI\xfb", "qcow2"),
        (&arm, "a Linux kernel for AArch64"),
        (&ext4, "ext4"),
        (b"x", "it begins with [78, 00, 00, 00]"),
        (b"\x7fEL", "no known format"),
        (b"\x7fELF", "truncated: the ELF header ends at byte 64"),
    ] {
        let error = load(bytes).err().unwrap();
        assert!(error.to_string().contains(what), "{what}: {error}");
        one_line(&error);
    }
    assert!(matches!(load(b""), Err(ImageError::Empty)));
}
