//! `rvmm bench compare` with VMs.

use skip::{Capability, has_program};

use super::{require_linux_guests, resource};
use crate::bench::contender;
use crate::support::bench::Bench;

/// The names of those that are compared, and the arguments that they need.
fn vms(measure: &str) -> String {
    let qemu = if has_program(Capability::Programs, "qemu-system-x86_64") { ",qemu" } else { "" };
    let kernel = resource("RVMM_KERNEL_SMALL");
    format!(
        "--only rvmm-restored,rvmm{qemu} --measure {measure} --runs 1 --timeout 120 --kernel {}",
        kernel.display()
    )
}

#[test]
fn vms_are_compared_and_leave_nothing_behind() {
    require_linux_guests!();
    let bench = Bench::new();
    let results = bench.run(bench.compare(&vms("start,memory")));
    for one in results["contenders"].as_array().unwrap() {
        assert_eq!(one["errors"], serde_json::json!([]), "{one:#}");
        assert_eq!(one["start"].as_array().unwrap().len(), 1, "{one:#}");
        let [total, guest] = ["total", "guest"].map(|part| one["memory"][part].as_u64().unwrap());
        assert!(guest > 1 << 20 && guest < total, "{one:#}");
    }
    let parts = &contender(&results, "rvmm")["start"][0]["parts"];
    assert!(parts["kernel"].as_f64().unwrap() > 0.0, "{results:#}");
    assert!(contender(&results, "rvmm-restored")["start"][0]["parts"].is_null(), "{results:#}");
}

#[test]
fn a_comparison_that_ends_early_ends_its_vm() {
    require_linux_guests!();
    let bench = Bench::new();
    let comparison = bench.launch(bench.compare(&vms("memory")));
    let folder = comparison.folder.clone();
    comparison.wait_for_process(|line| line.contains(" restore "));
    comparison.signal(libc::SIGTERM);
    assert_eq!(comparison.end().code(), Some(143));
    bench.assert_nothing_left(&folder);
}
