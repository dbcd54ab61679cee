use super::*;
use crate::interrupt::FakeInterrupt;

const DATA: u64 = 0;
const IER: u64 = 1;
const MCR: u64 = 4;
const LSR: u64 = 5;
const SCRATCH: u64 = 7;

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl SerialOutput for Output {}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct BrokenOutput;

impl SerialOutput for BrokenOutput {}

impl Write for BrokenOutput {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn serial() -> (Serial, Output, Arc<FakeInterrupt>) {
    let output = Output::default();
    let interrupt = Arc::new(FakeInterrupt::default());
    (Serial::new(interrupt.clone(), Box::new(output.clone())), output, interrupt)
}

fn read(serial: &Serial, offset: u64) -> u8 {
    let mut data = [0];
    serial.read(offset, &mut data);
    data[0]
}

fn nonblocking() -> (EventFd, EventFd) {
    let event = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    (event.try_clone().unwrap(), event)
}

#[test]
fn what_the_guest_writes_comes_out() {
    let (serial, output, _) = serial();
    for byte in b"hello" {
        assert_eq!(serial.write(DATA, &[*byte]), BusAction::None);
    }
    assert_eq!(*output.0.lock().unwrap(), b"hello");
    assert_eq!(serial.metrics().output_bytes.get(), 5);
}

#[test]
fn input_interrupts_the_guest_and_is_read_in_order() {
    let (serial, _, interrupt) = serial();
    let _ = serial.write(IER, &[1]);
    assert_eq!(serial.enqueue(b"ab"), 2);
    assert_eq!(interrupt.count(), 1);
    assert_eq!(read(&serial, LSR) & 1, 1);
    assert_eq!([read(&serial, DATA), read(&serial, DATA)], *b"ab");
    assert_eq!(read(&serial, LSR) & 1, 0);
}

#[test]
fn a_full_fifo_takes_what_fits_and_tells_when_it_has_drained() {
    let (serial, _, _) = serial();
    let (notifier, drained) = nonblocking();
    serial.set_drain_notifier(notifier);
    assert_eq!(serial.free_space(), FIFO_SIZE);
    assert_eq!(serial.enqueue(&[7; FIFO_SIZE + 10]), FIFO_SIZE);
    assert_eq!(serial.enqueue(&[7]), 0);
    assert_eq!(serial.free_space(), 0);
    assert!(drained.read().is_err());
    for _ in 0..FIFO_SIZE {
        assert_eq!(read(&serial, DATA), 7);
    }
    assert_eq!(drained.read().unwrap(), 1, "told once, not at each byte");
    assert_eq!(serial.free_space(), FIFO_SIZE);
}

#[test]
fn a_reader_that_was_turned_away_during_loop_back_is_called_when_it_ends() {
    let (serial, output, _) = serial();
    let (notifier, drained) = nonblocking();
    serial.set_drain_notifier(notifier);
    let _ = serial.write(MCR, &[MCR_LOOP]);
    let _ = serial.write(DATA, b"x");
    assert_eq!(read(&serial, DATA), b'x', "looped back");
    assert!(output.0.lock().unwrap().is_empty());
    assert_eq!((serial.free_space(), serial.enqueue(b"y")), (0, 0));
    assert!(drained.read().is_err());
    let _ = serial.write(MCR, &[0]);
    assert!(drained.read().is_ok());
    assert_eq!(serial.enqueue(b"y"), 1);
}

#[test]
fn an_output_that_fails_is_counted_and_the_guest_goes_on() {
    let serial = Serial::new(Arc::new(FakeInterrupt::default()), Box::new(BrokenOutput));
    assert_eq!(serial.write(DATA, b"x"), BusAction::None);
    assert_eq!(serial.metrics().lost_bytes.get(), 1);
    assert_eq!(read(&serial, LSR) & 0x60, 0x60, "ready for the next byte");
}

/// Blocks in each write until it is told to go on.
struct BlockedOutput(std::sync::mpsc::Receiver<()>);

impl SerialOutput for BlockedOutput {}

impl Write for BlockedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.recv().unwrap();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn input_is_taken_while_the_output_is_blocked() {
    let (go_on, wait) = std::sync::mpsc::channel();
    let serial = Serial::new(Arc::new(FakeInterrupt::default()), Box::new(BlockedOutput(wait)));
    std::thread::scope(|scope| {
        let vcpu = scope.spawn(|| serial.write(DATA, b"x"));
        while serial.output.try_lock().is_ok() {
            std::thread::yield_now();
        }
        assert_eq!(serial.enqueue(b"ab"), 2);
        assert_eq!(serial.metrics().output_bytes.get(), 0, "still blocked");
        go_on.send(()).unwrap();
        assert_eq!(vcpu.join().unwrap(), BusAction::None);
    });
    assert_eq!(serial.metrics().output_bytes.get(), 1);
}

#[test]
fn every_width_at_every_offset_is_harmless() {
    let (serial, _, _) = serial();
    for offset in (0..SIZE + 2).chain([u64::MAX]) {
        for width in 1..=8 {
            let _ = serial.write(offset, &vec![0x5a; width]);
            serial.read(offset, &mut vec![0; width]);
        }
    }
    let _ = serial.write(SCRATCH, &[0x42, 0x43]);
    let mut data = [0; 2];
    serial.read(SCRATCH, &mut data);
    assert_eq!(data, [0x42, 0xff], "past the last port reads all ones");
}

#[test]
fn received_data_is_announced_until_it_is_all_read() {
    const IIR: u64 = 2;
    let (serial, _, _) = serial();
    let read = |register| {
        let mut byte = [0];
        serial.read(register, &mut byte);
        byte[0]
    };
    let pending = || read(IIR) & IIR_ID;
    serial.enqueue(b"ab");
    assert_eq!(pending(), IIR_NONE, "nobody has asked for interrupts");
    assert_eq!(serial.write(IER, &[IER_RDA]), BusAction::None);
    assert_eq!((read(DATA), pending(), pending()), (b'a', IIR_RDA, IIR_RDA));
    assert_eq!((read(DATA), pending()), (b'b', IIR_NONE));
}

/// Holds back what it is given, as the console does while it is paused.
#[derive(Clone, Default)]
struct HeldBack(Vec<u8>);

impl SerialOutput for HeldBack {
    fn held_back(&self) -> &[u8] {
        &self.0
    }
}

impl Write for HeldBack {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All registers that can be read without an effect.
fn registers(serial: &Serial) -> Vec<u8> {
    [1, 3, 4, 5, 6, 7].map(|register| read(serial, register)).to_vec()
}

#[test]
fn a_restored_port_has_the_registers_and_the_input_of_the_one_that_was_saved() {
    let (saved, ..) = serial();
    for (register, value) in [(3, 0x83), (0, 0x0d), (1, 0xaa), (3, 0x1b), (1, 0x0d), (4, 0x0b), (7, 0x42)] {
        assert_eq!(saved.write(register, &[value]), BusAction::None);
    }
    assert_eq!(saved.enqueue(b"typed ahead"), 11);
    assert_eq!(read(&saved, DATA), b't');
    let state = saved.save();
    assert_eq!(state, saved.save(), "saving changes nothing");

    let (restored, output, interrupt) = serial();
    restored.restore(&state).unwrap();
    assert_eq!(restored.save(), state);
    assert_eq!(registers(&restored), registers(&saved));
    assert_eq!(read(&restored, 2) & IIR_ID, IIR_RDA, "what was not read is announced");
    for port in [&saved, &restored] {
        let text: Vec<u8> =
            std::iter::from_fn(|| (read(port, LSR) & 1 != 0).then(|| read(port, DATA))).collect();
        assert_eq!(text, b"yped ahead");
        assert_eq!(port.enqueue(b"more"), 4);
    }
    assert!(interrupt.count() > 0);
    assert!(output.0.lock().unwrap().is_empty());
    let _ = restored.write(3, &[0x83]);
    assert_eq!([read(&restored, 0), read(&restored, 1)], [0x0d, 0xaa], "the divisor");
}

#[test]
fn an_interrupt_that_was_not_acknowledged_is_raised_again() {
    let (saved, ..) = serial();
    let _ = saved.write(IER, &[2]);
    let _ = saved.write(DATA, b"x");
    let (restored, output, interrupt) = serial();
    restored.restore(&saved.save()).unwrap();
    assert_eq!(interrupt.count(), 1);
    assert!(output.0.lock().unwrap().is_empty(), "what was written is not written twice");
}

#[test]
fn output_that_a_pause_held_back_comes_out_before_what_the_restored_guest_sends() {
    let saved = Serial::new(Arc::new(FakeInterrupt::default()), Box::new(HeldBack::default()));
    for byte in b"half a li" {
        let _ = saved.write(DATA, &[*byte]);
    }
    let state = saved.save();
    let (restored, output, _) = serial();
    restored.restore(&state).unwrap();
    assert_eq!(restored.save(), state, "it can be saved again before the guest has run");
    let _ = restored.write(DATA, b"n");
    let _ = restored.write(DATA, b"e");
    assert_eq!(*output.0.lock().unwrap(), b"half a line");
    assert!(restored.save().unwritten.is_empty());
}

#[test]
fn a_reader_that_waits_for_room_is_called_by_the_restored_port() {
    let (saved, ..) = serial();
    assert_eq!(saved.enqueue(&[7; FIFO_SIZE]), FIFO_SIZE);
    let (restored, ..) = serial();
    let (notifier, drained) = nonblocking();
    restored.set_drain_notifier(notifier);
    restored.restore(&saved.save()).unwrap();
    assert_eq!(restored.enqueue(b"x"), 0);
    (0..FIFO_SIZE).for_each(|_| assert_eq!(read(&restored, DATA), 7));
    assert!(drained.read().is_ok());
}

#[test]
fn a_state_with_more_bytes_than_a_port_holds_is_refused_and_changes_nothing() {
    let (serial, ..) = serial();
    assert_eq!(serial.enqueue(b"a"), 1);
    let before = serial.save();
    let refused = |state: &SerialStateV1| serial.restore(state).unwrap_err().to_string();
    let long = SerialStateV1 { received: vec![0; FIFO_SIZE + 1], ..SerialStateV1::default() };
    assert_eq!(refused(&long), "65 bytes received: there can be 64");
    let long = SerialStateV1 { unwritten: vec![0; MAX_UNWRITTEN + 1], ..SerialStateV1::default() };
    assert_eq!(refused(&long), "262145 bytes that were not written: there can be 262144");
    assert_eq!(serial.save(), before);
}

#[test]
fn any_registers_can_be_restored() {
    for value in 0..=u8::MAX {
        let (serial, ..) = serial();
        let state = SerialStateV1 {
            baud_divisor_low: value,
            baud_divisor_high: value,
            interrupt_enable: value,
            interrupt_identification: value,
            line_control: value,
            line_status: value,
            modem_control: value,
            modem_status: value,
            scratch: value,
            received: vec![value; FIFO_SIZE],
            unwritten: Vec::new(),
        };
        serial.restore(&state).unwrap();
        for register in 0..SIZE {
            read(&serial, register);
            let _ = serial.write(register, &[value]);
            serial.enqueue(&[value]);
        }
    }
}
