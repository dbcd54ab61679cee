//! A mock driver that drives any virtio device as a guest would: by its registers, its rings and its interrupts,
//! without KVM.
//!
//! For tests and fuzz targets: what cannot be is a panic here. Memory is two regions that touch, so that buffers can
//! cross from one host mapping to the next; rings are in the first MiB, buffers behind them.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "what cannot be ends the test that uses this"
)]

mod restored;

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio as mmio;
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::split::Descriptor;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, GuestAddress, GuestRegionMmap};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::device::{DeviceEvent, SharedDevice, Trigger, VirtioDevice};
use super::pci_harness::PciRegisters;
use super::transport::Transport as _;
use super::transport::core::TransportCore;
use super::transport::mmio::MmioTransport;
use crate::GuestMemory;
use crate::bus::{BusAction, BusDevice};
use crate::interrupt::FakeInterrupt;

/// Bytes of guest memory.
pub const MEMORY_SIZE: u64 = 8 << 20;
/// Where the second region of memory begins.
pub const REGION_BOUNDARY: u64 = 4 << 20;
/// Features that every device here is driven with, unless a test says otherwise.
pub const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;

const RING_STRIDE: u64 = 0x20000;
const AVAIL_OFFSET: u64 = 0x8000;
const USED_OFFSET: u64 = 0x10000;
const FIRST_BUFFER: u64 = 1 << 20;
/// How long a device may take to use a buffer before the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// A part of a descriptor chain.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    address: u64,
    len: u32,
    flags: u16,
}

impl Buffer {
    /// One that the device reads.
    pub fn readable(address: u64, len: u32) -> Self {
        Self { address, len, flags: 0 }
    }

    /// One that the device writes.
    pub fn writable(address: u64, len: u32) -> Self {
        Self { address, len, flags: VRING_DESC_F_WRITE as u16 }
    }
}

/// A buffer that the device used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Head of its chain.
    pub head: u32,
    /// Bytes that the device wrote.
    pub len: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct DriverQueue {
    size: u16,
    next_descriptor: u16,
    avail_idx: u16,
    used_idx: u16,
}

/// Which transport a device is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// virtio-mmio.
    Mmio,
    /// virtio-pci.
    Pci,
}

/// The registers of a device, under the names that virtio-mmio has for them.
enum Registers {
    Mmio { transport: MmioTransport, interrupt: Arc<FakeInterrupt> },
    Pci(Box<PciRegisters>),
}

/// A device behind a transport, and its driver.
pub struct Harness {
    registers: Registers,
    core: Arc<TransportCore>,
    memory: GuestMemory,
    queues: Vec<DriverQueue>,
    next_buffer: u64,
    epoll: Epoll,
}

impl Harness {
    /// A device behind virtio-mmio that no driver has touched.
    pub fn new(device: impl VirtioDevice + 'static) -> Self {
        Self::with_shared(Arc::new(Mutex::new(device)))
    }

    /// A device behind virtio-mmio that no driver has touched, and that the test keeps a hold of.
    pub fn with_shared(device: SharedDevice) -> Self {
        Self::behind(TransportKind::Mmio, device)
    }

    /// A device behind a transport, that no driver has touched, and that the test keeps a hold of.
    pub fn behind(transport: TransportKind, device: SharedDevice) -> Self {
        let memory = guest_memory(&[(0, REGION_BOUNDARY), (REGION_BOUNDARY, MEMORY_SIZE - REGION_BOUNDARY)]);
        let (registers, core) = match transport {
            TransportKind::Mmio => {
                let interrupt = Arc::new(FakeInterrupt::default());
                let transport = MmioTransport::new(memory.clone(), device, interrupt.clone()).unwrap();
                let core = transport.core().clone();
                (Registers::Mmio { transport, interrupt }, core)
            }
            TransportKind::Pci => {
                let registers = PciRegisters::new(memory.clone(), device);
                let core = registers.function().core().clone();
                (Registers::Pci(Box::new(registers)), core)
            }
        };

        let epoll = Epoll::new().unwrap();
        for (token, event) in (0..).zip(core.queue_events()) {
            let fd = std::os::fd::AsRawFd::as_raw_fd(event);
            let interest = EventSet::IN | EventSet::EDGE_TRIGGERED;
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(interest, token)).unwrap();
        }
        for backend in core.backend_fds() {
            let interest = match backend.trigger {
                Trigger::Level => EventSet::IN,
                Trigger::Edge => EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED,
            };
            let event = EpollEvent::new(interest, u64::from(backend.token) | 1 << 32);
            epoll.ctl(ControlOperation::Add, backend.fd, event).unwrap();
        }
        let queues = vec![DriverQueue::default(); core.queue_events().len()];
        Self { registers, core, memory, queues, next_buffer: FIRST_BUFFER, epoll }
    }

    /// A device behind virtio-mmio whose driver has set DRIVER_OK, with `features` and VIRTIO_F_VERSION_1 and rings of
    /// `queue_size`.
    pub fn started(device: impl VirtioDevice + 'static, features: u64, queue_size: u16) -> Self {
        Self::started_behind(TransportKind::Mmio, device, features, queue_size)
    }

    /// [`started`](Self::started), behind a transport.
    pub fn started_behind(
        transport: TransportKind,
        device: impl VirtioDevice + 'static,
        features: u64,
        queue_size: u16,
    ) -> Self {
        let mut harness = Self::behind(transport, Arc::new(Mutex::new(device)));
        harness.start(features, queue_size);
        harness
    }

    /// Resets the device and initializes it (virtio 1.3, 3.1.1).
    pub fn start(&mut self, features: u64, queue_size: u16) {
        self.negotiate(features | VERSION_1);
        if let Registers::Pci(registers) = &self.registers {
            registers.assign_vectors();
        }
        for queue in 0..self.queues.len() {
            self.set_up_queue(queue as u32, queue_size);
        }
        self.write(mmio::VIRTIO_MMIO_STATUS, self.status() | VIRTIO_CONFIG_S_DRIVER_OK);
    }

    /// Resets the device and initializes it up to FEATURES_OK, with exactly `features`.
    pub fn negotiate(&mut self, features: u64) {
        self.write(mmio::VIRTIO_MMIO_STATUS, 0);
        self.write(mmio::VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
        self.write(mmio::VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(mmio::VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
            self.write(mmio::VIRTIO_MMIO_DRIVER_FEATURES, half);
        }
        self.write(mmio::VIRTIO_MMIO_STATUS, self.status() | VIRTIO_CONFIG_S_FEATURES_OK);
    }

    /// Clears the rings of a queue and tells the device where they are. True when the device says that it is ready.
    pub fn set_up_queue(&mut self, queue: u32, size: u16) -> bool {
        let base = ring(queue);
        let entries = u64::from(size);
        for (offset, len) in
            [(0, 16 * entries), (AVAIL_OFFSET, 6 + 2 * entries), (USED_OFFSET, 6 + 8 * entries)]
        {
            self.memory.write_slice(&vec![0; len as usize], GuestAddress(base + offset)).unwrap();
        }
        self.queues[queue as usize] = DriverQueue { size, ..DriverQueue::default() };
        self.write(mmio::VIRTIO_MMIO_QUEUE_SEL, queue);
        self.write(mmio::VIRTIO_MMIO_QUEUE_NUM, u32::from(size));
        for (register, address) in [
            (mmio::VIRTIO_MMIO_QUEUE_DESC_LOW, base),
            (mmio::VIRTIO_MMIO_QUEUE_AVAIL_LOW, base + AVAIL_OFFSET),
            (mmio::VIRTIO_MMIO_QUEUE_USED_LOW, base + USED_OFFSET),
        ] {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(mmio::VIRTIO_MMIO_QUEUE_READY, 1);
        self.read(mmio::VIRTIO_MMIO_QUEUE_READY) == 1
    }

    /// The transport, which is virtio-mmio, for accesses of any width.
    pub fn transport(&self) -> &MmioTransport {
        match &self.registers {
            Registers::Mmio { transport, .. } => transport,
            Registers::Pci(_) => panic!("the device is behind virtio-pci"),
        }
    }

    /// The transport, which is virtio-pci, for accesses of any kind.
    pub fn pci(&self) -> &PciRegisters {
        match &self.registers {
            Registers::Mmio { .. } => panic!("the device is behind virtio-mmio"),
            Registers::Pci(registers) => registers,
        }
    }

    /// What is behind the transport.
    pub fn core(&self) -> &TransportCore {
        &self.core
    }

    /// The guest's memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Reads a register, by its offset in virtio-mmio.
    pub fn read(&self, register: u32) -> u32 {
        match &self.registers {
            Registers::Mmio { transport, .. } => {
                let mut data = [0; 4];
                transport.read(u64::from(register), &mut data);
                u32::from_le_bytes(data)
            }
            Registers::Pci(registers) => registers.read(register),
        }
    }

    /// Writes a register, by its offset in virtio-mmio.
    pub fn write(&self, register: u32, value: u32) {
        match &self.registers {
            Registers::Mmio { transport, .. } => {
                assert_eq!(transport.write(u64::from(register), &value.to_le_bytes()), BusAction::None);
            }
            Registers::Pci(registers) => registers.write(register, value),
        }
    }

    /// Device status.
    pub fn status(&self) -> u32 {
        self.read(mmio::VIRTIO_MMIO_STATUS)
    }

    /// Whether the device asks for a reset.
    pub fn needs_reset(&self) -> bool {
        self.status() & VIRTIO_CONFIG_S_NEEDS_RESET != 0
    }

    /// `len` bytes of the configuration space at `offset`.
    pub fn config(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        match &self.registers {
            Registers::Mmio { transport, .. } => {
                transport.read(u64::from(mmio::VIRTIO_MMIO_CONFIG) + offset, &mut data);
            }
            Registers::Pci(registers) => registers.config(offset, &mut data),
        }
        data
    }

    /// Writes `data` to the configuration space at `offset`.
    pub fn write_config(&self, offset: u64, data: &[u8]) {
        match &self.registers {
            Registers::Mmio { transport, .. } => {
                let register = u64::from(mmio::VIRTIO_MMIO_CONFIG) + offset;
                assert_eq!(transport.write(register, data), BusAction::None);
            }
            Registers::Pci(registers) => registers.write_config(offset, data),
        }
    }

    /// Interrupts raised so far.
    pub fn interrupts(&self) -> usize {
        match &self.registers {
            Registers::Mmio { interrupt, .. } => interrupt.count(),
            Registers::Pci(registers) => registers.msi().sent().len(),
        }
    }

    /// Address of `len` bytes of guest memory that nothing else uses, with `fill` in each of them.
    pub fn allocate(&mut self, len: u32, fill: u8) -> u64 {
        let address = self.next_buffer;
        self.next_buffer += u64::from(len).next_multiple_of(16);
        self.memory.write_slice(&vec![fill; len as usize], GuestAddress(address)).unwrap();
        address
    }

    /// Address of a copy of `data` in guest memory.
    pub fn place(&mut self, data: &[u8]) -> u64 {
        let address = self.allocate(data.len() as u32, 0);
        self.memory.write_slice(data, GuestAddress(address)).unwrap();
        address
    }

    /// `len` bytes of guest memory.
    pub fn fetch(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read_slice(&mut data, GuestAddress(address)).unwrap();
        data
    }

    /// Writes a descriptor into a queue's table.
    pub fn write_descriptor(&self, queue: u32, index: u16, descriptor: Descriptor) {
        let address = ring(queue) + 16 * u64::from(index);
        self.memory.write_obj(descriptor, GuestAddress(address)).unwrap();
    }

    /// Makes a chain of `buffers` available, and returns its head.
    pub fn add_chain(&mut self, queue: u32, buffers: &[Buffer]) -> u16 {
        let state = &mut self.queues[queue as usize];
        let (first, size) = (state.next_descriptor, state.size);
        state.next_descriptor = (first + buffers.len() as u16) % size;
        for (position, descriptor) in (0..).zip(chain(buffers, |position| (first + position) % size)) {
            self.write_descriptor(queue, (first + position) % size, descriptor);
        }
        self.make_available(queue, first);
        first
    }

    /// Makes a chain of `buffers` available by an indirect table, and returns its head.
    pub fn add_indirect_chain(&mut self, queue: u32, buffers: &[Buffer]) -> u16 {
        let table = self.allocate(16 * buffers.len() as u32, 0);
        for (position, descriptor) in (0..).zip(chain(buffers, |position| position)) {
            self.memory.write_obj(descriptor, GuestAddress(table + 16 * position)).unwrap();
        }
        let indirect = Descriptor::new(table, 16 * buffers.len() as u32, VRING_DESC_F_INDIRECT as u16, 0);
        let state = &mut self.queues[queue as usize];
        let head = state.next_descriptor;
        state.next_descriptor = (head + 1) % state.size;
        self.write_descriptor(queue, head, indirect);
        self.make_available(queue, head);
        head
    }

    /// Puts `head` into the available ring, whatever it is.
    pub fn make_available(&mut self, queue: u32, head: u16) {
        let state = &mut self.queues[queue as usize];
        let avail = ring(queue) + AVAIL_OFFSET;
        let entry = avail + 4 + 2 * u64::from(state.avail_idx % state.size);
        state.avail_idx = state.avail_idx.wrapping_add(1);
        self.memory.write_obj(head, GuestAddress(entry)).unwrap();
        self.set_avail_idx(queue, self.queues[queue as usize].avail_idx);
    }

    /// Writes the index of the available ring.
    pub fn set_avail_idx(&mut self, queue: u32, idx: u16) {
        self.queues[queue as usize].avail_idx = idx;
        self.memory.write_obj(idx, GuestAddress(ring(queue) + AVAIL_OFFSET + 2)).unwrap();
    }

    /// Another vCPU of the driver: each call makes as many chains available as the ring takes, of those that are in it.
    pub fn refill(&self, queue: u32) -> impl Fn() + Send + 'static {
        let (memory, size, base) = (self.memory.clone(), self.queues[queue as usize].size, ring(queue));
        move || {
            let used: u16 = memory.read_obj(GuestAddress(base + USED_OFFSET + 2)).unwrap();
            memory.write_obj(used.wrapping_add(size), GuestAddress(base + AVAIL_OFFSET + 2)).unwrap();
        }
    }

    /// Writes the flags of the available ring.
    pub fn set_avail_flags(&self, queue: u32, flags: u16) {
        self.memory.write_obj(flags, GuestAddress(ring(queue) + AVAIL_OFFSET)).unwrap();
    }

    /// Asks for an interrupt once the used ring's index passes `used_event` (VIRTIO_F_EVENT_IDX).
    pub fn set_used_event(&self, queue: u32, used_event: u16) {
        let offset = AVAIL_OFFSET + 4 + 2 * u64::from(self.queues[queue as usize].size);
        self.memory.write_obj(used_event, GuestAddress(ring(queue) + offset)).unwrap();
    }

    /// The index from which on the device wants to be notified (VIRTIO_F_EVENT_IDX).
    pub fn avail_event(&self, queue: u32) -> u16 {
        let offset = USED_OFFSET + 4 + 8 * u64::from(self.queues[queue as usize].size);
        self.memory.read_obj(GuestAddress(ring(queue) + offset)).unwrap()
    }

    /// Notifies the device of a queue and has it do what it can do at once.
    pub fn kick(&mut self, queue: u32) {
        self.write(mmio::VIRTIO_MMIO_QUEUE_NOTIFY, queue);
        while self.run_once(Duration::ZERO) {}
    }

    /// Waits up to `timeout` for an event and has the device process it. False when none came.
    pub fn run_once(&mut self, timeout: Duration) -> bool {
        let mut events = [EpollEvent::default(); 8];
        let timeout = i32::try_from(timeout.as_millis()).unwrap();
        let count = loop {
            match self.epoll.wait(timeout, &mut events) {
                Ok(count) => break count,
                // io_uring finishes its work in the thread that submitted it, which ends the thread's waits.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("epoll_wait: {error}"),
            }
        };
        for event in &events[..count] {
            let token = event.data() as u32;
            let event = if event.data() >> 32 == 0 {
                DeviceEvent::Queue(token as u16)
            } else {
                DeviceEvent::Backend(token)
            };
            self.core.process(event);
        }
        count > 0
    }

    /// The buffers that the device used since the last call.
    pub fn take_used(&mut self, queue: u32) -> Vec<Used> {
        let state = &mut self.queues[queue as usize];
        let base = ring(queue) + USED_OFFSET;
        let idx: u16 = self.memory.read_obj(GuestAddress(base + 2)).unwrap();
        let mut used = Vec::new();
        while state.used_idx != idx {
            let entry = base + 4 + 8 * u64::from(state.used_idx % state.size);
            let [head, len]: [u32; 2] = self.memory.read_obj(GuestAddress(entry)).unwrap();
            used.push(Used { head, len });
            state.used_idx = state.used_idx.wrapping_add(1);
        }
        used
    }

    /// Has the device process events until it has used `count` buffers, which must be before long.
    pub fn wait_used(&mut self, queue: u32, count: usize) -> Vec<Used> {
        let deadline = Instant::now() + PATIENCE;
        let mut used = self.take_used(queue);
        while used.len() < count {
            assert!(
                Instant::now() < deadline,
                "used {used:?} of {count} buffers, status {:#x}",
                self.status()
            );
            self.run_once(Duration::from_millis(100));
            used.extend(self.take_used(queue));
        }
        used
    }
}

/// Descriptors that chain `buffers`, the one at `position` being entry `index(position)` of its table.
fn chain(buffers: &[Buffer], index: impl Fn(u16) -> u16) -> impl Iterator<Item = Descriptor> {
    (0..).zip(buffers).map(move |(position, buffer)| {
        let last = usize::from(position) + 1 == buffers.len();
        let next = if last { 0 } else { VRING_DESC_F_NEXT as u16 };
        Descriptor::new(
            buffer.address,
            buffer.len,
            buffer.flags | next,
            if last { 0 } else { index(position + 1) },
        )
    })
}

/// Anonymous guest memory of regions `(address, length)`, without a dirty bitmap.
pub fn guest_memory(regions: &[(u64, u64)]) -> GuestMemory {
    let regions = regions.iter().map(|(address, len)| {
        let mapping = MmapRegionBuilder::new_with_bitmap(*len as usize, None)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .build()
            .unwrap();
        GuestRegionMmap::new(mapping, GuestAddress(*address)).unwrap()
    });
    GuestMemory::from_regions(regions.collect()).unwrap()
}

/// Where the rings of a queue are.
fn ring(queue: u32) -> u64 {
    RING_STRIDE * (1 + u64::from(queue))
}
