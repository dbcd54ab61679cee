//! `/dev/kvm`: whether it opens, who serves it, and what it offers.

use vmm::kvm::host::{HostCpu, KvmServer};
use vmm::kvm::probe::{self, Capability, KvmProbe};

use super::device_file::{self, Opening};
use super::report::Check;

const DEVICE: &str = "/dev/kvm";

pub(super) fn checks(cpu: &HostCpu, server: &KvmServer) -> Vec<Check> {
    let opening = device_file::open(DEVICE);
    let opened = opening == Opening::Opened;
    let mut checks = vec![device(opening, cpu, server)];
    if opened {
        match probe::probe() {
            Ok(probe) => checks.extend(answers(&probe)),
            Err(error) => checks.push(Check::missing("kvm api", error.to_string()).required()),
        }
    }
    checks
}

fn device(opening: Opening, cpu: &HostCpu, server: &KvmServer) -> Check {
    match opening {
        Opening::Opened => Check::ok(DEVICE, format!("opens; served by {server}")),
        Opening::Absent => {
            Check::missing(DEVICE, "does not exist, so no VM runs").mend(make_device(cpu, server))
        }
        Opening::Denied { mend } => {
            Check::missing(DEVICE, "this user may not open it for reading and writing, so no VM runs")
                .mend(mend)
        }
        Opening::Failed(error) => Check::missing(DEVICE, format!("can't be opened: {error}")),
    }
    .required()
}

fn make_device(cpu: &HostCpu, server: &KvmServer) -> String {
    let load = match (server, cpu) {
        (KvmServer::Unknown, HostCpu { vmx: true, .. }) => "sudo modprobe kvm_intel",
        (KvmServer::Unknown, HostCpu { svm: true, .. }) => "sudo modprobe kvm_amd",
        (KvmServer::Unknown, _) => "a host with hardware virtualization, see above",
        // The module is there and only its file is not.
        _ => "sudo mknod -m 660 /dev/kvm c 10 232",
    };
    format!("{load}; in a container, start it with --device /dev/kvm")
}

fn answers(probe: &KvmProbe) -> Vec<Check> {
    let mut checks = vec![api(probe.api_version)];
    checks.push(match &probe.vm {
        Ok(()) => Check::ok("kvm vm", format!("an empty VM can be made; up to {} vCPUs", probe.max_vcpus)),
        Err(error) => Check::missing("kvm vm", format!("KVM_CREATE_VM fails: {error}"))
            .mend("sudo dmesg | grep -i kvm; another hypervisor (VirtualBox, VMware) may hold the processor")
            .required(),
    });
    checks.push(required_capabilities(&probe.capabilities));
    checks.extend(lost_capabilities(&probe.capabilities));
    checks
}

fn api(version: i32) -> Check {
    if version == probe::API_VERSION {
        Check::ok("kvm api", format!("version {version}"))
    } else {
        let expected = probe::API_VERSION;
        Check::missing("kvm api", format!("version {version}; rvmm knows {expected} only")).required()
    }
}

fn required_capabilities(capabilities: &[Capability]) -> Check {
    const NAME: &str = "kvm capabilities";
    let required = capabilities.iter().filter(|capability| capability.loss.is_none());
    let (there, absent): (Vec<_>, Vec<_>) = required.partition(|capability| capability.available);
    if absent.is_empty() {
        Check::ok(NAME, format!("all {} that every VM needs", there.len()))
    } else {
        let names: Vec<_> = absent.iter().map(|capability| capability.name).collect();
        Check::missing(NAME, format!("no VM runs without {}", names.join(", ")))
            .mend("a newer kernel, or one with the KVM options of its distribution")
            .required()
    }
}

fn lost_capabilities(capabilities: &[Capability]) -> impl Iterator<Item = Check> {
    capabilities.iter().filter(|capability| !capability.available).filter_map(|capability| {
        let loss = capability.loss?;
        Some(Check::missing(capability.name, loss))
    })
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    const NO_CPU: KvmServer = KvmServer::Unknown;

    fn capability(name: &'static str, loss: Option<&'static str>, available: bool) -> Capability {
        Capability { name, loss, available }
    }

    #[test]
    fn an_absent_device_is_mended_by_the_module_of_the_processor() {
        let mend = |flags| {
            let check = device(Opening::Absent, &HostCpu::parse(&format!("flags : {flags}\n")), &NO_CPU);
            assert!(check.required && check.status == Status::Missing);
            check.mend.unwrap()
        };
        assert!(mend("vmx").starts_with("sudo modprobe kvm_intel"));
        assert!(mend("svm").starts_with("sudo modprobe kvm_amd"));
        assert!(mend("fpu").contains("hardware virtualization"));
        assert!(make_device(&HostCpu::default(), &KvmServer::Pvm).contains("mknod"));
    }

    #[test]
    fn missing_rights_keep_the_mend() {
        let opening = Opening::Denied { mend: "join".to_owned() };
        let check = device(opening, &HostCpu::default(), &KvmServer::Intel);
        assert_eq!((check.status, check.mend.as_deref()), (Status::Missing, Some("join")));
    }

    #[test]
    fn only_one_version_of_the_api_will_do() {
        assert_eq!(api(12).status, Status::Ok);
        assert!(api(11).required);
    }

    #[test]
    fn capabilities_are_named_when_absent() {
        let capabilities = [
            capability("KVM_CAP_IRQFD", None, false),
            capability("KVM_CAP_USER_MEMORY", None, true),
            capability("KVM_CAP_SIGNAL_MSI", Some("no MSI"), false),
        ];
        let required = required_capabilities(&capabilities);
        assert!(required.required && required.finding.ends_with("without KVM_CAP_IRQFD"));
        let lost: Vec<_> = lost_capabilities(&capabilities).collect();
        assert_eq!(lost, [Check::missing("KVM_CAP_SIGNAL_MSI", "no MSI")]);
        assert_eq!(required_capabilities(&capabilities[1..]).status, Status::Ok);
    }
}
