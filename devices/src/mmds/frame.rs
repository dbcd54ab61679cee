//! Which frames of the guest are for the service.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    IpProtocol, Ipv4Packet, TcpPacket,
};

/// Bytes of a frame that tell whether it is for the service: those of ARP, with the header of Ethernet.
pub(crate) const HEAD_LEN: usize = 42;
/// `ar_tpa` of an ARP packet (RFC 826), and the destination of an IPv4 packet, from the header of Ethernet on.
const ARP_TARGET: usize = 14 + 24;
const IPV4_DESTINATION: usize = 14 + 16;

/// Whether the frame that begins with `head` is IPv4 to `address`, or ARP for it.
pub(super) fn is_for(head: &[u8], address: Ipv4Addr) -> bool {
    let Ok(frame) = EthernetFrame::new_checked(head) else { return false };
    let offset = match frame.ethertype() {
        EthernetProtocol::Arp => ARP_TARGET,
        EthernetProtocol::Ipv4 => IPV4_DESTINATION,
        _ => return false,
    };
    head.get(offset..offset + 4).is_some_and(|target| target == address.octets())
}

/// What the stack is told by a frame, before it gets the frame itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A question or an answer about addresses.
    Arp,
    /// An IPv4 packet that may be the first of its sender: where the sender is.
    First(Ipv4Addr, EthernetAddress),
    /// Another one.
    Other,
}

/// Readies a frame for the stack of `own`: an IPv4 packet that the guest sent by way of a router is as good as one that it
/// sent to the service itself. None for one that no stack should see.
pub(super) fn prepare(frame: &mut [u8], own: EthernetAddress, address: Ipv4Addr) -> Option<Kind> {
    let mut ethernet = EthernetFrame::new_checked(frame).ok()?;
    let sender = ethernet.src_addr();
    if !sender.is_unicast() {
        return None;
    }
    if ethernet.ethertype() == EthernetProtocol::Arp {
        return Some(Kind::Arp);
    }
    ethernet.set_dst_addr(own);
    let packet = Ipv4Packet::new_checked(&*ethernet.payload_mut()).ok()?;
    let source = packet.src_addr();
    let first_byte = *source.octets().first()?;
    // Nobody is there to be answered: "this network" (RFC 1122, 3.2.1.3), groups, or the service itself.
    if !(1..=223).contains(&first_byte) || source == address {
        return None;
    }
    // The rest of a packet in pieces does not come together here.
    if packet.more_frags() || packet.frag_offset() != 0 {
        return None;
    }
    let first = match packet.next_header() {
        IpProtocol::Tcp => TcpPacket::new_checked(packet.payload()).ok()?.syn(),
        _ => true,
    };
    Some(if first { Kind::First(source, sender) } else { Kind::Other })
}

/// An answer by which the stack learns where `sender` is, as if it had asked.
pub(super) fn introduction(
    (sender, sender_mac): (Ipv4Addr, EthernetAddress),
    (own, own_mac): (Ipv4Addr, EthernetAddress),
) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: sender_mac,
        source_protocol_addr: sender,
        target_hardware_addr: own_mac,
        target_protocol_addr: own,
    };
    let ethernet = EthernetRepr { src_addr: sender_mac, dst_addr: own_mac, ethertype: EthernetProtocol::Arp };
    let mut bytes = vec![0; ethernet.buffer_len() + arp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}
