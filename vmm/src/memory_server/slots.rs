//! How many VMs are served at a time, in all and for each process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Shared;

/// VMs that are served at a time. Each takes a thread and two of 1024 descriptors.
pub(super) const MAX_VMS: usize = 400;
/// Connections of one process that are served. It has one VM: more would take the place of others.
pub(super) const MAX_PER_PROCESS: usize = 8;

/// Which processes are connected, and how often.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<BTreeMap<Option<u32>, usize>>);

impl Slots {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Option<u32>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are taken.
    pub(super) fn count(&self) -> usize {
        self.lock().values().sum()
    }
}

/// The place of a VM. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    shared: Arc<Shared>,
    pid: Option<u32>,
    /// Its process has too many, so this connection is only closed.
    pub(super) is_refused: bool,
}

/// Takes a place for a VM of process `pid`, which is not known in another PID namespace.
pub(super) fn take(shared: &Arc<Shared>, pid: Option<u32>) -> Slot {
    let mut slots = shared.slots.lock();
    let count = slots.entry(pid).or_default();
    let is_refused = pid.is_some() && *count >= MAX_PER_PROCESS;
    *count += 1;
    Slot { shared: Arc::clone(shared), pid, is_refused }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut slots = self.shared.slots.lock();
        if let Some(count) = slots.get_mut(&self.pid) {
            *count -= 1;
            if *count == 0 {
                slots.remove(&self.pid);
            }
        }
        drop(slots);
        self.shared.notify();
    }
}
