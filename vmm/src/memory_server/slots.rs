//! How many VMs are served at a time, in all and for each process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Shared;

/// VMs that are served at a time. Each takes a thread and two of 1024 descriptors.
pub(super) const MAX_VMS: usize = 400;
/// Connections of one process, which has one VM: more would take the place of others.
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
}

/// Takes a place for a VM of process `pid`, unless that process has too many. It is not known in another PID namespace.
pub(super) fn take(shared: &Arc<Shared>, pid: Option<u32>) -> Option<Slot> {
    let mut slots = shared.slots.lock();
    let count = slots.entry(pid).or_default();
    if pid.is_some() && *count == MAX_PER_PROCESS {
        return None;
    }
    *count += 1;
    Some(Slot { shared: Arc::clone(shared), pid })
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
