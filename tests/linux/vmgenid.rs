//! The VM generation ID, by which a guest's kernel learns that it is a clone.

use super::guest::COMPLAINTS;
use super::{Guest, require_linux_guests};

#[test]
fn the_kernel_finds_its_generation_id_and_waits_for_another() {
    require_linux_guests!();
    for guest in [Guest::small().shared_root(), Guest::debian("6_12").shared_root()] {
        let report = guest.run(&format!(
            "echo bound $(ls /sys/bus/*/drivers/vmgenid | grep -c RVMM0001); \
             echo interrupts $(grep -c 'IO-APIC *3-edge *ACPI:Ged' /proc/interrupts); {COMPLAINTS}"
        ));
        report.assert_no_complaints();
        assert_eq!(report.value("bound"), "1", "{}", report.text());
        assert_eq!(report.value("interrupts"), "1", "{}", report.text());
    }
}
