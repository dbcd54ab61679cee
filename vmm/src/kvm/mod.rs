//! `/dev/kvm`: opening it, asking what it supports, and saying plainly what is wrong with it.

mod cpuid_cache;
pub mod host;
pub(crate) mod irq_line;
pub mod probe;
mod time;
pub(crate) mod vcpu_ioctls;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm, VmFd};

pub(crate) use self::time::timed;
pub use self::time::{Elapsed, WallTime};

/// Why KVM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// There is no /dev/kvm.
    #[error(
        "/dev/kvm is not there: load kvm_intel or kvm_amd, or enable (nested) virtualization; see rvmm doctor"
    )]
    Missing,
    /// No rights.
    #[error(
        "no rights to /dev/kvm: join its group (sudo usermod -aG kvm $USER, then log in again); see rvmm doctor"
    )]
    Denied,
    /// Something else was said when it was opened.
    #[error("cannot open /dev/kvm; see rvmm doctor")]
    Open(#[source] io::Error),
    /// Not the stable API.
    #[error("/dev/kvm speaks API version {0}, rvmm needs {KVM_API_VERSION}")]
    ApiVersion(i32),
    /// An ioctl failed.
    #[error("KVM: {what} failed; see rvmm doctor")]
    Ioctl {
        /// The ioctl.
        what: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// Turns the error of ioctl `what` into a [`KvmError`].
pub(crate) fn failed(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Ioctl { what, source: io::Error::from_raw_os_error(error.errno()) }
}

/// Size of the extended state that every KVM hands out, in bytes (`struct kvm_xsave`).
const XSAVE_SIZE: usize = size_of::<kvm_bindings::kvm_xsave>();

/// An open `/dev/kvm`.
pub struct Host {
    kvm: Kvm,
}

impl Host {
    /// Opens `/dev/kvm` and checks that it speaks the API of the last fifteen years.
    ///
    /// # Errors
    /// [`KvmError`] with the mend.
    pub fn open() -> Result<Self, KvmError> {
        let kvm = Kvm::new().map_err(|error| match error.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmError::Missing,
            libc::EACCES | libc::EPERM => KvmError::Denied,
            errno => KvmError::Open(io::Error::from_raw_os_error(errno)),
        })?;
        match kvm.get_api_version() {
            version if version == probe::API_VERSION => Ok(Self { kvm }),
            version => Err(KvmError::ApiVersion(version)),
        }
    }

    /// Makes an empty VM.
    ///
    /// # Errors
    /// What KVM said.
    pub fn create_vm(&self) -> Result<VmFd, KvmError> {
        loop {
            match self.kvm.create_vm() {
                // A signal arrived while KVM registered its notifier.
                Err(error) if error.errno() == libc::EINTR => {}
                other => return other.map_err(failed("KVM_CREATE_VM")),
            }
        }
    }

    /// What `KVM_GET_SUPPORTED_CPUID` answers. Where CPUID traps the call costs most of a millisecond, so the answer is
    /// kept until the host boots again (see `cpuid_cache.rs`).
    ///
    /// # Errors
    /// What KVM said.
    pub fn supported_cpuid(&self) -> Result<CpuId, KvmError> {
        #[expect(unsafe_code, reason = "lends the descriptor for the time of this call")]
        // SAFETY: `self.kvm` keeps the descriptor open for as long as it is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(self.kvm.as_raw_fd()) };
        cpuid_cache::get_or_ask(fd, || {
            self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(failed("KVM_GET_SUPPORTED_CPUID"))
        })
    }

    /// The model-specific registers that this KVM says are a vCPU's state (`KVM_GET_MSR_INDEX_LIST`).
    ///
    /// # Errors
    /// What KVM said.
    pub fn msr_indices(&self) -> Result<Vec<u32>, KvmError> {
        let list = self.kvm.get_msr_index_list().map_err(failed("KVM_GET_MSR_INDEX_LIST"))?;
        Ok(list.as_slice().to_vec())
    }

    /// Size of a vCPU's extended state as KVM hands it out, in bytes (`KVM_CAP_XSAVE2`): 4096, or more with AMX.
    pub fn xsave_size(&self) -> usize {
        usize::try_from(self.kvm.check_extension_int(Cap::Xsave2)).unwrap_or_default().max(XSAVE_SIZE)
    }

    /// The largest number of vCPUs that this KVM gives one VM.
    pub fn max_vcpus(&self) -> usize {
        self.kvm.get_max_vcpus()
    }
}
