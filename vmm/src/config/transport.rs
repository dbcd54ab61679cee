//! Which bus virtio devices are on.

use devices::pci::root::MAX_DEVICES;
use serde::{Deserialize, Serialize};

use crate::layout;

/// How the guest finds its virtio devices and is interrupted by them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Registers in memory that ACPI names, and one interrupt line for each device.
    Mmio,
    /// Functions on a PCI bus, with MSI-X.
    #[default]
    Pci,
}

impl Transport {
    /// Number of devices that there is room for.
    pub fn max_devices(self) -> usize {
        match self {
            Self::Mmio => (layout::VIRTIO_GSI_LAST - layout::VIRTIO_GSI_FIRST + 1) as usize,
            Self::Pci => MAX_DEVICES,
        }
    }

    /// What the default kernel command line says about PCI. `noearly`: Linux looks for the quirks of chipsets by ports
    /// that are not there.
    pub fn cmdline(self) -> &'static str {
        match self {
            Self::Mmio => "pci=off",
            Self::Pci => "pci=noearly",
        }
    }
}
