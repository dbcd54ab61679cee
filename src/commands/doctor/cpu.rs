//! The processor: its virtualization, and whether a guest can have it in turn.

use vmm::kvm::host::{HostCpu, KvmServer};

use super::read;
use super::report::Check;

pub(super) fn checks(cpu: &HostCpu, server: &KvmServer) -> Vec<Check> {
    let mut checks = vec![Check::ok("processor", model(cpu)), virtualization(cpu, server)];
    if let (true, Some(module)) = (server.is_hardware(), server.module()) {
        let parameter = read(&format!("/sys/module/{module}/parameters/nested"));
        checks.push(nested(module, parameter.as_deref()));
    }
    checks
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

fn nested(module: &str, parameter: Option<&str>) -> Check {
    const NAME: &str = "nested virtualization";
    match parameter {
        Some("Y" | "1") => Check::ok(NAME, "guests can run VMs of their own"),
        _ => Check::limited(NAME, "off: guests can't run VMs of their own").mend(format!(
            "echo 'options {module} nested=1' | sudo tee /etc/modprobe.d/kvm-nested.conf, and boot again"
        )),
    }
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
    fn nesting_is_a_parameter_of_the_module() {
        assert_eq!(nested("kvm_intel", Some("Y")).status, Status::Ok);
        assert_eq!(nested("kvm_amd", Some("1")).status, Status::Ok);
        let off = nested("kvm_amd", Some("0"));
        assert!(off.mend.unwrap().contains("options kvm_amd nested=1"));
    }
}
