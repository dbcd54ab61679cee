//! Kernels that unpack themselves.

use vm_memory::{Bytes, GuestAddress};

use crate::boot::fixture::{BzImage, MIB, load};
use crate::boot::{EntryPoint, ImageError};

fn refusal(image: &BzImage) -> String {
    load(&image.build()).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn code_is_loaded_where_the_kernel_will_run() {
    let (memory, kernel) = load(&BzImage::new().build()).unwrap();
    assert_eq!(kernel.entry, EntryPoint::Linux64(16 * MIB + 0x200));
    assert_eq!(kernel.occupied, [(16 * MIB, 24 * MIB)]);
    assert_eq!(kernel.cmdline_limit, 2047);
    let mut loaded = vec![0; 4097];
    memory.read_slice(&mut loaded, GuestAddress(16 * MIB)).unwrap();
    assert_eq!(loaded[..4096], BzImage::new().code);
    assert_eq!(loaded[4096], 0);
}

#[test]
fn no_setup_sectors_mean_four() {
    let (memory, _) = load(&BzImage::new().header(|header| header.setup_sects = 0).build()).unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(16 * MIB + 2)).unwrap(), BzImage::new().code[2]);
}

#[test]
fn a_kernel_that_prefers_nothing_goes_to_1_mib() {
    let (_, kernel) = load(&BzImage::new().header(|header| header.pref_address = 0).build()).unwrap();
    assert_eq!(kernel.entry, EntryPoint::Linux64(MIB + 0x200));
    // It unpacks itself at its alignment.
    assert_eq!(kernel.occupied, [(MIB, MIB + 4096), (2 * MIB, 10 * MIB)]);
}

#[test]
fn a_kernel_that_is_not_relocatable_runs_where_it_prefers() {
    let image = BzImage::new().header(|header| {
        header.relocatable_kernel = 0;
        header.kernel_alignment = 0;
        header.pref_address = 3 * MIB;
    });
    assert_eq!(load(&image.build()).unwrap().1.occupied, [(3 * MIB, 11 * MIB)]);
}

#[test]
fn the_header_is_cut_off_where_it_says() {
    let image = BzImage::new().header(|header| {
        header.jump = u16::from_le_bytes([0xeb, 0x62]);
        header.handover_offset = 0xdead;
    });
    let handover_offset = load(&image.build()).unwrap().1.setup_header.unwrap().handover_offset;
    assert_eq!(handover_offset, 0);
}

#[test]
fn other_protocols_are_named() {
    for (image, what) in [
        (BzImage::new().header(|header| header.version = 0x020b), "of boot protocol 2.11"),
        (
            BzImage::new().header(|header| (header.version, header.jump) = (0x0200, 0x20eb)),
            "of boot protocol 2.00",
        ),
        (BzImage::new().header(|header| header.loadflags = 0), "loads low"),
        (BzImage::new().header(|header| header.xloadflags = 0), "without a 64-bit entry"),
        (BzImage::new().header(|header| header.boot_flag = 0), "boot_flag is 0x0"),
        (BzImage::new().header(|header| header.init_size = 0), "init_size is 0x0"),
        (BzImage::new().header(|header| header.jump = 0x20eb), "size of the setup header"),
        (BzImage::new().header(|header| header.kernel_alignment = 0), "kernel_alignment is 0x0"),
        (BzImage::new().header(|header| header.kernel_alignment = 0x30_0000), "kernel_alignment is 0x300000"),
    ] {
        assert!(refusal(&image).contains(what), "{what}: {}", refusal(&image));
    }
}

#[test]
fn the_unpacked_kernel_has_to_fit_in_memory() {
    assert!(load(&BzImage::new().header(|header| header.init_size = 16 << 20).build()).is_ok());
    for image in [
        BzImage::new().header(|header| header.init_size = (16 << 20) + 1),
        BzImage::new().header(|header| header.init_size = u32::MAX),
        BzImage::new().header(|header| header.pref_address = 32 * MIB),
        BzImage::new().header(|header| header.pref_address = u64::MAX),
        BzImage::new().header(|header| header.kernel_alignment = 1 << 31),
    ] {
        assert!(refusal(&image).contains("not in the guest's RAM"), "{}", refusal(&image));
    }
}

#[test]
fn a_long_command_line_is_limited_by_the_room_for_it() {
    let (_, kernel) = load(&BzImage::new().header(|header| header.cmdline_size = u32::MAX).build()).unwrap();
    assert_eq!(kernel.cmdline_limit, 0xffff);
}

#[test]
fn what_the_header_announces_has_to_be_in_the_file() {
    for (image, what) in [
        (BzImage::new().header(|header| header.syssize += 1), "syssize"),
        (BzImage::new().header(|header| header.syssize = u32::MAX), "syssize"),
        (BzImage::new().header(|header| header.payload_length = 0xd01), "payload_length"),
        (
            BzImage::new()
                .header(|header| (header.payload_offset, header.payload_length) = (u32::MAX, u32::MAX)),
            "payload_length",
        ),
    ] {
        assert!(refusal(&image).contains(what), "{what}: {}", refusal(&image));
    }
}

#[test]
fn every_truncation_is_refused() {
    let whole = BzImage::new().build();
    for length in 0x206..whole.len() {
        let error = load(&whole[..length]).err().unwrap();
        assert!(matches!(error, ImageError::Truncated { .. }), "{length}: {error}");
    }
    for length in 0..0x206 {
        assert!(load(&whole[..length]).is_err(), "{length}");
    }
}
