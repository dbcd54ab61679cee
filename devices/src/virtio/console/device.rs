use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use log::debug;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use super::Sink;
use super::layout::ConfigSpace;
use super::state::ConsoleStateV1;
use crate::metrics::ConsoleMetrics;
use crate::state::StateError;
use crate::virtio::device::{
    Activation, BackendFd, DeviceError, DeviceEvent, DeviceInterrupt, QueuePosition, VirtioDevice,
};
use crate::virtio::queue::{Chain, VirtQueue};
use crate::virtio::state::DeviceState;

/// VIRTIO_CONSOLE_F_SIZE (virtio 1.3, 5.3.3): the configuration space has the size of the terminal.
const VIRTIO_CONSOLE_F_SIZE: u32 = 0;

/// receiveq(port0) and transmitq(port0) (5.3.2).
const RECEIVE_QUEUE: u16 = 0;
const TRANSMIT_QUEUE: u16 = 1;
const QUEUE_MAX_SIZES: [u16; 2] = [64; 2];

/// Tokens of the device's own descriptors: input has come, and the output has room again.
const INPUT_TOKEN: u32 = 0;
const ROOM_TOKEN: u32 = 1;
const TIMER_TOKEN: u32 = 2;

/// How long the driver may wait until it is told that its output was taken. Linux does not wait but looks, so by then
/// it knows, and with VIRTIO_F_EVENT_IDX is not interrupted at all; on virtio-mmio that is half of what a line costs.
const NOTIFICATION_DELAY: Duration = Duration::from_millis(1);

/// Bytes of input that wait for the driver.
pub const INPUT_CAPACITY: usize = 4096;
/// Bytes of output that one call takes before other devices get their turn.
pub const MAX_OUTPUT_PER_CALL: usize = 64 << 10;
/// What a buffer costs of that, however few bytes it has.
const COST_OF_A_BUFFER: usize = 512;
/// Bytes of output that are copied at a time.
const BLOCK_LEN: usize = 4096;
/// Buffers that one call fills with input.
const MAX_INPUTS_PER_CALL: usize = 64;

/// What exists from DRIVER_OK to the next reset.
struct Active {
    receive: VirtQueue,
    transmit: VirtQueue,
    interrupt: Arc<dyn DeviceInterrupt>,
    /// The rest of a buffer that was begun. Those behind it wait.
    begun: Option<Chain>,
    /// Bytes of that buffer that were passed on.
    passed_on: u64,
    /// Bytes of the next buffer that were passed on before the device was saved.
    skip: u64,
    /// The output is full, and will say when it is not.
    output_full: bool,
    /// The timer runs, after which the driver is told of what was taken.
    notification_due: bool,
}

/// How far a buffer was passed on.
enum Progress {
    Whole,
    OutputFull,
    ShareSpent,
}

/// A console of one port.
pub struct ConsoleDevice {
    output: Box<dyn Sink>,
    /// Written when the output has room again.
    room: EventFd,
    input: VecDeque<u8>,
    /// Written when there is input for the driver.
    input_event: EventFd,
    /// Somebody has more input than there was room for.
    starved: bool,
    drain_notifier: Option<EventFd>,
    timer: TimerFd,
    space: ConfigSpace,
    metrics: Arc<ConsoleMetrics>,
    /// Bytes of the first buffer of a driver that was restored that are not to be passed on again.
    skip: u64,
    /// A driver that was restored knows another size of its terminal.
    resized: bool,
    active: Option<Active>,
}

impl ConsoleDevice {
    /// A console whose output goes to `output`.
    ///
    /// # Errors
    /// When the host has no eventfd or timer to give.
    pub fn new(mut output: Box<dyn Sink>) -> io::Result<Self> {
        let eventfd = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        let room = eventfd()?;
        output.set_room_notifier(room.try_clone()?);
        Ok(Self {
            output,
            room,
            input: VecDeque::new(),
            input_event: eventfd()?,
            starved: false,
            drain_notifier: None,
            timer: TimerFd::new().map_err(|error| io::Error::from_raw_os_error(error.errno()))?,
            space: ConfigSpace::default(),
            metrics: Arc::default(),
            skip: 0,
            resized: false,
            active: None,
        })
    }

    /// What this console counts.
    pub fn metrics(&self) -> Arc<ConsoleMetrics> {
        self.metrics.clone()
    }

    /// Sends `bytes` to the guest, as many as there is room for, and says how many that were. They wait for the
    /// driver if it is not there yet.
    pub fn enqueue(&mut self, bytes: &[u8]) -> usize {
        let room = INPUT_CAPACITY.saturating_sub(self.input.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.input.extend(taken);
        self.starved |= taken.len() < bytes.len() || self.input.len() >= INPUT_CAPACITY;
        if !taken.is_empty() && self.active.is_some() {
            // An eventfd refuses only when its counter is at the limit, and then it is readable.
            let _ = self.input_event.write(1);
        }
        taken.len()
    }

    /// Names an eventfd that is written once there is room for input again, after `enqueue` found too little.
    pub fn set_drain_notifier(&mut self, notifier: EventFd) {
        self.drain_notifier = Some(notifier);
    }

    /// Tells the guest the size of its terminal in characters; 0 means that it is not known.
    pub fn set_size(&mut self, columns: u16, rows: u16) {
        if self.space.set_size(columns, rows)
            && let Some(active) = &self.active
        {
            active.interrupt.signal_config_change();
        }
    }

    /// Passes on what the driver has written, as far as the output has room, and tells the driver later.
    fn transmit(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        self.take_output(active)?;
        if active.notification_due {
            return Ok(());
        }
        match self.timer.reset(NOTIFICATION_DELAY, None) {
            Ok(()) => active.notification_due = true,
            Err(_) => active.transmit.notify_driver()?,
        }
        Ok(())
    }

    fn take_output(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        let Active { transmit: queue, begun, passed_on, skip, output_full, .. } = active;
        queue.disable_notifications()?;
        let mut share = MAX_OUTPUT_PER_CALL;
        while share > 0 {
            let mut chain = match begun.take() {
                Some(chain) => chain,
                None => match queue.pop()? {
                    Some(mut chain) => {
                        *passed_on = chain.readable.take_front(std::mem::take(skip)).len();
                        chain
                    }
                    None if queue.enable_notifications()? => {
                        // Costs too: a driver may move the index to and fro.
                        share = share.saturating_sub(COST_OF_A_BUFFER);
                        continue;
                    }
                    None => return Ok(()),
                },
            };
            let before = chain.readable.len();
            let progress = self.write_out(queue, &mut chain, &mut share);
            *passed_on += before.saturating_sub(chain.readable.len());
            match progress {
                Progress::Whole => {
                    queue.add_used(chain.head, 0)?;
                    share = share.saturating_sub(COST_OF_A_BUFFER);
                }
                Progress::ShareSpent => *begun = Some(chain),
                Progress::OutputFull => {
                    *begun = Some(chain);
                    *output_full = true;
                    self.metrics.output_full.increment();
                    return Ok(());
                }
            }
        }
        queue.continue_later();
        Ok(())
    }

    /// Passes on what is left of a buffer, and takes it off `share`.
    fn write_out(&mut self, queue: &VirtQueue, chain: &mut Chain, share: &mut usize) -> Progress {
        let mut block = [0; BLOCK_LEN];
        while !chain.readable.is_empty() {
            if *share == 0 {
                return Progress::ShareSpent;
            }
            let len = self.output.room().min(*share).min(BLOCK_LEN);
            if len == 0 {
                return Progress::OutputFull;
            }
            let part = chain.readable.take_front(len as u64);
            let Some(bytes) = block.get_mut(..part.len() as usize) else { break };
            *share = share.saturating_sub(bytes.len());
            if part.read(queue.memory(), bytes).is_err() {
                self.metrics.invalid_buffers.increment();
                break;
            }
            match self.output.write(bytes) {
                Ok(()) => self.metrics.output_bytes.add(bytes.len() as u64),
                Err(error) => {
                    self.metrics.lost_bytes.add(bytes.len() as u64);
                    debug!("console: output is lost: {error}");
                }
            }
        }
        Progress::Whole
    }

    /// Gives the driver the input that there is, as far as it has buffers.
    fn receive(&mut self, queue: &mut VirtQueue) -> Result<(), DeviceError> {
        queue.disable_notifications()?;
        let mut filled = 0;
        while !self.input.is_empty() {
            if filled >= MAX_INPUTS_PER_CALL {
                queue.continue_later();
                break;
            }
            filled += 1;
            let Some(chain) = queue.pop()? else {
                if queue.enable_notifications()? {
                    continue;
                }
                break;
            };
            let written = self.write_in(queue, &chain);
            queue.add_used(chain.head, written)?;
        }
        queue.notify_driver()?;
        if self.starved && self.input.len() <= INPUT_CAPACITY / 2 {
            self.starved = false;
            if let Some(notifier) = &self.drain_notifier {
                let _ = notifier.write(1);
            }
        }
        Ok(())
    }

    /// Fills a buffer with input; the bytes that it got. One that is not in guest memory gets none.
    fn write_in(&mut self, queue: &VirtQueue, chain: &Chain) -> u32 {
        let room = usize::try_from(chain.writable.len()).unwrap_or(usize::MAX);
        let count = room.min(self.input.len());
        let bytes = self.input.make_contiguous().get(..count).unwrap_or_default();
        let Ok(written) = chain.writable.write(queue.memory(), bytes) else {
            self.metrics.invalid_buffers.increment();
            return 0;
        };
        self.input.drain(..written.min(count));
        self.metrics.input_bytes.add(written as u64);
        written as u32
    }
}

impl VirtioDevice for ConsoleDevice {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_CONSOLE_F_SIZE
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_MAX_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.space.read(offset, data);
    }

    /// Edge-triggered and never emptied: each thing that happens is one event, and one that comes while the device is
    /// not active is no more than lost.
    fn backend_fds(&self) -> Vec<BackendFd> {
        vec![
            BackendFd::edge(INPUT_TOKEN, self.input_event.as_raw_fd()),
            BackendFd::edge(ROOM_TOKEN, self.room.as_raw_fd()),
            BackendFd::edge(TIMER_TOKEN, self.timer.as_raw_fd()),
        ]
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let Activation { memory, interrupt, queues, features: _ } = activation;
        let mut queues = (0..)
            .zip(queues)
            .map(|(index, queue)| VirtQueue::new(index, queue, memory.clone(), interrupt.clone()));
        let (Some(mut receive), Some(transmit)) = (queues.next(), queues.next()) else { return Ok(()) };
        // Buffers for input are looked for when there is some, not when the driver adds them.
        receive.disable_notifications()?;
        drop(queues);
        self.active = Some(Active {
            receive,
            transmit,
            interrupt,
            begun: None,
            passed_on: 0,
            skip: std::mem::take(&mut self.skip),
            output_full: false,
            notification_due: false,
        });
        if !self.input.is_empty() {
            let _ = self.input_event.write(1);
        }
        if let Some(active) = self.active.as_ref().filter(|_| std::mem::take(&mut self.resized)) {
            active.interrupt.signal_config_change();
        }
        Ok(())
    }

    fn process(&mut self, event: DeviceEvent) -> Result<(), DeviceError> {
        let Some(mut active) = self.active.take() else { return Ok(()) };
        let result = match event {
            DeviceEvent::Queue(RECEIVE_QUEUE) | DeviceEvent::Backend(INPUT_TOKEN) => {
                self.receive(&mut active.receive)
            }
            DeviceEvent::Queue(TRANSMIT_QUEUE) if !active.output_full => self.transmit(&mut active),
            DeviceEvent::Backend(ROOM_TOKEN) if active.output_full => {
                active.output_full = false;
                self.transmit(&mut active)
            }
            DeviceEvent::Backend(TIMER_TOKEN) => {
                active.notification_due = false;
                active.transmit.notify_driver()
            }
            DeviceEvent::Queue(_) | DeviceEvent::Backend(_) => Ok(()),
        };
        self.active = Some(active);
        result
    }

    fn deactivate(&mut self) -> Vec<Queue> {
        let Some(mut active) = self.active.take() else { return Vec::new() };
        // What a driver wrote last thing and did not wait for. A ring that it broke has nothing more to say.
        let _ = self.take_output(&mut active);
        vec![active.receive.into_inner(), active.transmit.into_inner()]
    }

    fn drain(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn queue_positions(&self) -> Vec<QueuePosition> {
        let Some(Active { receive, transmit, begun, .. }) = &self.active else { return Vec::new() };
        vec![receive.position(0), transmit.position(begun.is_some().into())]
    }

    fn save(&self) -> DeviceState {
        let (columns, rows) = self.space.size();
        let active = self.active.as_ref();
        // Until the first buffer is taken, what was begun is what a device before this one had begun.
        let begun = active
            .map_or(self.skip, |active| if active.begun.is_some() { active.passed_on } else { active.skip });
        DeviceState::ConsoleV1(ConsoleStateV1 {
            input: self.input.iter().copied().collect(),
            begun,
            columns,
            rows,
        })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let DeviceState::ConsoleV1(state) = state else { return Err(state.is_not("a console")) };
        state.validate()?;
        let ConsoleStateV1 { input, begun, columns, rows } = state;
        self.input = input.iter().copied().collect();
        self.skip = *begun;
        // The terminal that is there now counts. Without one the guest keeps what it knows.
        if self.space.size() == (0, 0) {
            self.space.set_size(*columns, *rows);
        }
        self.resized = self.space.size() != (*columns, *rows);
        Ok(())
    }
}
