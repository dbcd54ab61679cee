//! `struct virtio_net_config` (virtio 1.3, 5.1.4), as far as the features that are offered go.

use virtio_bindings::virtio_net::VIRTIO_NET_S_LINK_UP;

use super::mac::MacAddress;

/// Bytes up to `mtu`, the last field that a feature of ours defines.
const LEN: usize = 12;

/// The configuration space.
#[derive(Debug)]
pub(super) struct ConfigSpace {
    pub(super) mac: MacAddress,
    pub(super) link_up: bool,
    pub(super) mtu: u16,
}

impl ConfigSpace {
    /// Fills `data` from `offset`; what lies past the end reads as zeroes.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let status = if self.link_up { VIRTIO_NET_S_LINK_UP as u16 } else { 0 };
        let queue_pairs = 1_u16;
        let fields: [&[u8]; 4] =
            [&self.mac.bytes(), &status.to_le_bytes(), &queue_pairs.to_le_bytes(), &self.mtu.to_le_bytes()];
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (byte, field) in data.iter_mut().zip(fields.concat().into_iter().take(LEN).skip(skip)) {
            *byte = field;
        }
    }
}
