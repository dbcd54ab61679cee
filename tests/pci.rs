//! Devices on a PCI bus, as bare guests find and drive them.

use crate::support::Rvmm;
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;

#[test]
fn a_guest_finds_a_disk_on_the_bus_and_is_interrupted_by_messages() {
    require_kvm!();
    let disk = Disk::new(16, "sector zero here");
    let done = |interrupts| format!("status 00000000 interrupts 0000000{interrupts} data sector zero here");
    let expected = [
        "vector 00000001".to_owned(),
        "sectors 00000010".to_owned(),
        format!("read {}", done(1)),
        format!("masked {} pending 00000002", done(1)),
        format!("unmasked {}", done(2)),
    ];
    // Notified in ports and in memory.
    for guest in ["virtio-pci", "virtio-pci-memory"] {
        let ended = Rvmm::pci_guest(guest).disk(&disk.path(), "").run();
        ended.assert_clean();
        assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), expected, "{guest}");
    }
}

#[test]
fn a_guest_that_writes_anything_anywhere_on_the_bus_harms_nobody_else() {
    require_kvm!();
    let disk = Disk::new(16, "sector zero here");
    let before = disk.content();
    let ended = Rvmm::pci_guest("pci-hostile").disk(&disk.path(), ",readonly").run();
    ended.assert_clean();
    let expected = ["function", "bus", "memory", "ports", "moves", "read status 00000000", "end"];
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), expected);
    assert_eq!(disk.content(), before);
}

#[test]
fn a_guest_of_virtio_mmio_finds_nothing_when_devices_are_on_the_bus() {
    require_kvm!();
    let ended = Rvmm::pci_guest("virtio-rng").run();
    ended.assert_clean();
    assert_eq!(ended.stdout, "no such device\n");
}
