//! Saving paused vCPUs: each is read by its own thread, which KVM serves without moving the vCPU to another CPU.

use std::sync::Arc;
use std::sync::PoisonError;

use super::state::{Extent, VcpuStateV1};
use super::{Exit, KICK_INTERVAL, Ran, Shared, Vcpu, VcpuHandle, Wanted, lock};
use crate::kvm::{Host, KvmError};

/// Exits that finishing one exit can give: a string instruction to a port or device goes on for 1024 steps at most before
/// KVM looks whether to stop, and a step can have two parts.
const MAX_FURTHER_EXITS: usize = 4096;

/// Why a vCPU could not be saved. The guest can go on all the same.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// It is not paused.
    #[error("vCPU {0} is not paused")]
    Running(u32),
    /// The guest powered off, reset or failed, as its vCPU finished what it was doing.
    #[error("the guest has ended: vCPU {0} does not run any more")]
    Ended(u32),
    /// It is in the middle of an instruction that does not come to its end.
    #[error("vCPU {0} is in the middle of a long access to a device: try again")]
    Unfinished(u32),
    /// KVM refused something.
    #[error("vCPU {id}")]
    Kvm {
        /// The vCPU.
        id: u32,
        /// What it refused.
        #[source]
        source: KvmError,
    },
}

/// What a paused vCPU's thread is asked to do.
pub(super) type Job = Arc<Extent>;
/// What becomes of it.
pub(super) type Answer = Result<Box<VcpuStateV1>, SaveError>;

impl Vcpu {
    /// Has KVM complete the instruction whose exit was answered last: only then do the registers say where the guest is.
    /// What it asks of devices meanwhile is answered as usual. `None` when the guest has ended by that.
    pub(super) fn complete_exit(&mut self) -> Option<Exit> {
        for _ in 0..MAX_FURTHER_EXITS {
            self.fd.set_kvm_immediate_exit(1);
            let ran = self.run_once();
            self.fd.set_kvm_immediate_exit(0);
            match ran {
                Ran::Answered => {}
                // KVM looks whether it is to leave at once when the instruction is complete, and not before.
                Ran::Interrupted => return Some(Exit::Complete),
                Ran::Ended(event) => {
                    self.events.report(event);
                    return None;
                }
            }
        }
        Some(Exit::Answered)
    }

    /// Reads the vCPU, whose last exit is as far as `exit` says.
    ///
    /// A function of its own: with what it reads, the loop's frame would be pages that are touched before the guest runs.
    #[inline(never)]
    pub(super) fn save(&self, exit: Exit, extent: &Extent) -> Answer {
        if exit != Exit::Complete {
            return Err(SaveError::Unfinished(self.id));
        }
        let read = VcpuStateV1::read(&self.fd, self.id, self.cpuid.as_slice(), extent);
        read.map(Box::new).map_err(|source| SaveError::Kvm { id: self.id, source })
    }
}

impl VcpuHandle {
    /// Reads `vcpus`, which are all [paused](Self::pause), and stay so.
    ///
    /// # Errors
    /// [`SaveError`]; the guest can be resumed as if nothing had been asked.
    pub fn save(vcpus: &[Self], host: &Host) -> Result<Vec<VcpuStateV1>, SaveError> {
        let extent = Extent::of(host).map_err(|source| SaveError::Kvm { id: 0, source })?;
        let extent = Arc::new(extent);
        for (id, vcpu) in (0..).zip(vcpus) {
            vcpu.shared.ask(id, &extent)?;
        }
        // All are waited for, also behind one that fails: none is to be found at work later.
        let answers: Vec<Answer> = (0..).zip(vcpus).map(|(id, vcpu)| vcpu.wait_for_answer(id)).collect();
        answers.into_iter().map(|answer| answer.map(|state| *state)).collect()
    }

    fn wait_for_answer(&self, id: u32) -> Answer {
        let mut state = lock(&self.shared.state);
        loop {
            if let Some(answer) = state.answer.take() {
                return answer;
            }
            if state.ended || self.thread.is_gone() {
                return Err(SaveError::Ended(id));
            }
            // A thread that ended without an answer does not wake anybody.
            let waited = self.shared.changed.wait_timeout(state, KICK_INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn ask(&self, id: u32, job: &Job) -> Result<(), SaveError> {
        let mut state = lock(&self.state);
        if state.wanted != Wanted::Pause || !state.parked {
            return Err(SaveError::Running(id));
        }
        state.job = Some(Arc::clone(job));
        state.answer = None;
        self.changed.notify_all();
        Ok(())
    }
}
