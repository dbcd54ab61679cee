//! Whether this host has KVM, and who serves it.

use std::fs;

use skip::Capability;

/// Returns from a test that can't run on this host, which is reported as skipped.
macro_rules! require_kvm {
    () => {
        if !$crate::support::kvm::usable() {
            return;
        }
    };
}
pub(crate) use require_kvm;

/// Whether `/dev/kvm` can be used; if not, the running test is skipped.
#[track_caller]
pub(crate) fn usable() -> bool {
    let kvm = fs::File::options().read(true).write(true).open("/dev/kvm");
    skip::available(Capability::Kvm, kvm.map_err(|error| format!("/dev/kvm: {error}"))).is_some()
}

/// Whether the CPU itself runs guests here, not KVM's instruction emulator.
pub(crate) fn has_hardware_virtualization() -> bool {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
    cpuinfo.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}
