//! Limits, caches and direct I/O of disks, as a guest's programs see them.

use serde_json::json;

use super::{Guest, Report, require_linux_guests};
use crate::support::api::ApiSocket;
use crate::support::disk::Disk;

const MIB: usize = 1 << 20;

/// What blockload, whose line of JSON follows `label`, says of `key`.
#[track_caller]
fn measured(report: &Report, label: &str, key: &str) -> f64 {
    let line = report.value(label);
    let rest = line.split_once(&format!("\"{key}\": ")).map(|(_, rest)| rest);
    let number = rest.and_then(|rest| rest.split([',', '}']).next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{label}: {line}"))
}

/// A command that reads or writes for ten seconds without a pause, and prints what came of it after `label`.
fn load(label: &str, what: &str) -> String {
    // The first second spends what the bucket held.
    format!("blockload /dev/vdb {what} 1 >/dev/null && echo {label} $(blockload /dev/vdb {what} 10)")
}

#[track_caller]
fn assert_within_five_percent(what: &str, actual: f64, limit: f64) {
    assert!((actual - limit).abs() <= limit / 20.0, "{what}: {actual}, and the limit is {limit}");
}

#[test]
fn limits_on_bytes_and_requests_hold_within_5_percent_over_10_seconds() {
    require_linux_guests!();
    let disk = Disk::with_content(&vec![0; 64 * MIB]);
    // Rates that an emulated host has no trouble with. The bucket holds a tenth of a second: less than one of the large reads.
    let script = [
        load("small-reads", "read random 4k 4"),
        load("large-reads", "read sequential 64k 1"),
        load("writes", "write sequential 16k 1"),
    ];
    let report =
        Guest::debian("6_12").tools_root().disk(&disk.path(), ",bandwidth=512K").run(&script.join(" && "));
    for label in ["small-reads", "large-reads", "writes"] {
        assert_within_five_percent(label, measured(&report, label, "mib_per_second"), 0.5);
    }

    let script = [load("one", "read random 4k 1"), load("many", "write random 16k 4")];
    for engine in ["sync", "io_uring"] {
        let report = Guest::debian("6_12")
            .tools_root()
            .disk(&disk.path(), &format!(",ops=60,engine={engine}"))
            .run(&script.join(" && "));
        for label in ["one", "many"] {
            assert_within_five_percent(label, measured(&report, label, "iops"), 60.0);
        }
    }
}

#[test]
fn a_disk_without_flushes_and_one_with_direct_io_carry_data() {
    require_linux_guests!();
    let disks = [Disk::with_content(&vec![0; 8 * MIB]), Disk::with_content(&vec![0; 8 * MIB])];
    let guest = |second: &str| {
        Guest::small()
            .shared_root()
            .disk(&disks[0].path(), ",cache=unsafe")
            .disk(&disks[1].path(), second)
            .running(
                "echo caches $(cat /sys/block/vdb/queue/write_cache), $(cat /sys/block/vdc/queue/write_cache); \
                 echo block $(cat /sys/block/vdc/queue/logical_block_size); \
                 dd if=/dev/urandom of=/tmp/noise bs=1M count=4 2>/dev/null; \
                 for disk in vdb vdc; do dd if=/tmp/noise of=/dev/$disk bs=64k conv=fsync 2>/dev/null && \
                 dd if=/dev/$disk of=/tmp/back bs=4k count=1024 iflag=direct 2>/dev/null && \
                 cmp /tmp/noise /tmp/back && echo $disk same; done",
            )
            .run()
    };
    let mut ended = guest(",direct");
    if ended.stderr.contains("no direct I/O") {
        eprintln!("the temporary folder's file system has no direct I/O: only the cache is looked at");
        ended = guest("");
    }
    let report = Report::of(&ended);
    report.assert_line("caches write through, write back").assert_line("vdb same").assert_line("vdc same");
    let contents = disks.map(|disk| disk.content());
    assert!(contents[0] == contents[1], "both have what the guest wrote");
    assert!(contents[0][..4 * MIB].iter().any(|byte| *byte != 0));
}

#[test]
fn a_guest_sees_the_disk_that_is_swapped_while_it_reads() {
    require_linux_guests!();
    let socket = ApiSocket::new();
    let (first, second) =
        (Disk::with_content(&vec![0x11; 4 * MIB]), Disk::with_content(&vec![0x22; 8 * MIB]));
    let mut running = Guest::debian("6_12")
        .shared_root()
        .disk(&first.path(), ",id=data")
        .arg("--api-sock")
        .arg(socket.path())
        .running(
            "reads() { while dd if=/dev/vdb of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null; do :; done; }; \
             reads & sum() { dd if=/dev/vdb bs=64k iflag=direct 2>/dev/null | md5sum; }; \
             echo before $(sum); echo ready; \
             until [ $(cat /sys/block/vdb/size) = 16384 ]; do sleep 0.1; done; \
             echo after $(sum); echo written | dd of=/dev/vdb conv=notrunc,fsync 2>/dev/null; kill %1",
        )
        .launch();
    running.wait_for("ready\r\n");
    let missing = json!({"drive_id": "data", "path_on_host": "/nowhere/disk.img"});
    socket.patch("/drives/data", &missing).assert_refused("/nowhere/disk.img");
    socket.patch("/drives/data", &json!({"drive_id": "data", "path_on_host": second.path()})).assert_done();
    let report = Report::of(&running.end());
    let sum = |content: &[u8]| format!("{} -", md5sum(content));
    assert_eq!(report.value("before"), sum(&vec![0x11; 4 * MIB]));
    assert_eq!(report.value("after"), sum(&vec![0x22; 8 * MIB]));
    assert_eq!(&second.content()[..8], b"written\n");
    assert!(first.content().iter().all(|byte| *byte == 0x11), "the old file is as it was");
}

/// What the host's md5sum(1) says of `content`.
fn md5sum(content: &[u8]) -> String {
    let file = Disk::with_content(content);
    let output = std::process::Command::new("md5sum").arg(file.path()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}
