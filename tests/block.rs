//! Block devices, driven by bare guests, well and badly.

use std::fs;
use std::path::Path;
use std::process::Command;

use skip::Capability;

use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;
use crate::support::{Ended, Rvmm, bare};

const OK: &str = "status 00000000";
const IOERR: &str = "status 00000001";
const NEEDS_RESET: u32 = 0x40;

/// The word after `key` in `line`, a hexadecimal number.
fn value(line: &str, key: &str) -> Option<u32> {
    let mut words = line.split(' ').skip_while(|word| *word != key);
    u32::from_str_radix(words.nth(1)?, 16).ok()
}

fn run(disk: &Disk, options: &str) -> Ended {
    Rvmm::guest("virtio-blk").disk(&disk.path(), options).run()
}

#[test]
fn a_guest_reads_writes_and_flushes_with_either_engine() {
    require_kvm!();
    for engine in ["", ",engine=sync", ",engine=io_uring"] {
        let disk = Disk::new(16, "sector zero here");
        let ended = run(&disk, engine);
        ended.assert_clean();
        let expected = [
            "sectors 00000010".to_owned(),
            format!("read {OK} data sector zero here"),
            format!("write {OK}"),
            format!("flush {OK}"),
            format!("read {OK} data looklooklooklook"),
        ];
        assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), expected, "engine {engine:?}");
        let content = disk.content();
        assert_eq!(&content[..16], b"sector zero here");
        assert_eq!(content[512..1024], *b"look".repeat(128));
        assert!(content[1024..].iter().all(|byte| *byte == 0));
    }
}

/// A loop device with sectors of 4 KiB over a file. It is gone when this is dropped.
struct LargeSectors(String);

impl LargeSectors {
    /// `None` where this user may not have one; the running test is skipped.
    fn over(disk: &Disk) -> Option<Self> {
        let attach = ["--sector-size", "4096", "--find", "--show"];
        let output = Command::new("losetup").args(attach).arg(disk.path()).output();
        match output {
            Ok(output) if output.status.success() => {
                Some(Self(String::from_utf8(output.stdout).unwrap().trim_end().to_owned()))
            }
            other => {
                skip::skip(Capability::Root, format!("losetup makes no loop device: {other:?}"));
                None
            }
        }
    }
}

impl Drop for LargeSectors {
    fn drop(&mut self) {
        let detached = Command::new("losetup").args(["--detach", &self.0]).status();
        assert!(detached.is_ok_and(|status| status.success()), "{} is still attached", self.0);
    }
}

#[test]
fn direct_io_to_a_device_with_sectors_of_4_kib_leaves_the_guest_sectors_of_512_bytes() {
    require_kvm!();
    for engine in [",engine=sync", ",engine=io_uring"] {
        let disk = Disk::new(16, "sector zero here");
        let Some(device) = LargeSectors::over(&disk) else { return };
        let options = format!(",direct{engine}");
        let ended = Rvmm::guest("virtio-blk").disk(Path::new(&device.0), &options).run();
        ended.assert_clean();
        let expected = [
            "sectors 00000010".to_owned(),
            format!("read {OK} data sector zero here"),
            format!("write {OK}"),
            format!("flush {OK}"),
            format!("read {OK} data looklooklooklook"),
        ];
        assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), expected, "{engine}");
        let content = fs::read(&device.0).unwrap();
        assert_eq!(&content[..16], b"sector zero here");
        assert_eq!(content[512..1024], *b"look".repeat(128));
        assert!(content[1024..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn an_image_of_another_format_is_warned_of() {
    require_kvm!();
    let disk = Disk::new(16, "");
    fs::write(disk.path(), [&b"QFI\xfb"[..], &[0; 8188]].concat()).unwrap();
    let ended = Rvmm::guest("hello").disk(&disk.path(), ",readonly").run();
    assert_eq!(ended.code(), 0);
    assert!(ended.stderr.contains("looks like qcow2, and is used as a raw image"), "{}", ended.stderr);
}

#[test]
fn a_read_only_disk_cannot_be_written() {
    require_kvm!();
    for engine in [",engine=sync", ",engine=io_uring"] {
        let disk = Disk::new(16, "sector zero here");
        let before = disk.content();
        let ended = run(&disk, &format!(",readonly{engine}"));
        ended.assert_clean();
        assert!(
            ended.stdout.contains(&format!("read {OK} data sector zero here\nwrite {IOERR}")),
            "{ended:#?}"
        );
        assert_eq!(disk.content(), before);
    }
}

#[test]
fn a_broken_request_is_answered_or_stops_the_device_and_never_the_vm() {
    require_kvm!();
    for engine in [",engine=sync", ",engine=io_uring"] {
        let disk = Disk::new(16, "sector zero here");
        let before = disk.content();
        let ended = Rvmm::guest("virtio-blk-hostile").disk(&disk.path(), engine).run();
        assert_eq!(ended.code(), 0, "{ended:#?}");
        let mut lines: Vec<&str> = ended.stdout.lines().collect();
        assert_eq!(lines.pop(), Some("end"), "{ended:#?}");
        let good = lines.pop().unwrap();
        assert_eq!(good, format!("good {OK} device 0000000f"), "the device works again after a reset");
        assert_eq!(lines.len(), 21, "{ended:#?}");
        for line in lines {
            let status = value(line, "status").unwrap();
            let needs_reset = value(line, "device").unwrap() & NEEDS_RESET != 0;
            // VIRTIO_BLK_S_IOERR or VIRTIO_BLK_S_UNSUPP; or no word but DEVICE_NEEDS_RESET.
            assert!(matches!(status, 1 | 2) || needs_reset, "{engine}: {line}");
            assert!(!line.contains("timeout"), "{engine}: {line}");
        }
        assert_eq!(disk.content(), before, "{engine}");
    }
}

#[test]
fn a_request_that_would_keep_the_vmm_busy_for_seconds_is_refused() {
    require_kvm!();
    for engine in [",engine=sync", ",engine=io_uring"] {
        let disk = Disk::new(16, "sector zero here");
        fs::File::options().write(true).open(disk.path()).unwrap().set_len(4 << 30).unwrap();
        let ended = Rvmm::guest("virtio-blk-large").disk(&disk.path(), engine).run();
        ended.assert_clean().assert_stdout(&format!("large {IOERR}\nsmall {OK}\n"));
    }
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_to_the_guest() {
    require_kvm!();
    let disk = Disk::new(16, "sector zero here");
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_rvmm")]);
    let ended = Rvmm::within(limited)
        .arg("--kernel")
        .arg(bare::path("virtio-blk"))
        .args(["--transport", "mmio"])
        .disk(&disk.path(), ",engine=sync")
        .run();
    ended.assert_clean();
    assert!(ended.stdout.contains(&format!("write {IOERR}")), "{ended:#?}");
}

#[test]
fn a_broken_queue_stops_the_device_at_most() {
    require_kvm!();
    let disk = Disk::new(16, "sector zero here");
    let before = disk.content();
    let ended = Rvmm::guest("virtio-queue-hostile").disk(&disk.path(), "").run();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    assert!(ended.stdout.ends_with(&format!("good {OK}\nend\n")), "{ended:#?}");
    assert_eq!(ended.stdout.lines().filter(|line| line.contains(" device ")).count(), 14, "{ended:#?}");
    assert_eq!(disk.content(), before);
}

#[test]
fn every_register_takes_every_access_at_every_width() {
    require_kvm!();
    let disk = Disk::new(16, "sector zero here");
    let before = disk.content();
    let ended = Rvmm::guest("mmio-poke").disk(&disk.path(), "").run();
    assert_eq!(ended.code(), 0, "{ended:#?}");
    ended.assert_stdout("magic 74726976\nstatus 00000000\n");
    assert_eq!(disk.content(), before);
}

#[test]
fn two_disks_are_two_devices_in_the_order_given() {
    require_kvm!();
    let (first, second) = (Disk::new(16, "the first disk!!"), Disk::new(16, "the second disk!"));
    let ended = Rvmm::guest("virtio-blk").disk(&first.path(), "").disk(&second.path(), ",id=data").run();
    ended.assert_clean();
    assert!(ended.stdout.contains("data the first disk!!"), "{ended:#?}");
    assert_eq!(&first.content()[512..516], b"look");
    assert_eq!(&second.content()[512..516], [0; 4]);

    // The root file system comes first, wherever it stands on the command line.
    let root = Disk::new(16, "the root disk!!!");
    let ended = Rvmm::guest("virtio-blk").disk(&second.path(), "").arg("--rootfs").arg(root.path()).run();
    ended.assert_clean();
    assert!(ended.stdout.contains("data the root disk!!!"), "{ended:#?}");
}

#[test]
fn a_disk_is_free_again_as_soon_as_rvmm_has_ended() {
    require_kvm!();
    let disk = Disk::new(16, "sector zero here");
    for _ in 0..4 {
        run(&disk, "").assert_clean();
    }
}
