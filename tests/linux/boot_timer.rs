//! The boot timer, told by a program.

use super::{Guest, require_linux_guests};

#[test]
fn a_program_tells_the_boot_timer_that_the_guest_has_booted() {
    require_linux_guests!();
    for transport in ["pci", "mmio"] {
        let guest = Guest::debian("6_12").args(["--boot-timer", "--transport", transport]);
        // The devices are found as well: with virtio-mmio they have made room.
        let ended =
            guest.running("busybox devmem 0xc0000000 8 123; cat /sys/class/misc/hw_random/rng_current").run();
        assert_eq!((ended.code(), ended.stderr.lines().count()), (0, 1), "{ended:#?}");
        assert!(ended.stderr.contains("Guest-boot-time ="), "{ended:#?}");
        assert!(ended.stdout.contains("virtio_rng"), "{ended:#?}");
    }
}
