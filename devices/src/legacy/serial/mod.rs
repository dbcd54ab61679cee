//! The serial port: a 16550A whose registers are those of `vm-superio`.
//!
//! What that model leaves out is left out here too: a write to the FIFO control register does nothing, so bytes that
//! were sent before the guest opened the port stay in the receive FIFO, and piped input is not lost.
//!
//! # Locks
//! `output` comes before `port`, and `port` is never held while output is written: that can block for as long as nobody
//! reads it, and whoever brings input must not wait for it.

mod state;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use vm_superio::serial::{self, SerialEvents};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::{BusAction, BusDevice, byte_registers};
use crate::interrupt::Interrupt;
use crate::lock;
use crate::metrics::SerialMetrics;
pub use state::{MAX_UNWRITTEN, SerialStateV1};

/// Number of I/O ports of a 16550.
pub const SIZE: u64 = 8;

/// Bytes that the receive FIFO of the model holds. A 16550A has 16; drivers ask the line status, not the size.
const FIFO_SIZE: usize = 64;
/// Interrupt enable register, and its bit for received data.
const IER_OFFSET: u8 = 1;
const IER_RDA: u8 = 1;
/// Interrupt identification register; its low bits when nothing is pending, and when received data is.
const IIR_OFFSET: u8 = 2;
const IIR_ID: u8 = 0b1111;
const IIR_NONE: u8 = 0b0001;
const IIR_RDA: u8 = 0b0100;
/// Line control register, and its bit that puts the divisor in the place of the first two registers.
const LCR_OFFSET: u8 = 3;
const LCR_DLAB: u8 = 1 << 7;
/// Modem control register, and its loop-back bit.
const MCR_OFFSET: u8 = 4;
const MCR_LOOP: u8 = 1 << 4;

/// Hands the model's trigger to the interrupt, and never fails: the guest must not notice what the host cannot
/// deliver.
#[derive(Clone)]
struct Line {
    interrupt: Arc<dyn Interrupt>,
    metrics: Arc<SerialMetrics>,
}

impl vm_superio::Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        if self.interrupt.trigger().is_err() {
            self.metrics.interrupt_failures.increment();
        }
        Ok(())
    }
}

impl SerialEvents for Line {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {}
}

/// Where the bytes go that a guest sends.
pub trait SerialOutput: Write + Send {
    /// Bytes that it has taken and will write before the next ones.
    fn held_back(&self) -> &[u8] {
        &[]
    }
}

/// Bytes that the guest sent and nobody has written yet, in order. At most one for each vCPU: none sends another before
/// its own is written.
#[derive(Default)]
struct Sent(VecDeque<u8>);

impl Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Model = serial::Serial<Line, Line, Sent>;

struct Port {
    model: Model,
    /// Somebody found the FIFO without room and waits to be told that there is some.
    starved: bool,
    drain_notifier: Option<EventFd>,
}

impl Port {
    fn read(&mut self, register: u8) -> u8 {
        let value = self.model.read(register);
        // Received data is an interrupt for as long as there is some, but the model forgets it with the first byte that
        // is read. Linux reads 256 bytes at most, then asks here whether that was all.
        let forgotten = register == IIR_OFFSET && value & IIR_ID == IIR_NONE && self.has_data_to_announce();
        if forgotten { value & !IIR_ID | IIR_RDA } else { value }
    }

    fn has_data_to_announce(&mut self) -> bool {
        self.model.fifo_capacity() < FIFO_SIZE
            && self.model.read(LCR_OFFSET) & LCR_DLAB == 0
            && self.model.read(IER_OFFSET) & IER_RDA != 0
    }

    fn looped_back(&mut self) -> bool {
        self.model.read(MCR_OFFSET) & MCR_LOOP != 0
    }

    /// Bytes that can be sent to the guest now; none while the guest tests its port in loop-back mode.
    fn free_space(&mut self) -> usize {
        let free = if self.looped_back() { 0 } else { self.model.fifo_capacity() };
        self.starved |= free == 0;
        free
    }

    /// Wakes whoever waits for room, once half of the FIFO is free: not at each byte that the guest reads.
    fn notify_drained(&mut self) {
        if self.starved && self.model.fifo_capacity() >= FIFO_SIZE / 2 && !self.looped_back() {
            self.starved = false;
            if let Some(notifier) = &self.drain_notifier {
                // An eventfd refuses only when its counter is at the limit, and then it is readable.
                let _ = notifier.write(1);
            }
        }
    }
}

/// A serial port on eight I/O ports.
pub struct Serial {
    output: Mutex<Box<dyn SerialOutput>>,
    port: Mutex<Port>,
    metrics: Arc<SerialMetrics>,
}

impl Serial {
    /// A port as it is at power-on, which raises `interrupt` and sends what the guest writes to `output`.
    ///
    /// Each byte is written and flushed by itself, in the vCPU that sent it. What `output` does not take is counted
    /// and dropped.
    pub fn new(interrupt: Arc<dyn Interrupt>, output: Box<dyn SerialOutput>) -> Self {
        let metrics = Arc::new(SerialMetrics::default());
        let line = Line { interrupt, metrics: metrics.clone() };
        let model = Model::with_events(line.clone(), line, Sent::default());
        let port = Mutex::new(Port { model, starved: false, drain_notifier: None });
        Self { output: Mutex::new(output), port, metrics }
    }

    /// Writes what was sent, in order, whichever vCPU it came from.
    fn write_sent(&self) {
        let mut output = lock(&self.output);
        loop {
            let Some(byte) = lock(&self.port).model.writer_mut().0.pop_front() else { return };
            match output.write_all(&[byte]).and_then(|()| output.flush()) {
                Ok(()) => self.metrics.output_bytes.increment(),
                Err(_) => self.metrics.lost_bytes.increment(),
            }
        }
    }

    /// Sends `bytes` to the guest, as many as the receive FIFO has room for, and says how many that were.
    pub fn enqueue(&self, bytes: &[u8]) -> usize {
        let mut port = lock(&self.port);
        let room = port.free_space();
        let taken = bytes.get(..room).unwrap_or(bytes);
        let count = port.model.enqueue_raw_bytes(taken).unwrap_or(0);
        port.starved |= count < bytes.len() || port.model.fifo_capacity() == 0;
        self.metrics.input_bytes.add(count as u64);
        count
    }

    /// How many bytes [`enqueue`](Self::enqueue) would take now.
    ///
    /// An answer of 0 also arms the drain notifier.
    pub fn free_space(&self) -> usize {
        lock(&self.port).free_space()
    }

    /// Names an eventfd that is written once there is room again, after `enqueue` or `free_space` found none left.
    pub fn set_drain_notifier(&self, notifier: EventFd) {
        lock(&self.port).drain_notifier = Some(notifier);
    }

    /// What this port counts.
    pub fn metrics(&self) -> Arc<SerialMetrics> {
        self.metrics.clone()
    }
}

/// The port that an access means, among the eight of a 16550.
fn port_register(register: u64) -> Option<u8> {
    u8::try_from(register).ok().filter(|register| u64::from(*register) < SIZE)
}

impl BusDevice for Serial {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut port = lock(&self.port);
        for (register, byte) in byte_registers(offset).zip(data) {
            *byte = port_register(register).map_or(0xff, |register| port.read(register));
        }
        port.notify_drained();
    }

    fn write(&self, offset: u64, data: &[u8]) -> BusAction {
        let mut port = lock(&self.port);
        for (register, byte) in byte_registers(offset).zip(data) {
            if let Some(register) = port_register(register) {
                // Neither the interrupt nor `Sent` fails.
                let _ = port.model.write(register, *byte);
            }
        }
        port.notify_drained();
        let sent = !port.model.writer().0.is_empty();
        drop(port);
        if sent {
            self.write_sent();
        }
        BusAction::None
    }
}

#[cfg(test)]
mod tests;
