//! File systems and data on virtio-block, as the guest and the host see them.

use std::fs;

use super::guest::COMPLAINTS;
use super::{Guest, RootImage, require_linux_guests};
use crate::support::disk::Disk;

const MIB: usize = 1 << 20;

/// Bytes that no two sectors share and nothing compresses: the same for the same `seed`, which is not 0.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length / 8).flat_map(|_| next().to_le_bytes()).collect()
}

/// Compares without printing megabytes.
#[track_caller]
fn assert_same(actual: &[u8], expected: &[u8], what: &str) {
    let differs = actual.iter().zip(expected).position(|(actual, expected)| actual != expected);
    assert_eq!((actual.len(), differs), (expected.len(), None), "{what}: length and first difference");
}

#[test]
fn a_root_file_system_keeps_what_the_guest_wrote_and_is_clean_after_power_off() {
    require_linux_guests!();
    let image = RootImage::new();
    let report = Guest::small().root(&image, "").run(&format!(
        "echo written by the guest | dd of=/var/written conv=fsync && \
         dd if=/dev/urandom of=/var/noise bs=64k count=16 conv=fsync && sync && \
         echo 3 >/proc/sys/vm/drop_caches && echo sum $(md5sum </var/noise) && \
         mkdir /var/d && for i in $(seq 50); do echo $i >/var/d/$i; done && rm -r /var/d && {COMPLAINTS}"
    ));
    report.assert_no_complaints();
    image.assert_clean();
    assert_eq!(image.file("/var/written"), "written by the guest\n");
    // And another guest reads the same from it.
    let again = Guest::small().root(&image, ",readonly").run("echo sum $(md5sum </var/noise)");
    assert_eq!(again.value("sum"), report.value("sum"));
}

#[test]
fn what_was_flushed_survives_when_rvmm_is_killed() {
    require_linux_guests!();
    let image = RootImage::new();
    let command = "echo flushed | dd of=/var/flushed conv=fsync 2>/dev/null; echo now; sleep 1000";
    let mut guest = Guest::small().root(&image, "").running(command).launch();
    guest.wait_for("now\r\n").signal(libc::SIGKILL);
    drop(guest);
    let report = Guest::small().root(&image, "").run("cat /var/flushed");
    report.assert_line("flushed");
    image.assert_clean();
}

#[test]
fn a_read_only_root_refuses_every_write() {
    require_linux_guests!();
    let image = RootImage::new();
    let before = fs::read(image.path()).unwrap();
    let report = Guest::small().root(&image, ",readonly").run(
        "echo ro $(cat /sys/block/vda/ro); touch /written; echo touch $?; \
         mount -o remount,rw / 2>/dev/null; echo remount $?; \
         blockdev --setrw /dev/vda; dd if=/dev/zero of=/dev/vda count=1 conv=fsync; echo dd $?",
    );
    report.assert_line("ro 1").assert_line("touch 1").assert_line("dd 1");
    assert_ne!(report.value("remount"), "0", "{}", report.text());
    assert_same(&fs::read(image.path()).unwrap(), &before, "the image");
}

#[test]
fn two_disks_carry_data_both_ways_with_either_engine() {
    require_linux_guests!();
    for (source_engine, target_engine) in [("sync", "io_uring"), ("io_uring", "sync")] {
        let content = noise(0x5eed, 4 * MIB);
        let source = Disk::with_content(&content);
        let target = Disk::with_content(&noise(0xfeed, 4 * MIB));
        let report = Guest::small()
            .shared_root()
            .disk(&source.path(), &format!(",engine={source_engine},id=source,readonly"))
            .disk(&target.path(), &format!(",engine={target_engine},id=target-2"))
            .run(&format!(
                "echo serials $(cat /sys/block/vdb/serial) $(cat /sys/block/vdc/serial); \
                 echo sizes $(cat /sys/block/vdb/size) $(cat /sys/block/vdc/size); \
                 echo ro $(cat /sys/block/vdb/ro) $(cat /sys/block/vdc/ro); \
                 dd if=/dev/vdb of=/dev/vdc bs=64k count=32 conv=fsync && \
                 dd if=/dev/vdb of=/dev/vdc bs=4k skip=512 seek=512 iflag=direct oflag=direct conv=fsync && \
                 echo 3 >/proc/sys/vm/drop_caches && cmp /dev/vdb /dev/vdc && echo same && {COMPLAINTS}"
            ));
        report
            .assert_line("serials source target-2")
            .assert_line("sizes 8192 8192")
            .assert_line("ro 1 0")
            .assert_line("same")
            .assert_no_complaints();
        assert_same(&target.content(), &content, target_engine);
        assert_same(&source.content(), &content, source_engine);
    }
}

#[test]
fn discarded_blocks_are_given_back_to_the_host() {
    require_linux_guests!();
    for engine in ["sync", "io_uring"] {
        let image = RootImage::allocated();
        let data = Disk::with_content(&noise(0xd15c, 2 * MIB));
        let before = image.allocation();
        assert!(before >= 60 << 20, "{before}");
        let report = Guest::small()
            .shared_root()
            .disk(&image.path(), &format!(",engine={engine}"))
            .disk(&data.path(), &format!(",engine={engine}"))
            .run(&format!(
                "mount /dev/vdb /mnt && fstrim -v /mnt && umount /mnt && \
                 blkdiscard -o 524288 -l 1048576 /dev/vdc && echo discarded; {COMPLAINTS}"
            ));
        report.assert_line("discarded");
        report.assert_no_complaints();
        let after = image.allocation();
        assert!(after < before / 4, "{engine}: {before} bytes allocated before, {after} after");
        image.assert_clean();
        let mut expected = noise(0xd15c, 2 * MIB);
        expected[MIB / 2..MIB * 3 / 2].fill(0);
        assert_same(&data.content(), &expected, engine);
    }
}
