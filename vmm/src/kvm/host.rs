//! Which kernel module serves `/dev/kvm`, and on which processor. A VM that will not run is explained by these two.

use std::fmt;
use std::fs;

/// The module behind `/dev/kvm`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KvmServer {
    /// `kvm_intel`: VMX.
    Intel,
    /// `kvm_amd`: SVM.
    Amd,
    /// `kvm_pvm`: no hardware virtualization; the guest's kernel code is emulated.
    Pvm,
    /// Another module that registers with KVM, by name.
    Other(String),
    /// No such module is loaded, or sysfs does not show it.
    Unknown,
}

impl KvmServer {
    /// Name of the module, if one is known.
    pub fn module(&self) -> Option<&str> {
        match self {
            Self::Intel => Some("kvm_intel"),
            Self::Amd => Some("kvm_amd"),
            Self::Pvm => Some("kvm_pvm"),
            Self::Other(module) => Some(module),
            Self::Unknown => None,
        }
    }

    /// Whether guests run by hardware virtualization, so that an ordinary Linux guest boots.
    pub fn is_hardware(&self) -> bool {
        matches!(self, Self::Intel | Self::Amd)
    }

    /// What to do about a guest that does not run here, in one sentence.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Pvm => {
                "it has no hardware virtualization and emulates the guest's kernel, so that ordinary Linux kernels do not \
                 run; use a host with VMX or SVM, or the emulated KVM host (resources/emulated-host); see rvmm doctor"
            }
            Self::Intel | Self::Amd => {
                "try the host's latest kernel and another guest kernel, and report it with the line above"
            }
            Self::Other(_) | Self::Unknown => "use a host with VMX or SVM; see rvmm doctor",
        }
    }

    /// Chooses among the loaded modules. A kernel with both vendors' built in shows both; the processor decides then.
    fn among(modules: &[String], cpu: &HostCpu) -> Self {
        let has = |name: &str| modules.iter().any(|module| module == name);
        if has("kvm_intel") && (cpu.vmx || !has("kvm_amd") && !has("kvm_pvm")) {
            Self::Intel
        } else if has("kvm_amd") && (cpu.svm || !has("kvm_pvm")) {
            Self::Amd
        } else if has("kvm_pvm") {
            Self::Pvm
        } else {
            let other = modules.iter().find(|module| module.starts_with("kvm_"));
            other.map_or(Self::Unknown, |module| Self::Other(module.clone()))
        }
    }
}

impl fmt::Display for KvmServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.module().unwrap_or("an unknown module"))
    }
}

/// Finds the module that serves `/dev/kvm` from `/sys/module` and `/proc/cpuinfo`.
pub fn served_by() -> KvmServer {
    let modules: Vec<String> = fs::read_dir("/sys/module")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    KvmServer::among(&modules, &HostCpu::read())
}

/// What `/proc/cpuinfo` says about the first processor.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HostCpu {
    /// `vendor_id`, such as `GenuineIntel`.
    pub vendor: String,
    /// `model name`.
    pub model: String,
    /// Intel's virtualization.
    pub vmx: bool,
    /// AMD's virtualization.
    pub svm: bool,
    /// The host is itself a guest.
    pub hypervisor: bool,
}

impl HostCpu {
    /// Reads `/proc/cpuinfo`; what can't be read is empty and false.
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }

    /// Reads text in the format of `/proc/cpuinfo`, up to the end of the first processor.
    pub fn parse(cpuinfo: &str) -> Self {
        let mut cpu = Self::default();
        for line in cpuinfo.lines().take_while(|line| !line.trim().is_empty()) {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match key.trim() {
                "vendor_id" => value.clone_into(&mut cpu.vendor),
                "model name" => value.clone_into(&mut cpu.model),
                "flags" => {
                    for flag in value.split_ascii_whitespace() {
                        match flag {
                            "vmx" => cpu.vmx = true,
                            "svm" => cpu.svm = true,
                            "hypervisor" => cpu.hypervisor = true,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        cpu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(modules: &[&str], flags: &str) -> KvmServer {
        let modules: Vec<String> = modules.iter().map(ToString::to_string).collect();
        KvmServer::among(&modules, &HostCpu::parse(&format!("flags : {flags}\n")))
    }

    #[test]
    fn the_loaded_module_serves_kvm() {
        assert_eq!(among(&["kvm", "kvm_intel", "loop"], "fpu vmx"), KvmServer::Intel);
        assert_eq!(among(&["kvm", "kvm_amd"], "fpu svm"), KvmServer::Amd);
        assert_eq!(among(&["kvm", "kvm_pvm"], "fpu"), KvmServer::Pvm);
        assert_eq!(among(&["kvm", "kvm_mshv"], "fpu"), KvmServer::Other("kvm_mshv".to_owned()));
        assert_eq!(among(&["kvm", "loop"], "fpu"), KvmServer::Unknown);
    }

    #[test]
    fn of_two_modules_the_one_that_fits_the_processor_serves_kvm() {
        assert_eq!(among(&["kvm_amd", "kvm_intel"], "vmx"), KvmServer::Intel);
        assert_eq!(among(&["kvm_amd", "kvm_intel"], "svm"), KvmServer::Amd);
        assert_eq!(among(&["kvm_amd", "kvm_intel", "kvm_pvm"], "fpu"), KvmServer::Pvm);
    }

    #[test]
    fn the_first_processor_is_read() {
        let cpu = HostCpu::parse(
            "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu svm hypervisor\n\
             \nprocessor\t: 1\nflags\t\t: vmx\n",
        );
        assert_eq!(
            cpu,
            HostCpu {
                vendor: "AuthenticAMD".to_owned(),
                model: "AMD EPYC".to_owned(),
                vmx: false,
                svm: true,
                hypervisor: true,
            }
        );
    }

    #[test]
    fn a_flag_is_a_whole_word() {
        assert!(!HostCpu::parse("flags : vmx_like svm_lock\n").vmx);
    }
}
