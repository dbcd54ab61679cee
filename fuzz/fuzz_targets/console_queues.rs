//! A driver that puts anything into the queues of a console, while input comes and the output is full now and then.
//!
//! Holds: no panic and no hang; the output gets no more than it has room for; input stays within its bounds; and after
//! a reset the device works.
#![no_main]

mod driver;

use std::io;
use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use devices::virtio::console::{ConsoleDevice, INPUT_CAPACITY, Sink};
use devices::virtio::queue_harness::{Buffer, Harness};
use libfuzzer_sys::fuzz_target;
use vmm_sys_util::eventfd::EventFd;

const QUEUES: u32 = 2;
const SIZE: u64 = 1;
const EVENT_IDX: u64 = 1 << 29;

#[derive(Arbitrary, Debug)]
struct Input {
    pci: bool,
    event_idx: bool,
    queue_size_log: u8,
    actions: Vec<Action>,
}

#[derive(Arbitrary, Debug)]
enum Action {
    Queue(driver::Step),
    Typed(u16),
    Room(u16),
    Resized(u16, u16),
    Reset,
}

#[derive(Default)]
struct Reader {
    room: usize,
    wanted: bool,
    notifier: Option<EventFd>,
    last: Vec<u8>,
}

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Reader>>);

impl Output {
    fn make_room(&self, room: usize) {
        let mut reader = self.0.lock().unwrap();
        reader.room = room;
        if std::mem::take(&mut reader.wanted) {
            reader.notifier.as_ref().unwrap().write(1).unwrap();
        }
    }
}

impl Sink for Output {
    fn room(&mut self) -> usize {
        let mut reader = self.0.lock().unwrap();
        reader.wanted |= reader.room == 0;
        reader.room
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut reader = self.0.lock().unwrap();
        reader.room = reader.room.checked_sub(bytes.len()).expect("no more than there is room for");
        reader.last = bytes.to_vec();
        Ok(())
    }

    fn set_room_notifier(&mut self, notifier: EventFd) {
        self.0.lock().unwrap().notifier = Some(notifier);
    }
}

fuzz_target!(|input: Input| {
    let output = Output::default();
    output.make_room(1000);
    let device = Arc::new(Mutex::new(ConsoleDevice::new(Box::new(output.clone())).unwrap()));
    let mut harness = Harness::behind(driver::transport(input.pci), device.clone());
    let features = SIZE | if input.event_idx { EVENT_IDX } else { 0 };
    let queue_size = 1 << (input.queue_size_log % 7);
    harness.start(features, queue_size);

    let text = [b't'; INPUT_CAPACITY + 1];
    for action in input.actions.into_iter().take(64) {
        match action {
            Action::Queue(step) => drop(step.take(&mut harness, QUEUES)),
            Action::Typed(len) => {
                let taken = device.lock().unwrap().enqueue(&text[..usize::from(len).min(text.len())]);
                assert!(taken <= INPUT_CAPACITY);
            }
            Action::Room(room) => output.make_room(usize::from(room)),
            Action::Resized(columns, rows) => device.lock().unwrap().set_size(columns, rows),
            Action::Reset => harness.start(features, queue_size),
        }
    }
    (0..QUEUES).for_each(|queue| harness.kick(queue));

    harness.start(features, 16);
    assert!(!harness.needs_reset());
    output.make_room(100);
    let last = harness.place(b"last");
    harness.add_chain(1, &[Buffer::readable(last, 4)]);
    harness.kick(1);
    assert_eq!(harness.wait_used(1, 1).len(), 1);
    assert_eq!(output.0.lock().unwrap().last, b"last");
    let buffer = harness.allocate(0x2000, 0);
    harness.add_chain(0, &[Buffer::writable(buffer, 0x2000)]);
    // Input from before may have been waiting for it.
    harness.kick(0);
    device.lock().unwrap().enqueue(b"t");
    harness.wait_used(0, 1);
    assert_eq!(harness.fetch(buffer, 1), b"t");
});
