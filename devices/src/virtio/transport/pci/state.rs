//! What a snapshot keeps of this transport alone: what a guest wrote to configuration space and to MSI-X.
//!
//! Capabilities, IDs and the sizes of BARs are the code's own; a state in which they differ is refused, for the guest
//! knows them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::capabilities::CapabilityList;
use super::{Configuration, PciTransport};
use crate::lock;
use crate::pci::msix::MsixEntryV1;
use crate::state::StateError;
use crate::virtio::state::{BusState, VirtioStateV1};
use crate::virtio::transport::Transport;
use crate::virtio::transport::core::TransportCore;

/// A virtio function, but for what every transport has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciStateV1 {
    /// Configuration space, 256 bytes: Command, BARs and Message Control of MSI-X among them.
    pub config: Vec<u8>,
    /// The table of MSI-X.
    pub msix: Vec<MsixEntryV1>,
    /// config_msix_vector.
    pub config_vector: u16,
    /// queue_msix_vector of each virtqueue.
    pub queue_vectors: Vec<u16>,
    /// ISR status.
    pub isr: u8,
}

impl Transport for PciTransport {
    fn core(&self) -> &Arc<TransportCore> {
        &self.core
    }

    fn save(&self) -> Result<VirtioStateV1, StateError> {
        let Self {
            core,
            signal,
            configuration,
            // Fixed, or following configuration space.
            memory: _,
            io: _,
            first_address: _,
            first_port: _,
            connected: _,
            doorbells: _,
        } = self;
        let config = lock(configuration).space.save();
        let (config_vector, queue_vectors, isr) = signal.save();
        let msix = signal.msix().save();
        core.save(BusState::PciV1(PciStateV1 { config, msix, config_vector, queue_vectors, isr }))
    }

    fn restore(&self, state: &VirtioStateV1) -> Result<(), StateError> {
        let BusState::PciV1(PciStateV1 { config: saved, msix, config_vector, queue_vectors, isr }) =
            &state.bus
        else {
            return Err(StateError::new("the state is of a device on virtio-mmio, and this one is on PCI"));
        };
        let mut configuration = lock(&self.configuration);
        if let Err(error) = configuration.space.restore(saved) {
            let (memory, io) = (self.first_address, self.first_port);
            let mut first =
                Configuration::new(CapabilityList::First, &self.core, self.signal.msix(), memory, io);
            first.space.restore(saved).map_err(|_| error)?;
            *configuration = first;
        }
        let Configuration { space, capabilities } = &*configuration;
        self.signal.msix().restore(space.u16(capabilities.msix_control()), msix)?;
        self.signal.restore(*config_vector, queue_vectors, *isr)?;
        self.follow_bars(space);
        drop(configuration);
        self.core.restore(state)
    }
}
