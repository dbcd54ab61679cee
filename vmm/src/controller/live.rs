//! A VM while its guest is there: what it does for requests, one at a time, in the main thread.

use std::fs::Metadata;
use std::io;

use devices::metrics::Counter;
use devices::same_file;
use serde::Serialize;

use super::request::{Answer, DriveUpdate, Instance, Metrics, Refusal, Request, Response, State};
use super::{Controller, Options, changes};
use crate::config::LoggerConfig;
use crate::console::Output;
use crate::event_loop::{EventLoop, LoopEvent, Wake};
use crate::vcpu::GuestEvent;
use crate::vm::Vm;

/// Requests that are answered before devices, or signals, get their turn.
pub(super) const MAX_REQUESTS_PER_TURN: usize = 16;

/// What the controller counts.
#[derive(Debug, Default, Serialize)]
pub(super) struct ControlMetrics {
    /// Requests that were done.
    pub(super) requests: Counter,
    /// Requests that were refused.
    pub(super) refused_requests: Counter,
    /// Times that the guest was paused.
    pub(super) pauses: Counter,
    /// Times that it went on.
    pub(super) resumes: Counter,
    /// Times that it booted again after a reset.
    pub(super) restarts: Counter,
    /// Snapshots that were written.
    pub(super) snapshots: Counter,
}

impl ControlMetrics {
    pub(super) fn count(&self, answer: &Answer) {
        let count = if answer.is_ok() { &self.requests } else { &self.refused_requests };
        count.increment();
    }
}

/// The VM that is there, with what it runs on.
pub(super) struct Live {
    // Dropped in this order: the event loop closes the console's input, which gives the terminal back.
    pub(super) events: EventLoop,
    pub(super) vm: Vm,
    pub(super) output: Output,
}

impl Controller {
    /// Serves devices and requests until something ends the guest.
    ///
    /// # Errors
    /// What epoll said.
    pub(super) fn serve(&mut self, live: &mut Live) -> io::Result<LoopEvent> {
        // The guest's last word, said when it was being paused: not heard before it may go on.
        let mut last_word: Option<GuestEvent> = None;
        loop {
            match self.wait(&mut live.events)? {
                Wake::Requests => {
                    self.answer_some(live);
                    if self.is_to_end {
                        return Ok(LoopEvent::Saved);
                    }
                }
                Wake::Metrics => {
                    if let Some(file) = &mut self.metrics_file {
                        file.acknowledge();
                    }
                    self.write_metrics(&live.vm);
                }
                Wake::Continued => live.vm.tell_of_stop(),
                Wake::Ends(LoopEvent::Guest(event)) if self.state == State::Paused => last_word = Some(event),
                Wake::Ends(event) => return Ok(event),
            }
            if self.state == State::Running
                && let Some(event) = last_word.take()
            {
                return Ok(LoopEvent::Guest(event));
            }
        }
    }

    fn answer_some(&mut self, live: &mut Live) {
        // Emptied before the queue is looked at, so that a later request is not missed. Nothing to read is fine.
        let Some(wake) = self.inbox.as_ref().map(|inbox| inbox.wake().clone()) else { return };
        let _ = wake.read();
        self.finish_snapshot(live);
        if self.is_to_end {
            return;
        }
        for _ in 0..MAX_REQUESTS_PER_TURN {
            let Some(envelope) = self.inbox.as_ref().and_then(super::remote::Inbox::next) else { return };
            let (request, asker) = envelope.open();
            if let Request::CreateSnapshot(request) = request {
                self.create_snapshot(&request, asker, live);
                continue;
            }
            let answer = self.answer(request, live);
            self.counted.count(&answer);
            asker.answer(answer);
        }
        // There may be more. Fails only when the counter is full, and then the loop wakes up all the same.
        let _ = wake.write(1);
    }

    fn answer(&mut self, request: Request, live: &mut Live) -> Answer {
        let devices = live.vm.devices();
        match request {
            Request::GetInstance => Ok(Response::Instance(self.instance())),
            Request::GetConfig => Ok(Response::Config(Box::new(self.config.clone()))),
            Request::Start
            | Request::Configure(_)
            | Request::LoadSnapshot(_)
            // Answered later: see `answer_some`.
            | Request::CreateSnapshot(_) => {
                Err(Refusal::State { what: request.what(), state: self.state })
            }
            Request::SetLogger(logger) => self.set_logger(logger),
            Request::Pause => Ok(self.pause(live)),
            Request::Resume if self.is_ending() => Err(Refusal::Ending),
            Request::Resume => Ok(self.resume(live)),
            Request::SendCtrlAltDel => devices
                .i8042
                .send_ctrl_alt_del()
                .map(|()| Response::Done)
                .map_err(|source| Refusal::Device { what: "press Ctrl-Alt-Del", source: source.into() }),
            Request::PressPowerButton => devices
                .acpi_events
                .press_power_button()
                .map(|()| Response::Done)
                .map_err(|source| Refusal::Device { what: "press the power button", source: source.into() }),
            Request::Type(bytes) => Ok(Response::Typed(devices.input_port().enqueue(&bytes))),
            Request::UpdateDrive(update) => {
                self.refuse_outputs(&update, &live.output)?;
                changes::drive(update, &mut self.config, devices)
            }
            Request::UpdateNet(update) => changes::net(&update, &mut self.config, devices),
            Request::GetBalloon => {
                changes::balloon(devices, |balloon| Ok(Response::Balloon(Box::new(balloon.config().clone()))))
            }
            Request::UpdateBalloon(update) => changes::balloon_target(update, &mut self.config, devices),
            Request::GetBalloonStatistics => changes::balloon(devices, |balloon| {
                Ok(Response::BalloonStatistics(Box::new(balloon.statistics()?)))
            }),
            Request::UpdateBalloonStatistics(update) => {
                changes::balloon_polling(update, &mut self.config, devices)
            }
            Request::GetMmds | Request::PutMmds(_) | Request::PatchMmds(_) => {
                changes::metadata(request, &self.metadata)
            }
            Request::FlushMetrics => {
                self.write_metrics(&live.vm);
                Ok(Response::Done)
            }
            Request::GetMetrics => Ok(Response::Metrics(Box::new(self.gather(Some(&live.vm))))),
        }
    }

    pub(super) fn instance(&self) -> Instance {
        let Options { id, on_reset, .. } = &self.options;
        Instance { id: id.clone(), state: self.state, on_reset: *on_reset }
    }

    /// Logs differently from now on, as far as whoever runs this controller lets it.
    pub(super) fn set_logger(&mut self, update: LoggerConfig) -> Answer {
        let logger = self.config.logger.clone().unwrap_or_default().updated(update);
        if let Some(path) = &logger.log_path
            && let Some(guest) = path.metadata().ok().and_then(|file| self.config.file_of_the_guest(&file))
        {
            let (path, guest) = (path.display(), guest.display());
            return Err(Refusal::Logger(format!("cannot log to {path}: the guest has it as {guest}")));
        }
        if let Some(apply) = &self.logger {
            apply(&logger).map_err(Refusal::Logger)?;
        }
        self.config.logger = Some(logger);
        Ok(Response::Done)
    }

    /// Refuses a file for a disk that rvmm itself writes to.
    fn refuse_outputs(&self, update: &DriveUpdate, console: &Output) -> Result<(), Refusal> {
        let Some(path) = &update.path_on_host else { return Ok(()) };
        let Ok(wanted) = path.metadata() else { return Ok(()) };
        match self.output_of(&wanted, console) {
            Some(output) => Err(Refusal::OwnOutput { path: path.clone(), output }),
            None => Ok(()),
        }
    }

    /// What rvmm writes to `file`, if it does.
    pub(super) fn output_of(&self, file: &Metadata, console: &Output) -> Option<&'static str> {
        let log = self.config.logger.as_ref().and_then(|logger| logger.log_path.as_ref()?.metadata().ok());
        let metrics = self.metrics_file.as_ref().and_then(|file| file.metadata().ok());
        let outputs = [("log", log), ("metrics", metrics), ("console", console.metadata())];
        outputs
            .iter()
            .find(|(_, output)| output.as_ref().is_some_and(|output| same_file(output, file)))
            .map(|(name, _)| *name)
    }

    /// Reads every counter, those of `vm` included.
    pub(super) fn gather(&self, vm: Option<&Vm>) -> Metrics {
        let mut counters = self.metrics.gather();
        if let Some(vm) = vm {
            counters.append(vm.devices().metrics.gather());
        }
        Metrics { id: self.options.id.clone(), counters }
    }

    /// Writes a line of metrics, if there is a file for them.
    pub(super) fn write_metrics(&mut self, vm: &Vm) {
        if self.metrics_file.is_none() {
            return;
        }
        let Metrics { id, counters } = self.gather(Some(vm));
        let line = self.config.metrics.as_ref().map(|config| config.line(&id, &counters));
        let written = match (&mut self.metrics_file, line) {
            (Some(file), Some(line)) => file.write(&line),
            _ => Ok(()),
        };
        match written {
            Ok(()) => self.lines.lines.increment(),
            Err(error) => {
                self.lines.lost_lines.increment();
                log::debug!("a line of metrics is lost: {error}");
            }
        }
    }

    pub(super) fn pause(&mut self, live: &mut Live) -> Response {
        if self.state != State::Paused {
            // A vCPU may be in a write to a console that nobody reads.
            live.output.interrupt();
            live.vm.pause();
            live.output.hold();
            live.events.ignore_devices();
            self.enter(State::Paused);
            self.counted.pauses.increment();
            log::info!("the guest is paused");
        }
        Response::Done
    }

    pub(super) fn resume(&mut self, live: &mut Live) -> Response {
        if self.state != State::Running {
            live.events.watch_devices();
            live.vm.resume();
            self.enter(State::Running);
            self.counted.resumes.increment();
            log::info!("the guest goes on");
        }
        Response::Done
    }
}
