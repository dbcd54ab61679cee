//! Timers of the local APIC that go off while a guest is away.

use std::thread::sleep;
use std::time::Duration;

use kvm_bindings::kvm_lapic_state;
use vm_memory::{Bytes, GuestAddress};

use super::{Machine, OUT};
use crate::kvm::Elapsed;

/// When the timer goes off, and how long the guest is away.
const SOON: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_millis(300);

// Registers of the local APIC (Intel SDM 3A, table 12-1).
const SPURIOUS_VECTOR: usize = 0xf0;
const LVT_TIMER: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDE_CONFIGURATION: usize = 0x3e0;
const ONE_SHOT: u32 = 0;
const VECTOR: u32 = 0x40;
const HANDLER: u16 = 0x1100;

fn set(lapic: &mut kvm_lapic_state, register: usize, value: u32) {
    for (to, from) in lapic.regs[register..].iter_mut().zip(value.to_le_bytes()) {
        *to = from.cast_signed();
    }
}

/// A guest that halts, and writes 1 byte when its timer, which `mode` and `count` set, goes off.
fn waiting(mode: u32, count: Duration) -> Option<Machine> {
    // sti; 1: hlt; jmp 1b
    let machine = Machine::loaded(&[0xfb, 0xf4, 0xeb, 0xfd], 1)?;
    // out OUT, al; iret: the interrupt is not ended, so there is one at most.
    machine.memory.write_slice(&[0xe6, OUT as u8, 0xcf], GuestAddress(HANDLER.into())).unwrap();
    machine.memory.write_obj(u32::from(HANDLER), GuestAddress(u64::from(VECTOR) * 4)).unwrap();
    let fd = &machine.ready[0].fd;
    let mut lapic = fd.get_lapic().unwrap();
    set(&mut lapic, SPURIOUS_VECTOR, 0x1ff);
    set(&mut lapic, LVT_TIMER, mode | VECTOR);
    // Divided by 1: a count for each nanosecond.
    set(&mut lapic, DIVIDE_CONFIGURATION, 0xb);
    let count = u32::try_from(count.as_nanos()).unwrap();
    set(&mut lapic, INITIAL_COUNT, count);
    set(&mut lapic, CURRENT_COUNT, count);
    fd.set_lapic(&lapic).unwrap();
    Some(machine.start())
}

#[test]
fn a_timer_that_was_running_goes_off_in_the_restored_guest() {
    let Some(machine) = waiting(ONE_SHOT, LONG) else { return };
    sleep(Duration::from_millis(20));
    machine.pause();
    assert_eq!(machine.written(), 0);
    let twin = machine.twin().start();
    machine.leave();
    twin.wait_until(1);
    twin.leave();
}

#[test]
fn a_timer_that_went_off_while_the_guest_was_paused_is_not_lost() {
    let Some(machine) = waiting(ONE_SHOT, SOON) else { return };
    sleep(Duration::from_millis(20));
    machine.pause();
    assert_eq!(machine.written(), 0);
    sleep(SOON);
    let twin = machine.twin().start();
    machine.leave();
    twin.wait_until(1);
    sleep(Duration::from_millis(50));
    assert_eq!(twin.stop().len(), 1);
}

#[test]
fn a_deadline_that_passed_while_the_guest_was_away_is_met_at_once() {
    const DEADLINE: u32 = 2 << 17;
    const AWAY: Duration = Duration::from_secs(1);
    let Some(machine) = waiting(DEADLINE, Duration::ZERO) else { return };
    machine.pause();
    let (mut vcpus, state) = machine.save().unwrap();
    let vcpu = &mut vcpus[0];
    let ticks = AWAY.as_millis() as u64 * u64::from(vcpu.tsc.khz.unwrap());
    vcpu.tsc_deadline = Some(vcpu.tsc.value + ticks);
    sleep(AWAY);
    let before = std::time::Instant::now();
    let twin = machine.twin_of(&vcpus, &state, Elapsed::Counted).unwrap().start();
    machine.leave();
    twin.wait_until(1);
    assert!(before.elapsed() < AWAY, "not before the time away has passed once more");
    twin.leave();
}
