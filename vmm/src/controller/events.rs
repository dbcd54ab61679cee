//! What happens to a VM, told to whoever listens.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use devices::rate_limiter::{Budget, TokenBucketConfig};
use serde::Serialize;

use super::request::State;

/// Something that happened. On the wire: `{"event": "state", "state": "Running"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The VM is in this state from now on.
    State {
        /// The state.
        state: State,
    },
    /// The guest powered itself off.
    PowerOff,
    /// The guest reset itself.
    Reset,
    /// The guest boots again, after a reset.
    Restart,
    /// The guest's kernel says that it has panicked.
    Panic,
    /// KVM cannot run the guest any further.
    Fault {
        /// Why.
        message: String,
    },
    /// A virtio device takes nothing more from its driver until that resets it.
    DeviceError {
        /// Its virtio device type (virtio 1.3, 5).
        device_type: u32,
        /// Its address on the bus, as the host counts them.
        device: u32,
        /// Why.
        message: String,
    },
    /// A snapshot was written.
    Snapshot {
        /// Where.
        path: String,
    },
    /// A signal, who sits at the console, a snapshot or a panic ends the VM.
    Terminated,
}

type Listener = Box<dyn Fn(&Event) + Send + Sync>;

/// Events that a guest can make up, as many of them as pass; the rest is not told.
const OF_GUEST: TokenBucketConfig = TokenBucketConfig { size: 32, refill_time: 1000, one_time_burst: None };

/// Where events go.
#[derive(Clone)]
pub(crate) struct Events {
    listener: Arc<OnceLock<Listener>>,
    of_guest: Arc<Mutex<Option<Budget>>>,
}

impl Default for Events {
    fn default() -> Self {
        Self { listener: Arc::default(), of_guest: Arc::new(Mutex::new(Budget::new(&OF_GUEST))) }
    }
}

impl Events {
    /// Has `listener` called with every event from now on, in the thread that it happens in: it must neither block nor take
    /// long. The first listener stays.
    pub(super) fn listen(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }

    pub(crate) fn tell(&self, event: &Event) {
        if let Some(listener) = self.listener.get() {
            listener(event);
        }
    }

    /// Tells an event that a guest can make up as often as it likes. It cannot push those who listen off with it.
    pub(crate) fn tell_of_guest(&self, event: &Event) {
        let mut budget = self.of_guest.lock().unwrap_or_else(PoisonError::into_inner);
        if budget.as_mut().is_none_or(|budget| budget.spend(1)) {
            drop(budget);
            self.tell(event);
        }
    }
}
