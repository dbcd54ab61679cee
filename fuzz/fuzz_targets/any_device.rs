//! A virtio device of any kind, with what it needs of the host.
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use devices::virtio::balloon::{BalloonConfig, BalloonDevice};
use devices::virtio::block::{BlockConfig, BlockDevice, CacheType, IoEngine};
use devices::virtio::console::{ConsoleDevice, Sink};
use devices::virtio::device::SharedDevice;
use devices::virtio::net::{NetConfig, NetDevice, Peer};
use devices::virtio::queue_harness::{Buffer, Harness, MEMORY_SIZE};
use devices::virtio::rng::{EntropyConfig, RngDevice};
use devices::virtio::vsock::{VsockConfig, VsockDevice};
use vmm_sys_util::eventfd::EventFd;

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Entropy,
    Block(IoKind),
    /// A network device whose peer sends packets, as a tap does, or a stream of frames, as passt does.
    Net(NetKind),
    Console,
    Vsock,
    Balloon,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoKind {
    Writable,
    /// Read-only, by io_uring.
    ReadOnlyUring,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetKind {
    Packets,
    Stream,
}

/// A console's output that discards what it gets and has room for that many bytes: a buffer can be left half-way.
struct Discard(usize);

impl Sink for Discard {
    fn room(&mut self) -> usize {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0 -= bytes.len();
        Ok(())
    }
    fn set_room_notifier(&mut self, _: EventFd) {}
}

fn path(number: u8) -> PathBuf {
    format!("/dev/shm/rvmm-fuzz-device-{}-{number}", std::process::id()).into()
}

fn share<T: devices::virtio::device::VirtioDevice + 'static>(device: T) -> SharedDevice {
    Arc::new(Mutex::new(device))
}

impl Kind {
    /// A new device. Those that exist at the same time have different numbers.
    pub fn device(self, number: u8) -> SharedDevice {
        match self {
            Self::Entropy => share(RngDevice::new(&EntropyConfig::default()).unwrap()),
            Self::Block(kind) => share(block(kind, number)),
            Self::Net(kind) => share(net(kind)),
            Self::Console => share(ConsoleDevice::new(Box::new(Discard(10_000))).unwrap()),
            Self::Vsock => {
                let config = VsockConfig { vsock_id: None, guest_cid: 3, uds_path: path(number) };
                let device = VsockDevice::new(&config).unwrap();
                // It watches no file that is gone: to end a watch takes the host some 10 ms.
                std::fs::remove_file(path(number)).unwrap();
                share(device)
            }
            Self::Balloon => {
                let config =
                    BalloonConfig { free_page_reporting: true, deflate_on_oom: true, ..Default::default() };
                share(BalloonDevice::new(&config, MEMORY_SIZE >> 20).unwrap())
            }
        }
    }

    /// Asserts that the device, which has just been started, completes a correct request. Not of a console, whose output
    /// may be full.
    pub fn assert_works(self, harness: &mut Harness) {
        let (queue, chain) = match self {
            Self::Entropy => (0, vec![Buffer::writable(harness.allocate(32, 0), 32)]),
            Self::Block(_) => {
                let (header, data) = (harness.place(&[0; 16]), harness.allocate(512, 0));
                let status = harness.allocate(1, 0xee);
                (
                    0,
                    vec![
                        Buffer::readable(header, 16),
                        Buffer::writable(data, 512),
                        Buffer::writable(status, 1),
                    ],
                )
            }
            Self::Net(_) => (1, vec![Buffer::readable(harness.place(&[0; 100]), 100)]),
            Self::Console => return,
            // A packet that is too short, which the device drops.
            Self::Vsock => (1, vec![Buffer::readable(harness.place(&[0; 10]), 10)]),
            Self::Balloon => (0, vec![Buffer::readable(harness.place(&0x701_u32.to_le_bytes()), 4)]),
        };
        harness.add_chain(queue, &chain);
        harness.kick(queue);
        assert_eq!(harness.wait_used(queue, 1).len(), 1, "{self:?}");
    }
}

fn block(kind: IoKind, number: u8) -> BlockDevice {
    let (path, is_read_only) = (path(number), kind == IoKind::ReadOnlyUring);
    std::fs::write(&path, [7; 64 * 512]).unwrap();
    let config = BlockConfig {
        drive_id: "disk".to_owned(),
        is_root_device: false,
        path_on_host: Some(path.clone()),
        is_read_only,
        partuuid: None,
        cache_type: CacheType::Writeback,
        rate_limiter: None,
        io_engine: Some(if is_read_only { IoEngine::Async } else { IoEngine::Sync }),
        socket: None,
        direct: false,
    };
    let device = BlockDevice::open(&config).unwrap();
    std::fs::remove_file(path).unwrap();
    device
}

/// A device whose peer has sent something and gone.
fn net(kind: NetKind) -> NetDevice {
    let config = NetConfig {
        iface_id: "net0".to_owned(),
        host_dev_name: Some("tap0".to_owned()),
        ..Default::default()
    };
    let peer = match kind {
        NetKind::Packets => {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            ours.send(&[1; 100]).unwrap();
            Peer::Packets(OwnedFd::from(theirs))
        }
        NetKind::Stream => Peer::Stream(UnixStream::pair().unwrap().1),
    };
    NetDevice::over_socket(&config, peer).unwrap()
}
