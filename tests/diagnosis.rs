//! Guests that KVM can't run: one line says why, and what to do.

use crate::support::kvm::{has_hardware_virtualization, require_kvm};
use crate::support::{Ended, Rvmm};

/// The line names an address near the start of the guest, in hexadecimal.
fn assert_names_who_and_where(ended: &Ended, address: &str) {
    let server = if has_hardware_virtualization() { "kvm_" } else { "PVM" };
    ended.assert_complaint(&["KVM", "vCPU 0", address]);
    let line = ended.stderr.to_lowercase();
    assert!(line.contains(&server.to_lowercase()), "who serves KVM: {}", ended.stderr);
}

#[test]
fn a_guest_that_runs_off_into_a_device_gap_is_diagnosed() {
    require_kvm!();
    let ended = Rvmm::guest("execute-device").run();
    assert_eq!((ended.code(), ended.stdout.as_str()), (1, "jumping\n"), "{ended:#?}");
    assert_names_who_and_where(&ended, "0xd0000000");
}

#[test]
fn an_instruction_that_kvm_cannot_emulate_is_diagnosed_with_its_bytes() {
    require_kvm!();
    let ended = Rvmm::guest("popcnt").run();
    assert_eq!((ended.code(), ended.stdout.as_str()), (1, "before\n"), "{ended:#?}");
    assert_names_who_and_where(&ended, "0x1000");
    ended.assert_complaint(&["f3 0f b8 1d 00 00 00 d0"]);
    // What to do: a line that only complains is no diagnosis.
    let advice = if has_hardware_virtualization() { "another guest kernel" } else { "VMX or SVM" };
    ended.assert_complaint(&[advice]);
}

#[test]
fn a_diagnosed_guest_is_not_restarted() {
    require_kvm!();
    let ended = Rvmm::guest("execute-device").args(["--on-reset", "restart"]).run();
    assert_eq!((ended.code(), ended.stdout.as_str()), (1, "jumping\n"), "{ended:#?}");
}
