//! `struct virtio_net_config` (virtio 1.3, 5.1.4), as far as the features that are offered go, and which features need others.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
    VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_UFO,
    VIRTIO_NET_F_HOST_USO, VIRTIO_NET_S_LINK_UP,
};

use super::mac::MacAddress;

/// Bytes up to `mtu`, the last field that a feature of ours defines.
const LEN: usize = 12;

/// Features, and those of which each needs one (5.1.3.1).
const NEEDS: [(u32, &[u32]); 11] = [
    (VIRTIO_NET_F_GUEST_TSO4, &[VIRTIO_NET_F_GUEST_CSUM]),
    (VIRTIO_NET_F_GUEST_TSO6, &[VIRTIO_NET_F_GUEST_CSUM]),
    (VIRTIO_NET_F_GUEST_ECN, &[VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6]),
    (VIRTIO_NET_F_GUEST_UFO, &[VIRTIO_NET_F_GUEST_CSUM]),
    (VIRTIO_NET_F_GUEST_USO4, &[VIRTIO_NET_F_GUEST_CSUM]),
    (VIRTIO_NET_F_GUEST_USO6, &[VIRTIO_NET_F_GUEST_CSUM]),
    (VIRTIO_NET_F_HOST_TSO4, &[VIRTIO_NET_F_CSUM]),
    (VIRTIO_NET_F_HOST_TSO6, &[VIRTIO_NET_F_CSUM]),
    (VIRTIO_NET_F_HOST_ECN, &[VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6]),
    (VIRTIO_NET_F_HOST_UFO, &[VIRTIO_NET_F_CSUM]),
    (VIRTIO_NET_F_HOST_USO, &[VIRTIO_NET_F_CSUM]),
];

/// Whether `features` has what each of them needs.
pub(super) fn are_complete(features: u64) -> bool {
    let has = |bit: &u32| features & 1 << bit != 0;
    NEEDS.iter().all(|(feature, needed)| !has(feature) || needed.iter().any(has))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offloads_need_checksums() {
        let features = |bits: &[u32]| bits.iter().fold(0, |features, bit| features | 1 << bit);
        for (bits, complete) in [
            (&[][..], true),
            (&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_CSUM], true),
            (&[VIRTIO_NET_F_GUEST_TSO4], false),
            (&[VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_CSUM], false),
            (&[VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_CSUM], true),
            (&[VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_GUEST_CSUM], false),
            (&[VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_CSUM], true),
            (&[VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_CSUM], false),
            (&[VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_CSUM], true),
            (&[VIRTIO_NET_F_GUEST_USO6], false),
        ] {
            assert_eq!(are_complete(features(bits)), complete, "{bits:?}");
        }
    }
}
