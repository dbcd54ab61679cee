//! `--transport`

use clap::ValueEnum;

/// The bus that virtio devices are on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum TransportArg {
    /// virtio-mmio.
    Mmio,
    /// virtio-pci with MSI-X.
    Pci,
}

impl From<TransportArg> for vmm::config::Transport {
    fn from(transport: TransportArg) -> Self {
        match transport {
            TransportArg::Mmio => Self::Mmio,
            TransportArg::Pci => Self::Pci,
        }
    }
}
