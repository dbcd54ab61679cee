//! Devices on the PCI bus, as Linux finds them.

use super::guest::COMPLAINTS;
use super::{Guest, RootImage, require_linux_guests};

/// Debian's kernel of `series` with its devices on the PCI bus.
fn debian(series: &str) -> Guest {
    Guest::debian(series).arg("--transport").arg("pci")
}

#[test]
fn debian_finds_its_disk_and_its_randomness_on_the_bus_and_is_interrupted_by_messages() {
    require_linux_guests!();
    for series in ["6_1", "6_12"] {
        let image = RootImage::new();
        let report = debian(series).cpus(2).root(&image, "").run(&format!(
            "echo cpus $(nproc); echo root $(grep ' / ' /proc/mounts); \
             for i in /sys/bus/pci/devices/*; do \
             echo $(basename $i) $(cat $i/vendor) $(cat $i/device) $(cat $i/class) $(basename $(readlink $i/driver)); done; \
             dd if=/dev/vda of=/dev/null bs=64k count=64 iflag=direct && \
             dd if=/dev/urandom of=/var/noise bs=64k count=16 conv=fsync && \
             echo random $(head -c 16 /dev/hwrng | md5sum) && \
             for i in virtio0-req virtio1-input; do echo $i $(grep $i /proc/interrupts); done; \
             cd /sys/bus/pci/drivers/virtio-pci && echo 0000:00:01.0 >unbind && echo 0000:00:01.0 >bind && cd / && \
             echo again $(head -c 16 /dev/hwrng | md5sum); {COMPLAINTS}"
        ));
        report
            .assert_line("cpus 2")
            .assert_line("0000:00:00.0 0x1af4 0x1042 0x018000 virtio-pci")
            .assert_line("0000:00:01.0 0x1af4 0x1044 0xff0000 virtio-pci")
            .assert_no_complaints();
        assert!(report.value("root").contains(" / ext4 rw,"), "{}", report.text());
        for device in ["virtio0-req", "virtio1-input"] {
            let interrupts: Vec<&str> = report.value(device).split(' ').collect();
            assert!(interrupts.iter().any(|word| word.starts_with("PCI-MSI")), "{interrupts:?}");
            assert!(interrupts[1..3].iter().any(|count| *count != "0"), "{interrupts:?}");
        }
        assert_ne!(report.value("random"), report.value("again"), "after the driver was bound again");
        image.assert_clean();
    }
}

#[test]
fn a_guest_that_restarts_finds_the_bus_as_it_was() {
    require_linux_guests!();
    let image = RootImage::new();
    // The second boot powers off.
    let command =
        "echo $(ls /sys/bus/pci/devices) >>/var/boots; [ $(grep -c 0000 /var/boots) = 2 ] || end reboot";
    let ended = debian("6_12").root(&image, "").arg("--on-reset").arg("restart").running(command).run();
    ended.assert_clean();
    assert_eq!(ended.stdout.matches("rvmm-exit: 0").count(), 1, "{ended:#?}");
    assert_eq!(image.file("/var/boots"), "0000:00:00.0 0000:00:01.0\n".repeat(2));
    image.assert_clean();
}
