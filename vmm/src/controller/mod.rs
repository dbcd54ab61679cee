//! One VM from its configuration to its end. The command line starts it; a [`Remote`] asks and tells it while it runs.

mod changes;
mod configuring;
mod error;
mod events;
mod exit_on;
mod lineage;
mod live;
mod load;
mod opened;
mod recording;
mod remote;
mod request;
mod settling;
mod snapshot;
mod starting;

use std::os::fd::AsRawFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use devices::mmds::MmdsStore;

use serde::Serialize;

use crate::config::{LoadSnapshot, LoggerConfig, VmConfig};
use crate::console::{ConsoleConfig, Output, Tape};
use crate::event_loop::LoopEvent;
use crate::memory;
use crate::metrics::{MetricsFile, MetricsFileMetrics, Registry, Source};
use crate::seccomp::Policy;
use crate::signals::{Signal, Signals};
use crate::thread;
use crate::vcpu::{self, Begin, GuestEvent};
use crate::vm::Vm;

use configuring::Configured;
use lineage::Lineage;
use live::{ControlMetrics, Live};
use recording::Recording;
use remote::Inbox;
use settling::Settling;
use snapshot::{LAST_MOMENT, Writing};

pub use error::ControllerError;
pub use events::Event;
pub(crate) use events::Events;
pub use exit_on::ExitOn;
pub use load::LoadError;
pub use remote::Remote;
pub use request::{
    Answer, BalloonStatsUpdate, BalloonUpdate, DriveUpdate, Instance, Metrics, NetUpdate, Refusal, Request,
    Response, State,
};
pub use snapshot::CreateError;

/// What a reset of the guest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReset {
    /// It ends the VMM.
    #[default]
    Exit,
    /// The guest boots again, from the kernel on.
    Restart,
}

/// How the VMM treats the VM; what the VM itself is made of is in [`VmConfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The VM's name.
    pub id: String,
    /// Where the console goes.
    pub console: ConsoleConfig,
    /// What a reset does.
    pub on_reset: OnReset,
    /// Which of the guest's ends have an exit code of their own.
    pub exit_on: ExitOn,
}

/// Why the VM ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest powered itself off.
    PowerOff,
    /// The guest reset itself.
    Reset,
    /// A fault that no handler took reset the guest.
    TripleFault,
    /// The guest's kernel panicked, and [`Options::exit_on`] has that end the VM.
    Panic,
    /// The VM was saved, and was to end by that.
    Saved,
    /// The user typed `Ctrl-A x`.
    Quit,
    /// A signal asked for it.
    Signal(i32),
}

/// Where the guest's memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// A kernel was loaded into it.
    Booted,
    /// A snapshot.
    Restored,
}

/// Has the process log as is said; why it cannot, if so.
pub type ApplyLogger = Box<dyn Fn(&LoggerConfig) -> Result<(), String>>;

/// What is done once, when the guest runs.
type WhenStarted = Box<dyn FnOnce(&mut Controller)>;

/// One VM, from configuration to end.
pub struct Controller {
    config: VmConfig,
    options: Options,
    signals: Rc<Signals>,
    state: State,
    /// Where requests come from, when somebody has a [`Remote`].
    inbox: Option<Inbox>,
    counted: Arc<ControlMetrics>,
    /// Where metrics are written, once the VM is being made.
    metrics_file: Option<MetricsFile>,
    lines: Arc<MetricsFileMetrics>,
    lines_are_measured: bool,
    /// What is counted outside of the VM's devices and vCPUs.
    metrics: Registry,
    /// What happens is told here.
    told: Events,
    logger: Option<ApplyLogger>,
    /// Tells the user a line.
    notify: fn(&str),
    /// What the guest writes to its consoles, when somebody may ask for it.
    tape: Option<Arc<Tape>>,
    when_started: Option<WhenStarted>,
    when_settled: Option<WhenStarted>,
    settling: Settling,
    created: Instant,
    /// What the metadata service gives out.
    metadata: Arc<MmdsStore>,
    /// What the VM is made from, in place of a configuration.
    snapshot: Option<LoadSnapshot>,
    /// What diffs are on top of.
    lineage: Lineage,
    origin: Origin,
    /// Where it is written, when the VM ends, what it used of its memory.
    recording: Option<Recording>,
    /// A snapshot on its way to the disk.
    writing: Option<Writing>,
    /// The VM was saved, and is to end by that.
    is_to_end: bool,
}

impl Controller {
    /// Takes over the process's signals: from here on they end the VM, not the process. Call it before any thread starts.
    ///
    /// # Errors
    /// What the host said.
    pub fn new(config: VmConfig, options: Options) -> Result<Self, ControllerError> {
        let signals =
            Signals::block().map_err(|source| ControllerError::Host { what: "handle signals", source })?;
        let counted = Arc::new(ControlMetrics::default());
        let mut metrics = Registry::default();
        metrics.add("vmm", counted.clone());
        Ok(Self {
            config,
            options,
            signals: Rc::new(signals),
            state: State::NotStarted,
            inbox: None,
            counted,
            metrics_file: None,
            lines: Arc::default(),
            lines_are_measured: false,
            metrics,
            told: Events::default(),
            logger: None,
            notify: |line| log::warn!("{line}"),
            tape: None,
            when_started: None,
            when_settled: None,
            settling: Settling::NotStarted,
            created: Instant::now(),
            metadata: Arc::default(),
            snapshot: None,
            lineage: Lineage::default(),
            origin: Origin::Booted,
            recording: None,
            writing: None,
            is_to_end: false,
        })
    }

    /// A handle for other threads. Only the last one that was asked for is listened to; it can be cloned.
    ///
    /// # Errors
    /// What the host said.
    pub fn remote(&mut self) -> Result<Remote, ControllerError> {
        let (remote, inbox) = remote::pair(self.keep_console())
            .map_err(|source| ControllerError::Host { what: "make an eventfd", source })?;
        self.inbox = Some(inbox);
        Ok(remote)
    }

    /// Has the last of what the guest writes to its consoles kept, for who gets a [`Remote`] later.
    pub fn keep_console(&mut self) -> Arc<Tape> {
        self.tape.get_or_insert_default().clone()
    }

    /// Has `hook` called once, when the guest runs for the first time: nothing that it does keeps the guest waiting.
    pub fn when_started(&mut self, hook: impl FnOnce(&mut Self) + 'static) {
        self.when_started = Some(Box::new(hook));
    }

    /// Has `hook` called once, when the guest has run for a moment: work beside a guest that begins slows it down, even on
    /// another processor. Of a guest that ends before that it is not called. A guest that is paused, and filters of system
    /// calls, do not wait: it is called when the guest is started.
    pub fn when_settled(&mut self, hook: impl FnOnce(&mut Self) + 'static) {
        self.when_settled = Some(Box::new(hook));
    }

    /// Adds `source` to the VM's metrics, as `kind`.
    pub fn measure(&mut self, kind: &'static str, source: Arc<dyn Source>) {
        self.metrics.add(kind, source);
    }

    /// Has `listener` called with what happens, in the thread that it happens in: it must neither block nor take long. The
    /// first listener stays.
    pub fn listen(&mut self, listener: impl Fn(&Event) + Send + Sync + 'static) {
        self.told.listen(Box::new(listener));
    }

    /// Has the filters of `policy` on all threads of this process, on this one before the guest runs. The first policy of a
    /// process stays.
    pub fn confine_with(&mut self, policy: Policy) {
        thread::confine_with(policy);
    }

    /// Has `notify` called with a line for the user when the guest panics, faults or resets; from any thread.
    pub fn notify_with(&mut self, notify: fn(&str)) {
        self.notify = notify;
    }

    /// Has `apply` change the process's log when a request asks for that.
    pub fn log_with(&mut self, apply: ApplyLogger) {
        self.logger = Some(apply);
    }

    /// Has the metadata service give out what is in `store`, instead of in an empty one of the usual size.
    pub fn give_metadata(&mut self, store: Arc<MmdsStore>) {
        self.metadata = store;
    }

    /// Has [`run`](Self::run) begin with the VM of a snapshot. The configuration has nothing but outputs then.
    pub fn load(&mut self, snapshot: LoadSnapshot) {
        self.snapshot = Some(snapshot);
    }

    /// Runs the VM to its end. One without a kernel that somebody has a [`Remote`] of waits to be configured and started.
    ///
    /// # Errors
    /// [`ControllerError`]; the terminal is as it was, and nothing is left behind.
    pub fn run(mut self) -> Result<Ending, ControllerError> {
        let mut live = if let Some(snapshot) = self.snapshot.take() {
            self.load_snapshot(&snapshot)?
        } else if self.config.boot_source.is_none() && self.inbox.is_some() {
            match self.configure()? {
                Configured::Started(live) => *live,
                Configured::Ended(ending) => return Ok(ending),
            }
        } else {
            self.begin()?
        };
        loop {
            let event = self.serve(&mut live);
            let Live { events, mut vm, output } = live;
            // However the VM is stopped below: no vCPU stays in a write that nobody reads.
            output.release();
            let mut event =
                event.map_err(|source| ControllerError::Host { what: "wait for events", source })?;
            if let LoopEvent::Guest(GuestEvent::Fault(diagnosis)) = &mut event
                && !vm.memory_is_whole()
            {
                diagnosis.found_memory(vcpu::Memory::Cut);
            }
            // Closes the console's input, which gives the terminal back.
            drop(events);
            let signal = self.wait_for_snapshot(match event {
                LoopEvent::Guest(_) => None,
                _ => Some(Instant::now() + LAST_MOMENT),
            });
            let event = signal.map_or(event, LoopEvent::Terminate);
            log::info!("the VM ends: {event:?}; {}", vm.exits());
            self.tell_end(&event);
            self.notify_of(&event, &vm);
            if let LoopEvent::Guest(_) = event {
                vm.stop();
            }
            if self.metrics_file.is_some() {
                vm.stop();
                self.write_metrics(&vm);
            }
            let ending = match event {
                LoopEvent::Guest(GuestEvent::Fault(diagnosis)) => {
                    self.wait_for_output(&output);
                    return Err(ControllerError::Fault(diagnosis));
                }
                LoopEvent::Guest(ref reset) if self.restarts_after(reset) => {
                    self.record(&vm);
                    // The old VM gives its disks back before the new one takes them.
                    let threads = vm.into_threads();
                    log::info!("the guest restarts");
                    self.counted.restarts.increment();
                    self.told.tell_of_guest(&Event::Restart);
                    // No snapshot has anything in common with what runs now.
                    self.lineage = Lineage::default();
                    self.origin = Origin::Booted;
                    let mut vm = Vm::create(&self.config, &output, &self.metadata)?;
                    vm.reuse_threads(threads);
                    live = self.start(vm, output, Begin::Running)?;
                    continue;
                }
                LoopEvent::Guest(GuestEvent::PowerOff) => {
                    self.wait_for_output(&output).map_or(Ending::PowerOff, Ending::Signal)
                }
                LoopEvent::Guest(GuestEvent::Reset) => {
                    self.wait_for_output(&output).map_or(Ending::Reset, Ending::Signal)
                }
                LoopEvent::Guest(GuestEvent::TripleFault) if !vm.memory_is_whole() => {
                    self.wait_for_output(&output);
                    return Err(ControllerError::MemoryCut);
                }
                LoopEvent::Guest(GuestEvent::TripleFault) => {
                    self.wait_for_output(&output).map_or(Ending::TripleFault, Ending::Signal)
                }
                LoopEvent::Guest(GuestEvent::Panic) => {
                    self.wait_for_output(&output).map_or(Ending::Panic, Ending::Signal)
                }
                LoopEvent::MemoryLost => {
                    vm.leave();
                    return Err(ControllerError::MemoryLost);
                }
                LoopEvent::Saved => Ending::Saved,
                LoopEvent::Quit => Ending::Quit,
                LoopEvent::Terminate(number) => Ending::Signal(number),
            };
            self.record(&vm);
            vm.leave();
            return Ok(ending);
        }
    }

    /// Writes down, if that was asked for, what `vm` used of its memory, which comes from a snapshot.
    fn record(&mut self, vm: &Vm) {
        if let Some(recording) = self.recording.take() {
            recording.write(vm.memory());
        }
    }

    /// The log may have come before the drive whose file it is.
    fn check_log(&self) -> Result<(), ControllerError> {
        match self.config.log_of_the_guest() {
            None => Ok(()),
            Some((log, guest)) => {
                Err(ControllerError::LogOfTheGuest { path: log.to_owned(), guest: guest.to_owned() })
            }
        }
    }

    /// The VM is in `state` from now on.
    fn enter(&mut self, state: State) {
        self.state = state;
        self.told.tell(&Event::State { state });
    }

    fn tell_end(&self, event: &LoopEvent) {
        self.told.tell(&match event {
            LoopEvent::Guest(GuestEvent::PowerOff) => Event::PowerOff,
            LoopEvent::Guest(GuestEvent::Reset | GuestEvent::TripleFault) => Event::Reset,
            LoopEvent::Guest(GuestEvent::Fault(diagnosis)) => Event::Fault { message: diagnosis.to_string() },
            LoopEvent::MemoryLost => Event::Fault { message: memory::LOST.to_owned() },
            LoopEvent::Guest(GuestEvent::Panic)
            | LoopEvent::Saved
            | LoopEvent::Quit
            | LoopEvent::Terminate(_) => Event::Terminated,
        });
    }

    fn open_metrics(&mut self) -> Result<(), ControllerError> {
        self.metrics_file = None;
        let Some(config) = &self.config.metrics else { return Ok(()) };
        let path = config.metrics_path.clone();
        let failed = |source| ControllerError::Metrics { path: path.clone(), source };
        let file = MetricsFile::open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if let Some(guest) = self.config.file_of_the_guest(&metadata).map(Path::to_owned) {
            return Err(ControllerError::MetricsOfTheGuest { path, guest });
        }
        if !std::mem::replace(&mut self.lines_are_measured, true) {
            self.metrics.add("metrics_file", self.lines.clone());
        }
        self.metrics_file = Some(file);
        Ok(())
    }

    /// Waits until somebody has read what the guest wrote to its virtio console, or a signal ends the wait: its number.
    fn wait_for_output(&self, output: &Output) -> Option<i32> {
        loop {
            if let Err(error) = output.wait_written(self.signals.as_raw_fd()) {
                log::warn!("the end of the console's output may be missing: {error}");
                return None;
            }
            match self.signals.read() {
                Some(Signal::Terminate(number)) => return Some(number),
                Some(Signal::Stop) => crate::signals::stop_process(),
                Some(Signal::Continue | Signal::Resize) => {}
                None => return None,
            }
        }
    }
}
