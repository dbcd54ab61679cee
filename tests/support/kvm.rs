//! Whether this host has KVM, and who serves it.

use std::fs;
use std::io::Write;

/// Returns from a test that can't run on this host, after saying so.
macro_rules! require_kvm {
    () => {
        if !$crate::support::kvm::usable() {
            return;
        }
    };
}
pub(crate) use require_kvm;

/// Whether `/dev/kvm` can be used; says that the test is skipped when it can't.
///
/// # Panics
/// When it can't and `RVMM_REQUIRE_KVM` is set.
pub(crate) fn usable() -> bool {
    match fs::File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => true,
        Err(error) => {
            let required = std::env::var_os("RVMM_REQUIRE_KVM").is_some_and(|value| value != "0");
            assert!(!required, "RVMM_REQUIRE_KVM is set, but /dev/kvm: {error}");
            skip(&format!("/dev/kvm: {error}"));
            false
        }
    }
}

/// Says on stderr, past the test harness's capture, that the running test is skipped.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {reason}");
}

/// Whether the CPU itself runs guests here, not KVM's instruction emulator.
pub(crate) fn has_hardware_virtualization() -> bool {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
    cpuinfo.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
}
