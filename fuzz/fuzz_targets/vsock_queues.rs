//! A driver that sends a socket device anything, while host programs connect, write, read and go away as they like.
//!
//! Holds: no panic and no hang; every packet is taken or waits for the guest, or the device asks for a reset; a
//! connection that is there is never given more data than it has room for; and after a reset the device works.
#![no_main]

mod driver;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use devices::virtio::queue_harness::{Buffer, Harness};
use devices::virtio::vsock::{VsockConfig, VsockDevice};
use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};

const CID: u64 = 3;
const HEADER_LEN: u32 = 44;
const RX: u32 = 0;
const TX: u32 = 1;
const EVENT_IDX: u64 = 1 << 29;
/// The port of the host where somebody listens.
const PORT: u32 = 52;

#[derive(Arbitrary, Debug)]
struct Input {
    pci: bool,
    event_idx: bool,
    queue_size_log: u8,
    actions: Vec<Action>,
}

#[derive(Arbitrary, Debug)]
enum Action {
    /// A packet of the guest, mostly as it should be.
    Packet {
        op: u8,
        port: u8,
        to: To,
        len: u16,
        flags: u8,
        credit: Credit,
        split: u8,
        indirect: bool,
    },
    /// A packet of any bytes.
    Bytes(Vec<u8>),
    Queue(driver::Step),
    /// Receive buffers.
    Buffers {
        count: u8,
        len: u16,
    },
    Reset,
    /// A host program connects and says this, perhaps behind a proper line.
    Client {
        port: Option<u8>,
        words: Vec<u8>,
    },
    /// A host program writes, reads or closes.
    Write(u8, u16),
    Read(u8, u16),
    Shut(u8, bool),
    Close(u8),
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum To {
    Listener,
    Client(u8),
    Any(u32),
    OtherCid(u64),
    OtherType(u16),
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Credit {
    /// All that was sent was taken, and there is room.
    Honest,
    Full,
    Lie {
        buf_alloc: u32,
        fwd_cnt: u32,
    },
}

fn header(dst_cid: u64, ports: [u32; 2], len: u32, kind: [u16; 2], rest: [u32; 3]) -> Vec<u8> {
    let mut bytes = [CID.to_le_bytes(), dst_cid.to_le_bytes()].concat();
    bytes.extend([ports[0], ports[1], len].into_iter().flat_map(u32::to_le_bytes));
    bytes.extend(kind.into_iter().flat_map(u16::to_le_bytes));
    bytes.extend(rest.into_iter().flat_map(u32::to_le_bytes));
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// What a driver knows: what it was sent on each connection, by the ports of host and guest.
#[derive(Default)]
struct Known {
    buffers: HashMap<u32, (u64, u32)>,
    sent: HashMap<[u32; 2], u32>,
    requested: Vec<[u32; 2]>,
}

impl Known {
    fn collect(&mut self, harness: &mut Harness) {
        for used in harness.take_used(RX) {
            let Some((address, len)) = self.buffers.remove(&used.head) else { continue };
            assert!(used.len <= len, "wrote {} bytes to a buffer of {len}", used.len);
            if used.len < HEADER_LEN {
                assert_eq!(used.len, 0);
                continue;
            }
            let bytes = harness.fetch(address, HEADER_LEN as usize);
            let ports = [u32_at(&bytes, 16), u32_at(&bytes, 20)];
            // Buffers may lie over each other, or over a header: what is read need not be what was written.
            match u16::from_le_bytes([bytes[30], bytes[31]]) {
                1 => self.requested.push(ports),
                5 => {
                    let sent = self.sent.entry(ports).or_default();
                    *sent = sent.wrapping_add(used.len - HEADER_LEN);
                }
                _ => {}
            }
        }
        harness.take_used(TX);
    }
}

fuzz_target!(|input: Input| {
    let folder = format!("/dev/shm/rvmm-fuzz-vsock-{}", std::process::id());
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let path = format!("{folder}/v");
    let listener = UnixListener::bind(format!("{path}_{PORT}")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let config = VsockConfig { vsock_id: None, guest_cid: CID, uds_path: path.clone().into() };
    let mut harness = Harness::behind(
        driver::transport(input.pci),
        Arc::new(Mutex::new(VsockDevice::new(&config).unwrap())),
    );
    // Clients connect to another name of the socket. A device watches the one that it was told, and to end a watch takes the
    // host some 10 ms; there is none where no file has that name.
    let clients_path = format!("{path}-moved");
    std::fs::rename(&path, &clients_path).unwrap();
    let features = if input.event_idx { EVENT_IDX } else { 0 };
    let queue_size = 1 << (input.queue_size_log % 9);
    // The event queue is smaller, and is left alone by a driver that asks too much of it.
    harness.start(features, queue_size);
    let mut known = Known::default();
    let mut programs: Vec<UnixStream> = Vec::new();

    for action in input.actions.into_iter().take(128) {
        match action {
            Action::Packet { op, port, to, len, flags, credit, split, indirect } => {
                let guest = u32::from(port % 8);
                let (mut cid, mut kind, mut host) = (2, 1, PORT);
                match to {
                    To::Listener => {}
                    To::Client(number) => {
                        let count = known.requested.len().max(1);
                        if let Some([requested, _]) = known.requested.get(usize::from(number) % count) {
                            host = *requested;
                        }
                    }
                    To::Any(port) => host = port,
                    To::OtherCid(other) => cid = other,
                    To::OtherType(other) => kind = other,
                }
                let sent = known.sent.get(&[host, guest]).copied().unwrap_or_default();
                let (buf_alloc, fwd_cnt) = match credit {
                    Credit::Honest => (1 << 16, sent),
                    Credit::Full => (0, sent),
                    Credit::Lie { buf_alloc, fwd_cnt } => (buf_alloc, fwd_cnt),
                };
                let len = u32::from(len);
                let op = u16::from(op % 9);
                if op == 1 {
                    known.sent.remove(&[host, guest]);
                }
                let bytes =
                    header(cid, [guest, host], len, [kind, op], [u32::from(flags), buf_alloc, fwd_cnt]);
                let at = 2 << 20;
                harness.memory().write_slice(&bytes, GuestAddress(at)).unwrap();
                let split = u32::from(split % 45);
                let buffers = [
                    Buffer::readable(at, split),
                    Buffer::readable(at + u64::from(split), HEADER_LEN - split + len),
                ];
                if queue_size < 2 || indirect {
                    harness.add_indirect_chain(TX, &buffers);
                } else {
                    harness.add_chain(TX, &buffers);
                }
                harness.kick(TX);
            }
            Action::Bytes(bytes) => {
                let len = bytes.len().min(4096);
                let at = 3 << 20;
                harness.memory().write_slice(&bytes[..len], GuestAddress(at)).unwrap();
                harness.add_chain(TX, &[Buffer::readable(at, len as u32)]);
                harness.kick(TX);
            }
            Action::Queue(step) => {
                // What goes behind the harness's back leaves nobody knowing what is in the rings.
                if !matches!(step, driver::Step::Chain { .. } | driver::Step::Kick { .. }) {
                    known.buffers.clear();
                }
                if let Some(head) = step.take(&mut harness, 3) {
                    known.buffers.remove(&u32::from(head));
                }
            }
            Action::Buffers { count, len } => {
                let len = u32::from(len) % 5000;
                for number in 0..u64::from(count % 32) {
                    let address = (4 << 20) + number * 5000;
                    let head = harness.add_chain(RX, &[Buffer::writable(address, len)]);
                    known.buffers.insert(u32::from(head), (address, len));
                }
                harness.kick(RX);
            }
            Action::Reset => {
                harness.start(features, queue_size);
                known = Known::default();
            }
            Action::Client { port, words } => {
                let Ok(mut program) = UnixStream::connect(&clients_path) else { continue };
                program.set_nonblocking(true).unwrap();
                if let Some(port) = port {
                    let _ = writeln!(program, "CONNECT {}", port % 8);
                }
                let _ = program.write(&words);
                programs.push(program);
            }
            Action::Write(number, len) => {
                if let Some(program) = pick(&mut programs, number) {
                    let _ = program.write(&vec![0x5a; usize::from(len)]);
                }
            }
            Action::Read(number, len) => {
                if let Some(program) = pick(&mut programs, number) {
                    let _ = program.read(&mut vec![0; usize::from(len)]);
                }
            }
            Action::Shut(number, write) => {
                if let Some(program) = pick(&mut programs, number) {
                    let how = if write { std::net::Shutdown::Write } else { std::net::Shutdown::Read };
                    let _ = program.shutdown(how);
                }
            }
            Action::Close(number) => {
                if !programs.is_empty() {
                    programs.swap_remove(usize::from(number) % programs.len());
                }
            }
        }
        for _ in 0..8 {
            if !harness.run_once(std::time::Duration::ZERO) {
                break;
            }
        }
        known.collect(&mut harness);
        while let Ok((program, _)) = listener.accept() {
            program.set_nonblocking(true).unwrap();
            programs.push(program);
        }
    }

    // A new driver finds a device that works.
    drop(programs);
    harness.start(features, 16);
    assert!(!harness.needs_reset());
    let buffer = harness.allocate(4096, 0);
    harness.add_chain(RX, &[Buffer::writable(buffer, 4096)]);
    let request = header(2, [77, PORT], 0, [1, 1], [0, 1 << 16, 0]);
    let packet = harness.place(&request);
    harness.add_chain(TX, &[Buffer::readable(packet, HEADER_LEN)]);
    harness.kick(TX);
    harness.wait_used(RX, 1);
    let answer = harness.fetch(buffer, HEADER_LEN as usize);
    assert_eq!((answer[30], u32_at(&answer, 20)), (2, 77), "a RESPONSE");
    drop(harness);
    std::fs::remove_dir_all(&folder).unwrap();
});

fn pick(programs: &mut [UnixStream], number: u8) -> Option<&mut UnixStream> {
    let count = programs.len().max(1);
    programs.get_mut(usize::from(number) % count)
}
