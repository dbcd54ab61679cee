//! What a restored guest's clocks show.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use skip::Capability;
use vm_memory::{Bytes, GuestAddress};

use super::{Machine, OUT, Write, encoded};
use crate::kvm::host::{KvmServer, served_by};
use crate::kvm::vcpu_ioctls::tsc_offset;
use crate::kvm::{Elapsed, WallTime};

/// How long a guest is away.
const AWAY: Duration = Duration::from_millis(300);
/// What its clocks may be wrong by.
const TOLERATED: Duration = Duration::from_millis(10);

/// 1: rdtsc; out OUT, eax; xchg eax, edx; out OUT, eax; jmp 1b
const TELL_TSC: &[u8] = &[0x0f, 0x31, 0x66, 0xe7, OUT as u8, 0x66, 0x92, 0x66, 0xe7, OUT as u8, 0xeb, 0xf4];

/// By how much time since `start` is ahead of the TSC of `khz`, at the sample that was written down soonest.
fn ahead_of_tsc(written: &[Write], khz: u32, start: Instant) -> i128 {
    let word = |write: &Write| u32::from_le_bytes(write.bytes.clone().try_into().unwrap());
    let samples = written.chunks_exact(2).map(|pair| {
        let tsc = u128::from(word(&pair[0])) | u128::from(word(&pair[1])) << 32;
        let at = (pair[0].at - start).as_nanos();
        at.cast_signed() - (tsc * 1_000_000 / u128::from(khz)).cast_signed()
    });
    samples.min().unwrap()
}

/// By how much a guest's TSC is behind after it was away, compared to before.
fn tsc_behind(elapsed: Elapsed) -> Option<i128> {
    let machine = Machine::boot(TELL_TSC)?;
    let start = Instant::now();
    machine.wait_for(200);
    machine.pause();
    let (vcpus, state) = machine.save().unwrap();
    let khz = vcpus[0].tsc.khz.unwrap();
    let mut before = std::mem::take(&mut *machine.recorder.written.lock().unwrap());
    // A sample may be half written.
    let half = if before.len() % 2 == 1 { before.pop() } else { None };
    sleep(AWAY);
    let twin = machine.twin_of(&vcpus, &state, elapsed).unwrap().start();
    machine.leave();
    twin.wait_for(200);
    let mut after = twin.stop();
    if half.is_some() {
        after.remove(0);
    }
    Some(ahead_of_tsc(&after, khz, start) - ahead_of_tsc(&before, khz, start))
}

#[test]
fn the_tsc_counts_the_time_away() {
    let Some(behind) = tsc_behind(Elapsed::Counted) else { return };
    assert!(behind.unsigned_abs() < TOLERATED.as_nanos(), "{behind} ns");
}

#[test]
fn the_tsc_goes_on_where_it_was_when_the_time_away_is_left_out() {
    if served_by() == KvmServer::Pvm {
        return skip::skip(Capability::GuestTsc, "guests read the host's own TSC on PVM");
    }
    let Some(behind) = tsc_behind(Elapsed::Left) else { return };
    assert!(behind > AWAY.as_nanos().cast_signed() - TOLERATED.as_nanos().cast_signed(), "{behind} ns");
}

/// What kvm-clock of a twin is ahead of the original's, and how long it was away at least and at most. The host's wall clock
/// is `shift` nanoseconds further back than it was.
fn kvm_clock_ahead(machine: &Machine, elapsed: Elapsed, shift: i64) -> (Duration, [Duration; 2]) {
    let at_most = Instant::now();
    let (vcpus, mut state) = machine.save().unwrap();
    let at_least = Instant::now();
    state.clock.at = WallTime(state.clock.at.0.saturating_add_signed(shift));
    let then = state.clock.nanoseconds;
    sleep(AWAY);
    let twin = machine.twin_of(&vcpus, &encoded(&state), elapsed).unwrap();
    let at_least = at_least.elapsed();
    let ahead = Duration::from_nanos(twin.vm.get_clock().unwrap().clock - then);
    (ahead, [at_least, at_most.elapsed()])
}

#[test]
fn kvm_clock_counts_the_time_away_or_leaves_it_out() {
    const HOUR: Duration = Duration::from_hours(1);
    let Some(machine) = Machine::boot(TELL_TSC) else { return };
    machine.wait_for(2);
    machine.pause();
    let (ahead, [least, most]) = kvm_clock_ahead(&machine, Elapsed::Counted, 0);
    assert!(ahead + TOLERATED > least && ahead < most + TOLERATED, "{ahead:?} in {least:?} to {most:?}");
    let (ahead, _) = kvm_clock_ahead(&machine, Elapsed::Left, 0);
    assert!(ahead < AWAY, "{ahead:?}");
    let nanoseconds = i64::try_from(HOUR.as_nanos()).unwrap();
    let (ahead, _) = kvm_clock_ahead(&machine, Elapsed::Counted, nanoseconds);
    assert!(ahead < AWAY, "{ahead:?}: a wall clock that went back adds nothing");
    let (ahead, [least, most]) = kvm_clock_ahead(&machine, Elapsed::Counted, -nanoseconds);
    assert!(ahead + TOLERATED > HOUR + least && ahead < HOUR + most + TOLERATED, "{ahead:?}");
    machine.leave();
}

#[test]
fn the_counters_of_all_vcpus_stay_in_step() {
    let Some(machine) = Machine::loaded(&[0xeb, 0xfe], 2) else { return };
    let machine = machine.start();
    machine.pause();
    let (vcpus, state) = machine.save().unwrap();
    let apart =
        |offsets: [Option<u64>; 2]| offsets[0].zip(offsets[1]).map(|(one, two)| one.wrapping_sub(two));
    let before = apart([vcpus[0].tsc.offset, vcpus[1].tsc.offset]);
    for elapsed in [Elapsed::Counted, Elapsed::Left] {
        let twin = machine.twin_of(&vcpus, &state, elapsed).unwrap();
        assert_eq!(apart([tsc_offset(&twin.ready[0].fd), tsc_offset(&twin.ready[1].fd)]), before);
    }
    machine.leave();
}

#[test]
fn without_offsets_the_counters_are_set_to_one_value() {
    let Some(machine) = Machine::loaded(&[0xeb, 0xfe], 2) else { return };
    let machine = machine.start();
    machine.pause();
    let (mut vcpus, state) = machine.save().unwrap();
    for vcpu in &mut vcpus {
        vcpu.tsc.offset = None;
    }
    let twin = machine.twin_of(&vcpus, &state, Elapsed::Counted).unwrap();
    assert_eq!(tsc_offset(&twin.ready[0].fd), tsc_offset(&twin.ready[1].fd));
    machine.leave();
}

/// Where a guest has kvm-clock put its time, and what of that says that the guest was stopped (`struct
/// pvclock_vcpu_time_info`, PVCLOCK_GUEST_STOPPED).
const KVM_CLOCK: u64 = 0x8000;
const FLAGS: u64 = KVM_CLOCK + 29;
const GUEST_STOPPED: u8 = 1 << 1;

/// mov ecx, MSR_KVM_SYSTEM_TIME_NEW; mov eax, KVM_CLOCK | 1; xor edx, edx; wrmsr; out OUT, al; 1: jmp 1b
const KEEP_KVM_CLOCK: &[u8] = &[
    0x66, 0xb9, 0x01, 0x4d, 0x56, 0x4b, 0x66, 0xb8, 0x01, 0x80, 0x00, 0x00, 0x66, 0x31, 0xd2, 0x0f, 0x30,
    0xe6, OUT as u8, 0xeb, 0xfe,
];

fn is_told_of_stop(machine: &Machine) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    let told = || machine.memory.read_obj::<u8>(GuestAddress(FLAGS)).unwrap() & GUEST_STOPPED != 0;
    while !told() && Instant::now() < deadline {
        sleep(Duration::from_millis(1));
    }
    told()
}

#[test]
fn a_guest_is_told_that_its_process_was_stopped() {
    let Some(machine) = Machine::boot(KEEP_KVM_CLOCK) else { return };
    machine.wait_until(1);
    let flags = || machine.memory.read_obj::<u8>(GuestAddress(FLAGS)).unwrap();
    assert_eq!(flags() & GUEST_STOPPED, 0);
    // By somebody else, since who is stopped cannot go on by itself.
    let script = format!("kill -STOP {0}; sleep 0.01; kill -CONT {0}", std::process::id());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    assert!(is_told_of_stop(&machine), "{:#x}", flags());
    machine.stop();
}

#[test]
fn a_guest_is_told_that_it_was_paused() {
    let Some(machine) = Machine::boot(KEEP_KVM_CLOCK) else { return };
    machine.wait_until(1);
    machine.pause();
    machine.resume();
    assert!(is_told_of_stop(&machine));
    machine.stop();
}

#[test]
fn a_vcpu_that_is_told_of_a_stop_tells_its_guest() {
    let Some(machine) = Machine::boot(KEEP_KVM_CLOCK) else { return };
    machine.wait_until(1);
    machine.running.iter().for_each(crate::vcpu::VcpuHandle::tell_of_stop);
    assert!(is_told_of_stop(&machine));
    machine.stop();
}
