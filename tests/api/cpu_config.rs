//! `PUT /cpu-config`: a CPU template for a VM that has not started.

use serde_json::json;

use crate::support::api::ApiSocket;
use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, bare};

fn leaf(leaf: &str, register: &str, bitmap: &str) -> serde_json::Value {
    json!({"cpuid_modifiers": [{"leaf": leaf, "subleaf": "0x0", "flags": 0,
        "modifiers": [{"register": register, "bitmap": bitmap}]}]})
}

#[test]
fn a_template_is_put_read_back_and_kept_to() {
    require_kvm!();
    let socket = ApiSocket::new();
    let mut running = Rvmm::new().arg("--api-sock").arg(socket.path()).launch();
    let template = json!({
        "kvm_capabilities": ["3", "!56"],
        "cpuid_modifiers": [],
        "msr_modifiers": [{"addr": "0x8b", "bitmap": format!("0b{}", "1".repeat(64))}],
    });
    assert_eq!(socket.get("/vm/config").json()["cpu-config"], json!(null));
    // The last one counts.
    socket.put("/cpu-config", &leaf("0x1", "eax", "0b0")).assert_done();
    socket.put("/cpu-config", &template).assert_done();
    assert_eq!(socket.get("/vm/config").json()["cpu-config"], template);
    let machine = json!({"vcpu_count": 1, "mem_size_mib": 64, "cpu_template": "None"});
    socket.put("/machine-config", &machine).assert_done();
    socket.put("/boot-source", &json!({"kernel_image_path": bare::path("rdmsr")})).assert_done();
    socket.put("/actions", &json!({"action_type": "InstanceStart"})).assert_done();
    running.wait_for("msr 0000008b: ffffffff ffffffff\n");
    running.end().assert_complaint(&["the guest reset itself"]);
}

#[test]
fn a_template_that_cannot_be_kept_to_is_refused_and_another_can_be_put() {
    require_kvm!();
    let socket = ApiSocket::new();
    let running = Rvmm::new().arg("--api-sock").arg(socket.path()).launch();
    let start = || socket.put("/actions", &json!({"action_type": "InstanceStart"}));
    socket.put("/cpu-config", &leaf("12", "eax", "x")).assert_refused("\"12\"");
    socket.put("/cpu-config", &leaf("0x1", "rax", "x")).assert_refused("`rax`");
    socket.put("/cpu-config", &json!({"kvm_capabilities": vec!["1"; 256]})).assert_refused("256");
    let machine = json!({"vcpu_count": 1, "mem_size_mib": 64, "cpu_template": "T2CL"});
    socket.put("/machine-config", &machine).assert_refused("T2CL");
    socket.put("/boot-source", &json!({"kernel_image_path": bare::path("hello")})).assert_done();
    // What KVM has is known when the VM starts.
    socket.put("/cpu-config", &leaf("0x12345", "eax", "x")).assert_done();
    start().assert_refused("leaf 0x12345");
    assert_eq!(socket.get("/").json()["state"], "Not started");
    socket.put("/cpu-config", &json!({})).assert_done();
    start().assert_done();
    assert_eq!(running.end().stdout, "hello, world\n");
}

#[test]
fn a_vm_that_runs_takes_no_template() {
    require_kvm!();
    let socket = ApiSocket::new();
    let mut running = Rvmm::guest("spin-forever").arg("--api-sock").arg(socket.path()).launch();
    running.wait_for("spinning");
    socket.put("/cpu-config", &json!({})).assert_refused("running");
}
