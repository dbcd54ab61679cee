//! A VM that is not started: it takes its configuration, until it is told to start or to end.

use std::io;
use std::os::fd::AsRawFd;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::live::{Live, MAX_REQUESTS_PER_TURN};
use super::remote::Envelope;
use super::request::{Answer, Refusal, Request, Response};
use super::{Controller, ControllerError, Ending, Event, changes};
use crate::config::{Part, VmConfig};
use crate::signals::Signal;

/// What ends the wait.
pub(super) enum Configured {
    /// The guest runs.
    Started(Box<Live>),
    /// There is no guest, and there will be none.
    Ended(Ending),
}

impl Controller {
    /// Serves requests until one starts the guest, or a signal ends the process.
    ///
    /// # Errors
    /// What the host said.
    pub(super) fn configure(&mut self) -> Result<Configured, ControllerError> {
        let failed = |source| ControllerError::Host { what: "wait for requests", source };
        let epoll = self.watch_requests().map_err(failed)?;
        loop {
            let mut events = [EpollEvent::default(); 2];
            match epoll.wait(-1, &mut events) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(failed(error)),
                _ => {}
            }
            while let Some(signal) = self.signals.read() {
                match signal {
                    Signal::Terminate(number) => {
                        self.told.tell(&Event::Terminated);
                        return Ok(Configured::Ended(Ending::Signal(number)));
                    }
                    Signal::Stop => crate::signals::stop_process(),
                    Signal::Continue | Signal::Resize => {}
                }
            }
            if let Some(live) = self.serve_some_unstarted() {
                return Ok(Configured::Started(Box::new(live)));
            }
        }
    }

    /// Serves some of the requests that wait; what runs from then on, when one started the guest.
    fn serve_some_unstarted(&mut self) -> Option<Live> {
        // Emptied before the queue is looked at, so that a later request is not missed. Nothing to read is fine.
        let wake = self.inbox.as_ref()?.wake().clone();
        let _ = wake.read();
        let mut live = None;
        for _ in 0..MAX_REQUESTS_PER_TURN {
            let envelope = self.inbox.as_ref().and_then(super::remote::Inbox::next)?;
            live = self.serve_unstarted(envelope);
            if live.is_some() {
                break;
            }
        }
        // There may be more, for the guest if it runs now. Fails only when the counter is full, which wakes as well.
        let _ = wake.write(1);
        live
    }

    fn watch_requests(&self) -> io::Result<Epoll> {
        let epoll = Epoll::new()?;
        let inbox = self.inbox.as_ref().map(|inbox| inbox.wake().as_raw_fd());
        for fd in [Some(self.signals.as_raw_fd()), inbox].into_iter().flatten() {
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, 0))?;
        }
        Ok(epoll)
    }

    /// Serves one request; what runs from then on, when it started the guest.
    fn serve_unstarted(&mut self, envelope: Envelope) -> Option<Live> {
        let mut live = None;
        envelope.answer(|request| {
            let made = match request {
                Request::Start => self.begin(),
                Request::LoadSnapshot(snapshot) => self.load_snapshot(&snapshot),
                request => {
                    let answer = self.answer_unstarted(request);
                    self.counted.count(&answer);
                    return answer;
                }
            };
            let answer = match made {
                Ok(started) => {
                    live = Some(started);
                    Ok(Response::Done)
                }
                Err(source) => {
                    log::error!("the VM cannot be started: {}", source.with_causes());
                    Err(Refusal::Start(Box::new(source)))
                }
            };
            self.counted.count(&answer);
            answer
        });
        live
    }

    fn answer_unstarted(&mut self, request: Request) -> Answer {
        match request {
            Request::GetInstance => Ok(Response::Instance(self.instance())),
            Request::GetConfig => Ok(Response::Config(Box::new(self.config.clone()))),
            Request::Configure(part) => self.take_part(*part),
            Request::SetLogger(logger) => self.set_logger(logger),
            Request::GetBalloon => {
                let balloon = self.config.balloon.clone().ok_or(Refusal::NotConfigured("balloon"))?;
                Ok(Response::Balloon(Box::new(balloon)))
            }
            Request::GetMmds | Request::PutMmds(_) | Request::PatchMmds(_) => {
                changes::metadata(request, &self.metadata)
            }
            Request::GetMetrics => Ok(Response::Metrics(Box::new(self.gather(None)))),
            other => Err(Refusal::State { what: other.what(), state: self.state }),
        }
    }

    fn take_part(&mut self, part: Part) -> Answer {
        self.config = VmConfig::with(&self.config, part).map_err(|error| Refusal::Config(Box::new(error)))?;
        Ok(Response::Done)
    }
}
