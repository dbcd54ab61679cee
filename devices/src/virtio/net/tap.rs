//! A tap: an Ethernet interface of the host whose other end is this process.
#![expect(unsafe_code, reason = "ioctl(2) of tun(4) and of network interfaces")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use log::{info, warn};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
    VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_UFO,
    VIRTIO_NET_F_HOST_USO,
};

use super::backend::{Backend, ETHERNET_HEADER_LEN, HEADER_LEN, MAX_PACKET_LEN, Received, Sent};
use super::iovecs::{IoVecs, MAX_PIECES};
use super::mac::MacAddress;
use crate::patience::while_in_use;

const TUN_DEVICE: &str = "/dev/net/tun";

/// What the kernel does for the guest's frames, and the guest's driver for the host's, and how TUNSETOFFLOAD calls it.
const OFFLOADS: [(u32, u32); 5] = [
    (VIRTIO_NET_F_GUEST_CSUM, libc::TUN_F_CSUM),
    (VIRTIO_NET_F_GUEST_TSO4, libc::TUN_F_TSO4),
    (VIRTIO_NET_F_GUEST_TSO6, libc::TUN_F_TSO6),
    (VIRTIO_NET_F_GUEST_ECN, libc::TUN_F_TSO_ECN),
    (VIRTIO_NET_F_GUEST_UFO, libc::TUN_F_UFO),
];
const USO_OFFLOADS: [(u32, u32); 2] =
    [(VIRTIO_NET_F_GUEST_USO4, libc::TUN_F_USO4), (VIRTIO_NET_F_GUEST_USO6, libc::TUN_F_USO6)];

/// Why a tap cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No tun driver, or no right to use it.
    #[error("cannot open {TUN_DEVICE}; as root: modprobe tun, and chmod 666 {TUN_DEVICE}")]
    NoTun(#[source] io::Error),
    /// Another process is at its other end.
    #[error("tap {name} is in use: another VM or program has it, and it is for one only")]
    Busy {
        /// Its name.
        name: String,
    },
    /// It would have to be made.
    #[error(
        "there is no tap {name}, and making one takes root rights (CAP_NET_ADMIN); make it once by: sudo ip tuntap add {name} mode tap user $USER && sudo ip link set {name} up"
    )]
    Missing {
        /// Its name.
        name: String,
    },
    /// It belongs to somebody else.
    #[error(
        "tap {name} belongs to another user; give it to you by: sudo ip tuntap del {name} mode tap && sudo ip tuntap add {name} mode tap user $USER && sudo ip link set {name} up"
    )]
    NotYours {
        /// Its name.
        name: String,
    },
    /// An interface, but none of this kind.
    #[error(
        "interface {name} of this host is no tap of one queue; make one by: sudo ip tuntap add NAME mode tap user $USER"
    )]
    NotATap {
        /// Its name.
        name: String,
    },
    /// Anything else.
    #[error("tap {name}: cannot {what}")]
    Failed {
        /// Its name.
        name: String,
        /// What was tried.
        what: &'static str,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// This process's end of a tap. An interface that was made for it goes when it is dropped.
pub(super) struct Tap {
    file: File,
    /// As far as the kernel has them: (offered features, the same as TUNSETOFFLOAD has them).
    offloads: Vec<(u32, u32)>,
    /// Takes what the guest has no room for yet. Allocated with the first packet.
    overflow: Vec<u8>,
    /// A packet of this many bytes has been read: this many of them into the room, the others into `overflow`.
    overflown: Option<(usize, usize)>,
}

impl Tap {
    /// The tap `name`, which is made, and brought up with `mtu`, if there is none and this process may.
    pub(super) fn open(name: &str, mtu: Option<u32>) -> Result<Self, TapError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(TUN_DEVICE)
            .map_err(TapError::NoTun)?;
        let failed = |what| move |source| TapError::Failed { name: name.to_owned(), what, source };
        let mut request = interface(name);
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        let is_busy = |error: &io::Error| error.raw_os_error() == Some(libc::EBUSY);
        while_in_use(is_busy, || control(&file, libc::TUNSETIFF, &mut request))
            .map_err(|error| attach_error(name, error))?;
        control(&file, libc::TUNSETVNETHDRSZ, &mut (HEADER_LEN as u32))
            .map_err(failed("set the size of its headers"))?;
        control(&file, libc::TUNGETIFF, &mut request).map_err(failed("read its flags"))?;
        // SAFETY: TUNGETIFF has filled in the flags.
        let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
        if flags & libc::IFF_PERSIST == 0 {
            // Nobody else can be attached, so it would be gone if it had not been made just now.
            info!("tap {name} is made for this VM, and goes with it");
            bring_up(name, mtu).map_err(failed("bring it up"))?;
        }
        let mut tap = Self { file, offloads: OFFLOADS.to_vec(), overflow: Vec::new(), overflown: None };
        // Linux 6.2 and later, and only both of them.
        if tap.set_offloads(libc::TUN_F_CSUM | libc::TUN_F_USO4 | libc::TUN_F_USO6).is_ok() {
            tap.offloads.extend(USO_OFFLOADS);
        }
        tap.set_offloads(0).map_err(failed("set its offloads"))?;
        Ok(tap)
    }

    /// What vhost-net moves frames to and from.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// What behaves like a tap but has no offloads: a socket that keeps packets apart.
    #[cfg(any(test, feature = "test-harness"))]
    pub(super) fn over_socket(socket: OwnedFd) -> Self {
        Self { file: File::from(socket), offloads: Vec::new(), overflow: Vec::new(), overflown: None }
    }

    fn set_offloads(&self, flags: u32) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes an integer in place of an address.
        let result =
            unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Backend for Tap {
    fn offloads(&self) -> u64 {
        if self.offloads.is_empty() {
            return 0;
        }
        let guest = self.offloads.iter().fold(0, |features, (feature, _)| features | 1 << feature);
        let host = 1 << VIRTIO_NET_F_CSUM
            | 1 << VIRTIO_NET_F_HOST_TSO4
            | 1 << VIRTIO_NET_F_HOST_TSO6
            | 1 << VIRTIO_NET_F_HOST_ECN
            | 1 << VIRTIO_NET_F_HOST_UFO;
        let uso = if guest & 1 << VIRTIO_NET_F_GUEST_USO4 == 0 { 0 } else { 1 << VIRTIO_NET_F_HOST_USO };
        guest | host | uso
    }

    fn max_frame_len(&self) -> usize {
        MAX_PACKET_LEN - HEADER_LEN
    }

    fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn set_features(&mut self, features: u64) -> io::Result<()> {
        if self.offloads.is_empty() {
            return Ok(());
        }
        let chosen = self.offloads.iter().filter(|(feature, _)| features & 1 << feature != 0);
        let mut flags = chosen.fold(0, |flags, (_, flag)| flags | flag);
        // Linux takes both or none.
        let both = libc::TUN_F_USO4 | libc::TUN_F_USO6;
        if flags & both != both {
            flags &= !both;
        }
        self.set_offloads(flags)
    }

    fn send(&mut self, packet: &mut IoVecs) -> Sent {
        if packet.bytes() < HEADER_LEN + ETHERNET_HEADER_LEN || packet.count() > MAX_PIECES {
            return Sent::Refused(io::ErrorKind::InvalidInput.into());
        }
        match packet.write(self.file.as_raw_fd()) {
            Ok(_) => Sent::Taken,
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => Sent::Full,
                // The interface was deleted.
                Some(libc::EBADFD | libc::ENODEV) => Sent::Gone(error),
                _ => Sent::Refused(error),
            },
        }
    }

    fn receive(&mut self, room: &mut IoVecs) -> Received {
        if let Some((len, placed)) = self.overflown {
            if room.bytes() < len {
                return Received::NeedsRoom(len);
            }
            self.overflown = None;
            room.write_at(placed, self.overflow.get(..len.saturating_sub(placed)).unwrap_or_default());
            return Received::Packet(len);
        }
        let end = room.bytes().min(MAX_PACKET_LEN);
        if end < MAX_PACKET_LEN && self.overflow.is_empty() {
            self.overflow.resize(MAX_PACKET_LEN, 0);
        }
        let rest = MAX_PACKET_LEN - end;
        let overflow = self.overflow.get_mut(..rest).unwrap_or_default();
        loop {
            match room.read(self.file.as_raw_fd(), 0, end, overflow) {
                Ok(len) if len < HEADER_LEN => return Received::Nothing,
                Ok(len) if len <= end => return Received::Packet(len),
                Ok(len) => {
                    self.overflown = Some((len, end));
                    return Received::NeedsRoom(len);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EBADFD | libc::ENODEV) => return Received::Gone(error),
                    _ => return Received::Nothing,
                },
            }
        }
    }

    fn holds_room(&self) -> bool {
        self.overflown.is_some()
    }

    fn drop_packet(&mut self) {
        self.overflown = None;
    }
}

/// Why TUNSETIFF has failed.
fn attach_error(name: &str, source: io::Error) -> TapError {
    let name = name.to_owned();
    match source.raw_os_error() {
        Some(libc::EBUSY) => TapError::Busy { name },
        Some(libc::EPERM | libc::EACCES) if exists(&name) => TapError::NotYours { name },
        Some(libc::EPERM | libc::EACCES) => TapError::Missing { name },
        Some(libc::EINVAL) if exists(&name) => TapError::NotATap { name },
        _ => TapError::Failed { name, what: "attach to it", source },
    }
}

/// Whether the host has an interface of this name.
fn exists(name: &str) -> bool {
    let Ok(name) = std::ffi::CString::new(name) else { return false };
    // SAFETY: `name` ends in a zero and is only read.
    unsafe { libc::if_nametoindex(name.as_ptr()) != 0 }
}

/// Brings an interface up that was made just now. Its address is derived from its name: the guest of a snapshot sends to the
/// address that its gateway had, until its entry is too old. A host that refuses the MTU or the address leaves it as it is.
fn bring_up(name: &str, mtu: Option<u32>) -> io::Result<()> {
    // SAFETY: makes a descriptor and touches no memory.
    let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: nobody else has this descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut request = interface(name);
    request.ifr_ifru.ifru_hwaddr = ethernet_address(host_mac(name));
    if let Err(error) = control(&socket, libc::SIOCSIFHWADDR, &mut request) {
        warn!("tap {name} does not take the address {}: {error}", host_mac(name));
    }
    if let Some(mtu) = mtu {
        request.ifr_ifru.ifru_mtu = mtu.cast_signed();
        if let Err(error) = control(&socket, libc::SIOCSIFMTU, &mut request) {
            warn!("tap {name} does not take an MTU of {mtu}: {error}");
        }
    }
    control(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: SIOCGIFFLAGS has filled in the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    control(&socket, libc::SIOCSIFFLAGS, &mut request)
}

/// The address of this host's side of the tap `name`, if rvmm makes it.
fn host_mac(name: &str) -> MacAddress {
    MacAddress::derived_from(&[b"host", name.as_bytes()])
}

/// `mac` as netdevice(7) has it.
fn ethernet_address(mac: MacAddress) -> libc::sockaddr {
    let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
    for (to, from) in address.sa_data.iter_mut().zip(mac.bytes()) {
        *to = from.cast_signed();
    }
    address
}

/// A request that means the interface `name`, which is shorter than IFNAMSIZ.
fn interface(name: &str) -> libc::ifreq {
    // SAFETY: all zeroes is a valid `ifreq`, a struct of bytes, integers and addresses of C.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request
}

/// An ioctl of tun(4) or netdevice(7) that reads or writes a `T`.
fn control<T>(file: &impl AsRawFd, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: the requests of this module take the address of an int or of an `ifreq`, which is what they are called
    // with, and keep it no longer than the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
