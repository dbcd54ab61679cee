//! Saving and restoring vCPUs, with small guests on `/dev/kvm`; skipped where there is none.

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use devices::GuestMemory;
use devices::bus::{BusAction, BusDevice};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::state::MachineStateV1;
use crate::cpu::{self, Topology, TscDeadline};
use crate::kvm::{Elapsed, Host};
use crate::memory::{self, HugePages};
use crate::vcpu::{
    Begin, Buses, ExitCounters, GuestEvent, GuestEvents, RestoreError, SaveError, Vcpu, VcpuHandle,
    VcpuStateV1, install_kick_handler, restore,
};

const CODE: u64 = 0x1000;
/// Where guests say something, and where they ask: ports that KVM does not answer itself.
const OUT: u64 = 0x10;
const IN: u64 = 0x70;
/// The reset port of the tests.
const RESET: u64 = 0x30;
/// Device memory, 64 KiB of it.
const DEVICE: u64 = 0xa_0000;

/// Keeps what the guest wrote, and answers reads by counting.
#[derive(Default)]
struct Recorder {
    written: Mutex<Vec<u8>>,
    reads: AtomicU32,
}

impl BusDevice for Recorder {
    fn read(&self, _: u64, data: &mut [u8]) {
        for byte in data {
            *byte = self.reads.fetch_add(1, Ordering::Relaxed) as u8;
        }
    }

    fn write(&self, _: u64, data: &[u8]) -> BusAction {
        self.written.lock().unwrap().extend_from_slice(data);
        BusAction::None
    }
}

struct ResetPort;

impl BusDevice for ResetPort {
    fn read(&self, _: u64, _: &mut [u8]) {}

    fn write(&self, _: u64, _: &[u8]) -> BusAction {
        BusAction::Reset
    }
}

/// A VM of one or more vCPUs.
struct Machine {
    running: Vec<VcpuHandle>,
    ready: Vec<Vcpu>,
    recorder: Arc<Recorder>,
    events: Arc<GuestEvents>,
    memory: GuestMemory,
    vm: VmFd,
    host: Host,
}

/// The host's KVM, if it has one.
fn host() -> Option<Host> {
    match Host::open() {
        Ok(host) => Some(host),
        Err(error) => {
            let required = std::env::var_os("RVMM_REQUIRE_KVM").is_some_and(|value| value != "0");
            assert!(!required, "RVMM_REQUIRE_KVM is set, but: {error}");
            let thread = std::thread::current();
            // Past the harness's capture.
            let _ = writeln!(std::io::stderr(), "skipped: {}: {error}", thread.name().unwrap_or("a test"));
            None
        }
    }
}

impl Machine {
    fn new(host: Host, vcpus: u32, recorder: &Arc<Recorder>) -> Self {
        install_kick_handler().unwrap();
        let vm = host.create_vm().unwrap();
        let memory = memory::create(1, HugePages::None, false).unwrap();
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            // Device memory is what lies behind.
            memory_size: DEVICE,
            userspace_addr: memory.get_host_address(GuestAddress(0)).unwrap() as u64,
        };
        #[expect(unsafe_code, reason = "KVM_SET_USER_MEMORY_REGION takes a host address")]
        // SAFETY: the range is mapped as long as `memory`, which is kept next to `vm`.
        unsafe {
            vm.set_user_memory_region(region).unwrap();
        }
        vm.set_tss_address(crate::layout::KVM_TSS_ADDRESS as usize).unwrap();
        vm.create_irq_chip().unwrap();
        let mut buses = Buses::default();
        for port in [OUT, IN] {
            buses.pio.insert(port, 8, recorder.clone()).unwrap();
        }
        buses.pio.insert(RESET, 1, Arc::new(ResetPort)).unwrap();
        buses.mmio.insert(DEVICE, 0x1_0000, recorder.clone()).unwrap();
        let buses = Arc::new(buses);
        let events = Arc::new(GuestEvents::new().unwrap());
        let supported = host.supported_cpuid().unwrap();
        let ready = (0..vcpus)
            .map(|id| {
                let fd = vm.create_vcpu(id.into()).unwrap();
                let topology = Topology { vcpus, smt: false };
                let cpuid = cpu::guest_cpuid(&supported, id, topology, None, TscDeadline::Offered).unwrap();
                let (buses, events) = (buses.clone(), events.clone());
                Vcpu {
                    id,
                    fd,
                    cpuid,
                    buses,
                    events,
                    counters: Arc::new(ExitCounters::default()),
                    filter: None,
                }
            })
            .collect();
        Self { running: Vec::new(), ready, recorder: recorder.clone(), events, memory, vm, host }
    }

    /// One vCPU that runs `code` in real mode.
    fn boot(code: &[u8]) -> Option<Self> {
        let machine = Self::new(host()?, 1, &Arc::default());
        machine.memory.write_slice(code, GuestAddress(CODE)).unwrap();
        let fd = &machine.ready[0].fd;
        fd.set_cpuid2(&machine.ready[0].cpuid).unwrap();
        let mut sregs = fd.get_sregs().unwrap();
        for segment in [&mut sregs.cs, &mut sregs.ds, &mut sregs.es, &mut sregs.ss] {
            (segment.base, segment.selector) = (0, 0);
        }
        fd.set_sregs(&sregs).unwrap();
        let mut regs = fd.get_regs().unwrap();
        (regs.rip, regs.rsp, regs.rflags) = (CODE, CODE, 2);
        fd.set_regs(&regs).unwrap();
        Some(machine.start())
    }

    fn start(mut self) -> Self {
        self.running = self.ready.drain(..).map(|vcpu| vcpu.start(Begin::Running).unwrap()).collect();
        self
    }

    fn pause(&self) {
        VcpuHandle::pause(&self.running);
    }

    fn save(&self) -> Result<(Vec<VcpuStateV1>, MachineStateV1), SaveError> {
        let vcpus = VcpuHandle::save(&self.running, &self.host)?;
        Ok((vcpus, MachineStateV1::save(&self.vm).unwrap()))
    }

    /// Another VM that goes on where this one is, talking to the same recorder.
    fn twin(&self) -> Self {
        let (vcpus, machine) = self.save().unwrap();
        self.twin_of(&encoded(&vcpus), &encoded(&machine), Elapsed::Counted).unwrap()
    }

    fn twin_of(
        &self,
        vcpus: &[VcpuStateV1],
        machine: &MachineStateV1,
        elapsed: Elapsed,
    ) -> Result<Self, RestoreError> {
        let twin = Self::new(Host::open().unwrap(), vcpus.len().try_into().unwrap(), &self.recorder);
        let mut pages = vec![0; DEVICE as usize];
        self.memory.read_slice(&mut pages, GuestAddress(0)).unwrap();
        twin.memory.write_slice(&pages, GuestAddress(0)).unwrap();
        let fds: Vec<_> = twin.ready.iter().map(|vcpu| &vcpu.fd).collect();
        restore(&twin.vm, &fds, vcpus, elapsed)?;
        machine.restore(&twin.vm, elapsed)?;
        Ok(twin)
    }

    fn resume(&self) {
        self.running.iter().for_each(VcpuHandle::resume);
    }

    fn written(&self) -> usize {
        self.recorder.written.lock().unwrap().len()
    }

    /// Waits until the guest has written `more` bytes.
    fn wait_for(&self, more: usize) {
        let (until, deadline) = (self.written() + more, Instant::now() + Duration::from_mins(1));
        while self.written() < until {
            assert!(Instant::now() < deadline, "the guest wrote {} of {until} bytes", self.written());
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn stop(mut self) -> Arc<Recorder> {
        VcpuHandle::stop(std::mem::take(&mut self.running));
        self.recorder.clone()
    }
}

/// As a snapshot's file has it.
fn encoded<T: serde::Serialize + serde::de::DeserializeOwned>(state: &T) -> T {
    postcard::from_bytes(&postcard::to_stdvec(state).unwrap()).unwrap()
}

/// Runs `code`, which writes bytes that count up for ever, and hands it on ten times from one VM to the next.
fn count_across_ten_restores(code: &[u8]) {
    let Some(mut machine) = Machine::boot(code) else { return };
    for _ in 0..10 {
        machine.wait_for(100);
        machine.pause();
        let twin = machine.twin();
        machine.stop();
        machine = twin.start();
    }
    machine.wait_for(100);
    let written = std::mem::take(&mut *machine.stop().written.lock().unwrap());
    for (at, pair) in written.windows(2).enumerate() {
        assert_eq!(pair[1], pair[0].wrapping_add(1), "byte {at} of {}", written.len());
    }
}

#[test]
fn a_guest_that_writes_ports_goes_on_with_the_next_byte() {
    // 1: inc ax; out OUT, al; jmp 1b
    count_across_ten_restores(&[0x40, 0xe6, OUT as u8, 0xeb, 0xfb]);
}

#[test]
fn a_port_that_was_read_is_not_read_again() {
    // 1: in al, IN; out OUT, al; jmp 1b
    count_across_ten_restores(&[0xe4, IN as u8, 0xe6, OUT as u8, 0xeb, 0xfa]);
}

#[test]
fn a_string_of_port_reads_is_neither_cut_nor_repeated() {
    // 1: mov di, 0x2000; mov cx, 3000; mov dx, IN; rep insb; mov si, 0x2000; mov cx, 3000; mov dx, OUT; rep outsb; jmp 1b
    count_across_ten_restores(&[
        0xbf, 0x00, 0x20, 0xb9, 0xb8, 0x0b, 0xba, IN as u8, 0x00, 0xf3, 0x6c, 0xbe, 0x00, 0x20, 0xb9, 0xb8,
        0x0b, 0xba, OUT as u8, 0x00, 0xf3, 0x6e, 0xeb, 0xe8,
    ]);
}

#[test]
fn an_access_to_device_memory_in_two_parts_is_done_once() {
    // mov ax, 0xa000; mov es, ax; 1: mov eax, es:[0x0ffe]; out OUT, eax; jmp 1b: across a page, so two exits
    count_across_ten_restores(&[
        0xb8, 0x00, 0xa0, 0x8e, 0xc0, 0x26, 0x66, 0xa1, 0xfe, 0x0f, 0x66, 0xe7, OUT as u8, 0xeb, 0xf6,
    ]);
}

#[test]
fn a_guest_that_was_saved_goes_on_as_if_nothing_had_happened() {
    let Some(machine) = Machine::boot(&[0x40, 0xe6, OUT as u8, 0xeb, 0xfb]) else { return };
    for _ in 0..10 {
        machine.wait_for(50);
        machine.pause();
        machine.save().unwrap();
        machine.save().unwrap();
        machine.resume();
    }
    machine.wait_for(50);
    let written = std::mem::take(&mut *machine.stop().written.lock().unwrap());
    assert!(written.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)));
}

#[test]
fn a_running_guest_is_not_saved() {
    let Some(machine) = Machine::boot(&[0xeb, 0xfe]) else { return };
    assert!(matches!(machine.save(), Err(SaveError::Running(0))));
    machine.stop();
}

#[test]
fn a_guest_that_has_ended_is_not_saved() {
    // out RESET, al
    let Some(machine) = Machine::boot(&[0xe6, RESET as u8, 0xeb, 0xfe]) else { return };
    let deadline = Instant::now() + Duration::from_mins(1);
    while !matches!(machine.events.take(), Some(GuestEvent::Reset)) {
        assert!(Instant::now() < deadline, "the guest does not reset");
        std::thread::sleep(Duration::from_millis(1));
    }
    machine.pause();
    assert!(matches!(machine.save(), Err(SaveError::Ended(0) | SaveError::Running(0))));
    machine.stop();
}
