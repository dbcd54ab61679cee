use std::sync::{Arc, Mutex};

use super::bar::{Bar, BarKind};
use super::config_space::{BAR0, COMMAND, ConfigSpace, Identity};
use super::msix::Msix;
use super::root::{ECAM_SIZE, Ecam, MAX_DEVICES, RootBus, Window};
use super::{PciFunction, Space};
use crate::bus::{BusAction, BusDevice};
use crate::interrupt::FakeMsi;

const MEMORY: Bar = Bar { kind: BarKind::Memory, address: 0xd000_4000, size: 0x4000 };
const IO: Bar = Bar { kind: BarKind::Io, address: 0x1080, size: 4 };

fn config() -> ConfigSpace {
    let mut config = ConfigSpace::new(Identity {
        vendor: 0x1af4,
        device: 0x1042,
        subsystem: 0x42,
        class: 0x01_8000,
        revision: 1,
    });
    config.add_bar(0, MEMORY);
    config.add_bar(1, IO);
    config
}

#[test]
fn the_header_says_what_the_function_is() {
    let config = config();
    assert_eq!(config.u32(0), 0x1042_1af4);
    assert_eq!(config.u32(8), 0x0180_0001, "class and revision");
    assert_eq!(config.u8(0x0e), 0, "type 0, one function");
    assert_eq!(config.u32(0x2c), 0x0042_1af4);
    assert_eq!(config.u8(0x3d), 0, "no interrupt pin");
    let mut data = [0; 8];
    config.read(0xfc, &mut data);
    assert_eq!(data, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], "nothing behind 256 bytes");
}

#[test]
fn a_bar_tells_its_size_and_goes_back_to_its_address() {
    let mut config = config();
    for (register, size, address) in
        [(BAR0, 0xffff_c000, 0xd000_4000), (BAR0 + 4, 0xffff_fffd, 0x1081), (BAR0 + 8, 0, 0), (0x30, 0, 0)]
    {
        assert_eq!(config.u32(register), address);
        config.write(register, &[0xff; 4]);
        assert_eq!(config.u32(register), size, "register {register:#x}");
        config.write(register, &u32::to_le_bytes(address));
        assert_eq!(config.u32(register), address);
    }
}

#[test]
fn a_bar_answers_where_it_is_while_the_command_says_so() {
    let mut config = config();
    assert_eq!((config.bar_address(0), config.bar_address(1)), (None, None));
    config.write(COMMAND, &[2]);
    assert_eq!((config.bar_address(0), config.bar_address(1)), (Some(0xd000_4000), None));
    config.write(COMMAND, &[1]);
    assert_eq!((config.bar_address(0), config.bar_address(1)), (None, Some(0x1080)));
    config.write(BAR0 + 4, &0x2001u32.to_le_bytes());
    assert_eq!(config.bar_address(1), Some(0x2000));
    assert_eq!((config.bar_address(2), config.bar_address(9)), (None, None));
}

#[test]
fn writes_of_any_width_anywhere_change_only_what_can_be_written() {
    let first = config();
    let mut config = config();
    for offset in 0..4096 {
        for width in 1..=8 {
            config.write(offset, &[0xff; 8][..width]);
            config.read(offset, &mut [0; 8][..width]);
        }
    }
    let changed: Vec<usize> = (0..256).filter(|offset| first.u8(*offset) != config.u8(*offset)).collect();
    assert_eq!(changed, [4, 5, 0x0c, 0x0d, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x3c]);
    assert_eq!(config.u16(COMMAND), 0x0547);
}

#[test]
fn capabilities_are_a_list_in_their_order_and_none_is_cut() {
    let mut config = config();
    assert_eq!((config.u16(6), config.u8(0x34)), (0, 0));
    let first = config.add_capability(0x09, &[1, 2, 3], &[]);
    let second = config.add_capability(0x11, &[4], &[0xff]);
    assert_eq!((config.u16(6), config.u8(0x34)), (0x10, 0x40));
    assert_eq!((first, second), (0x40, 0x48));
    assert_eq!(config.u32(first), 0x0201_4809);
    assert_eq!(config.u32(second), 0x0004_0011);
    config.write(first + 2, &[0xff]);
    config.write(second + 2, &[0xff]);
    assert_eq!((config.u8(first + 2), config.u8(second + 2)), (1, 0xff));
    assert_eq!(config.add_capability(0x09, &[0; 200], &[]), 256, "no room");
    assert_eq!(config.u8(second + 1), 0, "the last");
}

fn msix(vectors: u16) -> (Msix, Arc<FakeMsi>) {
    let msi = Arc::new(FakeMsi::default());
    let msix = Msix::new(vectors, msi.clone());
    for vector in 0..u64::from(vectors) {
        msix.write_table(16 * vector, &0xfee0_1000u64.to_le_bytes());
        msix.write_table(16 * vector + 8, &(0x40 + vector as u32).to_le_bytes());
    }
    (msix, msi)
}

fn pending(msix: &Msix) -> u8 {
    let mut bits = [0xff; 1];
    msix.read_pending(0, &mut bits);
    bits[0]
}

const ENABLE: u16 = 0x8000;
const MASK_ALL: u16 = 0x4000;

#[test]
fn a_vector_that_is_not_masked_sends_its_message() {
    let (msix, msi) = msix(2);
    msix.set_control(ENABLE);
    msix.write_table(16 + 12, &[0; 4]);
    msix.signal(1).unwrap();
    assert_eq!(msi.sent(), [(0xfee0_1000, 0x41)]);
    assert_eq!(pending(&msix), 0);
    for vector in [2, 2047, 0xffff] {
        msix.signal(vector).unwrap();
    }
    assert_eq!(msi.sent().len(), 1, "vectors that are not there");
}

#[test]
fn a_masked_vector_stays_pending_and_is_sent_once_when_it_is_unmasked() {
    let (msix, msi) = msix(9);
    msix.set_control(ENABLE);
    msix.signal(8).unwrap();
    msix.signal(8).unwrap();
    msix.signal(0).unwrap();
    let mut bits = [0; 4];
    msix.read_pending(0, &mut bits);
    assert_eq!(bits, [1, 1, 0, 0]);
    msix.write_table(8 * 16 + 12, &[0; 4]);
    assert_eq!(msi.sent(), [(0xfee0_1000, 0x48)]);
    assert_eq!(pending(&msix), 1);
}

#[test]
fn the_function_s_mask_holds_all_vectors_back() {
    let (msix, msi) = msix(2);
    (0..2).for_each(|vector| msix.write_table(16 * vector + 12, &[0; 4]));
    for control in [0, MASK_ALL, ENABLE | MASK_ALL] {
        msix.set_control(control);
        msix.signal(0).unwrap();
        msix.signal(1).unwrap();
        assert_eq!(pending(&msix), 3);
        assert_eq!(msi.sent(), []);
    }
    msix.set_control(ENABLE);
    assert_eq!(msi.sent(), [(0xfee0_1000, 0x40), (0xfee0_1000, 0x41)]);
}

#[test]
fn the_table_takes_aligned_accesses_of_four_and_eight_bytes_and_no_others() {
    let (msix, _) = msix(2);
    let read = |offset, width| {
        let mut data = vec![0xaa; width];
        msix.read_table(offset, &mut data);
        data
    };
    assert_eq!(read(16 + 8, 8), [0x41, 0, 0, 0, 1, 0, 0, 0], "data, and masked at first");
    assert_eq!(read(0, 4), [0, 0x10, 0xe0, 0xfe]);
    for (offset, width) in [(0, 1), (0, 2), (1, 4), (2, 4), (4, 8), (0, 3), (32, 4), (u64::MAX - 3, 4)] {
        assert_eq!(read(offset, width), vec![0; width], "{offset:#x} by {width}");
        msix.write_table(offset, &vec![0xff; width]);
    }
    assert_eq!(read(0, 8), 0xfee0_1000u64.to_le_bytes(), "untouched");
}

/// A function of one BAR that keeps what is written there.
struct Memory {
    config: Mutex<ConfigSpace>,
    written: Mutex<Vec<u64>>,
}

impl Memory {
    fn new(address: u32) -> Arc<Self> {
        let mut config = config();
        config.add_bar(0, Bar { address, ..MEMORY });
        Arc::new(Self { config: Mutex::new(config), written: Mutex::default() })
    }

    fn offset(&self, space: Space, address: u64) -> Option<u64> {
        let base = self.config.lock().unwrap().bar_address(0).filter(|_| space == Space::Memory)?;
        address.checked_sub(base.into()).filter(|offset| *offset < MEMORY.size.into())
    }
}

impl PciFunction for Memory {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.config.lock().unwrap().read(offset, data);
    }
    fn write_config(&self, offset: usize, data: &[u8]) -> BusAction {
        self.config.lock().unwrap().write(offset, data);
        BusAction::None
    }
    fn read(&self, space: Space, address: u64, data: &mut [u8]) -> bool {
        self.offset(space, address).map(|offset| data.fill(offset as u8)).is_some()
    }
    fn write(&self, space: Space, address: u64, _: &[u8]) -> Option<BusAction> {
        self.written.lock().unwrap().push(self.offset(space, address)?);
        Some(BusAction::None)
    }
}

fn read<const N: usize>(device: &dyn BusDevice, offset: u64) -> [u8; N] {
    let mut data = [0xaa; N];
    device.read(offset, &mut data);
    data
}

#[test]
fn configuration_space_is_each_function_s_own_and_all_ones_where_there_is_none() {
    let mut bus = RootBus::default();
    assert!(bus.add(Memory::new(0xd000_0000)) && bus.add(Memory::new(0xd000_4000)));
    let ecam = Ecam::new(bus);
    assert_eq!(read(&ecam, 0x8000), [0xf4, 0x1a, 0x42, 0x10]);
    assert_eq!(ecam.write(0x8000 + COMMAND as u64, &[2, 0]), BusAction::None);
    assert_eq!((read(&ecam, 4), read(&ecam, 0x8004)), ([0, 0], [2, 0]));
    for offset in
        [0x1000, 0x7000, 0x9000, 0x1_0000, 0xf_f000, 0xffd, 0x8ffd, ECAM_SIZE - 4, ECAM_SIZE, u64::MAX - 3]
    {
        assert_eq!(read(&ecam, offset), [0xff; 4], "{offset:#x}");
        assert_eq!(ecam.write(offset, &[0; 4]), BusAction::None);
    }
}

#[test]
fn a_window_reaches_whoever_is_at_the_address_now() {
    let (first, second) = (Memory::new(0xd000_0000), Memory::new(0xd000_4000));
    let mut bus = RootBus::default();
    assert!(bus.add(first.clone()) && bus.add(second.clone()));
    let window = Window::new(bus, Space::Memory, 0xd000_0000);
    assert_eq!(read(&window, 0x4010), [0xff; 2], "switched off");
    let _ = first.write_config(COMMAND, &[2]);
    let _ = second.write_config(COMMAND, &[2]);
    assert_eq!(read(&window, 0x4010), [0x10; 2]);
    let _ = second.write_config(BAR0, &0xd100_0000u32.to_le_bytes());
    assert_eq!((read(&window, 0x4010), read(&window, 0x100_0020)), ([0xff; 2], [0x20; 2]));
    assert_eq!(window.write(0x100_0020, &[1]), BusAction::None);
    assert_eq!(*second.written.lock().unwrap(), [0x20]);
    // Two in one place: the first has it, and nothing breaks.
    let _ = second.write_config(BAR0, &0xd000_0000u32.to_le_bytes());
    assert_eq!(window.write(8, &[1]), BusAction::None);
    assert_eq!(*first.written.lock().unwrap(), [8]);
}

#[test]
fn a_full_bus_takes_no_more() {
    let mut bus = RootBus::default();
    assert!((0..MAX_DEVICES).all(|_| bus.add(Memory::new(0xd000_0000))));
    assert!(!bus.add(Memory::new(0xd000_0000)));
}
