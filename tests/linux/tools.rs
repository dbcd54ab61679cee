//! The root file system with the tools that other tests and the I/O benchmark use.

use super::{Guest, require_linux_guests};
use crate::support::disk::Disk;

#[test]
fn the_tools_run_in_a_guest() {
    require_linux_guests!();
    let disk = Disk::new(4096, "");
    let report = Guest::debian("6_12").tools_root().disk(&disk.path(), "").run(
        "blockload /dev/vdb write sequential 64k 8 9 40 && blockload /dev/vdb read random 4k 1 9 10 && \
         iperf3 --version && socat -V | grep VSOCK && ls /dev/vsock",
    );
    assert!(disk.content().iter().all(|byte| *byte == 0x5a), "the whole disk has been written");
    assert_eq!(report.text().matches("\"iops\": ").count(), 2, "{}", report.text());
    assert!(report.text().contains("iperf 3."), "{}", report.text());
    report.assert_line("/dev/vsock");
}
