//! One virtual CPU: a thread that runs it, answers its exits from the buses, and stops when told.
//!
//! Lock order: a vCPU's `state` is never held while a device or the bus is called.

mod diagnosis;
mod exits;
mod msrs;
mod restore;
mod save;
mod state;
mod tsc;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use devices::bus::{Bus, BusAction};
use kvm_bindings::{CpuId, kvm_run};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::{Killable, register_signal_handler};

pub use diagnosis::Diagnosis;
pub use exits::{ExitCounters, ExitCounts};
pub use msrs::MsrV1;
pub use restore::{RestoreError, restore, validate};
pub use save::SaveError;
pub use state::VcpuStateV1;
pub use tsc::TscStateV1;

use crate::seccomp::Filter;

/// How long a kick waits before it is repeated: the signal can arrive just before `KVM_RUN` and be lost.
const KICK_INTERVAL: Duration = Duration::from_millis(1);

/// The signal that gets a vCPU out of `KVM_RUN`.
fn kick_signal() -> libc::c_int {
    vmm_sys_util::signal::SIGRTMIN()
}

/// What the guest sees outside of its memory.
#[derive(Default)]
pub struct Buses {
    /// Memory-mapped I/O.
    pub mmio: Bus,
    /// Port I/O.
    pub pio: Bus,
}

/// Why a guest stopped by itself.
#[derive(Debug)]
pub enum GuestEvent {
    /// It powered itself off.
    PowerOff,
    /// It asked for a reset, or took a triple fault.
    Reset,
    /// KVM cannot run it any further.
    Fault(Box<Diagnosis>),
}

/// Where vCPUs leave their last word: the first of them counts.
pub struct GuestEvents {
    first: Mutex<Option<GuestEvent>>,
    wake: EventFd,
}

impl GuestEvents {
    /// An empty one.
    ///
    /// # Errors
    /// What eventfd(2) said.
    pub fn new() -> io::Result<Self> {
        Ok(Self { first: Mutex::new(None), wake: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)? })
    }

    /// Readable when there is an event.
    pub fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// The first event since the last call.
    pub fn take(&self) -> Option<GuestEvent> {
        let _ = self.wake.read();
        lock(&self.first).take()
    }

    fn report(&self, event: GuestEvent) {
        lock(&self.first).get_or_insert(event);
        // Fails only when the counter is full, and then the reader is awake.
        let _ = self.wake.write(1);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Run,
    Pause,
    Stop,
}

struct State {
    wanted: Wanted,
    /// The thread is outside of `KVM_RUN` and waits (or is gone).
    parked: bool,
    /// What the parked thread is to do.
    job: Option<save::Job>,
    /// What became of the last job.
    answer: Option<save::Answer>,
}

/// How a vCPU begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// It runs.
    #[default]
    Running,
    /// It waits to be [resumed](VcpuHandle::resume).
    Paused,
}

/// How far the last exit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// It was answered, and the next `KVM_RUN` completes the instruction.
    Answered,
    /// There is none, or its instruction is complete: the registers say where the guest is.
    Complete,
}

/// What a `KVM_RUN` came to.
enum Ran {
    /// An exit was answered. What the guest reads is handed to it by the next `KVM_RUN`.
    Answered,
    /// A signal, or `immediate_exit`, ended it.
    Interrupted,
    /// The guest does not go on.
    Ended(GuestEvent),
}

/// What a vCPU's thread and its handle share.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// A copy of `state.wanted != Run` that the thread reads before each `KVM_RUN`.
    attention: AtomicBool,
}

/// A vCPU with everything that its thread needs.
pub struct Vcpu {
    /// Number of the vCPU, from 0.
    pub id: u32,
    /// KVM's handle.
    pub fd: VcpuFd,
    /// The leaves that KVM was given for it.
    pub cpuid: CpuId,
    /// Where its exits are answered.
    pub buses: Arc<Buses>,
    /// Where it leaves its last word.
    pub events: Arc<GuestEvents>,
    /// What it counts its exits in.
    pub counters: Arc<ExitCounters>,
    /// What its thread may ask of the host; all, if there is none.
    pub filter: Option<Filter>,
}

/// The running thread of a vCPU.
pub struct VcpuHandle {
    thread: JoinHandle<()>,
    shared: Arc<Shared>,
}

/// Prepares the process for kicking vCPUs. Once, before the first vCPU starts.
///
/// # Errors
/// What sigaction(2) said.
pub fn install_kick_handler() -> io::Result<()> {
    extern "C" fn do_nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(kick_signal(), do_nothing)
        .map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

impl Vcpu {
    /// Starts the vCPU on a thread of its own, as `begin` says.
    ///
    /// # Errors
    /// What the host said when it had no thread to give.
    pub fn start(self, begin: Begin) -> io::Result<VcpuHandle> {
        let wanted = match begin {
            Begin::Running => Wanted::Run,
            Begin::Paused => Wanted::Pause,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State { wanted, parked: false, job: None, answer: None }),
            changed: Condvar::new(),
            attention: AtomicBool::new(wanted != Wanted::Run),
        });
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("vcpu{}", self.id))
            .stack_size(256 << 10)
            .spawn(move || self.run(&for_thread))?;
        Ok(VcpuHandle { thread, shared })
    }

    fn run(mut self, shared: &Shared) {
        Filter::confine(self.filter.as_ref());
        let mut exit = Exit::Complete;
        while self.may_run(shared, &mut exit) {
            exit = match self.run_once() {
                Ran::Answered => Exit::Answered,
                Ran::Interrupted => Exit::Complete,
                Ran::Ended(event) => {
                    self.events.report(event);
                    break;
                }
            };
        }
        lock(&shared.state).parked = true;
        shared.changed.notify_all();
    }

    /// Runs the guest to its next exit and answers it.
    fn run_once(&mut self) -> Ran {
        let run: *const kvm_run = self.fd.get_kvm_run();
        let exit = match self.fd.run() {
            Ok(exit) => exit,
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => return Ran::Interrupted,
            Err(error) => {
                let source = io::Error::from_raw_os_error(error.errno());
                let diagnosis = Diagnosis::new(&mut self.fd, self.id, diagnosis::Cause::Run(source));
                return Ran::Ended(GuestEvent::Fault(Box::new(diagnosis)));
            }
        };
        self.counters.count(&exit);
        let action = match exit {
            VcpuExit::IoIn(port, data) => {
                let width = port_access_width(run);
                data.chunks_mut(width).for_each(|access| self.buses.pio.read(u64::from(port), access));
                BusAction::None
            }
            VcpuExit::IoOut(port, data) => {
                let action = data
                    .chunks(port_access_width(run))
                    .map(|access| self.buses.pio.write(u64::from(port), access))
                    .find(|action| *action != BusAction::None)
                    .unwrap_or_default();
                if action != BusAction::None {
                    log::info!("vCPU {}: {action:?} by a write to port {port:#x}", self.id);
                }
                action
            }
            VcpuExit::MmioRead(address, data) => {
                self.buses.mmio.read(address, data);
                BusAction::None
            }
            VcpuExit::MmioWrite(address, data) => self.buses.mmio.write(address, data),
            VcpuExit::Intr | VcpuExit::Hlt | VcpuExit::IrqWindowOpen => BusAction::None,
            VcpuExit::Shutdown | VcpuExit::SystemEvent(kvm_bindings::KVM_SYSTEM_EVENT_RESET, _) => {
                BusAction::Reset
            }
            VcpuExit::SystemEvent(kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN, _) => BusAction::Shutdown,
            other => {
                let cause = diagnosis::Cause::from_exit(&other);
                let diagnosis = Diagnosis::new(&mut self.fd, self.id, cause);
                return Ran::Ended(GuestEvent::Fault(Box::new(diagnosis)));
            }
        };
        match action {
            BusAction::None => Ran::Answered,
            BusAction::Shutdown => Ran::Ended(GuestEvent::PowerOff),
            BusAction::Reset => Ran::Ended(GuestEvent::Reset),
        }
    }

    /// Waits while the vCPU is to pause, completes its last `exit`, and does what is asked meanwhile; whether it is to go on.
    fn may_run(&mut self, shared: &Shared, exit: &mut Exit) -> bool {
        if !shared.attention.load(Ordering::Acquire) {
            return true;
        }
        let mut state = lock(&shared.state);
        let pauses = state.wanted == Wanted::Pause;
        if pauses && *exit == Exit::Answered {
            drop(state);
            let Some(now) = self.complete_exit() else { return false };
            *exit = now;
            state = lock(&shared.state);
        }
        while state.wanted == Wanted::Pause {
            if let Some(extent) = state.job.take() {
                drop(state);
                let answer = self.save(*exit, &extent);
                state = lock(&shared.state);
                state.answer = Some(answer);
                shared.changed.notify_all();
                // What is wanted may be something else by now.
                continue;
            }
            state.parked = true;
            shared.changed.notify_all();
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.parked = false;
        let goes_on = state.wanted == Wanted::Run;
        drop(state);
        if pauses && goes_on {
            // A guest that reads kvm-clock is told that it was stopped, so that its watchdogs do not bark. Others cannot be.
            let _ = self.fd.kvmclock_ctrl();
        }
        goes_on
    }
}

/// Bytes of one port access, 1 to 4: a string instruction (`rep insb`) hands several over in one exit.
#[expect(unsafe_code, reason = "reads the union that describes the last exit")]
fn port_access_width(run: *const kvm_run) -> usize {
    // SAFETY: `run` is the page that KVM shares with the vCPU's owner, mapped as long as the vCPU is. The exit was
    // KVM_EXIT_IO, so KVM filled in `io`; the bytes of the access lie behind this structure, not in it.
    let size = unsafe { (&raw const (*run).__bindgen_anon_1.io.size).read() };
    usize::from(size.clamp(1, 4))
}

impl VcpuHandle {
    /// Gets `vcpus` out of guest mode and keeps them there until they are [resumed](Self::resume). Returns once they are.
    pub fn pause(vcpus: &[Self]) {
        Self::park(vcpus, Wanted::Pause);
    }

    /// Lets a paused vCPU go on.
    pub fn resume(&self) {
        self.want(Wanted::Run);
    }

    /// Ends `vcpus` and their threads. Returns once they have ended.
    pub fn stop(vcpus: Vec<Self>) {
        Self::park(&vcpus, Wanted::Stop);
        for vcpu in vcpus {
            if vcpu.thread.join().is_err() {
                log::error!("a vCPU's thread panicked");
            }
        }
    }

    fn want(&self, wanted: Wanted) {
        lock(&self.shared.state).wanted = wanted;
        self.shared.attention.store(wanted != Wanted::Run, Ordering::Release);
        self.shared.changed.notify_all();
    }

    /// Kicks all of `vcpus` until the last is where it is wanted. Not one after the other: one may wait for a lock that
    /// another holds, which blocks in a write to the console until it is kicked.
    fn park(vcpus: &[Self], wanted: Wanted) {
        for vcpu in vcpus {
            vcpu.want(wanted);
            vcpu.kick();
        }
        for vcpu in vcpus {
            while !vcpu.wait_until_parked() {
                vcpus.iter().for_each(Self::kick);
            }
        }
    }

    fn kick(&self) {
        if lock(&self.shared.state).parked {
            return;
        }
        if let Err(error) = self.thread.kill(kick_signal()) {
            log::error!("a vCPU cannot be kicked: {error}");
        }
    }

    /// Waits a kick's time for the vCPU to be outside of `KVM_RUN`, or gone; whether it is.
    fn wait_until_parked(&self) -> bool {
        let there = |state: &State| state.parked || self.thread.is_finished();
        let state = lock(&self.shared.state);
        if there(&state) {
            return true;
        }
        let waited = self.shared.changed.wait_timeout(state, KICK_INTERVAL);
        there(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

/// Locks a mutex. A thread that panicked while it held one has ended the process (`panic = "abort"`).
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
