//! A VM while its guest is there: what it does for requests, one at a time, in the main thread.

use std::io;

use devices::metrics::Counter;
use serde::Serialize;

use super::request::{Answer, Instance, Metrics, Refusal, Request, Response, State};
use super::{Controller, changes};
use crate::console::Output;
use crate::event_loop::{EventLoop, LoopEvent, Wake};
use crate::vcpu::GuestEvent;
use crate::vm::Vm;

/// Requests that are answered before devices get their turn.
const MAX_REQUESTS_PER_TURN: usize = 16;

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
}

/// The VM that is there, with what it runs on.
struct Live<'a> {
    vm: &'a Vm,
    events: &'a mut EventLoop,
    output: &'a Output,
}

impl Controller {
    /// Serves devices and requests until something ends the guest.
    ///
    /// # Errors
    /// What epoll said.
    pub(super) fn serve(
        &mut self,
        events: &mut EventLoop,
        vm: &Vm,
        output: &Output,
    ) -> io::Result<LoopEvent> {
        let mut live = Live { vm, events, output };
        // The guest's last word, said when it was being paused: not heard before it may go on.
        let mut last_word: Option<GuestEvent> = None;
        loop {
            match live.events.run()? {
                Wake::Requests => self.answer_some(&mut live),
                Wake::Metrics => {
                    if let Some(file) = &mut self.metrics_file {
                        file.acknowledge();
                    }
                    self.write_metrics(vm);
                }
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

    fn answer_some(&mut self, live: &mut Live<'_>) {
        // Emptied before the queue is looked at, so that a later request is not missed. Nothing to read is fine.
        let Some(wake) = self.inbox.as_ref().map(|inbox| inbox.wake().clone()) else { return };
        let _ = wake.read();
        for _ in 0..MAX_REQUESTS_PER_TURN {
            let Some(envelope) = self.inbox.as_ref().and_then(super::remote::Inbox::next) else { return };
            envelope.answer(|request| {
                let answer = self.answer(request, live);
                let counts = &self.counted;
                let count = if answer.is_ok() { &counts.requests } else { &counts.refused_requests };
                count.increment();
                answer
            });
        }
        // There may be more. Fails only when the counter is full, and then the loop wakes up all the same.
        let _ = wake.write(1);
    }

    fn answer(&mut self, request: Request, live: &mut Live<'_>) -> Answer {
        let devices = live.vm.devices();
        match request {
            Request::GetInstance => {
                Ok(Response::Instance(Instance { id: self.options.id.clone(), state: self.state }))
            }
            Request::GetConfig => Ok(Response::Config(Box::new(self.config.clone()))),
            Request::Start => Err(Refusal::State { what: "to start the VM", state: self.state }),
            Request::Pause => Ok(self.pause(live)),
            Request::Resume => Ok(self.resume(live)),
            Request::SendCtrlAltDel => devices
                .i8042
                .send_ctrl_alt_del()
                .map(|()| Response::Done)
                .map_err(|source| Refusal::Device { what: "press Ctrl-Alt-Del", source: source.into() }),
            Request::UpdateDrive(update) => changes::drive(update, &mut self.config, devices),
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
            Request::FlushMetrics => {
                self.write_metrics(live.vm);
                Ok(Response::Done)
            }
            Request::GetMetrics => Ok(Response::Metrics(Box::new(self.gather(live.vm)))),
        }
    }

    fn gather(&self, vm: &Vm) -> Metrics {
        let mut counters = self.metrics.gather();
        counters.append(vm.devices().metrics.gather());
        Metrics { id: self.options.id.clone(), counters }
    }

    /// Writes a line of metrics, if there is a file for them.
    pub(super) fn write_metrics(&mut self, vm: &Vm) {
        if self.metrics_file.is_none() {
            return;
        }
        let counters = self.gather(vm).counters;
        let written = self.metrics_file.as_mut().map_or(Ok(()), |file| file.write(&counters));
        match written {
            Ok(()) => self.lines.lines.increment(),
            Err(error) => {
                self.lines.lost_lines.increment();
                log::debug!("a line of metrics is lost: {error}");
            }
        }
    }

    fn pause(&mut self, live: &mut Live<'_>) -> Response {
        if self.state != State::Paused {
            // A vCPU may be in a write to a console that nobody reads.
            live.output.interrupt();
            live.vm.pause();
            live.output.hold();
            live.events.ignore_devices();
            self.state = State::Paused;
            self.counted.pauses.increment();
            log::info!("the guest is paused");
        }
        Response::Done
    }

    fn resume(&mut self, live: &mut Live<'_>) -> Response {
        if self.state != State::Running {
            live.events.watch_devices();
            live.vm.resume();
            self.state = State::Running;
            self.counted.resumes.increment();
            log::info!("the guest goes on");
        }
        Response::Done
    }
}
