use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::state::StateError;
use crate::virtio::device::DeviceEvent;
use crate::virtio::queue_harness::{Buffer, Harness, MEMORY_SIZE};
use crate::virtio::state::{DeviceState, VirtioStateV1};

const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const SIZE: u64 = 1 << 0;

#[derive(Default)]
struct Reader {
    text: Vec<u8>,
    room: usize,
    waited_for: bool,
    notifier: Option<EventFd>,
}

/// An output with as much room as the test gives it.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Reader>>);

impl Output {
    fn make_room(&self, room: usize) {
        let mut reader = self.0.lock().unwrap();
        reader.room = room;
        if std::mem::take(&mut reader.waited_for) {
            reader.notifier.as_ref().unwrap().write(1).unwrap();
        }
    }

    fn text(&self) -> Vec<u8> {
        self.0.lock().unwrap().text.clone()
    }
}

impl Sink for Output {
    fn room(&mut self) -> usize {
        let mut reader = self.0.lock().unwrap();
        reader.waited_for |= reader.room == 0;
        reader.room
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut reader = self.0.lock().unwrap();
        assert!(bytes.len() <= reader.room);
        reader.room -= bytes.len();
        reader.text.extend_from_slice(bytes);
        Ok(())
    }

    fn set_room_notifier(&mut self, notifier: EventFd) {
        self.0.lock().unwrap().notifier = Some(notifier);
    }
}

struct Console {
    harness: Harness,
    device: Arc<Mutex<ConsoleDevice>>,
    output: Output,
}

impl Console {
    /// A console that no driver has touched, whose output has `room`.
    fn new(room: usize) -> Self {
        let output = Output::default();
        output.make_room(room);
        let device = Arc::new(Mutex::new(ConsoleDevice::new(Box::new(output.clone())).unwrap()));
        Self { harness: Harness::with_shared(device.clone()), device, output }
    }

    fn started(room: usize) -> Self {
        let mut console = Self::new(room);
        console.harness.start(SIZE, 64);
        console
    }

    fn print(&mut self, text: &[u8]) {
        let address = self.harness.place(text);
        self.harness.add_chain(TRANSMIT, &[Buffer::readable(address, text.len() as u32)]);
    }

    /// A buffer for input; where it is.
    fn add_input_buffer(&mut self, len: u32) -> u64 {
        let address = self.harness.allocate(len, 0);
        self.harness.add_chain(RECEIVE, &[Buffer::writable(address, len)]);
        address
    }

    fn settle(&mut self) {
        while self.harness.run_once(Duration::ZERO) {}
    }
}

#[test]
fn what_the_guest_writes_comes_out_in_order() {
    let mut console = Console::started(1 << 20);
    console.print(b"one ");
    let (first, second) = (console.harness.place(b"tw"), console.harness.place(b"o three"));
    console.harness.add_chain(TRANSMIT, &[Buffer::readable(first, 2), Buffer::readable(second, 7)]);
    console.harness.kick(TRANSMIT);
    assert_eq!(console.output.text(), b"one two three");
    assert_eq!(console.harness.take_used(TRANSMIT).len(), 2);
    assert_eq!(console.device.lock().unwrap().metrics().output_bytes.get(), 13);
}

#[test]
fn the_driver_is_told_a_moment_later_unless_it_has_seen_for_itself() {
    let mut console = Console::new(1 << 20);
    console.harness.start(SIZE | 1 << VIRTIO_RING_F_EVENT_IDX, 64);
    console.settle();
    for (used_event, interrupts) in [(0, 1), (2, 1), (2, 2)] {
        console.print(b"text");
        console.harness.core().process(DeviceEvent::Queue(TRANSMIT as u16));
        assert_eq!(console.harness.take_used(TRANSMIT).len(), 1);
        // The second time the driver wants to hear of the one after this.
        console.harness.set_used_event(TRANSMIT, used_event);
        assert!(console.harness.run_once(Duration::from_secs(10)), "the timer");
        assert_eq!(console.harness.interrupts(), interrupts);
    }
}

#[test]
fn a_full_output_holds_the_guest_up_and_loses_nothing() {
    let mut console = Console::started(10);
    console.print(&[b'a'; 8]);
    console.print(&[b'b'; 8]);
    console.print(&[b'c'; 8]);
    console.harness.kick(TRANSMIT);
    assert_eq!(console.output.text(), b"aaaaaaaabb");
    assert_eq!(console.harness.take_used(TRANSMIT).len(), 1, "the second is begun");
    // Nothing but room lets it go on.
    console.harness.kick(TRANSMIT);
    assert!(console.harness.take_used(TRANSMIT).is_empty());
    console.output.make_room(7);
    console.settle();
    assert_eq!(console.harness.take_used(TRANSMIT).len(), 1);
    console.output.make_room(100);
    console.settle();
    assert_eq!(console.harness.take_used(TRANSMIT).len(), 1);
    assert_eq!(console.output.text(), [[b'a'; 8], [b'b'; 8], [b'c'; 8]].concat());
    console.print(b"d");
    console.harness.kick(TRANSMIT);
    assert_eq!(console.output.text().last(), Some(&b'd'));
}

#[test]
fn a_long_buffer_and_a_full_queue_are_passed_on_in_shares() {
    let mut console = Console::started(usize::MAX);
    let text: Vec<u8> = (0..MAX_OUTPUT_PER_CALL * 3 + 5).map(|at| (at % 251) as u8).collect();
    console.print(&text);
    console.harness.kick(TRANSMIT);
    assert!(console.output.text() == text);
    assert_eq!(console.harness.take_used(TRANSMIT).len(), 1);
    for _ in 0..64 {
        console.print(b"x");
    }
    console.harness.kick(TRANSMIT);
    assert_eq!(console.harness.take_used(TRANSMIT).len(), 64);
}

#[test]
fn what_is_written_before_a_reset_comes_out() {
    let mut console = Console::started(100);
    console.print(b"last words");
    console.harness.negotiate(0);
    assert_eq!(console.output.text(), b"last words");
}

#[test]
fn a_reset_while_the_output_is_full_drops_what_is_left_and_the_device_works_again() {
    let mut console = Console::started(2);
    console.print(b"abcd");
    console.harness.kick(TRANSMIT);
    console.harness.start(SIZE, 64);
    console.output.make_room(100);
    console.settle();
    console.print(b"new");
    console.harness.kick(TRANSMIT);
    assert_eq!(console.output.text(), b"abnew");
}

#[test]
fn input_fills_the_drivers_buffers_in_order() {
    let mut console = Console::started(0);
    let first = console.add_input_buffer(4);
    let second = console.add_input_buffer(16);
    assert_eq!(console.device.lock().unwrap().enqueue(b"typed text"), 10);
    let lens: Vec<_> = console.harness.wait_used(RECEIVE, 2).iter().map(|used| used.len).collect();
    assert_eq!(lens, [4, 6]);
    assert_eq!(console.harness.fetch(first, 4), b"type");
    assert_eq!(console.harness.fetch(second, 6), b"d text");
}

#[test]
fn input_waits_for_the_driver_and_for_its_buffers() {
    let mut console = Console::new(0);
    assert_eq!(console.device.lock().unwrap().enqueue(b"early"), 5);
    console.settle();
    console.harness.start(SIZE, 64);
    console.settle();
    let address = console.add_input_buffer(16);
    console.harness.kick(RECEIVE);
    assert_eq!(console.harness.take_used(RECEIVE).len(), 1);
    assert_eq!(console.harness.fetch(address, 5), b"early");
}

#[test]
fn input_is_bounded_and_whoever_brings_it_is_told_of_room() {
    let mut console = Console::started(0);
    let drained = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    console.device.lock().unwrap().set_drain_notifier(drained.try_clone().unwrap());
    let more = vec![7; INPUT_CAPACITY + 100];
    assert_eq!(console.device.lock().unwrap().enqueue(&more), INPUT_CAPACITY);
    assert_eq!(console.device.lock().unwrap().enqueue(&more), 0);
    console.settle();
    assert!(drained.read().is_err());
    console.add_input_buffer(4096);
    console.harness.kick(RECEIVE);
    assert_eq!(console.harness.take_used(RECEIVE)[0].len, 4096);
    assert_eq!(drained.read().unwrap(), 1);
}

#[test]
fn the_size_of_the_terminal_is_there_and_a_change_is_told() {
    let mut console = Console::new(0);
    assert_eq!(console.harness.config(0, 16), [0; 16]);
    console.device.lock().unwrap().set_size(80, 25);
    console.harness.start(SIZE, 64);
    assert_eq!(console.harness.config(0, 4), [80, 0, 25, 0]);
    assert_eq!(console.harness.interrupts(), 0);
    console.device.lock().unwrap().set_size(300, 50);
    console.device.lock().unwrap().set_size(300, 50);
    assert_eq!(console.harness.config(0, 4), [44, 1, 50, 0]);
    assert_eq!(console.harness.interrupts(), 1, "told once");
}

#[test]
fn buffers_outside_of_memory_or_of_the_wrong_kind_do_no_harm() {
    let mut console = Console::started(1 << 20);
    let address = console.harness.allocate(16, b'x');
    console.harness.add_chain(TRANSMIT, &[Buffer::readable(MEMORY_SIZE - 1, 2)]);
    console.harness.add_chain(TRANSMIT, &[Buffer::writable(address, 16)]);
    console.harness.add_chain(TRANSMIT, &[Buffer::readable(address, 1)]);
    console.harness.kick(TRANSMIT);
    assert_eq!(console.harness.take_used(TRANSMIT).len(), 3);
    assert_eq!(console.output.text(), b"x");
    console.harness.add_chain(RECEIVE, &[Buffer::writable(u64::MAX - 1, 2)]);
    console.harness.add_chain(RECEIVE, &[Buffer::readable(address, 16)]);
    let good = console.add_input_buffer(4);
    console.device.lock().unwrap().enqueue(b"in");
    console.settle();
    assert_eq!(console.harness.take_used(RECEIVE).len(), 3);
    assert_eq!(console.harness.fetch(good, 2), b"in");
    assert!(!console.harness.needs_reset());
    assert_eq!(console.device.lock().unwrap().metrics().invalid_buffers.get(), 2);
}

impl Console {
    /// This guest once more, as it is restored from `state`, with an output that has `room`. Its queues have not been
    /// kicked yet.
    fn restored(&self, state: &VirtioStateV1, room: usize) -> Result<Self, StateError> {
        let Self { harness: _, device, output } = Self::new(room);
        Ok(Self { harness: self.harness.restored(device.clone(), state)?, device, output })
    }
}

/// The console's part of a state.
fn of_console(state: &mut VirtioStateV1) -> &mut ConsoleStateV1 {
    match &mut state.device {
        DeviceState::ConsoleV1(console) => console,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_console_that_is_saved_in_the_middle_of_a_buffer_goes_on_there_once_and_in_each_copy() {
    let mut console = Console::started(11);
    for text in [&b"first "[..], b"second ", b"third"] {
        console.print(text);
    }
    console.harness.kick(TRANSMIT);
    assert_eq!(console.harness.take_used(TRANSMIT).len(), 1);
    let state = console.harness.save();
    let mut restored = console.restored(&state, 3).unwrap();
    assert_eq!(restored.harness.save().device, state.device, "saved again before it has run");
    restored.harness.resume();
    assert_eq!(restored.output.text(), b"d t", "two buffers, the second of which is begun");
    assert_eq!(restored.harness.take_used(TRANSMIT).len(), 1);
    // A copy of the copy.
    let mut again = restored.restored(&restored.harness.save(), 100).unwrap();
    again.harness.resume();
    assert_eq!(again.output.text(), b"hird");
    assert_eq!(again.harness.take_used(TRANSMIT).len(), 1);
    again.print(b"!");
    again.harness.kick(TRANSMIT);
    assert_eq!(again.output.text(), b"hird!");
    // And the one that was saved first.
    console.output.make_room(100);
    console.settle();
    assert_eq!(console.output.text(), b"first second third");
    assert_eq!(console.harness.take_used(TRANSMIT).len(), 2);
}

#[test]
fn input_that_waits_is_there_after_a_restore() {
    let mut console = Console::started(0);
    console.add_input_buffer(3);
    assert_eq!(console.device.lock().unwrap().enqueue(b"typed ahead"), 11);
    console.settle();
    assert_eq!(console.harness.take_used(RECEIVE).len(), 1);
    let mut restored = console.restored(&console.harness.save(), 0).unwrap();
    for console in [&mut console, &mut restored] {
        console.harness.resume();
        let address = console.add_input_buffer(64);
        console.harness.kick(RECEIVE);
        assert_eq!(console.harness.take_used(RECEIVE)[0].len, 8);
        assert_eq!(console.harness.fetch(address, 8), b"ed ahead");
        assert_eq!(console.device.lock().unwrap().enqueue(b"more"), 4);
    }
}

#[test]
fn a_restored_guest_keeps_the_size_of_its_terminal_unless_there_is_another_which_it_is_told() {
    let console = Console::started(0);
    console.device.lock().unwrap().set_size(80, 25);
    let state = console.harness.save();
    let same = console.restored(&state, 0).unwrap();
    assert_eq!(same.harness.config(0, 4), [80, 0, 25, 0]);
    let generation = same.harness.core().config_generation();

    let device = Arc::new(Mutex::new(ConsoleDevice::new(Box::new(Output::default())).unwrap()));
    device.lock().unwrap().set_size(100, 30);
    let other = console.harness.restored(device, &state).unwrap();
    assert_eq!(other.config(0, 4), [100, 0, 30, 0]);
    assert_ne!(other.core().config_generation(), generation);
    assert!(other.interrupts() > same.harness.interrupts());
}

#[test]
fn a_state_that_no_console_can_be_in_is_refused_or_does_no_harm() {
    let mut console = Console::started(0);
    console.print(b"text");
    let saved = console.harness.save();
    let mut hostile = saved.clone();
    of_console(&mut hostile).input = vec![0; INPUT_CAPACITY + 1];
    let error = console.restored(&hostile, 0).err().unwrap().to_string();
    assert_eq!(error, "4097 bytes of input: a console holds 4096");
    for begun in [5, u64::from(u32::MAX), u64::MAX] {
        let mut hostile = saved.clone();
        of_console(&mut hostile).begun = begun;
        let mut restored = console.restored(&hostile, 100).unwrap();
        restored.harness.resume();
        assert_eq!(restored.harness.take_used(TRANSMIT).len(), 1);
        restored.print(b"next");
        restored.harness.kick(TRANSMIT);
        assert_eq!(restored.output.text(), b"next");
    }
}
