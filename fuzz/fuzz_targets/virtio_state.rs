//! A snapshot's state of a virtio device that anybody may have changed: bytes that decode to one, or the state of a device
//! in the middle of its work with some bytes replaced. It is restored into a new device on a copy of the memory.
//!
//! Holds: no panic, no hang, no growth, whether it is refused or not; a device that took it bears what a driver does then;
//! and after a reset the device works.
#![no_main]

mod driver;
mod in_file;

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use devices::pci::{PciFunction, Space};
use devices::virtio::balloon::{BalloonConfig, BalloonDevice};
use devices::virtio::block::{BlockConfig, BlockDevice, CacheType, IoEngine};
use devices::virtio::console::{ConsoleDevice, Sink};
use devices::virtio::device::SharedDevice;
use devices::virtio::net::{NetConfig, NetDevice, Peer};
use devices::virtio::pci_harness::MEMORY_BASE;
use devices::virtio::queue_harness::{Harness, MEMORY_SIZE, TransportKind};
use devices::virtio::rng::{EntropyConfig, RngDevice};
use devices::virtio::state::VirtioStateV1;
use devices::virtio::vsock::{VsockConfig, VsockDevice};
use libfuzzer_sys::fuzz_target;
use vmm_sys_util::eventfd::EventFd;

const EVENT_IDX: u64 = 1 << 29;
const KINDS: u8 = 7;

#[derive(Arbitrary, Debug)]
struct Input {
    kind: u8,
    pci: bool,
    event_idx: bool,
    /// What the driver does before.
    before: Vec<driver::Step>,
    file: in_file::InFile,
    /// What the driver does afterwards.
    accesses: Vec<Access>,
    after: Vec<driver::Step>,
}

#[derive(Arbitrary, Debug)]
enum Access {
    /// A register of virtio-mmio, or one of BAR 0 where it was at first.
    Register { offset: u16, value: u32, write: bool },
    /// Configuration space of a PCI function.
    Config { offset: u8, value: u32, write: bool },
}

/// A console's output that goes nowhere, and is full at some point: a buffer that was begun is left then.
struct Nowhere(usize);

impl Sink for Nowhere {
    fn room(&mut self) -> usize {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0 -= bytes.len();
        Ok(())
    }
    fn set_room_notifier(&mut self, _: EventFd) {}
}

/// A device, and the path that it was made at.
fn device(kind: u8, number: u8) -> SharedDevice {
    let path = format!("/dev/shm/rvmm-fuzz-state-{}-{number}", std::process::id());
    let net = NetConfig {
        iface_id: "net0".to_owned(),
        host_dev_name: Some("tap0".to_owned()),
        ..Default::default()
    };
    match kind {
        0 => Arc::new(Mutex::new(RngDevice::new(&EntropyConfig::default()).unwrap())),
        1 | 2 => {
            std::fs::write(&path, [7; 64 * 512]).unwrap();
            let config = BlockConfig {
                drive_id: "disk".to_owned(),
                is_root_device: false,
                path_on_host: Some(path.clone().into()),
                is_read_only: kind == 2,
                partuuid: None,
                cache_type: CacheType::Writeback,
                rate_limiter: None,
                io_engine: Some(if kind == 2 { IoEngine::Async } else { IoEngine::Sync }),
                socket: None,
                direct: false,
            };
            let device = BlockDevice::open(&config).unwrap();
            std::fs::remove_file(path).unwrap();
            Arc::new(Mutex::new(device))
        }
        3 => {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            ours.send(&[1; 100]).unwrap();
            let peer = Peer::Packets(OwnedFd::from(theirs));
            Arc::new(Mutex::new(NetDevice::over_socket(&net, peer).unwrap()))
        }
        4 => {
            let (_, theirs) = UnixStream::pair().unwrap();
            Arc::new(Mutex::new(NetDevice::over_socket(&net, Peer::Stream(theirs)).unwrap()))
        }
        5 => Arc::new(Mutex::new(ConsoleDevice::new(Box::new(Nowhere(10_000))).unwrap())),
        6 => {
            let config = VsockConfig { vsock_id: None, guest_cid: 3, uds_path: path.into() };
            Arc::new(Mutex::new(VsockDevice::new(&config).unwrap()))
        }
        _ => {
            let config =
                BalloonConfig { free_page_reporting: true, deflate_on_oom: true, ..Default::default() };
            Arc::new(Mutex::new(BalloonDevice::new(&config, MEMORY_SIZE >> 20).unwrap()))
        }
    }
}

fn access(harness: &mut Harness, pci: bool, access: &Access) {
    match *access {
        Access::Register { offset, value, write } if pci => {
            let address = u64::from(MEMORY_BASE) + u64::from(offset % 0x4000);
            let function = harness.pci().function();
            if write {
                let _ = function.write(Space::Memory, address, &value.to_le_bytes());
            } else {
                function.read(Space::Memory, address, &mut [0; 4]);
            }
        }
        Access::Register { offset, value, write } => {
            let register = u32::from(offset % 0x108);
            if write {
                harness.write(register, value);
            } else {
                harness.read(register);
            }
        }
        Access::Config { offset, value, write } if pci => {
            let function = harness.pci().function();
            if write {
                let _ = function.write_config(offset.into(), &value.to_le_bytes());
            } else {
                function.read_config(offset.into(), &mut [0; 4]);
            }
        }
        Access::Config { .. } => {}
    }
}

fuzz_target!(|input: Input| {
    let kind = input.kind % (KINDS + 1);
    let transport = if input.pci { TransportKind::Pci } else { TransportKind::Mmio };
    let mut harness = Harness::behind(transport, device(kind, 0));
    harness.start(if input.event_idx { EVENT_IDX } else { 0 }, 16);
    let queues = harness.core().queue_count() as u32;
    for step in input.before.into_iter().take(16) {
        step.take(&mut harness, queues);
    }
    let state = harness.save();
    let bytes = input.file.changed(postcard::to_stdvec(&state).unwrap());
    let Ok(changed) = postcard::from_bytes::<VirtioStateV1>(&bytes) else { return };
    let restored = harness.restored(device(kind, 1), &changed);
    if changed == state {
        assert!(restored.is_ok(), "what was saved is refused: {:?}", restored.err());
    }
    let Ok(mut restored) = restored else { return };
    drop(harness);
    restored.resume();
    for step in input.accesses.iter().take(32) {
        access(&mut restored, input.pci, step);
    }
    for step in input.after.into_iter().take(32) {
        step.take(&mut restored, queues);
    }
    // And once more, whatever has become of it.
    let state = restored.save();
    let again = restored.restored(device(kind, 2), &state);
    assert!(again.is_ok(), "what was saved is refused: {:?}", again.err());
    if input.pci {
        restored.pci().switch_on();
    }
    restored.start(0, 16);
    assert!(!restored.needs_reset());
});
