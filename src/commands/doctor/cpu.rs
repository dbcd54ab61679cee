//! The processor, and its virtualization.

use vmm::kvm::host::{HostCpu, KvmServer};

use super::report::Check;

pub(super) fn checks(cpu: &HostCpu, server: &KvmServer) -> Vec<Check> {
    vec![Check::ok("processor", model(cpu)), virtualization(cpu, server), nested()]
}

fn model(cpu: &HostCpu) -> String {
    let guest = if cpu.hypervisor { ", of a host that is itself a virtual machine" } else { "" };
    match (cpu.model.as_str(), cpu.vendor.as_str()) {
        ("", "") => "unknown: /proc/cpuinfo does not tell".to_owned(),
        (model, vendor) => format!("{model} ({vendor}){guest}"),
    }
}

fn virtualization(cpu: &HostCpu, server: &KvmServer) -> Check {
    const NAME: &str = "hardware virtualization";
    let here = match cpu {
        HostCpu { vmx: true, .. } => Some(("Intel VT-x (vmx)", "kvm_intel")),
        HostCpu { svm: true, .. } => Some(("AMD-V (svm)", "kvm_amd")),
        _ => None,
    };
    match (here, server) {
        (Some((name, module)), KvmServer::Pvm) => Check::limited(
            NAME,
            format!("{name}, but KVM is served by kvm_pvm, which does not use it: {PVM}"),
        )
        .mend(format!("sudo modprobe -r kvm_pvm && sudo modprobe {module}")),
        (Some((name, _)), _) => Check::ok(NAME, name),
        (None, KvmServer::Pvm) => {
            Check::limited(NAME, format!("neither vmx nor svm, and KVM is served by kvm_pvm: {PVM}"))
                .mend(switch_on(cpu))
        }
        (None, KvmServer::Unknown) => {
            Check::missing(NAME, "neither vmx nor svm, so KVM has nothing to run guests with")
                .mend(switch_on(cpu))
        }
        (None, server) => Check::limited(
            NAME,
            format!("neither vmx nor svm: whether a Linux guest boots is up to {server}"),
        )
        .mend(switch_on(cpu)),
    }
}

const PVM: &str =
    "a guest's kernel code is emulated, so small guests run and an ordinary Linux guest does not boot";

fn switch_on(cpu: &HostCpu) -> String {
    let mend = if cpu.hypervisor {
        "have whoever runs this virtual machine allow nested virtualization in it, or use a bare-metal host"
    } else {
        "enable it in the firmware's setup (VT-x, AMD-V or SVM mode)"
    };
    format!(
        "{mend}; until then, resources/emulated-host COMMAND (in rvmm's sources) runs a command where Linux guests boot"
    )
}

/// What the host's `nested` parameter says does not matter: `cpu/cpuid.rs` of the `vmm` crate masks both.
fn nested() -> Check {
    Check::limited("VMs in guests", "none: rvmm does not show guests VMX or SVM, whatever the host has")
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    fn status(flags: &str, server: &KvmServer) -> Status {
        virtualization(&HostCpu::parse(&format!("flags : {flags}\n")), server).status
    }

    #[test]
    fn virtualization_is_vmx_or_svm() {
        assert_eq!(status("fpu vmx", &KvmServer::Unknown), Status::Ok);
        assert_eq!(status("fpu svm", &KvmServer::Amd), Status::Ok);
        assert_eq!(status("fpu", &KvmServer::Unknown), Status::Missing);
        assert_eq!(status("fpu", &KvmServer::Other("kvm_x".to_owned())), Status::Limited);
    }

    #[test]
    fn pvm_says_that_linux_does_not_boot_and_where_it_does() {
        let check = virtualization(&HostCpu::parse("flags : fpu hypervisor\n"), &KvmServer::Pvm);
        assert_eq!(check.status, Status::Limited);
        assert!(check.finding.contains("an ordinary Linux guest does not boot"));
        let mend = check.mend.unwrap();
        assert!(mend.contains("nested virtualization") && mend.contains("resources/emulated-host"), "{mend}");
        let idle = virtualization(&HostCpu::parse("flags : svm\n"), &KvmServer::Pvm);
        assert_eq!(idle.mend.as_deref(), Some("sudo modprobe -r kvm_pvm && sudo modprobe kvm_amd"));
    }

    #[test]
    fn no_host_has_guests_run_vms_of_their_own() {
        for flags in ["fpu vmx", "fpu svm", "fpu"] {
            let cpu = HostCpu::parse(&format!("flags : {flags}\n"));
            let all = checks(&cpu, &KvmServer::Intel);
            let nested = all.iter().find(|check| check.name == "VMs in guests").unwrap();
            assert_eq!((nested.status, nested.mend.as_deref()), (Status::Limited, None));
            assert!(nested.finding.contains("does not show guests VMX or SVM"));
        }
    }
}
