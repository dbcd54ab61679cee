//! Saving and restoring what KVM holds of a VM, with guests of a few instructions on `/dev/kvm`.

mod clocks;
mod exits;
mod hostile;
mod timers;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use devices::GuestMemory;
use devices::bus::{BusAction, BusDevice};
use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use skip::Capability;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::state::MachineStateV1;
use crate::cpu::{self, Topology, TscDeadline};
use crate::kvm::{Elapsed, Host};
use crate::memory::{self, HugePages};
use crate::vcpu::{
    Begin, Buses, ExitCounters, GuestEvents, RestoreError, SaveError, Vcpu, VcpuHandle, VcpuStateV1,
    install_kick_handler, restore,
};

const CODE: u64 = 0x1000;
/// Where guests say something, and where they ask: ports that KVM does not answer itself.
const OUT: u64 = 0x10;
const IN: u64 = 0x70;
/// The reset port of the tests.
const RESET: u64 = 0x30;
/// Device memory, 64 KiB of it.
const DEVICE: u64 = 0xa_0000;

/// A write of the guest.
#[derive(Clone, Debug)]
struct Write {
    /// Behind the first port or address of its device.
    offset: u64,
    bytes: Vec<u8>,
    at: Instant,
}

/// Keeps what the guest wrote, and answers reads by counting.
#[derive(Default)]
struct Recorder {
    written: Mutex<Vec<Write>>,
    reads: AtomicU32,
}

impl BusDevice for Recorder {
    fn read(&self, _: u64, data: &mut [u8]) {
        for byte in data {
            *byte = self.reads.fetch_add(1, Ordering::Relaxed) as u8;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> BusAction {
        self.written.lock().unwrap().push(Write { offset, bytes: data.to_vec(), at: Instant::now() });
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

/// The host's KVM; if it has none, the running test is skipped.
fn host() -> Option<Host> {
    skip::available(Capability::Kvm, Host::open())
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
                Vcpu { id, fd, cpuid, buses, events, counters: Arc::new(ExitCounters::default()) }
            })
            .collect();
        Self { running: Vec::new(), ready, recorder: recorder.clone(), events, memory, vm, host }
    }

    /// One vCPU that runs `code` in real mode.
    fn boot(code: &[u8]) -> Option<Self> {
        Some(Self::loaded(code, 1)?.start())
    }

    /// vCPUs that are to run `code` in real mode, each with the port OUT plus its number in DX.
    fn loaded(code: &[u8], vcpus: u32) -> Option<Self> {
        let machine = Self::new(host()?, vcpus, &Arc::default());
        machine.memory.write_slice(code, GuestAddress(CODE)).unwrap();
        for Vcpu { id, fd, cpuid, .. } in &machine.ready {
            fd.set_cpuid2(cpuid).unwrap();
            let mut sregs = fd.get_sregs().unwrap();
            for segment in [&mut sregs.cs, &mut sregs.ds, &mut sregs.es, &mut sregs.ss] {
                (segment.base, segment.selector) = (0, 0);
            }
            fd.set_sregs(&sregs).unwrap();
            let mut regs = fd.get_regs().unwrap();
            (regs.rip, regs.rsp, regs.rflags) = (CODE, CODE, 2);
            regs.rdx = OUT + u64::from(*id);
            fd.set_regs(&regs).unwrap();
            fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).unwrap();
        }
        Some(machine)
    }

    fn start(mut self) -> Self {
        self.running = self.ready.drain(..).map(|vcpu| vcpu.start(Begin::Running, None).unwrap()).collect();
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

    /// How often the guest has written.
    fn written(&self) -> usize {
        self.recorder.written.lock().unwrap().len()
    }

    /// Waits until the guest has written `more` times.
    fn wait_for(&self, more: usize) {
        self.wait_until(self.written() + more);
    }

    /// Waits until the guest has written `until` times in all.
    fn wait_until(&self, until: usize) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.written() < until {
            assert!(Instant::now() < deadline, "the guest wrote {} of {until} times", self.written());
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Stops the guest; all that it and those before it wrote.
    fn stop(mut self) -> Vec<Write> {
        VcpuHandle::stop(std::mem::take(&mut self.running));
        std::mem::take(&mut *self.recorder.written.lock().unwrap())
    }

    /// Stops the guest, whose recorder another one has.
    fn leave(mut self) {
        VcpuHandle::stop(std::mem::take(&mut self.running));
    }
}

/// As a snapshot's file has it.
fn encoded<T: serde::Serialize + serde::de::DeserializeOwned>(state: &T) -> T {
    postcard::from_bytes(&postcard::to_stdvec(state).unwrap()).unwrap()
}
