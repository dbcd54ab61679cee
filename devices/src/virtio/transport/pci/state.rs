//! What a snapshot keeps of this transport alone.

use serde::{Deserialize, Serialize};

use crate::pci::msix::MsixEntryV1;

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
