//! What happens to a VM, told to whoever listens.

use std::sync::{Arc, OnceLock};

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
    /// A signal, or who sits at the console, ends the VM.
    Terminated,
}

type Listener = Box<dyn Fn(&Event) + Send + Sync>;

/// Where events go.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<OnceLock<Listener>>);

impl Events {
    /// Has `listener` called with every event from now on, in the thread that it happens in: it must neither block nor take
    /// long. The first listener stays.
    pub(super) fn listen(&self, listener: Listener) {
        let _ = self.0.set(listener);
    }

    pub(crate) fn tell(&self, event: &Event) {
        if let Some(listener) = self.0.get() {
            listener(event);
        }
    }
}
