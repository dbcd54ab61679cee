//! The entropy device.

use crate::support::Rvmm;
use crate::support::kvm::require_kvm;

#[test]
fn a_guest_gets_random_bytes() {
    require_kvm!();
    let ended = Rvmm::guest("virtio-rng").run();
    ended.assert_clean();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{ended:#?}");
    assert!(lines.iter().all(|line| line.starts_with("entropy ")), "{ended:#?}");
    // Two draws of 64 bits that agree, or are nothing, are no accident.
    assert_ne!(lines[0], lines[1]);
    assert!(!lines.contains(&"entropy 00000000 00000000"), "{ended:#?}");
}
