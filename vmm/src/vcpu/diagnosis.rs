//! Says in one line why KVM cannot run a guest any further, and what to do.

use std::{fmt, io};

use kvm_bindings::{KVM_INTERNAL_ERROR_EMULATION, KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES};
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::kvm::host::{self, KvmServer};

/// What KVM said.
#[derive(Debug)]
pub(super) enum Cause {
    /// `KVM_EXIT_INTERNAL_ERROR`; the suberror is filled in from the shared page.
    Internal {
        /// `KVM_INTERNAL_ERROR_*`.
        suberror: u32,
        /// The instruction that could not be emulated, as far as KVM told.
        instruction: Vec<u8>,
    },
    /// `KVM_EXIT_FAIL_ENTRY`: the CPU refused to enter the guest.
    FailEntry(u64),
    /// An exit that no guest of rvmm can cause on a sound host.
    Unexpected(String),
    /// `KVM_RUN` itself failed.
    Run(io::Error),
}

impl Cause {
    pub(super) fn from_exit(exit: &VcpuExit<'_>) -> Self {
        match exit {
            VcpuExit::InternalError => Self::Internal { suberror: 0, instruction: Vec::new() },
            VcpuExit::FailEntry(reason, _) => Self::FailEntry(*reason),
            other => Self::Unexpected(format!("{other:?}")),
        }
    }
}

/// Why a vCPU cannot go on.
#[derive(Debug)]
pub struct Diagnosis {
    vcpu: u32,
    cause: Cause,
    /// Instruction pointer, where KVM could still tell it.
    rip: Option<u64>,
    server: KvmServer,
    memory: Memory,
}

/// What became of the file behind guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// It is as long as it was, or there is none.
    Whole,
    /// It is shorter than guest memory.
    Cut,
}

impl Diagnosis {
    /// Looks at the vCPU right after the exit.
    #[cold]
    pub(super) fn new(fd: &mut VcpuFd, vcpu: u32, mut cause: Cause) -> Self {
        if let Cause::Internal { suberror, instruction } = &mut cause {
            (*suberror, *instruction) = internal_error(fd);
        }
        let rip = fd.get_regs().ok().map(|regs| regs.rip);
        Self { vcpu, cause, rip, server: host::served_by(), memory: Memory::Whole }
    }

    /// The file behind guest memory was found like this.
    pub(crate) fn found_memory(&mut self, memory: Memory) {
        self.memory = memory;
    }
}

/// The suberror and, where KVM gives them, the bytes of the instruction (KVM API, 5, `emulation_failure`).
#[expect(unsafe_code, reason = "reads the union that describes the last exit")]
fn internal_error(fd: &mut VcpuFd) -> (u32, Vec<u8>) {
    let run = fd.get_kvm_run();
    // SAFETY: the exit reason was KVM_EXIT_INTERNAL_ERROR, so KVM filled in `internal`, which `emulation_failure`
    // describes more closely; both are plain integers, valid for any content.
    let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
    // SAFETY: as above; a union of one struct of integers.
    let bytes = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
    let has_bytes = failure.suberror == KVM_INTERNAL_ERROR_EMULATION
        && failure.ndata >= 3
        && failure.flags & u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
    let len = if has_bytes { usize::from(bytes.insn_size) } else { 0 };
    (failure.suberror, bytes.insn_bytes.iter().take(len).copied().collect())
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KVM cannot run the guest any further: vCPU {}", self.vcpu)?;
        if let Some(rip) = self.rip {
            write!(f, " at {rip:#x}")?;
        }
        match &self.cause {
            Cause::Internal { suberror: KVM_INTERNAL_ERROR_EMULATION, instruction } => {
                f.write_str(": it cannot emulate the instruction")?;
                instruction.iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
                f.write_str(" (KVM_EXIT_INTERNAL_ERROR, suberror 1)")?;
            }
            Cause::Internal { suberror, .. } => write!(f, ": KVM_EXIT_INTERNAL_ERROR, suberror {suberror}")?,
            Cause::FailEntry(reason) => {
                write!(f, ": the CPU refuses to enter the guest, reason {reason:#x}")?;
            }
            Cause::Unexpected(exit) => write!(f, ": unexpected exit {exit}")?,
            Cause::Run(error) => write!(f, ": KVM_RUN: {error}")?,
        }
        match (&self.cause, self.memory) {
            (_, Memory::Cut) => f.write_str(
                "; the file behind its memory was cut while the VM runs from it: leave the memory of a snapshot as it is as \
                 long as VMs run from it, and restore from a copy that is whole",
            ),
            (Cause::Run(error), Memory::Whole) if error.raw_os_error() == Some(libc::EFAULT) => f.write_str(
                "; the host cannot provide a page of its memory: it has no memory or huge page left, or cannot read the file \
                 behind it; the host's kernel log says more",
            ),
            _ => write!(f, "; KVM is served by {}: {}", self.server, self.server.advice()),
        }
    }
}

impl std::error::Error for Diagnosis {}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(cause: Cause, memory: Memory) -> String {
        Diagnosis { vcpu: 1, cause, rip: Some(0x1000), server: KvmServer::Intel, memory }.to_string()
    }

    #[test]
    fn memory_that_the_host_does_not_provide_is_not_blamed_on_its_kernel() {
        let run = |errno| Cause::Run(io::Error::from_raw_os_error(errno));
        let advice = KvmServer::Intel.advice();
        let internal = || Cause::Internal { suberror: 1, instruction: vec![0x0f] };
        for cause in [run(libc::EFAULT), internal()] {
            let text = said(cause, Memory::Cut);
            assert!(text.contains("file behind its memory was cut") && !text.contains(advice), "{text}");
        }
        let text = said(run(libc::EFAULT), Memory::Whole);
        assert!(text.contains("cannot provide a page") && !text.contains(advice), "{text}");
        for cause in [run(libc::EIO), internal()] {
            assert!(said(cause, Memory::Whole).ends_with(advice));
        }
    }
}
