//! From a configuration to a guest that runs, and what can fail on the way: the state says that it runs only when nothing
//! can any more.

use std::os::fd::AsRawFd;
use std::rc::Rc;

use super::live::Live;
use super::{Controller, ControllerError, Event, OnReset, State};
use crate::console::{ConsoleConfig, Input, Output, Terminal};
use crate::event_loop::{EventLoop, Watched};
use crate::memory::Pager;
use crate::metrics::MetricsFile;
use crate::seccomp::FilterKind;
use crate::thread;
use crate::vcpu::Begin;
use crate::vm::{Vm, VmError};

impl Controller {
    /// Makes the VM and starts its guest.
    ///
    /// # Errors
    /// [`ControllerError`]; nothing is left behind, and it can be tried again.
    pub(super) fn begin(&mut self) -> Result<Live, ControllerError> {
        self.open_metrics()?;
        self.check_log()?;
        let output = Output::open(&self.options.console, &self.config)?.taped(self.tape.clone());
        self.config.resolve_cpu_template().map_err(VmError::from).inspect_err(|_| output.abandon())?;
        let vm = Vm::create(&self.config, &output, &self.metadata).inspect_err(|_| output.abandon())?;
        output
            .begin()
            .map_err(|source| ControllerError::Host { what: "empty the console's file", source })?;
        self.start(vm, output, Begin::Running)
    }

    /// Starts the guest as `begin` says, and then what watches it: the guest does not wait for it. Only where threads are
    /// filtered does it wait, until each has its filter.
    ///
    /// # Errors
    /// [`ControllerError`]; there is no guest then, and the state is what it was.
    pub(super) fn start(
        &mut self,
        mut vm: Vm,
        output: Output,
        begin: Begin,
    ) -> Result<Live, ControllerError> {
        output.hold();
        let stdio = self.options.console == ConsoleConfig::Stdio && output.is_stdio();
        let terminal = stdio.then(Terminal::on_stdin).flatten();
        self.watch_failures(&vm);
        let waits_for_filters = thread::are_confined();
        if waits_for_filters {
            self.check_passt()?;
            vm.devices().start_backends().map_err(VmError::from)?;
            vm.start(Begin::Paused)?;
        } else {
            vm.start(begin)?;
        }
        let mut watched = Watched {
            guest: vm.events().clone(),
            virtio: vm.devices().virtio.iter().map(|slot| slot.core.clone()).collect(),
            requests: self.inbox.as_ref().map(|inbox| inbox.wake().as_raw_fd()),
            metrics_timer: self.metrics_file.as_ref().map(MetricsFile::timer),
            memory_lost: vm.pager().map(Pager::lost),
            input: None,
        };
        if begin == Begin::Paused {
            vm.pause();
        }
        if stdio {
            let input = Input::new(vm.devices().input_port(), terminal)
                .map_err(|source| ControllerError::Host { what: "watch standard input", source })?;
            input.resize();
            watched.input = Some(input);
        }
        let had_inbox = watched.requests.is_some();
        let mut events = EventLoop::new(watched, Rc::clone(&self.signals))
            .map_err(|source| ControllerError::Host { what: "make the event loop", source })?;
        if begin == Begin::Paused {
            events.ignore_devices();
        }
        // Nothing but a filter can fail from here on: what is told now stays true.
        if let Some(hook) = self.when_started.take() {
            hook(self);
        }
        self.begin_to_settle(begin);
        if let (false, Some(inbox)) = (had_inbox, &self.inbox) {
            events.watch_requests(inbox.wake().as_raw_fd());
        }
        thread::confine(FilterKind::Vmm)
            .map_err(|source| ControllerError::Host { what: "filter the system calls", source })?;
        if waits_for_filters && begin == Begin::Running {
            vm.resume();
        }
        self.enter(match begin {
            Begin::Running => State::Running,
            Begin::Paused => State::Paused,
        });
        let machine = &self.config.machine_config;
        log::info!("the guest runs: {} vCPUs, {} MiB of memory", machine.vcpu_count, machine.mem_size_mib);
        Ok(Live { events, vm, output })
    }

    /// passt is started before this thread has its filter, which it would inherit. For a guest that boots again there is no
    /// such time.
    fn check_passt(&self) -> Result<(), ControllerError> {
        let uses_passt = self.config.network_interfaces.iter().any(|interface| interface.user.is_some());
        if self.options.on_reset == OnReset::Restart && uses_passt {
            return Err(ControllerError::FilteredPasst);
        }
        Ok(())
    }

    /// Has devices that fail, and a guest that panics, tell of it.
    fn watch_failures(&self, vm: &Vm) {
        self.watch_panic(vm);
        for (slot, device) in vm.devices().virtio.iter().zip(0..) {
            let told = self.told.clone();
            slot.core.on_failure(Box::new(move |device_type, message| {
                told.tell_of_guest(&Event::DeviceError { device_type, device, message: message.to_owned() });
            }));
        }
    }
}
