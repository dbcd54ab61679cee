//! Saving and restoring the registers, the queues and the device behind them.

#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_queue::{Queue, QueueT};

use super::{Registers, STEP_BITS, STEPS, TransportCore};
use crate::lock;
use crate::state::StateError;
use crate::virtio::device::{Activation, DeviceError, DeviceInterrupt, QueuePosition, VirtioDevice};
use crate::virtio::state::{BusState, QueueStateV1, VirtioStateV1};
use crate::virtio::transport::notifier::Notifier;
use crate::virtio::transport::queue_config::QueueConfig;

/// The status of a device that is active: a driver may give up one that is, and a device that needs a reset is none.
fn is_active(status: u32) -> bool {
    status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET) == VIRTIO_CONFIG_S_DRIVER_OK
}

impl TransportCore {
    /// Has the device finish what is in flight on the host, before it is [saved](super::super::Transport::save). No vCPU
    /// runs, and none does before the device is told to [go on](Self::go_on).
    pub fn drain(&self) {
        self.with_active(|device| device.drain());
    }

    /// The guest goes on after [`drain`](Self::drain), or without it.
    pub fn go_on(&self) {
        self.with_active(|device| device.go_on());
    }

    fn with_active(&self, call: fn(&mut dyn VirtioDevice) -> Result<(), DeviceError>) {
        let mut device = lock(&self.device);
        if self.active.load(Ordering::SeqCst)
            && let Err(error) = call(&mut *device)
        {
            self.give_up(&mut *device, &error);
        }
    }

    /// Has an active device look at all of its queues, and its driver as well: both have missed what went on around the
    /// restore.
    pub fn kick(&self) {
        let registers = lock(&self.registers);
        if !self.active.load(Ordering::SeqCst) {
            return;
        }
        for (index, _) in (0..).zip(&registers.queues).filter(|(_, queue)| queue.ready()) {
            self.notifier.signal_queue(index);
            self.notifier.kick(index.into());
        }
    }

    /// The state of everything but the transport's own, which is `bus`.
    ///
    /// # Errors
    /// When the device does not know how far it is.
    pub(in crate::virtio::transport) fn save(&self, bus: BusState) -> Result<VirtioStateV1, StateError> {
        let registers = lock(&self.registers);
        let device = lock(&self.device);
        let positions = if self.active.load(Ordering::SeqCst) {
            device.queue_positions()
        } else {
            vec![QueuePosition::default(); registers.queues.len()]
        };
        let Registers {
            driver_features,
            unknown_features,
            device_features_select,
            driver_features_select,
            queue_select,
            queues,
        } = &*registers;
        if positions.len() != queues.len() {
            let (known, all) = (positions.len(), queues.len());
            return Err(StateError::new(format!(
                "the device knows how far it is in {known} of {all} queues"
            )));
        }
        Ok(VirtioStateV1 {
            device_type: self.device_type,
            status: self.status(),
            driver_features: *driver_features,
            unknown_features: *unknown_features,
            device_features_select: *device_features_select,
            driver_features_select: *driver_features_select,
            queue_select: *queue_select,
            config_generation: self.config_generation(),
            queues: queues.iter().zip(positions).map(|(queue, position)| queue.save(position)).collect(),
            bus,
            device: device.save(),
        })
    }

    /// Takes over a saved state, but for the transport's own, which has been taken over already; no driver has touched the
    /// device. One that was active is active again.
    ///
    /// # Errors
    /// What is wrong with it, or what the device lacks here. The device is not active then.
    pub(in crate::virtio::transport) fn restore(&self, state: &VirtioStateV1) -> Result<(), StateError> {
        let VirtioStateV1 {
            device_type,
            status,
            driver_features,
            unknown_features,
            device_features_select,
            driver_features_select,
            queue_select,
            config_generation,
            ref queues,
            bus: _,
            device: ref device_state,
        } = *state;
        if device_type != self.device_type {
            let here = self.device_type;
            return Err(StateError::new(format!(
                "the state is of device type {device_type}, and this is device type {here}"
            )));
        }
        check_status(status)?;
        if status & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            self.check_features(driver_features, unknown_features)?;
        }
        let (saved, all) = (queues.len(), self.queue_count());
        if saved != all {
            return Err(StateError::new(format!("the state has {saved} queues, and the device has {all}")));
        }
        let restored = (0_u16..).zip(queues).zip(&self.queue_max_sizes);
        let restored = restored.map(|((index, queue), max_size)| {
            QueueConfig::restore(*max_size, queue)
                .map_err(|message| StateError::new(message).within(format!("virtqueue {index}")))
        });
        let restored = restored.collect::<Result<Vec<_>, _>>()?;

        let mut registers = lock(&self.registers);
        let mut device = lock(&self.device);
        if self.active.load(Ordering::SeqCst) || self.status() != 0 {
            return Err(StateError::new("the device is in use"));
        }
        device.restore(device_state)?;
        let Notifier {
            status: to_status,
            config_generation: to_generation,
            queue_events: _,
            metrics: _,
            signal: _,
        } = &*self.notifier;
        // What the device signals when it is activated changes this once more.
        to_generation.store(config_generation, Ordering::SeqCst);
        if is_active(status) {
            let built = (0_u16..).zip(&restored).zip(queues).map(|((index, config), state)| {
                self.build_queue(config, state, driver_features)
                    .map_err(|message| StateError::new(message).within(format!("virtqueue {index}")))
            });
            let activation = Activation {
                memory: self.memory.clone(),
                interrupt: self.notifier.clone(),
                queues: built.collect::<Result<_, _>>()?,
                features: driver_features,
            };
            device.activate(activation).map_err(|error| StateError::new(error.in_full()))?;
            self.active.store(true, Ordering::SeqCst);
        }
        *registers = Registers {
            driver_features,
            unknown_features,
            device_features_select,
            driver_features_select,
            queue_select,
            queues: restored,
        };
        to_status.store(status, Ordering::SeqCst);
        Ok(())
    }

    /// The queue for the device, which goes on where the saved one was.
    fn build_queue(
        &self,
        config: &QueueConfig,
        state: &QueueStateV1,
        features: u64,
    ) -> Result<Queue, String> {
        let mut queue = config.build(&self.memory, features)?;
        queue.set_next_avail(state.next_avail);
        queue.set_next_used(state.next_used);
        Ok(queue)
    }

    fn check_features(&self, features: u64, unknown: bool) -> Result<(), StateError> {
        if unknown {
            return Err(StateError::new("the driver has a feature past bit 63, where there are none"));
        }
        if features & 1 << VIRTIO_F_VERSION_1 == 0 {
            return Err(StateError::new("the driver has not agreed on VIRTIO_F_VERSION_1"));
        }
        let missing: Vec<String> = (0..u64::BITS)
            .filter(|bit| features & !(self.device_features | self.former_features) & 1 << bit != 0)
            .map(|bit| bit.to_string())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(StateError::new(format!(
            "the guest uses virtio features that the device has not on this host, or not with this configuration: bits {}",
            missing.join(", ")
        )))
    }
}

/// Refuses a device status that no driver gets a device into.
fn check_status(status: u32) -> Result<(), StateError> {
    let known = STEP_BITS | VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET;
    // A device fails when it is activated, or later.
    let failed_early = status & VIRTIO_CONFIG_S_NEEDS_RESET != 0 && status & VIRTIO_CONFIG_S_DRIVER_OK == 0;
    if status & !known != 0 || !STEPS.contains(&(status & STEP_BITS)) || failed_early {
        return Err(StateError::new(format!("no device has the status {status:#x}")));
    }
    Ok(())
}
