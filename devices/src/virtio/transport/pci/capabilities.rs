//! The capabilities of a virtio function: where its structures are (virtio 1.3, 4.1.4), and MSI-X.

use super::{
    COMMON, DEVICE, DEVICE_SIZE, ISR, MEMORY_BAR, MEMORY_NOTIFY_MULTIPLIER, MSIX_PENDING, MSIX_TABLE, NOTIFY,
    NOTIFY_MULTIPLIER, common,
};
use crate::pci::config_space::ConfigSpace;
use crate::pci::msix::{self, Msix};

/// Capability ID: vendor-specific.
const VENDOR_SPECIFIC: u8 = 0x09;

/// VIRTIO_PCI_CAP_COMMON_CFG.
const COMMON_CFG: u8 = 1;
/// VIRTIO_PCI_CAP_NOTIFY_CFG.
const NOTIFY_CFG: u8 = 2;
/// VIRTIO_PCI_CAP_ISR_CFG.
const ISR_CFG: u8 = 3;
/// VIRTIO_PCI_CAP_DEVICE_CFG.
const DEVICE_CFG: u8 = 4;
/// VIRTIO_PCI_CAP_PCI_CFG.
const PCI_CFG: u8 = 5;

/// Bytes of `struct virtio_pci_cap`.
const CAP_LEN: u8 = 16;
/// Fields of `struct virtio_pci_cap`.
const CAP_BAR: usize = 4;
const CAP_OFFSET: usize = 8;
const CAP_LENGTH: usize = 12;
/// What `virtio_pci_notify_cap` and `virtio_pci_cfg_cap` have behind it.
const CAP_DATA: usize = 16;

/// Where a structure is.
#[derive(Clone, Copy)]
pub(super) struct Structure {
    pub(super) bar: u8,
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// `struct virtio_pci_cap` without its first two bytes, and what follows it.
fn body(kind: u8, structure: Structure, data: Option<u32>) -> Vec<u8> {
    let Structure { bar, offset, length } = structure;
    let cap_len = if data.is_some() { CAP_LEN + 4 } else { CAP_LEN };
    let mut body = vec![cap_len, kind, bar, 0, 0, 0];
    body.extend(offset.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(data.map(u32::to_le_bytes).into_iter().flatten());
    body
}

/// What the driver asks for by VIRTIO_PCI_CAP_PCI_CFG: an access of 1, 2 or 4 bytes to a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConfigAccess {
    pub(super) bar: u8,
    pub(super) offset: u32,
    pub(super) length: usize,
}

/// Which capabilities a function has. A driver knows them, so a restored function has those that it was saved with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CapabilityList {
    /// Notifications in ports alone, and a common configuration of 0x38 bytes.
    First,
    /// Notifications in memory as well, for drivers that do not use ports, and all fields of the common configuration.
    Current,
}

/// Where the capabilities are that do something.
pub(super) struct Capabilities {
    pci_cfg: usize,
    msix: usize,
}

impl Capabilities {
    /// Adds all capabilities of `list` to `config`, that of the device's own configuration only if it has one; notifications of
    /// `queues` virtqueues are at `notify`.
    pub(super) fn add(
        config: &mut ConfigSpace,
        list: CapabilityList,
        has_config: bool,
        msix: &Msix,
        queues: u32,
        notify: Structure,
    ) -> Self {
        let memory = |offset, length| Structure { bar: MEMORY_BAR, offset, length };
        let common_size = match list {
            CapabilityList::First => common::FIRST_SIZE,
            CapabilityList::Current => common::SIZE,
        };
        config.add_capability(VENDOR_SPECIFIC, &body(COMMON_CFG, memory(COMMON, common_size), None), &[]);
        config.add_capability(VENDOR_SPECIFIC, &body(ISR_CFG, memory(ISR, 1), None), &[]);
        config.add_capability(VENDOR_SPECIFIC, &body(NOTIFY_CFG, notify, Some(NOTIFY_MULTIPLIER)), &[]);
        if has_config {
            config.add_capability(VENDOR_SPECIFIC, &body(DEVICE_CFG, memory(DEVICE, DEVICE_SIZE), None), &[]);
        }
        let pci_cfg = config.add_capability(
            VENDOR_SPECIFIC,
            &body(PCI_CFG, memory(0, 0), Some(0)),
            // All but the lengths and the padding: bar, offset, length, pci_cfg_data.
            &[&[0, 0, 0xff, 0, 0, 0][..], &[0xff; 12]].concat(),
        );
        let msix = config.add_capability(
            msix::CAPABILITY,
            &msix.capability(MEMORY_BAR, MSIX_TABLE, MSIX_PENDING),
            &Msix::CAPABILITY_WRITABLE,
        );
        if list == CapabilityList::Current {
            // The last one: a driver that uses ports does not read it.
            let notify = memory(NOTIFY, MEMORY_NOTIFY_MULTIPLIER * queues);
            config.add_capability(
                VENDOR_SPECIFIC,
                &body(NOTIFY_CFG, notify, Some(MEMORY_NOTIFY_MULTIPLIER)),
                &[],
            );
        }
        Self { pci_cfg, msix }
    }

    /// Offset of MSI-X's Message Control.
    pub(super) fn msix_control(&self) -> usize {
        self.msix + 2
    }

    /// Offset of `pci_cfg_data`.
    pub(super) fn config_data(&self) -> usize {
        self.pci_cfg + CAP_DATA
    }

    /// The access to a BAR that one of `len` bytes at `offset` of configuration space causes.
    pub(super) fn config_access(
        &self,
        config: &ConfigSpace,
        offset: usize,
        len: usize,
    ) -> Option<ConfigAccess> {
        let data = self.config_data();
        if offset >= data + 4 || offset.saturating_add(len) <= data {
            return None;
        }
        let length = config.u32(self.pci_cfg + CAP_LENGTH);
        let offset = config.u32(self.pci_cfg + CAP_OFFSET);
        let valid = matches!(length, 1 | 2 | 4) && offset.is_multiple_of(length);
        valid.then(|| ConfigAccess {
            bar: config.u8(self.pci_cfg + CAP_BAR),
            offset,
            length: length as usize,
        })
    }
}
